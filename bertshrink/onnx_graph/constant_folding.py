"""What a graph computes from stored values alone, computed once; and what must not be, told before it is.

A node of stored inputs may be tiny on disk and endless in memory: `ConstantOfShape([2^40])`. So a node is computed only
if it is in this file's table, which says from the inputs how many elements will come out:

    as its input       Cast, Reshape, Transpose, Sqrt, ...           the input's elements
    broadcast          Add, Mul, Equal, Where, ...                   the product of the largest sizes
    a few numbers      Shape, Size                                   at most one for each axis
    asked for          ConstantOfShape, Expand, Tile, Range          what their inputs say
    picked, joined     Gather, Slice, Concat

Matrix products are not in the table: a factorized table and its projection, multiplied, would be the full table again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

Arrays = Sequence[NDArray[Any]]

MAX_GROWN_ELEMENTS = 4096
"""A result larger than its inputs is stored up to this size: shapes and masks, never an expanded weight."""


def _first(feeds: Arrays, node: onnx.NodeProto) -> int:
    return int(feeds[0].size)


def _broadcast(feeds: Arrays, node: onnx.NodeProto) -> int:
    return math.prod(np.broadcast_shapes(*(feed.shape for feed in feeds)))


def _rank(feeds: Arrays, node: onnx.NodeProto) -> int:
    return max(1, feeds[0].ndim)


def _asked(feeds: Arrays, node: onnx.NodeProto) -> int:
    return math.prod(int(size) for size in feeds[0].ravel())


def _expanded(feeds: Arrays, node: onnx.NodeProto) -> int:
    return math.prod(np.broadcast_shapes(feeds[0].shape, tuple(int(size) for size in feeds[1].ravel())))


def _tiled(feeds: Arrays, node: onnx.NodeProto) -> int:
    return int(feeds[0].size) * math.prod(int(number) for number in feeds[1].ravel())


def _counted(feeds: Arrays, node: onnx.NodeProto) -> int:
    start, limit, step = (float(feed) for feed in feeds)
    return max(0, math.ceil((limit - start) / step))


def _gathered(feeds: Arrays, node: onnx.NodeProto) -> int:
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    return int(feeds[1].size) * int(feeds[0].size) // max(1, int(feeds[0].shape[axis]))


def _joined(feeds: Arrays, node: onnx.NodeProto) -> int:
    return sum(int(feed.size) for feed in feeds)


_AS_ITS_INPUT = (
    *("Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Trilu", "CumSum"),
    *("Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Floor", "Ceil", "Round", "Sign", "Not", "Clip"),
    *("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceMean"),
)
_BROADCAST = (
    *("Add", "Sub", "Mul", "Div", "Mod", "Pow", "Min", "Max", "And", "Or", "Xor", "Where"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
)
SIZES: dict[str, Callable[[Arrays, onnx.NodeProto], int]] = {
    **dict.fromkeys(_AS_ITS_INPUT, _first),
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(("Shape", "Size"), _rank),
    "ConstantOfShape": _asked,
    "Expand": _expanded,
    "Tile": _tiled,
    "Range": _counted,
    "Gather": _gathered,
    "Concat": _joined,
}


def computed(node: onnx.NodeProto, feeds: dict[str, NDArray[Any]]) -> NDArray[Any] | None:
    """The value of a node of stored inputs; None where it would be too large, or is not in the table.

    Args:
        node: with one output and no input left out.
    """
    given = [feeds[name] for name in node.input]
    if node.op_type not in SIZES or node.domain:
        return None
    largest = max(MAX_GROWN_ELEMENTS, *(feed.size for feed in given))
    try:
        if not 0 <= SIZES[node.op_type](given, node) <= largest:
            return None
        value = evaluate(node, feeds)
    except (ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError, RuntimeError):
        return None  # the node is wrong, which the engine that loads the graph will say
    return value if value.size <= largest else None


def evaluate(node: onnx.NodeProto, feeds: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The only output of a node, as onnx's own reference computes it."""
    (output,) = ReferenceEvaluator(node).run(None, feeds)
    return np.asarray(output)
