"""Latency and memory: the worker, the processes around it, and the arithmetic over what they give."""

import json
import math
import os
import pickle
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

import bertshrink
from bertshrink.errors import MeasurementError, MissingDependency, UserError
from bertshrink.meters.environment import environment
from bertshrink.meters.latency import validity
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.latency.measure import alternating_order, job_of, measure
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.latency.worker_result import PHASES, check_result
from bertshrink.meters.targets import open_target
from bertshrink.meters.targets.host import LocalRunner, worker_environment
from bertshrink.model.artifact import Artifact, ArtifactCard
from bertshrink.model.tasks import TASKS
from bertshrink.progress import Silent
from bertshrink.report.measurement import Environment, Evidence
from bertshrink.report.table.warning_texts import warning_text
from bertshrink.techniques import TECHNIQUES
from bertshrink.techniques.base import Workbench
from bertshrink.worker.inputs import feeds_of
from bertshrink.worker.job import RunSpec
from bertshrink.worker.timing import measure as run
from bertshrink.worker.timing import root_mean_square
from tests.meters.test_size import tiny_onnx
from tests.support.tiny import tiny_encoder

MACHINE = Environment(id="m", cpu="c", num_cores=1)
QUICK = LatencySettings(batch=(1, 2), length=(8,), rounds=1, seconds=0.02, warmup=0, threads=1)
LAUNCH = RunSpec("onnxruntime", Path("/m.onnx"), {}, "float32", 20, ("input_ids",), 64)
JOB = job_of(LAUNCH, QUICK, 1)

CARD = ArtifactCard(
    format="onnx",
    engine="onnxruntime",
    file="model.onnx",
    task="mlm",
    family="bert",
    precision="float32",
    inputs=("input_ids",),
    outputs=("logits",),
    max_length=64,
    vocab_size=20,
)


def honest_result():
    case = {"tokens": [8], "output_rms": 1.5, "warmup_ns": [100] * 10, "samples_ns": [100] * 5}
    return {
        "engine": {"engine": "onnxruntime"},
        "clocks_ns": {"import": 5, "load": 6, "first": 7},
        "memory_bytes": {phase: 1000 * (i + 1) for i, phase in enumerate(PHASES)},
        "pss_bytes": {phase: 1000 for phase in PHASES},
        "memory_method": "VmHWM",
        "strain": {"seconds": 1.0, "others": 0.0, "stolen": 0.0, "switches": 0, "throttled": None, "load": 0.5},
        "cases": [{"batch": batch, "length": 8, **case} for batch in (1, 2)],
    }


def worker_that(code):
    paths = os.pathsep.join((str(Path(bertshrink.__file__).parent.parent), os.environ.get("PYTHONPATH", "")))
    return LocalRunner((sys.executable, "-c", textwrap.dedent(code)), (("PYTHONPATH", paths),))


# Real models in real processes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    encoder = tiny_encoder("bert", "embedding")
    encoder.save(folder / "torch")
    (folder / "onnx").mkdir()
    onnx.save(tiny_onnx(int8=False), folder / "onnx" / "model.onnx")
    artifact = Artifact(folder / "onnx", CARD)
    return {"teacher": launch_of(encoder, folder / "torch"), "small": launch_of(artifact, folder / "onnx")}


@pytest.mark.subprocess
def test_a_model_folder_and_an_onnx_file_are_measured(launches):
    found = measure(launches, QUICK, Silent(), environment(), LocalRunner())
    for name, engine in (("teacher", "torch"), ("small", "onnxruntime")):
        figures = {(m.metric, m.conditions.phase, m.conditions.batch): m for m in found[name]}
        assert set(figures) == {
            *(("latency", "steady", batch) for batch in (1, 2)),
            ("load_time", "load", None),
            ("first_inference", "first", 1),
            *(("memory", phase, None) for phase in PHASES),
            *(("memory_shared", phase, None) for phase in PHASES),
            ("memory_over_engine", "steady", None),
        }
        for m in found[name]:
            assert m.value > 0
            assert m.evidence == Evidence.MEASURED_HOST
            assert (m.conditions.engine, m.conditions.threads, m.better) == (engine, 1, "lower")
            assert m.conditions.precision == "float32"
        latency = figures["latency", "steady", 1]
        assert len(latency.samples) == 1
        assert len(latency.samples[0]) >= 5
        assert 1e-6 < latency.value < 1
        assert figures["memory", "import", None].value > 10e6


def test_a_launch_says_how_the_model_is_loaded(launches):
    assert launches["teacher"].options == {
        "auto_class": "AutoModel",
        "outputs": ["sentence_embedding"],
        "pooling": ["mean", True],
    }
    assert launches["teacher"].inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert launches["teacher"].max_length == 64
    assert launches["small"].path.name == "model.onnx"
    assert launches["small"].path.is_absolute()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["encoder", "artifact"])
@pytest.mark.parametrize("task", TASKS)
def test_a_model_of_any_task_runs_in_a_worker(task, kind, tmp_path, one_thread):
    model = tiny_encoder("distilbert", task)
    if kind == "artifact":
        (tmp_path / "work").mkdir()
        model = TECHNIQUES["export"]()(model, Workbench(None, None, tmp_path / "work"))
    (tmp_path / "model").mkdir()
    model.save(tmp_path / "model")
    found = run(job_of(launch_of(model, tmp_path / "model"), QUICK, 1))
    assert found["engine"]["outputs"] == list(TASKS[task].outputs)
    assert [case["output_rms"] is not None for case in found["cases"]] == [True, True]


@pytest.mark.subprocess
def test_a_damaged_model_is_a_measurement_error_with_the_engines_words(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(MeasurementError, match="exit status 1") as caught:
        LocalRunner().run([replace(JOB, path=tmp_path / "m.onnx")], 60)
    assert "m.onnx" in caught.value.hint


# Workers that fail ----------------------------------------------------------------------------------------------------


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("pass", "is not a result"),
        ("print('garbage')", "is not a result"),
        ("print('[' * 300_000)", "is not a result"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("import sys; sys.exit(5)", "exit status 5"),
    ],
)
def test_a_worker_that_fails(code, message):
    with pytest.raises(MeasurementError, match=message):
        worker_that(code).run([JOB], 60)


@pytest.mark.subprocess
def test_the_last_words_are_told_without_terminal_codes():
    with pytest.raises(MeasurementError) as caught:
        worker_that("import sys; sys.exit('x' * 5000 + '\\x1b[31m out of luck')").run([JOB], 60)
    assert caught.value.hint.endswith("[31m out of luck")
    assert "\x1b" not in caught.value.hint
    assert len(caught.value.hint) < 3000


@pytest.mark.subprocess
def test_100_mb_of_output_stay_out_of_memory(tmp_path):
    code = """
    import sys
    for _ in range(100):
        sys.stdout.write('x' * 1_000_000); sys.stderr.write('y' * 1_000_000)
    """
    probe = f"""
    import pickle, resource
    from bertshrink.errors import MeasurementError
    worker, job = pickle.loads({pickle.dumps((worker_that(code), JOB))!r})  # without what these tests import
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        worker.run([job], 60)
    except MeasurementError as error:
        assert 'more than a result can have' in str(error)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(probe)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert int(found.stdout) < 10_000  # kB


@pytest.mark.subprocess
def test_a_worker_that_hangs_is_ended_with_all_its_children(tmp_path):
    code = f"""
    import pathlib, subprocess, sys, time
    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
    time.sleep(60)
    """
    start = time.monotonic()
    with pytest.raises(MeasurementError, match="no result within 2 s"):
        worker_that(code).run([JOB], 2)
    assert time.monotonic() - start < 20
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        time.sleep(0.01)
    assert not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.subprocess
def test_the_parent_sleeps_while_the_worker_works():
    start = time.process_time()
    with pytest.raises(MeasurementError):
        worker_that("import time; time.sleep(1)").run([JOB], 60)
    assert time.process_time() - start < 0.1


@pytest.mark.subprocess
def test_an_engine_that_is_not_there_says_how_to_get_it():
    with pytest.raises(MissingDependency, match="`onnxruntime`") as caught:
        worker_that("""print('{"missing": "onnxruntime"}')""").run([JOB], 60)
    assert "bertshrink[ml]" in caught.value.hint


# Workers that are -----------------------------------------------------------------------------------------------------


def test_an_honest_result_is_taken():
    assert check_result(json.dumps(honest_result()).encode(), JOB, 10**9).cases[1].batch == 2


def lie(**changes):
    return honest_result() | changes


def lie_in_case(**changes):
    result = honest_result()
    result["cases"][1] |= changes
    return result


@pytest.mark.parametrize(
    "result",
    [
        lie_in_case(samples_ns=[100, -100, 100, 100, 100]),
        lie_in_case(samples_ns=[100, 0, 100, 100, 100]),
        lie_in_case(samples_ns=[100, math.nan, 100, 100, 100]),
        lie_in_case(samples_ns=[100, "100", 100, 100, 100]),
        lie_in_case(samples_ns=[100] * 4),
        lie_in_case(samples_ns=[10**9] * 5),
        lie_in_case(warmup_ns=[]),
        lie_in_case(output_rms=None),
        lie_in_case(output_rms=math.nan),
        lie_in_case(output_rms=math.inf),
        lie_in_case(batch=3),
        lie(cases=[]),
        lie(memory_bytes={"steady": 5}),
        lie(memory_bytes={phase: 0 for phase in PHASES}),
        lie(clocks_ns={"import": 5, "load": 6}),
        lie(clocks_ns={"import": 5, "load": math.inf, "first": 7}),
        lie(extra=1),
        [],
        None,
    ],
)
def test_a_worker_that_lies(result):
    with pytest.raises(MeasurementError):
        check_result(json.dumps(result).encode(), JOB, 10**9)


def test_outputs_that_are_not_finite_are_seen():
    fine = {"a": np.full((3, 5), 2.0, np.float32), "b": np.full((4,), 2, np.int64)}
    assert root_mean_square(fine) == pytest.approx(2)
    large = np.ones(200_000, np.float32)
    for at in (0, 70_000, 199_999):
        for bad in (np.nan, np.inf, -np.inf):
            large[:] = 1
            large[at] = bad
            assert root_mean_square(fine | {"c": large}) is None


# The worker by itself -------------------------------------------------------------------------------------------------

FAKE_ENGINE = """
import mmap, sys, time, types
from bertshrink import engines
from bertshrink.worker.__main__ import main

MIB = 1 << 20
def touched(num):
    block = mmap.mmap(-1, num * MIB)
    for at in range(0, len(block), 4096):
        block[at] = 1
    return block

class Session:
    def __init__(self):
        touched(64).close()
        self.weights = touched(32)
    def run(self, feeds):
        print("engines print")
        import numpy as np
        touched(16).close()
        return {"logits": np.ones((2, 2), np.float32)}
    def describe(self):
        return {"engine": "fake"}

fake = types.ModuleType("bertshrink.engines.fake")
fake.prepare = lambda path, options: touched(100).close()
fake.load = lambda path, threads, options: Session()
sys.modules[fake.__name__] = fake
engines.ENGINES["fake"] = engines.EngineEntry("fake", "numpy", "")
import numpy.random  # numpy itself brings it in with the first random number
main()
"""


@pytest.mark.subprocess
def test_memory_of_a_known_pattern_within_a_mebibyte():
    host = worker_that(FAKE_ENGINE)
    result = host.run([replace(JOB, engine="fake")], 60)[0]
    again = host.run([replace(JOB, engine="fake")], 60)[0]
    assert result.memory_method == "VmHWM"
    peaks = {phase: result.memory_bytes[phase] / 2**20 for phase in PHASES}
    resident = peaks["import"] - 100
    expected = {"import": 100, "load": 64, "first": 32 + 16, "steady": 32 + 16}
    assert {phase: peaks[phase] - resident for phase in PHASES} == pytest.approx(expected, abs=1)
    for phase in PHASES:
        assert again.memory_bytes[phase] / 2**20 == pytest.approx(peaks[phase], abs=1)


@pytest.mark.subprocess
def test_the_worker_travels_light():
    code = (
        "import sys; import bertshrink.worker.__main__;"
        "assert not {'pydantic', 'torch', 'transformers', 'numpy', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_token_ids_are_ordinary_and_repeatable():
    job = replace(JOB, vocab_size=30_000, inputs=["input_ids", "attention_mask", "token_type_ids"])
    feeds = feeds_of(job, {"batch": 8, "length": 128})[0]
    assert all(array.shape == (8, 128) and array.dtype == np.int64 for array in feeds.values())
    assert 1000 <= feeds["input_ids"].min() <= feeds["input_ids"].max() < 30_000
    assert feeds["attention_mask"].all()
    assert not feeds["token_type_ids"].any()
    assert np.array_equal(feeds["input_ids"], feeds_of(job, {"batch": 8, "length": 128})[0]["input_ids"])
    assert feeds_of(replace(job, vocab_size=30), {"batch": 8, "length": 128})[0]["input_ids"].max() < 30
    with pytest.raises(ValueError, match="position_ids"):
        feeds_of(replace(job, inputs=["position_ids"]), {"batch": 8, "length": 128})


def test_a_workers_environment_is_short_and_the_same(monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    found = worker_environment(3)
    assert "ONEDNN_MAX_CPU_ISA" not in found
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"], found["PYTHONHASHSEED"]) == ("3", "3", "0")
    assert found["PATH"] == os.environ["PATH"]


# Rounds ---------------------------------------------------------------------------------------------------------------


@dataclass
class Recorder:
    """A target that notes who ran, and gives every model a time of its own."""

    name: ClassVar[str] = "recorder"
    evidence: ClassVar[Evidence] = Evidence.MEASURED_DEVICE
    ran: list[str] = field(default_factory=list)

    def run(self, jobs, timeout_s):
        self.ran.append("".join(Path(job.path).name for job in jobs))
        return [self._result(job, at) for at, job in enumerate(jobs)]

    def _result(self, job, at):
        slow = 2 if Path(job.path).name == "b" else 1
        result = honest_result()
        result["cases"][0]["samples_ns"] = [slow * 10**6 + 10 * len(self.ran) + at] * 5
        return check_result(json.dumps(result).encode(), job, 10**9)


def test_models_take_turns_and_the_turns_are_turned():
    target = Recorder()
    models = {name: replace(LAUNCH, path=Path(name)) for name in ("a", "b", "c")}
    settings = QUICK.model_copy(update={"rounds": 4})
    found = measure(models, settings, Silent(), MACHINE, target)
    assert target.ran == ["a", "b", "c", "abc", "cba", "abc", "cba"]
    assert [alternating_order("ab", number) for number in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]
    first = found["b"][0]
    assert [samples[0] for samples in first.samples] == pytest.approx([2.000041e-3 + n * 1e-8 for n in range(4)])
    assert all(len(samples) == 5 for samples in first.samples)
    assert first.conditions.target == "recorder"
    assert first.evidence == Evidence.MEASURED_DEVICE
    assert first.environment == "m"
    over = next(m for m in found["a"] if m.metric == "memory_over_engine")
    assert over.samples == ((3000.0,),) * 4


def test_too_few_rounds_to_compare_are_one_after_the_other():
    target = Recorder()
    models = {name: replace(LAUNCH, path=Path(name)) for name in ("a", "b")}
    measure(models, QUICK.model_copy(update={"rounds": 2}), Silent(), MACHINE, target)
    assert target.ran == ["a", "b", "b", "a"]


def test_models_that_do_not_fit_into_memory_together_run_one_after_the_other():
    target = Recorder()
    models = {name: replace(LAUNCH, path=Path(name)) for name in ("a", "b")}
    needed = 2 * honest_result()["memory_bytes"]["steady"]
    settings = QUICK.model_copy(update={"rounds": 4})
    measure(models, settings, Silent(), MACHINE.model_copy(update={"memory_bytes": needed}), target)
    assert target.ran == [*"ab", *"abba" * 2]


def test_shared_memory_is_told_of_a_process_alone():
    target = Recorder()
    models = {name: replace(LAUNCH, path=Path(name)) for name in ("a", "b")}
    found = measure(models, QUICK.model_copy(update={"rounds": 4}), Silent(), MACHINE, target)
    assert all(len(m.samples) == 1 for m in found["a"] if m.metric == "memory_shared")
    target.ran.clear()
    found = measure({"a": models["a"]}, QUICK.model_copy(update={"rounds": 2}), Silent(), MACHINE, target)
    assert target.ran == ["a", "a"]
    assert all(len(m.samples) == 2 for m in found["a"] if m.metric == "memory_shared")


def test_a_length_that_a_model_cannot_take_is_refused_before_anything_runs():
    target = Recorder()
    models = {"long": LAUNCH, "short": replace(LAUNCH, max_length=7)}
    with pytest.raises(UserError, match="limit of `short`: 7 tokens"):
        measure(models, QUICK, Silent(), MACHINE, target)
    assert target.ran == []


@pytest.mark.parametrize(
    "wrong",
    [{"batch": ()}, {"batch": (0,)}, {"length": (-1,)}, {"rounds": 0}, {"seconds": 0}, {"threads": 0}, {"x": 1}],
)
def test_settings_are_checked_and_described(wrong):
    with pytest.raises(ValidationError):
        LatencySettings(**wrong)
    assert all(info.description for info in LatencySettings.model_fields.values())


def test_this_machine_is_a_target():
    assert isinstance(open_target("cpu").runner, LocalRunner)


# Arithmetic over samples ----------------------------------------------------------------------------------------------


def doubts(samples, warmups=((1.0,) * 20,), levels=(1.0,)):
    return " ".join(warning_text(warning) for warning in validity.of_case("1x8", samples, warmups, levels))


def test_quiet_samples_raise_no_doubt():
    assert doubts([[1.0, 1.01, 0.99, 1.0, 1.005]] * 6) == ""


def test_a_warm_up_that_has_not_settled():
    assert validity.warmup_change([3.0] * 5 + [2.0] * 10 + [1.0] * 10) == pytest.approx(-0.5)
    assert validity.warmup_change([2.0] * 5 + [1.0] * 5) == pytest.approx(-0.5)
    assert validity.warmup_change([1.0]) == 0
    assert "not warmed up" in doubts([[1.0] * 5], [[1.1] * 10 + [1.0] * 10])
    assert doubts([[1.0] * 5] * 3, [[1.0] * 20, [1.1] * 10 + [1.0] * 10, [1.0] * 20]) == ""


def test_outliers_are_counted():
    quiet = [1.0 + 0.01 * (i % 5) for i in range(40)]
    assert validity.count_outliers(quiet) == 0
    assert validity.count_outliers([*quiet, 1.5, 0.5]) == 2
    assert "3 of 43 samples are outliers" in doubts([[*quiet, 2.0, 2.0, 2.0]])
    assert doubts([[*quiet, 2.0]]) == ""


def test_drift_between_the_halves():
    assert validity.drift([1.0, 1.0, 5.0, 1.1, 1.1]) == pytest.approx(0.1)
    assert validity.drift([1.0, 2.0]) == 0
    assert "+10 %" in doubts([[1.0] * 5] * 2 + [[1.1] * 5] * 2, [[1.0] * 20] * 4)


def test_outputs_that_differ_between_processes():
    assert "outputs differ" in doubts([[1.0] * 5] * 2, levels=(1.0, 1.01))
    assert doubts([[1.0] * 5] * 2, levels=(1.0, 1.0001)) == ""


def test_a_crowded_machine(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.5, 0.5))
    assert validity.initial_load_warning(2) == ()
    monkeypatch.setattr(os, "getloadavg", lambda: (3.2, 0.5, 0.5))
    monkeypatch.setattr(Path, "read_text", lambda self, **more: "3.20 0.50 0.50 4/90 1234")
    assert "load average 3.2 on 2 cores" in warning_text(validity.initial_load_warning(2)[0])
    monkeypatch.setattr(Path, "read_text", lambda self, **more: "3.20 0.50 0.50 1/90 1234")
    assert validity.initial_load_warning(2) == ()  # the load was this process's own, and is over
