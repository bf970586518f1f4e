"""Dense layers whose stored weight is all zeros: what a whole sub-layer comes to when all of its units are gone.

    residual + (x @ 0 + bias)   becomes   residual + bias
    residual + x @ 0            becomes   residual

What made x is then read by nobody, and `canonicalise` leaves it out.
"""

from __future__ import annotations

import onnx

from bertshrink.onnx_graph.encoder_graph import array, initializers, weight_matmuls


def drop_zero_products(model: onnx.ModelProto) -> int:
    """Take products with zeros out of the sums that they are added in, in place; returns how many.

    One that goes elsewhere than into a sum with other states is left alone: its shape counts.
    """
    stored = initializers(model)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    given = {value.name for value in model.graph.output}
    renamed: dict[str, str] = {}
    number = 0
    for matmul in weight_matmuls(model):
        if array(stored[matmul.weight]).any():
            continue
        value, bias = matmul.node.output[0], ""
        added = _sum_of(value, readers, given)
        if added is not None and (other := _other(added, value)) in stored and len(stored[other].dims) == 1:
            value, bias = added.output[0], other
            added = _sum_of(value, readers, given)
        if added is None or (residual := _other(added, value)) in stored:
            continue
        number += 1
        if bias:
            added.input[:] = [bias if name == value else name for name in added.input]
        elif added.output[0] not in given:
            renamed[added.output[0]] = residual
    for node in model.graph.node:
        node.input[:] = [_last(name, renamed) for name in node.input]
    return number


def _sum_of(value: str, readers: dict[str, list[onnx.NodeProto]], given: set[str]) -> onnx.NodeProto | None:
    """The Add that a value goes into, where it goes nowhere else."""
    nodes = readers.get(value, [])
    is_only = len(nodes) == 1 and nodes[0].op_type == "Add" and value not in given
    return nodes[0] if is_only else None


def _other(node: onnx.NodeProto, value: str) -> str:
    """The other side of a sum."""
    first, second = node.input
    return str(second if first == value else first)


def _last(name: str, renamed: dict[str, str]) -> str:
    while name in renamed:
        name = renamed[name]
    return name
