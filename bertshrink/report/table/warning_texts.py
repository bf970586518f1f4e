"""What a measurement's warning says: `8x16: not warmed up, the last warm-up iterations still changed by +184 %`."""

from collections.abc import Callable
from dataclasses import dataclass

from bertshrink.report.measurement import MeasurementWarning, WarningKind
from bertshrink.report.table.figures import plain


@dataclass(frozen=True)
class _Wording:
    """How one kind of warning is written: `{0}` is its figure, `{1}` its first value, `{2}` the next, `{names}`.

    Attributes:
        sentence: all of it; empty: `brief`, then `detail`.
        figure: what may differ between models and cases, from the values; None where nothing does.
        brief: the kind alone, where cases are summed up; empty: the sentence says all.
        detail: the rest, with the figure.
    """

    sentence: str = ""
    figure: Callable[..., str] | None = None
    brief: str = ""
    detail: str = ""


def _change(change: float) -> str:
    return f"{100 * change:+.0f}"


_WORDINGS: dict[WarningKind, _Wording] = {
    "not_warmed_up": _Wording("", _change, "not warmed up", "the last warm-up iterations still changed by {0} %"),
    "outliers": _Wording(
        "{0} samples are outliers; all are kept",
        lambda outliers, total: f"{outliers:.0f} of {total:.0f}",
        "outliers",
        "{0} samples; all are kept",
    ),
    "drift": _Wording("", _change, "drift", "the second half of the rounds differs from the first by {0} %"),
    "outputs_differ": _Wording("the outputs differ between processes"),
    "means_only": _Wording("the runner reports only the mean of each process"),
    "others_busy": _Wording("other processes kept {0} cores busy", lambda cores: f"{cores:.1f}"),
    "stolen": _Wording(
        "the hypervisor gave {0} % of the CPU time to other virtual machines", lambda share: f"{100 * share:.0f}"
    ),
    "throttled": _Wording("the processor was slowed down {0} times for heat or current", lambda times: f"{times:.0f}"),
    "gpu_held_back": _Wording("the GPU's clocks were held back: {names}"),
    "rounds_missing": _Wording(
        "{0} rounds fitted into {3:g} s", lambda rounds, asked, _: f"{rounds:.0f} of {asked:.0f}"
    ),
    "busy_at_start": _Wording(
        "the machine was busy at the start: load average {0} on {2:.0f} cores", lambda load, _: f"{load:.1f}"
    ),
    "memory_since_start": _Wording(
        "memory peaks are since process start: this system cannot reset them between phases"
    ),
}


def figure_of(warning: MeasurementWarning) -> str:
    """The warning's figure without its unit: `+184`, `2 of 15`; empty where it has none."""
    figure = _WORDINGS[warning.kind].figure
    return figure(*warning.values) if figure is not None else ""


def sentence(warning: MeasurementWarning, figure: str | None = None) -> str:
    """All of the warning but its case; with another figure, where one is given."""
    wording = _WORDINGS[warning.kind]
    return _filled(wording.sentence or f"{wording.brief}, {wording.detail}", warning, figure)


def brief(warning: MeasurementWarning) -> str:
    """The kind of warning in a few words."""
    return _WORDINGS[warning.kind].brief or sentence(warning)


def detail(warning: MeasurementWarning, figure: str | None = None) -> str:
    """What `brief` leaves open, which may be nothing; with another figure, where one is given."""
    return _filled(_WORDINGS[warning.kind].detail, warning, figure)


def warning_text(warning: MeasurementWarning) -> str:
    """All of the warning."""
    return plain(f"{warning.case}: {sentence(warning)}" if warning.case else sentence(warning))


def _filled(text: str, warning: MeasurementWarning, figure: str | None) -> str:
    figure = figure_of(warning) if figure is None else figure
    return plain(text.format(figure, *warning.values, names=", ".join(warning.names)))
