"""From a command line to a recipe: which stages a command expands to, and which flag sets which stage's field.

    bertshrink distill M --data D --layers 3      model: M, data: D, stages: [distill: {layers: 3}]
    bertshrink quantize M                         model: M, stages: [export, quantize], when M is an encoder
    bertshrink bench A B C                        model: A, compare: [B, C], no stages

A flag is a field's name with dashes; the field's description is its help. So a command is a short recipe and runs
through the same loop, and its faults point at the flag.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.errors import BertshrinkError, RequestError
from bertshrink.model import source as sources
from bertshrink.model.facts import ARTIFACT_CARD
from bertshrink.techniques import TECHNIQUES
from bertshrink.techniques.base import Technique

if TYPE_CHECKING:
    from bertshrink.recipe.recipe import Recipe


@dataclass(frozen=True)
class Command:
    """One command that makes a model.

    Attributes:
        name: as typed.
        help: its first line of help.
        stages: techniques in order; those before the last are left out where the model given is already what the next
        takes.
    """

    name: str
    help: str
    stages: tuple[str, ...]

    @property
    def techniques(self) -> tuple[type[Technique], ...]:
        """The stages' settings classes."""
        return tuple(TECHNIQUES[name] for name in self.stages)


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command("pretrain", "Make an encoder from running text: tokenizer, weights and all.", ("pretrain",)),
        Command("finetune", "Teach an encoder a task from labelled texts: make a teacher.", ("finetune",)),
        Command("factorize", "Make the embedding tables narrow: an encoder as a stock ALBERT.", ("factorize",)),
        Command("distill", "Teach a smaller student what its teacher knows.", ("distill",)),
        Command("export", "Write an encoder as an ONNX file, proven equal to it.", ("export",)),
        Command("quantize", "Write an encoder or an exported artifact with int8 weights.", ("export", "quantize")),
    )
}


def flag_of(field: str) -> str:
    """`--learning-rate` for `learning_rate`."""
    return "--" + field.replace("_", "-")


def recipe_of_command(name: str, model: str | None, settings: Mapping[str, Any], common: Mapping[str, Any]) -> Recipe:
    """The recipe of a command.

    Args:
        name: in `COMMANDS`.
        model: a folder or hub name; None for a command that starts from nothing.
        settings: field -> value, as given; None means not given.
        common: top-level recipe values (`data`, `task`, `seed`, `measure`); None means not given.

    Raises:
        Faults: what is wrong with it.
    """
    stages: list[Any] = []
    places: dict[tuple[str | int, ...], str] = {}
    given = {key: value for key, value in settings.items() if value is not None}
    needed = _needed(COMMANDS[name], model) if model is not None else list(COMMANDS[name].techniques)
    left_out = [technique for technique in COMMANDS[name].techniques if technique not in needed]
    _refuse_idle(given, needed, left_out)
    for technique in needed:
        own = {key: value for key, value in given.items() if key in technique.model_fields}
        path = ("stages", len(stages), technique.name)
        places[path] = f"`bertshrink {name}`"
        places |= {(*path, key): flag_of(key) for key in own}
        stages.append({technique.name: own})
    return _build(name, model, {"stages": stages}, common, places)


def recipe_of_bench(models: Sequence[str], common: Mapping[str, Any]) -> Recipe:
    """The recipe of `bench`: the first model, and the others beside it."""
    flags: dict[tuple[str | int, ...], str] = {("compare",): "`MODELS`"}
    flags |= {("measure", "latency", key): flag_of(key) for key in ("batch", "length", "rounds", "seconds", "threads")}
    return _build("bench", models[0], {"compare": list(models[1:])}, common, flags)


def _refuse_idle(
    given: Mapping[str, Any], needed: Sequence[type[Technique]], left_out: Sequence[type[Technique]]
) -> None:
    """Refuse a flag that would do nothing: the setting of a stage whose product is given already."""
    used = {field for technique in needed for field in technique.model_fields}
    for technique in left_out:
        for key in technique.model_fields:
            if key in given and key not in used:
                raise RequestError(
                    f"`{flag_of(key)}` belongs to `{technique.name}`, which is left out: the model is an artifact",
                    where=flag_of(key),
                    hint="leave the flag out, or give the encoder",
                )


def _needed(command: Command, model: str) -> list[type[Technique]]:
    """The command's stages, without those whose product is given already."""
    techniques = list(command.techniques)
    try:
        is_artifact = (sources.peek(model) / ARTIFACT_CARD).is_file()
    except BertshrinkError:
        is_artifact = False  # the plan will say what is wrong with the model
    while is_artifact and len(techniques) > 1 and techniques[0].takes == "encoder":
        del techniques[0]
    return techniques


def _build(
    name: str,
    model: str | None,
    values: dict[str, Any],
    common: Mapping[str, Any],
    places: dict[tuple[str | int, ...], str],
) -> Recipe:
    given = {key: value for key, value in common.items() if value is not None}
    values = ({"model": model} if model is not None else {}) | given | values
    places = {("model",): "`MODEL`", **{(key,): f"--{key}" for key in given}, **places}
    text = json.dumps(values, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    stem = Path(model or "").name or "model"
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in stem).strip("-.") or "model"
    from bertshrink.recipe.reader import Source
    from bertshrink.recipe.recipe import build

    return build(Source("command line", values, places), text, default_name=f"{name}-{safe}-{digest}")
