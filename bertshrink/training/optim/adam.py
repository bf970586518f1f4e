"""Adam on a loss for some steps: how a part of a model is fitted to numbers that are at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bertshrink.progress import Task


def fit_adam(
    parameters: Sequence[Tensor],
    loss_of: Callable[[], Tensor],
    steps: int,
    learning_rate: float,
    *,
    weight_decay: float = 0.0,
    clip: float | None = None,
    task: Task | None = None,
) -> None:
    """Change `parameters` in place; the learning rate falls to zero in a line.

    Args:
        loss_of: the loss of the next step, a scalar.
        learning_rate: of the first step.
        weight_decay: decoupled (AdamW).
        clip: most that the gradient's norm may be.
    """
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, learning_rate, weight_decay=weight_decay, fused=True)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for _ in range(steps):
        with torch.enable_grad():
            loss = loss_of()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        falling.step()
        if task is not None:
            task.advance(1)
