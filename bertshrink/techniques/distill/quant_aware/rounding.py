"""What a weight or an activation is after it was stored in few bits, in PyTorch: the same numbers as `quantize` writes.

    int8 weights         s = max|w| / 127 of a row (an output of a dense layer, a token of a table); q = round(w / s)
    int4 weights         s = -w / 8 of the w of largest magnitude in a block of a row, so that it is on -8, and no
                         step is wasted; q = round(w / s), in -8..7
    uint8 activations    s = (high - low) / 255, z = round(-low / s), q = round(x / s) + z over the whole tensor, as
                         ONNX's DynamicQuantizeLinear measures it; `low` and `high` hold 0, so that 0 stays 0

What is given back is `s q` or `s (q - z)`, in float32 arithmetic. Rounding has no gradient; the straight-through
estimator (arXiv:1308.3432) hands on the one that came, unchanged: nothing is cut off by more than a step.

Written out, because PyTorch's own fake-quantize operators take 7 to 14 times as long on a CPU (an activation of 32 x 25
x 384: 1.7 ms and 0.25 ms, one thread).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

_TINY = float(torch.finfo(torch.float32).tiny)
SMALLEST_BLOCK = 16
"""ONNX Runtime's operators take powers of two from here on."""


class StraightThrough(torch.autograd.Function):
    """A rule of rounding forward, nothing at all backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:
        """What the rule makes of the values, in their type; computed in float32."""
        return rule(values.float()).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient that came."""
        return gradients[0], None


def rounded(values: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:
    """The values after `rule`, with the gradient of the values themselves."""
    rounded_values: Tensor = StraightThrough.apply(values, rule)  # type: ignore[no-untyped-call]
    return rounded_values


def int8_rows(weight_OI: Tensor) -> Tensor:
    """(..., I) as 8 bits hold it, symmetric, one scale per row; a row of zeros stays one."""
    scale_O1 = weight_OI.abs().amax(dim=-1, keepdim=True).clamp_(min=127 * _TINY).div_(127)
    return (weight_OI / scale_O1).round_().mul_(scale_O1)


def int4_rows(weight_OI: Tensor) -> Tensor:
    """(..., I) as 4 bits hold it, one scale per row, of the sign that lays its largest magnitude on -8."""
    low_O1, high_O1 = weight_OI.amin(dim=-1, keepdim=True), weight_OI.amax(dim=-1, keepdim=True)
    size_O1 = torch.maximum(-low_O1, high_O1).clamp_(min=8 * _TINY)
    scale_O1 = torch.where(-low_O1 >= high_O1, size_O1, -size_O1).div_(8)
    return (weight_OI / scale_O1).round_().clamp_(-8, 7).mul_(scale_O1)


def block_for(width: int, most: int) -> int:
    """The largest power of two up to `most` that divides a row; where none from 16 on does, no more than it needs."""
    sizes = [size for size in (256, 128, 64, 32, 16) if size <= most and width % size == 0]
    return sizes[0] if sizes else min(most, max(SMALLEST_BLOCK, 1 << (width - 1).bit_length()))


def by_block(weight_OI: Tensor, block: int, rule: Callable[[Tensor], Tensor]) -> Tensor:
    """(..., I) with `rule` for each block of each row: its scale is that of few neighbours.

    Args:
        weight_OI: rows.
        block: how many neighbours, at most (see `block_for`); a last block that is not full is filled up with zeros.
        rule: for rows.
    """
    width = weight_OI.shape[-1]
    block = block_for(width, block)
    filled = pad(weight_OI, (0, -width % block)) if width % block else weight_OI
    blocks_ONK = filled.reshape(*weight_OI.shape[:-1], -1, block)
    return rule(blocks_ONK).flatten(-2)[..., :width]


def uint8_tensor(values: Tensor) -> Tensor:
    """An activation as 8 bits hold it, asymmetric, one scale and one zero point for all of it."""
    least, greatest = torch.aminmax(values)
    low, high = least.clamp(max=0), greatest.clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, 1.0, scale)
    zero_point = (-low / scale).round_()
    return (values / scale).round_().add_(zero_point).clamp_(0, 255).sub_(zero_point).mul_(scale)
