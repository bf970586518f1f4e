"""Give an ONNX encoder of any exporter the inputs and outputs that `engines` describes.

    inputs     int64 under bertshrink's names; a Cast in front where the graph wants another type
    outputs    the task's, under its names, and a sentence encoder's token vectors; others (`pooler_output`) are dropped
    pooling    appended where a sentence encoder's graph ends in token vectors, as `sentence_embedding`:
                   mean   sum(mask * h) / max(sum(mask), 1e-9)          h of token vectors (B, L, H)
                   cls    h[:, 0]
                   max    max over tokens of h, padding at the lowest float
                   mean_sqrt_len_tokens   as mean, divided by the root of the number
                   weightedmean           mean with weights 1, 2, ... of the tokens
                   lasttoken              the token with the largest of these weights
               those of several joined, then h / max(||h||, 1e-12) where the model normalises, then its first numbers
               where it is cut, all as sentence-transformers computes it

The graph between is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from bertshrink.errors import UserError
from bertshrink.files.headers import graphs
from bertshrink.onnx_graph.encoder_graph import tensor

MASK = "attention_mask"
SENTENCE = "sentence_embedding"

_OWN = "bertshrink."
_AXES_AS_INPUT = {"ReduceSum": 13, "ReduceMax": 18}
"""Since which opset."""
_NUMBERS_TOKENS = 11
"""The opset that brought CumSum."""


def with_interface(
    model: onnx.ModelProto,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    pooling: tuple[Any, ...] | None = None,
) -> onnx.ModelProto:
    """The same graph behind other names.

    Args:
        model: it is not changed.
        inputs: the graph's input -> its new name.
        outputs: the graph's output -> its new name, in their new order; those not named are dropped.
        pooling: (mode, normalize, perhaps dimension) to append to the only output, token vectors (B, L, H), which
            are given as well.

    Returns:
        a new model.
    """
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    graph = renamed.graph
    del graph.input[:], graph.output[:], graph.node[:]
    front, inner_names = [], {}
    for value in model.graph.input:
        if value.name not in inputs:
            graph.input.append(value)  # a stored tensor, which old files list as well
            continue
        name, kind = inputs[value.name], value.type.tensor_type.elem_type
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, _sizes(value)))
        if name != value.name or kind != TensorProto.INT64:
            inner_names[value.name] = f"{_OWN}{value.name}"
            front.append(helper.make_node("Cast", [name], [inner_names[value.name]], f"{_OWN}{name}/Cast", to=kind))
    graph.node.extend([*front, *model.graph.node])
    for inner in graphs(graph):
        for node in inner.node[len(front) if inner is graph else 0 :]:
            node.input[:] = [inner_names.get(name, name) for name in node.input]
    given = {value.name: value for value in model.graph.output}
    for old, name in outputs.items():
        kind, sizes = given[old].type.tensor_type.elem_type, _sizes(given[old])
        if name != old:
            graph.node.append(helper.make_node("Identity", [old], [name], f"{_OWN}{name}"))
        graph.output.append(helper.make_tensor_value_info(name, kind, sizes or None))
        if pooling is not None:
            parts = _Pooling(old, SENTENCE, _opset(model))
            parts.append(*pooling)
            graph.node.extend(parts.nodes)
            graph.initializer.extend(parts.stored.values())
            is_whole = len(sizes) == 3 and len(pooling) < 3 and isinstance(pooling[0], str)
            width = sizes[-1] if is_whole else "hidden"
            sizes = [sizes[0] if sizes else "batch", width]
            graph.output.append(helper.make_tensor_value_info(SENTENCE, TensorProto.FLOAT, sizes))
    return renamed


class _Pooling:
    """Nodes that pool; every operator in the form that the graph's opset knows."""

    def __init__(self, hidden: str, output: str, opset: int) -> None:
        self.hidden, self.output, self.opset = hidden, output, opset
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}

    def append(self, mode: str | Sequence[str], normalize: bool, dimension: int | None = None) -> None:
        """Pool the token vectors as `mode` says, into `output`: its first `dimension` numbers."""
        modes = [mode] if isinstance(mode, str) else list(mode)
        hidden = self.node("Cast", [self.hidden], "hidden", to=TensorProto.FLOAT)
        mask = ""
        if modes != ["cls"]:
            mask = self.node("Cast", [MASK], "mask", to=TensorProto.FLOAT)
            mask = self.node("Reshape", [mask, self.keep("as_column", np.array([0, -1, 1]))], "mask_BL1")
        parts = [self.one(hidden, mask, name) for name in modes]
        pooled = parts[0] if len(parts) == 1 else self.node("Concat", parts, "joined", axis=1)
        if normalize:
            squares = self.reduced("ReduceSum", self.node("Mul", [pooled, pooled], "squares"), 1, keepdims=1)
            norm = self.node("Sqrt", [squares], "norm")
            floor = self.node("Max", [norm, self.keep("least_norm", np.float32(1e-12))], "norm_floor")
            pooled = self.node("Div", [pooled, floor], "normalized")
        if dimension is not None:
            span = (self.keep(name, np.array([at])) for name, at in (("from", 0), ("to", dimension), ("axis", 1)))
            pooled = self.node("Slice", [pooled, *span], "cut")
        self.nodes.append(helper.make_node("Identity", [pooled], [self.output], f"{_OWN}{self.output}"))

    def one(self, hidden: str, mask: str, mode: str) -> str:
        """Pooled by one mode."""
        match mode:
            case "cls":
                return self.node("Gather", [hidden, self.keep("first", np.array(0))], "cls", axis=1)
            case "max":
                return self.maximum(hidden, mask)
            case "mean" | "mean_sqrt_len_tokens":
                return self.mean(hidden, mask, mode)
        if self.opset < _NUMBERS_TOKENS:
            what = f"a file of opset {self.opset} has no operator that numbers tokens, which `{mode}` pooling needs"
            raise UserError(what, hint=f"export it again with opset {_NUMBERS_TOKENS} or later")
        places = self.node("CumSum", [mask, self.keep("along", np.array(1))], f"{mode}.count")
        places = self.node("Mul", [places, mask], f"{mode}.places")
        if mode == "weightedmean":
            return self.mean(hidden, places, mode)
        last = self.reduced("ReduceMax", places, 1, keepdims=1)
        weight = self.node("Cast", [self.node("Equal", [places, last], "is_last")], "last", to=TensorProto.FLOAT)
        picked = self.node("Mul", [hidden, self.node("Mul", [weight, mask], "last_token")], "picked")
        return self.reduced("ReduceSum", picked, 1, keepdims=0)

    def mean(self, hidden: str, weight: str, mode: str) -> str:
        total = self.reduced("ReduceSum", self.node("Mul", [hidden, weight], f"{mode}.masked"), 1, keepdims=0)
        number = self.reduced("ReduceSum", weight, 1, keepdims=0, name=f"{mode}.sum")
        number = self.node("Max", [number, self.keep("least_count", np.float32(1e-9))], f"{mode}.number")
        if mode == "mean_sqrt_len_tokens":
            number = self.node("Sqrt", [number], f"{mode}.root")
        return self.node("Div", [total, number], mode)

    def maximum(self, hidden: str, mask: str) -> str:
        is_token = self.node("Cast", [mask], "is_token", to=TensorProto.BOOL)
        lowest = self.keep("lowest", np.float32(np.finfo(np.float32).min))
        return self.reduced("ReduceMax", self.node("Where", [is_token, hidden, lowest], "tokens"), 1, keepdims=0)

    def reduced(self, kind: str, value: str, axis: int, keepdims: int, name: str | None = None) -> str:
        """A reduction along one axis, which newer operators take as an input and older ones as an attribute."""
        name = name or f"{value.removeprefix(_OWN)}.{kind}"
        if self.opset >= _AXES_AS_INPUT[kind]:
            axes = self.keep(f"axis_{axis}", np.array([axis]))
            return self.node(kind, [value, axes], name, keepdims=keepdims)
        return self.node(kind, [value], name, keepdims=keepdims, axes=[axis])

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node; returns its output's name."""
        self.nodes.append(helper.make_node(kind, inputs, [_OWN + name], f"{_OWN}{name}/{kind}", **attributes))
        return _OWN + name

    def keep(self, name: str, value: Any) -> str:
        self.stored[name] = tensor(np.asarray(value), _OWN + name)
        return _OWN + name


def _opset(model: onnx.ModelProto) -> int:
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _sizes(value: onnx.ValueInfoProto) -> list[Any]:
    """Sizes of a value as `make_tensor_value_info` takes them."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims]
