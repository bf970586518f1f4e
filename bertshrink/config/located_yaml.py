"""YAML with places: every value remembers its file, line and column, and every fault points at one.

The text is read into plain values and a table path -> (line, column). A pydantic model is then filled from the
values, and each of its complaints is turned into an error that says what, where, and what was probably meant.

What a text may be is looked at before anything is made of it (`_check_events`), by the rules of `bounded_text`: its
depth, and how much its aliases repeat; of tags only YAML's own for plain values; no directives. A date is the text that
is written there: no setting is one.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from bertshrink.errors import UserError, did_you_mean
from bertshrink.files.bounded_text import Reader, number_fault, place_of

Path = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


RECIPE = Reader(
    UserError, "the recipe cannot be read", "check that it is a text file that you may read", most_bytes=256_000
)
_HINT = "a recipe is a YAML mapping with `model:` and `stages:`; see `bertshrink recipe schema`"
_MOST_DEPTH, _MOST_VALUES = 32, 20_000
"""A recipe is some four deep and has a hundred values."""
_CORE = "tag:yaml.org,2002:"
_TAGS = frozenset(_CORE + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq"))


@dataclass(frozen=True)
class LocatedConfig:
    """Where a recipe was written: a file's text, or flags of a command line.

    Attributes:
        origin: the file's name, or `command line`.
        values: plain values.
        places: path of keys and indices -> what to print as the place.
    """

    origin: str
    values: dict[str, Any]
    places: dict[Path, str] = field(default_factory=dict)

    def place(self, path: Iterable[str | int]) -> str:
        """The place of a value, or of the nearest thing around it."""
        found = tuple(path)
        while found and found not in self.places:
            found = found[:-1]
        return self.places.get(found, self.origin)


def read_yaml(text: str, origin: str) -> LocatedConfig:
    """Read a YAML mapping. Raises UserError: no YAML, a key given twice, or no mapping."""
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="rt")
    yaml.Resolver = _without_dates()
    try:
        _check_events(YAML(typ="rt").parse(text), origin)
        tree = yaml.load(text)
    except DuplicateKeyError as error:
        mark = error.problem_mark
        raise UserError(
            str(error.problem).splitlines()[0].replace('"', "`"),
            where=place_of(origin, mark.line + 1, mark.column + 1),
            hint="keep one of the two",
        ) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = place_of(origin, mark.line + 1, mark.column + 1) if mark else origin
        raise UserError(f"this is not YAML: {error.problem}", where=where, hint=_HINT) from None
    except YAMLError as error:
        raise UserError(f"this is not YAML: {str(error).splitlines()[0]}", where=origin, hint=_HINT) from None
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        # What ruamel makes of `!!int x`, of an integer of 5,000 digits, of a list as a key
        raise UserError(f"this is not YAML: {error}", where=origin, hint=_HINT) from None
    if not isinstance(tree, dict):
        raise UserError("the recipe is not a mapping of keys to values", where=origin, hint=_HINT)
    places: dict[Path, str] = {}
    return LocatedConfig(origin, _plain(tree, (), origin, places), places)


def _check_events(events: Iterable[Any], origin: str) -> None:
    """Refuse what is too deep, too large once its aliases are written out, or more than plain values."""
    depth, total = 0, 0
    sizes: dict[str, int] = {}  # of what each anchor names, aliases in it written out
    open_anchors: list[tuple[str | None, int]] = []
    for event in events:
        kind = type(event).__name__
        where = place_of(origin, event.start_mark.line + 1, event.start_mark.column + 1) if event.start_mark else origin
        if kind == "DocumentStartEvent" and (event.tags or event.version not in (None, (1, 2))):
            raise UserError("a recipe has no directives (`%`)", where=where, hint="leave that line out")
        if kind in ("SequenceEndEvent", "MappingEndEvent"):
            anchor, before = open_anchors.pop()
            depth -= 1
            if anchor is not None:
                sizes[anchor] = total - before
        elif kind == "AliasEvent":
            if event.anchor not in sizes:
                what = f"the alias `*{event.anchor}` appears inside or before its anchor"
                raise UserError(what, where=where, hint="write it out")
            total += sizes[event.anchor]
        elif kind in ("ScalarEvent", "SequenceStartEvent", "MappingStartEvent"):
            if event.tag is not None and str(event.tag) not in _TAGS:
                shown = str(event.tag).replace(_CORE, "!!")
                raise UserError(f"the tag `{shown}` is not read", where=where, hint="write a plain value")
            total += 1
            if kind == "ScalarEvent":
                if "\0" in event.value:
                    raise UserError("a value holds the character NUL", where=where, hint="leave it out")
                if event.anchor is not None:
                    sizes[event.anchor] = 1
            else:
                depth += 1
                open_anchors.append((event.anchor, total - 1))
        if depth > _MOST_DEPTH:
            raise UserError(f"the recipe is nested more than {_MOST_DEPTH} deep", where=where, hint=_HINT)
        if total > _MOST_VALUES:
            what = f"the recipe has more than {_MOST_VALUES} values, once its aliases are written out"
            raise UserError(what, where=where, hint=_HINT)


def _without_dates() -> type[Any]:
    """A resolver to which a date is a text."""
    from ruamel.yaml.resolver import VersionedResolver

    class Resolver(VersionedResolver):
        def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
            found = super().resolve(kind, value, implicit)
            if str(found) == _CORE + "timestamp":
                return super().resolve(kind, "text", implicit)
            return found

    return Resolver


def _plain(node: Any, path: Path, origin: str, places: dict[Path, str]) -> Any:
    """Strip ruamel's types; note the place of each key and item on the way.

    Raises:
        UserError: a key appears twice, or is not a plain value; an integer is too long.
    """
    marks: Any = getattr(node, "lc", None)
    if isinstance(node, dict):
        found = {}
        for key, value in node.items():
            where = LocatedConfig(origin, {}, places).place(path)
            if not isinstance(key, str | int | float | bool | None):
                raise UserError("a key is a list or a mapping", where=where, hint="keys are words")
            if str(key) in found:
                raise UserError(f"the key `{key}` appears twice", where=where, hint="keep one of the two")
            if marks.data and key in marks.data:  # a key merged in by `<<` is elsewhere
                line, column = marks.key(key)
                places[(*path, str(key))] = place_of(origin, line + 1, column + 1)
            found[str(key)] = _plain(value, (*path, str(key)), origin, places)
        return found
    if isinstance(node, list):
        items = []
        for i, value in enumerate(node):
            if marks.data and i in marks.data:  # an item under a tag has no place
                line, column = marks.item(i)
                places[(*path, i)] = place_of(origin, line + 1, column + 1)
            items.append(_plain(value, (*path, i), origin, places))
        return items
    if isinstance(node, bool) or node is None:
        return node
    if isinstance(node, int) and (fault := number_fault(node)):
        raise UserError(fault, where=LocatedConfig(origin, {}, places).place(path), hint="write a smaller one")
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return str(node.value)  # a text under the tag `!!str`


def fill(
    model: type[M], values: Any, source: LocatedConfig, path: Path, title: str, faults: list[UserError]
) -> M | None:
    """Fill a settings object; faults are appended, None returned when there are any.

    Args:
        path: of `values` in the source.
        title: what the user calls it, such as `distill`.
    """
    if not isinstance(values, dict):
        text = f"{_quoted(title)} takes settings by name, not `{values}`"
        faults.append(UserError(text, where=source.place(path), hint=f"settings: {', '.join(model.model_fields)}"))
        return None
    found = list(_booleans(model, values, ()))
    filled = None
    try:
        filled = model.model_validate(values)
    except ValidationError as error:
        found += [(_walk(fault["loc"], values), fault) for fault in error.errors()]
    taken: set[Path] = set()
    for at, fault in found:
        # A value that may be of several types fails as each of them: the first and deepest complaint stands for all.
        is_shadowed = any(len(other) > len(at) and other[: len(at)] == at for other, _ in found)
        if fault["type"] != "missing" and (at in taken or is_shadowed):
            continue
        taken.add(at)
        faults.append(_translate(at, fault, model, source, path, title))
    return None if found else filled


def _quoted(title: str) -> str:
    """A name in backticks; a phrase as it is."""
    return title if " " in title else f"`{title}`"


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _inner(model: type[BaseModel], name: str | int) -> type[BaseModel] | None:
    """The settings object that a field may hold."""
    field_info = model.model_fields.get(str(name))
    kinds = _members(field_info.annotation) if field_info is not None else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _booleans(model: type[BaseModel], values: dict[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    """Each `true` or `false` where neither is meant: pydantic would take them for 1 and 0."""
    for name, value in values.items():
        inner = _inner(model, name)
        if isinstance(value, dict) and inner is not None:
            yield from _booleans(inner, value, (*path, name))
        if isinstance(value, bool) and name in model.model_fields:
            kinds = _members(model.model_fields[name].annotation)
            words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
            if not {bool, Any}.intersection(kinds) and not any(word is value for word in words) and inner is None:
                yield (*path, name), {"type": "boolean", "msg": "this setting is not `true` or `false`", "input": value}


def _walk(location: Iterable[str | int], values: Any) -> Path:
    """The part of a complaint's location that leads through the values: pydantic adds names of types to it."""
    found: Path = ()
    for part in location:
        is_key = isinstance(values, dict) and part in values
        if is_key or (isinstance(values, list) and isinstance(part, int) and part < len(values)):
            values = values[part]
            found = (*found, part)
    return found


def _translate(
    at: Path, fault: Any, model: type[BaseModel], source: LocatedConfig, path: Path, title: str
) -> UserError:
    """One complaint of pydantic as an error."""
    owner, names = model, [part for part in at if isinstance(part, str)]
    for name in names[:-1]:
        owner, title = _inner(owner, name) or owner, name
    where = source.place((*path, *at))
    match fault["type"]:
        case "extra_forbidden":
            known = getattr(owner, "other_names", {}).get(names[-1])
            hint = f"did you mean `{known}`?" if known else did_you_mean(names[-1], owner.model_fields)
            return UserError(f"{_quoted(title)} has no setting `{names[-1]}`", where=where, hint=hint)
        case "missing":
            lacking = str(fault["loc"][-1])
            field_info = owner.model_fields.get(lacking)
            hint = f"`{lacking}` is {field_info.description}" if field_info and field_info.description else None
            return UserError(f"{_quoted(title)} lacks `{lacking}`", where=where, hint=hint)
        case "model_type" | "dict_type":
            fault = fault | {"msg": "input should be settings by name"}
    what = str(fault["msg"]).removeprefix("Value error, ")
    if not names:
        return UserError(f"{_quoted(title)}: {what}", where=where)
    what = what[0].lower() + what[1:]
    name, given = names[-1], fault.get("input")
    about = owner.model_fields[name].description if name in owner.model_fields else None
    text = f"`{name}`: {what}" if isinstance(given, dict) else f"`{name}` is `{given}`: {what}"
    return UserError(text, where=where, hint=f"`{name}` is {about}" if about else None)
