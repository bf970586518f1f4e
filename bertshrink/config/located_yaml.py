"""YAML with places: every value remembers its file, line and column, and every fault points at one.

The text is read into plain values and a table path -> (line, column).

What a text may be is looked at before anything is made of it (`_check_events`), by the rules of `bounded_text`: its
depth, and how much its aliases repeat; of tags only YAML's own for plain values; no directives. A date is the text that
is written there: no setting is one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bertshrink.config.checker import LocatedConfig, Path
from bertshrink.errors import UserError
from bertshrink.files.bounded_text import Reader, number_fault, place_of

RECIPE = Reader(
    UserError, "the recipe cannot be read", "check that it is a text file that you may read", most_bytes=256_000
)
_HINT = "a recipe is a YAML mapping with `model:` and `stages:`; see `bertshrink recipe schema`"
_MOST_DEPTH, _MOST_VALUES = 32, 20_000
"""A recipe is some four deep and has a hundred values."""
_CORE = "tag:yaml.org,2002:"
_TAGS = frozenset(_CORE + kind for kind in ("str", "int", "float", "bool", "null", "map", "seq"))


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
                raise UserError(f"the tag `{shown}` is not supported", where=where, hint="write a plain value")
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
            tag = super().resolve(kind, value, implicit)
            if str(tag) == _CORE + "timestamp":
                return super().resolve(kind, "text", implicit)
            return tag

    return Resolver


def _plain(node: Any, path: Path, origin: str, places: dict[Path, str]) -> Any:
    """Strip ruamel's types; note the place of each key and item on the way."""
    marks: Any = getattr(node, "lc", None)
    if isinstance(node, dict):
        mapping = {}
        for key, value in node.items():
            where = LocatedConfig(origin, {}, places).place(path)
            if not isinstance(key, str | int | float | bool | None):
                raise UserError("a key is a list or a mapping", where=where, hint="keys are words")
            if str(key) in mapping:
                raise UserError(f"the key `{key}` appears twice", where=where, hint="keep one of the two")
            if marks.data and key in marks.data:  # a key merged in by `<<` is elsewhere
                line, column = marks.key(key)
                places[(*path, str(key))] = place_of(origin, line + 1, column + 1)
            mapping[str(key)] = _plain(value, (*path, str(key)), origin, places)
        return mapping
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
