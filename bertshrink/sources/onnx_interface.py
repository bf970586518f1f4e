"""Give an ONNX encoder of any exporter the inputs and outputs that `engines` describes.

    inputs     int64 under bertshrink's names; a Cast in front where the graph wants another type
    positions  computed, where the graph asks for them:
                   p[b, i] = i,  or where padding is not counted, with t = ids != pad:
                   p[b, i] = pad + t[b, i] * (t[b, 0] + ... + t[b, i])
    outputs    the task's, in float32 under its names, and a sentence encoder's token vectors; others (`pooler_output`)
               are dropped
    pooling    appended where a sentence encoder's graph ends in token vectors, as `sentence_embedding`:
                   mean   sum(mask * h) / max(sum(mask), 1e-9)          h of token vectors (B, L, H)
                   cls    h[:, 0]
                   max    max over tokens of h, padding at the lowest float
                   mean_sqrt_len_tokens   as mean, divided by the root of the number
                   weightedmean           mean with weights 1, 2, ... of the tokens
                   lasttoken              the token with the largest of these weights
               those of several joined, then the layers behind it (see `folder.pooling`), then h / max(||h||, 1e-12)
               where the model normalises, then its first numbers where it is cut, all as sentence-transformers
               computes it

The graph between is left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bertshrink.errors import UserError
from bertshrink.files.headers import graphs
from bertshrink.model.folder.pooling import SentenceLayer
from bertshrink.onnx_graph.encoder_graph import tensor
from bertshrink.sources.external_file import PositionRule

IDS, MASK, POSITIONS = "input_ids", "attention_mask", "position_ids"
SENTENCE = "sentence_embedding"

_OWN = "bertshrink."
_AXES_AS_INPUT = {"ReduceSum": 13, "ReduceMax": 18, "ReduceMean": 18}
"""Since which opset."""
_EPSILON = 1e-5
"""Of PyTorch's LayerNorm."""
_ACTIVATIONS = {"Tanh": "Tanh", "ReLU": "Relu", "Sigmoid": "Sigmoid", "ELU": "Elu", "LeakyReLU": "LeakyRelu"}
"""PyTorch's name -> ONNX's, of those that are one operator."""
_NUMBERS_TOKENS = 11
"""The opset that brought CumSum."""


def with_interface(
    model: onnx.ModelProto,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    pooling: tuple[Any, ...] | None = None,
    positions: PositionRule | None = None,
    shape: tuple[int | None, int | None] = (None, None),
    layers: Sequence[tuple[SentenceLayer, Mapping[str, NDArray[Any]]]] = (),
) -> onnx.ModelProto:
    """The same graph behind other names.

    Args:
        model: it is not changed.
        inputs: the graph's input -> its new name.
        outputs: the graph's output -> its new name, in their new order; those not named are dropped.
        pooling: (mode, normalize, perhaps dimension) to append to the only output, token vectors (B, L, H), which
            are given as well.
        positions: how the input `position_ids` is computed, which goes; None: the graph has none.
        shape: the (batch, length) that the graph takes; None: any.
        layers: what is between the pooling and its last steps, each with its weights.

    Returns:
        a new model.
    """
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    graph = renamed.graph
    del graph.input[:], graph.output[:], graph.node[:]
    front, back = _Nodes(_opset(model)), _Nodes(_opset(model))
    inner_names = _out_of_the_way(model, inputs, outputs)
    axes = [shape[0] or "batch", shape[1] or "length"]
    for value in model.graph.input:
        if value.name not in inputs:
            graph.input.append(value)  # a stored tensor, which old files list as well
            continue
        name, kind = inputs[value.name], value.type.tensor_type.elem_type
        if name == POSITIONS:
            assert positions is not None
            inner_names[value.name] = front.node("Cast", [_positions(front, positions)], value.name, to=kind)
            continue
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, axes))
        if name != value.name or kind != TensorProto.INT64:
            inner_names[value.name] = front.node("Cast", [name], value.name, to=kind)
    given = {value.name: value for value in model.graph.output}
    for old, name in outputs.items():
        sizes, is_float = _sizes(given[old]), given[old].type.tensor_type.elem_type == TensorProto.FLOAT
        if name != old or not is_float:
            inner_names.setdefault(old, f"{_OWN}given.{old}" if name == old else old)
            kind, how = ("Identity", {}) if is_float else ("Cast", {"to": TensorProto.FLOAT})
            back.nodes.append(helper.make_node(kind, [inner_names[old]], [name], f"{_OWN}{name}/{kind}", **how))
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes or None))
        if pooling is not None:
            parts = _Pooling(name, SENTENCE, back.opset)
            parts.append(*pooling, layers=layers)
            back.nodes += parts.nodes
            back.stored |= parts.stored
            is_whole = len(sizes) == 3 and len(pooling) < 3 and isinstance(pooling[0], str) and not layers
            width = sizes[-1] if is_whole else "hidden"
            sizes = [sizes[0] if sizes else "batch", width]
            graph.output.append(helper.make_tensor_value_info(SENTENCE, TensorProto.FLOAT, sizes))
    graph.node.extend([*front.nodes, *model.graph.node])
    for inner_graph in graphs(graph):
        for node in inner_graph.node[len(front.nodes) if inner_graph is graph else 0 :]:
            node.input[:] = [inner_names.get(name, name) for name in node.input]
            node.output[:] = [inner_names.get(name, name) for name in node.output]
    graph.node.extend(back.nodes)
    moved = [value for value in model.graph.value_info if value.name not in {*inner_names, *outputs.values(), SENTENCE}]
    graph.ClearField("value_info")
    graph.value_info.extend(moved)
    graph.initializer.extend((front.stored | back.stored).values())
    return renamed


def _out_of_the_way(model: onnx.ModelProto, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> dict[str, str]:
    """Other names for what a graph computes under a name that is to mean something else."""
    computed = {name for node in model.graph.node for name in node.output}
    taken = {*inputs.values(), SENTENCE} | {name for old, name in outputs.items() if name != old}
    return {name: f"{_OWN}given.{name}" for name in sorted(taken & computed) if outputs.get(name) != name}


def _positions(front: _Nodes, rule: PositionRule) -> str:
    """The nodes that compute positions from `input_ids`; see this file's opening."""
    if rule.follows_padding:
        pad = front.keep("pad", np.array(rule.first - 1))
        is_pad = front.node("Equal", [IDS, pad], "is_pad")
        token = front.node("Cast", [front.node("Not", [is_pad], "not_pad")], "token", to=TensorProto.INT64)
        number = front.node("CumSum", [token, front.keep("along", np.array(1))], "number")
        return front.node("Add", [front.node("Mul", [number, token], "counted"), pad], "positions")
    shape = front.node("Shape", [IDS], "shape")
    length = front.node("Gather", [shape, front.keep("second", np.array(1))], "length")
    bounds = (front.keep("zero", np.array(0)), length, front.keep("one", np.array(1)))
    return front.node("Expand", [front.node("Range", list(bounds), "row"), shape], "positions")


class _Nodes:
    """Nodes that are added to a graph, each in the form that its opset knows, and what they store."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node; returns its output's name."""
        self.nodes.append(helper.make_node(kind, inputs, [_OWN + name], f"{_OWN}{name}/{kind}", **attributes))
        return _OWN + name

    def keep(self, name: str, value: Any) -> str:
        """Store an array; returns its name."""
        self.stored[_OWN + name] = tensor(np.asarray(value), _OWN + name)
        return _OWN + name

    def reduced(self, kind: str, value: str, axis: int, keepdims: int, name: str | None = None) -> str:
        """A reduction along one axis, which newer operators take as an input and older ones as an attribute."""
        name = name or f"{value.removeprefix(_OWN)}.{kind}"
        if self.opset >= _AXES_AS_INPUT[kind]:
            axes = self.keep(f"axis_{axis}", np.array([axis]))
            return self.node(kind, [value, axes], name, keepdims=keepdims)
        return self.node(kind, [value], name, keepdims=keepdims, axes=[axis])


class _Pooling(_Nodes):
    """Nodes that pool."""

    def __init__(self, hidden: str, output: str, opset: int) -> None:
        super().__init__(opset)
        self.hidden, self.output = hidden, output

    def append(
        self,
        mode: str | Sequence[str],
        normalize: bool,
        dimension: int | None = None,
        *,
        layers: Sequence[tuple[SentenceLayer, Mapping[str, NDArray[Any]]]] = (),
    ) -> None:
        """Pool the token vectors as `mode` says and pass them through `layers`, into `output`: its first `dimension`
        numbers.
        """
        modes = [mode] if isinstance(mode, str) else list(mode)
        hidden = self.node("Cast", [self.hidden], "hidden", to=TensorProto.FLOAT)
        mask = ""
        if modes != ["cls"]:
            mask = self.node("Cast", [MASK], "mask", to=TensorProto.FLOAT)
            mask = self.node("Reshape", [mask, self.keep("as_column", np.array([0, -1, 1]))], "mask_BL1")
        parts = [self.one(hidden, mask, name) for name in modes]
        pooled = parts[0] if len(parts) == 1 else self.node("Concat", parts, "joined", axis=1)
        for at, (layer, weights) in enumerate(layers):
            pooled = self.layer(pooled, layer, weights, f"layer{at}.")
        pooled = self.unit(pooled, "") if normalize else pooled
        if dimension is not None:
            span = (self.keep(name, np.array([at])) for name, at in (("from", 0), ("to", dimension), ("axis", 1)))
            pooled = self.node("Slice", [pooled, *span], "cut")
        self.nodes.append(helper.make_node("Identity", [pooled], [self.output], f"{_OWN}{self.output}"))

    def unit(self, value: str, front: str) -> str:
        """Of length 1."""
        squares = self.reduced("ReduceSum", self.node("Mul", [value, value], f"{front}squares"), 1, keepdims=1)
        norm = self.node("Sqrt", [squares], f"{front}norm")
        floor = self.node("Max", [norm, self.keep("least_norm", np.float32(1e-12))], f"{front}norm_floor")
        return self.node("Div", [value, floor], f"{front}normalized")

    def layer(self, value: str, layer: SentenceLayer, weights: Mapping[str, NDArray[Any]], front: str) -> str:
        """Behind one layer, whose weights have sentence-transformers' names (see `engines.sentence_layers`)."""
        stored = {name: self.keep(front + name, one.T) for name, one in weights.items()}
        if layer.kind == "unit":
            return self.unit(value, front)
        if layer.kind == "norm":
            centred = self.node("Sub", [value, self.reduced("ReduceMean", value, 1, 1)], f"{front}centred")
            spread = self.reduced("ReduceMean", self.node("Mul", [centred, centred], f"{front}spread"), 1, 1)
            spread = self.node("Add", [spread, self.keep("epsilon", np.float32(_EPSILON))], f"{front}floor")
            scaled = self.node("Div", [centred, self.node("Sqrt", [spread], f"{front}root")], f"{front}scaled")
            scaled = self.node("Mul", [scaled, stored["norm.weight"]], f"{front}weighted")
            return self.node("Add", [scaled, stored["norm.bias"]], f"{front}shifted")
        made = self.node("MatMul", [value, stored["linear.weight"]], f"{front}dense")
        if layer.bias:
            made = self.node("Add", [made, stored["linear.bias"]], f"{front}shifted")
        made = self.bent(made, layer.activation, front)
        if not layer.residual:
            return made
        if "residual.weight" in stored:
            value = self.node("MatMul", [value, stored["residual.weight"]], f"{front}given")
        return self.node("Add", [made, value], f"{front}residual")

    def bent(self, value: str, activation: str, front: str) -> str:
        """Behind an activation, by its name in `torch.nn`, with that library's settings."""
        match activation:
            case "Identity":
                return value
            case "GELU":
                root = self.keep("root", np.float32(np.sqrt(2)))
                share = self.node("Erf", [self.node("Div", [value, root], f"{front}wide")], f"{front}erf")
                share = self.node("Add", [share, self.keep("whole", np.float32(1))], f"{front}share")
                half = self.node("Mul", [value, self.keep("half", np.float32(0.5))], f"{front}half")
                return self.node("Mul", [half, share], f"{front}bent")
            case "SiLU":
                return self.node("Mul", [value, self.node("Sigmoid", [value], f"{front}share")], f"{front}bent")
        settings = {"ELU": {"alpha": 1.0}, "LeakyReLU": {"alpha": 0.01}}.get(activation, {})
        return self.node(_ACTIVATIONS[activation], [value], f"{front}bent", **settings)

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


def _opset(model: onnx.ModelProto) -> int:
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def _sizes(value: onnx.ValueInfoProto) -> list[Any]:
    """Sizes of a value as `make_tensor_value_info` takes them."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims]
