"""What decides each result of a plan, as fingerprints: the same ones are taken as finished, others are made again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bertshrink.files.fingerprint import fingerprint
from bertshrink.meters.environment import environment
from bertshrink.recipe.plan import Plan
from bertshrink.version import __version__


@dataclass(frozen=True)
class Keys:
    """The fingerprints of a plan, known before anything is made.

    Attributes:
        stages: of the first model, and of each stage's result.
        reference: of the first model's figures.
    """

    stages: tuple[str, ...]
    reference: str


def keys_of(plan: Plan, model: str, texts: str | None) -> Keys:
    """The fingerprints of a plan."""
    max_length = plan.data.max_length if plan.data else None
    measure, version = plan.recipe.measure, __version__
    quality: Any = [measure.quality, *measure.dimensions] if measure.dimensions else measure.quality
    data = fingerprint(texts, max_length, plan.recipe.seed)
    keys = [model]
    for stage in plan.stages:
        technique = stage.technique
        teacher = keys[plan.num_leading] if "teacher" in technique.needs() else None
        rest = [data, plan.task, quality, version]
        if technique.depends_on_machine:
            rest += [environment().id, plan.clock.model_dump(mode="json")]
        keys.append(fingerprint(keys[-1], teacher, technique.name, technique.model_dump(mode="json"), *rest))
    return Keys(tuple(keys), fingerprint(model, data, quality, version))
