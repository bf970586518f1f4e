"""Weights stored in half the bytes: float16 or bfloat16, and one Cast that brings each back to float32.

    weight (half)  -> Cast -> weight (float32) -> every MatMul and Gather that read it before

Arithmetic stays float32. ONNX Runtime's CPU computes the Cast once, when it loads the file, so the model then runs at
float32's speed and in its memory; OpenVINO keeps such weights half and multiplies in what suits the machine. The file
and what is sent over a wire halve; nothing else does.

float16 has 11 bits of mantissa and ends at 65504; bfloat16 has 8 bits and float32's range. Norms and biases stay
float32: a thousandth of the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from bertshrink.errors import CheckFailed
from bertshrink.onnx_graph.encoder_graph import array, initializers, tensor
from bertshrink.onnx_graph.weights import assembled, weights

HalfType = Literal["float16", "bfloat16"]

_ELEMENTS = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}


def store_half(
    model: onnx.ModelProto,
    dtype: HalfType,
    names: Collection[str] | None = None,
    keep: Callable[[NDArray[Any], str], onnx.TensorProto] = tensor,
) -> onnx.ModelProto:
    """The same graph with weights stored in half precision.

    Args:
        model: a canonical float32 graph; it is not changed.
        dtype: `float16` or `bfloat16`.
        names: the initializers to store so; None: all weights (`weights`).
        keep: what makes a stored tensor of the new numbers: (numbers, name).

    Returns:
        a new model.

    Raises:
        CheckFailed: a weight is too large for float16.
    """
    chosen = weights(model) if names is None else names
    casts, kept = [], {}
    for name, stored in initializers(model).items():
        if name not in chosen:
            kept[name] = stored
        else:
            half = keep(_narrow(array(stored), dtype, name), f"{name}.half")
            kept[half.name] = half
            casts.append(onnx.helper.make_node("Cast", [half.name], [name], f"{name}/Cast", to=onnx.TensorProto.FLOAT))
    return assembled(model, [*casts, *model.graph.node], kept)


def _narrow(weight: np.ndarray, dtype: HalfType, name: str) -> np.ndarray:
    """The weight in fewer bits, each number to the nearest."""
    with np.errstate(over="ignore"):
        half = weight.astype(onnx.helper.tensor_dtype_to_np_dtype(_ELEMENTS[dtype]))
    if not np.isfinite(half).all():
        raise CheckFailed(
            f"`{name}` holds numbers up to {np.abs(weight).max():.3g}, and the largest {dtype} is 65504",
            hint="use bfloat16, which has float32's range",
        )
    return half
