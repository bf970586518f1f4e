"""A measurement and how it was obtained.

Every sample is kept, grouped by the process (round) that took it; median, interval and percentiles are derived, never
stored. What varies between processes is what counts, so intervals are bootstrapped over rounds, not over samples
(pyperf's argument), and two models are compared by the ratio of their medians round by round (`compare`).

A percentile is given only when enough samples stand behind it: the smallest n for which the nearest-rank estimate has a
99 % upper confidence bound inside the sample, 1 - p^n >= 0.99 in MLPerf's early-stopping form (p50 7, p90 44, p99 459 for
the maximum; MLPerf asks one more failing query, hence its 11, 64, 662).
"""

import math
import statistics
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

BOOTSTRAP_RESAMPLES = 10_000
"""Enough that the ends of a 95 % interval move by less than 1 % of its width; the seed is fixed."""

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
        """The value with its 95 % bootstrap interval over rounds."""
        return _bootstrap(self.rounds, statistics.median, self.value)

    def percentile(self, p: int) -> float | None:
        """The nearest-rank percentile of all samples; None when there are too few (`PERCENTILE_NEEDS`)."""
        values = sorted(self.all)
        if len(values) < PERCENTILE_NEEDS.get(p, math.ceil(math.log(0.01) / math.log(p / 100))):
            return None
        return values[min(len(values) - 1, math.ceil(p / 100 * len(values)) - 1)]


def compare(base: Measurement, other: Measurement) -> Interval | None:
    """Other / base: the geometric mean of the ratios round by round, with its 95 % bootstrap interval over rounds.

    Returns:
        None when there is no answer: different metrics, units, conditions or machines, an empty side, or a base of zero.

    """
    same = base.metric == other.metric and base.unit == other.unit and base.environment == other.environment
    shapes = [(m.conditions.target, m.conditions.batch, m.conditions.length, m.conditions.phase) for m in (base, other)]
    pairs = list(zip(base.rounds, other.rounds, strict=False))
    if not same or shapes[0] != shapes[1] or not pairs or any(a <= 0 or b <= 0 for a, b in pairs):
        return None
    logs = [math.log(b / a) for a, b in pairs]
    found = _bootstrap(logs, statistics.fmean, statistics.fmean(logs))
    return Interval(value=math.exp(found.value), low=math.exp(found.low), high=math.exp(found.high))


def _bootstrap(values: list[float], statistic: object, point: float) -> Interval:
    """Percentile bootstrap of a mean or median over `values`, 95 %, with a fixed seed."""
    if len(values) < 2 or min(values) == max(values):
        return Interval(value=point, low=point, high=point)
    import numpy as np

    picks = np.random.default_rng(0).choice(np.asarray(values), size=(BOOTSTRAP_RESAMPLES, len(values)))
    found = np.median(picks, axis=1) if statistic is statistics.median else picks.mean(axis=1)
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(value=point, low=float(low), high=float(high))
