"""Rows of token ids to padded arrays: batches of like length, so that little of the work is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bertshrink.model.checks.tokenizer import refusing

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from bertshrink.engines import Arrays, Session

Row = dict[str, list[int]]


def pad(rows: Sequence[Row], pad_id: int) -> Arrays:
    """Right-pad rows to their longest: each name -> int64 (B, L); ids with `pad_id`, everything else with 0."""
    import numpy as np

    longest = max(len(row["input_ids"]) for row in rows)
    padded: Arrays = {}
    for name in rows[0]:
        fill = pad_id if name == "input_ids" else 0
        block = np.full((len(rows), longest), fill, dtype=np.int64)
        for i, row in enumerate(rows):
            block[i, : len(row[name])] = row[name]
        padded[name] = block
    return padded


def tensors(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Rows as one batch of int64 tensors (B, L), right-padded with 0; `attention_mask` says what is padding."""
    import torch

    return {name: torch.from_numpy(block) for name, block in pad(rows, 0).items()}


def take_tokens(rows: Sequence[Row], num_tokens: int) -> list[Row]:
    """The first rows, up to the one with which they have `num_tokens` tokens; all where they have fewer."""
    kept, number = [], 0
    for row in rows:
        kept.append(row)
        number += len(row["input_ids"])
        if number >= num_tokens:
            break
    return kept


def batch_by_length(
    lengths: Sequence[int], max_tokens_per_batch: int, batch_rows: int | None = None
) -> list[list[int]]:
    """Group row numbers into batches of like length.

    A batch holds at most `max_tokens_per_batch` tokens, padding included, and at most `batch_rows` rows; at least one
    row. Longest first, so that memory peaks at once. Rows of equal length keep their order.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batches: list[list[int]] = []
    for i in order:
        if batches:
            last = batches[-1]
            fits = lengths[last[0]] * (len(last) + 1) <= max_tokens_per_batch
            if fits and (batch_rows is None or len(last) < batch_rows):
                last.append(i)
                continue
        batches.append([i])
    return batches


def predict(
    session: Session, rows: Sequence[Row], pad_id: int, max_tokens_per_batch: int = 4096, *, per_token: bool = False
) -> list[Arrays]:
    """Run tokenized rows through a session; outputs per row, in order.

    Outputs with a length axis (B, L, ...), which `per_token` says, are cut back to the row's own length.
    """
    lengths = [len(row["input_ids"]) for row in rows]
    row_outputs: list[Arrays] = [{} for _ in rows]
    for batch in batch_by_length(lengths, max_tokens_per_batch):
        outputs = session.run(pad([rows[i] for i in batch], pad_id))
        for name, block in outputs.items():
            for at, i in enumerate(batch):
                value = block[at]
                row_outputs[i][name] = value[: lengths[i]] if per_token else value
    return row_outputs


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int,
    prompt: str = "",
) -> list[Row]:
    """Token ids of each text (or pair), not padded, cut at `max_length`: one dict of equal lists per row.

    `prompt` is put before every text; of a pair before the first, as sentence-transformers does.
    """
    second = list(pairs) if pairs is not None else None
    what, where = "the tokenizer cannot read a text", str(getattr(tokenizer, "name_or_path", ""))
    with preserving_tokenizer(tokenizer), refusing(what, where, panics_only=True):
        first = [prompt + text for text in texts]
        encoding = tokenizer(
            first,
            second,
            truncation=True,
            max_length=max_length,
            padding=False,
            return_attention_mask=True,  # also where `model_input_names` leaves it out: batches are padded
        )
    names = list(encoding.keys())
    return [{name: encoding[name][i] for name in names} for i in range(len(texts))]


@contextmanager
def preserving_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Give a fast tokenizer its own cutting and padding back after calls, each of which overwrites them.

    They are saved with it: what was asked of it last would be what every reader of its `tokenizer.json` gets.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    cut, filled = (backend.truncation, backend.padding) if backend is not None else (None, None)
    try:
        yield
    finally:
        if backend is not None:
            backend.enable_truncation(**cut) if cut is not None else backend.no_truncation()
            backend.enable_padding(**filled) if filled is not None else backend.no_padding()
