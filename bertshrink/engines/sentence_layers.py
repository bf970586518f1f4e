"""The dense layers and norms of sentence-transformers behind a pooling, as modules with that library's weight names.

dense   `linear.weight`, `linear.bias`; `residual.weight` where it adds its input at another width
norm    `norm.weight`, `norm.bias`
unit    none
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FILE = "model.safetensors"
"""Of a layer's weights, in its folder."""


class Dense(nn.Module):
    """activation(W x + b), perhaps with x or R x added: (B, I) to (B, O)."""

    def __init__(self, inputs: int, outputs: int, activation: str, *, bias: bool, residual: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=bias)
        self.activation: nn.Module = getattr(nn, activation)()
        self.adds = residual
        if residual and inputs != outputs:
            self.residual = nn.Linear(inputs, outputs, bias=False)

    def forward(self, vectors_BI: Tensor) -> Tensor:
        """The layer's answer."""
        answer_BO: Tensor = self.activation(self.linear(vectors_BI))
        if not self.adds:
            return answer_BO
        return answer_BO + (self.residual(vectors_BI) if hasattr(self, "residual") else vectors_BI)


class Norm(nn.Module):
    """LayerNorm of vectors."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)

    def forward(self, vectors_BH: Tensor) -> Tensor:
        """The layer's answer."""
        answer_BH: Tensor = self.norm(vectors_BH)
        return answer_BH


class Unit(nn.Module):
    """Vectors made one long."""

    def forward(self, vectors_BH: Tensor) -> Tensor:
        """The layer's answer."""
        return torch.nn.functional.normalize(vectors_BH, dim=-1)


def build(described: Sequence[Mapping[str, Any]]) -> nn.ModuleList:
    """Layers with weights of no meaning.

    Args:
        described: `kind`, `inputs`, `outputs`, `activation` (a class of torch.nn), `bias` and `residual` of each.
    """
    return nn.ModuleList(_layer(**one) for one in described)


def _layer(
    kind: str, path: str, inputs: int, outputs: int, activation: str, *, bias: bool, residual: bool
) -> nn.Module:
    if kind == "unit":
        return Unit()
    return Norm(inputs) if kind == "norm" else Dense(inputs, outputs, activation, bias=bias, residual=residual)


def load(described: Sequence[Mapping[str, Any]], folder: Path) -> nn.ModuleList:
    """The layers of a folder, float32, in eval mode.

    Args:
        described: as of `build`, each with its `path` below `folder`.

    Raises:
        RuntimeError: stored weights that are not those of the layer.
    """
    from safetensors.torch import load_file

    layers = build(described).float()
    for one, layer in zip(described, layers, strict=True):
        if one["path"]:
            layer.load_state_dict(load_file(folder / one["path"] / FILE))
    return layers.eval()
