"""The target `adb://`, against a script in adb's place and scripts in the runners' place: no phone was asked."""

import struct
import sys
import textwrap
from pathlib import Path

import onnx
import pytest

from bertshrink.errors import MeasurementError, MissingDependency, OutputError, UserError
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.targets import open_target
from bertshrink.meters.targets.adb import _Samples, phone
from bertshrink.meters.targets.adb.benchmark_binaries import abi_of, read_executor, read_perf_test
from bertshrink.model.artifact import Artifact
from bertshrink.progress import Silent
from bertshrink.report.measurement import Evidence
from bertshrink.report.table.warning_texts import warning_text
from tests.meters.test_latency import CARD, QUICK
from tests.meters.test_size import tiny_onnx

ADB = """
import os, sys
words, here = sys.argv[1:], os.environ["FAKE"]
if words[:1] == ["-s"]:
    if words[1] != "PIXEL":
        sys.exit(f"error: device '{words[1]}' not found")
    words = words[2:]
if os.path.exists(here + "/state"):
    sys.exit(open(here + "/state").read())
with open(here + "/said", "a") as log:
    log.write(" ".join(words) + "\\n")
if words[0] == "get-state":
    print("device")
elif words[0] == "push":
    source = here + "/script" if words[2].endswith("/runner") else words[1]
    if os.path.exists(here + "/full"):
        sys.exit("adb: error: failed to copy: remote couldn't create file: No space left on device")
    import shutil
    shutil.copy(source, words[2])
elif words[0] == "shell":
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execv("/bin/sh", ["sh", "-c", f"({words[1]}\\n); exit 0" if os.environ.get("OLD") else words[1]])
"""
"""Hundreds of these run: each imports as little as it can."""

PERF_TEST = """
import os, shutil, sys
from pathlib import Path
model, result = Path(sys.argv[-2]), Path(sys.argv[-1])
inputs = sorted((model.parent / "test_data_set_0").iterdir())
rows = inputs[0].stat().st_size // 64  # eight numbers of eight bytes in a row, and a few bytes that say so
given = Path(os.environ["FAKE"]) / "given" / str(rows)
shutil.copytree(model.parent, given, dirs_exist_ok=True)
result.write_text("".join(f"a,name,{0.001 * rows + 1e-6 * at},1,2,{at}\\n" for at in range(30)))
"""
"""As ONNX Runtime's own, without reading the files: it keeps them, so that the test reads them once."""

EXECUTOR = """
import sys
given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
number = int(given["num_executions"])
for at in range(number):
    print(f"I 00:00:00 executorch:runner.cpp:1] Iteration {at + 1} of {number}: 2.5 ms", file=sys.stderr)
print(f"Model executed successfully {number} time(s) in {2.5 * number} ms.")
"""


def script(path, code):
    path.write_text(f"#!{sys.executable} -IS\n{textwrap.dedent(code)}")  # bare, so that it begins at once
    path.chmod(0o755)
    return path


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A folder with the `adb` and what else a device has; `script` is what runs in the runner's place."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (tmp_path / "phone").mkdir()
    script(bin_folder / "adb", ADB)
    properties = {
        "ro.product.model": "Pixel 8",
        "ro.product.cpu.abilist": "arm64-v8a",
        "ro.product.cpu.abi": "arm64-v8a",
    }
    script(bin_folder / "getprop", f"import sys\nprint({properties!r}.get(sys.argv[1], ''))")
    script(bin_folder / "logcat", "print('Iteration 1 of 1: 7 ms')")
    (tmp_path / "runner").write_bytes(b"\x7fELF\x02\x01" + bytes(12) + struct.pack("<H", 183))
    script(tmp_path / "script", PERF_TEST)
    monkeypatch.setenv("PATH", str(bin_folder), prepend=":")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.setattr(phone, "PLACE", str(tmp_path / "phone"))
    yield tmp_path
    if not (tmp_path / "state").exists():
        assert not list((tmp_path / "phone").iterdir()), "something is left on the device"


@pytest.fixture
def launch(tmp_path):
    (tmp_path / "m").mkdir()
    onnx.save(tiny_onnx(int8=False), tmp_path / "m" / "model.onnx")
    return launch_of(Artifact(tmp_path / "m", CARD), tmp_path / "m")


def target(fake, serial="PIXEL"):
    return open_target(f"adb://{serial}?runner={fake / 'runner'}")


@pytest.mark.subprocess
@pytest.mark.parametrize("is_old", ["", "1"])
def test_a_commands_status_comes_back(fake, is_old, monkeypatch):
    monkeypatch.setenv("OLD", is_old)
    there = phone.AndroidDevice("PIXEL")
    assert there.shell("true")[0] == 0
    assert there.shell("echo some; false") == (1, "some\n")


@pytest.mark.subprocess
def test_an_onnx_file_is_timed_by_its_runner(fake, launch):
    settings = QUICK.model_copy(update={"rounds": 2, "warmup": 0.01, "seconds": 0.5})
    asked = target(fake)
    asked.check({"m": launch})
    found = asked.measure({"m": launch, "n": launch}, settings, Silent())
    one, two = found.measurements["m"]
    assert one.metric == "latency"
    assert (one.conditions.batch, one.conditions.length, two.conditions.batch) == (1, 8, 2)
    assert (one.conditions.target, one.conditions.threads) == ("adb://PIXEL?runner=runner", 1)
    assert one.evidence == Evidence.MEASURED_DEVICE
    assert one.value == pytest.approx(1e-3, rel=0.05)
    assert two.value == pytest.approx(2e-3, rel=0.05)
    assert [len(values) for values in one.samples] == [20, 20]  # ten of 1 ms were the warm-up
    assert found.environment.cpu == "Pixel 8"
    assert set(found.environment.packages) == {"runner"}
    assert found.environment.id == one.environment
    said = (fake / "said").read_text()
    assert said.count("model.onnx ") >= 8
    assert said.count(f"push {launch.path} ") == 2  # once a model, not once a round
    assert "allow_spinning|0" in said
    for rows in (1, 2):
        given = fake / "given" / str(rows)
        onnx.load(given / "model.onnx")
        tensors = [onnx.load_tensor(path) for path in (given / "test_data_set_0").iterdir()]
        assert tensors and all(list(tensor.dims) == [rows, 8] for tensor in tensors)


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("log", "value"),
    [(EXECUTOR, 2.5e-3), (EXECUTOR.replace("Iteration", "No"), 2.5e-3), ("print('quiet')", 7e-3)],
)
def test_a_program_is_timed_by_its_runner(fake, launch, tmp_path, log, value):
    script(fake / "script", log)
    (tmp_path / "model.pte").write_bytes(b"x")
    program = type(launch)("executorch", tmp_path / "model.pte", {}, "float32", 20, ("a", "b"), 64)
    found = target(fake).measure({"m": program}, QUICK, Silent())
    latency = found.measurements["m"][0]
    assert latency.value == pytest.approx(value)
    assert ("only the mean of each process" in " ".join(map(warning_text, latency.warnings))) == (log is not EXECUTOR)
    assert "--input_shapes=2x8,2x8" in (fake / "said").read_text()


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('out of luck')", "failed with exit status 1"),
        ("pass", "failed on the device"),
        ("import sys; open(sys.argv[-1], 'w').write('no times here')", "reports no times"),
        ("import sys; open(sys.argv[-1], 'w').write('m,nan,1,2,0')", "an unreadable time"),
        ("import sys; open(sys.argv[-1], 'w').write('m,-1,1,2,0')", "an unreadable time"),
        ("import time; time.sleep(60)", "no result within 1 s"),
    ],
)
def test_a_runner_that_fails(fake, launch, code, message):
    script(fake / "script", code)
    with pytest.raises(MeasurementError, match=message):
        target(fake).measure({"m": launch}, QUICK.model_copy(update={"timeout": 1.0}), Silent())


@pytest.mark.subprocess
def test_a_device_that_is_not_there(fake, launch, monkeypatch):
    with pytest.raises(MissingDependency, match="there is no device `OTHER`"):
        target(fake, "OTHER").check({})
    for words, message in (("error: device unauthorized.", "does not trust"), ("error: device offline", "is offline")):
        (fake / "state").write_text(words)
        with pytest.raises(MissingDependency, match=message) as caught:
            target(fake).check({})
        assert caught.value.hint
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingDependency, match="`adb` is not installed"):
        target(fake).check({})


@pytest.mark.subprocess
def test_a_device_that_goes_away(fake, launch):
    script(fake / "script", f"open({str(fake / 'state')!r}, 'w').write('error: device offline')")
    with pytest.raises(MissingDependency) as caught:
        target(fake).measure({"m": launch}, QUICK, Silent())
    assert caught.value.exit_code == 6


@pytest.mark.subprocess
def test_a_full_device(fake, launch):
    (fake / "full").touch()
    with pytest.raises(OutputError, match="cannot be written on the device"):
        target(fake).measure({"m": launch}, QUICK, Silent())


@pytest.mark.subprocess
def test_what_does_not_fit_together(fake, launch, tmp_path):
    (fake / "runner").write_bytes(b"\x7fELF\x02\x01" + bytes(12) + struct.pack("<H", 62))
    with pytest.raises(MissingDependency, match="is built for x86_64, the device runs arm64-v8a"):
        target(fake).check({"m": launch})
    (fake / "runner").write_bytes(b"#!/bin/sh")
    with pytest.raises(MissingDependency, match="built for no Android device"):
        target(fake).check({})
    assert abi_of(Path(sys.executable)) in ("x86_64", "arm64-v8a")
    (launch.path.parent / f"{launch.path.name}_data").touch()
    arm = b"\x7fELF\x02\x01" + bytes(12) + struct.pack("<H", 183)
    (fake / "runner").write_bytes(arm)
    with pytest.raises(UserError, match="keeps its weights in a file beside it"):
        target(fake).check({"m": launch})
    for other in (type(launch)("torch", tmp_path, {}, "float32", 20, (), 64),):
        with pytest.raises(UserError, match="not a file that runs on a phone"):
            target(fake).check({"m": other})
    with pytest.raises(UserError, match="no runner at"):
        open_target("adb://PIXEL?runner=/no/such").check({})


@pytest.mark.parametrize("text", ["adb://PIXEL", "adb:PIXEL", "adb://PIXEL?runer=x", "adb://PIXEL/x?runner=y"])
def test_what_is_no_address(text):
    with pytest.raises(UserError) as caught:
        open_target(text)
    assert caught.value.hint or caught.value.where


def test_warm_up_leaves_samples():
    samples = _Samples()
    samples.add([1.0] * 8, 100.0)
    samples.add([1.0] * 3, 100.0)
    samples.add([1.0] * 20, 4.5)
    assert [len(values) for values in samples.kept] == [5, 3, 15]
    assert [len(values) for values in samples.warm] == [3, 0, 5]


def test_times_are_read_as_they_are_told():
    assert read_perf_test("a,b,0.5,1,2,0\nx,0.25,9,9,1\n\nMin Latency is 3 sec\n") == [0.5, 0.25]
    assert read_executor("Iteration 1 of 2: 1.5 ms\nIteration 2 of 2: 2 ms\n") == pytest.approx([1.5e-3, 2e-3])
    assert read_executor("Model executed successfully 4 time(s) in 8.0 ms.") == pytest.approx([2e-3])
