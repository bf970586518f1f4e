"""One form for every encoder's graph, so that what follows can rely on it.

Exporters leave shared weights behind `Transpose` or `Identity` nodes (where quantizers overlook them), or fold them
once per use (where a shared weight is stored many times), keep shape notes that go stale, and repeat the same small
sums in every layer. One sweep in the graph's order fixes all of it:

    Constant                     becomes a stored tensor; equal tensors (by bytes) are stored once
    Identity, Dropout            vanish, and so does a Cast of an input to the type that it has
    Gemm                         becomes MatMul + Add: one form for every dense layer
    a node seen before           gives way to the first one (same operator, attributes and inputs)
    a node of stored inputs      is computed now, once per distinct weight, where `constant_folding` knows its size
    what nothing reads           vanishes, with all `value_info`

One Transpose stays: that of an embedding table which a tied head multiplies with. Folding it would store the table
twice; engines fold it when they load.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import onnx
from numpy.typing import NDArray

from bertshrink.onnx_graph.constant_folding import computed, evaluate
from bertshrink.onnx_graph.encoder_graph import RANDOM_OPS, array, initializers, tensor
from bertshrink.onnx_graph.external_data import digest, first_bytes, is_external
from bertshrink.onnx_graph.weights import assembled

_PASSED_THROUGH = ("Identity", "Dropout")


def canonicalise(
    model: onnx.ModelProto, keep: Callable[[NDArray[Any], str], onnx.TensorProto] = tensor
) -> onnx.ModelProto:
    """The same function as a canonical graph (see this file's opening); a second pass changes nothing.

    Args:
        model: it is not changed.
        keep: what makes a stored tensor of what is computed: (numbers, name).

    Returns:
        a new model; inputs and outputs keep their names.
    """
    sweep = _Canonicalizer(model, keep)
    for node in model.graph.node:
        sweep.take(node)
    return sweep.result()


class _Canonicalizer:
    """One pass over a graph: `alias` says by which name a value goes now."""

    def __init__(self, model: onnx.ModelProto, keep: Callable[[NDArray[Any], str], onnx.TensorProto]) -> None:
        self.model = model
        self.keep_tensor = keep
        self.outputs = {value.name for value in model.graph.output}
        self.types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
        self.alias: dict[str, str] = {}
        self.stored: dict[str, onnx.TensorProto] = {}
        self.alike: dict[tuple[object, ...], list[str]] = defaultdict(list)
        self.seen: dict[tuple[object, ...], list[str]] = {}
        self.nodes: list[onnx.NodeProto] = []
        for name, stored in initializers(model).items():
            self.store(name, stored)
        self.tables = self.looked_up()

    def store(self, name: str, stored: onnx.TensorProto) -> None:
        """Keep a tensor, or let its name mean the equal one kept before."""
        alike = self.alike[stored.data_type, tuple(stored.dims), first_bytes(stored)]  # reading all takes long
        equal = (other for other in alike if digest(self.stored[other]) == digest(stored))
        first = None if name in self.outputs else next(equal, None)
        if first is not None:
            self.alias[name] = first
        else:
            alike.append(name)
            has_numbers = stored.HasField("raw_data") or is_external(stored)
            in_form = has_numbers and stored.name == name and not stored.HasField("doc_string")
            self.stored[name] = stored if in_form else self.keep_tensor(array(stored), name)  # a copy costs

    def looked_up(self) -> set[str]:
        """The stored tensors that an embedding reads, `Identity` looked through."""
        origin = {name: self.alias.get(name, name) for name in initializers(self.model)}
        for node in self.model.graph.node:
            if node.op_type in _PASSED_THROUGH and node.input[0] in origin:
                origin[node.output[0]] = origin[node.input[0]]
        gathers = (node for node in self.model.graph.node if node.op_type == "Gather")
        return {origin[node.input[0]] for node in gathers if node.input[0] in origin}

    def take(self, original: onnx.NodeProto) -> None:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        node.ClearField("doc_string")
        node.ClearField("metadata_props")  # exporters leave whole stack traces
        node.input[:] = [self.alias.get(name, name) for name in node.input]
        is_output = any(name in self.outputs for name in node.output)
        if node.op_type == "Constant" and not is_output:
            self.store(node.output[0], self.keep_tensor(evaluate(node, {}), node.output[0]))
        elif (node.op_type in _PASSED_THROUGH or self.casts_nothing(node)) and not is_output:
            self.alias[node.output[0]] = node.input[0]
        elif node.op_type == "Gemm" and _is_plain_gemm(node):
            for part in _split_gemm(node):
                self.take(part)
        else:
            self.keep(node, is_output)

    def casts_nothing(self, node: onnx.NodeProto) -> bool:
        """Whether this gives an input the type that it has; OpenVINO calls the input by this node's name, too."""
        if node.op_type != "Cast":
            return False
        return bool(onnx.helper.get_node_attr_value(node, "to") == self.types.get(node.input[0]))

    def keep(self, node: onnx.NodeProto, is_output: bool) -> None:
        """Fold the node, find it among those seen, or append it."""
        key = (node.op_type, node.domain, tuple(node.input), _attributes(node))
        if key in self.seen and not is_output and node.op_type not in RANDOM_OPS:
            self.alias.update(zip(node.output, self.seen[key], strict=True))
            return
        if not is_output and self.fold(node):
            self.seen[key] = [self.alias.get(name, name) for name in node.output]
            return
        self.seen.setdefault(key, list(node.output))
        self.nodes.append(node)

    def fold(self, node: onnx.NodeProto) -> bool:
        """Compute a node of stored inputs now; False when it has to stay."""
        if len(node.output) != 1 or not node.input:
            return False
        if not all(name in self.stored for name in node.input) or self.is_tied(node):
            return False
        feeds = {name: array(self.stored[name]) for name in node.input}
        value = computed(node, feeds)
        if value is None:
            return False
        turned = f"{node.input[0]}.T"
        is_turned = node.op_type == "Transpose" and value.ndim == 2 and turned not in self.stored
        name = turned if is_turned else node.output[0]
        self.store(name, self.keep_tensor(value, name))
        if name != node.output[0]:
            self.alias[node.output[0]] = self.alias.get(name, name)
        return True

    def is_tied(self, node: onnx.NodeProto) -> bool:
        """Whether this is the Transpose of a table that an embedding reads as well."""
        return node.op_type == "Transpose" and node.input[0] in self.tables

    def result(self) -> onnx.ModelProto:
        model = assembled(self.model, self.nodes, self.stored)
        given = [v for v in model.graph.input if v.name not in self.stored and v.name not in self.alias]
        model.graph.ClearField("value_info")
        del model.graph.input[:]
        model.graph.input.extend(given)
        return model


def _attributes(node: onnx.NodeProto) -> tuple[bytes, ...]:
    return tuple(sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute))


def _is_plain_gemm(node: onnx.NodeProto) -> bool:
    settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return settings.get("alpha", 1.0) == 1.0 and settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)


def _split_gemm(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A (M, I) Gemm as [Transpose,] MatMul[, Add]."""
    settings = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    name, right, parts = node.name or node.output[0], node.input[1], []
    if settings.get("transB", 0):
        parts.append(onnx.helper.make_node("Transpose", [right], [f"{name}.turned"], f"{name}/Transpose", perm=[1, 0]))
        right = f"{name}.turned"
    has_bias = len(node.input) > 2 and node.input[2] != ""
    product = f"{name}.product" if has_bias else node.output[0]
    parts.append(onnx.helper.make_node("MatMul", [node.input[0], right], [product], f"{name}/MatMul"))
    if has_bias:
        parts.append(onnx.helper.make_node("Add", [product, node.input[2]], [node.output[0]], f"{name}/Add"))
    return parts
