"""A device that is not at hand: bounds of its latency, computed from counted work and what is known of the device.

    at least   max(instructions / (threads x highest IPC x clock), bytes beyond the cache / highest bandwidth)
    at most    instructions / (lowest IPC x clock) + bytes / lowest bandwidth

The instructions are counted by the target `arm64:...` where it is set up, else they follow from the operations
(`work`). More threads may help fully or not at all, so the bounds part by as much. The result is a range, always, and
says so: `modelled-range`. Heat, other work, the slow cores and the engine's start are in none of it. `calibrate`
replaces what is assumed of a device by what was measured on one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertshrink.errors import MissingDependency, UserError
from bertshrink.meters.latency.launch import conditions_of
from bertshrink.meters.targets import Target, TargetResult
from bertshrink.meters.targets import open_target as open_any
from bertshrink.meters.targets.profile.device import Basis, DeviceProfile, read_device
from bertshrink.meters.targets.profile.instructions import Span, Work, work_of
from bertshrink.report.measurement import Evidence, Measurement

if TYPE_CHECKING:
    from bertshrink.meters.latency.settings import LatencySettings
    from bertshrink.progress import Progress
    from bertshrink.worker.job import RunSpec

METRIC = "latency_range"
COUNTER = "arm64"
SCALED = 1.1
"""What the instructions for a multiply-add may differ by, either way, between two shapes: all-MiniLM-L6-v2 in int8
takes 0.144 of them on a76 at 16 tokens, 0.149 at 128 and 0.149 at eight times 128."""

Case = tuple[int, int]
"""Batch and length."""


def bounds_s(device: DeviceProfile, instructions: Span, weight_bytes: int, threads: int = 1) -> Span:
    """Bounds of the time of one pass, in seconds (the formulas of this file's opening).

    Args:
        instructions: of one pass, at least and at most.
    """
    hertz, (ipc_low, ipc_high) = device.ghz.value * 1e9, device.ipc.value
    slow, fast = (1e9 * rate for rate in device.bandwidth_gbs.value)
    from_memory = max(0.0, weight_bytes - 1e6 * device.cache_mb.value)
    cores = min(threads, device.cores.value)
    low = max(instructions[0] / (cores * ipc_high * hertz), from_memory / fast)
    return low, instructions[1] / (ipc_low * hertz) + weight_bytes / slow


@dataclass(frozen=True)
class WorkCounts:
    """Instructions of each model and case, and how they were counted.

    Attributes:
        spans: by model and case.
        basis: counted, or from operations.
        why: why they were not counted; empty where they were.
    """

    spans: dict[str, dict[Case, Span]]
    basis: Basis
    why: str = ""


def count(
    launches: Mapping[str, RunSpec],
    settings: LatencySettings,
    progress: Progress,
    device: DeviceProfile,
    basis: Basis | None = None,
) -> WorkCounts:
    """The instructions of all models in all cases on a device's cores.

    Args:
        basis: as it has to be; None: counted where that is possible.
    """
    isa = device.isa.value
    why = "its rates were measured that way" if basis == "operations" else ""
    counted = None
    if basis != "operations":
        try:
            counted = _counted(launches, settings, progress, isa)
        except (MissingDependency, UserError) as error:
            why = error.what
    if counted is not None:
        return WorkCounts(counted, "instructions")
    spans = {
        name: {
            (batch, length): work_of(launch).instructions(isa, launch.precision, batch, length)
            for batch in settings.batch
            for length in settings.length
        }
        for name, launch in launches.items()
    }
    return WorkCounts(spans, "operations", why)


def _counted(
    launches: Mapping[str, RunSpec], settings: LatencySettings, progress: Progress, isa: str
) -> dict[str, dict[Case, Span]]:
    """What the target `arm64:...` counts; shapes that it leaves out follow from the largest that it counted."""
    counter = open_any(f"{COUNTER}:{isa}")
    counter.check(launches)
    counted = counter.measure(launches, settings, progress)
    spans: dict[str, dict[Case, Span]] = {}
    for name, measurements in counted.measurements.items():
        cases = {
            (m.conditions.batch or 1, m.conditions.length or 1): (m.value, m.value)
            for m in measurements
            if m.metric == "instructions"
        }
        if not cases:
            raise MissingDependency(f"`{COUNTER}:{isa}` did not count `{name}`")
        work, largest = work_of(launches[name]), max(cases, key=lambda case: case[0] * case[1])
        per_mac = cases[largest][0] / work.macs(*largest)
        for case in ((batch, length) for batch in settings.batch for length in settings.length):
            if case not in cases:
                cases[case] = (work.macs(*case) * per_mac / SCALED, work.macs(*case) * per_mac * SCALED)
        spans[name] = cases
    return spans


@dataclass(frozen=True)
class Profile:
    """Models times on a device that is not at hand."""

    name: str
    device: DeviceProfile
    evidence: Evidence = Evidence.MODELLED_RANGE

    def check(self, launches: Mapping[str, RunSpec]) -> None:
        """See whether the work of each model can be read. Raises UserError: it cannot."""
        for launch in launches.values():
            work_of(launch)

    def measure(self, launches: Mapping[str, RunSpec], settings: LatencySettings, progress: Progress) -> TargetResult:
        """The bounds of every model's latency in every case: `latency_range` in s.

        Raises:
            UserError: texts were asked for, or a model's work cannot be read.
        """
        if settings.texts is not None:
            raise UserError(f"`{self.name}` models shapes, not texts", hint="give batch sizes and lengths")
        from bertshrink.meters.latency.measure import check_cases

        check_cases(launches, settings)
        basis = self.device.calibrated.basis if self.device.calibrated else None
        counts = count(launches, settings, progress, self.device, basis)
        machine = self.device.environment()
        measurements = {
            name: [
                self._figure(launch, work_of(launch), case, span, settings.threads or 1, machine.id)
                for case, span in counts.spans[name].items()
            ]
            for name, launch in launches.items()
        }
        return TargetResult(measurements, machine, (self._note(counts),))

    def _figure(
        self, launch: RunSpec, work: Work, case: Case, instructions: Span, threads: int, machine: str
    ) -> Measurement:
        return Measurement(
            metric=METRIC,
            unit="s",
            samples=(bounds_s(self.device, instructions, work.weight_bytes, threads),),
            better="lower",
            conditions=conditions_of(launch, self.name, threads, *case),
            evidence=Evidence.MODELLED_RANGE,
            environment=machine,
        )

    def _note(self, counts: WorkCounts) -> str:
        device = self.device
        source = f"arm64 instructions counted for {device.isa.value} cores"
        if counts.basis == "operations":
            source = f"the operations of each graph ({counts.why})"
        text = (
            f"{self.name}: computed from {source} and what is known of a {device.name}; nothing was "
            "measured on the device"
        )
        if device.calibrated:
            how = device.calibrated
            return f"{text} now; its rates were measured on {how.by} on {how.when[:10]} with {how.model}"
        assumed = f"; not verified: {', '.join(device.unverified)}" if device.unverified else ""
        return f"{text}{assumed}; `bertshrink targets calibrate ssh://... --profile` measures its rates"


def open_target(text: str) -> Target:
    """The target `profile:pi5`. Raises UserError: there is no such device."""
    return Profile(text, read_device(text.partition(":")[2]))
