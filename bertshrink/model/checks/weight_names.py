"""Every stored weight has its place in the stock class, and every place its weight; or the checkpoint is refused.

transformers leaves a weight out that it has no place for, and makes up one that is missing. So the names in the
safetensors header are compared with those of the class, which is built without numbers, before anything is loaded:

    a name that the class has          as it is; with or without the family's own prefix (`bert.`), as transformers
                                       reads both; LayerNorm's `gamma` and `beta` of old files
    names with a word in front         `module.`, `model.`, the family's own twice: as without it, where nothing is then
                                       left over, twice or missing
    a buffer that it computes itself   `position_ids`, `token_type_ids`: saved by old versions
    a leftover of `_leftovers`         harmless, with the reason
    anything else                      refused by name: relative positions, a CRF, an LSTM, adapters, further heads

A pooler that no output comes from may be missing; tied weights are counted once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from bertshrink.errors import UnsafeModel, UserError, listed
from bertshrink.files.shards import WEIGHTS, weight_file
from bertshrink.model.family import ModelFamily
from bertshrink.model.tasks import TASKS, guess_task

if TYPE_CHECKING:
    from bertshrink.model.checkpoint_info import CheckpointInfo

_FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
"""Number formats of weights, by their words in safetensors."""

_NEW = {"gamma": "weight", "beta": "bias"}
_MOST_WORDS = 4
"""In front of a name: `module._orig_mod.model.`, and one to spare."""


@dataclass(frozen=True)
class _Leftover:
    """Weights that a checkpoint may hold besides its class's, and why nothing is lost without them."""

    pattern: str
    reason: str
    tasks: Collection[str] = tuple(TASKS)
    is_own_head: bool = False


def _below(modules: Iterable[str]) -> str:
    names = sorted(set(modules))
    return rf"^({'|'.join(map(re.escape, names))})\." if names else r"$^"


@cache
def _leftovers(row: ModelFamily) -> tuple[_Leftover, ...]:
    """Those of a family: what is a head in one may be anything in another."""
    return (
        _Leftover(
            _below(row.masked_head.steps),
            "the pre-training head for masked tokens; other tasks have their own",
            tuple(name for name, task in TASKS.items() if not task.has_masked_head),
        ),
        _Leftover(
            _below(row.unread_heads),
            "a pre-training head (next sentence, order, replaced tokens) that no supported task uses",
        ),
        _Leftover(r"(^|\.)pooler\.", "the pooler, for a head that this class does not have"),
        _Leftover(r"(^|\.)(loss|loss_fct|loss_fn|criterion)\.(weight|pos_weight)$", "class weights of a loss"),
        _Leftover(
            _below(row.task_heads),
            "the head of the class named in config.json, when the model is loaded as another",
            is_own_head=True,
        ),
    )


def check_names(facts: CheckpointInfo, header: Mapping[str, Mapping[str, Any]], model: Any) -> str:
    """Compare what is stored with what the stock class has.

    Args:
        header: name -> dtype and shape, of the safetensors file.
        model: the class, built on the device `meta`.

    Returns:
        the words in front of stored names that are to be read without them: `module.`; empty: there are none.

    Raises:
        UserError: weights are missing: the checkpoint is for another task.
        UnsafeModel: weights have no place, the same place, another shape than config.json's, or are not floating-point
            numbers.
    """
    places = model.state_dict(keep_vars=True)
    buffers = {name for name, _ in model.named_buffers()} - set(places)
    prefix = f"{model.base_model_prefix}."

    def has_use(name: str) -> bool:
        return _place(name, prefix, places) is not None or _is_leftover(name, prefix, buffers, facts)

    words = words_in_front(header, places, prefix, has_use)
    place_by_name = {name: _place(name.removeprefix(words), prefix, places) for name in header}
    strange = [name for name in header if not has_use(name.removeprefix(words))]
    _refuse_double(place_by_name, facts)
    filled = {id(places[place]) for place in place_by_name.values() if place is not None}
    missing = [name for name, value in places.items() if id(value) not in filled and not is_spare(name, facts)]
    _refuse_wrapped(strange, prefix, places, facts)
    if missing:
        _refuse_missing(missing, strange, facts)
    if strange:
        raise UnsafeModel(
            f"the checkpoint holds {_some(strange)}, which `{type(model).__name__}` does not use: without them its "
            "outputs differ from those of the saved model",
            where=str(weight_file(facts.folder)),
            hint="bertshrink takes only stock models; if these weights are unused, save the model as its stock class: "
            f"`transformers.{type(model).__name__}.from_pretrained(DIR).save_pretrained(NEW)`",
        )
    for name, place in place_by_name.items():
        if place is not None:
            _check_form(name, header[name], list(places[place].shape), facts)
    return words


def notes_on(header: Mapping[str, Mapping[str, Any]], words: str = "") -> list[str]:
    """What is read otherwise than it is stored: names with `words` in front, number formats."""
    notes = [f"stored names begin with `{words}`, left by what wrapped the model in training: read without it"]
    formats = sorted({_FLOATS[entry["dtype"]] for entry in header.values() if entry["dtype"] in _FLOATS} - {"float32"})
    read = [f"weights stored as {' and '.join(formats)} are read, and written again, as float32"] if formats else []
    return (notes if words else []) + read


def words_in_front(
    names: Collection[str], places: Collection[str], prefix: str, has_use: Callable[[str], bool] | None = None
) -> str:
    """What stands in front of stored names and no class has, left by whatever wrapped the model in training.

    Args:
        names: as they are stored.
        places: the class's own names.
        prefix: of the family, in front of its base model's names.
        has_use: whether something is known of a name; None: whether it has a place.

    Returns:
        as much as has to go for every name to have its use; empty: nothing, or there is no one reading.
    """
    uses = has_use or (lambda name: _place(name, prefix, places) is not None)
    strange, words = [name for name in names if not uses(name)], ""
    for _ in range(_MOST_WORDS):
        first = {name.removeprefix(words).partition(".")[0] for name in strange}
        if len(first) != 1:
            return ""
        words += f"{first.pop()}."
        rest = [name.removeprefix(words) for name in names if name.startswith(words)]
        if all(map(uses, rest)) and any(_place(name, prefix, places) for name in rest):
            return words
    return ""


def _refuse_double(place_by_name: Mapping[str, str | None], facts: CheckpointInfo) -> None:
    """Refuse two stored weights that mean one of the class: a loader would take either."""
    names: dict[str, list[str]] = {}
    for name, place in place_by_name.items():
        if place is not None:
            names.setdefault(place, []).append(name)
    for place, stored in names.items():
        if len(stored) > 1:
            raise UnsafeModel(
                f"the checkpoint holds {len(stored)} weights that both mean `{place}`: {_some(stored)}",
                where=str(weight_file(facts.folder)),
                hint="delete those that are not the model's, and save the file again with safetensors",
            )


def _place(name: str, prefix: str, places: Collection[str]) -> str | None:
    """The parameter that a stored name means."""
    name = re.sub(r"LayerNorm\.(gamma|beta)$", lambda old: f"LayerNorm.{_NEW[old[1]]}", name)
    return next((n for n in (name, prefix + name, name.removeprefix(prefix)) if n in places), None)


def _is_leftover(name: str, prefix: str, buffers: Collection[str], facts: CheckpointInfo) -> bool:
    if _place(name, prefix, buffers) is not None:
        return True
    return any(
        re.search(leftover.pattern, name)
        and facts.task in leftover.tasks
        and (not leftover.is_own_head or _own_tasks(facts) != {facts.task})
        for leftover in _leftovers(facts.anatomy)
    )


def _own_tasks(facts: CheckpointInfo) -> set[str | None]:
    """The tasks of the classes that config.json names: mostly one; None: of none in the table."""
    named, tasks = facts.config.get("architectures"), set[str | None]()
    for name in named if isinstance(named, list) and named else [None]:
        try:
            tasks.add(guess_task({**facts.config, "architectures": [name]}, sentence_kind=None, where=""))
        except UserError:
            tasks.add(None)
    return tasks


def is_spare(name: str, facts: CheckpointInfo) -> bool:
    """Whether a weight of the class may be missing: the pooler of a sentence encoder, which no output comes from."""
    return TASKS[facts.task].is_bare and re.search(r"(^|\.)pooler\.", name) is not None


def _refuse_wrapped(strange: Sequence[str], prefix: str, places: Collection[str], facts: CheckpointInfo) -> None:
    """Refuse names in front of which whatever trained the model put a word of its own."""
    first = {name.partition(".")[0] for name in strange}
    if len(first) != 1:
        return
    word = f"{first.pop()}."
    inner = [name.removeprefix(word) for name in strange]
    if not any(_place(name, prefix, places) for name in inner):
        return
    by = {"module.": " (PyTorch's DataParallel)", "_orig_mod.": " (torch.compile)", "model.": " (a training library)"}
    raise UnsafeModel(
        f"the names of {len(strange)} weights begin with `{word}`, left by what wrapped the model in "
        f"training{by.get(word, '')}: `{strange[0]}`",
        where=str(weight_file(facts.folder)),
        hint='remove it: `python -c "from safetensors.torch import load_file as l, save_file as s; '
        f"s({{k.removeprefix('{word}'): v for k, v in l('{WEIGHTS}').items()}}, '{WEIGHTS}', {{'format': 'pt'}})\"`",
    )


def _refuse_missing(missing: Sequence[str], strange: Sequence[str], facts: CheckpointInfo) -> None:
    what = f"the checkpoint lacks {len(missing)} weights that the task `{facts.task}` needs: {_some(missing)}"
    hint = "it was saved for another task: name that one with `task:` or `--task`, or fine-tune it first"
    if strange:
        what += f"; and it contains {_some(strange)}, which the task's class does not use"
        hint += "; or its names are not those of the stock class"
    raise UserError(what, where=str(facts.folder), hint=hint)


def _check_form(name: str, about: Mapping[str, Any], wanted: Sequence[int], facts: CheckpointInfo) -> None:
    """Refuse a weight of another shape or type than the class takes."""
    where = str(weight_file(facts.folder))
    if list(about["shape"]) != wanted:
        shapes = ["x".join(map(str, shape)) or "a single number" for shape in (about["shape"], wanted)]
        raise UnsafeModel(
            f"the weight `{name}` is {shapes[0]}, and config.json asks for {shapes[1]}",
            where=where,
            hint="config.json is that of another model, or the model was changed (heads pruned, labels added) "
            "without it: save model and configuration together with `save_pretrained`",
        )
    if about["dtype"] not in _FLOATS:
        raise UnsafeModel(
            f"the weight `{name}` is stored as {about['dtype']}, not as a floating-point number",
            where=where,
            hint="give the model from before that another library quantized it",
        )


def _some(names: Sequence[str]) -> str:
    return listed([f"`{name}`" for name in names])
