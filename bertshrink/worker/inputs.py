"""What a model is fed with: random tokens of one shape, or real texts in batches, padded as the user pads.

Arrays are int64 (batch B, length L), right-padded, mask 1 at tokens, one segment.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertshrink.engines import Arrays
    from bertshrink.worker.job import WorkerJob

_FIRST_ORDINARY_ID = 1000
"""Ids below are special, unused or single characters in the common vocabularies; ordinary text is above."""


def feeds_of(job: WorkerJob, case: dict[str, Any]) -> list[Arrays]:
    """The batches of one case, at least one. Raises ValueError: the model takes an array that is none of the three."""
    if "batches" in case:
        return [padded(rows, job, case["pad_to"]) for rows in case["batches"]]
    return [random_feed(job, case["batch"], case["length"])]


def random_feed(job: WorkerJob, batch: int, length: int) -> Arrays:
    """One batch (batch, length) of random ids, every token attended to."""
    import numpy as np

    low = _FIRST_ORDINARY_ID if job.vocab_size > 2 * _FIRST_ORDINARY_ID else 0
    ids = np.random.default_rng(job.seed).integers(low, job.vocab_size, size=(batch, length), dtype=np.int64)
    return _named(job, ids, np.ones_like(ids), np.zeros_like(ids))


def padded(rows: Sequence[Sequence[int]], job: WorkerJob, pad_to: int | None, segments: Iterable[Any] = ()) -> Arrays:
    """Rows of token ids as arrays, filled up to `pad_to` tokens or to the longest of them."""
    import numpy as np

    width = pad_to or max(len(row) for row in rows)
    ids = np.full((len(rows), width), job.pad_id, np.int64)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
    for at, row_types in enumerate(segments):
        types[at, : len(row_types)] = row_types
    return _named(job, ids, mask, types)


def _named(job: WorkerJob, ids: Any, mask: Any, types: Any) -> Arrays:
    known: Arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    strange = [name for name in job.inputs if name not in known]
    if strange:
        raise ValueError(f"the model takes `{strange[0]}`, which is not one of {', '.join(known)}")
    return {name: known[name] for name in job.inputs}


def num_tokens(case: dict[str, Any]) -> list[int]:
    """Of each batch of a case: its tokens without padding."""
    if "batches" in case:
        return [sum(len(row) for row in rows) for rows in case["batches"]]
    return [case["batch"] * case["length"]]


class Tokenizer:
    """The model's own tokenizer, by the package `tokenizers` alone.

    Raises:
        ModuleNotFoundError: the package is not installed here.
    """

    def __init__(self, job: WorkerJob) -> None:
        self.job = job
        self.tokenizer: Any = importlib.import_module("tokenizers").Tokenizer.from_file(str(job.tokenizer))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(job.max_length)

    def __call__(self, texts: Sequence[Any], pad_to: int | None) -> Arrays:
        """One batch of texts (strings or pairs of them) as arrays."""
        encodings = self.tokenizer.encode_batch([tuple(text) if isinstance(text, list) else text for text in texts])
        return padded([e.ids for e in encodings], self.job, pad_to, (e.type_ids for e in encodings))
