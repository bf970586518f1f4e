"""Replace the sums about shapes in front of every `Reshape` by a constant.

A traced model computes each reshape's target again: the batch from one Shape, the length from another, joined with -1
and the head size; four small nodes a reshape. ONNX can say the same in a constant: a number, 0 (as the input has it
here), or -1 (what is left).

Which of the three each place is, is seen by running the graph on inputs of different batch and length: a size that
never changes is a number, one that always equals the input's is 0, and a single other one is -1. A reshape that fits
neither stays. The parity check, at other shapes, is the proof.
"""

from __future__ import annotations

import numpy as np
import onnx

from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import array, initializers, tensor
from bertshrink.techniques.export.observed_shapes import observed_shapes


def fix_reshapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with constant reshape targets wherever one exists."""
    stored = initializers(model)
    nodes = [node for node in model.graph.node if node.op_type == "Reshape" and is_open(node, stored)]
    if not nodes:
        return model
    shapes = observed_shapes(model, [name for node in nodes for name in (node.input[0], node.output[0])])
    for node in nodes:
        target = constant_target(list(zip(shapes[node.input[0]], shapes[node.output[0]], strict=True)))
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
