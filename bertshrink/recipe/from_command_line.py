"""From a command line to a recipe, by the table of commands.

    bertshrink distill M --data D --layers 3          model: M, data: D, stages: [distill: {layers: 3}]
    bertshrink quantize M                             model: M, stages: [export, quantize], when M is an encoder
    bertshrink factorize M --rank 64 --epochs 1       model: M, stages: [factorize: {rank: 64}, distill: {epochs: 1}]
    bertshrink bench A B C                            model: A, compare: [B, C], no stages

So a command is a short recipe and runs through the same loop, and its faults point at the flag.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.errors import BertshrinkError, UserError
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.model.tasks import TASKS
from bertshrink.recipe.command_table import COMMANDS, Command, flag_of
from bertshrink.sources.resolve import find_model
from bertshrink.techniques.base import Technique

if TYPE_CHECKING:
    from bertshrink.model.model_ref import ModelRef
    from bertshrink.recipe.recipe import Recipe


def recipe_of_command(
    name: str,
    model: str | None,
    settings: Mapping[str, Any],
    common: Mapping[str, Any],
    about_texts: Mapping[str, Any] | None = None,
    *,
    dimensions: Sequence[Any] | None = None,
    name_of: Callable[[str], str] = flag_of,
) -> Recipe:
    """The recipe of a command.

    Args:
        settings: name (see `Command.flag_names`) -> value, as given; None means not given.
        common: top-level recipe values (`data`, `task`, `reference`, `seed`, `measure`); None means not given.
        about_texts: settings of `data` beside where it is; None means not given.
        dimensions: to which sentence vectors are truncated and evaluated again; None means not given.
        name_of: how a setting is called where it is given, for messages.

    Raises:
        UserErrors: what is wrong with it.
        UserError: something is said of texts, and none are given.
    """
    stages: list[Any] = []
    places: dict[tuple[str | int, ...], str] = {}
    command = COMMANDS[name]
    given = {key: value for key, value in settings.items() if value is not None}
    asked = [technique for technique in command.techniques if command.wants(technique, given)]
    model_ref = None
    if model is not None and _can_skip(asked):
        model_ref = _look_at(model, common.get("task"), common.get("reference"))
    needed = list(asked)
    while model_ref is not None and model_ref.kind == "artifact" and _can_skip(needed):
        del needed[0]
    _refuse_idle(command, given, needed, [technique for technique in asked if technique not in needed], name_of)
    for technique in needed:
        own = {field: key for field, key in command.flag_names(technique).items() if key in given}
        path = ("stages", len(stages), technique.name)
        places[path] = f"`bertshrink {name}`"
        places |= {(*path, field): name_of(key) for field, key in own.items()}
        stages.append({technique.name: {field: given[key] for field, key in own.items()}})
    asked_for = _build(name, model, {"stages": stages}, common, places, about_texts or {}, dimensions)
    return replace(asked_for, model_ref=model_ref)


def recipe_of_bench(
    models: Sequence[str],
    common: Mapping[str, Any],
    about_texts: Mapping[str, Any] | None = None,
    dimensions: Sequence[Any] | None = None,
) -> Recipe:
    """The recipe of `bench`: the first model, and the others beside it; arguments as of `recipe_of_command`."""
    flags: dict[tuple[str | int, ...], str] = {("compare",): "`MODELS`"}
    flags |= {("measure", "latency", key): flag_of(key) for key in LatencySettings.model_fields}
    return _build("bench", models[0], {"compare": list(models[1:])}, common, flags, about_texts or {}, dimensions)


def _refuse_idle(
    command: Command,
    given: Mapping[str, Any],
    needed: Sequence[type[Technique]],
    left_out: Sequence[type[Technique]],
    name_of: Callable[[str], str],
) -> None:
    """Refuse a flag that would do nothing: the setting of a stage whose product is given already."""
    used = {key for technique in needed for key in command.flag_names(technique).values()}
    for technique in left_out:
        for key in command.flag_names(technique).values():
            if key in given and key not in used:
                raise UserError(
                    f"`{name_of(key)}` is a setting of `{technique.name}`, which is skipped: the model is an artifact",
                    where=name_of(key),
                    hint="leave it out, or give the encoder",
                )


def _can_skip(techniques: Sequence[type[Technique]]) -> bool:
    """Whether an artifact that is given makes the first stage idle."""
    return len(techniques) > 1 and "artifact" in techniques[1].takes


def _look_at(model: str, task: str | None, reference: str | None) -> ModelRef | None:
    """The model, looked at before there is a plan; None: the plan will say what is wrong with it."""
    try:
        return find_model(model, "`MODEL`", task=task if task in TASKS else "auto", reference=reference)
    except BertshrinkError:
        return None


def _build(
    name: str,
    model: str | None,
    values: dict[str, Any],
    common: Mapping[str, Any],
    places: dict[tuple[str | int, ...], str],
    about_texts: Mapping[str, Any],
    dimensions: Sequence[Any] | None,
) -> Recipe:
    from bertshrink.recipe.recipe import ask_dimensions, tell

    given = {key: value for key, value in common.items() if value is not None}
    values = ({"model": model} if model is not None else {}) | given | values
    places = {("model",): "`MODEL`", **{(key,): f"--{key}" for key in given}, **places}
    tell(values, places, about_texts)
    ask_dimensions(values, places, dimensions)
    text = json.dumps(values, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    stem = Path(model or "").name or "model"
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in stem).strip("-.") or "model"
    from bertshrink.config.checker import LocatedConfig
    from bertshrink.recipe.recipe import build

    return build(LocatedConfig("command line", values, places), text, default_name=f"{name}-{safe}-{digest}")
