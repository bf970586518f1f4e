"""A measurement and how it was obtained.

Every sample is kept, grouped by the process (round) that took it; median, interval and percentiles are derived, never
stored. Two models are compared by the ratio of their medians round by round (`compare`, `judge`); intervals and
verdicts are those of `report.statistics`.

A percentile is given only when enough samples support it: the smallest n for which the nearest-rank estimate has a
99 % upper confidence bound inside the sample, 1 - p^n >= 0.99 in MLPerf's early-stopping form (p50 7, p90 44, p99 459
for the maximum; MLPerf asks one more failing query, hence its 11, 64, 662).
"""

import math
import statistics
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from bertshrink.errors import MeasurementError
from bertshrink.report.correctness_bits import Outcomes
from bertshrink.report.statistics import MARGIN, Verdict, mean_interval, median_interval, verdict

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

    target: str = "cpu"
    engine: str | None = None
    precision: str | None = None
    threads: int | None = None
    batch: int | None = None
    length: int | None = None
    phase: str | None = Field(None, description="load, first, steady: the part of a process's life")
    workload: str | None = Field(None, description="the file of texts that was run; None: random tokens")
    padding: str | None = Field(None, description="of such texts: `longest` of each batch, or a number of tokens")
    dataset: str | None = None
    split: str | None = None
    num_examples: int | None = None
    questions: str | None = Field(None, description="fingerprint of the texts that judge, with their right answers")

    @property
    def case(self) -> str | None:
        """What was run, as people write it: `8x128`, or `reviews.txt x8`; None where nothing was."""
        if self.batch is None:
            return None
        return f"{self.workload} x{self.batch}" if self.workload else f"{self.batch}x{self.length}"

    def label(self) -> str:
        """The conditions in a few words: `onnxruntime 8x128 steady`."""
        return " ".join(part for part in (self.engine, self.case, self.phase) if part)


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
Validity = Literal["valid", "semivalid", "invalid"]

WarningKind = Literal[
    "not_warmed_up",
    "outliers",
    "drift",
    "outputs_differ",
    "means_only",
    "others_busy",
    "stolen",
    "throttled",
    "gpu_held_back",
    "rounds_missing",
    "busy_at_start",
    "memory_since_start",
]
"""What can speak against figures."""

WARNING_VALUES: dict[WarningKind, tuple[str, ...]] = {
    "not_warmed_up": ("change of the last warm-up iterations, a fraction",),
    "outliers": ("outliers", "samples"),
    "drift": ("change from the rounds' first half to the second, a fraction",),
    "others_busy": ("cores that other processes kept busy",),
    "stolen": ("fraction of the processors' time that other machines got",),
    "throttled": ("how often the processor was slowed down",),
    "rounds_missing": ("rounds that were run", "rounds that were asked for", "seconds that were available"),
    "busy_at_start": ("load average", "cores"),
}
"""What the values of each kind of warning are; of any other kind there are none."""


class MeasurementWarning(_Frozen):
    """Something that speaks against figures, as data; `report.table.warning_texts` has the words."""

    kind: WarningKind
    case: str | None = Field(None, description="what was run, as `Conditions.case`; None: it is about all cases")
    values: tuple[FiniteFloat, ...] = Field((), description="as in `WARNING_VALUES`")
    names: tuple[str, ...] = Field((), description="of `gpu_held_back`: the reasons")
    is_grave: bool = Field(False, description="whether the figures are invalid for it")

    @model_validator(mode="after")
    def _whole(self) -> "MeasurementWarning":
        """Refuse other values than the kind has."""
        wanted = WARNING_VALUES.get(self.kind, ())
        if len(self.values) != len(wanted):
            raise ValueError(f"the values of `{self.kind}` are: {', '.join(wanted) or 'none'}")
        return self


class Measurement(_Frozen):
    """One metric of one model under one set of conditions.

    `samples` holds a tuple per process, each with every value that process took, in the base unit `unit`
    ("B", "s", "count", "fraction", "" ... as in `units.py`).

    What was modelled is never one value: its samples are one pair, the lower and the upper bound (`is_range`). It has
    no median, no interval and no ratio.
    """

    metric: str
    unit: str
    samples: tuple[tuple[float, ...], ...]
    better: Better = "neither"
    conditions: Conditions = Conditions()
    evidence: Evidence = Evidence.MEASURED_HOST
    environment: str | None = None
    warnings: tuple[MeasurementWarning, ...] = ()
    validity: Validity = Field("valid", description="what the figure is worth after all that is said in `warnings`")
    outcomes: Outcomes | None = Field(None, description="of a share of right answers: which ones are right")
    sampling: tuple[float, float] | None = Field(
        None, description="of a figure of answers to texts: 95 % bounds for other texts of the same kind"
    )
    ahead: tuple[float, float] | None = Field(
        None, description="95 % bounds of the figure less the reference's, over the same texts drawn again"
    )
    chance: float | None = Field(None, description="what always predicting the most frequent class gets on these texts")

    @model_validator(mode="after")
    def _finite(self) -> "Measurement":
        """Refuse samples that are NaN or infinite, and a model's range that is not one pair of bounds."""
        if self.is_range and not (len(self.samples) == 1 and len(self.samples[0]) == 2):
            raise ValueError("a modelled figure is one pair of bounds")
        if self.is_range and self.samples[0][0] > self.samples[0][1]:
            raise ValueError("the lower bound is above the upper one")
        if not all(map(math.isfinite, self.all)):
            raise MeasurementError(
                f"`{self.metric}` gave a value that is not finite",
                where=self.conditions.label() or None,
                hint="check the model's outputs: a constant or broken model causes this",
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
    def is_range(self) -> bool:
        """Whether the samples are the two bounds of what was modelled."""
        return self.evidence == Evidence.MODELLED_RANGE

    @property
    def value(self) -> float:
        """The median of the rounds' medians; of a range the middle, which orders and scales and is never shown."""
        return statistics.median(self.rounds)

    @property
    def is_exact(self) -> bool:
        """Whether one look gave the figure, so that it has no spread."""
        return len(self.samples) == 1 and len(self.samples[0]) == 1

    def interval(self) -> Interval:
        """The value with its 95 % interval over rounds, or over texts; a point where neither is there; or the range."""
        if self.is_range:
            return Interval(value=self.value, low=self.samples[0][0], high=self.samples[0][1])
        if self.sampling is not None:
            return Interval(value=self.value, low=self.sampling[0], high=self.sampling[1])
        low, high = median_interval(tuple(self.rounds))
        return Interval(value=self.value, low=low, high=high)

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
    logs = _log_ratios(base, other)
    if logs is None:
        return None
    low, high = mean_interval(logs)
    return Interval(value=math.exp(statistics.fmean(logs)), low=math.exp(low), high=math.exp(high))


def judge(base: Measurement, other: Measurement, margin: float = MARGIN) -> Verdict | None:
    """Whether the other takes less or more than the base; see `statistics.verdict`. None where `compare` is None."""
    logs = _log_ratios(base, other)
    return None if logs is None else verdict(logs, margin)


def across(base: Measurement, other: Measurement) -> Interval | None:
    """Other / base where they were taken on different machines: the ratio of the values, and the bounds that their
    intervals allow. Nothing was interleaved, so nothing cancels. None where they are of different things, or modelled.
    """
    if base.is_range or other.is_range:
        return None
    things = [(m.metric, m.unit, _setting(m)[2:]) for m in (base, other)]
    if things[0] != things[1] or not base.rounds or not other.rounds:
        return None
    one, two = base.interval(), other.interval()
    if min(one.low, two.low) <= 0:
        return None
    return Interval(value=two.value / one.value, low=two.low / one.high, high=two.high / one.low)


def _log_ratios(base: Measurement, other: Measurement) -> tuple[float, ...] | None:
    same = base.metric == other.metric and base.unit == other.unit and base.environment == other.environment
    same = same and not (base.is_range or other.is_range)
    pairs = list(zip(base.rounds, other.rounds, strict=False))
    if not same or _setting(base) != _setting(other) or not pairs or any(a <= 0 or b <= 0 for a, b in pairs):
        return None
    return tuple(math.log(b / a) for a, b in pairs)


def _setting(m: Measurement) -> tuple[object, ...]:
    """What must be alike for two measurements to be compared."""
    c = m.conditions
    shape = (c.batch, c.length, c.workload, c.padding)
    return (c.target, c.threads, *shape, c.phase, c.dataset, c.split, c.num_examples)
