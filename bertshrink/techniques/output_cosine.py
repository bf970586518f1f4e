"""How far two models agree: the cosine of their outputs on the same rows.

Sentence vectors: the mean of the texts' cosines. Masked-language logits: the mean over every token of every text. Any
other logits: one cosine over all texts together, because a pair of logits near zero, which the model itself is unsure
of, turns around at the slightest change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bertshrink.data.texts import Split
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertshrink.data.texts import TextDataset
    from bertshrink.engines import Arrays


NUM_TEXTS = 64
"""Standard error of the mean cosine over 64 texts is about 0.0005 on a sentence encoder: enough for two digits."""


def dev_texts(texts: TextDataset | None, otherwise: Sequence[str]) -> Split:
    """The first dev texts, which outputs are compared on; or others, where no data is named."""
    dev = texts.dev if texts is not None else Split(tuple(otherwise))
    return dev.take(range(min(NUM_TEXTS, len(dev))))


def agreement(task: str, before: Sequence[Arrays], after: Sequence[Arrays]) -> float:
    """The cosine of two models' outputs as this file's opening defines it; 1 where they are equal.

    Args:
        before: outputs by name, of each row.
        after: the same of the other model.
    """
    pairs = [(old[name], new[name]) for old, new in zip(before, after, strict=True) for name in old]
    if not TASKS[task].needs_labels:
        return float(np.mean([cosine(*pair) for pair in pairs]))
    return cosine(*(np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1)))


def cosine(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Mean cosine along the last axis of two arrays of one shape; of two equal vectors it is 1, zeros included."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    product = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    equal = np.all(x == y, axis=-1)
    cosines = np.where(equal, 1.0, (x * y).sum(axis=-1) / np.where(product == 0, 1.0, product))
    return float(cosines.mean())
