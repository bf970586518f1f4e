"""A worker's process, run by a parent that sleeps until it ends (`worker.keeper`), and what to say when it failed.

A parent that polls takes the very cores it measures (a spinning one made a two-core run 1.9x slower), so `run_in`
blocks in the kernel on the worker's end. The worker writes to files, of which no more is read than a result can have.
"""

from __future__ import annotations

import signal
from pathlib import Path

from bertshrink.errors import MeasurementError
from bertshrink.meters.result import MAX_RESULT_BYTES
from bertshrink.worker.job import Job
from bertshrink.worker.keeper import run_in, run_side_by_side, tail

__all__ = ["refuse", "refuse_failure", "run_in", "run_side_by_side"]


def refuse_failure(code: int | None, job: Job, folder: Path, timeout_s: float) -> None:
    """Refuse a process that was ended, died, or wrote too much.

    Raises:
        MeasurementError: with the end of its log.

    """
    refuse(code, job, tail(folder / "log"), (folder / "result").stat().st_size, timeout_s)


def refuse(code: int | None, job: Job, words: str, num_bytes: int, timeout_s: float) -> None:
    """As `refuse_failure`, from the end of the log and the length of the result, wherever they lie."""
    what = f"the worker that measured `{job.path}`"
    hint = f"its last words:\n{words}" if words else "it said nothing"
    if code is None:
        raise MeasurementError(f"{what} gave no result within {timeout_s:g} s", hint=hint)
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        if -code == signal.SIGKILL:
            hint = f"the system may have run out of memory; {hint}"
        raise MeasurementError(f"{what} was killed by {name}", hint=hint)
    if code > 0:
        raise MeasurementError(f"{what} failed with exit status {code}", hint=hint)
    if num_bytes > MAX_RESULT_BYTES:
        raise MeasurementError(f"{what} wrote {num_bytes} bytes, more than a result can have", hint=hint)
