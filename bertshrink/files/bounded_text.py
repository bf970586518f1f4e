"""JSON, TOML and other text that somebody else wrote: read within bounds, or refused with what, where and how to fix.

    a plain file        no pipe, device or folder, whatever name or link leads to it; nothing is waited for
    its size            no more than `most_bytes` are read, of text with no more than `_MOST_VALUES` values
    UTF-8               with or without a byte order mark, lines ended by LF or CRLF; no half of a surrogate pair
    nesting             no deeper than `most_depth`
    numbers             finite (`1e400` is not), integers of no more than `_MOST_DIGITS` digits
    keys                each once in its object
    NUL                 in no text, except where it may be one of a vocabulary's tokens

Who reads says once, as a `Reader`, what its texts are called and which error they end in, whose exit code is then the
command's. Standard library only; YAML, which needs a library, is read in `config.located_yaml` by the same rules.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Never

from bertshrink.errors import BertshrinkError

_MOST_VALUES = 8_000_000
"""A vocabulary of 250,000 scored pieces has a million; eight million take about a gigabyte as Python's objects."""
_MOST_DIGITS = 40
"""tokenizer_config.json says 10^30 where a model takes any length; beyond 308 digits no float can hold one."""
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_DOTTED = re.compile(
    r"[A-Za-z0-9_-]+(?:[ \t]*\.[ \t]*(?:[A-Za-z0-9_-]+|\"[^\"\n]*\"|'[^'\n]*')){64}"  # tomllib takes n^2 for n parts
)


@dataclass(frozen=True)
class Reader:
    """How one kind of text is read, and what is said when it is refused.

    Attributes:
        error: the kind of error, by whose exit code a command then ends.
        fault: what begins each message: `the lock is damaged`.
        hint: how to fix it.
        most_bytes: longer texts are refused.
        most_depth: lists and tables inside each other.
        may_have_nul: whether texts may hold the character NUL, which no path can.
    """

    error: type[BertshrinkError]
    fault: str
    hint: str
    most_bytes: int = 64_000_000
    most_depth: int = 64
    may_have_nul: bool = False

    def read_bytes(self, path: Path) -> bytes:
        """A plain file's bytes.

        Raises:
            BertshrinkError: of the reader's kind: it is missing, unreadable, no plain file, or too long.
        """
        try:
            with open_regular(path) as file:
                content = file.read(self.most_bytes + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise self._refusal(getattr(error, "strerror", None) or str(error), str(path)) from None
        if len(content) > self.most_bytes:
            raise self._refusal(f"it is longer than {self.most_bytes} bytes", str(path))
        return content

    def read_text(self, path: Path) -> str:
        """A plain file's text, lines ended by LF. Raises BertshrinkError: as `read_bytes`; or it is not UTF-8."""
        return self.decode(self.read_bytes(path), str(path))

    def decode(self, data: bytes, where: str) -> str:
        """Bytes as text, as `read_text`."""
        try:
            return data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise self._refusal(f"it is not UTF-8 (byte {error.start})", where) from None

    def read_json(self, path: Path) -> Any:
        """The value of a JSON file. Raises BertshrinkError: as `read_text` and `json`."""
        return self.json(self.read_text(path), str(path))

    def json(self, text: str | bytes, where: str) -> Any:
        """The value of a JSON text.

        Raises:
            BertshrinkError: of the reader's kind: it is not JSON, or beyond the bounds of this file's opening.
        """
        if isinstance(text, bytes):
            text = self.decode(text, where)
        text = text.removeprefix("\ufeff")
        if sum(text.count(mark) for mark in ",[{") > _MOST_VALUES:
            raise self._refusal(f"it has more than {_MOST_VALUES} values", where)
        try:
            value = json.loads(
                text, parse_constant=_no_number, parse_float=_finite, parse_int=_integer, object_pairs_hook=_once
            )
        except json.JSONDecodeError as error:
            raise self._refusal(
                f"{error.msg[:1].lower()}{error.msg[1:]}", place_of(where, error.lineno, error.colno)
            ) from None
        except RecursionError:
            raise self._too_deep(where) from None
        except ValueError as error:
            raise self._refusal(str(error), where) from None
        self._check(value, where, has_numbers=False, has_halves=_HALF.search(text) is not None)
        return value

    def toml(self, text: str, where: str, table: tuple[str, ...] = ()) -> dict[str, Any]:
        """The values of a TOML text.

        Args:
            table: the only one whose values must be within the bounds; the others are somebody else's.

        Raises:
            BertshrinkError: of the reader's kind: it is not TOML, or beyond the bounds of this file's opening.
        """
        deep = _DOTTED.search(text)
        if deep is not None:
            raise self._too_deep(place_of(where, *_line_of(text, deep.start())))
        try:
            document = tomllib.loads(text)
        except RecursionError:
            raise self._too_deep(where) from None
        except ValueError as error:  # TOMLDecodeError, and what `int` says of 5,000 digits
            what, _, place = str(error).partition(" (at line ")
            line, _, column = place.rstrip(")").partition(", column ")
            if isinstance(error, tomllib.TOMLDecodeError):
                what = f"this is not TOML: {what[:1].lower()}{what[1:]}"
            else:
                what = f"an integer has more than {_MOST_DIGITS} digits"
            is_known = line.isdigit() and column.isdigit()
            raise self._refusal(what, place_of(where, int(line), int(column)) if is_known else where) from None
        values: Any = document
        for name in table:
            values = values.get(name) if isinstance(values, dict) else None
        self._check(values, where, path=table)
        return document

    def _check(
        self, value: Any, where: str, path: tuple[str, ...] = (), *, has_numbers: bool = True, has_halves: bool = False
    ) -> None:
        """Refuse values beyond the bounds, which the parser let pass; without recursion."""
        waiting: list[tuple[Any, tuple[str | int, ...]]] = [(value, path)]
        while waiting:
            current, at_path = waiting.pop()
            if isinstance(current, dict | list):
                if len(at_path) >= self.most_depth:
                    raise self._too_deep(where)
                items: Iterator[tuple[Any, Any]] = iter(
                    current.items() if isinstance(current, dict) else enumerate(current)
                )
                for key, inner in items:
                    if isinstance(key, str):
                        self._check_text(key, where, at_path, has_halves)
                    if isinstance(inner, str):
                        self._check_text(inner, where, (*at_path, key), has_halves)
                    elif isinstance(inner, dict | list) or has_numbers:
                        waiting.append((inner, (*at_path, key)))
            elif isinstance(current, str):
                self._check_text(current, where, at_path, has_halves)
            elif has_numbers and (fault := number_fault(current)):
                raise self._refusal(f"`{_dotted(at_path)}`: {fault}", where)

    def _check_text(self, text: str, where: str, path: tuple[str | int, ...], has_halves: bool) -> None:
        if has_halves and not _is_whole(text):
            raise self._refusal(f"`{_dotted(path)}` holds one half of a surrogate pair (`\\ud83d` alone)", where)
        if not self.may_have_nul and "\0" in text:
            raise self._refusal(f"`{_dotted(path)}` holds the character NUL", where)

    def _too_deep(self, where: str) -> BertshrinkError:
        return self._refusal(f"it is nested more than {self.most_depth} deep", where)

    def _refusal(self, what: str, where: str) -> BertshrinkError:
        return self.error(f"{self.fault}: {what}", where=where, hint=self.hint)


def open_regular(path: Path) -> BinaryIO:
    """Open a plain file for reading; what is none is refused before anything of it is read or waited for.

    Raises:
        OSError: it is missing, not readable, or a folder, pipe, device or socket.
        ValueError: the path holds a NUL.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file (a pipe or a device)"
        raise OSError(errno.EINVAL, f"it is {kind}", str(path))
    return os.fdopen(handle, "rb")


def number_fault(value: Any) -> str | None:
    """What is wrong with a number: not finite, or an integer without end; None where nothing is, or it is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"`{value}` is not a number"
    if isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
        return f"an integer has more than {_MOST_DIGITS} digits"
    return None


def place_of(where: str, line: int, column: int) -> str:
    """A place in a text, as errors show it."""
    return f"{where}:{line}:{column}"


def _line_of(text: str, offset: int) -> tuple[int, int]:
    """Line and column of a character, counted from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _dotted(path: tuple[str | int, ...]) -> str:
    text = ".".join(str(part) for part in path[:8]) or "."
    return text.encode("utf-8", "backslashreplace").decode()[:100].replace("\0", "\\0")


def _is_whole(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _no_number(text: str) -> Never:
    raise ValueError(f"`{text}` is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"`{text[:40]}` is too large for a number")
    return number


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS + 1:
        raise ValueError(f"an integer has more than {_MOST_DIGITS} digits")
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys appear once each."""
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"`{_dotted((twice,))}` appears twice")
    return members
