"""The machine that bertshrink runs on: the worker in a fresh process of its own.

Its environment is a short list, so that a user's shell does not decide the figures.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bertshrink.files.scratch_folder import scratch_folder
from bertshrink.meters.environment import environment
from bertshrink.meters.latency.worker_result import WorkerResult
from bertshrink.meters.latency.worker_zipapp import NAME, build_worker
from bertshrink.meters.targets import Target, check_system
from bertshrink.meters.targets.runner_target import RunnerTarget
from bertshrink.meters.targets.worker_process import WorkerExit, results_of, run_together
from bertshrink.report.measurement import Environment, Evidence
from bertshrink.worker.job import WorkerJob

PASSED_ON = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ"),
    *("PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CUDA_VISIBLE_DEVICES"),
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
class LocalRunner:
    """Runs the worker here.

    Attributes:
        command: what starts it; it reads the job on stdin and writes the result on stdout. None: the worker's own file.
        variables: environment variables of the worker besides those that all have.
    """

    command: tuple[str, ...] | None = None
    variables: tuple[tuple[str, str], ...] = ()
    name: ClassVar[str] = "cpu"
    evidence: ClassVar[Evidence] = Evidence.MEASURED_HOST

    def environment(self) -> Environment:
        """This machine."""
        return environment()

    def run(self, jobs: Sequence[WorkerJob], timeout_s: float) -> list[WorkerResult]:
        """Run jobs in fresh processes that take turns, and wait for them, asleep.

        Raises:
            MeasurementError: a worker died, hung, or gave no result that can be believed.
            MissingDependency: a job's engine is not installed.
        """
        start_ns = time.perf_counter_ns()
        ended = self._ended(jobs, timeout_s)
        return results_of(ended, jobs, timeout_s, time.perf_counter_ns() - start_ns)

    def answer(self, job: WorkerJob, timeout_s: float) -> bytes:
        """What the worker writes for a job of any kind. Raises MeasurementError: the worker died or hung."""
        return self._ended([job], timeout_s)[0].answer(job, timeout_s)

    def _ended(self, jobs: Sequence[WorkerJob], timeout_s: float) -> list[WorkerExit]:
        with scratch_folder() as scratch:
            rooms = [scratch / str(at) for at in range(len(jobs))]
            for room, job in zip(rooms, jobs, strict=True):
                room.mkdir()
                (room / "job").write_text(job.to_json(), encoding="utf-8")
            if self.command is None:
                (scratch / NAME).write_bytes(build_worker())
            command = self.command or (sys.executable, "-P", str(scratch / NAME))
            variables = worker_environment(jobs[0].threads) | dict(self.variables)
            codes = run_together(rooms, command, variables, timeout_s)
            return [WorkerExit.of(code, room) for code, room in zip(codes, rooms, strict=True)]


def worker_environment(threads: int) -> dict[str, str]:
    """All environment variables of a worker: a few of the user's, the thread counts, and what keeps libraries quiet."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return passed_on | fixed_variables(threads)


def fixed_variables(threads: int) -> dict[str, str]:
    """Those of a worker's environment variables that are the same on every machine."""
    return dict.fromkeys(_THREADS, str(threads)) | _FIXED


def open_target(text: str) -> Target:
    """The target `cpu`. Raises MissingDependency: on Windows."""
    check_system("cpu", "linux", "darwin")
    return RunnerTarget(LocalRunner())
