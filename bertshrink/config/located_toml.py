"""Where each key of a TOML file is: `tomllib` reads values without places, errors must name them.

The file has been read by `tomllib` before, so that it is valid TOML; what is left is to walk over its lines, past
strings and brackets that run over several of them, and to note headers and keys. Keys inside inline tables have the
place of the key in front.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

_BARE = r"[A-Za-z0-9_-]+"
_PART = rf"(?:{_BARE}|\"(?:[^\"\\]|\\.)*\"|'[^']*')"
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]")
_KEY = re.compile(rf"\s*({_DOTTED})\s*=")
_SKIPPED = re.compile(r"\"\"\"|'''|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|#[^\n]*|[\[\]{}]")


def places_of(text: str, origin: str) -> dict[tuple[str | int, ...], str]:
    """The place of each key and table of a valid TOML text, as `origin:line:column`.

    Keys of a table that is one of several (`[[...]]`) are left out.
    """
    places: dict[tuple[str | int, ...], str] = {}
    inside: tuple[str, ...] | None = ()
    for line, column, kind, dotted in _marks(text):
        path = _parts(dotted)
        if kind == "header":
            inside = path
        elif kind == "array":
            inside = None
            continue
        elif inside is not None:
            path = (*inside, *path)
        else:
            continue
        for end in range(1, len(path) + 1):
            places.setdefault(path[:end], f"{origin}:{line}:{column}")
    return places


def _marks(text: str) -> Iterator[tuple[int, int, str, str]]:
    """(line, column, `header`, `array` or `key`, the dotted name), in order."""
    at = 0
    while at < len(text):
        for pattern, is_header in ((_HEADER, True), (_KEY, False)):
            mark = pattern.match(text, at)
            if mark is None:
                continue
            group = 2 if is_header else 1
            start = mark.start(1)
            line, column = text.count("\n", 0, start) + 1, start - (text.rfind("\n", 0, start) + 1) + 1
            kind = "key" if not is_header else "array" if mark[1] == "[[" else "header"
            yield line, column, kind, mark[group]
            at = mark.end() if not is_header else text.find("]", mark.end() - 1) + 1
            break
        at = _next_line(text, at)


def _next_line(text: str, at: int) -> int:
    """The start of the line after the value that begins at `at`."""
    depth = 0
    while True:
        end = text.find("\n", at)
        mark = _SKIPPED.search(text, at)
        if mark is None or (depth == 0 and -1 < end < mark.start()):
            return len(text) if end < 0 else end + 1
        token = mark[0]
        at = mark.end()
        if token in ('"""', "'''"):
            close = re.compile(r'(?:[^"\\]|\\.|"(?!""))*"{3,5}' if token == '"""' else r"(?:[^']|'(?!''))*'{3,5}", re.S)
            closed = close.match(text, at)
            at = closed.end() if closed else len(text)
        elif token in "[{":
            depth += 1
        elif token in "]}":
            depth -= 1


def _parts(dotted: str) -> tuple[str, ...]:
    """`a."b c".d` as its parts."""
    parts: list[str] = []
    values: Any = tomllib.loads(f"{dotted} = 0")
    while isinstance(values, dict):
        key = next(iter(values))
        parts.append(key)
        values = values[key]
    return tuple(parts)
