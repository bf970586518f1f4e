"""The weights of a group of layers, from the layers that it replaces.

A group of n layers reads states x_0 and gave x_1 .. x_n. One layer f takes their place, n times over. Three ways:

    mean     the mean of each weight; neurons and heads are in no order, so it is rarely near any of them
    best     the layer of the group with the least error
    fitted   the better of these two, then Adam on the error

    error = mean over j = 1..n, tokens and numbers of (f^j(y_0) - x_j)^2 / mean x_j^2

y_0 is what the shared groups before it give, not x_0: an error that came before can still be made good.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bertshrink.progress import Task
from bertshrink.training.optim.adam import fit_adam

_JUDGED = 12
"""Batches, about, that layers are compared on."""


@dataclass(frozen=True)
class GroupBatch:
    """Rows of one batch between two layers.

    Attributes:
        given_BLH: what the next layer reads in the shared model.
        wanted_BLH: what it read in the model that is shared.
        mask_BL: True at attended positions.
    """

    given_BLH: Tensor
    wanted_BLH: Tensor
    mask_BL: Tensor

    @property
    def bias_B11L(self) -> Tensor:
        """What is added to scores of attention: nothing, or the least number at padding."""
        hidden = ~self.mask_BL[:, None, None, :]
        return torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min)


def group_weights(
    layers: Sequence[nn.Module],
    batches: Sequence[GroupBatch],
    method: str,
    steps: int,
    learning_rate: float,
    task: Task,
) -> tuple[nn.Module, list[GroupBatch], float, float]:
    """The layer that stands for `layers`.

    Args:
        layers: of the group, called as (states (B, L, H), bias (B, 1, 1, L)) -> states.
        batches: at the group's start.
        method: `mean`, `best` or `fitted`.

    Returns:
        the layer; the batches at the group's end; the error at the start and at the end of fitting.
    """
    targets = [_targets(layers, batch) for batch in batches]
    layer = copy.deepcopy(layers[0])
    if len(layers) == 1 and all(torch.equal(batch.given_BLH, batch.wanted_BLH) for batch in batches):
        start = end = 0.0
    else:
        layer, start = _start(layers, batches, targets, method)
        end = start
        if method == "fitted":
            _fit(layer, batches, targets, steps, learning_rate, task)
            end = _error(layer, batches, targets)
    after = []
    with torch.no_grad():
        for batch, wanted in zip(batches, targets, strict=True):
            states = batch.given_BLH
            for _ in layers:
                states = layer(states, batch.bias_B11L)
            after.append(replace(batch, given_BLH=states, wanted_BLH=wanted[-1]))
    return layer, after, start, end


def mean_of(layers: Sequence[nn.Module]) -> nn.Module:
    """A layer whose weights are the mean of those of `layers`."""
    mean = copy.deepcopy(layers[0])
    weights = [dict(layer.named_parameters()) for layer in layers]
    with torch.no_grad():
        for name, parameter in mean.named_parameters():
            parameter.copy_(torch.stack([given[name] for given in weights]).mean(0))
    return mean


@torch.no_grad()
def _targets(layers: Sequence[nn.Module], batch: GroupBatch) -> list[Tensor]:
    """What the layers gave, one after another."""
    targets, states = [], batch.wanted_BLH
    for layer in layers:
        states = layer(states, batch.bias_B11L)
        targets.append(states)
    return targets


def _start(
    layers: Sequence[nn.Module], batches: Sequence[GroupBatch], targets: Sequence[list[Tensor]], method: str
) -> tuple[nn.Module, float]:
    candidates = [] if method == "mean" else [copy.deepcopy(layer) for layer in layers]
    candidates += [] if method == "best" else [mean_of(layers)]
    errors = [_error(layer, batches, targets) for layer in candidates]
    best = min(range(len(errors)), key=errors.__getitem__)
    return candidates[best], errors[best]


def _loss(layer: nn.Module, batch: GroupBatch, wanted: Sequence[Tensor]) -> Tensor:
    states, total = batch.given_BLH, torch.zeros(())
    for target in wanted:
        states = layer(states, batch.bias_B11L)
        there = target[batch.mask_BL]
        total = total + (states[batch.mask_BL] - there).square().mean() / there.square().mean()
    return total / len(wanted)


@torch.no_grad()
def _error(layer: nn.Module, batches: Sequence[GroupBatch], targets: Sequence[list[Tensor]]) -> float:
    """Of some batches, evenly taken; each token has the same weight."""
    every = max(1, len(batches) // _JUDGED)
    some = list(zip(batches, targets, strict=True))[::every]
    tokens = [int(batch.mask_BL.sum()) for batch, _ in some]
    losses = [float(_loss(layer, batch, wanted)) for batch, wanted in some]
    return sum(number * loss for number, loss in zip(tokens, losses, strict=True)) / sum(tokens)


def _fit(
    layer: nn.Module,
    batches: Sequence[GroupBatch],
    targets: Sequence[list[Tensor]],
    steps: int,
    learning_rate: float,
    task: Task,
) -> None:
    """Adam on the error, its rate falling to zero in a line."""
    order = _rounds(len(batches))

    def loss() -> Tensor:
        number = next(order)
        return _loss(layer, batches[number], targets[number])

    fit_adam(list(layer.parameters()), loss, steps, learning_rate, clip=1.0, task=task)


def _rounds(number: int) -> Iterator[int]:
    """Numbers of batches without end, every one once a round, in an order that is always the same."""
    generator = torch.Generator().manual_seed(0)
    while True:
        yield from torch.randperm(number, generator=generator).tolist()
