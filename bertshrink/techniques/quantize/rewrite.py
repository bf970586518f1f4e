"""From a float graph and a type for every weight to a quantized graph: one engine for every scheme.

A writer a type and kind of reader (dense layer, lookup), from the tables below; half types are a Cast in front
(`model.onnx_half`). Everything else is copied: attention scores and mixing (two activations), norms, biases, and tables
of a few rows stay float32.

Nothing is skipped silently: the finished graph is counted anew (`accounting`), and a count other than the one asked for
is an error. With every weight in float32 the result is the canonical graph itself, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import onnx

from bertshrink.errors import RequestError
from bertshrink.model.onnx_canonical import canonicalise
from bertshrink.model.onnx_graph import WeightMatMul
from bertshrink.model.onnx_half import store_half
from bertshrink.model.onnx_weights import Weight
from bertshrink.techniques.quantize import block_graph, dynamic, static
from bertshrink.techniques.quantize.accounting import Accounting, account, check_complete
from bertshrink.techniques.quantize.assign import HALF, TYPES
from bertshrink.techniques.quantize.draft import Draft, Options

DENSE: dict[str, Callable[[Draft, WeightMatMul], None]] = {
    "int8-dynamic": dynamic.dense,
    "int8-static": static.dense,
    "int8-block": partial(block_graph.dense, num_bits=8),
    "int4-block": partial(block_graph.dense, num_bits=4),
}
"""Type -> what writes a MatMul with a weight of that type."""

LOOKUP: dict[str, Callable[[Draft, onnx.NodeProto], None]] = {
    "int8-dynamic": dynamic.lookup,
    "int8-static": dynamic.lookup,
    "int8-block": partial(block_graph.lookup, num_bits=8),
    "int4-block": partial(block_graph.lookup, num_bits=4),
}
"""Type -> what writes a Gather from a table of that type."""


@dataclass(frozen=True)
class Rewritten:
    """A quantized graph and what was counted in it."""

    model: onnx.ModelProto
    accounting: Accounting


def rewrite(source: onnx.ModelProto, types: Mapping[str, str], options: Options | None = None) -> Rewritten:
    """Write every weight in its type.

    Args:
        source: an encoder's float32 graph; it is not changed.
        types: name of a weight (`onnx_weights`) -> a name in `TYPES`; weights that are not named stay float32.
        options: block size, ranges of activations and the like; None: the defaults.

    Raises:
        RequestError: a name that is no weight, or no type; a range that is missing.
        CheckFailed: the finished graph is not what was asked for.

    """
    model = canonicalise(source)
    draft = Draft(model, options or Options())
    _refuse_unknown(types, draft.weights)
    writers: dict[str, Callable[[], None]] = {}
    for name, weight in draft.weights.items():
        kind = types.get(name, "float32")
        if kind in DENSE:
            writers |= {found.node.output[0]: partial(DENSE[kind], draft, found) for found in weight.matmuls}
            writers |= {node.output[0]: partial(LOOKUP[kind], draft, node) for node in weight.gathers}
    for node in model.graph.node:
        writers.get(node.output[0], partial(draft.nodes.append, node))()
    found = draft.result()
    for half in HALF:
        if names := {name for name, kind in types.items() if kind == half}:
            found = store_half(found, half, names)
    accounting = account(found)
    check_complete(found, accounting, draft.weights, types)
    return Rewritten(found, accounting)


def _refuse_unknown(types: Mapping[str, str], known: Mapping[str, Weight]) -> None:
    """Refuse an assignment that cannot be carried out.

    Raises:
        RequestError: a name that is no weight, or no type; a table whose rows a dense layer does not read as outputs.

    """
    for name, kind in types.items():
        if name not in known:
            raise RequestError(f"the graph has no weight `{name}`")
        if kind not in TYPES:
            raise RequestError(f"there is no type `{kind}`", hint=f"types: {', '.join(TYPES)}")
        weight = known[name]
        if kind in DENSE and weight.is_table and not all(found.is_transposed for found in weight.matmuls):
            raise RequestError(f"`{name}` is looked up by rows and multiplied with as it is: keep it in float32")
