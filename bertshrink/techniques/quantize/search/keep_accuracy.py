"""Repair carried out: the search of `mixed_precision` on a real model, told step by step.

The drop is that of the task's metric on texts kept for choosing (never those that the report is about), or, where
nothing is labelled, of the cosine of outputs. The texts that say which weight's rounding matters are training texts.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bertshrink import units
from bertshrink.errors import CheckFailed, listed
from bertshrink.onnx_graph.weights import weights
from bertshrink.techniques.quantize.schemes import uniform
from bertshrink.techniques.quantize.search.mixed_precision import Attempt, MixedPrecisionSearch, SearchStep
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
    prepared = trials.prepare(types)
    kept: list[BuiltVariant] = []
    sizes = {name: weight.size_bytes for name, weight in weights(trials.source).items()}
    nearest: list[Attempt] = []

    with trials.bench.progress.task("repair", unit="tries") as task:

        def judge(tried: Mapping[str, str]) -> Attempt:
            made = trials.make(tried, prepared, ATTEMPT)
            found = Attempt(tried, made.size_bytes, trials.drop(made))
            if repair.holds(found):  # the last one that does is what the search ends with
                kept[:] = [trials.move(made, KEPT)]
            elif not kept and (not nearest or found.drop < nearest[0].drop):
                nearest[:] = [found]
                trials.move(made, BEST).artifact.write_papers(trials.bench.work / BEST)
            task.advance(1, drop=units.format(found.drop, "fraction"))
            return found

        def error(tried: Mapping[str, str]) -> float:
            task.advance()
            return trials.error(tried, prepared)

        repair = MixedPrecisionSearch(judge, error, lambda name, kind: sizes[name] * _BITS[kind] // 32, limit)
        found = repair.run(types)
    if found is None:
        drop = units.format(nearest[0].drop, "fraction")
        raise CheckFailed(
            f"no mix of number formats holds a drop of {units.format(limit, 'fraction')}: the nearest one loses {drop}",
            where=str(trials.bench.work / BEST),
            hint="it is kept there; allow a larger `max_metric_drop`, or train with quantization in mind: "
            "`distill` with "
            "`fake_quant`",
        )
    (made,) = kept
    assert made.types is found.types, "the search ends with the last attempt that held"
    shutil.rmtree(trials.bench.work / BEST, ignore_errors=True)
    trials.bench.notes += prepared.sentences
    trials.bench.notes += told(repair.road, limit, trials.figure)
    trials.bench.note(ending(types, found, repair))
    details = {
        "scheme": trials.settings.scheme,
        "calibration": prepared.facts,
        "types": dict(found.types),
        "drop": found.drop,
        "road": [asdict(step) for step in repair.road],
        "gains": repair.gains,
    }
    return made, details


def told(road: list[SearchStep], limit: float, figure: float | None) -> list[str]:
    """The road in sentences."""
    what = "agreement (1 - cosine of outputs)" if figure is None else f"the task's metric (float: {figure:.4f})"
    found = [f"limit: a drop of {units.format(limit, 'fraction')} in {what}"]
    for number, step in enumerate(road, start=1):
        verdict = "holds" if step.holds else "too much"
        drop, size = units.format(step.drop, "fraction"), units.format(step.size_bytes, "B")
        found.append(f"try {number}: {step.what}: {size}, drop {drop}: {verdict}")
    return found


def ending(asked: Mapping[str, str], found: Attempt, repair: MixedPrecisionSearch) -> str:
    """What was widened, worst first."""
    wider = [name for name in asked if found.types[name] != asked[name]]
    if not wider:
        return "the scheme holds the limit: every weight has the requested format"
    wider.sort(key=lambda name: -repair.gains.get(name, 0.0))
    shown = listed([f"`{name}` ({found.types[name]})" for name in wider], 5)
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(Counter(found.types.values()).items()))
    return f"{len(wider)} of {len(asked)} weights keep more bits: {shown}; now {counts}"
