"""What came out, in three or four figures: size, speed, quality, memory of the last model against the reference.

Of several latencies the smallest speed-up is the one in large figures, so that the headline never flatters; the rest
stand beside it.
"""

from dataclasses import dataclass

from bertshrink.report.render.figures import parted, times
from bertshrink.report.render.table import Cell, Column, Row, Table


@dataclass(frozen=True)
class Fact:
    """One figure of the headline.

    Its title, the figure, its interval (empty: exact), from what to what, and the same of its siblings: other shapes,
    other qualities.
    """

    title: str
    figure: str
    interval: str
    detail: str
    others: tuple[str, ...] = ()


def headline(table: Table) -> tuple[Fact, ...]:
    """The facts of the table's last model; none when there is nothing to compare."""
    base, result = table.reference, table.result
    if base is None or result is None:
        return ()
    facts = [_ratio_fact(table, "size", "size of the reference", base, result)]
    facts += [_speed_fact(table, base, result)]
    facts += [_quality_fact(table, base, result)]
    facts += [_ratio_fact(table, "memory", "memory of the reference", base, result)]
    return tuple(fact for fact in facts if fact is not None)


def told(fact: Fact, has_others: bool = True) -> str:
    """What a figure is, in words: `size of the reference: 90.9 MB to 17.8 MB`; with its siblings, unless not wanted."""
    text = f"{fact.title}: {fact.detail}" if fact.detail else fact.title
    return "; ".join([text, *(fact.others if has_others else ())])


def _ratio_fact(table: Table, metric: str, title: str, base: Row, result: Row) -> Fact | None:
    for place, column in enumerate(table.columns):
        cell = result.cells[place]
        if column.metric == metric and cell.against:
            figure, interval = parted(cell.against)
            return Fact(title, figure, interval, f"{base.cells[place].value} to {cell.value}")
    return None


def _speed_fact(table: Table, base: Row, result: Row) -> Fact | None:
    found = [(i, ratio) for i in table.of_group("latency") if (ratio := result.cells[i].ratio) is not None]
    if not found:
        return None
    place, least = min(found, key=lambda pair: pair[1].value)
    figure, interval = parted(times(least))
    detail = f"{base.cells[place].value} to {result.cells[place].value}"
    if table.columns[place].subtitle:
        detail += f" at {table.columns[place].subtitle}"
    if least.low <= 1 <= least.high:
        detail += "; the interval holds 1: no difference shown"
    others = tuple(f"{times(ratio)} at {table.columns[i].subtitle}" for i, ratio in found if i != place)
    return Fact("as fast as the reference", figure, interval, detail, others)


def _quality_fact(table: Table, base: Row, result: Row) -> Fact | None:
    """The first quality that can be compared with the reference, else the first there is."""
    found = [i for i in table.of_group("quality") if result.cells[i].measurement is not None]
    if not found:
        return None
    place = next((i for i in found if result.cells[i].ratio is not None), found[0])
    others = tuple(_quality(table.columns[i], result.cells[i]) for i in found if i != place)
    column, cell = table.columns[place], result.cells[place]
    if cell.ratio is None:
        return Fact(column.heading.lower(), cell.value, "", "", others)
    figure, interval = parted(cell.against)
    detail = f"{base.cells[place].value} to {cell.value}"
    return Fact(f"of the reference's {column.heading.lower()}", figure, interval, detail, others)


def _quality(column: Column, cell: Cell) -> str:
    return f"{column.heading.lower()} {cell.value}"
