"""What an ONNX graph must be before anything runs it: whole, bounded, self-contained, and an encoder of text.

Bounded, because a graph of a few kilobytes can ask for anything: a chain of 3,000 functions ends ONNX Runtime with a
segmentation fault, functions that call each other twice unfold into 2^n nodes, and a stored shape of three numbers can
stand for a terabyte. An encoder's graph needs none of it.

    functions      no cycle, at most `MAX_CALLS` deep, at most `MAX_NODES` nodes once unfolded
    subgraphs      at most `MAX_NESTING` deep (If, Loop); protobuf itself gives up at about 30
    operators      ONNX's own, ONNX Runtime's own, and the file's own functions
    tensors        as many bytes as their shapes ask for, finite, and no weight so large that its square overflows
    an encoder     inputs of token ids and a mask, (batch, length) each; what it does with them is seen when it is run

Seen by none of this: a weight whose bits changed into another plausible number. Only a manifest tells that. Everything
here runs in the child process (see `probe_child`); onnx and numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from bertshrink.errors import UnsafeModel
from bertshrink.files.headers import DRESSINGS, MAX_NODES, check_size, graphs, inner_graphs, with_inner
from bertshrink.onnx_graph.encoder_graph import QUANTIZED_OPS, array

MAX_CALLS = 32
"""Exporters write one function a module, some ten deep; ONNX Runtime's stack ends near 3,000."""
MAX_NESTING = 4

INPUT_NAMES = {
    # as bertshrink calls it: as exporters do
    "input_ids": ("input_ids",),
    "attention_mask": ("attention_mask", "input_mask"),
    "token_type_ids": ("token_type_ids", "segment_ids"),
    "position_ids": ("position_ids",),
}
OURS = {name: ours for ours, names in INPUT_NAMES.items() for name in names}
"""The other way round."""

_DOMAINS = ("", "ai.onnx", "com.microsoft")
_ID_DRESSINGS = (*DRESSINGS[:-1], "Flatten", "Clip", "Max", "Min", "Where", "Slice")
_LOOKUPS = {
    **dict.fromkeys(("Gather", "GatherBlockQuantized"), (0, 1)),
    **dict.fromkeys(("EmbedLayerNormalization", "QEmbedLayerNormalization"), (2, 0)),
}
"""Operator: which of its inputs are the table and the ids."""
_MAX_WEIGHT = float(np.sqrt(np.finfo(np.float32).max))
"""1.8e19: any norm squares what a weight makes, and beyond this the square is not a float32."""
_NUMBERS = tuple(
    onnx.TensorProto.DataType.Value(name)
    for name in ("INT64", "INT32", "INT16", "INT8", "UINT8", "BOOL", "FLOAT", "FLOAT16", "DOUBLE")
)
"""What ids, masks, types and positions may be given as."""
_SHAPE_ELEMENTS = 1024
"""Stored shapes and axes are shorter; what is longer is a weight, whose bytes no shape depends on."""
_FLOATS = ("float32", "float64", "float16", "bfloat16")


def refuse(what: str, hint: str = "export the model again, or download it again") -> UnsafeModel:
    """A refusal; its place is filled in by who knows the path."""
    return UnsafeModel(what, hint=hint)


def check_structure(model: onnx.ModelProto) -> None:
    """Refuse a graph that is empty, unbounded, or made of unknown operators; raises UnsafeModel."""
    if not model.graph.node or not model.graph.output or not model.opset_import:
        raise refuse("the file is not an ONNX file or holds an empty graph")
    check_size(model)
    depth = max(_depth(graph) for graph in all_graphs(model))
    if depth > MAX_NESTING:
        raise refuse(f"the graph's branches and loops are {depth} deep, far more than an encoder needs")
    _check_calls(model)
    own = {(function.domain, function.name) for function in model.functions}
    for node in all_nodes(model):
        if (node.domain, node.op_type) not in own and node.domain not in _DOMAINS:
            raise refuse(
                f"the graph needs the operator `{node.op_type}` of `{node.domain}`, which is neither ONNX's nor the "
                "file's own: bertshrink loads no operators from elsewhere"
            )


def all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph, its subgraphs, and those in the bodies of functions."""
    yield from graphs(model.graph)
    for function in model.functions:
        for node in function.node:
            for inner in inner_graphs(node):
                yield from graphs(inner)


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node: of the graph, its subgraphs, and the bodies of its functions."""
    for graph in graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        for node in function.node:
            yield from with_inner(node)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor: initializers, and those in nodes' attributes.

    Raises:
        UnsafeModel: a graph stores sparse weights.
    """
    for graph in all_graphs(model):
        if graph.sparse_initializer:
            raise refuse("the file stores sparse weights, which bertshrink does not read")
        yield from graph.initializer
    for node in all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _depth(graph: onnx.GraphProto) -> int:
    """How many subgraphs are inside each other; protobuf's own limit keeps this recursion short."""
    return max((1 + _depth(inner) for node in graph.node for inner in inner_graphs(node)), default=0)


def _check_calls(model: onnx.ModelProto) -> None:
    """Refuse functions that call each other too deep, in a circle, or unfold into too many nodes."""
    functions = {(function.domain, function.name): function for function in model.functions}
    known: dict[tuple[str, str], tuple[int, int]] = {}  # nodes once unfolded, calls inside each other

    def unfold(nodes: list[onnx.NodeProto], depth: int) -> tuple[int, int]:
        total, height = 0, 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key not in functions:
                total += 1
                continue
            if key not in known and depth < MAX_CALLS:
                body = [inner for top in functions[key].node for inner in with_inner(top)]
                known[key] = unfold(body, depth + 1)
            num_nodes, calls = known.get(key, (0, MAX_CALLS))
            total, height = total + num_nodes, max(height, 1 + calls)
            if height > MAX_CALLS:
                raise refuse(f"the file's functions call each other more than {MAX_CALLS} deep, or in a circle")
            if total > MAX_NODES:
                raise refuse(f"the file's functions unfold into more than {MAX_NODES} nodes")
        return total, height

    unfold([node for graph in graphs(model.graph) for node in graph.node], 0)


def check_tensors(model: onnx.ModelProto) -> None:
    """Refuse stored tensors without the bytes that their shapes ask for, and numbers that no weight can have.

    Raises:
        UnsafeModel: one is.
    """
    for tensor in all_tensors(model):
        name = tensor.name or "a constant"
        if tensor.data_type == onnx.TensorProto.STRING:
            continue
        try:
            value = array(tensor)
        except (OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError):
            raise refuse(f"the tensor `{name}` has a size that does not match its type and shape") from None
        if value.ndim >= 2 and value.dtype.name in _FLOATS:
            largest = float(max(value.max(initial=0.0), -value.min(initial=0.0)))
            if not largest < _MAX_WEIGHT:
                fault = "values that are not finite" if not math.isfinite(largest) else f"a value of {largest:.0e}"
                raise refuse(f"the weight `{name}` holds {fault}: the file is damaged")
        elif value.dtype.name in _FLOATS and np.isnan(value).any():
            raise refuse(f"the tensor `{name}` holds values that are not numbers: the file is damaged")


def check_shapes(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a graph whose shapes contradict each other, or that is not valid ONNX.

    Args:
        model: without functions.
        path: the same, written: the checker reads it itself, which spares a copy.

    Shapes are inferred on a copy without the weights' bytes and without the shape notes, which exporters leave stale.

    Raises:
        UnsafeModel: it is.
    """
    graph = model.graph
    bare = [
        tensor
        if math.prod(tensor.dims) <= _SHAPE_ELEMENTS
        else onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        for tensor in graph.initializer
    ]
    skeleton = onnx.ModelProto(
        ir_version=model.ir_version,
        opset_import=model.opset_import,
        graph=onnx.GraphProto(name="g", node=graph.node, input=graph.input, output=graph.output, initializer=bare),
    )
    try:
        onnx.checker.check_model(str(path))
        onnx.shape_inference.infer_shapes(skeleton, check_type=True, strict_mode=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise refuse(f"the graph is not valid ONNX: {lines[0] if lines else type(error).__name__}") from None


def check_inputs(model: onnx.ModelProto) -> None:
    """Refuse a graph whose inputs are not those of a text encoder.

    Raises:
        UnsafeModel: ids or mask are missing, one is not known, or one is not numbers of (batch, length).
    """
    inputs = {value.name: value for value in real_inputs(model)}
    hint = "bertshrink reads text encoders; make one with `bertshrink export MODEL -o DIR`"
    for ours in ("input_ids", "attention_mask"):
        if not set(INPUT_NAMES[ours]) & set(inputs):
            shown = ", ".join(f"`{name}`" for name in inputs) or "none"
            raise refuse(f"the file is not a text encoder: its inputs are {shown}, without `{ours}`", hint)
    if unknown := set(inputs) - set(OURS):
        raise refuse(f"the graph needs an input `{min(unknown)}`, which bertshrink does not provide", hint)
    for name, value in inputs.items():
        if value.type.tensor_type.elem_type not in _NUMBERS:
            raise refuse(f"the input `{name}` does not take numbers", hint)
    declared_shape(model)


def real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are not stored tensors, which old files list as well."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def declared_shape(model: onnx.ModelProto) -> tuple[int | None, int | None]:
    """The (batch, length) that a graph's inputs declare; None: any.

    Raises:
        UnsafeModel: an input has other axes, or two have different sizes.
    """
    sizes: tuple[set[int], set[int]] = (set(), set())
    for value in real_inputs(model):
        kind = value.type.tensor_type
        axes = kind.shape.dim
        if kind.HasField("shape") and len(axes) != 2:
            raise refuse(f"the input `{value.name}` has {len(axes)} axes, where (batch, length) are expected")
        for at, axis in enumerate(axes):
            sizes[at].update([axis.dim_value] if axis.dim_value > 0 else [])
    if max(map(len, sizes)) > 1:
        raise refuse("the graph's inputs declare different numbers of rows or tokens")
    batch, length = (next(iter(size), None) for size in sizes)
    return batch, length


def table_rows(model: onnx.ModelProto) -> int | None:
    """The rows of the stored table that the token ids look up: the vocabulary. None: none is seen.

    Seen are the forms that most exporters write; what is not seen, a run finds (`probe_run`).
    """
    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    weights, ids = {name: name for name in stored}, set(INPUT_NAMES["input_ids"])
    tables = []
    for node in model.graph.node:
        if not node.output:
            continue
        if node.op_type == "Constant":
            weights[node.output[0]] = node.output[0]
            stored[node.output[0]] = next((tuple(a.t.dims) for a in node.attribute if a.name == "value"), ())
        if node.op_type in DRESSINGS and node.input and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
        if node.op_type in _ID_DRESSINGS and ids & set(node.input):
            ids.update(node.output)
        if node.op_type in _LOOKUPS:
            table, index = _LOOKUPS[node.op_type]
            if len(node.input) <= max(table, index):
                continue
            shape = stored.get(weights.get(node.input[table], ""), ())
            if node.input[index] in ids and len(shape) == 2:
                tables.append(shape[0])
    return int(max(tables)) if tables else None


def unread_inputs(model: onnx.ModelProto) -> list[str]:
    """The inputs of a graph that none of its nodes reads."""
    read = {name for node in all_nodes(model) for name in node.input} | {value.name for value in model.graph.output}
    return [value.name for value in real_inputs(model) if value.name not in read]


def outputs_behind(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Of each output of a graph: the other outputs that it is computed from, or that are the same.

    Of the hidden states of all layers, the last one's are behind all others.
    """
    same: dict[str, str] = {}  # what an Identity gives -> what it is given
    for node in model.graph.node:
        if node.op_type == "Identity":
            same[node.output[0]] = same.get(node.input[0], node.input[0])
    outputs = {value.name: same.get(value.name, value.name) for value in model.graph.output}
    ends = set(outputs.values())
    before: dict[str, frozenset[str]] = {}
    for node in model.graph.node:
        names = {same.get(name, name) for inner in with_inner(node) for name in inner.input}
        reached = frozenset().union(*(before.get(name, frozenset()) for name in names)) | (names & ends)
        before |= dict.fromkeys(node.output, reached)
    return {
        name: [
            other for other, end in outputs.items() if other != name and end in before.get(value, frozenset()) | {value}
        ]
        for name, value in outputs.items()
    }


def precision_of(model: onnx.ModelProto) -> str:
    """In what the weights are stored: `int4`, `int8`, or the float type of most bytes."""
    sizes: dict[str, int] = {}
    for tensor in model.graph.initializer:
        if len(tensor.dims) >= 2:
            kind = onnx.TensorProto.DataType.Name(tensor.data_type)
            sizes[kind] = sizes.get(kind, 0) + math.prod(tensor.dims)
    quantized = [node for node in model.graph.node if node.op_type in QUANTIZED_OPS]
    bits = [attribute.i for node in quantized for attribute in node.attribute if attribute.name == "bits"]
    if 4 in bits or "INT4" in sizes or "UINT4" in sizes:
        return "int4"
    if quantized or {"INT8", "UINT8"} & set(sizes):
        return "int8"
    names = {"FLOAT": "float32", "FLOAT16": "float16", "BFLOAT16": "bfloat16", "DOUBLE": "float64"}
    widths = {"FLOAT": 4, "FLOAT16": 2, "BFLOAT16": 2, "DOUBLE": 8}
    floats = {names[kind]: count * widths[kind] for kind, count in sizes.items() if kind in names}
    return max(floats, key=lambda name: floats[name], default="float32")
