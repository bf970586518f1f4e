"""How a time is spread: all samples of every model, each round's median, and the median with its interval.

Samples are shown as a hill (a kernel density, Silverman's rule of thumb for its width) with the box of the middle half
under it; the slowest and the fastest of a hundred are ticks of their own, so that no straggler is left out. Where the
models are far apart the axis is logarithmic, and a hill's width is then a share of the time.
"""

import math
from typing import Any

from bertshrink.report.measurement import Measurement
from bertshrink.report.render.plots import svg_cleanup as svg
from bertshrink.report.render.plots.figure import (
    FOOT,
    Sketch,
    axis_name,
    colour,
    in_words,
    is_far,
    log_axis,
    measured,
    words,
)
from bertshrink.report.render.plots.svg_cleanup import INK, PAGE
from bertshrink.report.table.table import Table

_ROW = 52
"""Taller than a bar's: the hill stands on its box."""

_FOOT_OF_HILL = 0.34
_MIN_HILL = 8
"""Fewer samples make no hill; they are all ticks."""

_MAX_TICKS = 60
"""More of them would be a bar; of a larger crowd, the outermost."""


def spread(table: Table, place: int) -> Sketch:
    """One case: a row per model."""
    column, rows = table.columns[place], measured(table, place)
    height = _ROW * len(rows) + FOOT
    size = column.scale.size
    samples = [[value / size for value in m.all] for _, _, m in rows]
    everything = [value for own in samples for value in own]
    has_log = is_far(everything)
    limits = (min(everything) / 1.12, max(everything) * 1.12) if has_log else (0.0, 1.04 * max(everything) or 1.0)

    def paint(figure: Any) -> None:
        axes = svg.rows_axes(figure, height, len(rows), FOOT)
        if has_log:
            log_axis(axes, "x", limits)
        else:
            axes.set_xlim(*limits)
        svg.row_grid(axes, len(rows))
        for y, ((row, cell, m), own) in enumerate(zip(rows, samples, strict=True)):
            svg.row_text(axes, y, row.label, words(cell, column), row.is_baseline)
            _row(axes, y + _FOOT_OF_HILL, m, size, colour(row))
            _hill(axes, y + _FOOT_OF_HILL, own, limits, colour(row), has_log)

    caption = "Hill: all samples; box: their middle half; ticks: the outermost of them. Dots: each process's median. "
    caption += "Vertical line: the median, on the bar of its 95 % interval."
    caption += " The axis is logarithmic." if has_log else ""
    return Sketch(axis_name(column), caption, in_words(rows), height, paint, column.conditions.target)


def _row(axes: Any, foot: float, m: Measurement, size: float, tint: str) -> None:
    """The marks of one model, the hill aside; `size` is the axis's unit in seconds."""
    import numpy as np

    ordered = sorted(value / size for value in m.all)
    outer = max(1, len(ordered) // 100)
    shown = [*ordered[:outer], *ordered[-outer:]] if len(ordered) >= _MIN_HILL else ordered
    axes.vlines(shown[-_MAX_TICKS:], foot - 0.1, foot, color=tint, lw=1, alpha=0.8)
    low, high = np.quantile(ordered, [0.25, 0.75])
    axes.fill_betweenx([foot, foot + 0.12], low, high, color=tint, alpha=0.35, lw=0)
    dots = [value / size for value in m.rounds]
    axes.plot(dots, [foot + 0.06] * len(dots), "o", ms=3.6, mfc=tint, mec=PAGE, mew=0.6, alpha=0.85)
    interval = m.interval()
    ends = [max(interval.low / size, ordered[0]), min(interval.high / size, ordered[-1])]
    axes.plot(ends, [foot + 0.06] * 2, color=INK, lw=2.6, solid_capstyle="butt")
    axes.plot([interval.value / size] * 2, [foot - 0.3, foot + 0.12], color=INK, lw=1.4)


def _hill(axes: Any, foot: float, values: list[float], limits: tuple[float, float], tint: str, has_log: bool) -> None:
    """The samples' density as a hill of fixed height; too few samples make none."""
    if len(values) < _MIN_HILL or min(values) == max(values):
        return
    import numpy as np

    inside = np.log(values) if has_log else np.asarray(values)
    ends = [math.log(limit) for limit in limits] if has_log else list(limits)
    grid = np.linspace(ends[0], ends[1], 400)
    low, high = np.quantile(inside, [0.25, 0.75])
    deviation = float(inside.std())
    width = 0.9 * min(deviation, (high - low) / 1.34 or deviation) * len(values) ** -0.2
    width = max(width, (ends[1] - ends[0]) / 250)
    hill = np.exp(-0.5 * ((grid[:, None] - inside[None, :]) / width) ** 2).sum(axis=1)
    keep = hill > 0.004 * hill.max()
    across = np.exp(grid) if has_log else grid
    axes.fill_between(across, foot, foot - 0.36 * hill / hill.max(), where=keep, color=tint, alpha=0.28, lw=0)
