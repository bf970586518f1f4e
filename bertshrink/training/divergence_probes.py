"""Random directions of a model's outputs, whose squared gradients tell how it diverges from its own answers.

The divergence of a changed model from its own answers has no gradient where it stands, and curves by the Fisher
information J' F J: J is the outputs' derivative, F how the divergence curves in the outputs. With B B' = F and a random
vector r, the squared derivative of (B r) . outputs is on average just that. So one backward pass and no label serve.

    classes      KL of softmax:     B = diag(sqrt p) - p sqrt(p)'
    decisions    KL of each coin:   B = diag(sqrt(p (1 - p)))
    scores       half the squared error, also of a sigmoid's answer:   B = 1
    vectors      half the squared distance of unit vectors             B = I

Labels that are drawn from the answers have the same mean (Kunstner et al., arXiv:1905.12558, section 2), but of a model
that is sure of itself hardly one text in a hundred would then say anything.

B batch, L length, C classes, H hidden size
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from bertshrink.engines.torch_session import SENTENCE

_ASKED = 7
"""Of masked-language models one token in so many is asked for: each has a number for every word."""


def probe(
    task: str, outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str = "identity"
) -> Tensor:
    """The sum (scalar) over the texts of a batch of a random direction of each one's outputs.

    Of a text with many answers, one a token, the mean over them counts.

    Args:
        task: a name in `TASKS`.
        outputs: by the names in `TASKS`.
        mask_BL: 1 at tokens.
        activation: what makes a score of its logit, `identity` or `sigmoid`.
    """
    return PROBES[task](outputs, mask_BL, generator, activation)


def _random(shape: torch.Size, generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.randn(shape, generator=generator).to(like)


def _softmax(logits: Tensor, generator: torch.Generator) -> Tensor:
    """(..., C) -> (...)."""
    with torch.no_grad():
        share = logits.float().softmax(dim=-1)
        turned = share.sqrt() * _random(share.shape, generator, share)
        direction = turned - share * turned.sum(dim=-1, keepdim=True)
    return (direction * logits.float()).sum(dim=-1)


def _classes(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    return _softmax(outputs["logits"], generator).sum()


def _sets(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    logits_BC = outputs["logits"].float()
    with torch.no_grad():
        chance_BC = logits_BC.sigmoid()
        direction_BC = (chance_BC * (1 - chance_BC)).sqrt() * _random(logits_BC.shape, generator, logits_BC)
    return (direction_BC * logits_BC).sum()


def _scores(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    logits_B = outputs["logits"][:, 0].float()
    scores_B = logits_B.sigmoid() if activation == "sigmoid" else logits_B
    return (scores_B * _random(scores_B.shape, generator, scores_B)).sum()


def _over_tokens(values_BL: Tensor, asked_BL: Tensor) -> Tensor:
    """Directions of tokens are independent, so that the square of their sum is the sum of their squares: the root of
    their number makes it a mean.
    """
    number_B = asked_BL.sum(dim=1).clamp(min=1)
    return ((values_BL * asked_BL).sum(dim=1) / number_B.sqrt()).sum()


def _tags(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    return _over_tokens(_softmax(outputs["logits"], generator), mask_BL)


def _words(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    asked_BL = (torch.rand(mask_BL.shape, generator=generator).to(mask_BL.device) < 1 / _ASKED) & (mask_BL == 1)
    logits = outputs["logits"]
    values_BL = logits.new_zeros(mask_BL.shape).masked_scatter(asked_BL, _softmax(logits[asked_BL], generator))
    return _over_tokens(values_BL, asked_BL)


def _ends(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    ends = [outputs[name].masked_fill(mask_BL == 0, -1e9) for name in ("start_logits", "end_logits")]
    return sum((_softmax(end_BL, generator).sum() for end_BL in ends), start=torch.zeros(()))


def _vectors(outputs: Mapping[str, Tensor], mask_BL: Tensor, generator: torch.Generator, activation: str) -> Tensor:
    unit_BH = functional.normalize(outputs[SENTENCE].float(), dim=-1)
    return (unit_BH * _random(unit_BH.shape, generator, unit_BH)).sum()


PROBES: dict[str, Callable[[Mapping[str, Tensor], Tensor, torch.Generator, str], Tensor]] = {
    "classification": _classes,
    "multi-label": _sets,
    "regression": _scores,
    "token-classification": _tags,
    "question-answering": _ends,
    "embedding": _vectors,
    "sparse-embedding": _vectors,
    "mlm": _words,
}
"""(outputs, mask (B, L), generator, activation) -> as `probe`."""
