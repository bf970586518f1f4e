"""A measurement and how it was obtained.

Every sample is kept, grouped by the process (round) that took it; median, interval and percentiles are derived, never
stored. What varies between processes is what counts, so intervals are taken over rounds, not over samples (pyperf's
argument), and two models are compared by the ratio of their medians round by round (`compare`). Intervals are
Student's: with the five or ten rounds that a run affords, a percentile bootstrap covers 84 to 90 % where it says 95
%.

A percentile is given only when enough samples stand behind it: the smallest n for which the nearest-rank estimate has a
99 % upper confidence bound inside the sample, 1 - p^n >= 0.99 in MLPerf's early-stopping form (p50 7, p90 44, p99 459
for the maximum; MLPerf asks one more failing query, hence its 11, 64, 662).
"""

import math
import statistics
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bertshrink.errors import MeasurementError

STUDENT_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.179, 2.145, 2.120, 2.101, 2.086)
"""Quantiles of Student's t for a 95 % interval: degrees of freedom 1 to 10, then 12, 14, 16, 18, 20."""

PERCENTILE_NEEDS = {50: 11, 90: 64, 95: 130, 99: 662}
"""Samples that a percentile needs: MLPerf loadgen's early-stopping rule at 99 % confidence."""


class Evidence(StrEnum):
    """How a figure was obtained, strongest first."""

    MEASURED_DEVICE = "measured-device"
    MEASURED_ARM64 = "measured-arm64"
    EMULATED_INSTRUCTIONS = "emulated-instructions"
    MODELLED_RANGE = "modelled-range"
    MEASURED_HOST = "measured-host"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Conditions(_Frozen):
    """Under what a measurement was taken; what does not apply is None."""

    target: str = "host"
    engine: str | None = None
    precision: str | None = None
    threads: int | None = None
    batch: int | None = None
    length: int | None = None
    phase: str | None = Field(None, description="load, first, steady: the part of a process's life")
    dataset: str | None = None
    split: str | None = None
    num_examples: int | None = None

    def label(self) -> str:
        """The conditions in a few words: `onnxruntime 8x128 steady`."""
        shape = f"{self.batch}x{self.length}" if self.batch is not None else None
        return " ".join(part for part in (self.engine, shape, self.phase) if part)


class Environment(_Frozen):
    """The machine and the software of a measurement; `id` is the hash of what decides speed."""

    id: str
    cpu: str
    isa: tuple[str, ...] = ()
    num_cores: int = 0
    memory_bytes: int = 0
    gpu: str | None = None
    hypervisor: str | None = None
    system: str = ""
    python: str = ""
    packages: dict[str, str] = Field(default_factory=dict)


class Interval(_Frozen):
    """A value between two bounds, 95 % unless said otherwise."""

    value: float
    low: float
    high: float


Better = Literal["lower", "higher", "neither"]


class Measurement(_Frozen):
    """One metric of one model under one set of conditions.

    `samples` holds a tuple per process, each with every value that process took, in the base unit `unit`
    ("B", "s", "count", "fraction", "" ... as in `units.py`).
    """

    metric: str
    unit: str
    samples: tuple[tuple[float, ...], ...]
    better: Better = "neither"
    conditions: Conditions = Conditions()
    evidence: Evidence = Evidence.MEASURED_HOST
    environment: str | None = None
    warnings: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _finite(self) -> "Measurement":
        """Refuse a value that is none.

        Raises:
            MeasurementError: a sample is NaN or infinite.
        """
        if not all(map(math.isfinite, self.all)):
            raise MeasurementError(
                f"`{self.metric}` gave a value that is not finite",
                where=self.conditions.label() or None,
                hint="look at the outputs of the model that was measured: a constant or broken model does this",
            )
        return self

    @classmethod
    def single(cls, metric: str, unit: str, value: float, better: Better = "neither", **more: object) -> "Measurement":
        """A figure that one look gives exactly: a size, an accuracy."""
        return cls.model_validate({"metric": metric, "unit": unit, "samples": ((value,),), "better": better, **more})

    @property
    def rounds(self) -> list[float]:
        """The median of each process."""
        return [statistics.median(values) for values in self.samples if values]

    @property
    def all(self) -> list[float]:
        """Every sample, in order."""
        return [value for values in self.samples for value in values]

    @property
    def value(self) -> float:
        """The median of the rounds' medians."""
        return statistics.median(self.rounds)

    @property
    def is_exact(self) -> bool:
        """Whether one look gave the figure, so that it has no spread."""
        return len(self.samples) == 1 and len(self.samples[0]) == 1

    def interval(self) -> Interval:
        """The value with its 95 % interval over rounds; no wider than a point when there is one round."""
        half = _half_width(self.rounds)
        return Interval(value=self.value, low=self.value - half, high=self.value + half)

    def percentile(self, p: int) -> float | None:
        """The nearest-rank percentile of all samples; None when there are too few (`PERCENTILE_NEEDS`)."""
        values = sorted(self.all)
        if not 0 < p < 100 or len(values) < PERCENTILE_NEEDS.get(p, math.ceil(math.log(0.01) / math.log(p / 100))):
            return None
        return values[-(-p * len(values) // 100) - 1]


def compare(base: Measurement, other: Measurement) -> Interval | None:
    """Other / base: the geometric mean of the ratios round by round, with its 95 % interval over rounds.

    Returns:
        None when there is no answer: different metrics, units, conditions or machines, an empty side, or a base of
        zero.
    """
    same = base.metric == other.metric and base.unit == other.unit and base.environment == other.environment
    pairs = list(zip(base.rounds, other.rounds, strict=False))
    if not same or _setting(base) != _setting(other) or not pairs or any(a <= 0 or b <= 0 for a, b in pairs):
        return None
    logs = [math.log(b / a) for a, b in pairs]
    middle, half = statistics.fmean(logs), _half_width(logs)
    return Interval(value=math.exp(middle), low=math.exp(middle - half), high=math.exp(middle + half))


def _setting(m: Measurement) -> tuple[object, ...]:
    """What must be alike for two measurements to be compared."""
    c = m.conditions
    return (c.target, c.threads, c.batch, c.length, c.phase, c.dataset, c.split, c.num_examples)


def _half_width(values: list[float]) -> float:
    """Half of Student's 95 % interval of the mean; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    freedom = len(values) - 1
    at = freedom - 1 if freedom <= 10 else min(9 + (freedom - 10) // 2, len(STUDENT_975) - 1)
    return STUDENT_975[at] * statistics.stdev(values) / math.sqrt(len(values))
