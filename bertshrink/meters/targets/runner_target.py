"""A machine as a target: its runner, and the rounds that are the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bertshrink.meters.latency.measure import measure
from bertshrink.meters.latency.runner import Runner
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.roofline.roofline import roofline
from bertshrink.meters.targets import TargetResult
from bertshrink.progress import Progress
from bertshrink.report.measurement import Evidence
from bertshrink.worker.job import RunSpec


@dataclass(frozen=True)
class RunnerTarget:
    """Times models on a runner's machine."""

    runner: Runner

    @property
    def name(self) -> str:
        """The runner's."""
        return self.runner.name

    @property
    def evidence(self) -> Evidence:
        """The runner's."""
        return self.runner.evidence

    def check(self, launches: Mapping[str, RunSpec]) -> None:
        """Nothing is known to be wrong before a worker runs."""

    def measure(self, launches: Mapping[str, RunSpec], settings: LatencySettings, progress: Progress) -> TargetResult:
        """Time all models side by side; see `running.measure` for what is raised."""
        machine = self.runner.environment()
        measurements = measure(launches, settings, progress, machine, self.runner)
        if not settings.roofline or settings.texts is not None:
            return TargetResult(measurements, machine)
        threads = settings.threads or machine.num_cores
        with progress.task("peak rates of the machine", unit="processes", is_timed=True):
            roofs = roofline(launches, measurements, self.runner, threads)
        for name, entries in roofs.models.items():
            measurements[name] += entries
        measurements[next(iter(launches))] += roofs.machine
        return TargetResult(measurements, machine, details=roofs.notes)
