"""Tables as they are written, before anybody says what their columns are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows of named cells.

    Attributes:
        name: the file (or the part of it, or the data set) that it was read from, for messages.
        columns: header without blanks around it -> its cells, all columns of one length. Cells of a delimited file are
            strings as they stand there; those of JSON and Parquet have the file's own types (str, int, float, bool,
            None, list, dict, and what Parquet has besides).
        label_names: header -> names of its numbers, where the data knows them (a hub data set's ClassLabel).
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
        """Where the row with this number (from 0) stands: `train.csv:17`, or `train.parquet, row 17`."""
        name, own = self.name, row
        for file, num_rows in self.parts:
            if own < num_rows:
                name = file
                break
            own -= num_rows
        return f"{name}:{self.lines[row]}" if self.lines else f"{name}, row {own + 1}"

    def bare(self) -> Table:
        """The table without its cells: what it is called and where its rows stand."""
        return replace(self, columns={})

    @classmethod
    def of_dataset(cls, rows: Any, name: str) -> Table:
        """A `datasets.Dataset` as a table."""
        names = {column: _class_names(feature) for column, feature in rows.features.items()}
        return cls(name, {c: list(rows[c]) for c in rows.column_names}, {c: n for c, n in names.items() if n})


def _class_names(feature: Any) -> tuple[str, ...]:
    """What the data calls its numbered labels (ClassLabel, also of a list)."""
    return tuple(getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None) or ())
