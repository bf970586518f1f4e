"""Running text that is larger than memory: read as a stream of documents, never as a whole.

A corpus is a .txt file (lines; a blank line ends a document), or .jsonl, .parquet or a hub dataset (each row a
document, in the column `text:` names or the first of `COLUMNS`), or a folder of such files with its sides by name.
Files are read as `readers` reads them, line by line. Where there is no dev split, documents are drawn for it by hash.

Only a taste of it becomes `TextDataset`: the lines that judge, and a few of train for what must be looked at
beforehand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bertshrink.data.hash_sampling import salt
from bertshrink.data.hub_datasets import load_hub
from bertshrink.data.split_files import suffix_of
from bertshrink.data.tables.decoding import read_lines
from bertshrink.data.tables.json_tables import json_rows
from bertshrink.data.tables.parquet import parquet_rows

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """One side of running text.

    Attributes:
        files: of one kind; empty for a hub dataset.
        hub: the name of a hub dataset.
        column: of rows that are documents; None: the lines of .txt files.
        dev_share: where dev is drawn from the same files: documents that are dev's; 0: none.
        split_seed: which documents those are.
        is_dev: which part of those this is.
        max_documents: at most so many.
    """

    files: tuple[Path, ...]
    hub: str | None = None
    column: str | None = None
    dev_share: float = 0.0
    is_dev: bool = False
    split_seed: int = 0
    max_documents: int | None = None

    def documents(self) -> Iterator[list[str]]:
        """Each document as its lines that hold text."""
        return islice(self._drawn(), self.max_documents)

    def _drawn(self) -> Iterator[list[str]]:
        for lines in self._all():
            if not self.dev_share or self._is_devs(lines) == self.is_dev:
                yield lines

    def _is_devs(self, lines: list[str]) -> bool:
        return _share_of(salt(self.split_seed) + "\n".join(lines)) < self.dev_share

    def _all(self) -> Iterator[list[str]]:
        lines: list[str] = []
        for row in self.rows():
            text = str(row[self.column or "text"] or "")
            if self.column is not None:
                lines = [line.strip() for line in text.splitlines() if line.strip()]
            elif text.strip():
                lines.append(text.strip())
                continue
            if lines:
                yield lines
            lines = []
        if lines:
            yield lines

    def rows(self) -> Iterator[dict[str, Any]]:
        """What the files hold, row by row.

        Raises:
            MissingDependency: the hub has no such dataset, or cannot be reached.
            UserError: a file that cannot be read.
        """
        if self.hub is not None:
            yield from load_hub(self.hub, split="train", streaming=True)
            return
        for file in self.files:
            yield from READERS[suffix_of(file)](file)

    @property
    def fingerprint(self) -> str:
        """The sha256 of the files' bytes and of what is drawn from them; of a hub dataset its name."""
        drawn = f"{salt(self.split_seed)}{self.hub} {self.column} {self.dev_share} {self.is_dev} {self.max_documents}"
        digest = hashlib.sha256(drawn.encode())
        for file in self.files:
            with file.open("rb") as data:
                while chunk := data.read(_CHUNK):
                    digest.update(chunk)
        return digest.hexdigest()[:16]


def _share_of(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 0x1_0000_0000


def _rows_of_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines as rows; the end of a file ends a document."""
    for line in read_lines(path):
        yield {"text": line}
    yield {"text": ""}


READERS = {".txt": _rows_of_lines, ".jsonl": json_rows, ".ndjson": json_rows, ".parquet": parquet_rows}
"""Kinds of files that running text may be in."""
