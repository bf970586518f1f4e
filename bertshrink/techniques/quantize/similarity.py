"""How far the quantized file agrees with the float one on real text: the cosine of their outputs, as
`techniques.output_cosine` has it, and the labels that stay.

One cosine over all texts together where logits are compared: as a mean over the texts the SST-2 teacher has 0.962 on
872 sentences, together 0.998, while 98 % keep their class. What agreement is worth in accuracy, the report says, where
there are labels; here, for tasks whose answer is one of several labels, the share of texts (or tokens, or places where
an answer starts and ends) whose largest logit is the same as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bertshrink.data.texts import Split
from bertshrink.errors import CheckFailed
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.output_cosine import agreement

if TYPE_CHECKING:
    from bertshrink.engines import Arrays
    from bertshrink.model.artifact import Artifact

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


class OutputSimilarity:
    """Texts, and the float artifact's answers to them, which those of others are compared with.

    Args:
        max_length: cap on tokens per text; None: the artifact's own.
    """

    def __init__(self, before: Artifact, texts: Split, max_length: int | None) -> None:
        self.task = before.task
        self.rows = before.tokenize(texts.texts, texts.pairs, max_length)
        self.answers = before.predict(self.rows)

    def agreement(self, after: Artifact) -> dict[str, float | int]:
        """`cosine` and, for tasks with labels, `same_label`, as this file's opening defines them, and `num_texts`."""
        outputs = after.predict(self.rows)
        labels = same_label(self.task, self._pairs(outputs))
        return {"cosine": agreement(self.task, self.answers, outputs), "num_texts": len(self.rows)} | (
            {} if labels is None else {"same_label": labels}
        )

    def distance(self, after: Artifact) -> float:
        """The squared difference of all outputs, as a share of the square of the float ones; 0 or more."""
        pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in self._pairs(after.predict(self.rows))]
        square = sum(float((theirs**2).sum()) for theirs, _ in pairs)
        return sum(float(((ours - theirs) ** 2).sum()) for theirs, ours in pairs) / max(square, 1e-30)

    def _pairs(self, outputs: Sequence[Arrays]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        return [(old[name], new[name]) for old, new in zip(self.answers, outputs, strict=True) for name in old]


def require(agreement: dict[str, float | int], min_cosine: float, where: str) -> None:
    """Refuse outputs that are too far from the float ones.

    Raises:
        CheckFailed: the cosine is below `min_cosine`, or an output is not finite.
    """
    if not agreement["cosine"] >= min_cosine:
        raise CheckFailed(
            f"the quantized model's outputs have a cosine of {agreement['cosine']:.4f} to the float ones, less than "
            f"{min_cosine}",
            where=where,
            hint="keep tables in float with `embeddings: float32`, take more bits, let `max_metric_drop` find the "
            "weights that need more bits, or accept it with a lower `min_cosine`",
        )


def same_label(task: str, pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> float | None:
    """The share of answers that are the same; None where the task's outputs are not labels.

    Args:
        pairs: outputs before and after, each (C,) or, with a length axis, (L, C) or (L,) for places in a text.
    """
    learnt = TASKS[task].learns_from
    if learnt in ("class", "tags", "answers"):
        same = [np.ravel(a.argmax(-1) == b.argmax(-1)) for a, b in pairs]
    elif learnt == "classes":
        same = [np.ravel((a > 0) == (b > 0)) for a, b in pairs]  # a label holds from a probability of a half
    else:
        return None
    return float(np.concatenate(same).mean())
