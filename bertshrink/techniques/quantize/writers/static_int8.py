"""Static int8: the activations' ranges are found beforehand, on calibration texts, and stored.

    x -> QuantizeLinear(s, z) -> DequantizeLinear(s, z) --.
    weight bytes -> DequantizeLinear(scales, axis=1) -----+-> MatMul -> the old bias Add

with s and z from the activation's range (`ranges`), one pair an activation, and a scale for each output of the
weight. This is ONNX's portable form of a quantized graph (QDQ): ONNX Runtime joins each such MatMul into
one integer kernel (MatMulIntegerToFloat), OpenVINO and accelerators read it as theirs. Values outside the range are
cut off; nothing is measured while the model runs, which `dynamic_int8` does for every batch, so an answer does not
depend on its neighbours in the batch.

Activations are unsigned and weights signed bytes, the pair that x86's 8-bit instructions multiply.

Embeddings: bytes with one scale per row, as `dynamic_int8` writes them.
"""

from __future__ import annotations

import numpy as np

from bertshrink.errors import UserError
from bertshrink.onnx_graph.encoder_graph import WeightMatMul
from bertshrink.techniques.quantize.numerics.ranges import activation_scale
from bertshrink.techniques.quantize.writers.builder import GraphBuilder
from bertshrink.techniques.quantize.writers.dynamic_int8 import right_side


def dense(draft: GraphBuilder, matmul: WeightMatMul) -> None:
    """Write a MatMul with a stored weight between dequantized bytes.

    Raises:
        UserError: no range is known for its activation.
    """
    left = activation(draft, matmul.node.input[0])
    right, scale = right_side(draft, matmul)
    floats = draft.node("DequantizeLinear", [right, scale], f"{right}.floats", axis=1)
    draft.node("MatMul", [left, floats], matmul.node.output[0])


def activation(draft: GraphBuilder, name: str) -> str:
    """Name of an activation's values after they have been bytes."""
    if name not in draft.options.ranges:
        raise UserError(f"`int8-static` needs a calibrated range of `{name}`")
    scale, zero_point = activation_scale(*draft.options.ranges[name])
    constants = [
        draft.keep(np.array(scale), f"{name}.static_scale"),
        draft.keep(np.array(zero_point), f"{name}.static_zero_point"),
    ]
    steps = draft.node("QuantizeLinear", [name, *constants], f"{name}.static_bytes")
    return draft.node("DequantizeLinear", [steps, *constants], f"{name}.static_floats")
