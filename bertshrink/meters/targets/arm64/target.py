"""`arm64:CORE` as a target: instructions per inference, of every model at every shape that a minute is enough for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from bertshrink.errors import UserError
from bertshrink.meters.environment import environment
from bertshrink.meters.latency.launch import conditions_of
from bertshrink.meters.latency.measure import check_cases, job_of
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.targets import TargetResult, check_system
from bertshrink.meters.targets.arm64.cores import CPUS, KIND, Core, cpu_of
from bertshrink.meters.targets.arm64.count import EmulatedRunner, count
from bertshrink.meters.targets.arm64.plugin import Qemu, check_plugin, find_qemu, plugin
from bertshrink.meters.targets.arm64.sysroot import Sysroot, check_root, find_root
from bertshrink.meters.targets.host import LocalRunner
from bertshrink.progress import Progress
from bertshrink.report.measurement import Environment, Evidence, Measurement
from bertshrink.worker.job import RunSpec

ENGINE = "onnxruntime"

MAX_INSTRUCTIONS = 6e8
"""Per inference. Emulated, vector arithmetic runs at some 40 million instructions a second, so this many take about a
minute. Larger shapes say little that smaller ones do not: instructions grow with the tokens."""


@dataclass(frozen=True)
class Arm64:
    """Counts instructions on one emulated core.

    Attributes:
        cpu: a name in `CPUS`.
        host: computes what the outputs must be.
    """

    cpu: str
    host: LocalRunner = field(default_factory=LocalRunner)
    evidence: ClassVar[Evidence] = Evidence.EMULATED_INSTRUCTIONS

    @property
    def name(self) -> str:
        """As it was asked for."""
        return f"{KIND}:{self.cpu}"

    def check(self, launches: Mapping[str, RunSpec]) -> None:
        """Find the emulator, the plugin and the prepared system; refuse models that ONNX Runtime does not run.

        Raises:
            MissingDependency: something of these is not there.
            UserError: a model of another engine.
        """
        for name, launch in launches.items():
            if launch.engine != ENGINE:
                raise UserError(
                    f"`{name}` runs on {launch.engine}, and `{self.name}` counts files that ONNX Runtime runs",
                    where="--target",
                    hint="export it first: `bertshrink export MODEL -o DIR`, then measure DIR",
                )
        check_plugin(find_qemu())
        find_root()

    def measure(self, launches: Mapping[str, RunSpec], settings: LatencySettings, progress: Progress) -> TargetResult:
        """Count one inference of every model at every shape, the smallest shape first.

        Returns:
            `instructions` per model and shape. Shapes that would take minutes are left out for all models, and named in
            a note; the smallest one is always counted.

        Raises:
            MeasurementError: nothing that can be believed; outputs that are not this machine's.
            MissingDependency: the emulator or the prepared system is not there or not whole.
            UserError: a shape that a model does not take, or texts.
        """
        if settings.texts is not None:
            raise UserError(f"`{self.name}` counts shapes, not texts", hint="give batch sizes and lengths")
        self.check(launches)
        check_cases(launches, settings)
        root, qemu = find_root(), find_qemu()
        check_root(root)
        emulated = EmulatedRunner(qemu, CPUS[self.cpu].model, root.folder, plugin(qemu))
        machine = describe(CPUS[self.cpu], root, qemu)
        shapes = sorted({(b, n) for b in settings.batch for n in settings.length}, key=lambda s: (s[0] * s[1], s))
        measurements: dict[str, list[Measurement]] = {name: [] for name in launches}
        left_out, most = [], 0.0  # the most instructions per token so far, of any model
        with progress.task(f"{self.name}: instructions", total=len(shapes) * len(launches), unit="counts") as task:
            for batch, length in shapes:
                if most * batch * length > MAX_INSTRUCTIONS:
                    left_out.append(f"{batch}x{length}")
                    task.advance(len(launches))
                    continue
                case = {"batch": batch, "length": length}
                jobs = [replace(job_of(launch, settings, 1), cases=[case]) for launch in launches.values()]
                precisions = [launch.precision for launch in launches.values()]
                values = count(emulated, jobs, precisions, self.host, settings.timeout)
                most = max([most, *(value / (batch * length) for value in values)])
                for (name, launch), value in zip(launches.items(), values, strict=True):
                    measurements[name].append(self._measurement(launch, value, batch, length, machine))
                task.advance(len(launches), shape=f"{batch}x{length}")
        return TargetResult(measurements, machine, notes=_notes(self.name, left_out))

    def _measurement(self, launch: RunSpec, value: float, batch: int, length: int, machine: Environment) -> Measurement:
        more = {
            "conditions": conditions_of(launch, self.name, 1, batch, length),
            "evidence": self.evidence,
            "environment": machine.id,
        }
        return Measurement.single("instructions", "count", value, "lower", **more)


def _notes(name: str, left_out: list[str]) -> tuple[str, ...]:
    if not left_out:
        return ()
    shapes = ", ".join(left_out)
    return (f"{name}: {shapes} left out, which would take minutes to count; request a single shape to include it",)


def describe(cpu: Core, root: Sysroot, qemu: Qemu) -> Environment:
    """The emulated machine: all that decides a count, nothing of the machine that emulates it."""
    return environment(
        {
            "cpu": f"{cpu.name}, emulated ({cpu.model})",
            "isa": list(cpu.isa),
            "num_cores": 1,
            "system": f"Linux aarch64, glibc {root.about.debian['libc6']}",
            "python": f"CPython {root.about.debian['python3.11-minimal']}",
            "packages": {"qemu": qemu.version} | root.about.wheels,
        }
    )


def open_target(text: str) -> Arm64:
    """The target `arm64:a76`.

    Raises:
        MissingDependency: on a system other than Linux.
        UserError: no such core.
    """
    check_system(KIND, "linux")
    return Arm64(cpu_of(text))
