"""Where a model is run: the table of targets, and what every one of them gives back.

A target takes the worker's job, has it run somewhere, and returns a result that has been checked: a worker that died,
hung, lied or gave NaN is a `MeasurementError`, never a figure.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeFloat, PositiveInt, ValidationError

from bertshrink.engines import ENGINES
from bertshrink.errors import MeasurementError, MissingPart
from bertshrink.meters.worker import Job
from bertshrink.report.measurement import Evidence

Phase = Literal["import", "load", "first", "steady"]
PHASES: tuple[Phase, ...] = ("import", "load", "first", "steady")
"""The parts of a worker's life, in order (see `meters.worker`)."""

TARGETS: dict[str, str] = {"host": "bertshrink.meters.targets.host:Host"}
"""Target -> `module:name` of its class."""

_LONGEST_REFUSAL_BYTES = 1_000


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CaseResult(_Strict):
    """One case of a job as a worker timed it."""

    batch: PositiveInt
    length: PositiveInt
    output_rms: Annotated[FiniteFloat, NonNegativeFloat] | None
    warmup_ns: tuple[PositiveInt, ...]
    samples_ns: tuple[PositiveInt, ...]


class Result(_Strict):
    """What one worker process found."""

    engine: dict[str, Any]
    clocks_ns: dict[Literal["import", "load", "first"], PositiveInt]
    memory_bytes: dict[Phase, PositiveInt]
    memory_method: Literal["VmHWM", "ru_maxrss"]
    cases: tuple[CaseResult, ...]


class Target(Protocol):
    """A place where a model is run."""

    name: ClassVar[str]
    evidence: ClassVar[Evidence]

    def run(self, job: Job, timeout_s: float) -> Result:
        """Have the worker do the job in a process of its own and wait for it.

        Raises:
            MeasurementError: no result that can be believed.
            MissingPart: the engine is not installed there.

        """


def check_result(text: bytes, job: Job, wall_ns: int) -> Result:
    """Read what a worker wrote, and refuse what cannot be true.

    Args:
        text: its output.
        job: what it was told to do.
        wall_ns: how long its process lived: it cannot have measured for longer.

    Raises:
        MeasurementError: no result, another job's result, outputs that are not finite, or impossible times.
        MissingPart: the worker had no engine.

    """
    _refuse_missing(text, job)
    try:
        result = Result.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MeasurementError(
            _about(job, f"is no result{f' at `{place}`' if place else ''}: {first['msg']}")
        ) from None
    asked = [(case["batch"], case["length"]) for case in job.cases]
    if [(case.batch, case.length) for case in result.cases] != asked:
        raise MeasurementError(_about(job, "is of other cases than were asked for"))
    if set(result.memory_bytes) != set(PHASES) or set(result.clocks_ns) != set(PHASES[:-1]):
        raise MeasurementError(_about(job, "leaves out a phase"))
    for case in result.cases:
        if case.output_rms is None:
            raise MeasurementError(
                f"the model gives values that are not finite at batch {case.batch}, length {case.length}",
                where=job.path,
            )
        if len(case.samples_ns) < job.min_samples or len(case.warmup_ns) < job.warmup_iterations:
            raise MeasurementError(_about(job, "has fewer samples than were asked for"))
    told_ns = sum(result.clocks_ns.values()) + sum(sum(c.warmup_ns) + sum(c.samples_ns) for c in result.cases)
    if told_ns > wall_ns:
        raise MeasurementError(_about(job, f"tells of {told_ns / 1e9:.1f} s; its process lived {wall_ns / 1e9:.1f} s"))
    return result


def _refuse_missing(text: bytes, job: Job) -> None:
    """A worker without its engine says `{"missing": package}` instead of giving a result."""
    try:
        answer = json.loads(text) if len(text) < _LONGEST_REFUSAL_BYTES else None
    except (ValueError, RecursionError):
        return
    if isinstance(answer, dict) and "missing" in answer:
        raise MissingPart(
            f"the engine `{job.engine}` cannot run: the package `{answer['missing']}` is not installed",
            hint=ENGINES[job.engine][2],
        )


def _about(job: Job, what: str) -> str:
    return f"what the worker gave for `{job.path}` {what}"
