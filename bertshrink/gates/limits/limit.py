"""One limit: `<= 25 MB`, `>= 0.915`, `<= 0.5 pt`, and the rule that it belongs to.

What is better the lower it is has a highest value (`<=`), what is better the higher it is a lowest (`>=`); an
operation's count may have either. A growth or a drop is written as a share of the baseline (`<= 0.5%`) or in the
metric's own unit (`<= 100 kB`); that of a share is the point (`<= 0.5 pt`): half a per cent of 0.92 is something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from bertshrink import units
from bertshrink.errors import UserError
from bertshrink.gates.limits.metric_key import MetricKey

Sign = Literal["<=", ">="]
Severity = Literal["fail", "warn"]

_LIMIT = re.compile(r"\s*(<=|>=)\s*(.+?)\s*")
_EXAMPLES = {
    "B": "25 MB",
    "count": "26 M",
    "fraction": "0.915",
    "": "0.86",
    "x": "1.10",
    "relative": "0.5%",
    "point": "0.5 pt",
    "figure": "0.01",
}
"""What is shown of each kind of limit; `figure`: a drop of a plain figure."""


@dataclass(frozen=True)
class Limit:
    """A bound in base units.

    Attributes:
        sign: `<=`: a highest value; `>=`: a lowest.
        unit: of the metric; "fraction" for a share of the baseline, "x" for a ratio.
        is_share: the value is a share of the baseline.
    """

    sign: Sign
    value: float
    unit: str
    is_share: bool
    text: str

    def is_held(self, value: float) -> bool:
        """Whether a value holds the limit; rounding in the last digit of a difference does not break it."""
        past = value - self.value if self.sign == "<=" else self.value - value
        return past <= 1e-12 * max(abs(value), abs(self.value))


@dataclass(frozen=True)
class Rule:
    """One entry of a configuration.

    Attributes:
        key: what is limited.
        limit: by what.
        severity: whether breaking it fails the gate or is only told.
        since: the git ref of the anchor whose lock it is judged against; None: the baseline.
    """

    key: MetricKey
    limit: Limit
    severity: Severity
    place: str
    since: str | None = None

    @property
    def needs_baseline(self) -> bool:
        """Whether a lock is needed."""
        return self.key.is_relative

    @property
    def needs_running(self) -> bool:
        """Whether a model has to run against a clock, a meter of memory or a counter before it can be judged."""
        return self.key.gauge.source in ("time", "memory", "instructions")

    def __str__(self) -> str:
        since = f" since {self.since}" if self.since else ""
        return f"{self.key}{since} {self.limit.text}"


def read_limit(text: str, key: MetricKey) -> Limit:
    """Read a limit for a key. Raises UserError: a text that is none, or none for this metric."""
    hint = f'write it as "{_example(key)}"'
    match = _LIMIT.fullmatch(text)
    if match is None:
        raise UserError(f"`{text}` is not a limit", hint=hint)
    sign: Sign = "<=" if match[1] == "<=" else ">="
    if sign not in _signs(key):
        better = "higher" if sign == "<=" else "lower"
        raise UserError(f"`{text}`: `{key}` is better when {better}", hint=hint)
    try:
        value, unit = units.parse(match[2])
    except ValueError as error:
        raise UserError(str(error), hint=hint) from None
    limit = _in_units(key, sign, value, unit, f"{sign} {match[2]}")
    if limit is None:
        raise UserError(f"`{text}` is not a limit for `{key}`", hint=hint)
    if limit.value < 0:
        raise UserError(f"`{text}` is below zero", hint=hint)
    return limit


def _in_units(key: MetricKey, sign: Sign, value: float, unit: str, text: str) -> Limit | None:
    """The limit in the unit that the rule is judged in; None where the unit does not fit."""
    gauge = key.gauge
    match key.change:
        case "ratio":
            return Limit(sign, value, "x", False, text) if unit in ("x", "count") and value > 0 else None
        case "growth" | "drop" if unit == "fraction":
            return Limit(sign, value, "fraction", True, text)
        case "growth":
            own = "count" if gauge.unit == "" else gauge.unit
            return Limit(sign, value, gauge.unit, False, text) if unit == own else None
        case "drop":
            fits = unit == "point" or (gauge.unit == "" and unit == "count")
            return Limit(sign, value, gauge.unit, False, text) if fits else None
    if gauge.unit == "fraction":
        fits = unit in ("fraction", "count") and 0 <= value <= 1
    else:
        fits = unit == (gauge.unit or "count")
    return Limit(sign, value, gauge.unit, False, text) if fits else None


def _signs(key: MetricKey) -> tuple[Sign, ...]:
    if key.change or key.gauge.better == "lower":
        return ("<=",)
    return (">=",) if key.gauge.better == "higher" else ("<=", ">=")


def _example(key: MetricKey) -> str:
    gauge = key.gauge
    kind = {"ratio": "x", "growth": "relative", "drop": "point" if gauge.unit == "fraction" else "figure"}.get(
        key.change, gauge.unit
    )
    count = {"nodes": "400", "operators": "25", "new_operators": "0"}.get(key.metric)
    shown = _EXAMPLES[kind] if key.change else count or ("12" if gauge.better == "neither" else _EXAMPLES[kind])
    return f"{_signs(key)[0]} {shown}"
