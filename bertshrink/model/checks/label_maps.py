"""The names of a classifier's outputs, as config.json says them in up to three places that can disagree.

id2label      {"0": "neg", "1": "pos"}: keys are numbers or their text, in any order, from 0 without holes
label2id      the reverse; alone it serves as well. What transformers puts there by itself (`LABEL_0`) says nothing
num_labels    how many; alone it means `LABEL_0`, `LABEL_1` and so on
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from bertshrink.errors import UnsafeModel, UserError, listed

_HINT = "save it again as a model whose `id2label` numbers its labels 0, 1, ... and whose `label2id` is the reverse"

MOST_LABELS = 1_000_000


def num_outputs(config: Mapping[str, Any]) -> int:
    """How many outputs a classifier has; transformers' default of 2 where nothing says it."""
    number, names = config.get("num_labels"), config.get("id2label")
    if type(number) is int and number > 0:
        return number
    return len(names) if isinstance(names, Mapping) and names else 2


def label_names(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The labels in the order of the outputs.

    Raises:
        UserError: a map that does not number its labels from 0, two outputs of one name, or places that disagree.
        UnsafeModel: more labels than any model has.
    """
    named, reverse = config.get("id2label"), config.get("label2id")
    for key, names in (("id2label", named), ("label2id", reverse)):
        if names is not None and not isinstance(names, Mapping):
            _refuse(f"`{key}` of the model's config.json is not a mapping", where)
    number = num_outputs(config)
    if number > MOST_LABELS:
        what = f"`num_labels` of config.json is {number}, more than any model has"
        raise UnsafeModel(what, where=where, hint="fix the value, or save the model again")
    default = tuple(f"LABEL_{at}" for at in range(number))
    by_id = {} if not reverse else {_number(at, "label2id", where): str(name) for name, at in reverse.items()}
    if not named:
        labels = _in_order(by_id, "label2id", where) if by_id else default
    else:
        labels = _in_order({_number(at, "id2label", where): str(name) for at, name in named.items()}, "id2label", where)
        _compare(labels, reverse or {}, where)
    if len(labels) != number:
        if labels != tuple(f"LABEL_{at}" for at in range(len(labels))):
            _refuse(f"config.json names {len(labels)} labels, and by `num_labels` there are {number}", where)
        return default
    twice = sorted({name for name in labels if labels.count(name) > 1})
    if twice:
        shown = listed([f"`{name}`" for name in twice])
        _refuse(f"`id2label` of the model's config.json gives {shown} to two outputs", where)
    return labels


def _in_order(by_id: Mapping[int, str], key: str, where: str) -> tuple[str, ...]:
    if sorted(by_id) != list(range(len(by_id))):
        _refuse(f"`{key}` of the model's config.json does not number its labels from 0", where)
    return tuple(by_id[at] for at in range(len(by_id)))


def _number(value: Any, key: str, where: str) -> int:
    """A label's number, which JSON has as text where it is a key."""
    try:
        number = int(value)
    except (ValueError, TypeError):
        number = -1
    if isinstance(value, float | bool) or number < 0:
        _refuse(f"`{key}` of the model's config.json does not number its labels from 0: `{str(value)[:40]}`", where)
    return number


def _compare(labels: tuple[str, ...], reverse: Mapping[str, Any], where: str) -> None:
    """Refuse a `label2id` that says otherwise than `id2label`, unless it is what transformers puts there by itself."""
    numbers = {str(name): _number(at, "label2id", where) for name, at in reverse.items()}
    defaults = {f"LABEL_{at}": at for at in numbers.values()}
    if numbers == defaults and not set(numbers) & set(labels):
        return
    wrong = [
        f"`{name}` ({at} in `label2id`)" for name, at in numbers.items() if at >= len(labels) or labels[at] != name
    ]
    if wrong:
        _refuse(f"`id2label` and `label2id` of the model's config.json disagree: {listed(wrong)}", where)


def _refuse(what: str, where: str) -> NoReturn:
    raise UserError(what, where=where, hint=_HINT)
