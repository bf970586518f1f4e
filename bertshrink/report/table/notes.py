"""What a report's reader should know besides the figures: notes of the stages, and doubts about the measurements.

A note is as its technique wrote it. A measurement's warning is `CASE: DOUBT` (`8x16: not warmed up, the last
warm-up iterations still changed by +184 %`) or a doubt without a case. A run of a few models under a few shapes has
dozens, so doubts of one kind become one line: how many cases have it, and how far it goes where it is worst. The kind
is the doubt up to its first comma; a doubt without a case is a kind of its own. Nothing is lost: the JSON and the
HTML's stages hold every warning as it was.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bertshrink.report.measurement import Measurement
from bertshrink.report.report import Report, Snapshot
from bertshrink.report.table.figures import plain
from bertshrink.report.table.metrics import is_counted

_CASE = re.compile(r"(\d+x\d+|\S.* x\d+): (.+)")
_COUNTED = re.compile(r"(\d+ of \d+ \w+) are ([^,;]+)(.*)")
"""A doubt that begins with a count: `2 of 15 samples are outliers; all are kept`."""
_NUMBER = re.compile(r"(?<![\w.])[+-]?(\d+(?:\.\d+)?)(?: of (\d+))?")
_MAX_NAMED = 2


@dataclass(frozen=True)
class Advice:
    """A note of a technique or a warning of a measurement: whom it is about (may be empty), and what it says."""

    subject: str
    text: str
    is_warning: bool


@dataclass(frozen=True)
class _Doubt:
    """A warning of one case: its metric, the model and the case, and what was found, empty where the kind says all."""

    metric: str
    where: str
    detail: str

    @property
    def severity(self) -> float:
        """How large the figure in the detail is, whichever sign it has; 0 without one."""
        found = _NUMBER.search(self.detail)
        return float(found[1]) / (float(found[2] or 1) or 1) if found else 0.0


Found = Sequence[tuple[Snapshot, Measurement]]
"""Measurements with the models they are of."""


def notes(report: Report, snapshots: list[Snapshot]) -> tuple[Advice, ...]:
    """Notes of the run and its stages; what several models share is said once."""
    about: dict[str, dict[str, None]] = {plain(note): {} for note in report.notes}
    for snapshot in snapshots:
        for note in snapshot.notes:
            about.setdefault(plain(note), {})[plain(snapshot.label)] = None
    return tuple(Advice(", ".join(subjects), text, is_warning=False) for text, subjects in about.items())


def warnings_of(snapshot: Snapshot) -> list[str]:
    """Every warning of one model as it was written, each once."""
    return list(dict.fromkeys(plain(text) for m in snapshot.measurements for text in m.warnings))


def doubts(found: Found) -> tuple[Advice, ...]:
    """What speaks against figures: what concerns whole models, then what concerns single cases, one line a kind."""
    loose: dict[str, dict[str, None]] = {}
    cased: dict[str, list[_Doubt]] = {}
    for snapshot, m in found:
        for text in map(plain, m.warnings):
            case = _CASE.fullmatch(text)
            if case is None:
                loose.setdefault(text, {})[plain(snapshot.label)] = None
                continue
            kind, detail = _parted(case[2])
            cased.setdefault(kind, []).append(_Doubt(m.metric, f"{plain(snapshot.label)} {case[1]}", detail))
    running = {plain(snapshot.label) for snapshot, m in found if not is_counted(m)}
    lines = [("" if len(a) > 1 and a.keys() >= running else ", ".join(a), t) for t, a in _joined(loose).items()]
    lines += [("", _summary(kind, cases, found)) for kind, cases in cased.items()]
    return tuple(Advice(subject, text, is_warning=True) for subject, text in lines)


def _joined(loose: dict[str, dict[str, None]]) -> dict[str, dict[str, None]]:
    """Doubts that differ by their first number only become one: `other processes kept 1.4 to 1.6 cores busy`."""
    alike: dict[str, list[str]] = {}
    for text in loose:
        alike.setdefault(_NUMBER.sub("\n", text, count=1), []).append(text)
    joined = {}
    for form, texts in alike.items():
        found = [match[0] for text in texts if (match := _NUMBER.search(text))]
        numbers = sorted(found, key=lambda number: float(number.partition(" ")[0])) if len(texts) > 1 else []
        text = form.replace("\n", f"{numbers[0]} to {numbers[-1]}") if numbers else texts[0]
        joined[text] = {subject: None for text in texts for subject in loose[text]}
    return joined


def _parted(doubt: str) -> tuple[str, str]:
    """The kind of a doubt and its detail."""
    counted = _COUNTED.fullmatch(doubt)
    if counted:
        return counted[2], counted[1] + counted[3]
    kind, _, detail = doubt.partition(", ")
    return kind, detail


def _summary(kind: str, doubts: list[_Doubt], found: Found) -> str:
    """`outliers in 10 of 16 cases: up to 2 of 15 samples; all are kept (minilm 8x48)`."""
    metrics = {doubt.metric for doubt in doubts}
    total = sum(m.metric in metrics for _, m in found)
    text = f"{kind} in {len(doubts)} of {total} case{'s' if total != 1 else ''}"
    worst = max(doubts, key=lambda doubt: doubt.severity)
    if not worst.detail:
        named = ", ".join(doubt.where for doubt in doubts[:_MAX_NAMED])
        return f"{text} ({named}{', ...' if len(doubts) > _MAX_NAMED else ''})"
    if len({doubt.detail for doubt in doubts}) == 1:
        return f"{text}: {worst.detail} ({worst.where})"
    return (
        f"{text}: {_NUMBER.sub(lambda found: 'up to ' + found[0].lstrip('+-'), worst.detail, count=1)} ({worst.where})"
    )
