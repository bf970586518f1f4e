"""Replace the sums about shapes in front of every `Reshape` by a constant.

A traced model computes each reshape's target again: the batch from one Shape, the length from another, joined with -1
and the head size; four small nodes a reshape. ONNX can say the same in a constant: a number, 0 (as the input has it
here), or -1 (what is left).

Which of the three each place is, is seen by running the graph on inputs of different batch and length: a size that
never changes is a number, one that always equals the input's is 0, and a single other one is -1. A reshape that fits
neither stays. The parity check, at other shapes, is the proof.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from bertshrink.engines.ort import onnxruntime
from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import array, initializers, tensor

_MAX_STORED = 4096
"""Elements; larger tensors are weights, and no shape is read from them."""
_PROBES = ((2, 3), (3, 5), (5, 4))
"""(batch, length): all different, and different from each other in both."""


def fix_reshapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with constant reshape targets wherever one exists."""
    stored = initializers(model)
    nodes = [node for node in model.graph.node if node.op_type == "Reshape" and is_open(node, stored)]
    if not nodes:
        return model
    for node, seen in zip(nodes, probe(model, nodes), strict=True):
        target = constant_target(seen)
        if target is not None:
            name = f"{node.output[0]}.target"
            model.graph.initializer.append(tensor(np.array(target, dtype=np.int64), name))
            node.input[1] = name
    return canonicalise(model)


def is_open(node: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> bool:
    """Whether a reshape's target is computed, or stored with a -1 in it."""
    return node.input[1] not in stored or -1 in array(stored[node.input[1]])


def constant_target(seen: list[tuple[list[int], list[int]]]) -> list[int] | None:
    """The target that explains every (shape before, shape after) seen; None when there is none."""
    target = []
    for place in range(len(seen[0][1])):
        sizes = {after[place] for _, after in seen}
        if len(sizes) == 1:
            target.append(sizes.pop())
        elif all(place < len(before) and after[place] == before[place] for before, after in seen):
            target.append(0)
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None


def without_numbers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which large weights are zeros, made when they are needed: shapes do not depend on them, memory does."""
    graph = onnx.GraphProto(name="probe", input=model.graph.input, output=model.graph.output)
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


def probe(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[list[tuple[list[int], list[int]]]]:
    """Run the graph on every probe; for each reshape a list of (shape before, shape after)."""
    wider = without_numbers(model)
    shapes = []
    for at, value in enumerate(name for node in nodes for name in (node.input[0], node.output[0])):
        shapes.append(f"probe.{at}")
        wider.graph.node.append(onnx.helper.make_node("Shape", [value], shapes[-1:]))
    wider.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None) for name in shapes)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False  # which would keep a table of zeros that has been used
    session = onnxruntime.InferenceSession(wider.SerializeToString(), options, providers=["CPUExecutionProvider"])
    del wider
    observed: list[list[tuple[list[int], list[int]]]] = [[] for _ in nodes]
    for sizes in _PROBES:
        ones = np.ones(sizes, dtype=np.int64)
        values = [value.tolist() for value in session.run(shapes, {value.name: ones for value in model.graph.input})]
        for at, seen in enumerate(observed):
            seen.append((values[2 * at], values[2 * at + 1]))
    return observed
