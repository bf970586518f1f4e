"""The masks of masked-language modelling: of the chosen tokens 80 % become the mask, 10 % a random token, 10 % stay
(arXiv:1810.04805, 3.1). Which tokens are chosen is thrown again each time a row comes by (dynamic masking,
arXiv:1907.11692), and depends on nothing but the seed, the epoch and the row: a run that goes on after a stop, or on
two processes, throws the same masks.

Whole-word masking chooses words and masks all their pieces (BERT's repository, 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bertshrink.data.encoding import IGNORED

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase


class TokenMasker:
    """Throws masks over rows of token ids.

    Args:
        tokenizer: for the mask, the special tokens and the vocabulary.
        share: of the tokens (or words) that are chosen.
        whole_word: choose words instead of tokens.
        seed: with epoch and row, decides everything.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, share: float, *, whole_word: bool, seed: int) -> None:
        self.share = share
        self.seed = seed
        self.mask_id = tokenizer.mask_token_id
        self.known_N = np.unique(list(tokenizer.get_vocab().values()))  # ids have holes where a vocabulary has blanks
        self.is_special_V = np.zeros(int(self.known_N[-1]) + 1, dtype=bool)
        self.is_special_V[tokenizer.all_special_ids] = True
        self.begins_word_V = word_starts(tokenizer) if whole_word else None

    def __call__(self, ids: Sequence[int], epoch: int, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(ids with masks (L,), labels (L,), `IGNORED` where not chosen) of row `number` in an epoch."""
        generator = np.random.default_rng((self.seed, epoch, number))
        ids_L = np.asarray(ids, dtype=np.int64)
        free_L = ~self.is_special_V[ids_L]
        if self.begins_word_V is None:
            chosen_L = (generator.random(len(ids_L)) < self.share) & free_L
        else:
            # A special token ends a word; words are numbered by counting their beginnings.
            word_L = np.cumsum(self.begins_word_V[ids_L] | ~free_L | np.roll(~free_L, 1))
            chosen_L = (generator.random(int(word_L[-1]) + 1) < self.share)[word_L] & free_L
        labels_L = np.where(chosen_L, ids_L, IGNORED)
        roll_L = generator.random(len(ids_L))
        random_L = self.known_N[generator.integers(len(self.known_N), size=len(ids_L))]
        masked_L = np.where(chosen_L & (roll_L < 0.8), self.mask_id, ids_L)
        return np.where(chosen_L & (roll_L >= 0.9), random_L, masked_L), labels_L


def word_starts(tokenizer: PreTrainedTokenizerBase) -> NDArray[np.bool_]:
    """(V,) whether a token of the vocabulary begins a word, by the three ways in which tokenizers write that.

    WordPiece marks what continues (`##`), byte-level BPE and SentencePiece mark what begins (`Ġ`, `▁`). A vocabulary
    without any mark has whole words only.
    """
    token_by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    tokens = [token_by_id.get(number, "") for number in range(max(token_by_id) + 1)]
    if any(token.startswith("##") for token in tokens):
        return np.array([not token.startswith("##") for token in tokens])
    for mark in ("Ġ", "▁"):
        if any(token.startswith(mark) for token in tokens):
            return np.array([token.startswith(mark) for token in tokens])
    return np.ones(len(tokens), dtype=bool)
