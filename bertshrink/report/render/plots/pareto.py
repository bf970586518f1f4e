"""What is given for what: quality over latency with the bytes as area, and which models nobody beats in both.

The front joins the models for which no other is both as fast and as good (Pareto). Without a quality it is size over
latency. Latency is that of the largest case, where differences count most.
"""

from typing import Any

from bertshrink.report.render.plots import svg_cleanup as svg
from bertshrink.report.render.plots.figure import (
    MAX_LABEL,
    Sketch,
    axis_name,
    colour,
    is_far,
    label_apart,
    log_axis,
    log_padded,
    measured,
    padded,
    value,
)
from bertshrink.report.render.plots.svg_cleanup import INK, MUTED
from bertshrink.report.table.table import Column, Row, Table

_HEIGHT = 330
_LARGEST = 46.0
"""Points across, of the bubble with the most bytes."""


def front(table: Table, target: str) -> Sketch | None:
    """Quality, or else size, over latency; None for fewer than two models that have both."""
    latencies = [i for i in table.of_group("latency") if table.columns[i].conditions.target == target]
    sizes = [i for i, column in enumerate(table.columns) if column.metric == "size"][:1]
    qualities = _full_quality(table)
    picked = [*latencies[-1:], *(qualities or sizes), *sizes]
    if not latencies or len(picked) < 3:
        return None
    rows = [row for row in table.rows if all(row.cells[i].measurement for i in picked)]
    if len(rows) < 2:
        return None
    across, up = table.columns[picked[0]], table.columns[picked[1]]
    return _drawn(rows, across, up, picked, is_quality=bool(qualities))


def _drawn(rows: list[Row], across: Column, up: Column, picked: list[int], is_quality: bool) -> Sketch:
    columns = zip((across, up), picked[:2], strict=True)
    x, y = ([value(row.cells[i]) / column.scale.size for row in rows] for column, i in columns)
    num_bytes = [value(row.cells[picked[2]]) for row in rows]
    best = pareto(x, [(-1 if is_quality else 1) * _as_told(v, up) for v in y])
    has_log = is_far(x)

    def paint(figure: Any) -> None:
        axes = figure.add_axes((0.12, 44 / _HEIGHT, 0.86, 1 - 60 / _HEIGHT))
        if has_log:
            log_axis(axes, "x", log_padded(x, 0.16))
        else:
            axes.set_xlim(0, 1.18 * max(x) or 1)
        axes.set_ylim(*(padded(y, 0.3) if is_quality else (0, 1.25 * max(y) or 1)))
        axes.grid()
        axes.tick_params(length=0)
        axes.set_xlabel(axis_name(across), labelpad=5)
        axes.plot([x[i] for i in best], [y[i] for i in best], color=MUTED, lw=1.2, alpha=0.8, zorder=1.5)
        area = [_LARGEST**2 * b / (max(num_bytes) or 1) for b in num_bytes] if is_quality else [81.0] * len(x)
        axes.scatter(x, y, s=area, c=[colour(row) for row in rows], alpha=0.55, lw=0, zorder=2)
        axes.scatter(x, y, s=9, c=INK, lw=0, zorder=3)
        labels = [svg.shortened(row.label, MAX_LABEL) for row in rows]
        points = axes.transData.transform(list(zip(x, y, strict=True)))
        label_apart(axes, labels, points, area, [points[i] for i in best])

    told = "; ".join(
        f"{row.label}: {', '.join(row.cells[i].value for i in picked[: 3 if is_quality else 2])}" for row in rows
    )
    goal = "Up and left is better." if is_quality else "Down and left is better."
    caption = f"{goal} Height: {axis_name(up)}."
    caption += " Area of a bubble: bytes." if is_quality else ""
    caption += " Line: Pareto front, models that no other beats in both." if len(best) > 1 else ""
    caption += " The latency axis is logarithmic." if has_log else ""
    return Sketch(f"{up.title} against latency", caption, told, _HEIGHT, paint, across.conditions.target)


def _as_told(shown: float, column: Column) -> float:
    """The value as the table has it: what looks the same there is not better."""
    return float(column.scale.write(shown * column.scale.size))


def pareto(x: list[float], y: list[float]) -> list[int]:
    """The points that no other is below in both, from left to right; of equal ones the first."""
    best: list[int] = []
    for i in sorted(range(len(x)), key=lambda i: (x[i], y[i])):
        if not best or y[i] < y[best[-1]]:
            best.append(i)
    return best


def _full_quality(table: Table) -> list[int]:
    """The quality that most models have, the first of equals."""
    places = table.of_group("quality")
    return [max(places, key=lambda place: len(measured(table, place)))] if places else []
