"""YAML with places: every value remembers its file, line and column, and every fault points at one.

The text is read once into plain values and a table path -> (line, column). A pydantic model is then filled from the
values, and each of its complaints is turned into an error that says what, where, and what was probably meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from bertshrink.errors import RequestError

Path = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Source:
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


def read_yaml(text: str, origin: str) -> Source:
    """Read a YAML mapping.

    Raises:
        RequestError: no YAML, a key given twice, or no mapping.
    """
    yaml = YAML(typ="rt")
    hint = "a recipe is a YAML mapping with `model:` and `stages:`; see `bertshrink recipe schema`"
    try:
        tree = yaml.load(text)
    except DuplicateKeyError as error:
        mark = error.problem_mark
        raise RequestError(
            str(error.problem).splitlines()[0].replace('"', "`"), where=f"{origin}:{mark.line + 1}:{mark.column + 1}"
        ) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark else origin
        raise RequestError(f"this is no YAML: {error.problem}", where=where, hint=hint) from None
    except YAMLError as error:
        raise RequestError(f"this is no YAML: {str(error).splitlines()[0]}", where=origin, hint=hint) from None
    if not isinstance(tree, CommentedMap):
        raise RequestError("the recipe is not a mapping of keys to values", where=origin, hint=hint)
    places: dict[Path, str] = {}
    return Source(origin, _plain(tree, (), origin, places), places)


def _plain(node: Any, path: Path, origin: str, places: dict[Path, str]) -> Any:
    """Strip ruamel's types; note the place of each key and item on the way."""
    if isinstance(node, CommentedMap):
        found = {}
        for key, value in node.items():
            line, column = node.lc.key(key)
            places[(*path, str(key))] = f"{origin}:{line + 1}:{column + 1}"
            found[str(key)] = _plain(value, (*path, str(key)), origin, places)
        return found
    if isinstance(node, CommentedSeq):
        items = []
        for i, value in enumerate(node):
            line, column = node.lc.item(i)
            places[(*path, i)] = f"{origin}:{line + 1}:{column + 1}"
            items.append(_plain(value, (*path, i), origin, places))
        return items
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def near(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the nearest known word; all of them where none is near."""
    options = list(known)
    match = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f"did you mean `{match[0]}`?" if match else f"known: {', '.join(options)}" if options else None


def fill(model: type[M], values: Any, source: Source, path: Path, title: str, faults: list[RequestError]) -> M | None:
    """Fill a settings object; faults are appended, None returned when there are any.

    Args:
        model: what to fill.
        values: its values.
        source: for the places.
        path: of `values` in the source.
        title: what the user calls it, such as `distill`.
        faults: grows.
    """
    if not isinstance(values, dict):
        faults.append(RequestError(f"`{title}` takes settings by name, not `{values}`", where=source.place(path)))
        return None
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for fault in error.errors():
            faults.append(_translate(fault, model, source, path, title))
        return None


def _translate(fault: Any, model: type[BaseModel], source: Source, path: Path, title: str) -> RequestError:
    location = tuple(part for part in fault["loc"] if (*path, part) in source.places or isinstance(part, str))
    name = str(fault["loc"][0]) if fault["loc"] else title
    where = source.place((*path, *location))
    known = list(model.model_fields)
    match fault["type"]:
        case "extra_forbidden":
            return RequestError(f"`{title}` has no setting `{name}`", where=where, hint=near(name, known))
        case "missing":
            return RequestError(f"`{title}` lacks `{name}`", where=source.place(path))
    what = str(fault["msg"]).removeprefix("Value error, ")
    if not fault["loc"]:
        return RequestError(f"`{title}`: {what}", where=source.place(path))
    about = model.model_fields[name].description if name in model.model_fields else None
    given = fault.get("input")
    text = (
        f"`{name}` is `{given}`: {what[0].lower() + what[1:]}" if not isinstance(given, dict) else f"`{name}`: {what}"
    )
    return RequestError(text, where=where, hint=f"`{name}` is {about}" if about else None)
