"""A judgement on a terminal: a table of rules, then what is open or broken, with its cause and its remedy."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from bertshrink.gates.judge import Verdict
from bertshrink.gates.show.wording import advice, growth_line, headline, status
from bertshrink.gates.verdict import Judged, Judgement
from bertshrink.report.table.figures import plain
from bertshrink.report.table.window import Fitting

_STYLES = {"pass": "green", "FAIL": "bold red", "warn": "yellow", "open": "yellow", "new": "cyan"}


def render(judgement: Judgement) -> RenderableType:
    """Draw a judgement.

    Returns:
        Something that a Rich console prints.
    """
    parts: list[RenderableType] = []
    for judged in judgement.judged:
        parts += [Text(plain(judged.name), style="bold"), _table(judgement, judged), *_told(judgement, judged), Text()]
    parts += [Text(plain(note), overflow="fold") for note in judgement.notes]
    parts.append(Text(f"baseline: {plain(judgement.baseline)}", overflow="fold"))
    parts.append(Text(headline(judgement), style="bold"))
    return Group(*parts)


def _table(judgement: Judgement, judged: Judged) -> Fitting:
    rows = []
    for finding in judged.findings:
        state = status(judgement, finding)
        since = f" since {finding.rule.since}" if finding.rule.since else ""
        name = Text.assemble((f"{state:<4}", _STYLES[state]), f"  {plain(finding.name)}{plain(since)}")
        rows.append((name, finding.rule.limit.text, plain(finding.text)))
    return Fitting((), rows)


def _told(judgement: Judgement, judged: Judged) -> list[RenderableType]:
    """Below the table: of every rule that does not hold, where it is and what to do; then what grew."""
    parts: list[RenderableType] = []
    for finding in judged.findings:
        if finding.verdict not in (Verdict.PASS, Verdict.NEW):
            parts += [Text(), Text(f"{status(judgement, finding)}: {plain(finding.name)}")]
            parts += [Padding(Text(plain(line), overflow="fold"), (0, 0, 0, 2)) for line in advice(judgement, finding)]
    if judged.grown:
        parts += [Text(), Text("what grew")]
        parts += [Padding(Text(plain(growth_line(one)), overflow="fold"), (0, 0, 0, 2)) for one in judged.grown]
    return parts
