"""AdamW and the gradients' norm where gradients of large tables are kept by rows (`torch.nn.Embedding(sparse=True)`).

A step is the same as with whole gradients: every row's moments decay and move it, and weight decay reaches all of
them. Only the gradient itself is not made again for each step: it is laid into a table of zeros, which stays, and taken
out again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class RowSparseAdamW(torch.optim.AdamW):
    """AdamW that takes gradients kept by rows. A gradient that was is gone after the step."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step of all parameters that have gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.step_apart()
        used: list[tuple[Tensor, Tensor]] = []
        for table in (one for group in self.param_groups for one in group["params"]):
            if table.grad is not None and table.grad.is_sparse:
                given = table.grad.coalesce()
                whole = self._zeros(table)
                rows = given.indices()[0]
                whole[rows] = given.values()
                table.grad = whole
                used.append((table, rows))
        super().step()
        for table, rows in used:
            table.grad[rows] = 0.0  # type: ignore[index]  # laid in above
            table.grad = None
        return loss

    def step_apart(self) -> None:
        """Step what learns by another rule; its gradients are gone afterwards."""

    def _zeros(self, table: Tensor) -> Tensor:
        """A table of zeros as large as this one, kept between steps; no part of the state."""
        rooms: dict[int, Tensor] = self.__dict__.setdefault("rooms", {})
        if id(table) not in rooms:
            rooms[id(table)] = torch.zeros_like(table)
        return rooms[id(table)]


def rows_of(gradient_VK: Tensor) -> tuple[Tensor, Tensor]:
    """(N) the rows of a table that have a gradient, however it is kept, and (N, K) what theirs are."""
    if gradient_VK.is_sparse:
        given = gradient_VK.coalesce()
        rows, values = given.indices()[0], given.values()
        touched = values.any(dim=1)
        return rows[touched], values[touched]
    rows = gradient_VK.any(dim=1).nonzero()[:, 0]
    return rows, gradient_VK[rows]


def has_rows(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether any gradient is kept by rows."""
    return any(one.grad is not None and one.grad.is_sparse for one in parameters)


def clip(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scale all gradients down to a norm of `most` together; returns the norm (scalar) that they had.

    As `torch.nn.utils.clip_grad_norm_`, which takes no gradients kept by rows; those of one row are summed up here.
    """
    gradients: list[Tensor] = []
    for one in parameters:
        if one.grad is None:
            continue
        if one.grad.is_sparse:
            one.grad = one.grad.coalesce()
            gradients.append(one.grad.values())
        else:
            gradients.append(one.grad)
    norm = nn.utils.get_total_norm(gradients)
    factor = most / (norm + 1e-6)
    if factor < 1:
        for gradient in gradients:
            gradient.mul_(factor)
    return norm
