"""What came out, in three or four figures: size, speed, quality, memory of the last model against the reference.

Of several latencies the smallest speed-up is the one in large figures, so that the headline never flatters; the rest stand beside it.
"""

from dataclasses import dataclass

from bertshrink.report.render.table import Cell, Column, Row, Table, times

_MAX_QUALITY = 2
"""Quality figures that a headline holds; the table has them all."""


@dataclass(frozen=True)
class Fact:
    """One figure of the headline: what it is about, the figure, its interval (empty: exact), and from what to what."""

    title: str
    figure: str
    interval: str
    detail: str


def headline(table: Table) -> tuple[Fact, ...]:
    """The facts of the table's last model; none when there is nothing to compare."""
    base, result = table.reference, table.result
    if base is None or result is None:
        return ()
    facts = [_ratio_fact(table, "size", "size of the reference", base, result)]
    facts += [_speed_fact(table, base, result)]
    facts += [_quality_fact(table.columns[i], base.cells[i], result.cells[i]) for i in table.of_group("quality")[:_MAX_QUALITY]]
    facts += [_ratio_fact(table, "memory", "memory of the reference", base, result)]
    return tuple(fact for fact in facts if fact is not None)


def _ratio_fact(table: Table, metric: str, title: str, base: Row, result: Row) -> Fact | None:
    for place, column in enumerate(table.columns):
        cell = result.cells[place]
        if column.metric == metric and cell.against:
            figure, interval = _parted(cell.against)
            return Fact(title, figure, interval, f"{base.cells[place].value} to {cell.value}")
    return None


def _speed_fact(table: Table, base: Row, result: Row) -> Fact | None:
    found = [(i, ratio) for i in table.of_group("latency") if (ratio := result.cells[i].ratio) is not None]
    if not found:
        return None
    place, least = min(found, key=lambda pair: pair[1].value)
    figure, interval = _parted(times(least))
    detail = f"{table.columns[place].heading}: {base.cells[place].value} to {result.cells[place].value}"
    if least.low <= 1 <= least.high:
        detail += "; the interval holds 1, so no difference is shown"
    others = [f"{table.columns[i].subtitle} {times(ratio)}" for i, ratio in found if i != place]
    if others:
        detail += f". The smallest gain of {len(found)}; the others: {', '.join(others)}"
    return Fact("as fast as the reference", figure, interval, detail)


def _quality_fact(column: Column, base: Cell, cell: Cell) -> Fact | None:
    if cell.measurement is None:
        return None
    if cell.ratio is not None:
        figure, interval = _parted(cell.against)
        return Fact(f"of the reference's {column.heading.lower()}", figure, interval, f"{base.value} to {cell.value}")
    return Fact(column.heading.lower(), cell.value, "", f"reference {base.value}" if base.measurement else "")


def _parted(text: str) -> tuple[str, str]:
    figure, _, interval = text.partition(" [")
    return figure, f"[{interval}" if interval else ""
