"""What a report's reader should know besides the figures: notes of the stages, and doubts about the measurements.

A note is as its technique wrote it. A run of a few models under a few shapes has dozens of warnings about single
cases (`8x16: not warmed up, ...`), so those of one kind become one line: how many cases have it, and how far it goes
where it is worst. Those about whole models become one line where only their figure differs. Nothing is lost: the JSON
and the HTML's stages hold every warning.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bertshrink.report.measurement import Measurement, MeasurementWarning, WarningKind
from bertshrink.report.metrics import is_counted
from bertshrink.report.report import Report, Snapshot
from bertshrink.report.table.figures import plain
from bertshrink.report.table.warning_texts import brief, detail, figure_of, sentence, warning_text

_MAX_NAMED = 2


@dataclass(frozen=True)
class Advice:
    """A note of a technique or a warning of a measurement: whom it is about (may be empty), and what it says."""

    subject: str
    text: str
    is_warning: bool


@dataclass(frozen=True)
class _Doubt:
    """A warning about one case: of which metric, and the model and the case."""

    warning: MeasurementWarning
    metric: str
    where: str

    @property
    def severity(self) -> float:
        """How large its figure is, whichever sign it has; 0 without one."""
        first, total = (*self.warning.values, 0.0, 0.0)[:2]
        return abs(first) / (total or 1)


Measured = Sequence[tuple[Snapshot, Measurement]]
"""Measurements with the models they are of."""


def notes(report: Report, snapshots: list[Snapshot]) -> tuple[Advice, ...]:
    """Notes of the run and its stages; what several models share is said once."""
    about: dict[str, dict[str, None]] = {plain(note): {} for note in report.notes}
    for snapshot in snapshots:
        for note in snapshot.notes:
            about.setdefault(plain(note), {})[plain(snapshot.label)] = None
    return tuple(Advice(", ".join(subjects), text, is_warning=False) for text, subjects in about.items())


def warnings_of(snapshot: Snapshot) -> list[str]:
    """Every warning of one model, each once."""
    return list(dict.fromkeys(warning_text(warning) for m in snapshot.measurements for warning in m.warnings))


def doubts(pairs: Measured) -> tuple[Advice, ...]:
    """What speaks against figures: what concerns whole models, then what concerns single cases, one line a kind."""
    by_form: dict[str, list[tuple[str, MeasurementWarning]]] = {}
    by_kind: dict[WarningKind, list[_Doubt]] = {}
    for snapshot, m in pairs:
        for warning in m.warnings:
            label = plain(snapshot.label)
            if warning.case is None:
                by_form.setdefault(sentence(warning, figure=""), []).append((label, warning))
            else:
                doubt = _Doubt(warning, m.metric, f"{label} {plain(warning.case)}")
                by_kind.setdefault(warning.kind, []).append(doubt)
    running = {plain(snapshot.label) for snapshot, m in pairs if not is_counted(m)}
    lines = [_of_models(alike, running) for alike in by_form.values()]
    lines += [("", _summary(cases, pairs)) for cases in by_kind.values()]
    return tuple(Advice(subject, text, is_warning=True) for subject, text in lines)


def _of_models(alike: list[tuple[str, MeasurementWarning]], running: set[str]) -> tuple[str, str]:
    """The models, and their warnings in one: `other processes kept 1.4 to 1.6 cores busy`.

    Args:
        alike: with the models' labels; they differ by their figures at most.
        running: the labels of all models that ran: together they need no names.

    """
    by_figure: dict[str, list[tuple[str, MeasurementWarning]]] = {}
    for label, warning in alike:
        by_figure.setdefault(figure_of(warning), []).append((label, warning))
    labels = dict.fromkeys(label for group in by_figure.values() for label, _ in group)
    figures = sorted(by_figure, key=lambda figure: by_figure[figure][0][1].values)
    span = f"{figures[0]} to {figures[-1]}" if len(figures) > 1 else figures[0]
    subject = "" if len(labels) > 1 and labels.keys() >= running else ", ".join(labels)
    return subject, sentence(alike[0][1], span)


def _summary(doubts: list[_Doubt], pairs: Measured) -> str:
    """`outliers in 10 of 16 cases: up to 2 of 15 samples; all are kept (minilm 8x48)`."""
    metrics = {doubt.metric for doubt in doubts}
    total = sum(m.metric in metrics for _, m in pairs)
    worst = max(doubts, key=lambda doubt: doubt.severity)
    text = f"{brief(worst.warning)} in {len(doubts)} of {total} case{'s' if total != 1 else ''}"
    if not detail(worst.warning):
        named = ", ".join(doubt.where for doubt in doubts[:_MAX_NAMED])
        return f"{text} ({named}{', ...' if len(doubts) > _MAX_NAMED else ''})"
    if len({figure_of(doubt.warning) for doubt in doubts}) == 1:
        return f"{text}: {detail(worst.warning)} ({worst.where})"
    return f"{text}: {detail(worst.warning, 'up to ' + figure_of(worst.warning).lstrip('+-'))} ({worst.where})"
