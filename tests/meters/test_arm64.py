"""Instruction counts on emulated cores: what is believed, what is refused, and the real thing where it is prepared."""

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bertshrink.errors import MeasurementError, MissingDependency, UserError
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.latency.measure import job_of
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.latency.worker_result import Output
from bertshrink.meters.targets import open_target
from bertshrink.meters.targets.arm64 import plugin as plugins
from bertshrink.meters.targets.arm64 import sysroot as roots
from bertshrink.meters.targets.arm64 import target as targets
from bertshrink.meters.targets.arm64.cores import CPUS
from bertshrink.meters.targets.arm64.count import (
    FLOAT,
    QUANTIZED,
    EmulatedRunner,
    check_outputs,
    command,
    counting_job,
    linked,
    output_distance,
    prepare_guest,
    read_marks,
    variables,
)
from bertshrink.meters.targets.worker_process import run_in
from bertshrink.model.artifact import Artifact
from bertshrink.progress import Silent
from bertshrink.report.measurement import Evidence
from bertshrink.worker.inputs import feeds_of, random_feed
from tests.meters.test_latency import CARD, LAUNCH
from tests.support.fake_emulators import PER_TOKEN, fake_qemu, fake_root

WIDTH = 64
SETTINGS = LatencySettings(batch=(1, 2), length=(8,))
NEEDS_COMPILER = pytest.mark.skipif(not any(map(shutil.which, plugins.COMPILERS)), reason="there is no C compiler")


def test_a_models_files_are_linked_to_where_the_program_looks(tmp_path):
    for name in ("model_quantized.onnx", "model_quantized.onnx_data", "model.ort"):
        (tmp_path / name).write_text(name)
    guest = tmp_path / "guest"
    guest.mkdir()
    assert linked(tmp_path / "model_quantized.onnx", guest) == Path("/model.onnx")
    assert linked(tmp_path / "model.ort", guest) == Path("/model.ort")
    assert {path.name: path.read_text() for path in guest.iterdir()} == {
        "model.onnx": "model_quantized.onnx",
        "model_quantized.onnx_data": "model_quantized.onnx_data",
        "model.ort": "model.ort",
    }


LOOPS = """
import os
def turn(times):
    for _ in range(times):
        pass
os.getsid(0)
turn(100_000)
os.getsid(0)
turn(200_000)
os.getsid(0)
child = os.fork()
if child == 0:
    turn(400_000)
    os._exit(0)
os.waitpid(child, 0)
os.getsid(0)
"""


def is_prepared():
    try:
        open_target("arm64:a76").check({})
    except MissingDependency:
        return False
    return True


NEEDS_ROOT = pytest.mark.skipif(not is_prepared(), reason="`bertshrink targets setup arm64` has not been run here")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An emulator that is none, a system that is none, and a plugin that is compiled already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(roots.VARIABLE, str(fake_root(tmp_path / "root")))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    fake_qemu(tmp_path / "bin")
    compiled(tmp_path)
    return tmp_path


def compiled(folder):
    place = plugins._place(plugins.find_qemu())
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"")


def chain(num_products):
    """Rows of a table (20 x WIDTH), multiplied with so many matrices (WIDTH x WIDTH) one after another."""
    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5 for i in range(num_products)}
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["x0"])]
    for i in range(num_products):
        out = "logits" if i == num_products - 1 else f"x{i + 1}"
        nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [out]))
    stored = {"table": rng.normal(size=(20, WIDTH)), **weights}
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "L"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", "L", WIDTH])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    return launch_at(tmp_path_factory.mktemp("models") / "m", chain(2))


def launch_at(folder, model):
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    return launch_of(Artifact(folder, CARD), folder)


# What is counted ------------------------------------------------------------------------------------------------------


@pytest.mark.subprocess
def test_instructions_of_every_model_at_every_shape(here, launch):
    target = open_target("arm64:a76")
    target.check({"a": launch})
    found = target.measure({"a": launch, "b": launch}, SETTINGS, Silent())
    assert list(found.measurements) == ["a", "b"]
    for measured in found.measurements.values():
        assert [(m.conditions.batch, m.conditions.length, m.value) for m in measured] == [
            (1, 8, 8 * PER_TOKEN),
            (2, 8, 16 * PER_TOKEN),
        ]
        for m in measured:
            assert (m.metric, m.unit, m.better, m.is_exact) == ("instructions", "count", "lower", True)
            assert m.evidence == Evidence.EMULATED_INSTRUCTIONS
            assert m.environment == found.environment.id
            assert m.conditions.model_dump(include={"target", "engine", "precision", "threads"}) == {
                "target": "arm64:a76",
                "engine": "onnxruntime",
                "precision": "float32",
                "threads": 1,
            }
    assert found.notes == ()


@pytest.mark.subprocess
def test_the_environment_is_the_emulated_machine_and_nothing_of_this_one(here, launch):
    machines = {
        cpu: targets.describe(CPUS[cpu], roots.find_root(), plugins.Qemu("/anywhere/qemu-aarch64", "7.2.22"))
        for cpu in CPUS
    }
    assert len({machine.id for machine in machines.values()}) == len(CPUS)
    a76 = machines["a76"]
    assert "asimddp" in a76.isa
    assert "asimddp" not in machines["a53"].isa
    assert "i8mm" in machines["armv8.6"].isa
    assert a76.packages == {"qemu": "7.2.22", "numpy": "2.4.6", "onnxruntime": "1.24.1"}
    assert (a76.memory_bytes, a76.gpu, a76.hypervisor) == (0, None, None)
    other = targets.describe(CPUS["a76"], roots.find_root(), plugins.Qemu("/usr/bin/qemu-aarch64", "8.2.0"))
    assert other.id != a76.id


@pytest.mark.subprocess
def test_large_shapes_are_left_out_for_all_models_and_named(here, launch, monkeypatch):
    monkeypatch.setattr(targets, "MAX_INSTRUCTIONS", 20 * PER_TOKEN)
    found = open_target("arm64:a53").measure({"a": launch}, LatencySettings(batch=(1, 8), length=(8, 16)), Silent())
    assert [(m.conditions.batch, m.conditions.length) for m in found.measurements["a"]] == [(1, 8), (1, 16)]
    assert len(found.notes) == 1
    assert "8x8, 8x16" in found.notes[0]


@pytest.mark.subprocess
def test_the_smallest_shape_is_counted_however_large(here, launch, monkeypatch):
    monkeypatch.setattr(targets, "MAX_INSTRUCTIONS", 1)
    found = open_target("arm64:a53").measure({"a": launch}, LatencySettings(batch=(8,), length=(16,)), Silent())
    assert [m.value for m in found.measurements["a"]] == [128 * PER_TOKEN]


def test_the_job_holds_its_tokens_and_needs_no_random_numbers():
    job = replace(job_of(LAUNCH, SETTINGS, 4), cases=[{"batch": 2, "length": 8}])
    told = counting_job(job)
    assert (told.do, told.threads, told.iterations) == ("count", 1, 3)
    fed, random = feeds_of(told, told.cases[0])[0], random_feed(job, 2, 8)
    assert fed.keys() == random.keys()
    assert all(np.array_equal(fed[name], random[name]) for name in fed)


@pytest.mark.subprocess
def test_files_of_other_engines_are_refused(here, launch):
    with pytest.raises(UserError, match=r"`teacher` runs on torch.*ONNX Runtime") as caught:
        open_target("arm64:a76").check({"a": launch, "teacher": replace(launch, engine="torch")})
    assert "export" in caught.value.hint


@pytest.mark.subprocess
def test_a_shape_that_a_model_does_not_take_is_refused(here, launch):
    with pytest.raises(UserError, match="length 128 exceeds the limit of `a`: 64 tokens"):
        open_target("arm64:a76").measure({"a": launch}, LatencySettings(batch=(1,), length=(128,)), Silent())


# What is refused ------------------------------------------------------------------------------------------------------

WRONG = """
told = json.loads(out)
for output in told["outputs"].values():
    output["values"] = [value * (1 + 0.2 * (i % 2)) for i, value in enumerate(output["values"])]
out = json.dumps(told).encode()
"""


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (WRONG, r"gives another `logits` than here: 1 - cosine is 0\.0\d+ .* the farthest value is off by"),
        ("out = out.replace(b'logits', b'other')", "outputs of other names or shapes"),
        ("out = out.replace(b'[1, 8, ', b'[1, 4, ')", "outputs of other names or shapes"),
        ("out = b'no result'", "is not a result"),
        ("sys.stdout.buffer.write(out); raise SystemExit", "counted nothing"),
        ("marks = ['x', 1]", "counted nothing"),
        ("marks = marks[:2]", "4 growing ones were expected, not"),
        ("marks = marks[::-1]", "4 growing ones were expected, not"),
        ("marks[2] = marks[1]", "4 growing ones were expected, not"),
        ("print('uncaught target signal 4', file=sys.stderr); raise SystemExit(1)", "failed with exit status 1"),
        ("import signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("time.sleep(60)", "no result within 3 s"),
        ("out = b'x' * 70_000_000", "wrote 70000000 bytes"),
    ],
)
def test_a_run_that_dies_hangs_or_lies_gives_no_count(here, launch, behaviour, message):
    fake_qemu(here / "bin", behaviour)
    settings = LatencySettings(batch=(1,), length=(8,), timeout=3)
    with pytest.raises(MeasurementError, match=message):
        open_target("arm64:a76").measure({"a": launch}, settings, Silent())


def test_how_far_outputs_are_apart():
    own = (1.0, -2.0, 3.0)
    assert output_distance(own, own) == pytest.approx((0, 0), abs=1e-15)
    assert output_distance((2.0, -4.0, 6.0), own) == pytest.approx((0, 1), abs=1e-15)
    assert output_distance((2.0, 1.0, 0.0), own) == pytest.approx((1, 1))
    assert output_distance((0.0, 0.0), (0.0, 0.0)) == (0, 0)
    assert output_distance((1.0, 0.0), (0.0, 0.0)) == (math.inf, math.inf)
    assert output_distance((1.0,), own) == (math.inf, math.inf)


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("moved", "limits", "fits"),
    [
        (0, FLOAT, True),
        (FLOAT.difference / 2, FLOAT, True),
        (2 * FLOAT.difference, FLOAT, False),
        (2 * FLOAT.difference, QUANTIZED, True),
        (2 * QUANTIZED.difference, QUANTIZED, False),
        (math.inf, QUANTIZED, False),
    ],
)
def test_one_value_far_off_is_enough_to_refuse(moved, limits, fits):
    rng = np.random.default_rng(0)
    values = rng.normal(size=4000)
    other = values.copy()
    other[7] += moved * np.abs(values).max()
    own = Output(shape=(4000,), values=tuple(values))
    emulated = own.model_copy(update={"values": tuple(other)})
    assert math.isinf(moved) or output_distance(tuple(other), tuple(values))[0] < limits.distance
    if fits:
        return check_outputs({"x": emulated}, {"x": own}, limits, "m")
    with pytest.raises(MeasurementError, match="another `x`"), np.errstate(invalid="ignore"):
        check_outputs({"x": emulated}, {"x": own}, limits, "m")


# What is missing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("arm64:a75", "no target `arm64:a75`", "did you mean `arm64:a7"),
        ("arm64:max", "no target `arm64:max`", None),
        ("arm64", "needs a core", "arm64:a53, arm64:a72, arm64:a76, arm64:armv8.6"),
    ],
)
def test_an_unknown_core_is_named_with_what_is_near(text, message, hint):
    with pytest.raises(UserError, match=message) as caught:
        open_target(text)
    assert hint is None or hint in caught.value.hint


@pytest.mark.subprocess
def test_without_the_emulator(here, monkeypatch):
    monkeypatch.setenv("PATH", str(here / "nowhere"))
    with pytest.raises(MissingDependency, match="`qemu-aarch64` is not installed") as caught:
        open_target("arm64:a76").check({})
    assert "apt-get install qemu-user" in caught.value.hint


@pytest.mark.subprocess
def test_an_emulator_without_a_version(here):
    fake_qemu(here / "bin").write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(MissingDependency, match="does not say its version"):
        plugins.find_qemu()


@pytest.mark.subprocess
def test_without_the_prepared_system(here, monkeypatch):
    monkeypatch.setenv(roots.VARIABLE, str(here / "nothing"))
    with pytest.raises(MissingDependency, match="not prepared") as caught:
        open_target("arm64:a76").check({})
    assert "bertshrink targets setup arm64" in caught.value.hint
    monkeypatch.setenv(roots.VARIABLE, str(here))
    with pytest.raises(MissingDependency, match=r"no usable `about\.json`"):
        open_target("arm64:a76").check({})


@pytest.mark.subprocess
def test_a_damaged_system_is_not_run(here, launch):
    (here / "root" / "site" / "b").write_text("c")
    with pytest.raises(MissingDependency, match="damaged") as caught:
        open_target("arm64:a76").measure({"a": launch}, SETTINGS, Silent())
    assert "--force" in caught.value.hint
    (here / "root" / "MANIFEST.json").unlink()
    with pytest.raises(MissingDependency, match="never sealed"):
        roots.check_root(roots.find_root())


def test_where_the_system_lies(tmp_path, monkeypatch):
    monkeypatch.delenv(roots.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert roots.place().parent == tmp_path / "bertshrink" / "arm64"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # to be ignored, says the XDG specification
    assert roots.place().parent == Path.home() / ".cache" / "bertshrink" / "arm64"
    monkeypatch.setenv(roots.VARIABLE, str(tmp_path / "mine"))
    assert roots.place() == tmp_path / "mine"


# The plugin -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "api"), [("6.2.0", 1), ("7.2.22", 1), ("8.2.2", 1), ("9.0.0", 2), ("10.1", 2)])
def test_the_version_of_the_plugin_interface(version, api):
    assert plugins.Qemu("q", version).plugin_api == api


@pytest.mark.subprocess
@NEEDS_COMPILER
def test_the_plugin_is_compiled_once_for_each_emulator(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    old, new = plugins.Qemu("q", "7.2.22"), plugins.Qemu("q", "9.1.0")
    made = plugins.plugin(old)
    assert made.read_bytes()[:4] == b"\x7fELF"
    assert plugins.plugin(new) != made
    monkeypatch.setattr(plugins, "find_compiler", lambda: pytest.fail("it is compiled already"))
    assert plugins.plugin(old) == made
    assert len(list(made.parent.iterdir())) == 2


@pytest.mark.subprocess
def test_a_compiler_that_fails_and_none_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'fatal error: stdio.h: No such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(MissingDependency, match="cannot make the plugin") as caught:
        plugins.plugin(plugins.Qemu("q", "7.2.22"))
    assert "stdio.h: No such file" in caught.value.hint
    assert list((tmp_path / "cache" / "bertshrink" / "arm64").iterdir()) == []
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(MissingDependency, match="no C compiler"):
        plugins.check_plugin(plugins.Qemu("q", "7.2.22"))


def test_the_plugin_is_under_the_emulators_licence_and_copies_no_header():
    text = plugins.SOURCE.read_text(encoding="utf-8")
    assert text.startswith("/* SPDX-License-Identifier: GPL-2.0-or-later")
    assert "qemu-plugin.h" not in text
    assert "glib" not in text


# The real thing -------------------------------------------------------------------------------------------------------


@NEEDS_ROOT
@pytest.mark.slow
def test_counts_are_the_same_every_time_and_see_one_small_product_more(tmp_path):
    models = {
        name: launch_at(tmp_path / name, chain(n)) for name, n in (("base", 100), ("longer", 101), ("again", 100))
    }
    found = open_target("arm64:a53").measure(models, LatencySettings(batch=(1,), length=(8,)), Silent())
    base, longer, again = (found.measurements[name][0].value for name in models)
    assert again == base
    assert 0.002 < longer / base - 1 < 0.02
    assert base > 100 * 8 * WIDTH * WIDTH / 4, "a vector instruction multiplies four numbers at most"


@NEEDS_ROOT
def test_the_plugin_counts_by_the_instruction(tmp_path):
    """Twice as many turns of a loop are twice as many instructions, and a mark is where it was made."""
    emulated = EmulatedRunner(
        plugins.find_qemu(), CPUS["a53"].model, roots.find_root().folder, plugins.plugin(plugins.find_qemu())
    )
    guest = prepare_guest(tmp_path / "run", emulated)
    (guest / "p.py").write_text(LOOPS)
    (tmp_path / "run" / "job").touch()
    assert run_in(tmp_path / "run", command(emulated, "/p.py"), variables(), 60) == 0
    start, once, twice, forked = read_marks(tmp_path / "run", 4)
    assert 2 * (once - start) == pytest.approx(twice - once, rel=0.01)
    assert forked - twice < once - start, "a child's instructions are its own"
