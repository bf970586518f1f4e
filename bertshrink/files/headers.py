"""What a file on disk is, from its header alone: tensors, operators, bytes. No weight is loaded, nothing of it runs.

    safetensors   8 bytes: the header's length; a JSON header: name -> dtype, shape, span; the tensors, without holes
    ONNX          one protobuf message: graph, initializers, opset; weights inside, or in files beside ("external data")

A file that does not hold what its header says is refused here, before anything else opens it.
"""

from __future__ import annotations

import math
import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertshrink.errors import UnsafeModel
from bertshrink.files.bounded_text import Reader, open_regular
from bertshrink.files.tensor_bytes import bytes_of

_MAX_HEADER_BYTES = 100_000_000
"""The cap that the safetensors format itself sets."""

MAX_NODES, MAX_STORED, MAX_ENDS = 50_000, 50_000, 500_000
"""Of an ONNX file: operations, stored tensors, and names that operations take and give. An encoder of 24 layers has
some 3,000, 1,000 and 9,000; what reads a graph takes a while for each."""

DRESSINGS = ("Identity", "Transpose", "Cast", "Reshape", "Squeeze", "Unsqueeze", "DequantizeLinear")
"""ONNX operators that give the numbers they are given, in another form."""

_HINT = "download or save the model again"
_HEADER = Reader(UnsafeModel, "the header of the safetensors file is unreadable", _HINT, most_depth=4)

_NO_WEIGHTS = ("BOOL", "STRING", "INT32", "INT64", "UINT32", "UINT64", "I32", "I64", "U32", "U64")
"""Types of shapes, indices and flags, in ONNX and in safetensors: old checkpoints hold `position_ids`."""


@dataclass(frozen=True)
class Tensor:
    """One stored tensor; `dtype` in the format's own word (`F32`, `FLOAT`)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int

    @property
    def num_elements(self) -> int:
        """The product of the shape; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def is_countable(self) -> bool:
        """Whether its elements count as parameters by their type: not indices, flags or texts."""
        return self.dtype not in _NO_WEIGHTS


@dataclass(frozen=True)
class Node:
    """One operation of a graph; `op` is `domain:type`, the domain empty for ONNX's own; `integers` are attributes."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FileFacts:
    """What one model file holds.

    Attributes:
        format: `safetensors` or `onnx`.
        num_bytes: on disk, external data included.
        tensors: every stored tensor; for ONNX the initializers and the constants, subgraphs included.
        nodes: every operation of the graph and its subgraphs, in order; empty for safetensors.
        operators: how often each operation occurs, the bodies of model-local functions included.
        opset: version of each operator domain.
        beside: the names of the files beside it that hold its weights.
    """

    format: str
    num_bytes: int
    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...] = ()
    operators: Mapping[str, int] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    opset: Mapping[str, int] = field(default_factory=dict)
    beside: tuple[str, ...] = ()


def read_safetensors(path: Path) -> FileFacts:
    """Read a safetensors file's header. Raises UnsafeModel: the file is damaged."""
    return file_facts(read_header(path), path.stat().st_size)


def file_facts(header: Mapping[str, Mapping[str, Any]], num_bytes: int) -> FileFacts:
    """What safetensors files hold, from their header; `num_bytes` are theirs on disk."""
    tensors = tuple(
        Tensor(name, entry["dtype"], tuple(entry["shape"]), entry["data_offsets"][1] - entry["data_offsets"][0])
        for name, entry in header.items()
    )
    return FileFacts("safetensors", num_bytes, tensors)


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Tensor name -> {dtype, shape, data_offsets} of a safetensors file, its layout checked against its size.

    Raises:
        UnsafeModel: truncated, overlong, overlapping or unreadable.
    """
    try:
        with open_regular(path) as file:
            num_bytes = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else num_bytes
            if length + 8 > num_bytes or length > _MAX_HEADER_BYTES:
                raise UnsafeModel(
                    "the safetensors file is truncated: its header is incomplete", where=str(path), hint=_HINT
                )
            text = file.read(length)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnsafeModel(f"`{path.name}` cannot be read: {reason}", where=str(path), hint=_HINT) from None
    header = _HEADER.json(text, str(path))
    about = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(header, dict) or not header or not isinstance(about, dict | None):
        what = f"{_HEADER.fault}: it lists no tensors"
        raise UnsafeModel(what, where=str(path), hint=_HINT)
    spans = sorted(_span(name, entry, path) for name, entry in header.items())
    end = 0
    for start, stop in spans:
        if start != end or stop < start:
            raise UnsafeModel("the tensors of the safetensors file overlap or leave gaps", where=str(path), hint=_HINT)
        end = stop
    if 8 + length + end != num_bytes:
        raise UnsafeModel(
            f"the safetensors file is truncated: {num_bytes} bytes where its header says {8 + length + end}",
            where=str(path),
            hint=_HINT,
        )
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        if bytes_of(entry["dtype"], entry["shape"]) != stop - start:
            what = f"the tensor `{name[:100]}` has a size that does not match its shape"
            raise UnsafeModel(what, where=str(path), hint=_HINT)
    return header


def _span(name: str, entry: Any, path: Path) -> tuple[int, int]:
    """Where a tensor begins and ends, its entry checked. Raises UnsafeModel: it has no type, shape or span."""
    about: dict[str, Any] = entry if isinstance(entry, dict) else {}
    dtype, shape, span = about.get("dtype"), about.get("shape"), about.get("data_offsets")
    if not isinstance(dtype, str) or not isinstance(shape, list) or not all(_is_size(size) for size in shape):
        what = f"{_HEADER.fault}: the tensor `{name[:100]}` has no type or no shape"
        raise UnsafeModel(what, where=str(path), hint=_HINT)
    if not isinstance(span, list) or len(span) != 2 or not all(_is_size(place) for place in span):
        what = f"{_HEADER.fault}: the tensor `{name[:100]}` has no offsets"
        raise UnsafeModel(what, where=str(path), hint=_HINT)
    return span[0], span[1]


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def read_onnx(path: Path) -> FileFacts:
    """Read an ONNX file's graph; external data is looked at only for its size.

    Raises:
        UnsafeModel: the file is damaged, holds no graph, or keeps weights outside its own folder.
    """
    from google.protobuf.message import DecodeError

    from bertshrink.files.onnx_data_file import spans
    from bertshrink.files.onnx_without_tensors import load_structure

    try:
        model, inside = load_structure(path)
    except (DecodeError, ValueError, RecursionError):
        raise UnsafeModel("the ONNX file is truncated or damaged", where=str(path), hint=_HINT) from None
    if not model.ir_version or not model.graph.node:
        raise UnsafeModel("the file holds no ONNX graph", where=str(path), hint=_HINT)
    check_size(model, str(path))
    for at in inside:
        model.graph.initializer[at].ClearField("data_location")  # no other file: its numbers are in this one
    protos = [proto for graph in graphs(model.graph) for proto in _stored(graph)]
    beside = {span.path: span.file_bytes for span in spans((proto for _, proto in protos), path)}
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    bodies = [node for function in model.functions for top in function.node for node in with_inner(top)]
    return FileFacts(
        format="onnx",
        num_bytes=path.stat().st_size + sum(beside.values()),
        tensors=tuple(_onnx_tensor(name, proto, path) for name, proto in protos),
        nodes=tuple(Node(_op(node), tuple(node.input), tuple(node.output), _integers(node)) for node in nodes),
        operators=dict(Counter(_op(node) for node in nodes + bodies)),
        inputs=tuple(value.name for value in model.graph.input),
        outputs=tuple(value.name for value in model.graph.output),
        opset={entry.domain: entry.version for entry in model.opset_import},
        beside=tuple(sorted(file.name for file in beside)),
    )


def check_size(model: Any, where: str | None = None) -> None:
    """Refuse a graph that is far larger than any encoder's; raises UnsafeModel."""
    tops = [*(node for graph in graphs(model.graph) for node in graph.node)]
    nodes = tops + [node for function in model.functions for top in function.node for node in with_inner(top)]
    sizes = {
        "operations": (len(nodes), MAX_NODES),
        "stored tensors": (sum(len(graph.initializer) for graph in graphs(model.graph)), MAX_STORED),
        "inputs and outputs of operations": (sum(len(node.input) + len(node.output) for node in nodes), MAX_ENDS),
    }
    for name, (number, most) in sizes.items():
        if number > most:
            what = f"the graph has {number} {name}, far more than an encoder needs (at most {most} are read)"
            raise UnsafeModel(what, where=where, hint="export the model again; do not trust it if others made it")


def _op(node: Any) -> str:
    domain = "" if node.domain == "ai.onnx" else node.domain
    return f"{domain}:{node.op_type}"


def _integers(node: Any) -> dict[str, int]:
    """A node's attributes that are one integer."""
    return {attribute.name: attribute.i for attribute in node.attribute if attribute.HasField("i")}


def graphs(graph: Any) -> Iterator[Any]:
    """A graph and every subgraph that its nodes hold (the branches of If, the body of Loop)."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from graphs(inner)


def inner_graphs(node: Any) -> Iterator[Any]:
    """The subgraphs that a node holds itself."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def with_inner(node: Any) -> Iterator[Any]:
    """A node and every node of the subgraphs that it holds."""
    yield node
    for graph in inner_graphs(node):
        for inner in graphs(graph):
            yield from inner.node


def _stored(graph: Any) -> Iterator[tuple[str, Any]]:
    """Initializers by their names, constants by the names of what they give."""
    for proto in graph.initializer:
        yield proto.name, proto
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _onnx_tensor(name: str, proto: Any, path: Path) -> Tensor:
    from onnx import TensorProto

    try:
        dtype = TensorProto.DataType.Name(proto.data_type)
    except ValueError:
        raise UnsafeModel(f"the tensor `{name}` has no known type", where=str(path), hint=_HINT) from None
    shape = tuple(proto.dims)
    num_bytes = bytes_of(dtype, shape)
    # The message's own size stands in for the length of its raw data, which to ask for would copy it.
    is_short = proto.HasField("raw_data") and proto.ByteSize() < num_bytes
    if any(size < 0 for size in shape) or is_short:
        raise UnsafeModel(f"the tensor `{name}` has fewer bytes than its shape needs", where=str(path), hint=_HINT)
    return Tensor(name, dtype, shape, num_bytes)
