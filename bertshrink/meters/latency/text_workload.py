"""Real texts as a workload: each model's own tokens of the same texts, in batches, in the order of the file.

A long file stands by `NUM_TEXTS` of its texts, evenly spread, so that the lengths are spread as in the file. They are
not sorted by length: a server answers what comes. Each batch is padded to its longest text, or to a fixed number of
tokens, as the user's service does it; padding costs time and counts for nothing, so throughput is in tokens without
padding, and in texts, which models with different vocabularies share.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.data.readers import read_sides
from bertshrink.data.settings import DataSettings
from bertshrink.data.texts import Split
from bertshrink.errors import UserError
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.model.batches import tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NUM_TEXTS = 128
"""Enough for a distribution of lengths; a pass takes a second or two on a laptop."""


def read_workload(path: str) -> Split:
    """The texts of a file, evenly thinned out to `NUM_TEXTS`. Raises UserError: no such file, or no texts in it."""
    texts = read_sides(DataSettings(train=path), [])["train"]
    count = min(len(texts), NUM_TEXTS)
    if count == 0:
        raise UserError("there are no texts to run", where=path, hint="one text per line, or a column `text`")
    return texts.take([at * len(texts) // count for at in range(count)])


def text_cases(
    texts: Split,
    tokenizer: PreTrainedTokenizerBase,
    settings: LatencySettings,
    max_length: int,
    shape: tuple[int | None, int | None] | None = None,
) -> list[dict[str, Any]]:
    """A worker's cases: the same texts once per batch size. Raises UserError: more padding than the model takes."""
    only_batch, only_length = shape or (None, None)
    pad_to = only_length or (None if settings.padding == "longest" else settings.padding)
    batches = (only_batch,) if only_batch is not None else settings.batch
    if pad_to is not None and pad_to > max_length:
        raise UserError(
            f"texts cannot be padded to {pad_to} tokens: a model takes {max_length} at most",
            where="padding",
            hint=f"ask for {max_length} or fewer, or for `longest`",
        )
    rows = [row["input_ids"] for row in tokenize(tokenizer, texts.texts, texts.pairs, pad_to or max_length)]
    if only_batch is not None and len(rows) < only_batch:
        raise UserError(f"{len(rows)} texts are fewer than one batch of {only_batch}", where=settings.texts)
    written = [list(both) for both in zip(texts.texts, texts.pairs, strict=True)] if texts.pairs else texts.texts
    name = Path(settings.texts or "texts").name
    return [
        {
            "name": f"{name} x{size}",
            "workload": name,
            "pad_to": pad_to,
            "batches": [rows[at : at + size] for at in range(0, len(rows) - len(rows) % size or size, size)],
            "texts": [list(written[at : at + size]) for at in range(0, len(rows) - len(rows) % size or size, size)],
        }
        for size in batches
    ]
