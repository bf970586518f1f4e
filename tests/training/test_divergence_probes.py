"""The mean squared gradient of a probe is how the divergence from a model's own answers curves."""

import pytest
import torch

from bertshrink.model.tasks import TASKS
from bertshrink.training.divergence_probes import PROBES, probe


def squares(task, outputs, weights, number, mask=None, activation="identity"):
    """The mean squared derivative by `weights`, of which outputs are made."""
    generator, total = torch.Generator().manual_seed(0), torch.zeros_like(weights)
    for _ in range(number):
        made = outputs(weights)
        batch = next(iter(made.values())).shape[0]
        mask_BL = torch.ones(batch, 3, dtype=torch.int64) if mask is None else mask
        total += torch.autograd.grad(probe(task, made, mask_BL, generator, activation), weights)[0] ** 2
    return total / number


def curvature(divergence, weights):
    """The diagonal of the Hessian of a divergence from the answers at `weights`, by autograd."""
    return torch.autograd.functional.hessian(divergence, weights).diagonal()


def kl(before, after):
    return torch.nn.functional.kl_div(after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="sum")


INPUTS = torch.tensor([[0.5, -1.0, 2.0, 0.3], [1.5, 0.2, -0.7, 1.0], [0.1, 0.9, 1.1, -2.0]])


def test_of_classes_it_is_that_of_their_divergence():
    weights = torch.tensor([1.0, 2.0, -0.5, 0.4], requires_grad=True)
    logits = (INPUTS * weights.detach()).sum(dim=1)[None]
    wanted = curvature(lambda w: kl(logits, (INPUTS * w).sum(dim=1)[None]), weights.detach())
    found = squares("classification", lambda w: {"logits": (INPUTS * w).sum(dim=1)[None]}, weights, 4000)
    assert torch.allclose(found, wanted, rtol=0.15)


def test_of_coins_it_is_that_of_theirs():
    weights = torch.tensor([1.0, 2.0, -0.5, 0.4], requires_grad=True)
    chance = (INPUTS * weights.detach()).sum(dim=1).sigmoid()

    def divergence(w):
        return torch.nn.functional.binary_cross_entropy_with_logits((INPUTS * w).sum(dim=1), chance, reduction="sum")

    found = squares("multi-label", lambda w: {"logits": (INPUTS * w).sum(dim=1)[None]}, weights, 4000)
    assert torch.allclose(found, curvature(divergence, weights.detach()), rtol=0.15)


def test_of_a_score_it_is_that_of_half_the_squared_error():
    weights = torch.tensor([0.3], requires_grad=True)
    for activation in ("identity", "sigmoid"):
        bent = torch.sigmoid if activation == "sigmoid" else torch.Tensor.clone
        wanted = torch.autograd.functional.jacobian(lambda w, bent=bent: bent(2 * w), weights.detach()) ** 2
        found = squares("regression", lambda w: {"logits": 2 * w[None]}, weights, 4000, activation=activation)
        assert torch.allclose(found, wanted[0], rtol=0.1)


def test_of_vectors_it_is_the_squared_change_of_their_directions():
    weights = torch.tensor([1.0, 2.0, -0.5, 0.4], requires_grad=True)
    unit = lambda w: torch.nn.functional.normalize(INPUTS[:, :4] * w, dim=-1)[:1]  # noqa: E731
    wanted = torch.autograd.functional.jacobian(unit, weights.detach()).square().sum(dim=(0, 1))
    found = squares("embedding", lambda w: {"sentence_embedding": (INPUTS[:, :4] * w)[:1]}, weights, 4000)
    assert torch.allclose(found, wanted, rtol=0.15)


def test_of_tokens_it_is_the_mean_of_those_that_are_no_padding():
    weights = torch.tensor([1.0, 2.0, -0.5, 0.4], requires_grad=True)
    states = torch.stack([INPUTS, 2 * INPUTS, 9 * INPUTS])  # three tokens, the last one padding
    mask = torch.tensor([[1, 1, 0]])
    each = [
        squares("classification", lambda w, s=s: {"logits": (s * w).sum(dim=1)[None]}, weights, 3000)
        for s in states[:2]
    ]
    found = squares("token-classification", lambda w: {"logits": (states * w).sum(dim=2)[None]}, weights, 4000, mask)
    assert torch.allclose(found, (each[0] + each[1]) / 2, rtol=0.2)


def test_padding_is_no_answer():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    loss = probe(
        "question-answering", {"start_logits": logits, "end_logits": logits}, mask, torch.Generator().manual_seed(0)
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 2] == 0
    assert (gradient.abs() > 0).sum() == 5


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_one(task):
    assert task in PROBES


def test_words_are_asked_for_at_some_tokens():
    logits = torch.randn(4, 30, 11, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = torch.ones(4, 30, dtype=torch.int64)
    mask[:, 25:] = 0
    (gradient,) = torch.autograd.grad(probe("mlm", {"logits": logits}, mask, torch.Generator().manual_seed(1)), logits)
    asked = gradient.abs().sum(dim=-1) > 0
    assert 5 <= int(asked.sum()) <= 30
    assert not asked[:, 25:].any()
