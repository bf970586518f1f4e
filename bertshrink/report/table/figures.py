"""How figures and metrics are written: `45.2 ± 0.83 ms`, `2.90x [2.81, 2.99]`, `98.9%`; text safe on one line."""

import math
from dataclasses import dataclass

from bertshrink import units
from bertshrink.report.measurement import Interval, Measurement
from bertshrink.report.metrics import METRICS

DASH = "\u2013"
"""What is where nothing was measured."""


def plain(text: str) -> str:
    """One line without control or invisible characters: no terminal codes, no reversed text."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def title_of(metric: str) -> str:
    """What is above the metric's columns."""
    return METRICS[metric].title if metric in METRICS else plain(metric.replace("_", " ")).capitalize()


def times(ratio: Interval, is_exact: bool = False) -> tuple[str, str]:
    """`2.90x` and `[2.81, 2.99]`; an empty interval only where both sides were counted.

    Three significant digits, one more where two would make the bounds look alike; `5.98e4` from ten thousand on.
    """
    is_close = ratio.low < ratio.high and f"{ratio.low:.2f}" == f"{ratio.high:.2f}"
    below_one, above = 3 if is_close or ratio.low < 0.1 else 2, 3 if is_close else 2
    value, low, high = (_factor(v, below_one if v < 1 else above) for v in (ratio.value, ratio.low, ratio.high))
    return f"{value}x", "" if is_exact else f"[{low}, {high}]"


def _factor(value: float, places: int) -> str:
    """A ratio with this many places after the point below ten, and fewer above."""
    if value and not 1e-3 <= value < 1e4:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa}e{int(exponent)}"
    above = math.floor(math.log10(value)) if value > 1 else 0
    return f"{value:.{max(0, places - above)}f}"


def share(ratio: Interval, is_exact: bool = False) -> tuple[str, str]:
    """`98.9%` and, where the sides were measured several times, `[98.1, 99.6]`."""
    interval = "" if is_exact else f"[{100 * ratio.low:.1f}, {100 * ratio.high:.1f}]"
    return f"{100 * ratio.value:.1f}%", interval


_RATES = ("B/s", "FLOP/s", "op/s")
"""Units that take a prefix: `12.1 GB/s`."""

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))

_ASKEW = 0.15
"""Of half an interval's width: how far its middle may be from the figure for `±` to tell the truth."""
_TOO_LONG = 1e4
"""Figures with five digits before the point are hard to read."""


@dataclass(frozen=True)
class Scale:
    """The unit that a column is written in: how many base units one of it is, and its suffix with the space."""

    unit: str
    size: float = 1.0
    suffix: str = ""

    @classmethod
    def of(cls, measured: list[Measurement]) -> "Scale":
        """One scale, so that a column's figures can be compared at a glance: the largest value's, or the smallest's
        where that would begin with `0.0`.
        """
        unit, values = measured[0].unit, sorted(abs(m.value) for m in measured)
        if unit == "fraction":
            return cls(unit, 0.01, "%")
        if unit in _RATES:
            size, prefix = next((step for step in _PREFIXES if values[-1] >= step[0]), _PREFIXES[-1])
            return cls(unit, size, f" {prefix}{unit}")
        if unit not in ("B", "s", "count"):
            return cls(unit, 1.0, f" {plain(unit)}" if unit else "")
        large, small = cls._of_value(values[-1], unit), cls._of_value(values[0], unit)
        is_far = values[0] < 0.1 * large.size and values[-1] < _TOO_LONG * small.size
        return small if values[0] and is_far else large

    @classmethod
    def _of_value(cls, value: float, unit: str) -> "Scale":
        number, space, name = units.format(value, unit).partition(" ")
        if not float(number):
            return cls(unit)
        return cls(unit, units.parse(f"1 {name}")[0], f"{space}{name}")

    def write(self, value: float) -> str:
        """The value in this unit, without the suffix."""
        shown = value / self.size
        if self.unit in ("fraction", "point"):
            return f"{shown:.2f}"
        if self.unit == "":
            return f"{shown:.4f}"
        return f"{shown:.0f}" if self.size == 1 and shown == round(shown) else digits(shown, 3)

    def figure(self, m: Measurement) -> str:
        """The median with half the width of its 95 % interval: `45.2 ± 0.83 ms`; of a range its bounds:
        `12.0 to 31.0 ms`; both bounds where an interval over texts is askew: `100.00% [84.54, 100.00]`.
        """
        interval = m.interval()
        low, high = self.write(interval.low), self.write(interval.high)
        if m.is_range:
            return f"{low} to {high}{self.suffix}"
        half = (interval.high - interval.low) / 2
        if m.sampling is not None and low == high:
            return f"{self.write(m.value)}{self.suffix}"
        if m.sampling is not None and abs((interval.low + interval.high) / 2 - m.value) > _ASKEW * half:
            return f"{self.write(m.value)}{self.suffix} [{low}, {high}]"
        spread = f" ± {digits(half / self.size, 2)}" if half else ""
        return f"{self.write(m.value)}{spread}{self.suffix}"


def digits(value: float, number: int) -> str:
    """The value with `number` significant digits, never in powers of ten."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    return f"{value:.{max(0, number - 1 - math.floor(math.log10(abs(value))))}f}"
