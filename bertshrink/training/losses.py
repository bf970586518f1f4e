"""What a batch costs against its labels: one loss per task, each a mean over what is labelled.

    classification         cross-entropy with the class
    multi-label            binary cross-entropy of every class with its 0 or 1
    regression             squared error of the score; of a cross-encoder's that is the sigmoid of the logit
    token-classification   cross-entropy of every labelled token with its tag
    question-answering     mean of the cross-entropies of the first and the last token
    mlm                    cross-entropy of every masked token with what was there

Rows and tokens without a label (`IGNORED`, or NaN for scores) cost nothing, and a batch without any label costs 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from bertshrink.data.encoding import IGNORED
from bertshrink.training.distributed.ranks import mean_over


def task_loss(task: str, outputs: Mapping[str, Tensor], labels: Tensor, activation: str = "identity") -> Tensor:
    """The loss (scalar) of a batch.

    Args:
        task: a name in `TASKS` that has a loss of its own (all but embedding).
        activation: what makes a score of its logit, `identity` or `sigmoid`.
        labels: (B,) classes or scores, (B, C) zeros and ones, (B, L) tags or tokens, (B, 2) first and last token.
    """
    if task == "question-answering":
        first, last = (
            cross_entropy(outputs[name], labels[:, at]) for at, name in enumerate(("start_logits", "end_logits"))
        )
        return (first + last) / 2
    logits = outputs["logits"]
    if task == "regression":
        scores_B = logits[:, 0]
        return squared_error(torch.sigmoid(scores_B) if activation == "sigmoid" else scores_B, labels)
    if task == "multi-label":
        return binary_cross_entropy(logits, labels)
    return cross_entropy(logits.flatten(0, -2), labels.flatten())


def cross_entropy(logits_NC: Tensor, labels_N: Tensor) -> Tensor:
    """The mean over the rows that have a label; 0 where none has (cross-entropy's own mean would be 0 / 0)."""
    total = functional.cross_entropy(logits_NC.float(), labels_N, ignore_index=IGNORED, reduction="sum")
    return mean_over(total, (labels_N != IGNORED).sum())


def binary_cross_entropy(logits_BC: Tensor, labels_BC: Tensor) -> Tensor:
    """The mean over rows and classes, rows of NaN left out."""
    known_BC = ~torch.isnan(labels_BC)
    cost_BC = functional.binary_cross_entropy_with_logits(
        logits_BC.float(), torch.where(known_BC, labels_BC, 0.0), reduction="none"
    )
    return mean_over((cost_BC * known_BC).sum(), known_BC.sum())


def squared_error(scores_B: Tensor, labels_B: Tensor) -> Tensor:
    """The mean over the rows whose label is a number."""
    known_B = ~torch.isnan(labels_B)
    difference_B = torch.where(known_B, scores_B.float() - labels_B, 0.0)
    return mean_over((difference_B**2).sum(), known_B.sum())
