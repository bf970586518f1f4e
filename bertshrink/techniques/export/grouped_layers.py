"""Dense layers whose inputs and outputs are cut into groups, while a graph is made of the encoder.

The class multiplies all groups with one weight of three axes, (groups, I, O), for which the group has to be the first
axis of the states. A product of each group with a matrix of its own gives the same numbers, and `quantize` knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def grouped_as_dense(model: Any) -> Iterator[None]:
    """While it is open, each grouped layer of a model answers as ever, by a matrix for each group."""
    grouped = [module for module in model.modules() if _is_grouped(module)]
    for module in grouped:
        for at, matrix in enumerate(module.weight.detach()):
            module.register_buffer(f"weight_{at}", matrix.contiguous(), persistent=False)
        module.forward = _by_group(module)
    try:
        yield
    finally:
        for module in grouped:
            del module.forward
            for at in range(len(module.weight)):
                delattr(module, f"weight_{at}")


def _is_grouped(module: Any) -> bool:
    """Whether a module is a dense layer with a weight of three axes."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim == 3 and hasattr(module, "group_in_dim")


def _by_group(module: Any) -> Callable[[Tensor], Tensor]:
    matrices = [getattr(module, f"weight_{at}") for at in range(len(module.weight))]

    def forward(states_BLI: Tensor) -> Tensor:
        parts = torch.split(states_BLI, module.group_in_dim, dim=-1)
        products = [part @ matrix for part, matrix in zip(parts, matrices, strict=True)]
        out_BLO: Tensor = torch.cat(products, dim=-1) + module.bias
        return out_BLO

    return forward
