"""The target `gpu` without a GPU: what it asks for, what it refuses, and what a made-up one gives."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bertshrink.engines import is_installed
from bertshrink.errors import MissingDependency, UserError
from bertshrink.meters.environment import environment
from bertshrink.meters.latency.measure import measure
from bertshrink.meters.latency.to_measurements import MeasurementBuilder
from bertshrink.meters.latency.validity import of_machine, validity_of
from bertshrink.meters.latency.worker_result import WorkerResult, check_result
from bertshrink.meters.targets import TARGETS, open_target
from bertshrink.meters.targets.gpu import GpuRunner, GpuTarget, on_gpu
from bertshrink.progress import Silent
from bertshrink.report.measurement import Conditions, Evidence
from bertshrink.report.table.warning_texts import warning_text
from bertshrink.worker.__main__ import work
from bertshrink.worker.job import RunSpec
from bertshrink.worker.list_gpus import devices
from bertshrink.worker.machine import nvidia
from bertshrink.worker.machine.interference import Interference
from tests.meters.test_latency import JOB, LAUNCH, QUICK, honest_result, worker_that
from tests.support.fake_nvidia_smi import install

TORCH = RunSpec("torch", Path("/m"), {}, "float32", 20, ("input_ids",), 64)
STATE = {"clocks_event_reasons.active": "1980, 2619, 51, 402.5, 0x0000000000000024\\n"}


def gpu_that(code):
    return GpuRunner(worker_that(code))


# Asking for one -------------------------------------------------------------------------------------------------------


def test_it_is_in_the_table_and_runs_on_the_hosts_machine():
    target = open_target("gpu")
    assert (target.name, target.evidence) == ("gpu", Evidence.MEASURED_HOST)
    assert "gpu" in TARGETS


@pytest.mark.subprocess
def test_every_job_is_told_to_use_the_gpu():
    assert on_gpu(replace(JOB, options={"a": 1})).options == {"a": 1, "device": "cuda"}
    seen = json.loads(gpu_that("import sys; sys.stdout.write(sys.stdin.read())").answer(JOB, 60))
    assert seen["options"] == {"device": "cuda"}


def test_this_process_and_the_worker_count_gpus_alike():
    assert ("CUDA_DEVICE_ORDER", "PCI_BUS_ID") in GpuRunner().host.variables


@pytest.mark.parametrize("engine", ["openvino", "executorch"])
def test_an_engine_without_gpus_is_a_wrong_request(engine):
    with pytest.raises(UserError, match=f"`m` runs by {engine}") as caught:
        open_target("gpu").check({"m": replace(TORCH, engine=engine)})
    assert "torch and onnxruntime" in caught.value.hint


@pytest.mark.subprocess
def test_without_a_gpu_there_is_one_clear_line_and_exit_code_6():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(MissingDependency, match="no CUDA GPU for PyTorch") as caught:
        open_target("gpu").check({"m": TORCH})
    assert caught.value.exit_code == 6
    assert "--target cpu" in caught.value.hint
    assert "\n" not in caught.value.what


@pytest.mark.subprocess
def test_asking_imports_no_engine_here():
    import subprocess

    code = """
import sys
from pathlib import Path
from bertshrink.meters.targets import open_target
from bertshrink.worker.job import RunSpec
try:
    open_target("gpu").check({"m": RunSpec("torch", Path("/m"), {}, "float32", 20, ("input_ids",), 64)})
except Exception as error:
    print(type(error).__name__)
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ), cwd=Path.cwd()
    )
    assert done.stdout.split()[-1] == "False"


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("answer", "error", "what"),
    [
        ({"version": "2", "cuda": "13", "gpus": [], "lacks": "none", "hint": "buy"}, MissingDependency, "none"),
        ({"version": "2", "cuda": "13", "gpus": []}, MissingDependency, "torch sees no GPU"),
        ({"missing": "torch"}, MissingDependency, "`torch` is not installed"),
    ],
)
def test_what_the_worker_says_is_told(answer, error, what):
    with pytest.raises(error, match=what):
        GpuTarget(gpu_that(f"print({json.dumps(answer)!r})")).check({"m": TORCH})


@pytest.mark.subprocess
def test_a_gpu_that_is_there_lets_the_models_through():
    GpuTarget(gpu_that("""print('{"version": "2", "cuda": "13", "gpus": ["H100"]}')""")).check({"m": TORCH})


@pytest.mark.subprocess
def test_onnx_runtime_without_its_provider_says_what_to_install():
    found = devices(replace(JOB, do="devices"))
    if found["gpus"]:
        pytest.skip("CUDA's provider is here")
    assert "CUDAExecutionProvider" in found["lacks"]
    assert "onnxruntime-gpu" in found["hint"]


@pytest.mark.skipif(not is_installed("torch"), reason="needs PyTorch")
def test_what_an_engine_lacks_travels_as_words(tmp_path):
    answer = work(replace(JOB, engine="onnxruntime", options={"device": "cuda"}))
    if "lacks" not in answer:
        pytest.skip("CUDA's provider is here")
    with pytest.raises(MissingDependency, match="`onnxruntime` cannot run: the ONNX Runtime") as caught:
        check_result(json.dumps(answer).encode(), JOB, 10**9)
    assert caught.value.hint == answer["hint"]


# What the driver says -------------------------------------------------------------------------------------------------


@pytest.mark.subprocess
def test_clocks_and_what_holds_them_back(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    log = install(tmp_path, STATE, monkeypatch)
    held = ["software power cap", "software thermal slowdown"]
    wanted = {"sm_mhz": 1980.0, "memory_mhz": 2619.0, "celsius": 51.0, "watts": 402.5, "held_back": held}
    assert nvidia.state() == wanted
    assert "-i 3" in log.read_text()
    strain = Interference(on_gpu=True)
    assert strain.end()["gpu"] == wanted
    assert "gpu" not in Interference().end()


@pytest.mark.subprocess
def test_an_older_driver_has_another_name_for_it(tmp_path, monkeypatch):
    install(tmp_path, {"clocks_throttle_reasons.active": "300, [N/A], 30, [N/A], 0x0000000000000001\\n"}, monkeypatch)
    found = nvidia.state()
    assert (found["sm_mhz"], found["memory_mhz"], found["held_back"]) == (300, None, [])


@pytest.mark.subprocess
def test_the_drivers_books_of_this_process(tmp_path, monkeypatch):
    install(tmp_path, {"query-compute-apps": f"{os.getpid()}, 1536\\n{os.getpid() + 1}, 99\\n"}, monkeypatch)
    assert nvidia.driver_bytes() == 1536 << 20
    assert nvidia.driver_bytes(1) is None, "in a container the driver knows other numbers"


@pytest.mark.subprocess
def test_the_machine_is_the_one_with_that_gpu_and_driver(tmp_path, monkeypatch):
    install(tmp_path, {"name,driver_version": "NVIDIA H100, 580.1\\n"}, monkeypatch)
    found = GpuRunner().environment()
    assert (found.gpu, found.packages["nvidia-driver"]) == ("NVIDIA H100", "580.1")
    assert found.id != environment().id


@pytest.mark.subprocess
def test_no_driver_is_no_answer_not_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (nvidia.state(), nvidia.about(), nvidia.driver_bytes()) == (None, None, None)
    assert Interference(on_gpu=True).end().get("gpu") is None
    install(tmp_path, {}, monkeypatch)
    assert (nvidia.state(), nvidia.about(), nvidia.driver_bytes()) == (None, None, None)


# What is measured -----------------------------------------------------------------------------------------------------

ON_GPU = """
import sys, types
import numpy as np
from bertshrink import engines
from bertshrink.worker.__main__ import main

class Session:
    def __init__(self):
        self.num_looks = 0
    def run(self, feeds):
        return {"logits": np.ones((2, 2), np.float32)}
    def device_ns(self, feeds):
        return 1000 + feeds["input_ids"].shape[0]
    def device_peaks(self):
        self.num_looks += 1
        return {"allocated": 10 * self.num_looks, "reserved": 100 * self.num_looks}
    def describe(self):
        return {"engine": "fake", "device": "cuda", "precision": "float16"}

fake = types.ModuleType("bertshrink.engines.fake")
fake.prepare = lambda path, options: None
fake.load = lambda path, threads, options: Session()
sys.modules[fake.__name__] = fake
engines.ENGINES["onnxruntime"] = engines.EngineEntry("fake", "numpy", "")
main()
"""


@pytest.mark.subprocess
def test_the_gpus_clock_and_memory_stand_beside_the_hosts(tmp_path, monkeypatch):
    pid = "$PPID"  # of the made-up program: the worker
    answers = STATE | {"query-compute-apps": "'\"" + pid + "\"', 7\\n"}
    install(tmp_path, answers, monkeypatch)
    gpu = gpu_that(ON_GPU)
    (found,) = measure({"m": LAUNCH}, QUICK, Silent(), gpu.environment(), gpu).values()
    figures = {(m.metric, m.conditions.phase, m.conditions.batch): m for m in found}
    for batch in QUICK.batch:
        device = figures["device_latency", "steady", batch]
        assert set(device.all) == {(1000 + batch) * 1e-9}
        assert len(device.all) >= 5
        held_back = "the GPU's clocks were held back: software power cap, software thermal slowdown"
        assert held_back in map(warning_text, device.warnings)
        assert device.validity == "invalid"
        assert figures["latency", "steady", batch].conditions == device.conditions
    assert device.conditions.target == "gpu"
    assert device.conditions.precision == "float16"
    for at, phase in enumerate(("load", "first", "steady"), start=1):
        assert figures["device_memory_allocated", phase, None].value == 10 * at
        assert figures["device_memory_reserved", phase, None].value == 100 * at
    assert figures["device_memory_driver", "steady", None].value == 7 << 20
    assert ("device_memory_driver", "load", None) not in figures


def written(*results):
    read = [WorkerResult.model_validate_json(json.dumps(result)) for result in results]
    return {m.metric for m in MeasurementBuilder(read, Conditions(), (), {}).all(JOB)}


def test_what_a_device_told_in_one_process_only_is_left_out():
    with_device = honest_result() | {"device_bytes": {"load": {"allocated": 5}}}
    assert "device_memory_allocated" in written(with_device, with_device)
    for found in (written(with_device, honest_result()), written(honest_result())):
        assert not [metric for metric in found if metric.startswith("device")]


@pytest.mark.parametrize(
    ("held_back", "validity"),
    [([], "valid"), (["software power cap"], "semivalid"), (["software power cap", "hardware slowdown"], "invalid")],
)
def test_clocks_that_are_held_back_for_heat_spoil_the_figures(held_back, validity):
    result = honest_result()
    gpu = {"sm_mhz": 1.0, "memory_mhz": 1.0, "celsius": 90.0, "watts": None, "held_back": held_back}
    result["strain"] |= {"gpu": gpu}
    strain = WorkerResult.model_validate_json(json.dumps(result)).strain
    doubts = of_machine([strain], 1, 1)
    assert validity_of(doubts) == validity
    assert all(reason in warning_text(doubts[0]) for reason in held_back)


def test_times_of_a_device_that_cannot_be_are_refused():
    from bertshrink.errors import MeasurementError

    result = honest_result()
    result["cases"][0]["device_ns"] = [10**10]
    with pytest.raises(MeasurementError, match="its process lived"):
        check_result(json.dumps(result).encode(), JOB, 10**9)
