"""What GitHub shows of a step: annotations on the lines where limits are written, and the step's summary.

    ::error file=pyproject.toml,line=12,col=1,title=size::17.6 MB, past the limit by 100 kB

In a message `%`, carriage return and line feed are escaped; in a property `:` and `,` too, or the rest of the line
would be read as another property. A step shows 10 errors and 10 warnings and drops the rest without a word, so that the
tenth says how many there are. A summary above 1 MiB is refused as a whole.
"""

from __future__ import annotations

import re
from pathlib import Path

from bertshrink.gates.judge import Verdict
from bertshrink.gates.show.wording import sentence
from bertshrink.gates.verdict import Judgement

MAX_ANNOTATIONS = 10
SUMMARY_BYTES = 1_000_000
"""GitHub refuses more than 1,048,576 in all steps' writes of one step together."""
_PLACE = re.compile(r"(.+?):(\d+):(\d+)")


def commands(judgement: Judgement, root: Path) -> list[str]:
    """The workflow commands, one a line: errors, then warnings.

    Args:
        root: of the repository; places are written relative to it.
    """
    lines: dict[str, list[str]] = {"error": [], "warning": []}
    for judged in judgement.judged:
        for finding in judged.findings:
            if finding.verdict not in (Verdict.PASS, Verdict.NEW):
                kind = "error" if judgement.fails(finding) else "warning"
                hint = f"\n{finding.hint}" if finding.hint else ""
                where = _place(finding.rule.place, root)
                title = f"title={_property(f'gate: {finding.name}')}"
                properties = ",".join([*where, title])
                lines[kind].append(f"::{kind} {properties}::{_message(sentence(judged, finding) + hint)}")
    return [*_first("error", lines["error"]), *_first("warning", lines["warning"])]


def error(what: str, where: str | None, hint: str | None, root: Path) -> str:
    """One fault that is not a finding, as an annotation."""
    text = "\n".join(filter(None, (what, None if where is None or _place(where, root) else where, hint)))
    properties = ",".join([*_place(where or "", root), f"title={_property('gate')}"])
    return f"::error {properties}::{_message(text)}"


def _first(kind: str, lines: list[str]) -> list[str]:
    """As many as GitHub shows; the last says how many are left."""
    if len(lines) <= MAX_ANNOTATIONS:
        return lines
    kept = lines[: MAX_ANNOTATIONS - 1]
    left = len(lines) - len(kept)
    return [*kept, f"::{kind} title={_property('gate')}::{left} more: see the log or the summary"]


def _place(place: str, root: Path) -> list[str]:
    """`file=`, `line=`, `col=` of a place; nothing where it is none."""
    match = _PLACE.fullmatch(place)
    if match is None:
        return []
    path = Path(match[1]).resolve()
    file = path.relative_to(root.resolve()) if path.is_relative_to(root.resolve()) else path
    return [f"file={_property(file.as_posix())}", f"line={match[2]}", f"col={match[3]}"]


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
