"""What can be limited, and how a rule's key is read.

    [TARGET ] METRIC [ BATCHxLENGTH][_CHANGE]          words apart by spaces or underscores before the change

    size                         a figure of the file
    size_growth                  the same against the baseline: by how much it grew
    accuracy_drop                likewise, for what is better the higher it is
    operator:MatMul              how often one operation occurs
    arm64:a76 instructions 1x16  on one target, for one shape; without a shape every measured one must hold
    cpu p50 ratio                the median time per inference against another artifact, timed in the same job

What each figure is, is written once, in `GAUGES`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from bertshrink.errors import UserError, did_you_mean
from bertshrink.report.measurement import Better

Source = Literal["files", "quality", "memory", "instructions", "time"]
Change = Literal["", "growth", "drop", "ratio"]

OPERATOR = "operator:"
HOST = "cpu"
"""The target of whatever runs, or is, on the machine at hand."""


@dataclass(frozen=True)
class Gauge:
    """How a metric is written and judged.

    Attributes:
        unit: its base unit, as in `units.py`; "" for a plain figure such as a correlation.
        better: which direction is good.
        source: what shows it: the file, or a report's quality, memory or instructions, or a race of two artifacts.
        meaning: for people.
    """

    unit: str
    better: Better
    source: Source
    meaning: str


def _quality(better: Better = "higher", unit: str = "fraction") -> Gauge:
    return Gauge(unit, better, "quality", "quality on the evaluation texts")


GAUGES: Mapping[str, Gauge] = MappingProxyType(
    {
        "size": Gauge("B", "lower", "files", "bytes of the model file, external data included"),
        "compressed_size": Gauge("B", "lower", "files", "the same through zlib, as an archive ships it"),
        "parameters": Gauge("count", "lower", "files", "parameter count"),
        "nodes": Gauge("count", "lower", "files", "operations of the graph"),
        "operators": Gauge("count", "lower", "files", "different operations of the graph"),
        "new_operators": Gauge("count", "lower", "files", "operations that are not in the baseline"),
        "accuracy": _quality(),
        "macro_f1": _quality(),
        "micro_f1": _quality(),
        "f1": _quality(),
        "precision": _quality(),
        "recall": _quality(),
        "exact_match": _quality(),
        "masked_accuracy": _quality(),
        "recall@10": _quality(),
        "agreement": _quality(),
        "spearman": _quality(unit=""),
        "sts_spearman": _quality(unit=""),
        "pearson": _quality(unit=""),
        "pseudo_perplexity": _quality("lower", ""),
        "memory": Gauge("B", "lower", "memory", "peak memory of the process during inference"),
        "memory_over_engine": Gauge("B", "lower", "memory", "the same minus the engine's import"),
        "instructions": Gauge("count", "lower", "instructions", "instructions per inference"),
        "p50": Gauge("s", "lower", "time", "median time per inference"),
    }
)
"""Every metric that a rule may name, besides `operator:NAME`."""

_OPERATION = Gauge("count", "neither", "files", "how often this operation occurs")
_PRESENCE = Gauge("count", "neither", "files", "whether an artifact is still judged")
PRESENCE = "artifact"
"""What no rule is written about: an artifact of the baseline is judged, or said to be removed."""


@dataclass(frozen=True)
class Key:
    """A rule's key, read.

    Attributes:
        metric: a name in `GAUGES`, or `operator:NAME`.
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
        return _OPERATION if self.metric.startswith(OPERATOR) else GAUGES[self.metric]

    @property
    def is_relative(self) -> bool:
        """Whether it takes a baseline to judge."""
        return self.change in ("growth", "drop") or self.metric == "new_operators"

    def __str__(self) -> str:
        shape = f"{self.shape[0]}x{self.shape[1]}" if self.shape else None
        words = " ".join(part for part in (self.target, self.metric, shape) if part)
        joint = " " if " " in words or self.change == "ratio" else "_"
        return f"{words}{joint}{self.change}" if self.change else words


def name_of(metric: str, target: str | None, batch: int | None, length: int | None) -> str:
    """How a figure is called in the lock: `arm64:a76 instructions 1x16`; this machine goes without saying."""
    where = target if target not in (None, HOST) else None
    shape = f"{batch}x{length}" if batch is not None and length is not None else None
    return " ".join(part for part in (where, metric, shape) if part)


def read_key(text: str, beside: tuple[str, ...] = ()) -> Key:
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
    if len(words) > 1 and (found := re.fullmatch(r"([1-9][0-9]{0,6})x([1-9][0-9]{0,6})", words[-1])):
        words, shape = words[:-1], (int(found[1]), int(found[2]))
    metric = words[-1] if words else ""
    if len(words) > 2 or not _is_metric(metric):
        raise UserError(f"there is no rule `{text}`", hint=did_you_mean(text, [*rule_names(), *beside]))
    key = Key(metric, change, words[0] if len(words) == 2 else None, shape)
    _check(key, text)
    return key


def rule_names() -> list[str]:
    """Every key that needs no name of an operation, target or shape."""
    found = []
    for name, gauge in GAUGES.items():
        if gauge.source == "time":
            found.append(f"cpu {name} ratio")
            continue
        found.append(name)
        if name != "new_operators":
            found.append(f"{name}_{'drop' if gauge.better == 'higher' else 'growth'}")
    return found


def _is_metric(word: str) -> bool:
    return word in GAUGES or (word.startswith(OPERATOR) and len(word) > len(OPERATOR))


def _check(key: Key, text: str) -> None:
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
