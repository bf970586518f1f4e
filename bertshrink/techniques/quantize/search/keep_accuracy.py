"""Repair carried out: the search of `mixed_precision` on a real model, told step by step.

The drop is that of the task's metric on texts kept for choosing (never those that the report is about), or, where
nothing is labelled, of the cosine of outputs. The texts that say which weight's rounding matters are training texts.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bertshrink import units
from bertshrink.errors import CheckFailed, listed
from bertshrink.onnx_graph.weights import weights
from bertshrink.progress import Task
from bertshrink.techniques.quantize.calibration.prepare import CalibrationResult
from bertshrink.techniques.quantize.schemes import uniform
from bertshrink.techniques.quantize.search.mixed_precision import (
    Attempt,
    MixedPrecisionSearch,
    SearchStep,
    is_within,
)
from bertshrink.techniques.quantize.search.trials import BuiltVariant, VariantBuilder

_BITS = {
    "float32": 32,
    "float16": 16,
    "bfloat16": 16,
    "int8-dynamic": 8,
    "int8-static": 8,
    "int8-block": 9,
    "int4-block": 5,
}
"""Bits that a number takes in a type, scales of blocks of 32 among them: for the order of tries, not for a figure."""

ATTEMPT, KEPT, BEST = "attempt", "quantize", "best-attempt"
"""Folders: of the attempt at hand, of the last one that held the limit, and of the nearest one while none does."""


def meet_accuracy_limit(trials: VariantBuilder) -> tuple[BuiltVariant, dict[str, Any]]:
    """The smallest assignment that holds `max_metric_drop`, and the road to it.

    Raises:
        CheckFailed: none does; the one that came nearest is in the stage's working folder.
    """
    limit = trials.settings.largest_drop
    assert limit is not None
    types = uniform(trials.source, trials.settings.scheme, trials.settings)
    _, prepared = trials.make_good(types, ATTEMPT, trials.settings)
    with trials.bench.progress.task("repair", unit="tries") as task:
        model = _JudgedModel(trials, prepared, limit, task)
        search = MixedPrecisionSearch(model.judge, model.error, model.size, limit).run(types)
    if search.best is None or search.best.built is None:
        drop = units.format(model.nearest_drop, "fraction")
        raise CheckFailed(
            f"no mix of number formats holds a drop of {units.format(limit, 'fraction')}: the nearest one loses {drop}",
            where=str(trials.bench.work / BEST),
            hint="it is kept there; allow a larger `max_metric_drop`, or train with quantization in mind: "
            "`distill` with "
            "`fake_quant`",
        )
    shutil.rmtree(trials.bench.work / BEST, ignore_errors=True)
    trials.bench.notes += prepared.sentences
    trials.bench.notes += told(search.road, limit, trials.figure)
    trials.bench.note(ending(types, search.best.types, search.gains))
    details = {
        "scheme": trials.settings.scheme,
        "calibration": prepared.facts,
        "types": dict(search.best.types),
        "drop": search.best.drop,
        "road": [asdict(step) for step in search.road],
        "gains": search.gains,
    }
    return search.best.built, details


@dataclass
class _JudgedModel:
    """One model, of which assignments are written and judged. Kept on disk: the last that holds the limit, since that
    is what the search ends with; while none does, the nearest one.
    """

    trials: VariantBuilder
    prepared: CalibrationResult
    limit: float
    task: Task
    nearest_drop: float = math.nan
    is_met: bool = False

    def __post_init__(self) -> None:
        self.sizes = {name: weight.size_bytes for name, weight in weights(self.trials.source).items()}

    def judge(self, types: Mapping[str, str]) -> Attempt:
        built = self.trials.make(types, self.prepared, ATTEMPT)
        size_bytes, drop = built.size_bytes, self.trials.drop(built)
        if is_within(drop, self.limit):
            self.is_met, built = True, self.trials.move(built, KEPT)
        elif not self.is_met and (math.isnan(self.nearest_drop) or drop < self.nearest_drop):
            self.nearest_drop, built = drop, self.trials.move(built, BEST)
            built.artifact.write_papers(built.artifact.folder)
        self.task.advance(1, drop=units.format(drop, "fraction"))
        return Attempt(types, size_bytes, drop, built)

    def error(self, types: Mapping[str, str]) -> float:
        self.task.advance()
        return self.trials.error(types, self.prepared)

    def size(self, name: str, kind: str) -> int:
        return self.sizes[name] * _BITS[kind] // 32


def told(road: list[SearchStep], limit: float, figure: float | None) -> list[str]:
    """The road in sentences."""
    what = "agreement (1 - cosine of outputs)" if figure is None else f"the task's metric (float: {figure:.4f})"
    sentences = [f"limit: a drop of {units.format(limit, 'fraction')} in {what}"]
    for number, step in enumerate(road, start=1):
        verdict = "holds" if step.holds else "too much"
        drop, size = units.format(step.drop, "fraction"), units.format(step.size_bytes, "B")
        sentences.append(f"try {number}: {step.what}: {size}, drop {drop}: {verdict}")
    return sentences


def ending(asked: Mapping[str, str], types: Mapping[str, str], gains: Mapping[str, float]) -> str:
    """What was widened, worst first."""
    wider = [name for name in asked if types[name] != asked[name]]
    if not wider:
        return "the scheme holds the limit: every weight has the requested format"
    wider.sort(key=lambda name: -gains.get(name, 0.0))
    shown = listed([f"`{name}` ({types[name]})" for name in wider], 5)
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(Counter(types.values()).items()))
    return f"{len(wider)} of {len(asked)} weights keep more bits: {shown}; now {counts}"
