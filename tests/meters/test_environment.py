"""The machine's fingerprint."""

import subprocess
import sys
import time

import pytest

from bertshrink.meters.environment import environment, fingerprint
from bertshrink.worker.machine import identity as module

pytestmark = pytest.mark.subprocess


def test_it_is_quick_and_the_same_twice():
    first = environment()
    start = time.perf_counter()
    assert environment() == first
    assert time.perf_counter() - start < 1  # some 20 ms on an idle machine
    assert first.cpu
    assert first.num_cores >= 1
    assert first.memory_bytes > 2**28
    assert first.packages["numpy"]
    assert len(first.id) == 12


def test_the_id_hangs_on_what_decides_speed():
    found = environment()
    for change in ({"cpu": "another"}, {"isa": ("sve",)}, {"packages": {"torch": "0"}}, {"gpu": "one"}):
        assert fingerprint(found.model_copy(update=change)) != found.id
    assert fingerprint(found.model_copy(update={"memory_bytes": found.memory_bytes + 4096})) == found.id


@pytest.mark.subprocess
def test_it_imports_no_engine():
    code = (
        "import sys; from bertshrink.meters.environment import environment; environment();"
        "assert not {'torch', 'transformers', 'onnxruntime', 'onnx', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gpu_from_the_driver_or_the_program(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_NVIDIA", tmp_path / "gpus")
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3'\necho second\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert environment().gpu == "NVIDIA H100 80GB HBM3"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert environment().gpu is None
    (tmp_path / "gpus" / "0000:00").mkdir(parents=True)
    (tmp_path / "gpus" / "0000:00" / "information").write_text("Model: \t NVIDIA A10\nIRQ: 5\n")
    assert environment().gpu == "NVIDIA A10"


def test_an_arm_board_has_a_name(monkeypatch):
    fields = {"CPU implementer": "0x41", "CPU part": "0xd0b", "Features": "fp asimd asimddp"}
    monkeypatch.setattr(module, "_cpu_fields", lambda: fields)
    found = environment()
    assert "0x41 0xd0b" in found.cpu
    assert found.isa == ("asimd", "asimddp")
