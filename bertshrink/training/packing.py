"""Running text as rows of full length, for pre-training and its distillation.

A corpus is streamed once through the tokenizer into a folder of two files, which are read memory-mapped from then on:

    tokens.bin      every token id, 2 bytes each (4 where the vocabulary has more than 65,536)
    bounds.npz      where each sentence begins, and whether a document begins with it

so that memory does not grow with the corpus, rows can be shuffled, and any row can be made again: a run that goes on
after a stop, or on two processes, sees the same rows. Rows are made from it in one of three ways:

    full-sentences   sentences one after the other, across documents, a separator between documents (arXiv:1907.11692,
                     4.2; DistilBERT's code packs its texts likewise)
    next-sentence    two segments of one document, or half of the time a second one from elsewhere (arXiv:1810.04805)
    sentence-order   two consecutive segments, swapped half of the time (arXiv:1909.11942, 3.1)
"""

from __future__ import annotations

import hashlib
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bertshrink.errors import RequestError
from bertshrink.model.files import MANIFEST, new_folder
from bertshrink.progress import Progress
from bertshrink.training import processes
from bertshrink.training.batching import Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bertshrink.model.corpus import Corpus

Manner = Literal["full-sentences", "next-sentence", "sentence-order"]
VERSION = 1
SHORT_SHARE = 0.1
"""Two-segment rows that are shorter than they could be: the model shall meet short inputs (arXiv:1810.04805, A.2)."""
_DOCUMENTS = 1000
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[A-Z0-9\"'(])")


class TokenStore:
    """The tokens of a corpus on disk.

    Attributes:
        tokens: ids of all sentences, one after the other.
        starts: where each sentence begins, and at the end the number of tokens.
        first_of_document: number of the first sentence of each document, and at the end the number of sentences.
    """

    def __init__(self, folder: Path) -> None:
        bounds = np.load(folder / "bounds.npz")
        self.starts: NDArray[np.int64] = bounds["starts"]
        self.first_of_document: NDArray[np.int64] = bounds["documents"]
        kind = np.dtype(str(bounds["kind"]))
        self.tokens = np.memmap(folder / "tokens.bin", dtype=kind, mode="r")

    @classmethod
    def of(cls, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, root: Path, progress: Progress) -> TokenStore:
        """The store of a corpus cut by a tokenizer; made where it is not there yet.

        Raises:
            RequestError: the corpus holds no text.
            OutputError: the disk is full.
        """
        cut_by = hashlib.sha256(str(tokenizer.backend_tokenizer.to_str()).encode()).hexdigest()
        key = hashlib.sha256(f"{VERSION} {corpus.fingerprint} {cut_by}".encode()).hexdigest()[:24]
        folder = root / key
        if processes.is_main() and not (folder / MANIFEST).is_file():
            with new_folder(folder, replace=True) as scratch:
                _fill(scratch, corpus, tokenizer, progress)
        processes.from_main(None)  # until it is there
        return cls(folder)

    @property
    def num_tokens(self) -> int:
        """Of the whole corpus."""
        return len(self.tokens)

    def sentences(self, first: int, last: int) -> NDArray[np.int64]:
        """Ids of the sentences `first` to `last` (excluded)."""
        found: NDArray[np.int64] = self.tokens[self.starts[first] : self.starts[last]].astype(np.int64)
        return found


def split_sentences(line: str) -> list[str]:
    """A line at the ends of its sentences: where a full stop, question or exclamation mark precedes a capital."""
    return [part for part in _SENTENCE.split(line) if part.strip()]


def _fill(folder: Path, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, progress: Progress) -> None:
    kind = np.dtype(np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32)
    lengths: list[int] = []
    documents = [0]
    source = corpus.documents()
    with (folder / "tokens.bin").open("wb") as file, progress.task("read and tokenize", None, "documents") as task:
        while batch := list(islice(source, _DOCUMENTS)):
            sentences = [[s for line in lines for s in split_sentences(line)] for lines in batch]
            flat = [sentence for document in sentences for sentence in document]
            ids = tokenizer(flat, add_special_tokens=False, verbose=False)["input_ids"] if flat else []
            np.concatenate([np.asarray(row, dtype=kind) for row in ids] or [np.empty(0, kind)]).tofile(file)
            lengths += map(len, ids)
            for document in sentences:
                documents.append(documents[-1] + len(document))
            task.advance(len(batch))
    if not sum(lengths):
        raise RequestError("the corpus holds no text", hint="give running text: lines, documents apart by blank lines")
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    np.savez(folder / "bounds.npz", starts=starts, documents=np.asarray(documents), kind=np.asarray(kind.str))


class Packed(torch.utils.data.Dataset[Item]):
    """Rows of a token store.

    Args:
        store: the tokens.
        tokenizer: for the special tokens.
        manner: how rows are made.
        max_length: tokens of a row, special tokens included.
        seed: with the epoch and the row's number, decides everything random.
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
        room = max_length - (2 if manner == "full-sentences" else 3)
        self.room = room
        self.rows_N2 = self._windows(room) if manner == "full-sentences" else self._chunks(room)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, at most."""
        if self.manner == "full-sentences":
            return [int(size) + 2 for size in np.diff(self.rows_N2, axis=1)[:, 0]]
        starts = self.store.starts
        tokens = starts[self.rows_N2[:, 1]] - starts[self.rows_N2[:, 0]]
        return [int(size) + 3 for size in np.minimum(tokens, self.room)]

    def __len__(self) -> int:
        return len(self.rows_N2)

    def __getitem__(self, at: int) -> Item:
        first, last = map(int, self.rows_N2[at])
        if self.manner == "full-sentences":
            return self._row([self._window(first, last)]), None, at, self.epoch
        generator = np.random.default_rng((self.seed, self.epoch, at))
        segments, label = self._pair(first, last, generator)
        return self._row(segments), label, at, self.epoch

    def _windows(self, room: int) -> NDArray[np.int64]:
        """(N, 2) first and last token of full rows, document ends counted as one more token each."""
        total = self.store.num_tokens + len(self.store.first_of_document) - 2
        edges = np.arange(0, total + 1, room)
        if len(edges) < 2:
            edges = np.array([0, total])
        return np.stack([edges[:-1], edges[1:]], axis=1)

    def _window(self, first: int, last: int) -> NDArray[np.int64]:
        """Tokens from place `first` to `last` of the text in which a separator stands between documents."""
        ends = self.store.starts[self.store.first_of_document[1:-1]]
        # The d-th separator stands at place (tokens before it) + d.
        places = ends + np.arange(len(ends))
        low, high = np.searchsorted(places, [first, last])
        plain = self.store.tokens[first - low : last - high].astype(np.int64)
        inside = ends[low:high] - (first - low)
        found: NDArray[np.int64] = np.insert(plain, inside, self.sep_id)
        return found

    def _chunks(self, room: int) -> NDArray[np.int64]:
        """(N, 2) first and last sentence of pieces of documents, as many sentences as fill a row."""
        starts, found = self.store.starts, []
        for first, last in zip(self.store.first_of_document[:-1], self.store.first_of_document[1:], strict=True):
            at = int(first)
            while at < last:
                end = int(np.searchsorted(starts, starts[at] + room, side="left"))
                end = max(at + 1, min(end, int(last)))
                found.append((at, end))
                at = end
        return np.asarray(found, dtype=np.int64).reshape(-1, 2)

    def _pair(self, first: int, last: int, generator: np.random.Generator) -> tuple[list[NDArray[np.int64]], int]:
        """Two segments that fit, and whether the second is not the one that follows the first."""
        room = self.room
        if generator.random() < SHORT_SHARE:
            room = int(generator.integers(2, self.room + 1))
        middle = int(generator.integers(first + 1, last)) if last - first > 1 else last
        is_other = bool(generator.random() < 0.5)
        a = self.store.sentences(first, middle)
        if self.manner == "sentence-order":
            if middle == last:  # one long sentence: its halves
                a, b = np.array_split(a, 2)
            else:
                b = self.store.sentences(middle, last)
            pair = [b, a] if is_other else [a, b]
        else:
            is_other = is_other or middle == last
            if is_other:
                start, end = self.rows_N2[int(generator.integers(len(self.rows_N2)))]
                b = self.store.sentences(int(start), int(end))
            else:
                b = self.store.sentences(middle, last)
            pair = [a, b]
        return _fit(pair, room, generator), int(is_other)

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
