"""Parquet as a table, with the file's own types.

What the file says besides is kept: names of numbered classes, as `datasets` writes them into its metadata. An index
that pandas wrote along is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bertshrink.data.tables.decoding import PARQUET, check_plain
from bertshrink.data.tables.table import Table, as_header, take_apart
from bertshrink.errors import UserError

_INDEX = "__index_level_"


def read_parquet(path: Path) -> Table:
    """All of a Parquet file. Raises UserError: it is none, is damaged, or two columns have one name."""
    with _Opened(path) as file:
        schema = file.schema_arrow
        header = as_header(schema.names, str(path))
        arrow_table = file.read()
        columns = {name: column.to_pylist() for name, column in zip(header, arrow_table.columns, strict=True)}
        names = _class_names(schema.metadata or {})
    kept = {name: cells for name, cells in columns.items() if not name.startswith(_INDEX)}
    how = "" if len(kept) == len(columns) else "without pandas' index"
    label_names = {name: names[name] for name in kept if name in names}
    if not kept:
        raise UserError(f"`{path}` has no columns", where=str(path), hint="give a file with at least one text")
    return take_apart(Table(str(path), kept, label_names, how))


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """A Parquet file of any size row by row; errors as in `read_parquet`."""
    with _Opened(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()


class _Opened:
    """A Parquet file that is open, with what goes wrong in it as errors of ours."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Any:
        from pyarrow import parquet

        check_plain(self.path)
        with self.path.open("rb") as file:
            if file.read(4) != PARQUET:
                raise self._error("it does not begin as Parquet does")
        try:
            self.file = parquet.ParquetFile(self.path)
        except Exception as error:  # pyarrow's errors are of many kinds: OSError, ValueError, its own
            raise self._error(str(error)) from None
        return self.file

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.file.close()
        if isinstance(error, Exception) and not isinstance(error, UserError):
            raise self._error(str(error)) from None

    def _error(self, reason: str) -> UserError:
        return UserError(
            f"`{self.path}` cannot be read as parquet: {(reason or 'damaged').splitlines()[0]}",
            where=str(self.path),
            hint="fetch or make the file again, or give one of the kind that its name says",
        )


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Column -> names of its numbered classes (ClassLabel, also of a list), from what `datasets` left in the file."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = {}
        for column, feature in features.items():
            inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
            if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and isinstance(inner.get("names"), list):
                names[column.strip()] = tuple(map(str, inner["names"]))
        return names
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
