"""What a weight takes in each type, in bytes: its numbers and scales exactly, the operations around it on average.

The numbers are those that the writers store (`writers`, `onnx_graph.half_precision`). Operations
were counted on models of two and four layers of every family: their names, most of what they take, grow with those of
the layers.
"""

from __future__ import annotations

from dataclasses import replace

from bertshrink.model.families import name_bytes
from bertshrink.model.sizes.size_estimate import MIN_INT4_OUTPUTS, Part, Sizes, half_of

SCHEMES: dict[str, str] = {
    "dynamic-int8": "int8-dynamic",
    "static-int8": "int8-static",
    "block-int8": "int8-block",
    "block-int4": "int4-block",
    "float16": "float16",
    "bfloat16": "bfloat16",
}
"""A scheme's name -> the type that it gives."""

SMALLEST_BLOCK = 16
"""Both of ONNX Runtime's block operators take powers of two from here on."""

_OPERATIONS = {
    # type: (each use of a dense layer's, each of them, for each letter of the prefix, a head's, a table's, a tied one's)
    "int8-dynamic": (1136, 0, 15.2, 927, 519, 1889),
    "int8-static": (1047, 0, 12.3, 967, 589, 2218),
    "int8-block": (192, 243, 4.6, 356, 316, 379),
    "int4-block": (192, 243, 4.6, 356, 316, 379),
}


def type_of(shape: tuple[int, int], scheme: str, embeddings: str, *, is_table: bool) -> str:
    """The type that a scheme gives a weight.

    Args:
        shape: (inputs, outputs) of a dense layer, (rows, width) of a table.
        is_table: whether rows are looked up in it.
    """
    dense = SCHEMES[scheme]
    if is_table:
        in_blocks = scheme.startswith("block")
        named = {"int8": "int8-block" if in_blocks else "int8-dynamic", "int4": "int4-block", "float32": "float32"}
        if embeddings == "int8" and scheme == "static-int8":
            return dense
        return named.get(embeddings, dense)
    return "int8-block" if dense == "int4-block" and shape[1] < MIN_INT4_OUTPUTS else dense


def block_size_for(width: int, block_size: int) -> int:
    """The block size for rows of `width`: the largest power of two up to `block_size` that divides it, if there is one.

    Otherwise the last block of each row is short, and the block is no longer than need be.
    """
    size = block_size
    while size >= SMALLEST_BLOCK:
        if width % size == 0:
            return size
        size //= 2
    return min(block_size, max(SMALLEST_BLOCK, 1 << (width - 1).bit_length()))


def quantized(before: Sizes, scheme: str, embeddings: str, block_size: int, *, per_channel: bool) -> Sizes:
    """A float file with every weight in the type that a scheme gives it; the settings are those of `Quantize`."""
    parts = []
    for part in before.parts:
        kind = "float32"
        if part.is_weight:
            kind = type_of(part.shape, scheme, embeddings, is_table=part.role == "table")
        if kind in ("float32", "float16", "bfloat16"):
            parts.append(part if kind == "float32" else half_of(part, before))
            continue
        num_bytes = stored_bytes(part, kind, block_size, per_channel=per_channel)
        parts.append(replace(part, num_bytes=num_bytes, about=_about(part, kind, before)))
    return replace(before, parts=tuple(parts), is_float=False)


def stored_bytes(part: Part, kind: str, block_size: int, *, per_channel: bool = True) -> int:
    """The bytes of a weight of an integer type, scales included."""
    first, second = part.shape
    if kind in ("int8-dynamic", "int8-static"):
        scales = first if part.role == "table" else second if per_channel else 1
        return first * second + 4 * scales
    bits = 8 if kind == "int8-block" else 4
    rows, width = (first, second) if part.role == "table" else (second, first)
    size = block_size_for(width, block_size)
    num_blocks = -(-width // size)
    is_padded = part.role == "dense" or part.is_tied  # as MatMulNBits reads them
    packed = num_blocks * size * bits // 8 if is_padded else -(-width * bits // 8)
    return rows * (packed + 2 * num_blocks)


def _about(part: Part, kind: str, before: Sizes) -> float:
    """The bytes of the operations that a weight of an integer type brings with it."""
    use, each, letter, head, table, tied = _OPERATIONS[kind]
    if part.role == "table":
        return table + (tied if part.is_tied else 0)
    if part.is_head:
        return head * part.uses
    more, more_each = name_bytes(before.family).quantized.get(kind, (0, 0))
    return part.uses * (use + more + letter * before.prefix) + each + more_each
