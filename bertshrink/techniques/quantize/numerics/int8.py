"""Eight-bit numbers: the maths, on numpy arrays alone.

Symmetric: with s = max|w| / 127 over a column (or a row, or the whole weight), q = round(w / s) is in -127..127 and
q s approximates w to within s / 2.

Signed bytes: unsigned activations times signed weights is what VNNI's and AMX's instructions multiply. That ONNX
Runtime is slower there with unsigned weights is assumed, not measured. x86 CPUs with neither add two such products in
16 bits, which can overflow: exact numbers then need the extreme of both, which real activations seldom reach
(all-MiniLM-L6-v2 on an AVX2 machine: mean cosine 0.9906, and 0.9918 with unsigned weights, which that kernel
multiplies exactly and a fifth slower). The agreement check runs on the machine at hand and so contains it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LARGEST = 127


@dataclass(frozen=True)
class Int8:
    """A quantized matrix.

    Attributes:
        bytes_IO: int8 in -127..127, the matrix's shape.
        scale: float32, (1, O), (I, 1) or (1, 1): what one step is worth.
    """

    bytes_IO: NDArray[np.int8]
    scale: NDArray[np.float32]

    def dequantize(self) -> NDArray[np.float32]:
        """The float32 matrix that the bytes stand for."""
        floats_IO: NDArray[np.float32] = self.bytes_IO.astype(np.float32) * self.scale
        return floats_IO


def quantize_matrix(weight_IO: NDArray[np.float32], axis: int | None) -> Int8:
    """Quantize a matrix (I, O).

    Args:
        weight_IO: float32.
        axis: where the largest magnitude is taken: 0 gives a scale to each column, 1 to each row, None one to all.
    """
    largest = np.abs(weight_IO).max(axis=axis, keepdims=True)
    scale = (np.maximum(largest, np.finfo(np.float32).tiny * _LARGEST) / _LARGEST).astype(np.float32)
    steps = np.rint(weight_IO / scale).clip(-_LARGEST, _LARGEST)
    return Int8(steps.astype(np.int8), scale)
