"""A report on a terminal: tables no wider than the window, no colour needed, no figure cut.

Columns that do not fit beside the names go into a further table below: what the model is (size, quality) before what
it costs (latency, memory). Each cell has the figure and under it what it is against the reference.
"""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from bertshrink.report.render.figures import plain
from bertshrink.report.render.headline import headline, told
from bertshrink.report.render.table import Column, Row, Table, build
from bertshrink.report.report import Report

_MIN_NAME = 14
"""Columns of text that a model's name gets at least; a longer name wraps."""
_MAX_NAME = 32
_GAP = 2
"""Blanks between two columns."""


def render(report: Report, width: int | None = None) -> RenderableType:
    """Draw the report.

    Args:
        report: any report.
        width: characters per line to fill at most; None: what the console has.

    Returns:
        Something that a Rich console prints.
    """
    return _Screen(report, width)


class _Screen:
    """A report that is laid out when it is printed, since only then the width is known."""

    def __init__(self, report: Report, width: int | None) -> None:
        self._report = report
        self._width = width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self._width or options.max_width, options.max_width)
        yield Group(*_parts(self._report, build(self._report), width))


def _parts(report: Report, table: Table, width: int) -> Iterable[RenderableType]:
    yield Text(plain(report.name), style="bold")
    yield Text(plain(f"{report.model}, {report.task}"))
    for fact in headline(table):
        figure = f"{fact.figure} {fact.interval}".strip()
        yield Padding(Text.assemble((figure, "bold"), f" {told(fact)}"), (0, 0, 0, 2))
    name_width, grids = _packed(table, width)
    for places in grids:
        yield Text()
        yield _grid(table, places, name_width)
    if table.footnotes:
        yield Text()
    for number, note in enumerate(table.footnotes, 1):
        yield _item(f"[{number}]", Text(note))
    if table.advice:
        yield Text()
    for advice in table.advice:
        about = f"{advice.subject}: " if advice.subject else ""
        yield _item("!" if advice.is_warning else "-", Text(f"{about}{advice.text}"))


def _packed(table: Table, width: int) -> tuple[int, list[list[int]]]:
    """How wide the names are, and which columns each table has: long names wrap where that saves a table."""
    longest = max((len(_name(row)) for row in table.rows), default=0)
    widths = range(max(_MIN_NAME, min(_MAX_NAME, longest)), _MIN_NAME - 1, -1)
    tried = [
        (name, [grid for _, places in table.chapters for grid in _filled(table, places, width - name)])
        for name in widths
    ]
    return min(tried, key=lambda attempt: len(attempt[1]))


def _name(row: Row) -> str:
    return f"  {row.label}" if row.is_baseline else row.label


def _head(column: Column) -> list[str]:
    """The lines of a column's head: what, under which conditions, and what the second line of a cell is."""
    return [
        f"{column.title} [{column.note}]",
        *([column.subtitle] if column.subtitle else []),
        *([column.against_title] if column.against_title else []),
    ]


def _column_width(table: Table, place: int) -> int:
    """The characters that the column's widest line takes."""
    lines = _head(table.columns[place])
    for row in table.rows:
        lines += [row.cells[place].value, row.cells[place].against]
    return max(len(line) for line in lines)


def _filled(table: Table, places: list[int], room: int) -> list[list[int]]:
    """The columns in order, as many to a table as fit into `room` characters, one at least."""
    tables: list[list[int]] = []
    left = -1
    for place in places:
        need = _column_width(table, place) + _GAP
        if need > left:
            tables.append([])
            left = room
        tables[-1].append(place)
        left -= need
    return tables


def _grid(table: Table, places: list[int], name_width: int) -> Grid:
    grid = Grid(box=None, padding=(0, 0, 0, _GAP), show_edge=False, pad_edge=False, header_style="bold")
    grid.add_column(Text("Model"), width=name_width, overflow="fold")
    for place in places:
        lines = _head(table.columns[place])
        width = _column_width(table, place)
        grid.add_column(Text("\n".join(lines)), justify="right", min_width=width, no_wrap=True, overflow="fold")
    for row in table.rows:
        cells = [Text(f"{row.cells[place].value}\n{row.cells[place].against}".rstrip()) for place in places]
        label = Padding(Text(row.label), (0, 0, 0, 2)) if row.is_baseline else Text(row.label)
        grid.add_row(label, *cells)
    return grid


def _item(mark: str, text: Text) -> Grid:
    """A line with a hanging indent."""
    grid = Grid.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=3, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark), text)
    return grid
