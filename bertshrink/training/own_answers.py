"""Losses on answers that are drawn from the model itself: their squared gradients are the Fisher information.

The divergence of a model from its own answers has no gradient where it stands; how it curves there is the mean square
of the gradient of the loss on answers drawn from it, and no label is needed. Vectors have no loss of their own: a
product with a random vector stands in, whose squared gradient is, on average, the squared change of the vector.

B batch, L length, C classes, H hidden size
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from bertshrink.data.encoding import IGNORED
from bertshrink.engines.torch_session import SENTENCE
from bertshrink.training.losses import task_loss

_ASKED = 7
"""Of masked-language models one token in so many is asked for: each has a number for every word."""


def own_loss(
    task: str, outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str = "identity"
) -> Tensor:
    """The sum over the texts of a batch of each one's loss on answers drawn from these outputs.

    Args:
        task: a name in `TASKS`.
        outputs: by the names in `TASKS`.
        generator: what answers are drawn with.
        activation: what makes a score of its logit, `identity` or `sigmoid`.
    """
    return OWN_LOSSES[task](task, outputs, mask_BL, generator, activation)


def each_loss(task: str, outputs: Mapping[str, Tensor], labels: Tensor, activation: str) -> Tensor:
    """The sum of the texts' own losses, each a mean over what the text has labelled; arguments as of `task_loss`."""
    losses = [
        task_loss(
            task, {name: values[at : at + 1] for name, values in outputs.items()}, labels[at : at + 1], activation
        )
        for at in range(len(labels))
    ]
    return torch.stack(losses).sum()


_OwnLoss = Callable[[str, Mapping[str, Tensor], Tensor, torch.Generator, str], Tensor]


def _on(draw: Callable[[Mapping[str, Tensor], Tensor, torch.Generator, str], Tensor]) -> _OwnLoss:
    """The loss on labels that are drawn from the model's own answers."""

    def loss(
        task: str, outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str
    ) -> Tensor:
        with torch.no_grad():
            labels = draw(outputs, mask_BL, generator, activation)
        return each_loss(task, outputs, labels, activation)

    return loss


def _drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One class for each row of logits (..., C)."""
    return torch.multinomial(logits.flatten(0, -2).softmax(-1), 1, generator=generator).reshape(logits.shape[:-1])


def _classes(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    return _drawn(outputs["logits"], generator)


def _sets(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    return torch.bernoulli(outputs["logits"].sigmoid(), generator=generator)


def _scores(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    scores_B = outputs["logits"][:, 0]
    score_B = scores_B.sigmoid() if activation == "sigmoid" else scores_B
    return score_B + torch.randn(score_B.shape, generator=generator)


def _tags(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    return _drawn(outputs["logits"], generator).masked_fill(mask_BL == 0, IGNORED)


def _words(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    asked_BL = (torch.rand(mask_BL.shape, generator=generator) < 1 / _ASKED) & (mask_BL == 1)
    words_BL = torch.full(mask_BL.shape, IGNORED)
    if asked_BL.any():
        words_BL[asked_BL] = _drawn(outputs["logits"][asked_BL], generator)
    return words_BL


def _ends(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    names = ("start_logits", "end_logits")
    return torch.stack([_drawn(outputs[name].masked_fill(mask_BL == 0, -1e9), generator) for name in names], dim=1)


def _vectors(
    task: str, outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str
) -> Tensor:
    unit_BH = functional.normalize(outputs[SENTENCE], dim=-1)
    return (unit_BH * torch.randn(unit_BH.shape, generator=generator)).sum()


OWN_LOSSES: dict[str, _OwnLoss] = {
    "classification": _on(_classes),
    "multi-label": _on(_sets),
    "regression": _on(_scores),
    "token-classification": _on(_tags),
    "question-answering": _on(_ends),
    "embedding": _vectors,
    "sparse-embedding": _vectors,
    "mlm": _on(_words),
}
"""(task, outputs, mask (B, L), generator, activation) -> the sum of the texts' losses on labels that are drawn."""
