"""Running text that is larger than memory: read as a stream of documents, never as a whole.

A corpus is a .txt file (lines; a blank line ends a document), or .jsonl, .parquet or a hub data set (each row a
document), or a folder of such files with its sides by name. Reading goes through `datasets` in streaming mode. Where
there is no dev side, documents are drawn for it by their hash.

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
from bertshrink.model.reading import find_files
from bertshrink.model.source import local_path
from bertshrink.model.texts import DataSettings, Split, Texts, load

KINDS = {".txt": "text", ".jsonl": "json", ".parquet": "parquet"}
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
        column: of rows that are documents.
        dev_share: where dev is drawn from the same files: documents that are dev's; 0: none.
        is_dev: which part of those this is.
        max_documents: at most so many.
    """

    files: tuple[Path, ...]
    hub: str | None = None
    column: str | None = None
    dev_share: float = 0.0
    is_dev: bool = False
    max_documents: int | None = None

    def documents(self) -> Iterator[list[str]]:
        """Each document as its lines that hold text."""
        return islice(self._drawn(), self.max_documents)

    def _drawn(self) -> Iterator[list[str]]:
        for lines in self._all():
            if not self.dev_share or (_share_of("\n".join(lines)) < self.dev_share) == self.is_dev:
                yield lines

    def _all(self) -> Iterator[list[str]]:
        import datasets

        datasets.disable_progress_bars()
        if self.hub is not None:
            rows: Any = _open_hub(self.hub, "train")
        else:
            kind = KINDS[self.files[0].suffix.lower()]
            files = [str(file) for file in self.files]
            rows = datasets.load_dataset(kind, data_files=files, split="train", streaming=True)
        lines: list[str] = []
        is_lines = self.hub is None and self.files[0].suffix.lower() == ".txt"
        for row in rows:
            text = str(row[self.column or next(iter(row))] or "")
            if not is_lines:
                lines = [line.strip() for line in text.splitlines() if line.strip()]
            elif text.strip():
                lines.append(text.strip())
                continue
            if lines:
                yield lines
            lines = []
        if lines:
            yield lines

    @property
    def fingerprint(self) -> str:
        """The sha256 of the files' bytes and of what is drawn from them; of a hub data set its name."""
        digest = hashlib.sha256(
            f"{self.hub} {self.column} {self.dev_share} {self.is_dev} {self.max_documents}".encode()
        )
        for file in self.files:
            with file.open("rb") as data:
                while chunk := data.read(_CHUNK):
                    digest.update(chunk)
        return digest.hexdigest()[:16]


def is_corpus(settings: DataSettings) -> bool:
    """Whether data is running text without columns to be told: .txt files."""
    name = settings.path or settings.train
    if name is None or name.startswith("builtin:") or settings.label is not None:
        return False
    path = local_path(name)
    files = find_files(path, "train") if path.is_dir() else [path] if path.is_file() else []
    return bool(files) and all(file.suffix.lower() == ".txt" for file in files)


def read_texts(settings: DataSettings, task: str) -> Texts:
    """The data as a task reads it: running text for masked tokens as a stream, all else whole; errors as there."""
    return load_corpus(settings) if task == "mlm" and is_corpus(settings) else load(settings)


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
    notes = []
    if dev is None:
        train = replace(train, dev_share=settings.dev_share)
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
    own = getattr(settings, side)
    name = own or settings.path
    if name is None:
        return None
    path = local_path(name)
    if path.is_dir():
        files = find_files(path, side)
    else:
        files = [path] if path.is_file() and (own is not None or side == "train") else []
    return Corpus(tuple(files), column=settings.text) if files else None


def _lines(corpus: Corpus, limit: int) -> tuple[str, ...]:
    found = (line for lines in corpus.documents() for line in lines if len(line.split()) >= _MIN_WORDS)
    return tuple(dict.fromkeys(islice(found, limit)))


def _share_of(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 0x1_0000_0000


def _open_hub(name: str, side: str) -> Any:
    import datasets

    repo, _, config = name.rpartition("/")
    try:
        return datasets.load_dataset(name, split=side, streaming=True)
    except ValueError:
        return datasets.load_dataset(repo, config, split=side, streaming=True)
