"""The matrix products of an ONNX graph at one shape of its inputs: how many operations, in what type, on what weights.

Shapes are inferred on a copy of the graph without its weights' bytes, in which ONNX Runtime's own operators are as
what they do to shapes: products as MatMul, look-ups as Gather, the rest as what leaves a shape alone. A product of
M x K by K x N counts 2 M K N operations; attention in one operator counts its two products. Everything else (softmax,
norms, activations) is a few operations a number and is left out, as everywhere in the program.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from bertshrink.files.headers import DRESSINGS
from bertshrink.files.tensor_bytes import bytes_of
from bertshrink.onnx_graph.encoder_graph import CONTRIB
from bertshrink.onnx_graph.shape_values import fold_sizes
from bertshrink.onnx_graph.unfused import unfused, with_plain_norms

_MOST_KEPT = 4096
"""Stored tensors of so many numbers keep their values: shapes and position ids are computed from some of them."""

_INTEGER = ("MatMulInteger", "QLinearMatMul", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")
_PLAIN = ("MatMul", "Gemm", "FusedMatMul")
_ATTENTION = ("MultiHeadAttention", "Attention", "QAttention")
_UNTOLD = (
    *("Einsum", "Conv", "ConvInteger", "QLinearConv", "LSTM", "GRU", "RNN"),
    *("GemmFastGelu", "FusedGemm", "QGemm", "TransposeMatMul", "MatMulBnb4", "MatMulFpQ4", "MoE", "QMoE"),
    *("PackedAttention", "PackedMultiHeadAttention", "GroupQueryAttention", "LongformerAttention"),
    *("DecoderAttention", "DynamicQuantizeLSTM", "QOrderedAttention", "QOrderedMatMul"),
)
"""Operators that multiply matrices and whose work is not counted here: of a graph with one nothing is told."""
_SHAPE_KEEPERS = (
    *("MultiHeadAttention", "Attention", "Gelu", "FastGelu", "QuickGelu", "BiasGelu", "BiasAdd"),
    *("SkipLayerNormalization", "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"),
)
_TABLES = {"Gather": 0, "GatherBlockQuantized": 0, "EmbedLayerNormalization": 2, "QEmbedLayerNormalization": 2}
"""Operator that looks rows up -> which of its inputs is the table."""

_FLOATS = {"FLOAT": "float32", "FLOAT16": "float16", "BFLOAT16": "bfloat16", "DOUBLE": "float64"}
_INT8_ACCURACY = 4
"""`accuracy_level` of MatMulNBits: from this one on, ONNX Runtime multiplies in int8."""


@dataclass(frozen=True)
class MatMulCost:
    """One operator that multiplies matrices.

    Attributes:
        node: its name, or that of its first output.
        precision: the type it multiplies in: `float32`, `int8`.
        operations: a multiply-add is two.
        weights: the stored tensors that it reads, with their bytes; empty where it multiplies activations.
    """

    node: str
    precision: str
    operations: int
    weights: Mapping[str, int]


@dataclass(frozen=True)
class GraphCost:
    """What a graph computes at one shape of its inputs.

    Attributes:
        products: in the order of the graph.
        gathered_bytes: of the rows that are looked up in stored tables.
    """

    products: tuple[MatMulCost, ...]
    gathered_bytes: int


def graph_work(model: onnx.ModelProto, batch: int, length: int) -> GraphCost | None:
    """The products and look-ups of a graph whose inputs are (batch, length); None where it does not tell all."""
    graph = _Shaped(unfused(with_plain_norms(model)), batch, length)
    products = graph.products()
    return None if products is None else GraphCost(tuple(products), graph.gathered_bytes())


class _Shaped:
    """A graph with the shapes that its values have at one shape of its inputs."""

    def __init__(self, model: onnx.ModelProto, batch: int, length: int) -> None:
        self.nodes = list(model.graph.node)
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.origins = {name: name for name in self.stored}
        for node in self.nodes:
            if node.op_type in DRESSINGS and node.input and node.input[0] in self.origins:
                self.origins[node.output[0]] = self.origins[node.input[0]]
        self.shapes, self.types = _infer(model, self.origins, batch, length)

    def products(self) -> list[MatMulCost] | None:
        products = []
        for node in self.nodes:
            if node.op_type in _UNTOLD or any(attribute.HasField("g") for attribute in node.attribute):
                return None
            if node.op_type in (*_INTEGER, *_PLAIN, *_ATTENTION, "MatMulNBits"):
                operations = self.operations(node)
                if operations is None:
                    return None
                name = node.name or node.output[0]
                products.append(MatMulCost(name, self.precision(node), operations, self.weights(node)))
            if node.op_type == "QAttention":  # its projections are integers', scores and mixing are floats'
                hidden = self.shapes[node.input[0]]
                mixing = 4 * math.prod(hidden) * hidden[-2]
                projections = products.pop()
                rest = projections.operations - mixing
                products.append(MatMulCost(projections.node, "int8", rest, projections.weights))
                products.append(MatMulCost(projections.node, "float32", mixing, {}))
        return products

    def operations(self, node: onnx.NodeProto) -> int | None:
        """2 M K N; None where a shape is not known."""
        if node.op_type in _ATTENTION:
            return self.attention_operations(node)
        outer, inner = self.shapes.get(node.output[0]), self.shapes.get(node.input[0])
        if outer is None or inner is None:
            return None
        attributes = {a.name: a.i for a in node.attribute}
        turned = attributes.get("transA", 0) and inner
        return 2 * math.prod(outer) * (inner[-2] if turned else inner[-1])

    def attention_operations(self, node: onnx.NodeProto) -> int | None:
        """Scores and mixing: 4 x queries x keys x width, of (B, L, H) or (B, heads, L, d)."""
        if node.domain == CONTRIB and node.op_type in (
            "Attention",
            "QAttention",
        ):  # its queries, keys and values are products too
            hidden, projection = self.shapes.get(node.input[0]), self.shapes.get(node.input[1])
            if hidden is None or projection is None:
                return None
            return 2 * math.prod(hidden) * projection[-1] + 4 * math.prod(hidden) * hidden[-2]
        queries, keys = self.shapes.get(node.input[0]), self.shapes.get(node.input[1])
        return None if queries is None or keys is None else 4 * math.prod(queries) * keys[-2]

    def precision(self, node: onnx.NodeProto) -> str:
        if node.op_type in _INTEGER:
            return "int8"
        levels = [a.i for a in node.attribute if a.name == "accuracy_level"]
        if node.op_type == "MatMulNBits" and levels and levels[0] >= _INT8_ACCURACY:
            return "int8"
        if node.op_type in _PLAIN and self.is_quantized(node):
            return "int8"
        return _FLOATS.get(self.types.get(node.output[0], "FLOAT"), "float32")

    def gathered_bytes(self) -> int:
        """Of the rows that are looked up in stored tables, each as often as it is, no table more than once."""
        total = 0
        for node in self.nodes:
            place = _TABLES.get(node.op_type)
            table = self.stored.get(self.origins.get(node.input[place], "")) if place is not None else None
            rows = self.shapes.get(node.output[0])
            if table is not None and len(table.dims) >= 2 and rows:
                share = math.prod(rows[:-1]) / table.dims[0]
                total += round(min(share, 1) * tensor_bytes(table))
        return total

    def is_quantized(self, node: onnx.NodeProto) -> bool:
        """Whether both sides come from DequantizeLinear: ONNX Runtime then multiplies what they dequantize."""
        makers = {name: other.op_type for other in self.nodes for name in other.output}
        return all(makers.get(name) == "DequantizeLinear" for name in node.input[:2])

    def weights(self, node: onnx.NodeProto) -> dict[str, int]:
        """The stored matrices that it reads, scales and all of blocks included."""
        names = {self.origins[name] for name in node.input if name in self.origins}
        sizes = {name: self.stored[name] for name in names if len(self.stored[name].dims) >= 2}
        return {name: tensor_bytes(tensor) for name, tensor in sorted(sizes.items())}


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of a stored tensor, from its type and shape."""
    return bytes_of(onnx.TensorProto.DataType.Name(tensor.data_type), tuple(tensor.dims))


def _infer(
    model: onnx.ModelProto, origins: Mapping[str, str], batch: int, length: int
) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Value -> shape, and value -> type, as far as they can be told; `origins`: value -> the stored tensor it is."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    small = [tensor for tensor in stored.values() if math.prod(tensor.dims) <= _MOST_KEPT]
    shown = {tensor.name for tensor in small}
    inputs = [
        _info(value.name, value.type.tensor_type.elem_type, [batch, length])
        for value in model.graph.input
        if value.name not in stored
    ]
    inputs += [_info(name, tensor.data_type, tensor.dims) for name, tensor in stored.items() if name not in shown]
    nodes = []
    sizes = {name: tuple(stored[origin].dims) for name, origin in origins.items()}
    for node in model.graph.node:
        made, more = _standing_in(node, sizes)
        nodes += made
        inputs += more
    outputs = [onnx.ValueInfoProto(name=value.name) for value in model.graph.output]
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, small)
    bare = onnx.helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    fold_sizes(bare)
    inferred = onnx.shape_inference.infer_shapes(bare).graph
    shapes = {name: list(tensor.dims) for name, tensor in stored.items()}
    types = {}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        kind = value.type.tensor_type
        types[value.name] = onnx.TensorProto.DataType.Name(kind.elem_type)
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes[value.name] = [dim.dim_value for dim in kind.shape.dim]
    return shapes, types


def _info(name: str, kind: int, dims: Iterable[int]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, kind, list(dims))


def _standing_in(
    node: onnx.NodeProto, stored: Mapping[str, tuple[int, ...]]
) -> tuple[list[onnx.NodeProto], list[onnx.ValueInfoProto]]:
    """What does to shapes what a node of ONNX Runtime does, in ONNX's own operators, and the inputs that this needs.

    Args:
        node: any node; ONNX's own stand for themselves.
        stored: the sizes of stored tensors, also of those that another node dresses.
    """
    if node.domain != CONTRIB:
        return [node], []
    make, out = onnx.helper.make_node, list(node.output[:1])
    name = f"{out[0]}.stand-in"
    sizes = {attribute.name: attribute.i for attribute in node.attribute}
    match node.op_type:
        case "MatMulNBits":
            right = _info(name, onnx.TensorProto.FLOAT, [sizes["K"], sizes["N"]])
            return [make("MatMul", [node.input[0], name], out)], [right]
        case "MatMulIntegerToFloat":
            return [make("MatMulInteger", node.input[:2], [name]), make("Cast", [name], out, to=1)], []
        case "DynamicQuantizeMatMul" | "FusedMatMul":
            return [make("MatMul", node.input[:2], out)], []
        case "GatherBlockQuantized" if node.input[2] in stored:
            rows, blocks = stored[node.input[2]]
            table = _info(name, onnx.TensorProto.FLOAT, [rows, blocks * sizes["block_size"]])
            return [make("Gather", [name, node.input[1]], out)], [table]
        case "EmbedLayerNormalization":
            return [make("Gather", [node.input[2], node.input[0]], out)], []
        case "QEmbedLayerNormalization":
            return [make("Gather", [node.input[2], node.input[0]], [name]), make("Cast", [name], out, to=1)], []
        case "QAttention":
            return [make("Cast", node.input[:1], out, to=1)], []
        case kind if kind in _SHAPE_KEEPERS:
            return [make("Identity", node.input[:1], out)], []
    return [node], []
