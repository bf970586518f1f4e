"""The pictures of a report: size, latency with its spread, quality, the trade-off, parameters, training.

Each is drawn from the table, so that a picture and a cell cannot disagree. The reference and what led
to it are grey, stages are coloured, baselines hollow. Bars start at zero; dots need not, since they are read against
the axis.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bertshrink import units
from bertshrink.report.measurement import Measurement
from bertshrink.report.render import canvas
from bertshrink.report.render.canvas import (
    CHARACTER,
    FONT,
    INK,
    MUTED,
    PAGE,
    REFERENCE,
    SERIES,
    SMALL,
    STAGE,
)
from bertshrink.report.render.table import Cell, Column, Row, Table

_ROW = 44
"""Height of a row: a line of text above its mark."""
_FOOT = 20
"""Height that an x axis takes."""
_MAX_COMPONENTS = len(SERIES)
_MAX_LABEL = 28
"""Characters of a name inside a picture: about half its width."""


@dataclass(frozen=True)
class Plot:
    """One picture: its identifier on the page, its title, how to read it, and the SVG."""

    name: str
    title: str
    caption: str
    svg: str


def plots(table: Table) -> list[Plot]:
    """Every picture that the table has figures for.

    Args:
        table: as `table.build` makes it.

    Returns:
        The pictures in the order to show; none for a table without figures.
    """
    found: list[Plot] = []
    for place in (i for i, column in enumerate(table.columns) if column.metric == "size"):
        found.append(_bars(table, place, f"plot-{len(found)}"))
    parts = _components(table, f"plot-{len(found)}")
    found += [parts] if parts else []
    for place in table.of_group("latency"):
        found.append(_spread(table, place, f"plot-{len(found)}"))
    for place in table.of_group("quality"):
        found.append(_dots(table, place, f"plot-{len(found)}"))
    trade = _trade_off(table, f"plot-{len(found)}")
    found += [trade] if trade else []
    for row in table.rows:
        plot = _training(row, f"plot-{len(found)}")
        found += [plot] if plot else []
    return found


def _measured(table: Table, place: int) -> list[tuple[Row, Cell, Measurement]]:
    """The rows that have a figure in this column."""
    pairs = [(row, row.cells[place]) for row in table.rows]
    return [(row, cell, cell.measurement) for row, cell in pairs if cell.measurement is not None]


def _colour(row: Row) -> str:
    return STAGE if row.snapshot.role in ("stage", "compared") and not row.leads else REFERENCE


def _words(cell: Cell) -> str:
    return f"{cell.value} · {cell.against}" if cell.against else cell.value


def _bars(table: Table, place: int, name: str) -> Plot:
    """A bar per model, from zero."""
    column, rows = table.columns[place], _measured(table, place)
    height = _ROW * len(rows)

    def paint(figure: Any) -> None:
        axes = canvas.rows_axes(figure, height, len(rows))
        axes.set_xlim(0, max(m.value for _, _, m in rows) or 1)
        axes.set_xticks([])
        for y, (row, cell, m) in enumerate(rows):
            canvas.row_text(axes, y, row.label, _words(cell), row.is_baseline)
            axes.barh(y + 0.1, m.value, height=0.3, color=_colour(row), alpha=0.4 if row.is_baseline else 0.9)

    return Plot(name, column.heading, "Shorter is smaller.", canvas.draw(name, height, paint))


def _spread(table: Table, place: int, name: str) -> Plot:
    """Per model: how all samples are spread, each round's median, and the median with its interval."""
    column, rows = table.columns[place], _measured(table, place)
    height = _ROW * len(rows) + _FOOT
    size = column.scale.size
    limit = 1.04 * max(max(*m.rounds, m.interval().high, _most(m)) for _, _, m in rows) / size
    num_beyond = sum(value / size > limit for _, _, m in rows for value in m.all)

    def paint(figure: Any) -> None:
        axes = canvas.rows_axes(figure, height, len(rows), _FOOT)
        axes.set_xlim(0, limit)
        canvas.row_grid(axes, len(rows))
        for y, (row, cell, m) in enumerate(rows):
            canvas.row_text(axes, y, row.label, _words(cell), row.is_baseline)
            _ridge(axes, y + 0.38, [value / size for value in m.all], limit, _colour(row))
            axes.plot(
                [v / size for v in m.rounds],
                [y + 0.2] * len(m.rounds),
                "o",
                ms=4,
                mfc=_colour(row),
                mec=PAGE,
                mew=0.6,
                alpha=0.75,
            )
            interval = m.interval()
            axes.plot(
                [interval.low / size, interval.high / size], [y + 0.38] * 2, color=INK, lw=3.5, solid_capstyle="butt"
            )
            axes.plot([interval.value / size] * 2, [y + 0.02, y + 0.38], color=INK, lw=1.4)

    caption = "Hill: all samples. Dots: each process's median. Line: the median, with its 95 % interval at the foot."
    if num_beyond:
        caption += f" {num_beyond} of {sum(len(m.all) for _, _, m in rows)} samples are beyond the right edge."
    return Plot(name, _axis_name(column), caption, canvas.draw(name, height, paint))


def _most(m: Measurement) -> float:
    """The value that 98 % of the samples stay under: a few stragglers must not flatten the picture."""
    values = sorted(m.all)
    return values[min(len(values) - 1, int(0.98 * len(values)))]


def _ridge(axes: Any, foot: float, values: list[float], limit: float, colour: str) -> None:
    """The samples' distribution as a hill of fixed height; too few samples make none."""
    if len(values) < 8 or min(values) == max(values):
        return
    import numpy as np

    grid = np.linspace(0, limit, 400)
    inside = np.asarray(values)
    low, high = np.quantile(inside, [0.25, 0.75])
    width = max(
        0.9 * min(float(inside.std()), (high - low) / 1.34 or float(inside.std())) * len(values) ** -0.2, limit / 250
    )
    hill = np.exp(-0.5 * ((grid[:, None] - inside[None, :]) / width) ** 2).sum(axis=1)
    keep = hill > 0.004 * hill.max()
    axes.fill_between(grid[keep], foot, foot - 0.36 * hill[keep] / hill.max(), color=colour, alpha=0.28, lw=0)


def _dots(table: Table, place: int, name: str) -> Plot:
    """A dot per model on an axis that covers what was found, the reference as a line through all."""
    column, rows = table.columns[place], _measured(table, place)
    height = _ROW * len(rows) + _FOOT
    size = column.scale.size
    values = [m.value / size for _, _, m in rows]
    base = next((m.value / size for row, _, m in rows if row.is_reference), None)

    def paint(figure: Any) -> None:
        axes = canvas.rows_axes(figure, height, len(rows), _FOOT)
        axes.set_xlim(*_padded(values, 0.06))
        canvas.row_grid(axes, len(rows))
        for y, (row, cell, m) in enumerate(rows):
            canvas.row_text(axes, y, row.label, _words(cell), row.is_baseline)
            if base is not None and not row.is_reference:
                axes.vlines(base, y - 0.02, y + 0.42, color=REFERENCE, lw=1.6)
                axes.plot(
                    [base, m.value / size], [y + 0.2] * 2, color=_colour(row), lw=2, alpha=0.45, solid_capstyle="butt"
                )
            inside = PAGE if row.is_baseline else _colour(row)
            axes.plot(m.value / size, y + 0.2, "o", ms=9, mfc=inside, mec=_colour(row), mew=1.8, clip_on=False)

    caption = "The axis covers what was found and does not start at zero."
    caption += " Upright line: the reference." if base is not None else ""
    if any(row.is_baseline for row, _, _ in rows):
        caption += " Hollow: shown for comparison."
    return Plot(name, _axis_name(column), caption, canvas.draw(name, height, paint))


def _padded(values: list[float], part: float) -> tuple[float, float]:
    """An axis around the values, `part` of their range free at each side."""
    low, high = min(values), max(values)
    room = part * (high - low) or max(abs(high) * part, 1e-6)
    return low - room, high + room


def _trade_off(table: Table, name: str) -> Plot | None:
    """Quality over latency, the area of a bubble as the bytes: the first quality, at the largest shape."""
    sizes = [i for i, column in enumerate(table.columns) if column.metric == "size"][:1]
    picked = [*table.of_group("latency")[-1:], *_full_quality(table), *sizes]
    if len(picked) < 3:
        return None
    latency, quality, size = picked
    found = [row for row in table.rows if all(row.cells[i].measurement for i in picked)]
    if len(found) < 2:
        return None
    x, y = ([_value(row.cells[i]) / table.columns[i].scale.size for row in found] for i in (latency, quality))
    num_bytes = [_value(row.cells[size]) for row in found]
    across, up = table.columns[latency], table.columns[quality]
    height = 330

    def paint(figure: Any) -> None:
        axes = figure.add_axes((0.1, 44 / height, 0.88, 1 - 60 / height))
        axes.set_xlim(0, 1.18 * max(x))
        axes.set_ylim(*_padded(y, 0.3))
        axes.grid()
        axes.tick_params(length=0)
        axes.set_xlabel(_axis_name(across), labelpad=5)
        path = [i for i, row in enumerate(found) if not row.is_baseline]
        axes.plot([x[i] for i in path], [y[i] for i in path], color=MUTED, lw=1, alpha=0.7, zorder=1.5)
        area = [52**2 * b / max(num_bytes) for b in num_bytes]
        axes.scatter(x, y, s=area, c=[_colour(row) for row in found], alpha=0.55, lw=0, zorder=2)
        axes.scatter(x, y, s=9, c=INK, lw=0, zorder=3)
        _label_apart(
            axes,
            [canvas.shortened(row.label, _MAX_LABEL) for row in found],
            axes.transData.transform(list(zip(x, y, strict=True))),
            area,
        )

    caption = f"Up and left is better. Height: {_axis_name(up)}. Area of a bubble: bytes. The line follows the stages."
    return Plot(name, f"{up.title} against latency", caption, canvas.draw(name, height, paint))


def _full_quality(table: Table) -> list[int]:
    """The quality that most models have, the first of equals."""
    places = table.of_group("quality")
    return [max(places, key=lambda place: len(_measured(table, place)))] if places else []


def _value(cell: Cell) -> float:
    return cell.measurement.value if cell.measurement else 0.0


def _axis_name(column: Column) -> str:
    unit = column.scale.suffix.strip()
    return f"{column.heading}, {unit}" if unit else column.heading


def _label_apart(axes: Any, labels: list[str], points: Any, areas: list[float]) -> None:
    """Write each label beside its bubble, where it covers the fewest other labels and bubbles."""
    frame = axes.get_window_extent()
    radii = [area**0.5 / 2 for area in areas]
    taken = [(px - r, py - r, px + r, py + r) for (px, py), r in zip(points, radii, strict=True)]
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


_LIFTS = (0, FONT + 1, -FONT - 1, 2 * FONT + 2, -2 * FONT - 2)
"""How far a label may move up or down from its bubble's sides where bubbles crowd; the nearest free place wins."""

_Box = tuple[float, float, float, float]


def _overlap(a: _Box, b: _Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: _Box, low: float, high: float) -> float:
    """A large penalty for what would leave the frame below or above."""
    return 1e6 * (max(0.0, low - box[1]) + max(0.0, box[3] - high))


def _components(table: Table, name: str) -> Plot | None:
    """Where the parameters are: one stacked bar per model."""
    rows = [row for row in table.rows if row.snapshot.components]
    if not rows:
        return None
    names = list(dict.fromkeys(part.name for row in rows for part in row.snapshot.components))
    shown = names if len(names) <= _MAX_COMPONENTS else [*names[: _MAX_COMPONENTS - 1], "other"]
    totals = [sum(part.num_parameters for part in row.snapshot.components) for row in rows]
    head = 18 * ((len(shown) + 2) // 3) + 8
    height = _ROW * len(rows) + head

    def paint(figure: Any) -> None:
        axes = canvas.rows_axes(figure, height, len(rows))
        axes.set_position((0.012, 0, 0.976, 1 - head / height))
        axes.set_xlim(0, max(totals) or 1)
        axes.set_xticks([])
        for y, (row, total) in enumerate(zip(rows, totals, strict=True)):
            canvas.row_text(axes, y, row.label, units.format(total, "count"), row.is_baseline)
            left = 0
            for colour, part in zip(SERIES, shown, strict=False):
                count = sum(
                    p.num_parameters
                    for p in row.snapshot.components
                    if (p.name if p.name in shown else "other") == part
                )
                axes.barh(
                    y + 0.1, count, left=left, height=0.3, color=colour, alpha=0.9, label=part if y == 0 else None
                )
                left += count
        _legend(figure, axes)

    return Plot(
        name, "Parameters by component", "Where the numbers of each model are.", canvas.draw(name, height, paint)
    )


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="upper left",
        ncols=3,
        borderpad=0,
        borderaxespad=0.2,
        handlelength=1,
        handleheight=0.8,
        columnspacing=1.6,
    )


_NOT_A_LOSS = ("step", "epoch", "learning_rate", "lr", "seconds", "time", "grad_norm", "judged", "skipped")


def _training(row: Row, name: str) -> Plot | None:
    """The loss and its parts over the steps."""
    history = [entry for entry in row.snapshot.history if "step" in entry]
    keys = sorted({key for entry in history for key in entry if key not in _NOT_A_LOSS and not key.endswith("_per_s")})
    keys = sorted(keys, key=lambda key: key != "loss")[:_MAX_COMPONENTS]
    if len(history) < 2 or not keys:
        return None
    curves = {key: list(_thinned([(e["step"], e[key]) for e in history if key in e])) for key in keys}
    values = [value for curve in curves.values() for _, value in curve]
    head = 18 * ((len(keys) + 2) // 3) + 8
    height = 250 + head

    def paint(figure: Any) -> None:
        axes = figure.add_axes((0.1, 44 / height, 0.88, 1 - (52 + head) / height))
        axes.grid(axis="y")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("step", labelpad=5)
        if min(values) > 0 and max(values) > 30 * min(values):
            _log_scale(axes)
        for colour, (key, curve) in zip((INK, *SERIES), curves.items(), strict=False):
            axes.plot(
                *zip(*curve, strict=True), color=colour, lw=2 if key == "loss" else 1.4, label=key.replace("_", " ")
            )
        _legend(figure, axes)

    caption = (
        "The loss and its parts as logged."
        if len(history) <= _MAX_POINTS
        else "The loss and its parts, averaged over neighbouring steps."
    )
    return Plot(name, f"Training: {row.label}", caption, canvas.draw(name, height, paint))


def _log_scale(axes: Any) -> None:
    """A logarithmic y axis whose ticks are plain numbers: 0.1, 0.2, 0.5, 1."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


_MAX_POINTS = 160
"""Points of a curve that a picture of this width can show."""


def _thinned(curve: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Averages over neighbouring points, at most `_MAX_POINTS` of them."""
    stride = -(-len(curve) // _MAX_POINTS)
    for start in range(0, len(curve), stride):
        part = curve[start : start + stride]
        yield sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)
