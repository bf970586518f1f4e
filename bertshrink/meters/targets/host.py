"""The machine that bertshrink runs on: the worker in a fresh process, and a parent that sleeps until it ends.

A parent that polls takes the very cores it measures (a spinning one made a two-core run 1.9x slower), so this one
blocks in the kernel on the worker's end. The worker writes to files, of which no more is read than a result can have;
its environment is a short list, so that a user's shell does not decide the figures.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import bertshrink
from bertshrink.errors import MeasurementError
from bertshrink.meters.targets import Result, check_result
from bertshrink.meters.worker import Job
from bertshrink.report.measurement import Evidence

MAX_RESULT_BYTES = 64_000_000
"""Far more than a result has: a million samples take about 8 MB."""

_TAIL_BYTES = 2_000
_PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ"),
    *("LD_LIBRARY_PATH", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES"),
)
_THREADS = (*(f"{name}_NUM_THREADS" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")), "VECLIB_MAXIMUM_THREADS")
_FIXED = {
    "PYTHONHASHSEED": "0",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True)
class Host:
    """Runs the worker here.

    Attributes:
        command: what starts it; it reads the job on stdin and writes the result on stdout.

    """

    name: ClassVar[str] = "host"
    evidence: ClassVar[Evidence] = Evidence.MEASURED_HOST
    command: tuple[str, ...] = (sys.executable, "-P", "-m", "bertshrink.meters.worker")

    def run(self, job: Job, timeout_s: float) -> Result:
        """Run one job in a fresh process and wait for it, asleep.

        Raises:
            MeasurementError: the worker died, hung, or gave no result that can be believed.
            MissingPart: the job's engine is not installed.

        """
        with tempfile.TemporaryDirectory(prefix="bertshrink-") as scratch:
            folder = Path(scratch)
            (folder / "job").write_text(json.dumps(asdict(job)), encoding="utf-8")
            start_ns = time.perf_counter_ns()
            code = self._wait_for(job, folder, timeout_s)
            wall_ns = time.perf_counter_ns() - start_ns
            _refuse_failure(code, job, folder, timeout_s)
            text = (folder / "result").read_bytes()
        return check_result(text, job, wall_ns)

    def _wait_for(self, job: Job, folder: Path, timeout_s: float) -> int | None:
        """The exit status of the worker's process; None when it had to be ended."""
        with (
            (folder / "job").open("rb") as job_file,
            (folder / "result").open("wb") as result_file,
            (folder / "log").open("wb") as log_file,
        ):
            process = subprocess.Popen(
                self.command,
                stdin=job_file,
                stdout=result_file,
                stderr=log_file,
                cwd=folder,
                env=worker_environment(job.threads),
                start_new_session=True,
            )
        try:
            is_over = _is_over(process, timeout_s)
        finally:  # also on Ctrl-C, which reaches the parent alone
            _end(process)
        return process.returncode if is_over else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """See to it that nothing of the worker is left; its own exit status stays when it had ended by itself."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_over(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Sleep until the process ends or the time is up; off Linux, where no call waits for both, look at times."""
    if not hasattr(os, "pidfd_open"):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
        return process.returncode is not None
    handle = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    finally:
        os.close(handle)


def worker_environment(threads: int) -> dict[str, str]:
    """All environment variables of a worker: a few of the user's, the thread counts, and what keeps libraries quiet."""
    package_root = str(Path(bertshrink.__file__).parent.parent)
    python_path = os.pathsep.join(part for part in (package_root, os.environ.get("PYTHONPATH")) if part)
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return passed_on | dict.fromkeys(_THREADS, str(threads)) | _FIXED | {"PYTHONPATH": python_path}


def _refuse_failure(code: int | None, job: Job, folder: Path, timeout_s: float) -> None:
    what = f"the worker that measured `{job.path}`"
    tail = _tail(folder / "log")
    hint = f"its last words:\n{tail}" if tail else "it said nothing"
    if code is None:
        raise MeasurementError(f"{what} gave no result within {timeout_s:g} s", hint=hint)
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        if -code == signal.SIGKILL:
            hint = f"the system may have run out of memory; {hint}"
        raise MeasurementError(f"{what} was killed by {name}", hint=hint)
    if code > 0:
        raise MeasurementError(f"{what} failed with exit status {code}", hint=hint)
    num_bytes = (folder / "result").stat().st_size
    if num_bytes > MAX_RESULT_BYTES:
        raise MeasurementError(f"{what} wrote {num_bytes} bytes, more than a result can have", hint=hint)


def _tail(path: Path) -> str:
    """The end of a log, without what a terminal would obey."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return "".join(c for c in text if c.isprintable() or c == "\n").strip()
