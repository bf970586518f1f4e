"""What came out, in three or four figures: size, speed, quality, memory of the last model against the reference.

Of several latencies the smallest speed-up is the one in large figures, so that the headline never flatters; the rest
are beside it. A figure that is called invalid is none: its place says why.
"""

from collections import Counter
from dataclasses import dataclass

from bertshrink.report.table.figures import times
from bertshrink.report.table.quality_notes import against_trivial, difference
from bertshrink.report.table.table import Cell, Column, Row, Table
from bertshrink.report.table.verdicts import Tone
from bertshrink.report.table.warning_texts import warning_text

_MAX_OTHERS = 3
"""Cases that are one by one beside the least speed-up; more are summed up."""


@dataclass(frozen=True)
class Fact:
    """One figure of the headline.

    Its title, the figure, its interval (empty: exact), from what to what, the same of its siblings (other shapes, other
    qualities), the verdict of a speed or a quality or a size that is no smaller, and what support it.
    """

    title: str
    figure: str
    interval: str
    detail: str
    others: tuple[str, ...] = ()
    verdict: str = ""
    tone: Tone = ""
    evidence: str = ""


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


def _is_sound(base: Row, result: Row, place: int) -> bool:
    """Whether neither side's figure is called invalid."""
    measured = [row.cells[place].measurement for row in (base, result)]
    return not any(m is not None and m.validity == "invalid" for m in measured)


def _unsound(table: Table, what: str, base: Row, result: Row, places: list[int]) -> Fact:
    """In the place of a figure that is called invalid: that it is, and why."""
    measured = [row.cells[at].measurement for row in (result, base) for at in places]
    reasons = list(dict.fromkeys(warning_text(warning) for m in measured if m is not None for warning in m.warnings))
    more = f", and {len(reasons) - 1} more below" if len(reasons) > 1 else ""
    return Fact(f"so no {what} is stated", "Not valid", "", f"{reasons[0]}{more}" if reasons else "see below")


def told(fact: Fact, has_others: bool = True) -> str:
    """What a figure is, in words: `size of the reference: 90.9 MB to 17.8 MB`; with its siblings, unless not wanted."""
    text = f"{fact.title}: {fact.detail}" if fact.detail else fact.title
    worth = ", ".join(part for part in (fact.verdict, fact.evidence) if part)
    text = f"{text}: {worth}" if worth else text
    return "; ".join([text, *(fact.others if has_others else ())])


def _ratio_fact(table: Table, metric: str, title: str, base: Row, result: Row) -> Fact | None:
    for place, column in enumerate(table.columns):
        cell = result.cells[place]
        if column.metric == metric and cell.against:
            if not _is_sound(base, result, place):
                return _unsound(table, metric, base, result, [place])
            is_smaller = metric != "size" or cell.ratio is None or cell.ratio.value < 1
            verdict = "" if is_smaller else "not smaller than the reference"
            detail = f"{base.cells[place].value} to {cell.value}"
            return Fact(title, cell.against_figure, cell.against_interval, detail, verdict=verdict)
    return None


def _speed_fact(table: Table, base: Row, result: Row) -> Fact | None:
    places = table.of_group("latency")
    places = [i for i in places if table.columns[i].metric == "latency"] or places
    ratios = [(i, ratio) for i in places if (ratio := result.cells[i].ratio) is not None]
    if not ratios:
        return None
    sound = [(i, ratio) for i, ratio in ratios if _is_sound(base, result, i)]
    if not sound:
        return _unsound(table, "speed", base, result, [i for i, _ in ratios])
    unsound, ratios = len(ratios) - len(sound), sound
    place, least = min(ratios, key=lambda pair: pair[1].value)
    figure, interval = times(least)
    detail = f"{base.cells[place].value} to {result.cells[place].value}"
    if table.columns[place].where:
        detail += f" at {table.columns[place].where}"
    others = _other_speeds(table, result, place, [i for i, _ in ratios])
    others += (f"{unsound} other case{'s' if unsound > 1 else ''} not valid",) if unsound else ()
    cell = result.cells[place]
    return Fact("as fast as the reference", figure, interval, detail, others, cell.verdict, cell.tone)


def _other_speeds(table: Table, result: Row, shown: int, places: list[int]) -> tuple[str, ...]:
    """The other cases of the target that is shown, one by one if they are few; what they span, and other targets."""
    by_target: dict[str, list[int]] = {}
    for place in places:
        if place != shown:
            by_target.setdefault(table.columns[place].target, []).append(place)
    lines = []
    for target, own in by_target.items():
        cells = [result.cells[place] for place in own]
        if target == table.columns[shown].target and len(own) <= _MAX_OTHERS:
            lines += [f"{cell.told} at {table.columns[i].subtitle}" for i, cell in zip(own, cells, strict=True)]
            continue
        ratios = sorted((cell.ratio for cell in cells if cell.ratio is not None), key=lambda ratio: ratio.value)
        low, high = (times(ratio)[0] for ratio in (ratios[0], ratios[-1]))
        words = ", ".join(f"{n} {word}" for word, n in Counter(cell.verdict for cell in cells).items())
        where = "other cases" if target == table.columns[shown].target else f"{target}"
        lines.append(f"{where}: {low} to {high} ({words})" if len(cells) > 1 else f"{where}: {low} {cells[0].verdict}")
    return tuple(lines)


def _quality_fact(table: Table, base: Row, result: Row) -> Fact | None:
    """The first quality that can be compared with the reference, else the first there is."""
    places = [i for i in table.of_group("quality") if result.cells[i].measurement is not None]
    if not places:
        return None
    place = next((i for i in places if result.cells[i].ratio is not None), places[0])
    others = tuple(_quality(table.columns[i], result.cells[i]) for i in places if i != place)
    column, cell = table.columns[place], result.cells[place]
    if cell.ratio is None:
        return Fact(column.heading.lower(), cell.value, "", "", others)
    detail = f"{base.cells[place].value} to {cell.value}"
    title = f"of the reference's {column.heading.lower()}"
    return Fact(title, cell.against_figure, cell.against_interval, detail, others, *_worth(base, result, place))


def _worth(base: Row, result: Row, place: int) -> tuple[str, Tone, str]:
    """What the quality is worth: against the reference in a word, its tone, and the evidence; and whether that is any
    good.
    """
    theirs, own = base.cells[place].measurement, result.cells[place].measurement
    if theirs is None or own is None:
        return "", "", ""
    change, trivial = difference(theirs, own), against_trivial(theirs)
    evidence = [change.evidence if change is not None else "", f"the reference {trivial}" if trivial else ""]
    told = "; ".join(part for part in evidence if part)
    return (change.word, change.tone, told) if change is not None else ("", "", told)


def _quality(column: Column, cell: Cell) -> str:
    return f"{column.heading.lower()} {cell.value}"
