"""Rows that stand for what a model will read: training texts, or tokens drawn by Zipf's law where there are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bertshrink.data.encoding import encode
from bertshrink.data.texts import TextDataset
from bertshrink.errors import UserError
from bertshrink.model.batches import Row, take_tokens
from bertshrink.model.encoder import Encoder

ZIPF_SHIFT = 2.7
"""Mandelbrot's constant: tokens i of a vocabulary in order of frequency come in proportion to 1 / (i + shift)."""
_DRAWN_ROWS = 2000
_DRAWN_LENGTH = 32


def calibration_rows(
    encoder: Encoder, texts: TextDataset | None, most_texts: int, most_tokens: int, max_length: int | None, seed: int
) -> tuple[list[Row], str]:
    """Rows to calibrate with, and a sentence that says what they are.

    Args:
        texts: their training split is read; None: tokens are drawn.
        most_tokens: the last row is the one with which so many are reached.
        max_length: cap on tokens a text; None: the model's own.

    Raises:
        UserError: the texts hold no token but special ones.
    """
    if texts is None:
        note = (
            "no calibration texts: token frequencies are assumed to follow Zipf's law in vocabulary "
            "order; name some with "
        )
        return zipf_rows(encoder, min(_DRAWN_ROWS, most_texts), _DRAWN_LENGTH, seed), f"{note}`data`"
    chosen = replace(texts.train.first(most_texts), labels=None)
    limit = min(max_length or encoder.max_length, encoder.max_length)
    rows = encode(encoder.task, encoder.tokenizer, chosen, limit, encoder.labels, texts.name, encoder.prompt).rows
    special = set(encoder.tokenizer.all_special_ids)
    if not any(i not in special for row in rows for i in row["input_ids"]):
        raise UserError(
            f"the training texts of `{texts.name}` contain only special tokens after tokenization",
            hint="calibrate with texts in the model's language, or leave `data` out",
        )
    kept = take_tokens(rows, most_tokens)
    number = sum(len(row["input_ids"]) for row in kept)
    return kept, f"calibrated with {len(kept)} training texts of {number} tokens"


def zipf_rows(encoder: Encoder, num_rows: int, length: int, seed: int) -> list[Row]:
    """Rows of tokens drawn by Zipf's law over the vocabulary's order."""
    weight_V = 1 / (np.arange(encoder.shape.vocab_size) + ZIPF_SHIFT)
    return _drawn(encoder, weight_V, num_rows, length, seed)


def uniform_rows(encoder: Encoder, num_rows: int, length: int, seed: int) -> list[Row]:
    """Rows of tokens drawn evenly from the whole vocabulary."""
    return _drawn(encoder, np.ones(encoder.shape.vocab_size), num_rows, length, seed)


def _drawn(encoder: Encoder, weight: NDArray[np.float64], num_rows: int, length: int, seed: int) -> list[Row]:
    weight[sorted(set(encoder.tokenizer.all_special_ids))] = 0
    drawn = np.random.default_rng(seed).choice(len(weight), (num_rows, length), p=weight / weight.sum())
    first, last = encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id
    framed = [[first, *row[1:-1], last] if first is not None and last is not None else [*row] for row in drawn.tolist()]
    return [{"input_ids": row, "attention_mask": [1] * length} for row in framed]
