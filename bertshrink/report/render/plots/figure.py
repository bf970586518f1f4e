"""What every picture is made of: its words, its height and how it is painted; and the marks that several share.

A picture is made from the table, so that a picture and a cell cannot disagree. The reference and what led to it are
grey, stages are coloured, baselines hollow or pale. Bars start at zero; dots need not, since they are read against the
axis. A time whose values are far apart is on a logarithmic axis, and the caption says so.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bertshrink.report.measurement import Measurement
from bertshrink.report.render.plots.svg_cleanup import CHARACTER, FONT, REFERENCE, SMALL, STAGE
from bertshrink.report.table.table import Cell, Column, Row, Table

ROW = 44
"""Height of a row: a line of text above its mark."""
FOOT = 20
"""Height that an x axis takes."""
MAX_LABEL = 28
"""Characters of a name inside a picture: about half its width."""
FAR = 6.0
"""Values further apart than this, as a ratio, want a logarithmic axis: on a plain one the small ones look alike."""


@dataclass(frozen=True)
class Sketch:
    """A picture before it is drawn.

    Attributes:
        caption: how to read it.
        words: what it shows, for who cannot see it.
        height: in units of which `svg.WIDTH` make the width.
        paint: gets the matplotlib Figure.
        target: where the models ran; empty for a picture of the models themselves.
    """

    title: str
    caption: str
    words: str
    height: float
    paint: Callable[[Any], None]
    target: str = ""


def measured(table: Table, place: int) -> list[tuple[Row, Cell, Measurement]]:
    """The rows that have a figure in this column."""
    pairs = [(row, row.cells[place]) for row in table.rows]
    return [(row, cell, cell.measurement) for row, cell in pairs if cell.measurement is not None]


def colour(row: Row) -> str:
    """Grey for the reference and what led to it and for baselines, else the colour of stages."""
    return STAGE if row.snapshot.role in ("stage", "compared") and not row.leads else REFERENCE


def words(cell: Cell, column: Column) -> str:
    """The figure, its ratio and the verdict; their intervals are drawn or are in the table."""
    figure = (
        cell.value if cell.measurement is None else f"{column.scale.write(cell.measurement.value)}{column.scale.suffix}"
    )
    return " · ".join(part for part in (figure, f"{cell.against_figure} {cell.verdict}".strip()) if part)


def in_words(rows: list[tuple[Row, Cell, Measurement]]) -> str:
    """What a picture of one column shows, as text."""
    return "; ".join(f"{row.label}: {cell.value} {cell.told}".strip() for row, cell, _ in rows)


def value(cell: Cell) -> float:
    """The cell's figure in its base unit."""
    return cell.measurement.value if cell.measurement else 0.0


def axis_name(column: Column) -> str:
    """What an axis measures: `Latency 8x128, ms`."""
    unit = column.scale.suffix.strip()
    return ", ".join(part for part in (f"{column.title} {column.subtitle}".strip(), unit) if part)


def padded(values: list[float], part: float) -> tuple[float, float]:
    """An axis around the values, `part` of their range free at each side."""
    low, high = min(values), max(values)
    room = part * (high - low) or max(abs(high) * part, 1e-6)
    return low - room, high + room


def is_far(values: list[float]) -> bool:
    """Whether these values want a logarithmic axis."""
    return min(values) > 0 and max(values) > FAR * min(values)


def log_axis(axes: Any, which: str, limits: tuple[float, float]) -> None:
    """A logarithmic axis with plain numbers at its ticks: 0.1, 0.2, 0.5, 1; over several decades only 0.1, 1, 10."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = limits
    getattr(axes, f"set_{which}scale")("log")
    getattr(axes, f"set_{which}lim")(low, high)
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 2.2 else (1, 3) if decades < 3.2 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(FixedLocator([step * 10.0**power for power in powers for step in steps]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < 1e5 else f"{value:.0e}"))
    axis.set_minor_locator(NullLocator())


def log_padded(values: list[float], part: float) -> tuple[float, float]:
    """As `padded`, for a logarithmic axis."""
    low, high = padded([math.log(value) for value in values], part)
    return math.exp(low), math.exp(high)


def legend(figure: Any, axes: Any, columns: int = 3) -> None:
    """The names of the axes' marks, above the picture."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper left",
        ncols=columns,
        borderpad=0,
        borderaxespad=0.2,
        handlelength=1,
        handleheight=0.8,
        columnspacing=1.6,
    )


def legend_height(count: int, columns: int = 3) -> float:
    """What a legend of so many names takes."""
    return 18 * -(-count // columns) + 8


def label_apart(axes: Any, labels: list[str], points: Any, areas: list[float], path: Any = ()) -> None:
    """Write each label beside its bubble, where it covers the fewest other labels and bubbles and the least of a line.

    Args:
        axes: with its limits set.
        points: where the bubbles are, in pixels.
        areas: of the bubbles, in points squared.
        path: the corners of a line to keep clear of, in pixels.
    """
    frame = axes.get_window_extent()
    radii = [area**0.5 / 2 for area in areas]
    taken = [(px - r, py - r, px + r, py + r) for (px, py), r in zip(points, radii, strict=True)]
    for (x0, y0), (x1, y1) in pairwise(path):
        steps = [(x0 + (x1 - x0) * part / _STEPS, y0 + (y1 - y0) * part / _STEPS) for part in range(_STEPS + 1)]
        taken += [(x - 2, y - 2, x + 2, y + 2) for x, y in steps]
    for label, (px, py), radius in zip(labels, points, radii, strict=True):
        width, reach = CHARACTER * len(label), radius + 4
        sides = [(px - width / 2, py + reach), (px - width / 2, py - reach - FONT), (px + reach, py - 6)]
        sides += [(px - reach - width, py - 6)]
        corners = [(min(max(x, frame.x0), frame.x1 - width), y + lift) for lift in _LIFTS for x, y in sides]
        boxes = [(x, y, x + width, y + FONT) for x, y in corners]
        cost = [sum(_overlap(box, other) for other in taken) + _outside(box, frame.y0, frame.y1) for box in boxes]
        best = boxes[cost.index(min(cost))]
        taken.append(best)
        place = axes.transData.inverted().transform((best[0], best[1]))
        axes.text(*place, label, fontsize=SMALL, va="bottom", ha="left", zorder=4)


_STEPS = 60
"""Parts that a line is taken apart into, each a few pixels long."""

_LIFTS = (0, FONT + 1, -FONT - 1, 2 * FONT + 2, -2 * FONT - 2)
"""How far a label may move up or down from its bubble's sides where bubbles crowd; the nearest free place wins."""

_Box = tuple[float, float, float, float]


def _overlap(a: _Box, b: _Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: _Box, low: float, high: float) -> float:
    """A large penalty for what would leave the frame below or above."""
    return 1e6 * (max(0.0, low - box[1]) + max(0.0, box[3] - high))
