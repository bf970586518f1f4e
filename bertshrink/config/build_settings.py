"""Settings objects filled from values with places.

Each of pydantic's complaints becomes an error that says what, where, and what was probably meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bertshrink.config.checker import Checker, Path
from bertshrink.config.type_hints import literal_words, union_members
from bertshrink.errors import did_you_mean, nearest

M = TypeVar("M", bound=BaseModel)


def fill(model: type[M], values: Any, check: Checker, title: str) -> M | None:
    """Fill a settings object; None where there are faults.

    Args:
        check: of `values`; gets the faults.
        title: what the user calls it, such as `distill`.
    """
    if not isinstance(values, dict):
        hint = f"settings: {', '.join(model.model_fields)}"
        check.error(f"{_quoted(title)} takes settings by name, not `{values}`", hint)
        return None
    faults = list(_booleans(model, values, ()))
    filled = None
    try:
        filled = model.model_validate(values)
    except ValidationError as error:
        faults += [(_walk(fault["loc"], values), fault) for fault in error.errors()]
    taken: set[Path] = set()
    for at, fault in faults:
        # A value that may be of several types fails as each of them: the first and deepest complaint stands for all.
        is_shadowed = any(len(other) > len(at) and other[: len(at)] == at for other, _ in faults)
        if fault["type"] != "missing" and (at in taken or is_shadowed):
            continue
        taken.add(at)
        _tell(at, fault, model, check.at(*at), title)
    return None if faults else filled


def _quoted(title: str) -> str:
    """A name in backticks; a phrase as it is."""
    return title if " " in title else f"`{title}`"


def _inner(model: type[BaseModel], name: str | int) -> type[BaseModel] | None:
    """The settings object that a field may hold."""
    field_info = model.model_fields.get(str(name))
    kinds = union_members(field_info.annotation) if field_info is not None else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _booleans(model: type[BaseModel], values: dict[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    """Each `true` or `false` where neither is meant: pydantic would take them for 1 and 0."""
    for name, value in values.items():
        inner = _inner(model, name)
        if isinstance(value, dict) and inner is not None:
            yield from _booleans(inner, value, (*path, name))
        if isinstance(value, bool) and name in model.model_fields:
            annotation = model.model_fields[name].annotation
            kinds, words = union_members(annotation), literal_words(annotation)
            if not {bool, Any}.intersection(kinds) and not any(word is value for word in words) and inner is None:
                yield (*path, name), {"type": "boolean", "msg": "this setting is not `true` or `false`", "input": value}


def _walk(location: Iterable[str | int], values: Any) -> Path:
    """The part of a complaint's location that leads through the values: pydantic adds names of types to it."""
    path: Path = ()
    for part in location:
        is_key = isinstance(values, dict) and part in values
        if is_key or (isinstance(values, list) and isinstance(part, int) and part < len(values)):
            values = values[part]
            path = (*path, part)
    return path


def _tell(at: Path, fault: Any, model: type[BaseModel], check: Checker, title: str) -> None:
    """Take down one complaint of pydantic."""
    owner, names = model, [part for part in at if isinstance(part, str)]
    for name in names[:-1]:
        owner, title = _inner(owner, name) or owner, name
    match fault["type"]:
        case "extra_forbidden":
            known = getattr(owner, "other_names", {}).get(names[-1])
            hint = f"did you mean `{known}`?" if known else did_you_mean(names[-1], owner.model_fields)
            check.error(f"{_quoted(title)} has no setting `{names[-1]}`", hint)
            return
        case "missing":
            lacking = str(fault["loc"][-1])
            field_info = owner.model_fields.get(lacking)
            hint = f"`{lacking}` is {field_info.description}" if field_info and field_info.description else None
            check.error(f"{_quoted(title)} lacks `{lacking}`", hint)
            return
        case "model_type" | "dict_type":
            fault = fault | {"msg": "input should be settings by name"}
    what = str(fault["msg"]).removeprefix("Value error, ")
    if not names:
        check.error(f"{_quoted(title)}: {what}")
        return
    what = what[0].lower() + what[1:]
    name, given = names[-1], fault.get("input")
    field_info = owner.model_fields.get(name)
    about = f"`{name}` is {field_info.description}" if field_info and field_info.description else None
    options = literal_words(field_info.annotation) if field_info else []
    near = nearest(given, map(str, options)) if isinstance(given, str) else None
    text = f"`{name}`: {what}" if isinstance(given, dict) else f"`{name}` is `{given}`: {what}"
    check.error(text, f"did you mean `{near}`?" if near else about)
