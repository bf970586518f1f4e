"""A report as Markdown: for a README, a pull request, the summary page of a CI step.

What the figures are worth, one table (one for each target where there are several), its footnotes, the advice, how it
was measured, and the recipe. Text from the report is escaped, so that a
name with a pipe or a tag in it stays text; whatever is long or verbatim is in a fence longer than any run of
backticks in it.
"""

import re

from bertshrink.report.report import Report, Sheet
from bertshrink.report.statistics import MARGIN
from bertshrink.report.table.environments import data_lines, machine_lines
from bertshrink.report.table.figures import plain
from bertshrink.report.table.headline import headline, told
from bertshrink.report.table.notes import Advice
from bertshrink.report.table.table import Cell, Chapter, Column, Row, Table, build, sheets
from bertshrink.report.table.target_sections import Standing


def render(report: Report, margin: float = MARGIN) -> str:
    """Write the report.

    Args:
        margin: margin within which speeds count as equivalent, as a fraction.

    Returns:
        Markdown with GitHub's tables, ending in a newline.
    """
    table = build(report, margin=margin)
    parts = [f"# {safe(plain(report.name))}", f"{safe(plain(report.model))}, {safe(plain(report.task))}"]
    facts = headline(table)
    if facts:
        lines = [f"- **{safe(f'{f.figure} {f.interval}'.strip())}** {safe(told(f))}" for f in facts]
        parts.append("\n".join(lines))
    parts += [_standing(standing) for standing in table.standings]
    if table.columns:
        parts += _tables(table)
        parts.append("\n".join(f"{number}. {safe(note)}" for number, note in enumerate(table.footnotes, 1)))
    if table.shared:
        parts.append("\n".join(f"- {safe(line)}" for line in table.shared))
    parts += [f"**{safe(row.label)}** {safe(sheet.title)}\n\n{_sheet(sheet)}" for row, sheet in sheets(table)]
    if table.advice:
        parts.append("## Notes\n\n" + "\n".join(_note(a) for a in table.advice))
    parts.append("## How it was measured\n\n" + _measured(report))
    if report.recipe:
        parts.append("## Recipe\n\n" + _fence(report.recipe, "yaml"))
    return "\n\n".join(parts) + "\n"


def _standing(standing: Standing) -> str:
    """What the figures of a target are worth: a line, its reasons and limits."""
    kinds = "; ".join(f"{kind} ({safe(meaning)})" for kind, meaning in standing.evidence)
    models = ", ".join(f"{safe(name)} {validity}" for name, validity in standing.models)
    head = f"**{safe(standing.target)}**: **{standing.badge}**{f' ({models})' if models else ''}, {kinds}"
    reasons = [f"- Warning: {_advice(a.subject, a.text)}" for a in standing.reasons]
    limits = [f"- Not claimed: {safe('; '.join(standing.limits))}"] if standing.limits else []
    return "\n".join([head, "", *reasons, *limits, *(f"- {safe(line)}" for line in standing.how)]).rstrip()


def _tables(table: Table) -> list[str]:
    """One table, or of several targets one for each."""
    if len(table.standings) < 2:
        return [_table(table, list(range(len(table.columns))))]
    return [f"{safe(_title(chapter))}\n\n{_table(table, chapter.places)}" for chapter in table.chapters]


def _title(chapter: Chapter) -> str:
    return f"{chapter.title} ({chapter.evidence})" if chapter.evidence else chapter.title


def _table(table: Table, places: list[int]) -> str:
    head = ["Model", *(_heading(table.columns[place]) for place in places)]
    rule = ["---", *("---:" for _ in places)]
    rows = [[_label(row), *(_cell(row.cells[place]) for place in places)] for row in table.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])


def _sheet(sheet: Sheet) -> str:
    cells = [sheet.heading, ["---"] * len(sheet.heading), *sheet.rows]
    return "\n".join(f"| {' | '.join(safe(plain(cell)) for cell in row)} |" for row in cells)


def _heading(column: Column) -> str:
    against = f"<br>{column.against_title}" if column.against_title else ""
    return f"{safe(column.heading)} <sup>{column.note}</sup>{against}"


def _label(row: Row) -> str:
    if row.is_baseline:
        return f"↳ *{safe(row.label)}* (baseline)"
    mark = " (reference)" if row.is_reference else " (before the reference)" if row.leads else ""
    return f"**{safe(row.label)}**{mark}"


def _cell(cell: Cell) -> str:
    against = f"<br>{safe(cell.against)}" if cell.against else ""
    return safe(cell.value) + against + (f" **{safe(cell.verdict)}**" if cell.verdict else "")


def _note(advice: Advice) -> str:
    return f"- {'Warning: ' if advice.is_warning else ''}{_advice(advice.subject, advice.text)}"


def _advice(subject: str, text: str) -> str:
    return f"**{safe(subject)}**: {safe(text)}" if subject else safe(text)


def _measured(report: Report) -> str:
    lines = [*machine_lines(report), *data_lines(report), ("bertshrink", report.version), ("Created", report.created)]
    return (
        "\n".join(f"- {safe(name)}: {safe(plain(text))}" for name, text in lines)
        + "\n\n"
        + _fence(report.command, "sh")
    )


def safe(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", text)


def _fence(text: str, language: str) -> str:
    """A block of verbatim text that nothing in the text can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
