"""Memory through a process's life: the peak while the engine is imported, while the model is loaded, in the first
batch, and while it answers. What importing the engine alone takes is faint in every later bar; the rest is the model's.
"""

from typing import Any

from bertshrink.report.measurement import Measurement
from bertshrink.report.render.plots import svg_cleanup as svg
from bertshrink.report.render.plots.figure import FOOT, Sketch, colour
from bertshrink.report.render.plots.svg_cleanup import INK, MUTED, SMALL
from bertshrink.report.table.figures import Scale, plain, title_of
from bertshrink.report.table.table import Row, Table

PHASES = ("import", "load", "first", "steady")
DRAWN = {"memory": "memory_shared", "device_memory_allocated": "device_memory_reserved"}
"""Peaks that get a picture, and what is marked on their bars."""

_MARKS = {
    "memory_shared": "Line: with memory that processes share divided among them (PSS), at the phase's end.",
    "device_memory_reserved": "Line: what the allocator held.",
}
_BAR = 15
_NAME = 22
"""Heights: of a bar with its gap, of the line with a model's name."""

_LEFT = 0.14
"""Where bars begin, as a share of the width: phases are named before them."""

Phases = dict[str, Measurement]


def phases(table: Table, target: str, metric: str) -> Sketch | None:
    """A block of bars per model; None where no model has a peak in two phases."""
    rows = [(row, _by_phase(row, target, metric), _by_phase(row, target, DRAWN[metric])) for row in table.rows]
    rows = [(row, peaks, marks) for row, peaks, marks in rows if len(peaks) > 1]
    if not rows:
        return None
    scale = Scale.of([m for _, peaks, _ in rows for m in peaks.values()])
    most = max(m.value for _, peaks, marks in rows for m in (*peaks.values(), *marks.values())) / scale.size or 1.0
    heights = [_NAME + _BAR * len(peaks) for _, peaks, _ in rows]
    height = sum(heights) + FOOT

    def paint(figure: Any) -> None:
        axes = figure.add_axes((_LEFT, FOOT / height, 0.988 - _LEFT, 1 - FOOT / height))
        axes.set_ylim(height - FOOT, 0)
        axes.set_xlim(0, 1.14 * most)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
        ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= 1.14 * most]
        top = 0.0
        for (row, peaks, marks), tall in zip(rows, heights, strict=True):
            axes.text(-_LEFT / (0.988 - _LEFT), 1 - (top + 14) / (height - FOOT), row.label, transform=axes.transAxes)
            axes.vlines(ticks, top + _NAME - 1, top + tall, color=svg.GRID, lw=0.8, zorder=0.5)
            _block(axes, top + _NAME, peaks, marks, scale, colour(row))
            top += tall

    caption = "Peak in each phase. Faint: what importing the engine alone takes."
    caption += f" {_MARKS[DRAWN[metric]]}" if any(marks for _, _, marks in rows) else ""
    told = "; ".join(f"{row.label}: {_told(peaks)}" for row, peaks, _ in rows)
    unit = scale.suffix.strip()
    return Sketch(f"{title_of(metric)} by phase, {unit}", caption, told, height, paint, target)


def _block(axes: Any, top: float, peaks: Phases, marks: Phases, scale: Scale, tint: str) -> None:
    engine = peaks["import"].value / scale.size if "import" in peaks else 0.0
    for number, (phase, m) in enumerate(peaks.items()):
        y, long = top + _BAR * (number + 0.5) - 1, m.value / scale.size
        axes.barh(y, min(engine, long), height=_BAR - 4, color=tint, alpha=0.35, lw=0)
        axes.barh(y, max(0.0, long - engine), left=engine, height=_BAR - 4, color=tint, alpha=0.9, lw=0)
        end = long
        if phase in marks:
            at = marks[phase].value / scale.size
            axes.vlines(at, y - _BAR / 2 + 1, y + _BAR / 2 - 1, color=INK, lw=1.4)
            end = max(end, at)
        axes.annotate(phase, (0, y), (-5, 0), textcoords="offset points", ha="right", va="center", **_QUIET)
        words = scale.write(m.value)
        axes.annotate(words, (end, y), (5, 0), textcoords="offset points", ha="left", va="center", **_QUIET)


_QUIET: dict[str, Any] = {"fontsize": SMALL, "color": MUTED, "annotation_clip": False}


def _by_phase(row: Row, target: str, metric: str) -> Phases:
    """The row's figures of a metric, in the order of the phases."""
    own = [m for m in row.snapshot.measurements if m.metric == metric and m.conditions.target == target and m.rounds]
    by_phase = {m.conditions.phase: m for m in reversed(own)}
    return {phase: by_phase[phase] for phase in PHASES if phase in by_phase}


def _told(peaks: Phases) -> str:
    return plain(", ".join(f"{phase} {Scale.of([m]).figure(m)}" for phase, m in peaks.items()))
