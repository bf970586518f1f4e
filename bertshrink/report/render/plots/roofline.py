"""How near the models come to what the machine can do, with the roof over them.

    across   operations per byte that a case must touch at least (weights and looked-up rows)
    height   operations per second
    roof     min(operations per byte * bytes read per second, the machine's best rate of multiplying in a precision)

Left of a bend memory binds, right of it arithmetic; the gap under the roof is what is left to gain by better kernels
alone (Williams, Waterman and Patterson 2009, doi:10.1145/1498765.1498785). What a model multiplies in several
precisions has a roof between theirs; its exact share of it is in the table.
"""

from dataclasses import dataclass
from typing import Any

from bertshrink.report.measurement import Measurement
from bertshrink.report.render.plots import svg_cleanup as svg
from bertshrink.report.render.plots.figure import (
    MAX_LABEL,
    Sketch,
    label_apart,
    legend,
    legend_height,
    log_axis,
    log_padded,
)
from bertshrink.report.render.plots.svg_cleanup import CHARACTER, INK, MUTED, SERIES, SMALL
from bertshrink.report.table.figures import Scale, plain
from bertshrink.report.table.table import Row, Table

_HEIGHT = 330
_SHAPES = "os^DvPX*"
"""A mark of its own for each model, beside its colour."""


@dataclass(frozen=True)
class _Point:
    """A model in a case: operations per byte and per second, and its share of what the machine can do."""

    model: str
    case: str
    intensity: float
    rate: float
    share: float | None


@dataclass(frozen=True)
class _Roofs:
    """What the machine does at best: bytes read, and operations by precision, per second."""

    reading: float
    products: dict[str, float]


def roofline(table: Table, target: str) -> Sketch | None:
    """Every case of every model under the roofs; None where no rates were measured."""
    points = [point for row in table.rows for point in _points(row, target)]
    roofs = _roofs(table, target)
    if not points or roofs is None:
        return None
    models = list(dict.fromkeys(point.model for point in points))
    head = legend_height(len(models), 2)
    height = _HEIGHT + head
    scale = Scale.of([Measurement.single("rate", "op/s", max(roofs.products.values()))])

    def paint(figure: Any) -> None:
        axes = figure.add_axes((0.14, 44 / height, 0.84, 1 - (54 + head) / height))
        bends = [rate / roofs.reading for rate in roofs.products.values()]
        rates = [p.rate for p in points] + list(roofs.products.values())
        log_axis(axes, "x", log_padded([p.intensity for p in points] + bends, 0.2))
        log_axis(axes, "y", (min(rates) / scale.size / 1.8, max(rates) / scale.size * 1.8))
        axes.grid()
        axes.tick_params(length=0)
        axes.set_xlabel("operations per byte", labelpad=5)
        path = _draw_roofs(axes, roofs, scale.size)
        for number, model in enumerate(models):
            own = [p for p in points if p.model == model]
            axes.plot(
                [p.intensity for p in own],
                [p.rate / scale.size for p in own],
                _SHAPES[number % len(_SHAPES)],
                color=SERIES[number % len(SERIES)],
                ms=7,
                lw=0,
                label=svg.shortened(model, MAX_LABEL),
            )
        places = axes.transData.transform([(p.intensity, p.rate / scale.size) for p in points])
        label_apart(axes, [p.case for p in points], places, [60.0] * len(points), path)
        legend(figure, axes, 2)

    caption = "Line: the machine's peak, bound by memory on the slope and by arithmetic above. The gap "
    caption += "between a point and its roof is potential speed-up. Both axes are logarithmic."
    title = f"Roofline, {scale.suffix.strip()}"
    return Sketch(title, caption, "; ".join(map(_told, points)), height, paint, target)


def _draw_roofs(axes: Any, roofs: _Roofs, size: float) -> list[tuple[float, float]]:
    """The slope of memory up to the highest roof, and a roof for each precision; returns what labels
    must keep clear of, as one line in pixels.
    """
    low, high = axes.get_xlim()
    highest = max(roofs.products.values())
    slope = [(low, low * roofs.reading / size), (highest / roofs.reading, highest / size)]
    axes.plot(*zip(*slope, strict=True), color=INK, lw=1.6)
    path = [tuple(point) for point in axes.transData.transform(slope)]
    for precision, rate in sorted(roofs.products.items(), key=lambda pair: -pair[1]):
        roof = [(rate / roofs.reading, rate / size), (high, rate / size)]
        axes.plot(*zip(*roof, strict=True), color=INK, lw=1.6 if rate == highest else 1.0)
        where = {"textcoords": "offset points", "ha": "right", "fontsize": SMALL, "color": MUTED}
        axes.annotate(precision, roof[1], (-2, 3), **where)
        start, end = (tuple(point) for point in axes.transData.transform(roof))
        name = [(end[0], end[1] + SMALL), (end[0] - CHARACTER * len(precision), end[1] + SMALL)]
        path += [start, end, *name]
    return path


def _told(point: _Point) -> str:
    share = "" if point.share is None else f", {100 * point.share:.0f} % of the machine's peak"
    return f"{point.model} {point.case}: {point.rate:.3g} op/s{share}"


def _roofs(table: Table, target: str) -> _Roofs | None:
    """The best rates among all models' figures of this target."""
    measured = [m for row in table.rows for m in row.snapshot.measurements if m.conditions.target == target]
    reads = [m.value for m in measured if m.metric == "memory_rate" and m.conditions.phase in (None, "read")]
    products: dict[str, float] = {}
    for m in measured:
        if m.metric == "gemm_rate":
            name = plain(m.conditions.precision or "")
            products[name] = max(m.value, products.get(name, 0.0))
    if not reads or not products or min(*reads, *products.values()) <= 0:
        return None
    return _Roofs(max(reads), products)


def _points(row: Row, target: str) -> list[_Point]:
    points = []
    for m in row.snapshot.measurements:
        case = m.conditions.case
        if m.metric != "operation_rate" or m.conditions.target != target or case is None:
            continue
        where = {field: getattr(m.conditions, field) for field in ("target", "batch", "length")}
        moved = row.snapshot.find("byte_rate", **where)
        share = row.snapshot.find("share_of_peak", **where)
        if moved is not None and m.value > 0 and moved.value > 0:
            point = _Point(
                plain(row.label), plain(case), m.value / moved.value, m.value, share.value if share else None
            )
            points.append(point)
    return points
