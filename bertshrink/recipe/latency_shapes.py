"""Which batches and lengths are timed: those asked for must fit every model of the recipe, the default ones are cut.

All models are timed side by side at the same shapes, so the narrowest one decides: a file that takes one shape only is
timed at that shape, and so is what it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping

from bertshrink.config.checker import Checker
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.model.artifact import ArtifactSpec
from bertshrink.recipe.recipe import Recipe


def fit_grid(recipe: Recipe, forms: Mapping[str, ArtifactSpec], check: Checker) -> Recipe:
    """The recipe with shapes that every model takes.

    Args:
        forms: by name, what each model takes; of encoders `max_length` alone.
        check: of the recipe; gets what was asked for and does not fit.
    """
    latency = recipe.measure.latency
    if latency is False or not forms:
        return recipe
    fixed = {name: form.shape for name, form in forms.items() if form.shape is not None}
    check = check.at("measure", "latency")
    wanted = _one_shape(latency, fixed, check) if fixed else _bounded(latency, forms, check)
    return recipe if wanted is None else recipe.with_measure(latency=latency.model_copy(update=wanted))


def fit_clock(recipe: Recipe, forms: Mapping[str, ArtifactSpec]) -> LatencySettings:
    """The recipe's timing, or the default one where the report should show no times, with shapes that these models
    take.

    For a stage that chooses by the clock: what it makes does not depend on whether the report shows times.
    """
    latency = recipe.measure.latency or LatencySettings()
    fitted = fit_grid(recipe.with_measure(latency=latency), forms, Checker(recipe.source)).measure.latency
    return fitted or latency


def _one_shape(
    latency: LatencySettings, fixed: Mapping[str, tuple[int, int]], check: Checker
) -> dict[str, tuple[int, ...]] | None:
    (name, shape), *others = fixed.items()
    other = next(((other, its) for other, its in others if its != shape), None)
    if other is not None:
        check.error(
            f"`{name}` takes {_text(shape)} only and `{other[0]}` {_text(other[1])} only: they cannot be timed "
            "together",
            "give them the same shape, or turn timing off: `latency: false`, `--no-latency`",
        )
        return None
    wanted: dict[str, tuple[int, ...]] = {"batch": (shape[0],), "length": (shape[1],)}
    for key, only in wanted.items():
        asked = getattr(latency, key)
        if key in latency.model_fields_set and asked != only:
            check.at(key).error(
                f"{key} {', '.join(map(str, asked))} is requested, but `{name}` takes only {_text(shape)}",
                f"leave it out, or ask for {only[0]}",
            )
    return wanted


def _bounded(
    latency: LatencySettings, forms: Mapping[str, ArtifactSpec], check: Checker
) -> dict[str, tuple[int, ...]] | None:
    lengths = {name: form.max_length for name, form in forms.items() if form.max_length is not None}
    batches = {name: form.max_batch for name, form in forms.items() if form.max_batch is not None}
    cut = {}
    for key, limits, unit in (("length", lengths, "tokens"), ("batch", batches, "rows")):
        name, limit = min(limits.items(), key=lambda entry: entry[1], default=("", None))
        asked = getattr(latency, key)
        if limit is None or max(asked) <= limit:
            continue
        if key in latency.model_fields_set:
            check.at(key).error(
                f"{key} {max(asked)} exceeds the limit of `{name}`: {limit} {unit}",
                f"use {'lengths' if key == 'length' else 'batches'} up to {limit}",
            )
        else:
            cut[key] = tuple(dict.fromkeys(min(value, limit) for value in asked))
    return cut or None


def _text(shape: tuple[int, int]) -> str:
    return f"{shape[0]}x{shape[1]}"
