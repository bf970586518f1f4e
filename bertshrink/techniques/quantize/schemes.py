"""Which weight is written in which type.

    float32, float16, bfloat16   numbers as they are, or stored in half (`onnx_graph.half_precision`)
    int8-dynamic                 bytes; activations become bytes as the model runs (`dynamic_int8`)
    int8-static                  bytes; activations become bytes by ranges found beforehand (`static_int8`)
    int8-block, int4-block       a scale for each block of a row (`numerics.blockwise`, `writers.blockwise`)

A table in one of the first two int8 types is bytes with one scale per row: looking up knows no activations.

A *scheme* gives one type to all dense layers and one to all tables. A table that a masked-language head multiplies
with is a table: it is stored once, in one type, for both. What measuring finds (some layers wider than others) is
another assignment, and the rewriting takes any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import onnx

from bertshrink.onnx_graph.half_weights import HalfType
from bertshrink.onnx_graph.weights import weights
from bertshrink.techniques.quantize.size_estimate import type_of

if TYPE_CHECKING:
    from bertshrink.techniques.quantize.settings import QuantizeSettings

TYPES = ("float32", "float16", "bfloat16", "int8-dynamic", "int8-static", "int8-block", "int4-block")

HALF: tuple[HalfType, ...] = ("float16", "bfloat16")

_PRECISIONS = {"int8-dynamic": "int8", "int8-static": "int8", "int8-block": "int8", "int4-block": "int4"}


def uniform(model: onnx.ModelProto, scheme: str, settings: QuantizeSettings) -> dict[str, str]:
    """A scheme's assignment.

    Args:
        settings: for `embeddings`.

    Returns:
        the name of every weight -> its type.
    """
    return {
        name: type_of(weight.shape, scheme, settings.embeddings, is_table=weight.is_table)
        for name, weight in weights(model).items()
    }


def precision(model: onnx.ModelProto, types: Mapping[str, str]) -> str:
    """What a card calls an assignment: `int8`, or `int4+int8` (most bytes first) where there are several."""
    size: dict[str, int] = {}
    for name, weight in weights(model).items():
        kind = types.get(name, "float32")
        kind = _PRECISIONS.get(kind, kind)
        size[kind] = size.get(kind, 0) + weight.size_bytes
    return "+".join(sorted(size, key=lambda kind: (-size[kind], kind))) or "float32"
