"""JSON and JSON lines as tables, whatever the file's name says: rows, columns, or either under a key.

    [{"text": ..., "label": ...}, ...]             rows; also one object per line
    [[text, label], ...]                           rows without names: (text, label), or (sentence1, sentence2, label)
    ["text", ...]                                  texts
    {"text": [...], "label": [...]}                columns (datasets' to_dict, pandas' orient="list")
    {"text": {"0": ...}}, {"0": {"text": ...}}     pandas' orient="columns" and "index"; also its "split" and "table"
    {"version": 1, "data": [{...}, ...]}           rows under a key, where one key alone holds such a list
    {"train": ..., "dev": ...}                     sides by name, each one of these

An object in a row is taken apart once: `{"title": {"en": ...}}` becomes the column `title.en`; answers of questions
stay whole. What JSON does not know (NaN, Infinity), half surrogates, keys that appear twice in an object, and nesting
beyond any table's are refused with their row.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bertshrink.data.tables.decoding import read_lines, read_text
from bertshrink.data.tables.table import Table, as_header, take_apart
from bertshrink.errors import UserError

_MAX_DEPTH = 16
"""Of lists and objects within a cell. SQuAD's articles have 4."""
_SPLIT = {"columns", "index", "data"}


@dataclass(frozen=True)
class Document:
    """A file of JSON.

    Attributes:
        value: what is in it; of JSON lines the list of all.
        lines: of JSON lines, the line of each.
        how: its encoding, where a user should know.
        has_halves: whether it may hold half surrogates.
        is_one_line: whether the value is an object on one line.
    """

    value: Any
    lines: Sequence[int] = ()
    how: str = ""
    has_halves: bool = False
    is_one_line: bool = False


def read_json(path: Path, *, by_lines: bool) -> Document:
    """A file of JSON or JSON lines; `by_lines`: a single line is a row, not the whole.

    Raises:
        UserError: it is neither, or an object has a key twice; the line is named.
    """
    text, how = read_text(path)
    halves = re.search(r"\\u[dD][89a-fA-F]", text) is not None
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    start = len(text) - len(text.lstrip(" \t\r\n"))
    kind = "jsonl" if by_lines else "json"
    try:
        try:
            value, end = decoder.raw_decode(text, start)
            rest = text[end:].lstrip(" \t\r")
        except json.JSONDecodeError as error:
            if not by_lines or text.find("\n", start) in (-1, len(text) - 1):
                raise _torn(path, kind, error.lineno, error.msg) from None
            value, end, rest = None, start, "\n"
        is_line = "\n" not in text[start:end]
        if not rest.strip() and not (by_lines and is_line and _is_row(value)):
            return Document(value, how=how, has_halves=halves, is_one_line=is_line and isinstance(value, dict))
    except _TwiceError as error:
        line = _line_of_twice(text, decoder) if by_lines else None
        raise _doubled(path, error, line) from None
    except (RecursionError, ValueError) as error:
        raise _torn(path, kind, 1, _words(error)) from None
    if not is_line or (rest and not rest.startswith("\n")):
        line = text.count("\n", 0, end) + 1
        raise _torn(path, kind, line, "there is more text after its end")
    values, lines = [], array("q")
    for number, row in enumerate(text.split("\n"), start=1):
        if not row or row.isspace():
            continue
        try:
            values.append(decoder.decode(row))
        except _TwiceError as error:
            raise _doubled(path, error, number) from None
        except json.JSONDecodeError as error:
            raise _torn(path, "jsonl", number, error.msg) from None
        except (RecursionError, ValueError) as error:
            raise _torn(path, "jsonl", number, _words(error)) from None
        lines.append(number)
    return Document(values, lines, how, halves)


def json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """JSON lines of any size, one object per line; errors as in `read_json`."""
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except _TwiceError as error:
            raise _doubled(path, error, number) from None
        except (RecursionError, ValueError) as error:
            raise _torn(path, "jsonl", number, _words(error)) from None
        if not isinstance(row, dict):
            raise _torn(path, "jsonl", number, f"{_kind(row)} where an object should be")
        if fault := _fault(row, has_halves="\\u" in line):
            raise _torn(path, "jsonl", number, f"it {fault}")
        yield row


class _TwiceError(ValueError):
    """A key that appears twice in one object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(next(key for i, key in enumerate(keys) if key in keys[:i]))
    return members


def _line_of_twice(text: str, decoder: json.JSONDecoder) -> int | None:
    """The first line whose object has a key twice."""
    for number, row in enumerate(text.split("\n"), start=1):
        try:
            decoder.decode(row)
        except _TwiceError:
            return number
        except (ValueError, RecursionError):
            continue
    return None


def _doubled(path: Path, error: _TwiceError, line: int | None) -> UserError:
    where = str(path) if line is None else f"{path}:{line}"
    what = f"an object of `{path}` has the key `{error}` twice"
    return UserError(what, where=where, hint="it is unclear which one applies: fix the file")


def _words(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]


def _torn(path: Path, kind: str, line: int, reason: str) -> UserError:
    return UserError(
        f"`{path}` cannot be read as {kind}: line {line}: {reason}",
        where=f"{path}:{line}",
        hint="fix the file, or give one of the kind that its name says",
    )


def _is_row(value: Any) -> bool:
    """Whether one line of JSON lines can be a row of its own."""
    return isinstance(value, dict) or (isinstance(value, list) and not _are_objects(value))


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def is_squad(document: Document) -> bool:
    """Whether it is SQuAD's nesting: articles under `data`."""
    data = document.value.get("data") if isinstance(document.value, dict) else None
    articles = [row for row in data if isinstance(row, dict)] if isinstance(data, list) else []
    return any("paragraphs" in row for row in articles) or (
        bool(articles) and all(set(row) <= {"title", "paragraphs"} for row in articles)
    )


def table_of(document: Document, where: str, names: tuple[str, ...] | None = None) -> Table:
    """A document as a table (see this file's opening).

    Args:
        names: of the columns, where rows are lists.

    Raises:
        UserError: neither rows nor columns, or something in them that no table has.
    """
    value, how = document.value, [document.how] if document.how else []
    if isinstance(value, dict):
        if document.is_one_line and value and not any(isinstance(cell, list | dict) for cell in value.values()):
            value = [value]
        else:
            value, told = _unwrapped(value, where)
            how.append(told)
    columns = _columns(value, where, names, document.lines) if isinstance(value, list) else value
    if not isinstance(columns, dict):
        raise UserError(
            f"`{where}` cannot be read as json: it is neither rows nor columns",
            where=where,
            hint='write a list of rows, such as [{"text": "...", "label": "..."}]',
        )
    header = as_header(list(columns), where)
    table = Table(where, dict(zip(header, columns.values(), strict=True)), how=", ".join(how), lines=document.lines)
    _check_cells(table, document.has_halves)
    return take_apart(table)


def _unwrapped(members: dict[str, Any], where: str) -> tuple[Any, str]:
    """(rows or columns, how they were in the object)."""
    if set(members) <= _SPLIT and {"columns", "data"} <= set(members) and isinstance(members["columns"], list):
        rows, header = members["data"], as_header(members["columns"], where)
        if not isinstance(rows, list) or any(not isinstance(row, list) or len(row) != len(header) for row in rows):
            what = f"the rows of `{where}` do not all have the {len(header)} cells that its `columns` name"
            raise UserError(what, where=where, hint="fix the file")
        return {name: [row[i] for row in rows] for i, name in enumerate(header)}, "columns and rows apart"
    wrapped = [key for key, value in members.items() if _are_objects(value)]
    if len(wrapped) == 1:
        return members[wrapped[0]], f"rows of `{wrapped[0]}`"
    values = list(members.values())
    if not wrapped and values and all(isinstance(value, list) for value in values):
        if len(values) == 1 and _are_lists(values[0]) and next(iter(members)) not in ("tokens", "words"):
            return values[0], f"rows of `{next(iter(members))}`"
        lengths = {key: len(value) for key, value in members.items()}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"`{key}` {length}" for key, length in lengths.items())
            what = f"the columns of `{where}` have different lengths: {shown}"
            raise UserError(what, where=where, hint="fix the file")
        return members, "column by column"
    if values and all(isinstance(value, dict) and value for value in values):
        return _by_index(members, where)
    if len(wrapped) > 1:
        what = f"`{where}` has rows under several keys: {', '.join(f'`{key}`' for key in wrapped)}"
        raise UserError(what, where=where, hint="name them train, dev and test, or write them into files of their own")
    keys = ", ".join(f"`{key}`" for key in list(members)[:12])
    raise UserError(
        f"`{where}` holds one object that is neither rows nor columns; its keys: {keys}",
        where=where,
        hint='write a list of rows, such as [{"text": "...", "label": "..."}], alone or under one key',
    )


def _are_lists(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, list) and len(row) in (2, 3) and isinstance(row[0], str) for row in value)
    )


def _by_index(members: dict[str, Any], where: str) -> tuple[Any, str]:
    """Orients of pandas: "columns" (header -> row number -> cell) or "index" (row number -> header -> cell)."""
    inner = list(next(iter(members.values())))
    is_number = re.compile(r"-?\d+").fullmatch
    if all(map(is_number, inner)) and not any(map(is_number, members)):
        if any(list(value) != inner for value in members.values()):
            what = f"the columns of `{where}` have different rows"
            raise UserError(what, where=where, hint="fix the file")
        return {key: list(value.values()) for key, value in members.items()}, "column by column"
    if all(map(is_number, members)) and not any(map(is_number, inner)):
        return list(members.values()), "rows by number"
    keys = ", ".join(f"`{key}`" for key in list(members)[:12])
    raise UserError(
        f"`{where}` holds objects by key, and it is unclear whether they are rows or columns; its keys: {keys}",
        where=where,
        hint='write a list of rows, such as [{"text": "...", "label": "..."}]',
    )


def _columns(rows: list[Any], where: str, names: tuple[str, ...] | None, lines: Sequence[int]) -> dict[str, list[Any]]:
    """Rows as columns; a key that a row has not is null there."""
    if not rows:
        raise UserError(f"`{where}` holds no rows", where=where, hint="give a file with at least one text")
    kind = type(rows[0])
    for number, row in enumerate(rows):
        if type(row) is not kind or (kind is list and len(row) != len(rows[0])):
            raise _bad_row(number, where, lines, _kind(rows[0]), _kind(row))
    if kind is dict:
        if names is not None:
            what = f"the rows of `{where}` name their columns themselves"
            raise UserError(what, where=where, hint="leave `columns` out")
        keys = dict.fromkeys(chain.from_iterable(rows))
        return {key: [row.get(key) for row in rows] for key in keys}
    if kind is str:
        return {names[0] if names is not None and len(names) == 1 else "text": rows}
    if kind is list:
        header = names or {1: ("text",), 2: ("text", "label"), 3: ("sentence1", "sentence2", "label")}.get(len(rows[0]))
        if header is not None and len(header) == len(rows[0]):
            return {name: [row[i] for row in rows] for i, name in enumerate(header)}
    raise UserError(
        f"the rows of `{where}` are neither objects nor [text, label]: the first is {_kind(rows[0])}",
        where=where,
        hint="fix the file, or name the columns of lists: --columns text,label",
    )


def _kind(row: Any) -> str:
    if isinstance(row, list):
        return f"a list of {len(row)}"
    return {dict: "an object", str: "a string", type(None): "null"}.get(type(row), "a number")


def _bad_row(number: int, where: str, lines: Sequence[int], first: str, other: str) -> UserError:
    place = f"{where}:{lines[number]}" if lines else f"{where}, row {number + 1}"
    what = f"the rows of `{where}` are not alike: the first is {first}, row {number + 1} is {other}"
    return UserError(what, where=place, hint="fix the row")


def _check_cells(table: Table, has_halves: bool) -> None:
    """Prove that cells hold what JSON and text can.

    Raises:
        UserError: NaN or Infinity, half a surrogate, or nesting beyond `_MAX_DEPTH`; with its row.
    """
    for name, cells in table.columns.items():
        for row, cell in enumerate(cells):
            kind = type(cell)
            if kind is float or kind is list or kind is dict or (has_halves and kind is str):
                fault = _fault(cell, has_halves)
                if fault is not None:
                    hint = "write null for what is missing" if "NaN" in fault else "fix the row"
                    raise UserError(f"the column `{name}` {fault}", where=table.where(row), hint=hint)
        if has_halves and _fault(name, True):
            raise UserError("a key contains half of a surrogate pair", where=table.name, hint="fix the file")


def _fault(cell: Any, has_halves: bool, depth: int = 0) -> str | None:
    if isinstance(cell, float) and not math.isfinite(cell):
        return "contains NaN or Infinity, which JSON does not allow"
    if isinstance(cell, str) and has_halves and any("\ud800" <= c <= "\udfff" for c in cell):
        return "contains half of a surrogate pair"
    if isinstance(cell, list | dict):
        if depth == _MAX_DEPTH:
            return f"is nested deeper than {_MAX_DEPTH} levels"
        inner = chain(cell.keys(), cell.values()) if isinstance(cell, Mapping) else cell
        return next((fault for part in inner if (fault := _fault(part, has_halves, depth + 1))), None)
    return None
