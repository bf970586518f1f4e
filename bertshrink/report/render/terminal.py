"""A report on a terminal: tables no wider than the window, no colour needed, no figure cut.

Only what one picks a model by is shown: size, parameters, quality, latency, memory; the rest is in the HTML and the
Markdown. What the model is (size, quality) comes before what it costs (latency, memory), target by target. A cell has
the figure and what it is against the reference with its verdict, beside it, under it, or on lines of their own: each
table takes the layout that needs the fewest lines, further tables for columns that do not fit included; in a window
that is narrower than a column alone, all columns are lists. What the
figures of each target are worth is last, where the eye is when the command has ended.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from bertshrink.report.report import Report, Sheet
from bertshrink.report.statistics import MARGIN
from bertshrink.report.table.figures import plain
from bertshrink.report.table.headline import headline, told
from bertshrink.report.table.notes import Advice
from bertshrink.report.table.table import Cell, Column, Row, Table, build, sheets
from bertshrink.report.table.target_sections import Standing
from bertshrink.report.table.window import Fitting

_MIN_NAME = 14
"""Columns of text that a model's name gets at least; a longer name wraps."""
_MAX_NAME = 32
_GAP = 2
"""Blanks between two columns, and between a figure and its ratio beside it."""
_LAYOUTS = (1, 2, 3, 4)
"""Lines that a cell may take: figure, ratio, interval, verdict."""


def render(report: Report, width: int | None = None, margin: float = MARGIN) -> RenderableType:
    """Draw the report.

    Args:
        width: characters per line to fill at most; None: what the console has.
        margin: margin within which speeds count as equivalent, as a fraction.

    Returns:
        Something that a Rich console prints.
    """
    return _Screen(report, width, margin)


class _Screen:
    """A report that is laid out when it is printed, since only then the width is known."""

    def __init__(self, report: Report, width: int | None, margin: float) -> None:
        self._report = report
        self._width = width
        self._margin = margin

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self._width or options.max_width, options.max_width)
        yield Group(*_parts(self._report, build(self._report, only_deciding=True, margin=self._margin), width))


def _parts(report: Report, table: Table, width: int) -> Iterable[RenderableType]:
    yield Text(plain(report.name), style="bold")
    yield Text(plain(f"{report.model}, {report.task}"))
    for fact in headline(table):
        figure = f"{fact.figure} {fact.interval}".strip()
        yield Padding(Text.assemble((figure, "bold"), f" {told(fact, has_others=False)}"), (0, 0, 0, 2))
    for chapter in table.chapters:
        if table.columns[chapter.places[0]].target:
            yield Text()
            yield Text(f"{chapter.title}: {chapter.evidence}", style="bold")
        grids = _packed(table, chapter.places, width)
        if not grids:
            for place in chapter.places:
                yield Text()
                yield from _listing(table, place)
        for grid in grids:
            yield Text()
            yield _grid(table, grid)
    if table.footnotes:
        yield Text()
        yield Text("  ".join(f"[{number}] {note}" for number, note in enumerate(table.footnotes, 1)), overflow="fold")
    for line in table.shared:
        yield Text(line, overflow="fold")
    for row, sheet in sheets(table):
        yield Text()
        yield Text(f"{row.label} {sheet.title}", style="bold", overflow="fold")
        yield _sheet(sheet)
    if table.advice:
        yield Text()
        yield _listed([("!" if advice.is_warning else "-", _told(advice)) for advice in table.advice])
    for standing in table.standings:
        yield Text()
        yield from _standing(standing)


def _sheet(sheet: Sheet) -> Fitting:
    return Fitting([plain(title) for title in sheet.heading], [[plain(word) for word in row] for row in sheet.rows])


_STYLES = {"valid": "bold green", "semivalid": "bold yellow", "invalid": "bold red"}


def _standing(standing: Standing) -> Iterable[RenderableType]:
    """What the figures of a target are worth, and why."""
    kinds = "; ".join(f"{kind}, {meaning}" for kind, meaning in standing.evidence)
    verdict = (standing.badge, _STYLES[standing.validity])
    yield Text.assemble((standing.target, "bold"), ": ", verdict, f", {standing.meaning}; {kinds}", overflow="fold")
    models = [("-", ", ".join(f"{name} {validity}" for name, validity in standing.models))] if standing.models else []
    reasons = [("!", _told(advice)) for advice in standing.reasons]
    limits = [("!", f"not claimed: {limit}") for limit in standing.limits]
    lines = [*models, *reasons, *limits, *(("-", line) for line in standing.how)]
    if lines:
        yield _listed(lines)


def _told(advice: Advice) -> str:
    return f"{advice.subject}: {advice.text}" if advice.subject else advice.text


@dataclass(frozen=True)
class _Grid:
    """One table: its columns, the lines that a cell of it may take, and how wide the names are."""

    places: list[int]
    layout: int
    name_width: int


def _packed(table: Table, places: list[int], width: int) -> list[_Grid]:
    """The tables of a chapter in the way that takes the fewest lines, and of those the one that cuts names least; none
    where a column is wider than the window in every way.
    """
    longest = max((len(_name(row)) for row in table.rows), default=0)
    widths = range(max(_MIN_NAME, min(_MAX_NAME, longest)), _MIN_NAME - 1, -1)
    ways = [
        [_Grid(part, layout, name) for part in _filled(table, places, width - name, layout)]
        for name in widths
        for layout in _LAYOUTS
    ]
    fitting = [way for way in ways if all(_width(table, grid) <= width for grid in way)]
    return min(fitting, key=lambda way: sum(_height(table, grid) for grid in way), default=[])


def _width(table: Table, grid: _Grid) -> int:
    heads = [_column(table, place, grid.layout)[0].partition("\n")[0] for place in grid.places]
    return grid.name_width + sum(len(head) + _GAP for head in heads)


def _listing(table: Table, place: int) -> Iterable[RenderableType]:
    """A column as a list, for windows that are narrower than it is."""
    yield Text(", ".join(_head(table.columns[place])), style="bold", overflow="fold")
    for row in (row for row in table.rows if row.cells[place].measurement is not None):
        cell = row.cells[place]
        told = "  ".join(part for part in (cell.value, cell.told) if part)
        yield Padding(Text(f"{row.label}: {told}", overflow="fold"), (0, 0, 0, 4 if row.is_baseline else 2))


def _height(table: Table, grid: _Grid) -> int:
    """The lines of a table: a blank one, the head, the rows."""
    head = max(len(_head(table.columns[place])) for place in grid.places)
    rows = [table.rows[number] for number in _rows(table, grid)]
    cells = [max(len(_lines(row.cells[place], grid.layout)) for place in grid.places) for row in rows]
    names = [-(-len(_name(row)) // grid.name_width) for row in rows]
    return 1 + head + sum(max(pair) for pair in zip(cells, names, strict=True))


def _rows(table: Table, grid: _Grid) -> list[int]:
    """The numbers of the models that have a figure in this table."""
    return [i for i, row in enumerate(table.rows) if any(row.cells[place].measurement for place in grid.places)]


def _name(row: Row) -> str:
    return f"  {row.label}" if row.is_baseline else row.label


def _head(column: Column) -> list[str]:
    lines = [f"{column.title} [{column.note}]", column.subtitle, column.against_title]
    return [line for line in lines if line]


def _lines(cell: Cell, layout: int) -> list[str]:
    """The cell on at most this many lines; on one, its ratio is not yet moved to where the other rows have theirs."""
    if layout <= 2:
        lines = [cell.value, cell.told]
    elif layout == 3:
        lines = [cell.value, f"{cell.against_figure} {cell.verdict}".strip(), cell.against_interval]
    else:
        lines = [cell.value, cell.against_figure, cell.against_interval, cell.verdict]
    lines = [line for line in lines if line]
    return lines if layout > 1 else [(" " * _GAP).join(lines)]


def _column(table: Table, place: int, layout: int) -> tuple[str, list[str]]:
    """The column's head and its cells, every line of them right-aligned to one width."""
    cells = [row.cells[place] for row in table.rows]
    texts = [_lines(cell, layout) for cell in cells]
    if layout == 1 and any(cell.against for cell in cells):
        parts = [(cell.value, cell.against, cell.verdict) for cell in cells]
        widths = [max(len(text) for text in column) for column in zip(*parts, strict=True)]
        texts = [[_beside(part, widths)] for part in parts]
    head = _head(table.columns[place])
    width = max(len(line) for lines in [head, *texts] for line in lines)
    aligned = ["\n".join(f"{line:>{width}}" for line in lines) for lines in [head, *texts]]
    return aligned[0], aligned[1:]


def _beside(parts: tuple[str, str, str], widths: list[int]) -> str:
    """Figure, ratio and verdict on one line, each under its likes of the other rows; a part that no row has is none."""
    figure, ratio, verdict = parts
    words = f"{'':{_GAP}}{verdict:<{widths[2]}}" if widths[2] else ""
    return f"{figure:>{widths[0]}}{'':{_GAP}}{ratio:>{widths[1]}}{words}"


def _filled(table: Table, places: list[int], room: int, layout: int) -> list[list[int]]:
    """The columns in order, as many to a table as fit into `room` characters, one at least."""
    tables: list[list[int]] = []
    left = -1
    for place in places:
        need = len(_column(table, place, layout)[0].partition("\n")[0]) + _GAP
        if need > left:
            tables.append([])
            left = room
        tables[-1].append(place)
        left -= need
    return tables


def _grid(table: Table, grid: _Grid) -> Grid:
    drawn = Grid(box=None, padding=(0, 0, 0, _GAP), show_edge=False, pad_edge=False, header_style="bold")
    drawn.add_column(Text("Model"), width=grid.name_width, overflow="fold")
    columns = [_column(table, place, grid.layout) for place in grid.places]
    for head, _ in columns:
        width = len(head.partition("\n")[0])
        drawn.add_column(Text(head), min_width=width, no_wrap=True, overflow="fold")
    for number in _rows(table, grid):
        row = table.rows[number]
        label = Padding(Text(row.label), (0, 0, 0, 2)) if row.is_baseline else Text(row.label)
        drawn.add_row(label, *(Text(cells[number]) for _, cells in columns))
    return drawn


def _listed(items: list[tuple[str, str]]) -> Grid:
    grid = Grid.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for mark, text in items:
        grid.add_row(Text(mark), Text(text))
    return grid
