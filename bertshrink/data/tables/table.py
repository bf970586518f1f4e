"""Tables as they are written, before anybody says what their columns are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bertshrink.errors import UserError


@dataclass(frozen=True)
class Table:
    """Rows of named cells.

    Attributes:
        name: the file (or the part of it, or the dataset) that it was read from, for messages.
        columns: header without spaces around it -> its cells, all columns of one length. Cells of a delimited file are
            strings as they are there; those of JSON and Parquet have the file's own types (str, int, float, bool,
            None, list, dict, and what Parquet has besides).
        label_names: header -> names of its numbers, where the data knows them (a hub dataset's ClassLabel).
        how: what the reader decided and a user should know, `semicolon-separated, cp1252`; empty where nothing was.
        lines: the line on which each row begins, where the file has lines; empty where rows are only counted.
        parts: (file, number of rows) of each file, where several became one table.
    """

    name: str
    columns: Mapping[str, Sequence[Any]]
    label_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    how: str = ""
    lines: Sequence[int] = ()
    parts: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def where(self, row: int) -> str:
        """Where the row with this number (from 0) is: `train.csv:17`, or `train.parquet, row 17`."""
        name, own = self.name, row
        for file, num_rows in self.parts:
            if own < num_rows:
                name = file
                break
            own -= num_rows
        return f"{name}:{self.lines[row]}" if self.lines else f"{name}, row {own + 1}"

    def bare(self) -> Table:
        """The table without its cells: what it is called and where its rows are."""
        return replace(self, columns={})

    @classmethod
    def of_dataset(cls, rows: Any, name: str) -> Table:
        """A `datasets.Dataset` as a table."""
        names = {column: _class_names(feature) for column, feature in rows.features.items()}
        return cls(name, {c: list(rows[c]) for c in rows.column_names}, {c: n for c, n in names.items() if n})


def _class_names(feature: Any) -> tuple[str, ...]:
    """What the data calls its numbered labels (ClassLabel, also of a list)."""
    return tuple(getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None) or ())


def as_header(cells: Sequence[Any], where: str) -> tuple[str, ...]:
    """The names of columns without spaces around them; one without a name gets its number.

    Raises:
        UserError: two columns have the same name.
    """
    names = [str(cell).strip("\ufeff \t\r\n\xa0") or f"column {i}" for i, cell in enumerate(cells, start=1)]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise UserError(
                f"`{where}` has two columns with the name `{name}`",
                where=where,
                hint="give each a name of its own (spaces around names do not distinguish them)",
            )
    return tuple(names)


def take_apart(table: Table) -> Table:
    """The table with objects in its cells as columns of their own, `a.b`, one level deep.

    The answers of questions (`text` beside `answer_start`) stay whole; so does a column in which not every cell that is
    there is an object.

    Raises:
        UserError: such a column has the name of another one.
    """
    columns: dict[str, Sequence[Any]] = {}
    for name, cells in table.columns.items():
        there = [cell for cell in cells if cell is not None]
        keys = dict.fromkeys(key for cell in there if isinstance(cell, dict) for key in cell)
        if not keys or not all(isinstance(cell, dict) for cell in there) or {"text", "answer_start"} <= set(keys):
            parts: dict[str, Sequence[Any]] = {name: cells}
        else:
            parts = {f"{name}.{key}": [cell.get(key) if cell else None for cell in cells] for key in keys}
        for key, values in parts.items():
            if key in columns:
                what = f"`{table.name}` has two columns with the name `{key}`"
                raise UserError(what, where=table.name, hint="give each a name of its own")
            columns[key] = values
    return replace(table, columns=columns)


def joined(tables: Sequence[Table], name: str) -> Table:
    """Tables of several files as one.

    Raises:
        UserError: their columns, or the names of their labels, are not the same.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    for other in tables[1:]:
        if set(other.columns) != set(first.columns) or other.label_names != first.label_names:
            mine, theirs = (", ".join(f"`{c}`" for c in table.columns) for table in (first, other))
            raise UserError(
                f"the parts `{first.name}` and `{other.name}` do not have the same columns: {mine}; {theirs}",
                where=other.name,
                hint="write them with the same header, or name one file",
            )
    columns = {column: [cell for table in tables for cell in table.columns[column]] for column in first.columns}
    how = ", ".join(dict.fromkeys(table.how for table in tables if table.how))
    lines = [line for table in tables for line in table.lines] if all(table.lines for table in tables) else ()
    return Table(name, columns, first.label_names, how, lines, tuple((table.name, len(table)) for table in tables))
