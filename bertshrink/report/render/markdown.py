"""A report as Markdown: for a README, a pull request, the summary page of a CI step.

One table, its footnotes, the advice, how it was measured, and the recipe. Text from the report is escaped, so that a
name with a pipe or a tag in it stays text; whatever is long or verbatim stands in a fence longer than any run of
backticks in it.
"""

import re

from bertshrink.report.render.figures import plain
from bertshrink.report.render.headline import headline, told
from bertshrink.report.render.machine import data_lines, machine_lines
from bertshrink.report.render.table import Cell, Column, Row, Table, build
from bertshrink.report.report import Report


def render(report: Report) -> str:
    """Write the report.

    Args:
        report: any report.

    Returns:
        Markdown with GitHub's tables, ending in a newline.
    """
    table = build(report)
    parts = [f"# {_safe(plain(report.name))}", f"{_safe(plain(report.model))}, {_safe(plain(report.task))}"]
    facts = headline(table)
    if facts:
        lines = [f"- **{_safe(f'{f.figure} {f.interval}'.strip())}** {_safe(told(f))}" for f in facts]
        parts.append("\n".join(lines))
    if table.columns:
        parts.append(_table(table))
        parts.append("\n".join(f"{number}. {_safe(note)}" for number, note in enumerate(table.footnotes, 1)))
    if table.shared:
        parts.append("\n".join(f"- {_safe(line)}" for line in table.shared))
    if table.advice:
        parts.append("## Notes\n\n" + "\n".join(_advice(a.subject, a.text, a.is_warning) for a in table.advice))
    parts.append("## How it was measured\n\n" + _measured(report))
    if report.recipe:
        parts.append("## Recipe\n\n" + _fence(report.recipe, "yaml"))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    head = ["Model", *(_heading(column) for column in table.columns)]
    rule = ["---", *("---:" for _ in table.columns)]
    rows = [[_label(row), *(_cell(cell) for cell in row.cells)] for row in table.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])


def _heading(column: Column) -> str:
    against = f"<br>{column.against_title}" if column.against_title else ""
    return f"{_safe(column.heading)} <sup>{column.note}</sup>{against}"


def _label(row: Row) -> str:
    if row.is_baseline:
        return f"↳ *{_safe(row.label)}* (baseline)"
    mark = " (reference)" if row.is_reference else " (before the reference)" if row.leads else ""
    return f"**{_safe(row.label)}**{mark}"


def _cell(cell: Cell) -> str:
    return _safe(cell.value) + (f"<br>{_safe(cell.against)}" if cell.against else "")


def _advice(subject: str, text: str, is_warning: bool) -> str:
    about = f"**{_safe(subject)}**: " if subject else ""
    return f"- {'Warning: ' if is_warning else ''}{about}{_safe(text)}"


def _measured(report: Report) -> str:
    lines = [*machine_lines(report), *data_lines(report), ("bertshrink", report.version), ("Created", report.created)]
    return (
        "\n".join(f"- {_safe(name)}: {_safe(plain(text))}" for name, text in lines)
        + "\n\n"
        + _fence(report.command, "sh")
    )


def _safe(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", text)


def _fence(text: str, language: str) -> str:
    """A block of verbatim text that nothing in the text can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
