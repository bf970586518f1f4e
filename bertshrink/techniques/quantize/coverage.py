"""What a finished graph holds: how many MatMuls, Gathers and bytes are in which type.

Counted from the graph alone, not from what was intended: each reader's operator, and the element type of the tensor
that it reads, looked up through the Casts, Transposes, Reshapes and DequantizeLinears between the two. Then compared
with what was asked for. Quantizers that are right about what they meant leave shared weights, tables and tied heads
behind in float32, and nobody is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from bertshrink.errors import CheckFailed
from bertshrink.onnx_graph.encoder_graph import initializers, stored_bytes
from bertshrink.onnx_graph.weights import StoredWeight

LARGE_BYTES = 64 << 10
"""A float32 matrix above this is not overlooked: the smallest that matter, the position tables, are ten times that."""

ACTIVATIONS = "activations"
"""The type of a MatMul of two activations: attention scores and mixing."""
ROWS = "int8-rows"
"""The type of a table of bytes with one scale per row, whichever int8 scheme asked for it."""

_LEFT_AS_THEY_ARE = ("Conv", "Slice")
"""What reads convolutions' kernels, which are never quantized, and numbers of each distance, which are few."""

_LOOKED_THROUGH = ("Cast", "Transpose", "Reshape", "DequantizeLinear")
_FLOATS = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
}


@dataclass(frozen=True)
class TypeCoverage:
    """What was counted.

    Attributes:
        matmuls: type -> number of MatMuls, `ACTIVATIONS` among them.
        gathers: type -> number of lookups.
        stored: type -> number of distinct stored matrices.
        size_bytes: type -> bytes of those matrices, with the scales of their blocks; `rest`: everything else stored.
    """

    matmuls: dict[str, int]
    gathers: dict[str, int]
    stored: dict[str, int]
    size_bytes: dict[str, int]

    def details(self) -> dict[str, Any]:
        """The same as JSON values, for a card."""
        return {"matmuls": self.matmuls, "gathers": self.gathers, "stored": self.stored, "bytes": self.size_bytes}

    def sentence(self) -> str:
        """The same in words: `dense layers: 36 int8-dynamic; lookups: 2 int8-rows, 1 float32`."""
        dense = {kind: number for kind, number in self.matmuls.items() if kind != ACTIVATIONS}
        return f"dense layers: {_listed(dense)}; lookups: {_listed(self.gathers)}"


def account(model: onnx.ModelProto) -> TypeCoverage:
    """Count a finished graph."""
    count = _Count(model)
    for node in model.graph.node:
        count.take(node)
    size: Counter[str] = Counter()
    for name, stored in count.tensors.items():
        size[count.owner.get(name, "rest")] += stored_bytes(stored)
    stored = Counter(kind for name, kind in count.owner.items() if name not in count.scales)
    return TypeCoverage(*(dict(sorted(counts.items())) for counts in (count.matmuls, count.gathers, stored, size)))


def check_complete(
    model: onnx.ModelProto, coverage: TypeCoverage, asked: Mapping[str, StoredWeight], types: Mapping[str, str]
) -> None:
    """Compare a finished graph with what was asked for.

    Args:
        types: weight name -> type; weights that are not named stay float32.

    Raises:
        CheckFailed: a reader is in another type than its weight should be, or a large matrix was left in float32.
    """
    matmuls, gathers = Counter[str](), Counter[str]()
    for name, weight in asked.items():
        kind = types.get(name, "float32")
        matmuls[kind] += len(weight.matmuls)
        gathers[ROWS if kind in ("int8-dynamic", "int8-static") else kind] += len(weight.gathers)
    dense = {kind: number for kind, number in coverage.matmuls.items() if kind != ACTIVATIONS}
    lookups = {kind: number for kind, number in coverage.gathers.items() if kind != "float32"}
    del gathers["float32"]  # tables of a few rows are float32, too
    for what, there, wanted in (("dense layers", dense, matmuls), ("lookups", lookups, gathers)):
        if Counter(there) != +wanted:
            raise CheckFailed(f"{what} should be {_listed(wanted)}, and are {_listed(there)}", where=model.graph.name)
    left = _large_floats(model, {name for name in asked if types.get(name, "float32") == "float32"})
    if left:
        raise CheckFailed(f"`{left[0]}` was left in float32, although it should be quantized", where=model.graph.name)


class _Count:
    """The tallies, and which type each stored tensor belongs to."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.tensors = initializers(model)
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.matmuls: Counter[str] = Counter()
        self.gathers: Counter[str] = Counter()
        self.owner: dict[str, str] = {}
        self.scales: set[str] = set()

    def take(self, node: onnx.NodeProto) -> None:
        match node.op_type:
            case "MatMul":
                self.matmuls[self.matmul(node)] += 1
            case "MatMulInteger":
                self.matmuls[self.own(node.input[1], "int8-dynamic") or ACTIVATIONS] += 1
            case "MatMulNBits":
                self.matmuls[self.in_blocks(node, data=1)] += 1
            case "Gather":
                self.gather(node)
            case "GatherBlockQuantized":
                self.gathers[self.in_blocks(node, data=0)] += 1

    def matmul(self, node: onnx.NodeProto) -> str:
        """The type of a plain MatMul, by its right side."""
        name = self.origin(node.input[1])
        if name is None or len(self.tensors[name].dims) != 2:
            return ACTIVATIONS
        left = self.producers.get(node.input[0])
        is_static = left is not None and left.op_type == "DequantizeLinear"
        kind = _FLOATS.get(self.tensors[name].data_type, "int8-static" if is_static else "int8-weights-only")
        self.owner[name] = kind
        return kind

    def gather(self, node: onnx.NodeProto) -> None:
        """Count the lookup of a table's rows; other Gathers are not lookups."""
        name = self.origin(node.input[0])
        if name is None or len(self.tensors[name].dims) != 2 or self.tensors[name].dims[1] == 1:
            return
        kind = _FLOATS.get(self.tensors[name].data_type, ROWS)
        self.owner.setdefault(name, kind)
        self.gathers[kind] += 1

    def in_blocks(self, node: onnx.NodeProto, data: int) -> str:
        """The type of one of ONNX Runtime's block operators."""
        bits = next(attribute.i for attribute in node.attribute if attribute.name == "bits")
        kind = f"int{bits}-block"
        self.own(node.input[data], kind)
        for name in (self.origin(name) for name in node.input[2:4]):  # scales and zero points
            if name is not None:
                self.owner[name] = kind
                self.scales.add(name)
        return kind

    def own(self, value: str, kind: str) -> str | None:
        """Book the tensor behind a value under a type; returns the type, or None where nothing stored is behind it."""
        name = self.origin(value)
        if name is None:
            return None
        self.owner[name] = kind
        return kind

    def origin(self, value: str) -> str | None:
        """The stored tensor that a value is, but for its form."""
        while value in self.producers and self.producers[value].op_type in _LOOKED_THROUGH:
            value = self.producers[value].input[0]
        return value if value in self.tensors else None


def _large_floats(model: onnx.ModelProto, expected: set[str]) -> list[str]:
    """Names of large float32 matrices besides the expected ones and the scales of blocks."""
    count, other = _Count(model), set(expected)
    for node in model.graph.node:
        count.take(node)
        if node.op_type in _LEFT_AS_THEY_ARE:
            other.update(node.input)
    return [
        name
        for name, stored in count.tensors.items()
        if stored.data_type == onnx.TensorProto.FLOAT
        and stored_bytes(stored) > LARGE_BYTES
        and sum(size > 1 for size in stored.dims) > 1
        and name not in other | count.scales
    ]


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(numbers.items()) if number) or "none"
