"""Operators that ONNX Runtime joined, apart again where they hold a weight or a table, so that it can be quantized.

FusedGemm                Gemm, then its activation
Attention                qkv = x W + b, cut into q, k and v, then MultiHeadAttention(q, k, v, mask): the same numbers,
                         and ONNX Runtime runs both on a CPU. QAttention, the operator of integers, is no way: it takes
                         inputs that are integers already, with one scale for all texts
EmbedLayerNormalization  Gather (words), Gather (positions), Add, Gather (types), SkipLayerNormalization; the number of
                         tokens of each text, where Attention reads it as its mask: ReduceSum of the mask

All are ONNX Runtime's own (domain com.microsoft); its optimizers write them. What holds more than these parts (a past,
turned positions, a mask of another form, an activation with settings that are not given) stays as it is.

They write LayerNormalization into graphs of any opset, too. It is ONNX's own since opset 17, and ONNX takes a graph of
an older one for invalid: there it is spelled out, (x - mean) / sqrt(variance + epsilon) * gain + shift, and ONNX
Runtime joins it again when it loads the file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from bertshrink.onnx_graph.encoder_graph import CONTRIB, initializers, tensor

_PLAIN = ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign")
_WITH_ALPHA = ("LeakyRelu", "Elu")
_SHARED = ("num_heads", "scale", "mask_filter_value", "unidirectional")
"""Settings that Attention and MultiHeadAttention both have."""
_AXES_AS_INPUT = 13
"""The opset since which Split and ReduceSum take sizes and axes as an input."""
_MASK, _PAST, _BIAS = 3, 4, 5
"""Places of Attention's inputs behind its own weight and bias; those behind `_BIAS` belong to a past."""


def unfused(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function with joined operators apart; the model itself where there are none.

    Args:
        model: it is not changed.
    """
    kinds = {"FusedGemm": _gemm, "Attention": _attention, "EmbedLayerNormalization": _embedding}
    if not any(node.domain == CONTRIB and node.op_type in kinds for node in model.graph.node):
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = _Graph(made)
    nodes: list[onnx.NodeProto] = []
    for node in made.graph.node:
        split = kinds.get(node.op_type) if node.domain == CONTRIB else None
        nodes += (split(node, graph) if split is not None else None) or [node]
    made.graph.ClearField("node")
    made.graph.node.extend(nodes)
    return made


class _Graph:
    """What is known of a graph's values."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.stored = initializers(model)
        self.opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        graph = onnx.shape_inference.infer_shapes(model).graph
        values = (*graph.input, *graph.value_info, *graph.output)
        self.ranks = {
            one.name: len(one.type.tensor_type.shape.dim) for one in values if one.type.tensor_type.HasField("shape")
        }
        self.numbers = {  # of each text's tokens; other masks of one axis say more than that
            node.output[1]
            for node in model.graph.node
            if node.op_type == "EmbedLayerNormalization" and len(node.output) > 1
        }
        self.read = {name for node in model.graph.node for name in node.input}

    def keep(self, value: Any, name: str) -> str:
        """Store numbers; returns their name."""
        self.model.graph.initializer.append(tensor(np.asarray(value), name))
        return name


def _settings(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}


def _gemm(node: onnx.NodeProto, graph: _Graph) -> list[onnx.NodeProto] | None:
    said = _settings(node)
    kind, alpha = said.pop("activation", b"").decode(), said.pop("activation_alpha", None)
    if kind in _WITH_ALPHA and alpha is not None:
        bent = {"alpha": alpha}
    elif kind in _PLAIN:
        bent = {}
    else:
        return None
    plain = {name: said[name] for name in ("alpha", "beta", "transA", "transB") if name in said}
    name = node.name or node.output[0]
    product = f"{node.output[0]}.unbent"
    return [
        onnx.helper.make_node("Gemm", list(node.input), [product], f"{name}/Gemm", **plain),
        onnx.helper.make_node(kind, [product], list(node.output), f"{name}/{kind}", **bent),
    ]


def _attention(node: onnx.NodeProto, graph: _Graph) -> list[onnx.NodeProto] | None:
    said, given = _settings(node), [*node.input, *[""] * 6]
    mask, past, bias = given[_MASK], given[_PAST], given[_BIAS]
    weight = graph.stored.get(given[1])
    has_more = any(given[_BIAS + 1 :]) or any(node.output[1:]) or said.get("do_rotary") or past
    is_known = not mask or mask in graph.numbers or graph.ranks.get(mask) == 2
    if weight is None or len(weight.dims) != 2 or has_more or not is_known:
        return None
    sizes = said.get("qkv_hidden_sizes") or [weight.dims[1] // 3] * 3
    name, out = node.name or node.output[0], node.output[0]
    joined, parts = f"{out}.qkv", [f"{out}.{one}" for one in ("query", "key", "value")]
    nodes = [onnx.helper.make_node("MatMul", [given[0], given[1]], [joined], f"{name}/MatMul")]
    if given[2]:
        nodes.append(onnx.helper.make_node("Add", [joined, given[2]], [f"{joined}.shifted"], f"{name}/Add"))
        joined = nodes[-1].output[0]
    if graph.opset >= _AXES_AS_INPUT:
        cut = [joined, graph.keep(np.array(sizes, np.int64), f"{out}.sizes")]
        nodes.append(onnx.helper.make_node("Split", cut, parts, f"{name}/Split", axis=-1))
    else:
        nodes.append(onnx.helper.make_node("Split", [joined], parts, f"{name}/Split", axis=-1, split=sizes))
    inputs = [*parts, "", mask, bias]
    while not inputs[-1]:
        inputs.pop()
    shared = {key: said[key] for key in _SHARED if key in said}
    nodes.append(
        onnx.helper.make_node(
            "MultiHeadAttention", inputs, [out], f"{name}/MultiHeadAttention", domain=CONTRIB, **shared
        )
    )
    return nodes


def _embedding(node: onnx.NodeProto, graph: _Graph) -> list[onnx.NodeProto] | None:
    ids, types, words, places, kinds, gain, shift, mask, positions = [*node.input, *[""] * 9][:9]
    numbers, total = [*node.output[1:], "", ""][:2]
    counts = numbers in graph.read - {""}  # without a mask it gives zeros, of which no encoder makes anything
    stored = all(name in graph.stored for name in (words, places, kinds))
    if not types or not stored or (counts and not mask):
        return None
    name, out = node.name or node.output[0], node.output[0]
    nodes: list[onnx.NodeProto] = []

    def add(kind: str, inputs: list[str], part: str, **settings: Any) -> str:
        nodes.append(onnx.helper.make_node(kind, inputs, [f"{out}.{part}"], f"{name}/{part}", **settings))
        return f"{out}.{part}"

    if not positions:
        second = graph.keep(np.array(1, np.int64), f"{out}.second")
        length = add("Gather", [add("Shape", [ids], "shape"), second], "length")
        bounds = [graph.keep(np.array(at, np.int64), f"{out}.{word}") for at, word in ((0, "from"), (1, "step"))]
        positions = add("Range", [bounds[0], length, bounds[1]], "positions")
    rows = [add("Gather", [words, ids], "words"), add("Gather", [places, positions], "places")]
    inputs = [add("Add", rows, "placed"), add("Gather", [kinds, types], "types"), gain, shift]
    epsilon = _settings(node).get("epsilon", 1e-12)
    outputs = [out, "", "", total] if total else [out]
    nodes.append(
        onnx.helper.make_node(
            "SkipLayerNormalization", inputs, outputs, f"{name}/Norm", domain=CONTRIB, epsilon=epsilon
        )
    )
    if counts:
        settings: dict[str, Any] = {"keepdims": 0}
        summed = [mask]
        if graph.opset >= _AXES_AS_INPUT:
            summed.append(graph.keep(np.array([1], np.int64), f"{out}.axes"))
        else:
            settings["axes"] = [1]
        nodes.append(onnx.helper.make_node("ReduceSum", summed, [numbers], f"{name}/Number", **settings))
    return nodes


_HAS_NORMS = 17
"""The opset that brought LayerNormalization."""


def with_plain_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with LayerNormalization spelled out where its opset has none; the model itself where it is valid.

    Args:
        model: it is not changed.
    """
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    gains = initializers(model)
    joined = {
        node.output[0]
        for node in model.graph.node
        if (node.op_type, node.domain) == ("LayerNormalization", "")
        and _settings(node).get("axis", -1) == -1
        and len(node.input) > 1
        and not any(node.output[1:])
        and getattr(gains.get(node.input[1]), "data_type", None) == onnx.TensorProto.FLOAT
    }
    if opset >= _HAS_NORMS or not joined:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.ClearField("node")
    for node in model.graph.node:
        made.graph.node.extend(_norm(node, made) if node.output[0] in joined else [node])
    return made


def _norm(node: onnx.NodeProto, model: onnx.ModelProto) -> list[onnx.NodeProto]:
    out, last = node.output[0], {"axes": [-1], "keepdims": 1}
    model.graph.initializer.append(tensor(np.array(_settings(node).get("epsilon", 1e-5), np.float32), f"{out}.epsilon"))
    has_shift = len(node.input) > 2 and node.input[2] != ""
    parts: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("ReduceMean", [node.input[0]], "mean", last),
        ("Sub", [node.input[0], f"{out}.mean"], "centred", {}),
        ("Mul", [f"{out}.centred", f"{out}.centred"], "squares", {}),
        ("ReduceMean", [f"{out}.squares"], "variance", last),
        ("Add", [f"{out}.variance", f"{out}.epsilon"], "floor", {}),
        ("Sqrt", [f"{out}.floor"], "deviation", {}),
        ("Div", [f"{out}.centred", f"{out}.deviation"], "scaled", {}),
        ("Mul", [f"{out}.scaled", node.input[1]], "weighted", {}),
        *([("Add", [f"{out}.weighted", node.input[2]], "", {})] if has_shift else []),
    ]
    names = [f"{out}.{part}" for *_, part, _ in parts[:-1]] + [out]
    return [
        onnx.helper.make_node(kind, inputs, [made], f"{made}/{kind}", **settings)
        for (kind, inputs, _, settings), made in zip(parts, names, strict=True)
    ]
