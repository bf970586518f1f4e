"""Workers' processes, run by a parent that sleeps until they end (`worker.supervisor`), and what to say when one
failed.

A parent that polls takes the very cores it measures (a spinning one made a two-core run 1.9x slower), so it blocks in
the kernel on the workers' end. The worker writes to files, of which no more is read than a result can have.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertshrink.errors import MeasurementError
from bertshrink.meters.latency.worker_result import MAX_RESULT_BYTES, WorkerResult, check_result
from bertshrink.worker.job import WorkerJob
from bertshrink.worker.supervisor import run_in, run_side_by_side, run_together, tail
from bertshrink.worker.turns import LEFT_ALONE

__all__ = ["WorkerExit", "results_of", "run_in", "run_side_by_side", "run_together"]


@dataclass(frozen=True)
class WorkerExit:
    """How a worker ended.

    Attributes:
        code: its exit status; None: its time was up.
        log: the end of what it said on stderr.
        num_bytes: the length of its result.
        result: the result, empty where it was longer than any can be.
    """

    code: int | None
    log: str
    num_bytes: int
    result: bytes

    @classmethod
    def of(cls, code: int | None, folder: Path) -> WorkerExit:
        """Of a worker that ran in a folder here."""
        path = folder / "result"
        num_bytes = path.stat().st_size
        return cls(code, tail(folder / "log"), num_bytes, path.read_bytes() if num_bytes <= MAX_RESULT_BYTES else b"")

    def answer(self, job: WorkerJob, timeout_s: float) -> bytes:
        """What it wrote. Raises MeasurementError: it died or hung, or wrote too much."""
        _refuse(self.code, job, self.log, self.num_bytes, timeout_s)
        return self.result


def results_of(
    ended: Sequence[WorkerExit], jobs: Sequence[WorkerJob], timeout_s: float, wall_ns: int
) -> list[WorkerResult]:
    """The results of workers that took turns. One that gave up because another was gone is asked last what went wrong.

    Raises:
        MeasurementError: one died, hung, or gave no result that can be believed.
        MissingDependency: one had no engine.
    """
    results: dict[int, WorkerResult] = {}
    for at in sorted(range(len(jobs)), key=lambda at: ended[at].code == LEFT_ALONE):
        results[at] = check_result(ended[at].answer(jobs[at], timeout_s), jobs[at], wall_ns)
    return [results[at] for at in range(len(jobs))]


def _refuse(code: int | None, job: WorkerJob, words: str, num_bytes: int, timeout_s: float) -> None:
    """Refuse a worker that was ended, died, or wrote too much, by the end of its log and the length of its result."""
    what = f"the worker that measured `{job.path}`"
    hint = f"last lines of stderr:\n{words}" if words else "it said nothing"
    if code is None:
        raise MeasurementError(f"{what} gave no result within {timeout_s:g} s", hint=hint)
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        if name == "SIGKILL":
            hint = f"the system may have run out of memory; {hint}"
        raise MeasurementError(f"{what} was killed by {name}", hint=hint)
    if code > 0:
        raise MeasurementError(f"{what} failed with exit status {code}", hint=hint)
    if num_bytes > MAX_RESULT_BYTES:
        raise MeasurementError(f"{what} wrote {num_bytes} bytes, more than a result can have", hint=hint)
