"""A machine's roofs and where models are below them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from bertshrink.engines import is_installed
from bertshrink.errors import MeasurementError
from bertshrink.meters.environment import environment
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.latency.measure import measure
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.latency.worker_result import GemmRate, MachineRates, ReadRate
from bertshrink.meters.roofline import machine_peaks
from bertshrink.meters.roofline.inference_cost import InferenceCost, encoder_work
from bertshrink.meters.roofline.machine_peaks import MachinePeaks, jobs, measure_roofs, precisions, product_graph
from bertshrink.meters.roofline.roofline import RooflinePoint, position, roofline, timings, work_of
from bertshrink.meters.targets.host import LocalRunner
from bertshrink.model.sizes.parameter_count import facts_of
from bertshrink.progress import Silent
from bertshrink.report.measurement import Conditions, Evidence, Measurement
from bertshrink.worker import peak_rates as worker_rates
from bertshrink.worker.job import RunSpec
from bertshrink.worker.machine.identity import last_level_cache_bytes
from bertshrink.worker.peak_rates import beyond_the_caches
from tests.meters.test_latency import JOB
from tests.support.quantizing import graph
from tests.support.tiny import tiny_encoder

SMALL = {"by": "numpy", "precision": "float32", "shape": [64, 32, 16], "needs": []}
RATES_JOB = replace(
    JOB,
    do="rates",
    seconds=0.005,
    min_samples=3,
    warmup_iterations=1,
    warmup_seconds=0,
    products=[SMALL],
    streams=[1 << 16],
)
TORCH = RunSpec("torch", Path("/m"), {}, "float32", 20, ("input_ids",), 64)
ONNX = replace(TORCH, engine="onnxruntime", path=Path("/m.onnx"))


def product(precision, rate, by="numpy"):
    """A product of 1000 operations that takes as long as this rate says."""
    return GemmRate(by=by, precision=precision, shape=(10, 10, 5), samples_ns=(round(1000 / rate * 1e9), 10**15))


def stream(kind, num_bytes, rate, *, is_memory=False):
    moved = 2 * num_bytes if kind == "copy" else num_bytes
    return ReadRate(
        kind=kind, num_bytes=num_bytes, passes=1, is_memory=is_memory, samples_ns=(round(moved / rate * 1e9),)
    )


ROOFS = MachinePeaks(
    (product("float32", 1e3), product("float32", 2e3, "torch"), product("int8", 8e3, "onnxruntime")),
    (
        stream("read", 10**9, 100, is_memory=True),
        stream("copy", 10**9, 50, is_memory=True),
        stream("read", 10**6, 400),
        stream("copy", 10**6, 40),
    ),
)


# The worker's job -----------------------------------------------------------------------------------------------------


@pytest.mark.subprocess
def test_rates_are_operations_and_bytes_over_the_fastest_run():
    found = MachineRates.model_validate_json(json.dumps(worker_rates.rates(RATES_JOB)))
    (of_numpy,) = found.products
    assert len(of_numpy.samples_ns) >= 3
    assert of_numpy.rate == 2 * 64 * 32 * 16 / (min(of_numpy.samples_ns) * 1e-9)
    read, copy = found.streams
    assert (read.kind, copy.kind, read.is_memory) == ("read", "copy", False)
    assert read.passes * read.num_bytes == 64 << 20
    assert read.rate == (64 << 20) / (min(read.samples_ns) * 1e-9)
    assert copy.rate == (128 << 20) / (min(copy.samples_ns) * 1e-9)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_byte_is_read_and_copied(threads):
    run = worker_rates._streams(1 << 20, 2, threads)
    found = run["read"]()
    assert len(found) == threads
    run["copy"]()


@pytest.mark.parametrize(
    ("cache", "memory", "wanted"),
    [(1 << 20, 1 << 40, 4 << 20), (None, 1 << 40, 128 << 20), (1 << 30, 1 << 40, 1 << 30), (1 << 30, 1 << 30, 1 << 26)],
)
def test_an_array_beyond_the_caches(cache, memory, wanted, monkeypatch):
    monkeypatch.setattr(worker_rates, "last_level_cache_bytes", lambda: cache)
    monkeypatch.setattr(worker_rates, "machine", lambda: {"isa": [], "memory_bytes": memory})
    assert beyond_the_caches() == wanted


@pytest.mark.subprocess
def test_size_0_is_an_array_beyond_the_caches(monkeypatch):
    assert (last_level_cache_bytes() or 1 << 20) >= 1 << 15
    monkeypatch.setattr(worker_rates, "beyond_the_caches", lambda: 1 << 20)
    found = worker_rates.rates(replace(RATES_JOB, products=[], streams=[0]))["streams"]
    assert {s["num_bytes"] for s in found} == {1 << 20}
    assert all(s["is_memory"] for s in found)


@pytest.mark.subprocess
def test_what_the_cpu_cannot_do_is_left_out():
    odd = SMALL | {"needs": ["no_such_flag"]}
    assert worker_rates.rates(replace(RATES_JOB, products=[odd, SMALL], streams=[]))["products"][0]["by"] == "numpy"
    assert worker_rates.rates(replace(RATES_JOB, products=[odd], streams=[]))["products"] == []


@pytest.mark.subprocess
@pytest.mark.parametrize("engine", ["torch", "onnxruntime", "openvino"])
def test_an_engine_multiplies_by_itself(engine, monkeypatch):
    if not is_installed(engine):
        pytest.skip(f"{engine} is not installed")
    launch = replace(TORCH, options={"dtype": "bfloat16"}) if engine == "torch" else replace(ONNX, engine=engine)
    monkeypatch.setattr(machine_peaks, "CPU_SHAPES", ((64, 32, 16),))
    (job,) = jobs([launch], [], 1, on_gpu=False)
    own = [entry for entry in job.products if entry["by"] == engine]
    asked = replace(job, products=own, streams=[], seconds=0.005, warmup_seconds=0)
    found = MachineRates.model_validate_json(LocalRunner().answer(asked, 60))
    names = {each.precision for each in found.products}
    assert names >= {"torch": {"bfloat16"}, "onnxruntime": {"float32", "int8"}}.get(engine, set())
    assert len(names) == len(own)
    assert all(each.rate > 1e6 for each in found.products)


# The graphs that are multiplied ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_graph_of_one_product_multiplies(precision):
    model = onnx.load_from_string(product_graph(precision, (4, 8, 3)))
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.linspace(-1, 2, 32, dtype=np.float32).reshape(4, 8)
    (found,) = session.run(None, {"x": x})
    scale = 0.01 if precision == "int8" else 1
    wanted = np.repeat(x.sum(axis=1, keepdims=True), 3, axis=1) * scale
    np.testing.assert_allclose(found, wanted, atol=0.05 * scale)
    assert len(product_graph(precision, (1024, 768, 3072))) < 1000, "the matrix is made where it is multiplied"


# Which jobs -----------------------------------------------------------------------------------------------------------


def test_one_process_for_each_engine_and_reading_once():
    first, second = jobs([TORCH, ONNX, TORCH], [10 << 20, (10 << 20) + 5, 90 << 20], 2, on_gpu=False)
    assert (first.engine, second.engine, first.threads) == ("torch", "onnxruntime", 2)
    assert first.streams == [0, 10 << 20, 90 << 20]
    assert second.streams == []
    assert [e["by"] for e in first.products if e["by"] == "numpy"] == ["numpy", "numpy"]
    assert all(e["by"] == "onnxruntime" for e in second.products)


def test_precisions_are_those_that_models_need():
    half = replace(TORCH, options={"dtype": "bfloat16"})
    fast = replace(TORCH, options={"tf32": True})
    assert list(precisions("torch", [TORCH], on_gpu=False)) == ["bfloat16", "float32"]
    assert precisions("torch", [TORCH], on_gpu=False)["bfloat16"], "only where it is native"
    assert precisions("torch", [half], on_gpu=False) == {"bfloat16": ()}, "asked for, so measured as it is"
    assert list(precisions("torch", [TORCH, fast, half, ONNX], on_gpu=True)) == ["bfloat16", "float32", "tf32"]
    (job,) = jobs([ONNX, half], [], 1, on_gpu=True)
    assert {entry["by"] for entry in job.products} == {"torch"}
    assert min(entry["shape"][0] for entry in job.products) >= 4096


# Where a model is -------------------------------------------------------------------------------------------------


def test_the_roof_is_the_fastest_way_and_float32_stands_in():
    assert ROOFS.product("float32").rate == pytest.approx(2e3)
    assert ROOFS.product("float16").rate == pytest.approx(2e3)
    assert MachinePeaks((), ()).product("float32") is None
    assert ROOFS.reading(2 * 10**6).rate == pytest.approx(400)
    assert ROOFS.reading(5 * 10**8).rate == pytest.approx(100)


@pytest.mark.parametrize(
    ("operations", "num_bytes", "latency_s", "binds", "floor_s"),
    [
        ({"float32": 4000}, 4, 4.0, "arithmetic", 2.0),
        ({"float32": 4000, "int8": 8000}, 4, 6.0, "arithmetic", 3.0),
        ({"int8": 8}, 10**6, 10_000.0, "memory", 2500.0),
    ],
)
def test_the_floor_is_the_slower_of_arithmetic_and_memory(operations, num_bytes, latency_s, binds, floor_s):
    found = position(InferenceCost(operations, num_bytes), latency_s, ROOFS)
    assert found.binds == binds
    assert found.floor_s == pytest.approx(floor_s)
    assert found.share == pytest.approx(floor_s / latency_s)


def test_no_rates_no_position():
    assert position(InferenceCost({"float32": 1}, 1), 1.0, MachinePeaks((), ROOFS.streams)) is None


def test_it_is_told_in_a_sentence():
    work = InferenceCost({"float32": 61 * 10**9}, 5 * 10**9)
    told = RooflinePoint(work, 2.0, 1.22, "arithmetic").sentence("8x128")
    assert told == ("8x128: bound by arithmetic, 30.5 Gop/s is 61 % of the machine's peak; at most 1.6x remains")
    assert "bound by memory, 2.50 GB/s" in RooflinePoint(work, 2.0, 1.0, "memory").sentence("1x8")
    assert RooflinePoint(work, 2.0, 1.96, "memory").sentence("1x8").endswith("nothing is left")


def test_the_roofs_as_measurements():
    common = {"environment": "m", "evidence": Evidence.MEASURED_HOST}
    found = ROOFS.measurements(Conditions(threads=2), common)
    rates = {(m.conditions.engine, m.conditions.precision): m.value for m in found if m.metric == "gemm_rate"}
    assert rates == pytest.approx({("numpy", "float32"): 1e3, ("torch", "float32"): 2e3, ("onnxruntime", "int8"): 8e3})
    memory = {m.conditions.phase: m for m in found if m.metric == "memory_rate"}
    assert {phase: m.value for phase, m in memory.items()} == pytest.approx({"read": 100, "copy": 50})
    assert (memory["read"].unit, memory["read"].environment, memory["read"].conditions.threads) == ("B/s", "m", 2)


def latency(metric="latency", **conditions):
    about = Conditions(**({"batch": 2, "length": 8, "precision": "float32"} | conditions))
    return Measurement(metric=metric, unit="s", samples=((2.0, 2.0), (4.0,)), better="lower", conditions=about)


def test_a_devices_own_clock_goes_before_the_hosts():
    host, device, texts = latency(), latency("device_latency"), latency(workload="texts", length=None)
    assert timings([host, texts]) == [host]
    assert timings([host, device]) == [device]
    assert timings([]) == []


def test_the_work_of_what_was_launched(tmp_path):
    encoder = tiny_encoder("bert", "token-classification", num_hidden_layers=2)
    (tmp_path / "m").mkdir()
    encoder.save(tmp_path / "m")
    launch = launch_of(encoder, tmp_path / "m")
    exact = encoder_work(facts_of(encoder), 2, 8)
    assert work_of(launch, latency()) == exact
    half = replace(launch, options={**launch.options, "dtype": "bfloat16"})
    assert work_of(half, latency()).operations == {"bfloat16": exact.num_operations}
    fast = replace(launch, options={**launch.options, "tf32": True})
    assert work_of(fast, latency()) == InferenceCost({"tf32": exact.num_operations}, exact.num_bytes)
    onnx.save(graph("bert", "embedding"), tmp_path / "m.onnx")
    file = replace(ONNX, path=tmp_path / "m.onnx")
    assert list(work_of(file, latency()).operations) == ["float32"]
    assert list(work_of(file, latency(precision="float16")).operations) == ["float32"], "stored, not multiplied"
    there = replace(file, engine="openvino")
    assert list(work_of(there, latency(precision="bfloat16")).operations) == ["bfloat16"]
    assert list(work_of(there, latency(precision="int8 with bfloat16")).operations) == ["bfloat16"]
    assert work_of(replace(file, path=tmp_path / "m.ort"), latency()) is None


# All of it ------------------------------------------------------------------------------------------------------------


class Answers:
    """A runner whose machine has made-up rates."""

    def __init__(self):
        self.jobs = []

    def answer(self, job, timeout_s):
        self.jobs.append(job)
        found = MachineRates(products=ROOFS.products, streams=ROOFS.streams if job.streams else (), cache_bytes=None)
        return found.model_dump_json().encode()


def test_models_below_made_up_roofs(tmp_path):
    encoder = tiny_encoder(num_hidden_layers=2)
    (tmp_path / "m").mkdir()
    encoder.save(tmp_path / "m")
    launches = {
        "m": launch_of(encoder, tmp_path / "m"),
        "other": replace(ONNX, path=Path("/m.pte"), engine="executorch"),
    }
    found = {"m": [latency()], "other": [latency()]}
    runner = Answers()
    made = roofline(launches, found, runner, 2)
    work = encoder_work(facts_of(encoder), 2, 8)
    floor_s = max(work.num_operations / 2e3, work.num_bytes / 400)
    figures = {m.metric: m for m in made.models["m"]}
    assert figures["share_of_peak"].rounds == pytest.approx([floor_s / 2, floor_s / 4])
    assert figures["operation_rate"].value == pytest.approx(work.num_operations * (1 / 2 + 1 / 4) / 2)
    assert figures["byte_rate"].unit == "B/s"
    assert figures["share_of_peak"].conditions == latency().conditions
    assert len(made.notes["m"]) == 1
    assert (made.models["other"], made.notes["other"]) == ([], [])
    assert {m.metric for m in made.machine} == {"gemm_rate", "memory_rate"}
    assert runner.jobs[0].streams[1:] == [1 << 20], "a megabyte at least"


def test_of_unknown_work_nothing_is_measured():
    runner = Answers()
    made = roofline({"m": replace(ONNX, path=Path("/m.pte"))}, {"m": [latency()]}, runner, 1)
    assert (made.machine, made.models, runner.jobs) == ([], {"m": []}, [])


def test_on_a_gpu_the_roofs_are_the_gpus(tmp_path):
    encoder = tiny_encoder(num_hidden_layers=1)
    (tmp_path / "m").mkdir()
    encoder.save(tmp_path / "m")
    runner = Answers()
    roofline({"m": launch_of(encoder, tmp_path / "m")}, {"m": [latency("device_latency", target="gpu")]}, runner, 1)
    (job,) = runner.jobs
    assert {entry["by"] for entry in job.products} == {"torch"}


@pytest.mark.parametrize("text", ["", "{}", '{"products": [], "streams": [], "cache_bytes": 0}'])
def test_a_worker_that_lies_about_rates(text):
    class Liar:
        def answer(self, job, timeout_s):
            return text.encode()

    with pytest.raises(MeasurementError, match="is not a result"):
        measure_roofs(Liar(), [TORCH], [], 1)


@pytest.mark.subprocess
def test_a_tiny_model_and_its_real_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_peaks, "SECONDS", 0.02)
    monkeypatch.setattr(machine_peaks, "CPU_SHAPES", ((256, 256, 256),))
    onnx.save(graph("bert", "embedding"), tmp_path / "m.onnx")
    launch = replace(ONNX, path=tmp_path / "m.onnx", inputs=("input_ids", "attention_mask", "token_type_ids"))
    settings = LatencySettings(batch=(1,), length=(8,), rounds=1, seconds=0.02, warmup=0, threads=1)
    found = measure({"m": launch}, settings, Silent(), environment(), LocalRunner())
    made = roofline({"m": launch}, found, LocalRunner(), 1)
    (share,) = (m for m in made.models["m"] if m.metric == "share_of_peak")
    assert 0 < share.value < 1.5
    by = {(m.conditions.engine, m.conditions.precision): m.value for m in made.machine if m.metric == "gemm_rate"}
    assert set(by) == {("numpy", "float32"), ("onnxruntime", "float32"), ("onnxruntime", "int8")}
    assert all(1e8 < rate < 1e14 for rate in by.values())
    assert share.environment == made.machine[0].environment


@pytest.mark.subprocess
def test_counting_needs_no_engine(tmp_path):
    encoder = tiny_encoder(num_hidden_layers=1)
    (tmp_path / "m").mkdir()
    encoder.save(tmp_path / "m")
    code = """
import sys
from pathlib import Path
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.meters.roofline.inference_cost import encoder_work
print(encoder_work(read_facts(Path(sys.argv[1])), 1, 8).num_operations, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(encoder_work(facts_of(encoder), 1, 8).num_operations), "False"]
