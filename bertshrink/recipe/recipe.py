"""A recipe: what is asked, as it was written, every value with its place.

    name: edge                       # name of the run folder; default: the file's name
    model: distilbert-base-uncased   # a folder, or a hub name
    data: ./sst2                     # see `data.texts`; or a mapping of its settings
    task: auto
    seed: 0
    stages:
      - distill: {layers: 3, epochs: 2}
      - export
      - quantize
    measure:
      latency: {batch: [1, 8], length: [32, 128]}
    gates:                           # what the last model must hold against the first; see `report.gate`
      size: "<= 20 MB"

What is wrong in itself is reported here; whether it fits the model and the data is the plan's matter.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from bertshrink.config.build_settings import fill
from bertshrink.config.checker import Checker, LocatedConfig
from bertshrink.config.located_yaml import RECIPE, read_yaml
from bertshrink.data.settings import DataSettings
from bertshrink.errors import UserError, did_you_mean
from bertshrink.gates.limits.limit import Rule
from bertshrink.gates.limits.read_limits import read_rules
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.model.tasks import TASKS
from bertshrink.recipe.command_table import flag_of
from bertshrink.techniques import TECHNIQUES
from bertshrink.techniques.base import Technique

if TYPE_CHECKING:
    from bertshrink.model.model_ref import ModelRef


class MeasureSettings(BaseModel):
    """What is measured: the recipe's `measure:`. Size always is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quality: bool = Field(True, description="evaluate every stage on the dev split")
    dimensions: tuple[PositiveInt, ...] = Field(
        (),
        description="also evaluate sentence vectors truncated to each of these numbers of dimensions (Matryoshka "
        "models), `[256, 128]`",
    )
    latency: LatencySettings | Literal[False] = Field(
        default_factory=LatencySettings, description="time and memory of all models, interleaved; `false`: not measured"
    )


class _Body(BaseModel):
    """The recipe's keys, before the stages are looked into."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(None, description="name of the run folder", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: str | None = Field(
        None, description="encoder to start from: a folder or a hub name; omitted with `pretrain`"
    )
    reference: str | None = Field(
        None,
        description="JSON file of texts and the vectors that the model gives for them elsewhere; it must give the same",
    )
    task: str = Field("auto", description=f"task of the model: auto, {', '.join(TASKS)}")
    data: Any = Field(None, description="texts: builtin:pydoc, a file, a folder, a hub name")
    seed: int = Field(0, ge=0, lt=2**32, description="random seed")
    compare: list[str] = Field(default_factory=list, description="other models to measure for comparison")
    stages: list[Any] = Field(default_factory=list, description="techniques, in the order they are applied")
    measure: dict[str, Any] = Field(default_factory=dict, description="what is measured")
    gates: dict[str, Any] = Field(
        default_factory=dict, description="limits that the last model must meet, relative to the reference"
    )


@dataclass(frozen=True)
class Stage:
    """One technique with its settings and the path of its entry in the source."""

    technique: Technique
    path: tuple[str | int, ...]


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    `model_ref` is the model, where somebody had to look at it before there was a plan.
    """

    name: str
    model: str | None
    task: str
    data: DataSettings | None
    seed: int
    compare: tuple[str, ...]
    stages: tuple[Stage, ...]
    measure: MeasureSettings
    gates: tuple[Rule, ...]
    source: LocatedConfig
    text: str
    reference: str | None = None
    model_ref: ModelRef | None = None

    def place(self, *path: str | int) -> str:
        """Where a value was written."""
        return self.source.place(path)

    def with_measure(self, **changes: object) -> Recipe:
        """The recipe with other measuring; `changes` are fields of `MeasureSettings`."""
        return replace(self, measure=self.measure.model_copy(update=changes))


def read_recipe(
    path: Path,
    overrides: dict[str, Any] | None = None,
    about_texts: Mapping[str, Any] | None = None,
    dimensions: Sequence[Any] | None = None,
) -> Recipe:
    """Read a recipe file.

    Args:
        overrides: top-level values that replace the file's, such as `data` from the command line.
        about_texts: settings of `data` that replace the file's; None means not given.
        dimensions: replace those of the file's `measure`; None: not given.

    Raises:
        UserError: no such file, or it is not a recipe (all faults at once); something is said of texts, and none are
            given.
    """
    text = RECIPE.read_text(path)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "recipe"
    return _overridden(read_yaml(text, str(path)), text, name, overrides or {}, about_texts or {}, dimensions)


def recipe_of_values(
    values: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    about_texts: Mapping[str, Any] | None = None,
    dimensions: Sequence[Any] | None = None,
) -> Recipe:
    """A recipe from its keys; further arguments and errors as of `read_recipe`."""
    text = json.dumps(values, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    source = LocatedConfig("the recipe", copy.deepcopy(dict(values)), {})
    return _overridden(source, text, f"recipe-{digest}", overrides or {}, about_texts or {}, dimensions)


def _overridden(
    source: LocatedConfig,
    text: str,
    name: str,
    overrides: Mapping[str, Any],
    about_texts: Mapping[str, Any],
    dimensions: Sequence[Any] | None,
) -> Recipe:
    for key, value in overrides.items():
        kept = source.values.get(key)
        source.values[key] = other_data(value, kept) if key == "data" else value
        for path_in in [place for place in source.places if place[0] == key]:
            del source.places[path_in]
        source.places[(key,)] = flag_of(key)
    tell(source.values, source.places, about_texts)
    ask_dimensions(source.values, source.places, dimensions)
    return build(source, text, default_name=name)


def tell(values: dict[str, Any], places: dict[tuple[str | int, ...], str], about_texts: Mapping[str, Any]) -> None:
    """Put what flags say of texts into a recipe's `data`, in place.

    Args:
        about_texts: settings of `data`; None means not given.

    Raises:
        UserError: there is no `data`.
    """
    told = {key: value for key, value in about_texts.items() if value is not None}
    if isinstance(told.get("columns"), str):  # `text,label`, as the command line gives it
        told["columns"] = [name.strip() for name in told["columns"].split(",")]
    if not told:
        return
    flags = {key: flag_of(key) for key in told}
    data = values.get("data")
    if data is None:
        flag = next(iter(flags.values()))
        raise UserError(f"`{flag}` applies to texts, and none are given", where=flag, hint="give them with `--data`")
    if isinstance(data, str):
        data = other_data(data, None)
    if isinstance(data, dict):  # what is not a mapping is refused with its place
        values["data"] = data | told
        places |= {("data", key): flag for key, flag in flags.items()}


def ask_dimensions(
    values: dict[str, Any], places: dict[tuple[str | int, ...], str], dimensions: Sequence[Any] | None
) -> None:
    """Put what a flag says of dimensions into a recipe's `measure`, in place; None: it says nothing."""
    measure = values.get("measure") or {}
    if dimensions is None or not isinstance(measure, dict):  # what is not a mapping is refused with its place
        return
    own = ("measure", "dimensions")
    values["measure"] = measure | {"dimensions": list(dimensions)}
    for place in [place for place in places if place[:2] == own]:
        del places[place]
    places[own] = flag_of("dimensions")


_OF_ANY_DATA = ("max_train", "max_unlabelled", "max_dev", "max_length", "dev_share", "split_seed")
"""Settings of `data:` that hold for other texts as well."""


_SIDE = "(?:train|dev|test|unlabelled)="


def other_data(given: str | Mapping[str, Any], kept: Any) -> dict[str, Any]:
    """The settings of texts named on the command line: `PATH`, or separate splits as `train=PATH,dev=PATH`.

    Args:
        given: as typed, or settings as they are.
        kept: the recipe's own `data:`, whose limits stay.
    """
    limits = {key: kept[key] for key in _OF_ANY_DATA if key in kept} if isinstance(kept, dict) else {}
    if not isinstance(given, str):
        return limits | dict(given)
    if not re.match(_SIDE, given) or Path(given).exists():  # a path may hold commas and equals signs
        return limits | {"path": given}
    splits: dict[str, Any] = {}
    parts = re.split(f",(?={_SIDE})", given)
    while parts:
        name, _, path = parts.pop(0).partition("=")
        if parts and not Path(path).exists() and Path(f"{path},{parts[0]}").exists():
            path = f"{path},{parts.pop(0)}"
        splits[name] = path
    return limits | splits


def build(source: LocatedConfig, text: str, default_name: str) -> Recipe:
    """A recipe from plain values. Raises UserErrors: everything that is wrong with it in itself."""
    check = Checker(source)
    # A key without a value is a key left out.
    values = {key: value for key, value in source.values.items() if value is not None or key not in _Body.model_fields}
    body = fill(_Body, values, check, "the recipe")
    entries = values.get("stages", [])
    stages = [
        stage
        for i, entry in enumerate(entries if isinstance(entries, list) else [])
        if (stage := _stage(entry, check.at("stages", i))) is not None
    ]
    data = _data(values.get("data"), check.at("data"))
    wanted = values.get("measure", {})
    measure = None
    if isinstance(wanted, dict):
        measure = fill(MeasureSettings, wanted, check.at("measure"), "measure")
    gates = read_rules(values.get("gates", {}), check.at("gates"))
    if gates and not stages and not check.faults:
        what = "`gates` judge the last stage's model, and there is none"
        check.at("gates").error(what, "add a stage, or judge a file with `bertshrink gate`")
    check.raise_faults()
    assert body is not None and measure is not None
    return Recipe(
        body.name or default_name,
        body.model,
        body.task,
        data,
        body.seed,
        tuple(body.compare),
        tuple(stages),
        measure,
        tuple(gates),
        source,
        text,
        body.reference,
    )


def _stage(entry: Any, check: Checker) -> Stage | None:
    """One entry of `stages:`: a name, or a name with settings."""
    if isinstance(entry, str):
        name, settings = entry, dict[str, Any]()
    elif isinstance(entry, dict) and len(entry) == 1:
        name, settings = next(iter(entry.items()))
        check = check.at(name)
    else:
        check.error(f"`{entry}` is not a stage", "write `- export`, or `- distill: {layers: 3}`")
        return None
    if name not in TECHNIQUES:
        check.error(f"there is no technique `{name}`", did_you_mean(name, TECHNIQUES))
        return None
    technique = fill(TECHNIQUES[name], {} if settings is None else settings, check, name)
    return Stage(technique, check.path) if technique is not None else None


def _data(values: Any, check: Checker) -> DataSettings | None:
    if values is None:
        return None
    if isinstance(values, str):
        values = other_data(values, None)
    data = fill(DataSettings, values, check, "data")
    if data is not None and not (data.path or data.train):
        check.error("`data` names no texts", "give `path` or `train`")
        return None
    return data
