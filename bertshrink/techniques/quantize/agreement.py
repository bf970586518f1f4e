"""How far the quantized file agrees with the float one: the cosine of their outputs on real text.

Sentence vectors: the mean of the texts' cosines. Masked-language logits: the mean over every token of every text. Any
other logits (classes, tags, scores, starts and ends of answers): one cosine over all texts together, because a pair of
logits near zero, which the model itself is unsure of, turns around at the slightest change (SST-2 teacher, 872
sentences: 0.998 together, 0.962 as a mean over the texts, while 98 % keep their class). What agreement is worth in
accuracy, the report says, where there are labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bertshrink.errors import CheckFailed
from bertshrink.model.batches import predict
from bertshrink.model.task import TASKS
from bertshrink.model.texts import Split

if TYPE_CHECKING:
    from bertshrink.model.artifact import Artifact
    from bertshrink.techniques.base import Workbench

NUM_TEXTS = 64
"""Standard error of the mean cosine over 64 texts is about 0.0005 on a sentence encoder: enough for two digits."""

SENTENCES = (
    "The committee will publish its report in the spring.",
    "She closed the window because the rain had started again.",
    "How long does it take to boil an egg at high altitude?",
    "Shares fell by four percent after the company lowered its forecast.",
    "This film is a wonderful surprise from beginning to end.",
    "The soup was cold, the waiter rude and the bill far too long.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "Please send me the signed contract before Friday afternoon.",
    "Nobody expected the small northern team to win the final.",
    "He learned to play the violin when he was already sixty.",
    "The function returns an empty list when no file matches the pattern.",
    "Two trains leave the station at the same time in opposite directions.",
    "Doctors advise drinking water regularly during long flights.",
    "The old bridge was closed for repairs and traffic moved to the ferry.",
    "A quiet, patient story about grief, and one of the year's best.",
    "Why is the sky blue?",
)


def check_agreement(before: Artifact, after: Path, bench: Workbench, min_cosine: float) -> dict[str, float | int]:
    """Compare on the dev texts (or on sentences of this file, when there are none).

    Args:
        before: the float artifact.
        after: the quantized file.
        bench: for its texts and maximal length.
        min_cosine: the least agreement that is accepted.

    Returns:
        `cosine`, as this file's opening defines it, and `num_texts`.

    Raises:
        CheckFailed: the cosine is below `min_cosine`, or an output is not finite.

    """
    dev = bench.texts.dev if bench.texts is not None else Split(SENTENCES)
    dev = dev.take(range(min(NUM_TEXTS, len(dev))))
    rows = before.tokenize(dev.texts, dev.pairs, bench.max_length)
    per_token, pad_id = TASKS[before.task].per_token, before.tokenizer.pad_token_id or 0
    found = predict(before.session(after), rows, pad_id, per_token=per_token)
    pairs = [(old[name], new[name]) for old, new in zip(before.predict(rows), found, strict=True) for name in old]
    if before.task in ("embedding", "mlm"):
        agreement = float(np.mean([cosine(theirs, ours) for theirs, ours in pairs]))
    else:
        agreement = cosine(*(np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1)))
    if not agreement >= min_cosine:
        raise CheckFailed(
            f"the quantized model's outputs have a cosine of {agreement:.4f} to the float ones, less than {min_cosine}",
            where=str(after),
            hint="keep tables in float with `embeddings: false`, or accept it with a lower `min_cosine`",
        )
    return {"cosine": agreement, "num_texts": len(dev)}


def cosine(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Mean cosine along the last axis of two arrays of one shape; of two zero vectors it is 1."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    product = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    equal = np.all(x == y, axis=-1)
    found = np.where(equal, 1.0, (x * y).sum(axis=-1) / np.where(product == 0, 1.0, product))
    return float(found.mean())
