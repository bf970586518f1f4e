"""Shapes inside a graph, seen by running it on inputs of different batch and length.

Numbers do not matter to shapes, so large weights are zeros while it runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from bertshrink.engines.ort import onnxruntime
from bertshrink.onnx_graph.encoder_graph import tensor

SIZES = ((2, 3), (3, 5), (5, 4))
"""(batch, length): all different, and different from each other in both."""
_MAX_STORED = 4096
"""Elements; larger tensors are weights, and no shape is read from them."""


def observed_shapes(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, list[list[int]]]:
    """Value -> its shape at each of `SIZES`."""
    names = list(dict.fromkeys(names))
    if not names:
        return {}
    wider = without_numbers(model)
    shapes = [f"shape.{at}" for at in range(len(names))]
    for name, shape in zip(names, shapes, strict=True):
        wider.graph.node.append(onnx.helper.make_node("Shape", [name], [shape]))
    wider.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in shapes)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False  # which would keep a table of zeros that has been used
    session = onnxruntime.InferenceSession(wider.SerializeToString(), options, providers=["CPUExecutionProvider"])
    del wider
    observed: dict[str, list[list[int]]] = {name: [] for name in names}
    for sizes in SIZES:
        ones = np.ones(sizes, dtype=np.int64)
        values = session.run(shapes, {value.name: ones for value in model.graph.input})
        for name, value in zip(names, values, strict=True):
            observed[name].append(value.tolist())
    return observed


def without_numbers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which large weights are zeros, made when they are needed."""
    graph = onnx.GraphProto(
        name="shapes", input=model.graph.input, output=model.graph.output, value_info=model.graph.value_info
    )
    for stored in model.graph.initializer:
        if math.prod(stored.dims) <= _MAX_STORED:
            graph.initializer.append(stored)
            continue
        shape = tensor(np.array(stored.dims, dtype=np.int64), f"{stored.name}.dims")
        kind = onnx.helper.tensor_dtype_to_np_dtype(stored.data_type)
        value = tensor(np.zeros(1, dtype=kind), "")
        graph.initializer.append(shape)
        graph.node.append(onnx.helper.make_node("ConstantOfShape", [shape.name], [stored.name], value=value))
    graph.node.extend(model.graph.node)
    return onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)
