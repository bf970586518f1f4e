"""Tail latency: the median and the percentiles of every latency, case by case.

A percentile that too few samples are behind is not given; its cell says how many it takes.
"""

from dataclasses import dataclass

from bertshrink.report.measurement import PERCENTILE_NEEDS, Measurement
from bertshrink.report.metrics import is_counted
from bertshrink.report.table.figures import Scale, digits
from bertshrink.report.table.table import Table
from bertshrink.report.table.target_sections import PERCENTILES


@dataclass(frozen=True)
class Percentile:
    """A percentile as text, or, where too few samples stand behind it, what it takes."""

    text: str
    is_claimed: bool


@dataclass(frozen=True)
class Line:
    """A model in a case: its median with the interval, its percentiles, what they are on, and its validity."""

    label: str
    median: str
    interval: str
    percentiles: tuple[Percentile, ...]
    samples: str
    validity: str


@dataclass(frozen=True)
class Case:
    """What was run, and a line per model."""

    title: str
    lines: tuple[Line, ...]


def cases(table: Table) -> tuple[Case, ...]:
    """Every timed case of the table; none where no latency was measured in rounds."""
    timed_cases = []
    for place in table.of_group("latency"):
        rows = [(row.label, m) for row in table.rows if (m := row.cells[place].measurement) is not None]
        timed = [(label, m) for label, m in rows if not is_counted(m)]
        if timed:
            column = table.columns[place]
            timed_cases.append(Case(column.heading, tuple(_line(label, m, column.scale) for label, m in timed)))
    return tuple(timed_cases)


def _line(label: str, m: Measurement, scale: Scale) -> Line:
    interval = m.interval()
    # Student's interval of few and scattered rounds can reach below zero, where no time is.
    low, high = (digits(max(0.0, bound) / scale.size, 3) for bound in (interval.low, interval.high))
    rounds = len(m.rounds)
    return Line(
        label,
        f"{scale.write(m.value)}{scale.suffix}",
        f"[{low}, {high}]" if rounds > 1 else "",
        tuple(_percentile(m, p, scale) for p in PERCENTILES),
        f"{len(m.all)} in {rounds} {'process' if rounds == 1 else 'processes'}",
        m.validity,
    )


def _percentile(m: Measurement, p: int, scale: Scale) -> Percentile:
    value = m.percentile(p)
    if value is None:
        return Percentile(f"needs {PERCENTILE_NEEDS[p]} samples", is_claimed=False)
    return Percentile(f"{scale.write(value)}{scale.suffix}", is_claimed=True)
