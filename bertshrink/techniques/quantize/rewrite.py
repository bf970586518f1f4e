"""From a float graph and a type for every weight to a quantized graph: one engine for every scheme.

A writer a type and kind of reader (dense layer, lookup), from the tables below; half types are a Cast in front
(`onnx_graph.half_precision`). Everything else is copied: attention scores and mixing (two activations), norms, biases,
and tables of a few rows stay float32.

Nothing is skipped silently: the finished graph is counted again (`coverage`), and a count other than the one asked for
is an error. With every weight in float32 the result is the canonical graph itself, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import onnx

from bertshrink.errors import UserError
from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import WeightMatMul
from bertshrink.onnx_graph.half_weights import store_half
from bertshrink.onnx_graph.weights import StoredWeight
from bertshrink.techniques.quantize.coverage import TypeCoverage, account, check_complete
from bertshrink.techniques.quantize.schemes import HALF, TYPES
from bertshrink.techniques.quantize.writers import blockwise, dynamic_int8, static_int8
from bertshrink.techniques.quantize.writers.builder import GraphBuilder, RewriteOptions

DENSE: dict[str, Callable[[GraphBuilder, WeightMatMul], None]] = {
    "int8-dynamic": dynamic_int8.dense,
    "int8-static": static_int8.dense,
    "int8-block": partial(blockwise.dense, num_bits=8),
    "int4-block": partial(blockwise.dense, num_bits=4),
}
"""Type -> what writes a MatMul with a weight of that type."""

LOOKUP: dict[str, Callable[[GraphBuilder, onnx.NodeProto], None]] = {
    "int8-dynamic": dynamic_int8.lookup,
    "int8-static": dynamic_int8.lookup,
    "int8-block": partial(blockwise.lookup, num_bits=8),
    "int4-block": partial(blockwise.lookup, num_bits=4),
}
"""Type -> what writes a Gather from a table of that type."""


@dataclass(frozen=True)
class QuantizedGraph:
    """A quantized graph and what was counted in it."""

    model: onnx.ModelProto
    accounting: TypeCoverage


def rewrite(source: onnx.ModelProto, types: Mapping[str, str], options: RewriteOptions | None = None) -> QuantizedGraph:
    """Write every weight in its type.

    Args:
        source: an encoder's float32 graph; it is not changed.
        types: name of a weight (`onnx_graph.weights`) -> a name in `TYPES`; weights that are not named stay float32.

    Raises:
        UserError: a name that is not a weight, or no type; a range that is missing.
        CheckFailed: the finished graph is not what was asked for.
    """
    model = canonicalise(source)
    draft = GraphBuilder(model, options or RewriteOptions())
    _refuse_unknown(types, draft.weights)
    writers: dict[str, Callable[[], None]] = {}
    for name, weight in draft.weights.items():
        kind = types.get(name, "float32")
        if kind in DENSE:
            writers |= {matmul.node.output[0]: partial(DENSE[kind], draft, matmul) for matmul in weight.matmuls}
            writers |= {node.output[0]: partial(LOOKUP[kind], draft, node) for node in weight.gathers}
    for node in model.graph.node:
        writers.get(node.output[0], partial(draft.nodes.append, node))()
    written = draft.result()
    for half in HALF:
        if names := {name for name, kind in types.items() if kind == half}:
            written = store_half(written, half, names)
    accounting = account(written)
    check_complete(written, accounting, draft.weights, types)
    return QuantizedGraph(written, accounting)


def _refuse_unknown(types: Mapping[str, str], known: Mapping[str, StoredWeight]) -> None:
    for name, kind in types.items():
        if name not in known:
            raise UserError(f"the graph has no weight `{name}`")
        if kind not in TYPES:
            raise UserError(f"there is no type `{kind}`", hint=f"types: {', '.join(TYPES)}")
        weight = known[name]
        if kind in DENSE and weight.is_table and not all(matmul.is_transposed for matmul in weight.matmuls):
            raise UserError(f"`{name}` is both looked up by rows and multiplied: keep it in float32")
