"""Dynamic int8: the activations become bytes while the model runs.

Dense layer                                         Embedding
    x -> DynamicQuantizeLinear -> bytes, sx, zx         ids -> Gather(table bytes) -> Cast --.
    MatMulInteger(bytes, weight bytes) -> Cast          ids -> Gather(row scales) -----------+-> Mul
    -> Mul(sx * weight scales) -> the old bias Add

Standard operators only; ONNX Runtime fuses a dense layer into one kernel (DynamicQuantizeMatMul) when it loads. Layers
that read the same x (query, key, value) share its DynamicQuantizeLinear. A table that a masked-language head multiplies
with is stored once for both: its row scales are the head's column scales.

Scales of activations are taken over a whole batch, padding included, so an output depends a little on its neighbours.
No calibration. Q8BERT (arXiv:1910.06188) trains with quantization; here nothing is trained.
"""

from __future__ import annotations

import numpy as np
import onnx

from bertshrink.onnx_graph.encoder_graph import WeightMatMul
from bertshrink.techniques.quantize.numerics.int8 import quantize_matrix
from bertshrink.techniques.quantize.writers.builder import GraphBuilder


def dense(draft: GraphBuilder, matmul: WeightMatMul) -> None:
    """Write a MatMul with a stored weight in integers."""
    left, left_scale, left_zero = activation(draft, matmul.node.input[0])
    right, scale = right_side(draft, matmul)
    output = matmul.node.output[0]
    sums = draft.node("MatMulInteger", [left, right, left_zero], f"{output}.sums")
    floats = draft.node("Cast", [sums], f"{output}.floats", to=onnx.TensorProto.FLOAT)
    step = draft.node("Mul", [left_scale, scale], f"{output}.step")
    draft.node("Mul", [floats, step], output)


def lookup(draft: GraphBuilder, node: onnx.NodeProto) -> None:
    """Write a Gather of table rows: bytes and scales looked up, then multiplied."""
    table, scale = weight(draft, node.input[0])
    ids, output = node.input[1], node.output[0]
    rows = draft.node("Gather", [table, ids], f"{output}.row_bytes", axis=0)
    steps = draft.node("Cast", [rows], f"{output}.steps", to=onnx.TensorProto.FLOAT)
    scales = draft.node("Gather", [scale, ids], f"{output}.row_scale", axis=0)
    draft.node("Mul", [steps, scales], output)


def weight(draft: GraphBuilder, name: str) -> tuple[str, str]:
    """Names of a weight's bytes and scales; the scales are (rows, 1) of a table, (outputs,) of a dense layer."""
    parts = f"{name}.bytes", f"{name}.scale"
    if parts[0] not in draft.added:
        is_table = draft.weights[name].is_table
        axis = 1 if is_table else 0 if draft.options.per_channel else None
        quantized = draft.options.columns.get(name) or quantize_matrix(draft.weight(name), axis)
        draft.keep(quantized.bytes_IO, parts[0])
        draft.keep(quantized.scale if is_table else quantized.scale.reshape(-1), parts[1])
    return parts


def right_side(draft: GraphBuilder, matmul: WeightMatMul) -> tuple[str, str]:
    """Names of a dense layer's weight bytes (inputs, outputs) and scales (outputs,) or (1,).

    A tied table's rows become columns. The scales have one axis, as ONNX Runtime's fused kernels want them.
    """
    right, scale = weight(draft, matmul.weight)
    if draft.weights[matmul.weight].is_table:
        flat = draft.keep(np.array([-1], dtype=np.int64), "flat")
        scale = draft.node("Reshape", [scale, flat], f"{scale}.flat")
    if matmul.is_transposed:
        right = draft.node("Transpose", [right], f"{right}.T", perm=[1, 0])
    return right, scale


def activation(draft: GraphBuilder, name: str) -> tuple[str, str, str]:
    """Names of an activation's bytes, scale and zero point."""
    parts = (f"{name}.bytes", f"{name}.scale", f"{name}.zero_point")
    if parts[0] not in draft.made:
        draft.made.update(parts)
        kind = "DynamicQuantizeLinear"
        draft.nodes.append(onnx.helper.make_node(kind, [name], list(parts), f"{name}/{kind}"))
    return parts
