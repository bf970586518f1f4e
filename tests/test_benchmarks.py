"""The benchmarks as far as they can be proven without running them: they start, refuse in time, and count rightly."""

import ast
import runpy
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted(FOLDER.glob("*.py"))
PARTS = {"distill_profile", "nncf_int8", "textbrewer_loop"}
"""Scripts that others call."""


@pytest.fixture
def load(monkeypatch):
    """Run a benchmark's file under a name, with arguments, in this process."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(name, *arguments, as_name="__main__"):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        return runpy.run_path(str(FOLDER / f"{name}.py"), run_name=as_name)

    return run


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_says_what_it_measures(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", [path.stem for path in SCRIPTS if path.stem not in PARTS])
def test_a_benchmark_tells_its_arguments(load, capsys, name):
    with pytest.raises(SystemExit) as ended:
        load(name, "--help")
    assert ended.value.code == 0
    assert f"python benchmarks/{name}.py" in capsys.readouterr().out


def test_utilisation_of_a_gpu_is_a_missing_target_without_one(load, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        load("distill_mfu")
    assert ended.value.code == 6
    assert "no CUDA GPU" in capsys.readouterr().err


def test_a_gpu_is_a_missing_target_without_one(load, capsys, tmp_path, monkeypatch):
    from bertshrink.meters.latency.worker_result import Devices
    from bertshrink.meters.targets.gpu import GpuRunner

    monkeypatch.setattr(GpuRunner, "devices", lambda self, engine: Devices(version="2", cuda=None, gpus=()))
    with pytest.raises(SystemExit) as ended:
        load("gpu", "--out", str(tmp_path / "out"))
    assert ended.value.code == 6
    assert "no CUDA GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_flops_are_those_that_torch_counts(load):
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=40,
        attn_implementation="eager",
    )
    ids = torch.randint(0, 64, (3, 7))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        BertForMaskedLM(config).eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    flops_per_token = load("distill_mfu", as_name="benchmark")["flops_per_token"]
    assert counter.get_total_flops() == flops_per_token(config, 7) * ids.numel()


def test_parts_within_parts_are_counted_once(load, monkeypatch):
    module = load("distill_profile", as_name="benchmark")
    now = iter([0.0, 1.0, 4.0, 6.0])
    monkeypatch.setattr(module["time"], "perf_counter", lambda: next(now))
    watch = module["Stopwatch"]()
    watch.is_on = True
    with watch.part("outer"), watch.part("inner"):
        pass
    assert dict(watch.seconds) == {"inner": 3.0, "outer": 3.0}


@pytest.mark.subprocess
def test_a_loader_goes_on_after_a_question_that_ends_its_process(load, tmp_path):
    module = load("loaders", as_name="loaders_here")
    code = module["_PYTHON"].format(
        code="import os\n"
        "def answer(folder, file, batches):\n"
        "    if folder == 'dies': os._exit(7)\n"
        "    if folder == 'raises': raise ValueError('no such family')\n"
        "    return [[1.0, 2.0]]"
    )
    loader = module["Loader"](code, "here", lambda subject: True)
    questions = [(name, "file", [["a"]]) for name in ("one", "dies", "raises", "two")]
    found = module["answers"](loader, questions, tmp_path)
    assert found == [[[1.0, 2.0]], "exit code 7", "ValueError: no such family", [[1.0, 2.0]]]


def test_the_table_of_loaders_tells_the_worst_way_and_why_one_fails(load):
    module = load("family_loaders", as_name="benchmark")
    table = {
        ("bert", "onnx", "openvino"): [(1.0, 1.0), (0.9, 0.8)],
        ("bert", "int8", "openvino"): [(0.7, 1.0)],
        ("gte", "onnx", "openvino"): ["ValueError: what is `gte`? Nobody knows. Update.\n\nNow."],
        ("gte", "int8", "openvino"): ["ValueError: what is `gte`? Nobody knows. Update.\n\nNow."],
    }
    assert module["markdown"](table).splitlines() == [
        "| `model_type` | ONNX: OpenVINO |",
        "| --- | --- |",
        "| `bert` | 0.900000, int8 0.700000 |",
        "| `gte` | no (1) |",
        "| too long, all | 0.800000 |",
        "",
        "(1) ValueError: what is `FAMILY`? Nobody knows",
    ]


def test_every_loader_has_a_column_and_every_tokenizer_a_family(load):
    from bertshrink.model.families import FAMILIES
    from tests.support.tokenizers_that_cut import KINDS

    module = load("family_loaders", as_name="benchmark")
    assert set(module["COLUMNS"]) == set(module["LOADERS"])
    assert set(module["KINDS"]) < set(KINDS)
    assert {family for families in module["KINDS"].values() for family in families} < set(FAMILIES)
