"""What a worker gives back, and the refusal of what cannot be true: a worker that died, hung, lied or gave NaN is a
`MeasurementError`, never a figure.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
)

from bertshrink.engines import ENGINES
from bertshrink.errors import MeasurementError, MissingDependency
from bertshrink.worker.job import WorkerJob

Phase = Literal["import", "load", "first", "steady"]
PHASES: tuple[Phase, ...] = ("import", "load", "first", "steady")
"""The parts of a worker's life, in order (see `worker.timing`)."""

DeviceMethod = Literal["allocated", "reserved", "driver"]
"""Who counted a device's memory, and what: the allocator what tensors took, the allocator what it held for them, the
driver all that the process holds."""

DEVICE_METHODS: tuple[DeviceMethod, ...] = ("allocated", "reserved", "driver")

MAX_RESULT_BYTES = 64_000_000
"""Far more than a result has: a million samples take about 8 MB."""

_LONGEST_REFUSAL_BYTES = 1_000


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


R = TypeVar("R", bound=_Strict)


class GpuState(_Strict):
    """A GPU's state after it was measured (see `worker.machine.nvidia`)."""

    sm_mhz: NonNegativeFloat | None
    memory_mhz: NonNegativeFloat | None
    celsius: float | None
    watts: NonNegativeFloat | None
    held_back: tuple[str, ...]


class Interference(_Strict):
    """What the machine went through meanwhile (see `worker.machine.interference`)."""

    seconds: NonNegativeFloat
    others: NonNegativeFloat | None
    stolen: float | None
    switches: NonNegativeInt | None
    throttled: int | None
    load: NonNegativeFloat | None
    gpu: GpuState | None = None


class CaseResult(_Strict):
    """One case of a job as a worker timed it."""

    batch: PositiveInt
    length: PositiveInt
    name: str | None = None
    tokens: tuple[PositiveInt, ...]
    output_rms: Annotated[FiniteFloat, NonNegativeFloat] | None
    warmup_ns: tuple[PositiveInt, ...]
    samples_ns: tuple[PositiveInt, ...]
    resumed_ns: tuple[PositiveInt, ...] = ()
    whole_ns: tuple[PositiveInt, ...] | None = None
    whole_missing: str | None = None
    device_ns: tuple[PositiveInt, ...] | None = None


class WorkerResult(_Strict):
    """What one worker process measured."""

    engine: dict[str, Any]
    clocks_ns: dict[Literal["import", "load", "first"], PositiveInt]
    memory_bytes: dict[Phase, PositiveInt]
    pss_bytes: dict[Phase, PositiveInt | None]
    device_bytes: dict[Phase, dict[DeviceMethod, NonNegativeInt]] = Field(default_factory=dict)
    memory_method: Literal["VmHWM", "ru_maxrss"]
    strain: Interference
    cases: tuple[CaseResult, ...]


class Output(_Strict):
    """Values of one output, evenly spread over it."""

    shape: tuple[PositiveInt, ...]
    values: tuple[FiniteFloat, ...]


class CountResult(_Strict):
    """What a worker that only ran a number of inferences gives back."""

    engine: dict[str, Any]
    outputs: dict[str, Output]


class Devices(_Strict):
    """The GPUs that an engine can use, or why it has none (see `worker.list_gpus`)."""

    version: str
    cuda: str | None
    gpus: tuple[str, ...]
    lacks: str | None = None
    hint: str | None = None


class GemmRate(_Strict):
    """A matrix product M x K by K x N, timed (see `worker.peak_rates`)."""

    by: str
    precision: str
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    samples_ns: tuple[PositiveInt, ...] = Field(min_length=1)

    @property
    def rate(self) -> float:
        """Operations per second of the fastest run; a multiply-add is two."""
        m, k, n = self.shape
        return 2 * m * k * n / (min(self.samples_ns) * 1e-9)


class ReadRate(_Strict):
    """Reading or copying an array, `passes` times in each sample (see `worker.peak_rates`)."""

    kind: Literal["read", "copy"]
    num_bytes: PositiveInt
    passes: PositiveInt
    is_memory: bool
    samples_ns: tuple[PositiveInt, ...] = Field(min_length=1)

    @property
    def rate(self) -> float:
        """Bytes moved per second in the fastest run; a copied byte is moved twice."""
        moved = self.num_bytes * self.passes * (2 if self.kind == "copy" else 1)
        return moved / (min(self.samples_ns) * 1e-9)


class MachineRates(_Strict):
    """How fast a machine multiplies and reads."""

    products: tuple[GemmRate, ...]
    streams: tuple[ReadRate, ...]
    cache_bytes: PositiveInt | None


class MachineInfo(_Strict):
    """What a worker that only looked around gives back."""

    machine: dict[str, Any]


def read_result(text: bytes, kind: type[R], job: WorkerJob) -> R:
    """Read what a worker wrote.

    Args:
        kind: `WorkerResult`, `CountResult`, `MachineInfo`, `Devices` or `MachineRates`.

    Raises:
        MeasurementError: it is none.
        MissingDependency: the worker had no engine, or not what it needs.
    """
    _refuse_missing(text, job)
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise MeasurementError(
            _about(job, f"is not a result{f' at `{place}`' if place else ''}: {first['msg']}")
        ) from None


def check_result(text: bytes, job: WorkerJob, wall_ns: int) -> WorkerResult:
    """Read the result of a job `time`, and refuse what cannot be true.

    Args:
        wall_ns: how long its process lived: it cannot have measured for longer.

    Raises:
        MeasurementError: no result, another job's result, outputs that are not finite, or impossible times.
        MissingDependency: the worker had no engine.
    """
    result = read_result(text, WorkerResult, job)
    if len(result.cases) != len(job.cases) or not all(map(_answers, result.cases, job.cases)):
        raise MeasurementError(_about(job, "has other cases than requested"))
    if set(result.memory_bytes) != set(PHASES) or set(result.clocks_ns) != set(PHASES[:-1]):
        raise MeasurementError(_about(job, "lacks a phase"))
    for case in result.cases:
        if case.output_rms is None:
            raise MeasurementError(
                f"the model returns non-finite values at batch {case.batch}, length {case.length}",
                where=str(job.path),
            )
        if len(case.samples_ns) < job.min_samples or len(case.warmup_ns) < job.warmup_iterations:
            raise MeasurementError(_about(job, "has fewer samples than requested"))
    told_ns = sum(result.clocks_ns.values()) + sum(
        sum(map(sum, (c.warmup_ns, c.samples_ns, c.resumed_ns, c.whole_ns or (), c.device_ns or ())))
        for c in result.cases
    )
    if told_ns > wall_ns:
        raise MeasurementError(_about(job, f"tells of {told_ns / 1e9:.1f} s; its process lived {wall_ns / 1e9:.1f} s"))
    return result


def _answers(case: CaseResult, asked: dict[str, Any]) -> bool:
    if "name" in asked:
        return case.name == asked["name"] and len(case.tokens) == len(asked["batches"])
    return case.name is None and (case.batch, case.length) == (asked["batch"], asked["length"])


def missing_package(text: bytes) -> str | None:
    """The package without which a worker could not do its job (see `worker.__main__`)."""
    answer = _refusal(text)
    return str(answer["missing"]).partition(".")[0] if "missing" in answer else None


def _refuse_missing(text: bytes, job: WorkerJob) -> None:
    answer = _refusal(text)
    if "missing" in answer:
        raise MissingDependency(
            f"the engine `{job.engine}` cannot run: the package `{answer['missing']}` is not installed",
            hint=ENGINES[job.engine].install,
        )
    if "lacks" in answer and set(answer) <= {"lacks", "hint"}:
        what, hint = str(answer["lacks"]), answer.get("hint")
        raise MissingDependency(f"`{job.engine}` cannot run: {what}", hint=str(hint) if hint else None)


def _refusal(text: bytes) -> dict[str, Any]:
    """What a worker that cannot do its job says instead of giving a result; empty when it can."""
    try:
        answer = json.loads(text) if len(text) < _LONGEST_REFUSAL_BYTES else None
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _about(job: WorkerJob, what: str) -> str:
    return f"what the worker gave for `{job.path}` {what}"
