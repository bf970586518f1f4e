"""The target `gpu`: the same worker in the same fresh processes, with the model on the first visible NVIDIA GPU.

PyTorch runs there by CUDA in any precision, eager, compiled or as CUDA graphs; ONNX Runtime by its CUDA provider.
Whether there is a GPU that an engine can use is asked in a process of its own: this one imports no engine.

A latency is the host's clock around a whole answer, copies to the GPU and back included; `device_latency` is the GPU's
own clock around the forward pass alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from bertshrink.errors import MissingDependency, UserError
from bertshrink.meters.environment import environment
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.latency.worker_result import Devices, WorkerResult, read_result
from bertshrink.meters.targets import Target, TargetResult, check_system
from bertshrink.meters.targets.host import LocalRunner
from bertshrink.meters.targets.runner_target import RunnerTarget
from bertshrink.progress import Progress
from bertshrink.report.measurement import Environment, Evidence
from bertshrink.worker.job import RunSpec, WorkerJob
from bertshrink.worker.machine import nvidia
from bertshrink.worker.machine.identity import machine

ENGINES_ON_GPU = ("torch", "onnxruntime")
_ORDER = (("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),)
"""So that CUDA counts GPUs as `nvidia-smi` does, and both speak of the same one."""

_CHECK_TIMEOUT_S = 120.0
"""Importing PyTorch and waking a GPU takes seconds, from a cold disk tens of seconds."""


@dataclass(frozen=True)
class GpuRunner:
    """Runs the worker here, with the model on a GPU."""

    host: LocalRunner = field(default_factory=lambda: LocalRunner(variables=_ORDER))
    name: ClassVar[str] = "gpu"
    evidence: ClassVar[Evidence] = Evidence.MEASURED_HOST

    def environment(self) -> Environment:
        """This machine with the GPU that is measured and its driver."""
        description, gpu = machine(), nvidia.about()
        if gpu is None:
            return environment(description)
        packages = description["packages"] | {"nvidia-driver": gpu["driver"]}
        return environment(description | {"gpu": gpu["name"], "packages": packages})

    def run(self, jobs: Sequence[WorkerJob], timeout_s: float) -> list[WorkerResult]:
        """Run jobs on the GPU; as `LocalRunner.run`."""
        return self.host.run([on_gpu(job) for job in jobs], timeout_s)

    def answer(self, job: WorkerJob, timeout_s: float) -> bytes:
        """What the worker writes for a job of any kind, on the GPU; raises as `LocalRunner.answer`."""
        return self.host.answer(on_gpu(job), timeout_s)

    def devices(self, engine: str) -> Devices:
        """The GPUs that an engine can use here.

        Raises:
            MissingDependency: the engine is not installed.
            MeasurementError: the process that was to look died.
        """
        job = WorkerJob.without_model(engine, engine, do="devices")
        return read_result(self.host.answer(job, _CHECK_TIMEOUT_S), Devices, job)


def on_gpu(job: WorkerJob) -> WorkerJob:
    """The same job, its engine told to use the GPU."""
    return replace(job, options={**job.options, "device": "cuda"})


@dataclass(frozen=True)
class GpuTarget:
    """Times models on a GPU."""

    runner: GpuRunner
    name: ClassVar[str] = GpuRunner.name
    evidence: ClassVar[Evidence] = GpuRunner.evidence

    def check(self, launches: Mapping[str, RunSpec]) -> None:
        """See that every model's engine has a GPU to use.

        Raises:
            UserError: a model's engine does not run on a GPU.
            MissingDependency: there is no GPU, or the engine cannot use it.
        """
        for name, launch in launches.items():
            if launch.engine not in ENGINES_ON_GPU:
                raise UserError(
                    f"`{name}` runs by {launch.engine}, which has no GPU here",
                    where="--target gpu",
                    hint=f"on a GPU run {' and '.join(ENGINES_ON_GPU)}",
                )
        if not launches and nvidia.about() is None and self.runner.environment().gpu is None:
            hint = "check `nvidia-smi`, or measure on `--target cpu`"
            raise MissingDependency("this machine has no visible NVIDIA GPU", where="--target gpu", hint=hint)
        for engine in dict.fromkeys(launch.engine for launch in launches.values()):
            seen = self.runner.devices(engine)
            if not seen.gpus:
                raise MissingDependency(seen.lacks or f"{engine} sees no GPU", where="--target gpu", hint=seen.hint)

    def measure(self, launches: Mapping[str, RunSpec], settings: LatencySettings, progress: Progress) -> TargetResult:
        """Time all models side by side; see `running.measure` for what is raised."""
        return RunnerTarget(self.runner).measure(launches, settings, progress)


def open_target(text: str) -> Target:
    """The target `gpu`. Raises MissingDependency: on a system other than Linux."""
    check_system("gpu", "linux")
    return GpuTarget(GpuRunner())
