"""The sizes in a graph whose inputs have known shapes: what can be told is told, and sums about sizes are done now.

Only numbers that come from shapes alone are computed (sizes, position ids); no weight is folded, moved or converted.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from bertshrink.onnx_graph.encoder_graph import array, initializers, tensor

_SUMS = frozenset(("Add", "Sub", "Mul", "Cast", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Range"))
_MAX_ELEMENTS = 4096
"""Of what is computed now: sizes and position ids; the longest input of any family has 4,096 positions at most."""


def known_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Value -> its shape, of inputs and of all that can be told from them."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {}
    for value in (*graph.input, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = [dim.dim_value for dim in dims]
    return shapes


def fold_sizes(model: onnx.ModelProto) -> None:
    """Replace what is computed from shapes alone by stored numbers, in place."""
    shapes = known_shapes(model)
    known = {name: array(stored) for name, stored in initializers(model).items() if _is_small(stored)}
    computed: dict[str, np.ndarray] = {}
    kept = []
    for node in model.graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes and not node.attribute:
            value = np.array(shapes[node.input[0]], dtype=np.int64)
        elif node.op_type in _SUMS and len(node.output) == 1 and all(name in known for name in node.input):
            (value,) = ReferenceEvaluator(node).run(None, {name: known[name] for name in node.input})
        else:
            kept.append(node)
            continue
        value = np.asarray(value)
        if value.dtype != np.int64 or value.size > _MAX_ELEMENTS:
            kept.append(node)
            continue
        known[node.output[0]] = computed[node.output[0]] = value
    read = {name for node in kept for name in node.input} | {value.name for value in model.graph.output}
    stored = [entry for entry in model.graph.initializer if entry.name in read]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(stored)
    model.graph.initializer.extend(tensor(value, name) for name, value in computed.items() if name in read)


def _is_small(stored: onnx.TensorProto) -> bool:
    return bool(stored.data_type == onnx.TensorProto.INT64) and math.prod(stored.dims) <= _MAX_ELEMENTS
