"""Altered copies of tokenized texts, for a student that learns from its teacher's answers to them.

Small data show a student too little of what its teacher would say. As in arXiv:1903.12136 words are masked, others are
replaced, and now and then only a run of words is left; here words are dropped, too, and what replaces a word is a word
of the same texts, drawn as often as it stands there, for that needs no tagger. Of a pair one text is altered and the
other stays: two altered ones are a pair that nobody asks about (benchmarks/LOG.md). A copy has no label: what it means
is the teacher's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bertshrink.training.masking import word_starts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bertshrink.model.batches import Row

MASKED, REPLACED, DROPPED = 0.1, 0.1, 0.05
"""Shares of a copy's words."""
CUT = 0.2
"""Share of copies of which only a run of words is left, half of them or more."""


class Augmenter:
    """Makes altered copies of rows; of a pair, one of its texts is altered.

    Args:
        tokenizer: for the mask (where it has none, words are dropped instead), the special tokens, and where words
            begin.
        rows: whose words replace others.
        max_length: tokens of a copy at most; the rows have no more.
        seed: with a copy's number and a row's, decides everything.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_length: int, seed: int) -> None:
        self.max_length, self.seed = max_length, seed
        self.mask_id = tokenizer.mask_token_id
        self.begins_word_V = word_starts(tokenizer)
        self.is_special_V = np.zeros(len(self.begins_word_V), dtype=bool)
        parting = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}  # an unknown word is a word
        self.is_special_V[[i for i in parting if i < len(self.is_special_V)]] = True
        self.words = [
            tuple(row["input_ids"][at] for at in word) for row in rows for text in self.texts_of(row) for word in text
        ]

    def __call__(self, rows: Sequence[Row], copy: int = 0) -> list[Row]:
        """One altered copy of each row; one without words stays as it is."""
        return [self._altered(row, np.random.default_rng((self.seed, copy, i))) for i, row in enumerate(rows)]

    def texts_of(self, row: Row) -> list[list[list[int]]]:
        """The texts of a row, which special tokens part: the words of each: the positions of each word's pieces."""
        texts: list[list[list[int]]] = []
        inside = False
        for at, token in enumerate(row["input_ids"]):
            if self.is_special_V[token]:
                inside = False
                continue
            if not inside:
                texts.append([])
            if not inside or self.begins_word_V[token]:
                texts[-1].append([])
            texts[-1][-1].append(at)
            inside = True
        return texts

    def _altered(self, row: Row, generator: np.random.Generator) -> Row:
        ids = row["input_ids"]
        texts = self.texts_of(row)
        if not texts:
            return row
        becomes: dict[int, Sequence[int]] = {}  # what stands in place of the word that begins here
        gone: set[int] = set()
        room = self.max_length - len(ids)
        text = texts[int(generator.integers(len(texts)))]
        first, end = 0, len(text)
        if generator.random() < CUT:
            size = int(generator.integers((len(text) + 1) // 2, len(text) + 1))
            first = int(generator.integers(len(text) - size + 1))
            end = first + size
        rolls = generator.random(len(text))
        kept = [i for i in range(first, end) if not self._is_dropped(rolls[i])]
        # A text that lost all its words would be no text.
        for i in set(range(len(text))) - set(kept or [first]):
            gone.update(text[i])
        for i in kept:
            if rolls[i] < MASKED:
                becomes[text[i][0]] = [self.mask_id] * len(text[i])
            elif rolls[i] < MASKED + REPLACED:
                word = self.words[int(generator.integers(len(self.words)))]
                if len(word) - len(text[i]) <= room:
                    room -= len(word) - len(text[i])
                    becomes[text[i][0]] = word
            if text[i][0] in becomes:
                gone.update(text[i][1:])
        places = [(at, becomes.get(at, (ids[at],))) for at in range(len(ids)) if at not in gone]
        copied = {name: [values[at] for at, put in places for _ in put] for name, values in row.items()}
        return {**copied, "input_ids": [token for _, put in places for token in put]}

    def _is_dropped(self, roll: float) -> bool:
        return roll >= 1 - DROPPED or (self.mask_id is None and roll < MASKED)
