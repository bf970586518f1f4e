"""What can be limited, and how a key is read and written.

    [TARGET ] METRIC [ BATCHxLENGTH][_CHANGE]          words apart by spaces or underscores before the change

    size                         a figure of the file
    size_growth                  the same against the baseline: by how much it grew
    accuracy_drop                likewise, for what is better the higher it is
    operator:MatMul              how often one operation occurs
    arm64:a76 instructions 1x16  on one target, for one shape; without a shape every measured one must hold
    cpu p50 ratio                the median time per inference against another artifact, timed in the same job

A key without a change names a figure, in the lock too. What each metric is stands in `report.metrics.METRICS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from bertshrink.errors import UserError, did_you_mean
from bertshrink.report.measurement import Conditions
from bertshrink.report.metrics import METRICS, Gauge

Change = Literal["", "growth", "drop", "ratio"]

HOST = "cpu"
"""The target of whatever runs, or is, on the machine at hand."""

_OPERATOR = "operator:"
_OPERATION = Gauge("count", "neither", "files")
_PRESENCE = Gauge("count", "neither", "files")
PRESENCE = "artifact"
"""What no rule is written about: an artifact of the baseline is judged, or said to be removed."""


@dataclass(frozen=True)
class MetricKey:
    """A rule's key, or a figure's, read.

    Attributes:
        metric: a name in `METRICS`, or `operator:NAME`.
        change: what of it is limited: the figure itself, its growth, its drop, its ratio.
        target: where it is measured; None: wherever it was.
        shape: (batch, length); None: every one that was measured.
    """

    metric: str
    change: Change = ""
    target: str | None = None
    shape: tuple[int, int] | None = None

    @property
    def gauge(self) -> Gauge:
        """How the metric is written and judged."""
        if self.metric == PRESENCE:
            return _PRESENCE
        gauge = _OPERATION if self.operator is not None else METRICS[self.metric].gauge
        assert gauge is not None
        return gauge

    @property
    def operator(self) -> str | None:
        """The operation whose count it is; None for any other metric."""
        return self.metric.removeprefix(_OPERATOR) if self.metric.startswith(_OPERATOR) else None

    @property
    def figure(self) -> MetricKey:
        """The figure whose change it is about; itself where it is about none."""
        return replace(self, change="")

    @property
    def is_relative(self) -> bool:
        """Whether it takes a baseline to judge."""
        return self.change in ("growth", "drop") or self.metric == "new_operators"

    def __str__(self) -> str:
        shape = f"{self.shape[0]}x{self.shape[1]}" if self.shape else None
        words = " ".join(part for part in (self.target, self.metric, shape) if part)
        joint = " " if " " in words or self.change == "ratio" else "_"
        return f"{words}{joint}{self.change}" if self.change else words


def operator_key(name: str) -> MetricKey:
    """The key of how often an operation occurs."""
    return MetricKey(f"{_OPERATOR}{name}")


def measured_key(metric: str, conditions: Conditions) -> MetricKey:
    """The key of a measured figure: `arm64:a76 instructions 1x16`; this machine goes without saying."""
    target, batch, length = conditions.target, conditions.batch, conditions.length
    shape = (batch, length) if batch is not None and length is not None else None
    return MetricKey(metric, "", target if target != HOST else None, shape)


def read_key(text: str, beside: tuple[str, ...] = ()) -> MetricKey:
    """Read a rule's key.

    Args:
        text: as written.
        beside: what else may stand where it was written, for the hint.

    Raises:
        UserError: it is none, or makes no sense of its metric.
    """
    words = text.split()
    change: Change = ""
    for name in ("growth", "drop", "ratio"):
        if len(words) > 1 and words[-1] == name:
            words, change = words[:-1], name
        elif words and words[-1].endswith(f"_{name}"):
            words, change = [*words[:-1], words[-1].removesuffix(f"_{name}")], name
        if change:
            break
    shape = None
    if len(words) > 1 and (match := re.fullmatch(r"([1-9][0-9]{0,6})x([1-9][0-9]{0,6})", words[-1])):
        words, shape = words[:-1], (int(match[1]), int(match[2]))
    metric = words[-1] if words else ""
    if len(words) > 2 or not _is_metric(metric):
        raise UserError(f"there is no rule `{text}`", hint=did_you_mean(text, [*rule_names(), *beside]))
    key = MetricKey(metric, change, words[0] if len(words) == 2 else None, shape)
    _check(key, text)
    return key


def rule_names() -> list[str]:
    """Every key that needs no name of an operation, target or shape."""
    names = []
    for name, gauge in ((name, metric.gauge) for name, metric in METRICS.items()):
        if gauge is None:
            continue
        if gauge.source == "time":
            names.append(f"cpu {name} ratio")
            continue
        names.append(name)
        if name != "new_operators":
            names.append(f"{name}_{'drop' if gauge.better == 'higher' else 'growth'}")
    return names


def _is_metric(word: str) -> bool:
    return (word in METRICS and METRICS[word].gauge is not None) or bool(MetricKey(word).operator)


def _check(key: MetricKey, text: str) -> None:
    """Refuse what makes no sense of a metric. Raises UserError: always with a hint."""
    gauge, hint = key.gauge, None
    if gauge.source == "time" and key.change != "ratio":
        raise UserError(
            f"`{text}`: times of different machines are not comparable, so only ratios can be limited",
            hint=f'write "cpu {key.metric} ratio" = "<= 1.10", and give `--base-artifact`',
        )
    if key.change == "ratio" and gauge.source != "time":
        hint = f"write `{key.metric}_growth`"
    elif key.metric == "new_operators" and key.change:
        hint = "write `new_operators`, which is a difference already"
    elif key.change == "drop" and gauge.better != "higher":
        hint = f"lower is better: write `{key.metric}_growth`"
    elif key.change == "growth" and gauge.better == "higher":
        hint = f"higher is better: write `{key.metric}_drop`"
    elif (key.target or key.shape) and gauge.source in ("files", "quality"):
        hint = f"`{key.metric}` is the same on every target and for every shape: write it alone"
    elif gauge.source in ("time", "memory") and key.target not in (None, HOST):
        hint = "times and memory are those of this machine: write `cpu`, or leave the target out"
    elif gauge.source == "memory" and key.shape:
        hint = "memory is the peak over all shapes: leave the shape out"
    if hint:
        raise UserError(f"`{text}` cannot be judged", hint=hint)
