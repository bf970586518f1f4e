"""One figure of an artifact, with what must be alike before it is compared with another one.

Files give figures that are the same on every machine. A report adds quality (with the outcome of each question where
the metric is a share of right answers), the memory of a process, and instructions counted on an emulated target.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bertshrink.gates.limits.metric_key import HOST, MetricKey, measured_key
from bertshrink.report.correctness_bits import Outcomes
from bertshrink.report.measurement import Measurement
from bertshrink.report.metrics import METRICS, Gauge
from bertshrink.report.report import Report, Snapshot

_STEADY = (None, "steady")


class Reading(BaseModel):
    """A figure in its base unit; what does not apply is None.

    `engine` is whose version decides the figure, `questions` the fingerprint of the texts that judged, `setting` what
    else it was taken under; figures that differ in one of these are not compared. Those of another `machine` are, but
    prove nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    value: float
    unit: str
    low: float | None = Field(None, description="lower end of its 95 % interval, where it is uncertain")
    high: float | None = None
    engine: str | None = None
    questions: str | None = None
    setting: str | None = None
    machine: str | None = None
    outcomes: Outcomes | None = None

    @model_validator(mode="after")
    def _finite(self) -> Reading:
        """Refuse a figure that is none. Raises ValueError: NaN or infinite, or outcomes that give another share."""
        if not all(math.isfinite(v) for v in (self.value, self.low, self.high) if v is not None):
            raise ValueError("the figure is not finite")
        if self.outcomes is not None and not math.isclose(
            self.outcomes.num_right / self.outcomes.num, self.value, abs_tol=1e-9
        ):
            raise ValueError("the figure differs from the share of correct answers beside it")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Its interval; a point where it is certain."""
        return (
            self.value if self.low is None else self.low,
            self.value if self.high is None else self.high,
        )


def of_report(report: Report, snapshot: Snapshot) -> dict[MetricKey, Reading]:
    """The figures of one model that a gate can judge."""
    readings: dict[MetricKey, Reading] = {}
    for m, gauge in _judged(snapshot.measurements):
        readings.setdefault(measured_key(m.metric, m.conditions), _reading(m, gauge, report))
    return readings


def _judged(measurements: Iterable[Measurement]) -> Iterable[tuple[Measurement, Gauge]]:
    for m in measurements:
        gauge = METRICS[m.metric].gauge if m.metric in METRICS else None
        if gauge is None or gauge.source not in ("quality", "memory", "instructions") or not m.rounds:
            continue
        if gauge.source == "memory" and (m.conditions.phase not in _STEADY or m.conditions.target != HOST):
            continue
        yield m, gauge


def _reading(m: Measurement, gauge: Gauge, report: Report) -> Reading:
    c = m.conditions
    if gauge.source == "quality":
        texts = f"{c.num_examples} texts of {c.dataset} {c.split}"
        return Reading(value=m.value, unit=m.unit, questions=c.questions, setting=texts, outcomes=m.outcomes)
    interval = None if m.is_exact or len(m.rounds) < 2 else m.interval()
    return Reading(
        value=m.value,
        unit=m.unit,
        low=interval.low if interval is not None else None,
        high=interval.high if interval is not None else None,
        engine=_engine(m, report),
        setting=f"{c.threads} threads" if c.threads is not None else None,
        machine=m.environment if gauge.source == "memory" else None,
    )


def _engine(m: Measurement, report: Report) -> str | None:
    """`onnxruntime 1.31.1`; None where the report does not know its version."""
    name = m.conditions.engine
    known = report.environments.get(m.environment or "")
    version = known.packages.get(name or "") if known is not None else None
    return f"{name} {version}" if version is not None else None


def model_of(report: Report, sha256: str, num_bytes: int) -> Snapshot | None:
    """The model of a report whose file has these bytes; where the report keeps no hashes, the last one of this size.

    Several models of one file have the same figures; the last is meant.
    """
    same_file = None
    for snapshot in report.snapshots:
        size, known = snapshot.find("size"), snapshot.facts.get("sha256")
        if (known == sha256) if known is not None else (size is not None and size.value == num_bytes):
            same_file = snapshot
    return same_file
