"""Running text that is larger than memory: read as a stream of documents, never as a whole.

A corpus is a .txt file (lines; a blank line ends a document), or .jsonl, .parquet or a hub data set (each row a
document, in the column `text:` names or the first of `COLUMNS`), or a folder of such files with its sides by name.
Files are read as `reading` reads them, line by line. Where there is no dev side, documents are drawn for it by hash.

Only a taste of it becomes `Texts`: the lines that judge, and a few of train for what must be looked at beforehand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from bertshrink.errors import RequestError
from bertshrink.model.data_files import find_sides, suffix_of
from bertshrink.model.decoding import read_lines
from bertshrink.model.fixed_choice import salt
from bertshrink.model.hub_data import load_hub
from bertshrink.model.json_tables import json_rows
from bertshrink.model.parquet_table import parquet_rows
from bertshrink.model.source import local_path
from bertshrink.model.texts import NONE, DataSettings, Split, Texts, load

COLUMNS = ("text", "content", "document")
"""Where running text stands, in rows that have several columns."""
DEV_TEXTS = 2000
TASTE = 2000
_MIN_WORDS = 5
"""Shorter lines are headings more often than text."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Corpus:
    """One side of running text.

    Attributes:
        files: of one kind; empty for a hub data set.
        hub: the name of a hub data set.
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
            MissingPart: the hub has no such data set, or cannot be reached.
            RequestError: a file that cannot be read.
        """
        if self.hub is not None:
            yield from load_hub(self.hub, split="train", streaming=True)
            return
        for file in self.files:
            yield from _READERS[suffix_of(file)](file)

    @property
    def fingerprint(self) -> str:
        """The sha256 of the files' bytes and of what is drawn from them; of a hub data set its name."""
        drawn = f"{salt(self.split_seed)}{self.hub} {self.column} {self.dev_share} {self.is_dev} {self.max_documents}"
        digest = hashlib.sha256(drawn.encode())
        for file in self.files:
            with file.open("rb") as data:
                while chunk := data.read(_CHUNK):
                    digest.update(chunk)
        return digest.hexdigest()[:16]


def is_corpus(settings: DataSettings) -> bool:
    """Whether data is running text: .txt files, or rows with such a column (`COLUMNS`, or the one that is named) and no
    more asked for.
    """
    name = settings.path or settings.train
    if name is None or name.startswith("builtin:") or {settings.label, settings.pair} - {None, NONE}:
        return False
    return _side(settings, "train") is not None


def read_texts(settings: DataSettings, task: str) -> Texts:
    """The data as a task reads it: running text for masked tokens as a stream, all else whole; errors as there."""
    return load_corpus(settings) if task == "mlm" and is_corpus(settings) else load(settings, task)


def load_corpus(settings: DataSettings) -> Texts:
    """The texts that judge and a taste of train, with the corpus itself in `corpus`.

    Raises:
        RequestError: no text in it.
    """
    name = settings.path or settings.train or ""
    train = _side(settings, "train")
    dev = _side(settings, "dev")
    if train is None:
        raise RequestError(f"`{name}` has no train side", hint="name it train.txt")
    if train.column is None and settings.text not in (None, "text"):
        raise RequestError(
            f"`text` names a column, and the lines of `{name}` have none", where=name, hint="leave `text` out"
        )
    notes = []
    if dev is None:
        train = replace(train, dev_share=settings.dev_share, split_seed=settings.split_seed)
        dev = replace(train, is_dev=True)
        notes.append(f"no dev side was given: {100 * settings.dev_share:g} % of the documents, by hash, became it")
    train = replace(train, max_documents=settings.max_train)
    judged = _lines(dev, settings.max_dev or DEV_TEXTS)
    taste = _lines(train, TASTE)
    for side, lines in (("train", taste), ("dev", judged)):
        if not lines:
            raise RequestError(f"the {side} side of `{name}` holds no text", hint="give running text")
    notes.append(f"running text: judged by the first {len(judged)} lines of the dev side")
    return Texts(name, Split(taste), Split(judged), notes=tuple(notes), corpus=train)


def _side(settings: DataSettings, side: str) -> Corpus | None:
    """A side's files as a corpus; None where there are none or they hold something else."""
    own = getattr(settings, side)
    name = own or settings.path
    if name is None:
        return None
    path = local_path(name)
    if not path.exists() and not path.suffix and name.count("/") <= 2 and not name.startswith((".", "/", "~")):
        return _in_rows(Corpus((), hub=name), settings.text) if side == "train" else None
    if path.is_dir():
        found_there = find_sides(path).sides
        files = found_there.get(side) or found_there.get("whole" if side == "train" else "", [])
    else:
        files = [path] * (own is not None or side == "train")
    if not files or not all(file.is_file() and suffix_of(file) in _READERS for file in files):
        return None
    found = Corpus(tuple(files))
    return found if suffix_of(files[0]) == ".txt" else _in_rows(found, settings.text)


def _in_rows(corpus: Corpus, asked: str | None) -> Corpus | None:
    """The corpus with the column that its text stands in; None where none is known to."""
    first = next(corpus.rows(), {})
    column = next((name for name in ((asked,) if asked is not None else COLUMNS) if name in first), None)
    return replace(corpus, column=column) if column is not None and isinstance(first[column], str) else None


def _lines(corpus: Corpus, limit: int) -> tuple[str, ...]:
    """The first lines of some length; of any length where there are none."""
    for shortest in (_MIN_WORDS, 1):
        found = (line for lines in corpus.documents() for line in lines if len(line.split()) >= shortest)
        if chosen := tuple(dict.fromkeys(islice(found, limit))):
            return chosen
    return ()


def _share_of(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 0x1_0000_0000


def _rows_of_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines as rows; the end of a file ends a document."""
    for line in read_lines(path):
        yield {"text": line}
    yield {"text": ""}


_READERS = {".txt": _rows_of_lines, ".jsonl": json_rows, ".ndjson": json_rows, ".parquet": parquet_rows}
"""Kinds of files that running text may stand in."""
