"""A graph that computes in float16 or bfloat16, in float32: the same numbers are stored, each as a float32, and every
conversion to half becomes one to float32. What it gives is nearer to the model that was halved than the graph itself.
"""

from __future__ import annotations

import numpy as np
import onnx

from bertshrink.onnx_graph.encoder_graph import array, initializers, tensor
from bertshrink.onnx_graph.weights import assembled

_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_TYPES = ("to", "dtype")
"""Attributes that name an element type."""


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in float32.

    Args:
        model: canonical, without branches, its inputs and outputs not in half; it is not changed.
    """
    stored = {
        name: tensor(array(one).astype(np.float32), name) if one.data_type in _HALF else one
        for name, one in initializers(model).items()
    }
    nodes = []
    for original in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for attribute in node.attribute:
            if attribute.name in _TYPES and attribute.i in _HALF:
                attribute.i = onnx.TensorProto.FLOAT
            if attribute.HasField("t") and attribute.t.data_type in _HALF:
                attribute.t.CopyFrom(tensor(array(attribute.t).astype(np.float32), attribute.t.name))
        nodes.append(node)
    return assembled(model, nodes, stored)


def has_half(model: onnx.ModelProto) -> bool:
    """Whether a canonical graph stores numbers in half, and so computes in it: weights that are only stored so are
    float32 by then.
    """
    return any(one.data_type in _HALF for one in model.graph.initializer)
