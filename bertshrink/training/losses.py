"""What a batch costs against its labels: one loss per task, each a mean over what is labelled.

    classification         cross-entropy with the class
    multi-label            binary cross-entropy of every class with its 0 or 1
    regression             squared error of the score; of a cross-encoder's that is the sigmoid of the logit
    token-classification   cross-entropy of every labelled token with its tag
    question-answering     mean of the cross-entropies of the first and the last token
    embedding              squared error of the cosine of a pair; where no pair has a score, `in_batch_contrastive`
    sparse-embedding       the same, `in_batch_contrastive` of products instead of cosines; and `expected_products`
    mlm                    cross-entropy of every masked token with what was there

Rows and tokens without a label (`IGNORED`, or NaN for scores) cost nothing, and a batch without any label costs 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from bertshrink.data.encoding import IGNORED
from bertshrink.training.distributed.ranks import mean_over

PARTNER_SCALE = 20.0
"""What cosines are multiplied by before the softmax over a batch: between -1 and 1 it would stay flat."""


SPARSITY = 3e-5
"""The weight of `expected_products`: what sentence-transformers' examples take for documents (5e-5 for queries)."""


def task_loss(task: str, outputs: Mapping[str, Tensor], labels: Tensor, activation: str = "identity") -> Tensor:
    """The loss (scalar) of a batch.

    Args:
        task: a name in `TASKS`.
        activation: what makes a score of its logit, `identity` or `sigmoid`.
        labels: (B,) classes or scores, (B, C) zeros and ones, (B, L) tags or tokens, (B, 2) first and last token;
            of pairs, whose texts are two rows one after the other, (B / 2,) the cosines wanted.
    """
    return LOSSES[task](outputs, labels, activation)


def each_loss(task: str, outputs: Mapping[str, Tensor], labels: Tensor, activation: str = "identity") -> Tensor:
    """The sum of the texts' own losses, each a mean over what the text has labelled; arguments as of `task_loss`."""
    losses = [
        task_loss(
            task, {name: values[at : at + 1] for name, values in outputs.items()}, labels[at : at + 1], activation
        )
        for at in range(len(labels))
    ]
    return torch.stack(losses).sum()


def _of_answers(outputs: Mapping[str, Tensor], labels_B2: Tensor, activation: str) -> Tensor:
    first, last = (
        cross_entropy(outputs[name], labels_B2[:, at]) for at, name in enumerate(("start_logits", "end_logits"))
    )
    return (first + last) / 2


def _of_scores(outputs: Mapping[str, Tensor], labels_B: Tensor, activation: str) -> Tensor:
    scores_B = outputs["logits"][:, 0]
    return squared_error(torch.sigmoid(scores_B) if activation == "sigmoid" else scores_B, labels_B)


def _of_sets(outputs: Mapping[str, Tensor], labels_BC: Tensor, activation: str) -> Tensor:
    return binary_cross_entropy(outputs["logits"], labels_BC)


def _of_classes(outputs: Mapping[str, Tensor], labels: Tensor, activation: str) -> Tensor:
    return cross_entropy(outputs["logits"].flatten(0, -2), labels.flatten())


def _of_masked(outputs: Mapping[str, Tensor], labels_BL: Tensor, activation: str) -> Tensor:
    chosen = labels_BL != IGNORED
    return cross_entropy(outputs["logits"][chosen], labels_BL[chosen])


def _of_pairs(outputs: Mapping[str, Tensor], labels_B: Tensor, activation: str) -> Tensor:
    """Rows 0, 2, ... are the first texts, those behind them their second ones."""
    vectors = functional.normalize(outputs["sentence_embedding"], dim=-1)
    first, second = vectors[0::2], vectors[1::2]
    if torch.isnan(labels_B).all():
        return in_batch_contrastive(first, second)
    return squared_error((first * second).sum(dim=-1), labels_B)


def _of_sparse_pairs(outputs: Mapping[str, Tensor], labels_B: Tensor, activation: str) -> Tensor:
    """As `_of_pairs`; products are what a search with sparse vectors ranks by."""
    vectors = outputs["sentence_embedding"].float()
    cost = SPARSITY * expected_products(vectors)
    if not torch.isnan(labels_B).all():
        return _of_pairs(outputs, labels_B, activation) + cost
    return in_batch_contrastive(vectors[0::2], vectors[1::2], 1.0) + cost


LOSSES: dict[str, Callable[[Mapping[str, Tensor], Tensor, str], Tensor]] = {
    "classification": _of_classes,
    "multi-label": _of_sets,
    "regression": _of_scores,
    "token-classification": _of_classes,
    "question-answering": _of_answers,
    "embedding": _of_pairs,
    "sparse-embedding": _of_sparse_pairs,
    "mlm": _of_masked,
}
"""(outputs, labels, activation) -> loss, as `task_loss` tells them."""


def expected_products(vectors_BV: Tensor) -> Tensor:
    """The sum over the vocabulary of the squared mean number: the products that a search of such vectors takes.

    It keeps vectors sparse (FLOPS of Paria et al., arXiv:2004.05665, equation 7).
    """
    mean_V = mean_over(vectors_BV.abs().sum(dim=0), torch.tensor(float(len(vectors_BV)), device=vectors_BV.device))
    return (mean_V**2).sum()


def in_batch_contrastive(first_BH: Tensor, second_BH: Tensor, scale: float = PARTNER_SCALE) -> Tensor:
    """Cross-entropy of each text's own partner among the second texts of the batch, which are its wrong answers.

    Args:
        first_BH: unit vectors, or others whose products need no scale.
        second_BH: of their partners.
        scale: what products are multiplied by.
    """
    scores_BB = first_BH @ second_BH.T * scale
    return cross_entropy(scores_BB, torch.arange(len(scores_BB), device=scores_BB.device))


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
