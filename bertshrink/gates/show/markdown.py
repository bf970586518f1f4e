"""A judgement as Markdown: a pull request's comment, a CI step's summary.

The first line is a mark by which a bot finds its own comment again, and no other job's: it holds the judgement's `id`.
Whoever reads it has a limit (a GitHub comment
65,536 characters, a step summary 1 MiB): the text is cut at a line, and says so.
"""

from __future__ import annotations

from urllib.parse import quote

from bertshrink.gates.judge import Verdict
from bertshrink.gates.limits.config import TABLES
from bertshrink.gates.show.wording import advice, growth_line, headline, status
from bertshrink.gates.verdict import Judged, Judgement
from bertshrink.report.render.markdown import safe
from bertshrink.report.table.figures import plain

COMMENT_BYTES = 65_000
"""GitHub takes 65,536 characters; a little is left for what a bot adds."""
_CUT = "\n\n*cut here: the rest is in the log*\n"


def render(judgement: Judgement, max_bytes: int | None = None) -> str:
    """Write the judgement.

    Args:
        max_bytes: of UTF-8; None: no limit.
    """
    own = f" ({safe(plain(judgement.id))})" if judgement.id and judgement.id not in TABLES else ""
    parts = [f"{mark(judgement)}\n### {safe(headline(judgement))}{own}"]
    for judged in judgement.judged:
        parts.append(f"**{safe(plain(judged.name))}**\n\n{_table(judgement, judged)}")
        parts += _told(judgement, judged)
    parts += [safe(plain(note)) for note in judgement.notes]
    parts.append(f"Baseline: {safe(plain(judgement.baseline))}")
    return cut("\n\n".join(parts) + "\n", max_bytes)


def mark(judgement: Judgement) -> str:
    """A comment of HTML, which GitHub and GitLab do not show."""
    own = quote(judgement.id, safe="/._:@+=, ", errors="replace").replace("--", "-%2D")
    return f"<!-- bertshrink:gate {own} -->" if own else "<!-- bertshrink:gate -->"


def cut(text: str, max_bytes: int | None) -> str:
    """The text within a limit, cut at the end of a line."""
    if max_bytes is None or len(text.encode()) <= max_bytes:
        return text
    room = max(0, max_bytes - len(_CUT.encode()))
    kept = text.encode()[:room].decode(errors="ignore").rpartition("\n")[0]
    return kept + _CUT


def _table(judgement: Judgement, judged: Judged) -> str:
    lines = ["| | rule | limit | found |", "|---|---|---|---|"]
    for finding in judged.findings:
        since = f" since {finding.rule.since}" if finding.rule.since else ""
        cells = (status(judgement, finding), f"{finding.name}{since}", finding.rule.limit.text, finding.text)
        state, *rest = (safe(plain(cell)) for cell in cells)
        lines.append(f"| {f'**{state}**' if state == 'FAIL' else state} | {' | '.join(rest)} |")
    return "\n".join(lines)


def _told(judgement: Judgement, judged: Judged) -> list[str]:
    broken = [finding for finding in judged.findings if finding.verdict not in (Verdict.PASS, Verdict.NEW)]
    parts = []
    if broken:
        told = ((f.name, "; ".join(safe(plain(line)) for line in advice(judgement, f))) for f in broken)
        parts.append("\n".join(f"- **{safe(plain(name))}**: {lines}" for name, lines in told))
    if judged.grown:
        lines = "\n".join(f"- {safe(plain(growth_line(one)))}" for one in judged.grown)
        parts.append(f"<details><summary>What grew</summary>\n\n{lines}\n\n</details>")
    return parts
