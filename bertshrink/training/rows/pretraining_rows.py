"""Running text as rows of full length, for pre-training and its distillation.

A corpus is streamed once through the tokenizer into a folder of three files, which are read memory-mapped from then on:

    tokens.bin      every token id, 2 bytes each (4 where the vocabulary has more than 65,536)
    sentences.bin   where each sentence begins in it, and its end (int64)
    documents.bin   which sentence each document begins with, and the number of sentences (int64)

so that the text is never in memory as a whole, rows can be shuffled, and any row can be made again: a run that goes on
after a stop, or on two processes, sees the same rows. Rows are made from it in one of three ways:

    full-sentences   sentences one after the other, across documents, a separator between documents (arXiv:1907.11692,
                     4.2; DistilBERT's code packs its texts likewise)
    next-sentence    two segments of one document, or half of the time a second one that begins with a random sentence
                     of another document (arXiv:1810.04805) and is as long, unless that document is shorter: length
                     is not to give the answer away
    sentence-order   two consecutive segments, swapped half of the time (arXiv:1909.11942, 3.1)
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bertshrink.errors import UserError
from bertshrink.files.atomic import MANIFEST, new_folder
from bertshrink.progress import Progress
from bertshrink.training.distributed import ranks
from bertshrink.training.rows.batching import Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bertshrink.data.formats.corpus import Corpus

Manner = Literal["full-sentences", "next-sentence", "sentence-order"]
VERSION = 2
SHORT_SHARE = 0.1
"""Two-segment rows that are shorter than they could be: the model should meet short inputs (arXiv:1810.04805, A.2)."""
_DOCUMENTS = 1000
_CLOSES, _OPENS = r"[\"')\]\u2019\u201d]", r"[\"'(\u2018\u201c]"
_SENTENCE = re.compile(rf"(?:(?<=[.!?])|(?<=[.!?]{_CLOSES})|(?<=[.!?]{_CLOSES}{_CLOSES}))\s+(?={_OPENS}*[A-Z0-9])")
"""Whitespace after the end of a sentence, whatever closes after it, and before a capital."""


class TokenStore:
    """The tokens of a corpus on disk.

    Attributes:
        tokens: ids of all sentences, one after the other.
        starts: where each sentence begins, and at the end the number of tokens.
        first_of_document: number of the first sentence of each document, and at the end the number of sentences.
    """

    def __init__(self, folder: Path) -> None:
        self.starts: NDArray[np.int64] = np.memmap(folder / "sentences.bin", dtype=np.int64, mode="r")
        self.first_of_document: NDArray[np.int64] = np.memmap(folder / "documents.bin", dtype=np.int64, mode="r")
        width = (folder / "tokens.bin").stat().st_size // int(self.starts[-1])
        self.tokens = np.memmap(folder / "tokens.bin", dtype=np.dtype(f"u{width}"), mode="r")

    @classmethod
    def of(cls, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, root: Path, progress: Progress) -> TokenStore:
        """The store of a corpus cut by a tokenizer; made where it is not there yet.

        Raises:
            UserError: the corpus holds no text.
            OutputError: the disk is full.
        """
        cut_by = hashlib.sha256(str(tokenizer.backend_tokenizer.to_str()).encode()).hexdigest()
        key = hashlib.sha256(f"{VERSION} {corpus.fingerprint} {cut_by}".encode()).hexdigest()[:24]
        folder = root / key
        if ranks.is_main() and not (folder / MANIFEST).is_file():
            with new_folder(folder, replace=True) as scratch:
                _fill(scratch, corpus, tokenizer, progress)
        ranks.broadcast_from_main(None)  # until it is there
        return cls(folder)

    @property
    def num_tokens(self) -> int:
        """Of the whole corpus."""
        return len(self.tokens)

    def sentences(self, first: int, last: int) -> NDArray[np.int64]:
        """Ids of the sentences `first` to `last` (excluded)."""
        ids: NDArray[np.int64] = self.tokens[self.starts[first] : self.starts[last]].astype(np.int64)
        return ids


def split_sentences(line: str) -> list[str]:
    """A line at the ends of its sentences: where a full stop, question or exclamation mark precedes a capital."""
    return [part for part in _SENTENCE.split(line) if part.strip()]


def _fill(folder: Path, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, progress: Progress) -> None:
    kind = np.dtype(np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32)
    num_tokens, num_sentences = 0, 0
    source = corpus.documents()
    with (
        (folder / "tokens.bin").open("wb") as tokens,
        (folder / "sentences.bin").open("wb") as starts,
        (folder / "documents.bin").open("wb") as documents,
        progress.task("read and tokenize", None, "documents") as task,
    ):
        while batch := list(islice(source, _DOCUMENTS)):
            for sentences in _tokenized(batch, tokenizer):
                lengths = np.array([len(ids) for ids in sentences], dtype=np.int64)
                np.concatenate([np.asarray(ids, dtype=kind) for ids in sentences]).tofile(tokens)
                (num_tokens + np.cumsum(lengths) - lengths).tofile(starts)
                np.array([num_sentences], dtype=np.int64).tofile(documents)
                num_tokens, num_sentences = num_tokens + int(lengths.sum()), num_sentences + len(lengths)
            task.advance(len(batch))
        np.array([num_tokens], dtype=np.int64).tofile(starts)
        np.array([num_sentences], dtype=np.int64).tofile(documents)
    if not num_tokens:
        raise UserError("the corpus holds no text", hint="give running text: lines, with blank lines between documents")


def _tokenized(batch: list[list[str]], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[list[int]]]:
    # A blank before all but a document's first: byte-level tokens know by it that a word begins.
    split = [[s for line in lines for s in split_sentences(line)] for lines in batch]
    flat = [f" {s}" if number else s for document in split for number, s in enumerate(document)]
    ids = iter(tokenizer(flat, add_special_tokens=False, verbose=False)["input_ids"] if flat else [])
    for document in split:
        if sentences := [sentence for sentence in islice(ids, len(document)) if sentence]:
            yield sentences


class PackedRows(torch.utils.data.Dataset[Item]):
    """Rows of a token store.

    Args:
        tokenizer: for the special tokens.
        manner: how rows are made.
        max_length: tokens of a row, special tokens included.
        seed: with the epoch and the row's number, random seed.
    """

    def __init__(
        self, store: TokenStore, tokenizer: PreTrainedTokenizerBase, manner: Manner, max_length: int, seed: int
    ) -> None:
        self.store = store
        self.manner = manner
        self.max_length = max_length
        self.seed = seed
        self.epoch = 0
        self.first_id, self.sep_id = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.has_types = "token_type_ids" in tokenizer.model_input_names
        self.num_added = 2 if manner == "full-sentences" else 3
        self.room = max_length - self.num_added
        ends = store.starts[store.first_of_document[1:-1]]
        self.separators = np.asarray(ends + np.arange(len(ends)))
        """Where they are in the text that has one between documents."""
        self.rows_N2 = self._windows() if manner == "full-sentences" else self._chunks()
        if not len(self.rows_N2):
            raise UserError("the corpus holds too little text for one row", hint="give more running text")

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row; of two segments at most so many."""
        if self.manner == "full-sentences":
            sizes = np.diff(self.rows_N2, axis=1)[:, 0]
        else:
            sizes = np.array([self._limit(first, last) for first, last in self.rows_N2.tolist()])
        lengths: list[int] = (sizes + self.num_added).tolist()
        return lengths

    def __len__(self) -> int:
        return len(self.rows_N2)

    def __getitem__(self, at: int) -> Item:
        first, last = map(int, self.rows_N2[at])
        if self.manner == "full-sentences":
            return self._row([self._window(first, last)]), None, at, self.epoch
        generator = np.random.default_rng((self.seed, self.epoch, at))
        segments, label = self._pair(first, last, generator)
        return self._row(segments), label, at, self.epoch

    def _windows(self) -> NDArray[np.int64]:
        """(N, 2) first and last token of full rows, a separator between documents counted as one more token."""
        total = self.store.num_tokens + len(self.separators)
        edges = np.arange(0, total + 1, self.room)
        if len(edges) < 2:
            edges = np.array([0, total])
        return np.stack([edges[:-1], edges[1:]], axis=1)

    def _window(self, first: int, last: int) -> NDArray[np.int64]:
        """Tokens from place `first` to `last` of the text in which a separator is between documents."""
        low, high = map(int, np.searchsorted(self.separators, (first, last)))
        plain = self.store.tokens[first - low : last - high].astype(np.int64)
        tokens_before = self.separators[low:high] - first - np.arange(high - low)
        ids: NDArray[np.int64] = np.insert(plain, tokens_before, self.sep_id)
        return ids

    def _chunks(self) -> NDArray[np.int64]:
        """(N, 2) first and last sentence of pieces of documents, as many sentences as fill a row."""
        starts, bounds = self.store.starts, array("q")
        at = 0
        for last in self.store.first_of_document[1:].tolist():
            while at < last:
                end = int(np.searchsorted(starts[at : last + 1], starts[at] + self.room, side="left")) + at
                end = max(at + 1, min(end, last))
                if end > at + 1 or self.manner == "next-sentence" or starts[end] - starts[at] > 1:
                    bounds.extend((at, end))  # one token alone has no two halves to put in order
                at = end
        return np.array(bounds, dtype=np.int64).reshape(-1, 2)

    def _limit(self, first: int, last: int) -> int:
        """Tokens of two segments together: those of the sentences, where they are two and leave room."""
        if self.manner == "next-sentence" and last - first == 1:
            return self.room  # nothing follows in this row: the second segment comes from elsewhere
        return min(int(self.store.starts[last] - self.store.starts[first]), self.room)

    def _pair(self, first: int, last: int, generator: np.random.Generator) -> tuple[list[NDArray[np.int64]], int]:
        """Two segments that fit, and whether the second is not the one that follows the first."""
        limit = self._limit(first, last)
        if generator.random() < SHORT_SHARE:
            limit = min(limit, int(generator.integers(2, self.room + 1)))
        middle = int(generator.integers(first + 1, last)) if last - first > 1 else last
        is_other = bool(generator.random() < 0.5)
        a, b = self.store.sentences(first, middle), self.store.sentences(middle, last)
        if self.manner == "sentence-order":
            if middle == last:
                a, b = np.array_split(a, 2)
            pair = [b, a] if is_other else [a, b]
        else:
            is_other = is_other or middle == last
            pair = [a, self._elsewhere(first, limit - len(a), generator) if is_other else b]
        return _fit(pair, limit, generator), int(is_other)

    def _elsewhere(self, sentence: int, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """At least `size` tokens from a random sentence on, of another document than that of `sentence` where there is
        another; all of a document that has fewer.
        """
        starts, firsts = self.store.starts, self.store.first_of_document
        num_documents = len(firsts) - 1
        own = int(np.searchsorted(firsts, sentence, side="right")) - 1
        other = (own + int(generator.integers(1, num_documents))) % num_documents if num_documents > 1 else own
        low, end = int(firsts[other]), int(firsts[other + 1])
        size = max(1, min(size, int(starts[end] - starts[low])))
        latest = low + int(np.searchsorted(starts[low : end + 1], starts[end] - size, side="right"))
        first = int(generator.integers(low, latest))
        last = first + int(np.searchsorted(starts[first : end + 1], starts[first] + size, side="left"))
        return self.store.sentences(first, last)

    def _row(self, segments: list[NDArray[np.int64]]) -> dict[str, list[int]]:
        ids, types = [self.first_id], [0]
        for number, segment in enumerate(segments):
            ids += [*segment.tolist(), self.sep_id]
            types += [number] * (len(segment) + 1)
        row = {"input_ids": ids, "attention_mask": [1] * len(ids)}
        return row | {"token_type_ids": types} if self.has_types else row


def _fit(pair: list[NDArray[np.int64]], room: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Cut the longer segment, at its start or its end by chance, until both fit and neither is empty."""
    a, b = pair
    while len(a) + len(b) > room:
        surplus = len(a) + len(b) - room
        is_first = len(a) >= len(b)
        longer, other = (a, b) if is_first else (b, a)
        drop = max(1, min(surplus, len(longer) - len(other)))
        longer = longer[drop:] if generator.random() < 0.5 else longer[:-drop]
        a, b = (longer, other) if is_first else (other, longer)
    return [a, b]
