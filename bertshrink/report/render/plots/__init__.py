"""The pictures of a report: what the models are, then what they cost on each target, then how training went.

Each is drawn from the table by a file of its own; this one says which there are and in what order they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bertshrink.report.render.plots import svg_cleanup
from bertshrink.report.render.plots.distributions import spread
from bertshrink.report.render.plots.figure import Sketch
from bertshrink.report.render.plots.memory import DRAWN, phases
from bertshrink.report.render.plots.pareto import front
from bertshrink.report.render.plots.roofline import roofline
from bertshrink.report.render.plots.size_and_quality import components, scores, sizes, training
from bertshrink.report.table.figures import plain
from bertshrink.report.table.table import Table


@dataclass(frozen=True)
class Plot:
    """One picture: its identifier on the page, its title, how to read it, the SVG, and the head it is under."""

    name: str
    title: str
    caption: str
    svg: str
    group: str


def plots(table: Table) -> list[Plot]:
    """Every picture that the table has figures for.

    Returns:
        The pictures in the order to show; none for a table without figures.
    """
    return [_drawn(sketch, f"plot-{number}", len(table.standings)) for number, sketch in enumerate(_sketches(table))]


def _drawn(sketch: Sketch, name: str, num_targets: int) -> Plot:
    group = "" if num_targets < 2 else f"On {sketch.target}" if sketch.target else "The models"
    words = plain(f"{sketch.caption} {sketch.words}")
    svg = svg_cleanup.draw(name, sketch.height, sketch.paint, plain(sketch.title), words)
    return Plot(name, sketch.title, sketch.caption, svg, group)


def _sketches(table: Table) -> Iterator[Sketch]:
    own = [sizes(table, place) for place, column in enumerate(table.columns) if column.metric == "size"]
    own += [sketch for sketch in [components(table)] if sketch is not None]
    own += [scores(table, place) for place in table.of_group("quality")]
    yield from own
    for standing in table.standings:
        yield from (sketch for sketch in _of_target(table, standing.target) if sketch is not None)
    yield from (sketch for row in table.rows if (sketch := training(row)) is not None)


def _of_target(table: Table, target: str) -> Iterator[Sketch | None]:
    for place in table.of_group("latency"):
        if table.columns[place].conditions.target == target:
            yield spread(table, place)
    yield front(table, target)
    yield from (phases(table, target, metric) for metric in DRAWN)
    yield roofline(table, target)
