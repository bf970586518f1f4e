"""Which batches and lengths are timed: those asked for must fit every model of the recipe, the default ones are cut.

All models are timed side by side at the same shapes, so the narrowest one decides: a file that takes one batch or one
length only is timed at it, and so is what it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bertshrink.config.checker import Checker
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.model.artifact import ArtifactSpec
from bertshrink.model.fixed_shape_session import shape_words
from bertshrink.recipe.recipe import Recipe


class _Axis(NamedTuple):
    """One of the two sizes of a batch: its key in the settings, the field that bounds it, words for messages."""

    key: str
    limit: str
    unit: str
    plural: str


_AXES = (_Axis("batch", "max_batch", "rows", "batches"), _Axis("length", "max_length", "tokens", "lengths"))


def fit_grid(recipe: Recipe, forms: Mapping[str, ArtifactSpec], check: Checker) -> Recipe:
    """The recipe with shapes that every model takes.

    Args:
        forms: by name, what each model takes; of encoders `max_length` alone.
        check: of the recipe; gets what was asked for and does not fit.
    """
    latency = recipe.measure.latency
    if latency is False or not forms:
        return recipe
    check = check.at("measure", "latency")
    wanted: dict[str, tuple[int, ...]] = {}
    for at, axis in enumerate(_AXES):
        only = {name: form.shape[at] for name, form in forms.items() if form.shape is not None}
        fixed = {name: size for name, size in only.items() if size is not None}
        limits = {name: getattr(form, axis.limit) for name, form in forms.items()}
        bounds = {name: limit for name, limit in limits.items() if limit is not None}
        sizes = _only(latency, axis, fixed, forms, check) if fixed else _bounded(latency, axis, bounds, check)
        wanted |= {} if sizes is None else {axis.key: sizes}
    return recipe.with_measure(latency=latency.model_copy(update=wanted)) if wanted else recipe


def fit_clock(recipe: Recipe, forms: Mapping[str, ArtifactSpec]) -> LatencySettings:
    """The recipe's timing, or the default one where the report should show no times, with shapes that these models
    take.

    For a stage that chooses by the clock: what it makes does not depend on whether the report shows times.
    """
    latency = recipe.measure.latency or LatencySettings()
    fitted = fit_grid(recipe.with_measure(latency=latency), forms, Checker(recipe.source)).measure.latency
    return fitted or latency


def _only(
    latency: LatencySettings, axis: _Axis, fixed: Mapping[str, int], forms: Mapping[str, ArtifactSpec], check: Checker
) -> tuple[int, ...] | None:
    """The one size that some models take along an axis."""
    (name, size), *others = fixed.items()
    other = next((other for other, its in others if its != size), None)
    if other is not None:
        check.error(
            f"`{name}` takes {_text(forms[name])} only and `{other}` {_text(forms[other])} only: they cannot be timed "
            "together",
            "give them the same shape, or turn timing off: `latency: false`, `--no-latency`",
        )
        return None
    asked = getattr(latency, axis.key)
    if axis.key in latency.model_fields_set and asked != (size,):
        check.at(axis.key).error(
            f"{axis.key} {', '.join(map(str, asked))} is requested, but `{name}` takes only {_text(forms[name])}",
            f"leave it out, or ask for {size}",
        )
    return (size,)


def _bounded(
    latency: LatencySettings, axis: _Axis, limits: Mapping[str, int], check: Checker
) -> tuple[int, ...] | None:
    """The sizes along an axis, cut to what every model takes; None: they stay."""
    name, limit = min(limits.items(), key=lambda entry: entry[1], default=("", None))
    asked = getattr(latency, axis.key)
    if limit is None or max(asked) <= limit:
        return None
    if axis.key in latency.model_fields_set:
        check.at(axis.key).error(
            f"{axis.key} {max(asked)} exceeds the limit of `{name}`: {limit} {axis.unit}",
            f"use {axis.plural} up to {limit}",
        )
        return None
    return tuple(dict.fromkeys(min(value, limit) for value in asked))


def _text(form: ArtifactSpec) -> str:
    return shape_words(form.shape or (None, None))
