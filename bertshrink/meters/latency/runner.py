"""A machine on which workers run: what every target that times models gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from bertshrink.meters.latency.worker_result import WorkerResult
from bertshrink.report.measurement import Environment, Evidence

if TYPE_CHECKING:
    from bertshrink.worker.job import WorkerJob


class Runner(Protocol):
    """A machine on which a worker does jobs."""

    @property
    def name(self) -> str:
        """As a target's."""

    @property
    def evidence(self) -> Evidence:
        """As a target's."""

    def environment(self) -> Environment:
        """The machine, as it names itself."""

    def run(self, jobs: Sequence[WorkerJob], timeout_s: float) -> list[WorkerResult]:
        """Have workers do jobs `time`, each in a process of its own, in turns, and wait for them.

        Raises:
            MeasurementError: no result that can be believed.
            MissingDependency: an engine is not installed there.
        """

    def answer(self, job: WorkerJob, timeout_s: float) -> bytes:
        """What the worker writes for a job of any kind. Raises MeasurementError: the worker died or hung."""
