"""Weights in blocks of 4 or 8 bits: the maths, on numpy arrays alone.

Each row is cut into blocks of `block_size` neighbours, and each block has a scale s and a zero point z of its own:
    w ~ (q - z) s,    q an integer in 0..2^bits - 1
Symmetric: z is 2^(bits-1) everywhere and not stored. Four bits then reach -8..7, and s takes the sign that lays the
block's largest magnitude on -8, so that no step is wasted; eight bits keep to -127..127 with s > 0, as `int8` does.
Asymmetric: z is stored, and the range always holds 0, so that 0 stays exact.

Scales by search: for a few ranges smaller (or slightly larger) than the block's own, round, then take the scale that
fits those integers best. With steps n = q - z and weights of importance a, the squared error sum a (w - s n)^2 is least
at s = sum(a w n) / sum(a n^2), where it is sum(a w^2) - sum(a w n)^2 / sum(a n^2): the range with the largest last term
wins, and no residual need be computed. Clipping the extremes to shrink every step is OCTAV's bargain
(arXiv:2206.06501), found here by looking; scales for small blocks instead of whole rows are ZeroQuant-V2's
(arXiv:2303.08302). On the dense layers of six-layer MiniLM, blocks of 32, the search lowers the squared error by 11 %
(4 bits, symmetric), 7 % (4, asymmetric), 10 % (8, symmetric) and 4 % (8, asymmetric), and the sign by 22 % against 7
steps either side.

Cost: one float32 scale and, asymmetric, one zero point a block: blocks of 32 at 4 bits take 5 bits a weight, 5.125 with
zero points. Errors of one weight are not balanced by its neighbours; `gptq` does that.

Packed for ONNX Runtime: MatMulNBits (dense layers) and GatherBlockQuantized (tables) read the same bytes in the same
order, low nibble first, where blocks divide the row: a table that a head multiplies with can be stored once.

Letters: R rows (outputs of a dense layer, or tokens of a table), I inputs (or a table's width), B blocks of a row,
K places in a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

_FACTORS = {
    (4, True): np.linspace(8 / 7, 0.7, 12),
    (4, False): np.linspace(1, 0.7, 12),
    (8, True): np.linspace(1, 0.97, 8),
    (8, False): np.linspace(1, 0.97, 8),
}
"""Ranges tried, as parts of a block's own, by bits and symmetry. 8/7 is the range of -7..7 told in steps of -8..7.
Sixty factors down to 0.5 lower the error of four bits by less than 0.2 % more, of eight bits by less than 2 %."""

_CHUNK_ELEMENTS = 1 << 17
"""Elements searched at a time: half a megabyte a temporary array stays in the cache."""


@dataclass(frozen=True)
class Blocks:
    """A matrix in blocks along its last axis.

    Attributes:
        steps_RI: uint8 in 0..2^num_bits - 1, one a byte, the matrix's shape.
        scale_RB: float32, what one step is worth; B = ceil(I / block_size), the last block may be short.
        zero_point_RB: uint8, the step that stands for 0; None: `default_zero_point` everywhere.
        num_bits: 4 or 8.
        block_size: places in a block.
    """

    steps_RI: NDArray[np.uint8]
    scale_RB: NDArray[np.float32]
    zero_point_RB: NDArray[np.uint8] | None
    num_bits: int
    block_size: int

    @property
    def default_zero_point(self) -> int:
        """The zero point of a symmetric matrix: 8 or 128."""
        return 1 << (self.num_bits - 1)

    @property
    def size_bytes(self) -> int:
        """Bytes when stored: packed steps, scales and packed zero points (padding of short blocks left out)."""
        zero_points = 0 if self.zero_point_RB is None else self.zero_point_RB.size
        return (self.steps_RI.size + zero_points) * self.num_bits // 8 + self.scale_RB.nbytes


def quantize_blocks(
    weight_RI: Floats,
    num_bits: int,
    block_size: int,
    *,
    symmetric: bool,
    search: bool = True,
    importance_I: Floats | None = None,
) -> Blocks:
    """Quantize a matrix in blocks along its last axis, each weight to the nearest step.

    Args:
        weight_RI: finite numbers.
        num_bits: 4 or 8.
        block_size: places in a block; the packed forms want a power of two of at least 16.
        symmetric: no zero points.
        search: look for the scales of least squared error, instead of covering the block's range.
        importance_I: what a squared error in each column counts, 0 or more; all alike when None.

    Raises:
        ValueError: numbers that are not finite, not a matrix, or bits or a block size that there are not.
    """
    rows, width = check_request(weight_RI, num_bits, block_size)
    weight_BK = _in_blocks(weight_RI.astype(np.float32, copy=False), block_size)  # all rows' blocks, one after another
    weight_BK = weight_BK.reshape(-1, block_size)
    importance_BK = None
    if importance_I is not None:
        one_row = _in_blocks(importance_I.astype(np.float32)[None], block_size)[0]
        importance_BK = np.broadcast_to(one_row, (rows, *one_row.shape)).reshape(-1, block_size)
    steps_BK = np.empty(weight_BK.shape, np.uint8)
    scale_B, zero_B = (np.empty(len(weight_BK), np.float32) for _ in range(2))
    for part in _chunks(*weight_BK.shape):
        important = None if importance_BK is None else importance_BK[part]
        scale_B[part], zero_B[part] = fit_scales(
            weight_BK[part], num_bits, symmetric=symmetric, search=search, importance_NK=important
        )
        steps_BK[part] = round_to_steps(weight_BK[part], scale_B[part, None], zero_B[part, None], num_bits, symmetric)
    steps_RI = np.ascontiguousarray(steps_BK.reshape(rows, -1)[:, :width])
    zero_point_RB = None if symmetric else zero_B.reshape(rows, -1).astype(np.uint8)
    return Blocks(steps_RI, scale_B.reshape(rows, -1), zero_point_RB, num_bits, block_size)


def dequantize(blocks: Blocks) -> NDArray[np.float32]:
    """The float32 matrix (R, I) that the blocks stand for: (q - z) s, as ONNX Runtime computes it."""
    width, each = blocks.steps_RI.shape[1], blocks.block_size
    steps_RBK = _in_blocks(blocks.steps_RI.astype(np.float32), each)
    if blocks.zero_point_RB is None:
        steps_RBK -= np.float32(blocks.default_zero_point)
    else:
        steps_RBK -= blocks.zero_point_RB[..., None].astype(np.float32)
    steps_RBK *= blocks.scale_RB[..., None]
    return np.ascontiguousarray(steps_RBK.reshape(len(steps_RBK), -1)[:, :width])


def check_request(weight_RI: Floats, num_bits: int, block_size: int) -> tuple[int, int]:
    """The matrix's shape.

    Raises:
        ValueError: numbers that are not finite, not a matrix, or bits or a block size that there are not.
    """
    rows, width = weight_RI.shape if weight_RI.ndim == 2 else (0, 0)
    if rows * width == 0 or not np.isfinite(weight_RI).all():
        raise ValueError(f"a matrix of finite numbers is needed, not {weight_RI.shape} of {weight_RI.dtype}")
    if num_bits not in (4, 8) or block_size < 1:
        raise ValueError(f"{num_bits} bits in blocks of {block_size}: only 4 and 8 bits, blocks of at least 1")
    return rows, width


def fit_scales(
    weight_NK: Floats, num_bits: int, *, symmetric: bool, search: bool, importance_NK: Floats | None = None
) -> tuple[Floats, Floats]:
    """Scale and zero point of each of N blocks; see this file's opening for the search.

    Returns:
        scale (N,), never 0, and zero point (N,), a whole number; both in the weights' type.
    """
    low_N, high_N = np.minimum(weight_NK.min(1), 0), np.maximum(weight_NK.max(1), 0)
    best_N, zero = _scales_of_range(low_N, high_N, num_bits, symmetric)
    if not search:
        return best_N, zero
    gain_N = np.zeros_like(best_N)
    weighted_NK = weight_NK if importance_NK is None else weight_NK * importance_NK
    for factor in _FACTORS[num_bits, symmetric].astype(best_N.dtype):
        scale_N, zero_N = _scales_of_range(low_N * factor, high_N * factor, num_bits, symmetric)
        steps_NK = _nearest_steps(weight_NK, scale_N[:, None], zero_N[:, None], num_bits, symmetric)
        cross_N = np.einsum("nk,nk->n", weighted_NK, steps_NK)
        if importance_NK is None:
            square_N = np.einsum("nk,nk->n", steps_NK, steps_NK)
        else:
            square_N = np.einsum("nk,nk,nk->n", importance_NK, steps_NK, steps_NK)
        fitted_N = cross_N / np.maximum(square_N, np.finfo(square_N.dtype).tiny)
        better = cross_N * fitted_N > gain_N
        gain_N = np.where(better, cross_N * fitted_N, gain_N)
        best_N, zero = np.where(better, fitted_N, best_N), np.where(better, zero_N, zero)
    return best_N, zero


def round_to_steps(weight: Floats, scale: Floats, zero: Floats, num_bits: int, symmetric: bool) -> Floats:
    """The nearest integers 0..2^bits - 1 (as floats) for weights with scales and zero points of a shape that fits."""
    return _nearest_steps(weight, scale, zero, num_bits, symmetric) + zero


def pack_matmul_nbits(
    blocks: Blocks,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8] | None]:
    """The tensors of ONNX Runtime's MatMulNBits with N = rows, K = I and this `bits` and `block_size`.

    Returns:
        B, uint8 (N, number of blocks, block_size * bits / 8); scales, float32 (N, number of blocks); zero points, uint8
        (N, ceil(number of blocks * bits / 8)), None when symmetric (the operator's default is the same).

    Raises:
        ValueError: a block size that the operator does not take.
    """
    _refuse_block_size(blocks.block_size)
    steps_RBK = _in_blocks(blocks.steps_RI, blocks.block_size)
    zero_points = None if blocks.zero_point_RB is None else _packed(blocks.zero_point_RB, blocks.num_bits)
    return _packed(steps_RBK, blocks.num_bits), blocks.scale_RB, zero_points


def pack_gather(
    blocks: Blocks,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8] | None]:
    """The tensors of ONNX Runtime's GatherBlockQuantized with gather_axis 0, quantize_axis 1 and this `bits`.

    The operator also takes UINT4 and INT4 tensors; bytes with the `bits` attribute serve 4 and 8 bits alike.

    Returns:
        data, uint8 (R, I * bits / 8); scales, float32 (R, number of blocks); zero points, uint8
        (R, ceil(number of blocks * bits / 8)), None when symmetric (the operator's default for bytes is the same).

    Raises:
        ValueError: a block size that the operator does not take, or 4 bits and an odd width.
    """
    _refuse_block_size(blocks.block_size)
    if blocks.num_bits == 4 and blocks.steps_RI.shape[1] % 2:
        raise ValueError(f"two 4-bit numbers share a byte: a table of odd width {blocks.steps_RI.shape[1]} has no form")
    zero_points = None if blocks.zero_point_RB is None else _packed(blocks.zero_point_RB, blocks.num_bits)
    return _packed(blocks.steps_RI, blocks.num_bits), blocks.scale_RB, zero_points


def _scales_of_range(low_N: Floats, high_N: Floats, num_bits: int, symmetric: bool) -> tuple[Floats, Floats]:
    """Scales and zero points that cover low..high, which holds 0; a range of nothing gets the smallest scale."""
    half, top = 1 << (num_bits - 1), (1 << num_bits) - 1
    tiny = np.finfo(low_N.dtype).tiny
    if not symmetric:
        scale_N = np.maximum((high_N - low_N) / top, tiny)
        return scale_N, np.rint(-low_N / scale_N).clip(0, top)
    size_N = np.maximum(np.maximum(-low_N, high_N), tiny * half)
    signed_N = np.where(-low_N >= high_N, size_N, -size_N)
    scale_N = size_N / (half - 1) if num_bits == 8 else signed_N / half
    return scale_N, np.full_like(scale_N, half)


def _nearest_steps(weight: Floats, scale: Floats, zero: Floats, num_bits: int, symmetric: bool) -> Floats:
    """Steps from zero, q - z, nearest to the weights."""
    half, top = 1 << (num_bits - 1), (1 << num_bits) - 1
    steps = np.rint(weight / scale)
    lowest = (1 - half if num_bits == 8 else -half) if symmetric else -zero
    return np.clip(steps, lowest, half - 1 if symmetric else top - zero, out=steps)


def _in_blocks(matrix_RI: NDArray[Any], block_size: int) -> NDArray[Any]:
    """(R, I) as (R, B, K), the last block filled with 0."""
    missing = -matrix_RI.shape[1] % block_size
    filled = np.pad(matrix_RI, ((0, 0), (0, missing))) if missing else matrix_RI
    return filled.reshape(len(matrix_RI), -1, block_size)


def _chunks(count: int, width: int) -> Iterator[slice]:
    """Slices of at most `_CHUNK_ELEMENTS` numbers over `count` rows of `width`."""
    each = max(1, _CHUNK_ELEMENTS // width)
    return (slice(start, start + each) for start in range(0, count, each))


def _packed(values: NDArray[np.uint8], num_bits: int) -> NDArray[np.uint8]:
    """Pairs along the last axis in one byte, the first in its low half; 8 bits as they are."""
    if num_bits == 8:
        return values
    filled = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, values.shape[-1] % 2)])
    return filled[..., ::2] | (filled[..., 1::2] << np.uint8(4))


def _refuse_block_size(block_size: int) -> None:
    """Refuse what both operators refuse."""
    if block_size < 16 or block_size & (block_size - 1):
        raise ValueError(f"ONNX Runtime takes blocks of a power of two of at least 16, not of {block_size}")
