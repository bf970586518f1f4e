"""Pictures of the models themselves: bytes, where the parameters are, qualities, and how training went."""

from collections.abc import Iterator
from typing import Any

from bertshrink import units
from bertshrink.report.render.plots import svg_cleanup as svg
from bertshrink.report.render.plots.figure import (
    FOOT,
    ROW,
    Sketch,
    axis_name,
    colour,
    in_words,
    is_far,
    legend,
    legend_height,
    log_axis,
    measured,
    padded,
    words,
)
from bertshrink.report.render.plots.svg_cleanup import INK, PAGE, REFERENCE, SERIES
from bertshrink.report.table.table import Row, Table

_MAX_COMPONENTS = len(SERIES)


def sizes(table: Table, place: int) -> Sketch:
    """A bar per model, from zero."""
    column, rows = table.columns[place], measured(table, place)
    height = ROW * len(rows)

    def paint(figure: Any) -> None:
        axes = svg.rows_axes(figure, height, len(rows))
        axes.set_xlim(0, max(m.value for _, _, m in rows) or 1)
        axes.set_xticks([])
        for y, (row, cell, m) in enumerate(rows):
            svg.row_text(axes, y, row.label, words(cell, column), row.is_baseline)
            axes.barh(y + 0.1, m.value, height=0.3, color=colour(row), alpha=0.4 if row.is_baseline else 0.9)

    return Sketch(column.heading, "Shorter is smaller.", in_words(rows), height, paint)


def components(table: Table) -> Sketch | None:
    """Where the parameters are: one stacked bar per model."""
    rows = [row for row in table.rows if row.snapshot.components]
    if not rows:
        return None
    names = list(dict.fromkeys(part.name for row in rows for part in row.snapshot.components))
    shown = names if len(names) <= _MAX_COMPONENTS else [*names[: _MAX_COMPONENTS - 1], "other"]
    counts = [_counts(row, shown) for row in rows]
    totals = [sum(own) for own in counts]
    head = legend_height(len(shown))
    height = ROW * len(rows) + head

    def paint(figure: Any) -> None:
        axes = svg.rows_axes(figure, height, len(rows))
        axes.set_position((0.012, 0, 0.976, 1 - head / height))
        axes.set_xlim(0, max(totals) or 1)
        axes.set_xticks([])
        for y, (row, own, total) in enumerate(zip(rows, counts, totals, strict=True)):
            svg.row_text(axes, y, row.label, units.format(total, "count"), row.is_baseline)
            left = 0
            for tint, part, count in zip(SERIES, shown, own, strict=False):
                axes.barh(y + 0.1, count, left=left, height=0.3, color=tint, alpha=0.9, label=part if y == 0 else None)
                left += count
        legend(figure, axes)

    told = "; ".join(f"{row.label}: {_shares(shown, own)}" for row, own in zip(rows, counts, strict=True))
    return Sketch("Parameters by component", "Parameters of each model by component.", told, height, paint)


def _counts(row: Row, shown: list[str]) -> list[int]:
    """Parameters of each component, those without a name of their own as `other`."""
    counts = dict.fromkeys(shown, 0)
    for part in row.snapshot.components:
        counts[part.name if part.name in counts else "other"] += part.num_parameters
    return list(counts.values())


def _shares(names: list[str], counts: list[int]) -> str:
    return ", ".join(f"{name} {units.format(count, 'count')}" for name, count in zip(names, counts, strict=True))


def scores(table: Table, place: int) -> Sketch:
    """A dot per model on an axis that covers all values, the reference as a line through all."""
    column, rows = table.columns[place], measured(table, place)
    height = ROW * len(rows) + FOOT
    size = column.scale.size
    values = [m.value / size for _, _, m in rows]
    base = next((m.value / size for row, _, m in rows if row.is_reference), None)

    def paint(figure: Any) -> None:
        axes = svg.rows_axes(figure, height, len(rows), FOOT)
        axes.set_xlim(*padded(values, 0.06))
        svg.row_grid(axes, len(rows))
        for y, (row, cell, m) in enumerate(rows):
            tint = colour(row)
            svg.row_text(axes, y, row.label, words(cell, column), row.is_baseline)
            if base is not None and not row.is_reference:
                axes.vlines(base, y - 0.02, y + 0.42, color=REFERENCE, lw=1.6)
                axes.plot([base, m.value / size], [y + 0.2] * 2, color=tint, lw=2, alpha=0.45, solid_capstyle="butt")
            inside = PAGE if row.is_baseline else tint
            axes.plot(m.value / size, y + 0.2, "o", ms=9, mfc=inside, mec=tint, mew=1.8, clip_on=False)

    caption = "The axis does not start at zero."
    caption += " Vertical line: the reference." if base is not None else ""
    if any(row.is_baseline for row, _, _ in rows):
        caption += " Hollow: shown for comparison."
    return Sketch(axis_name(column), caption, in_words(rows), height, paint)


_NOT_A_LOSS = ("step", "epoch", "learning_rate", "lr", "seconds", "time", "grad_norm", "judged", "skipped")


def training(row: Row) -> Sketch | None:
    """The loss and its parts over the steps."""
    history = [entry for entry in row.snapshot.history if "step" in entry]
    keys = sorted({key for entry in history for key in entry if key not in _NOT_A_LOSS and not key.endswith("_per_s")})
    keys = sorted(keys, key=lambda key: key != "loss")[:_MAX_COMPONENTS]
    if len(history) < 2 or not keys:
        return None
    curves = {key: list(_thinned([(e["step"], e[key]) for e in history if key in e])) for key in keys}
    values = [value for curve in curves.values() for _, value in curve]
    head = legend_height(len(keys))
    height = 250 + head

    def paint(figure: Any) -> None:
        axes = figure.add_axes((0.1, 44 / height, 0.88, 1 - (52 + head) / height))
        axes.grid(axis="y")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("step", labelpad=5)
        if is_far(values) and max(values) > 30 * min(values):
            log_axis(axes, "y", (min(values) / 1.2, max(values) * 1.2))
        for tint, (key, curve) in zip((INK, *SERIES), curves.items(), strict=False):
            axes.plot(
                *zip(*curve, strict=True), color=tint, lw=2 if key == "loss" else 1.4, label=key.replace("_", " ")
            )
        legend(figure, axes)

    caption = (
        "The loss and its parts as logged."
        if len(history) <= _MAX_POINTS
        else "The loss and its parts, averaged over neighbouring steps."
    )
    told = "; ".join(f"{key} from {curve[0][1]:.3g} to {curve[-1][1]:.3g}" for key, curve in curves.items())
    return Sketch(f"Training: {row.label}", caption, told, height, paint)


_MAX_POINTS = 160
"""Points of a curve that a picture of this width can show."""


def _thinned(curve: list[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Averages over neighbouring points, at most `_MAX_POINTS` of them."""
    stride = -(-len(curve) // _MAX_POINTS)
    for start in range(0, len(curve), stride):
        part = curve[start : start + stride]
        yield sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)
