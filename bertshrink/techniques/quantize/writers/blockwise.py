"""Weights in blocks as ONNX Runtime's own operators read them: MatMulNBits for dense layers, GatherBlockQuantized for
tables (domain com.microsoft, so no other runtime reads such a file without knowing them).

    x -> MatMulNBits(blocks, scales) -> the old bias Add        ids -> GatherBlockQuantized(table blocks, scales)

Both read the same bytes in the same order, so a table that a masked-language head multiplies with is stored once:
GatherBlockQuantized reads it as (rows, bytes), through a Reshape that ONNX Runtime computes when it loads.

Scales are stored as float16, and a Cast brings them back when the file is loaded: with blocks of 32 they would else be
a fifth of a 4-bit file. A scale's own rounding (1 part in 2000) is nothing beside a weight's. Where a scale falls
outside float16's normal range they stay float32.
"""

from __future__ import annotations

import numpy as np
import onnx

from bertshrink.errors import UserError
from bertshrink.onnx_graph.encoder_graph import CONTRIB, WeightMatMul
from bertshrink.techniques.quantize.numerics.blockwise import Blocks, pack_gather, pack_matmul_nbits, quantize_blocks
from bertshrink.techniques.quantize.size_estimate import SMALLEST_BLOCK, block_size_for
from bertshrink.techniques.quantize.writers.builder import GraphBuilder


def dense(draft: GraphBuilder, matmul: WeightMatMul, num_bits: int) -> None:
    """Write a MatMul with a stored weight as MatMulNBits."""
    name = matmul.weight
    blocks = _blocks(draft, name, num_bits)
    inputs = [matmul.node.input[0], *_tensors(draft, name, blocks)]
    rows, width = blocks.steps_RI.shape
    sizes = {"K": width, "N": rows, "bits": num_bits, "block_size": blocks.block_size}
    level = {"accuracy_level": draft.options.accuracy_level}
    draft.node("MatMulNBits", inputs, matmul.node.output[0], CONTRIB, **sizes, **level)


def lookup(draft: GraphBuilder, node: onnx.NodeProto, num_bits: int) -> None:
    """Write a Gather of table rows as GatherBlockQuantized."""
    name = node.input[0]
    blocks = _blocks(draft, name, num_bits)
    table, *others = _tensors(draft, name, blocks)
    if draft.weights[name].matmuls:  # stored as MatMulNBits reads it
        shape = draft.keep(np.array([len(blocks.steps_RI), -1], dtype=np.int64), f"{name}.rows")
        table = draft.node("Reshape", [table, shape], f"{name}.table")
    sizes = {"gather_axis": 0, "quantize_axis": 1, "bits": num_bits, "block_size": blocks.block_size}
    draft.node("GatherBlockQuantized", [table, node.input[1], *others], node.output[0], CONTRIB, **sizes)


def round_nearest(weight_RI: np.ndarray, num_bits: int, block_size: int) -> Blocks:
    """A weight (outputs or rows, inputs or width) in blocks, each number to the nearest step."""
    return quantize_blocks(weight_RI, num_bits, block_size_for(weight_RI.shape[1], block_size), symmetric=True)


def _blocks(draft: GraphBuilder, name: str, num_bits: int) -> Blocks:
    blocks = draft.blocks.get(name) or draft.options.blocks.get((name, num_bits))
    if blocks is None:
        weight = draft.weight(name)
        rows = weight if draft.weights[name].is_table else weight.T
        blocks = round_nearest(rows, num_bits, draft.options.block_size)
    draft.blocks[name] = blocks
    return blocks


def _tensors(draft: GraphBuilder, name: str, blocks: Blocks) -> list[str]:
    """Names of the packed blocks, their scales and (asymmetric) zero points, stored the first time."""
    weight = draft.weights[name]
    if weight.is_table and weight.matmuls and blocks.steps_RI.shape[1] % blocks.block_size:
        raise UserError(
            f"`{name}` is {blocks.steps_RI.shape[1]} wide, which is not a multiple of {SMALLEST_BLOCK}: "
            "table and head cannot share it in blocks",
            hint="keep it in another type with `embeddings: float32`",
        )
    data, scale, zero_point = pack_matmul_nbits(blocks) if weight.matmuls else pack_gather(blocks)
    names = [draft.keep(data, f"{name}.blocks"), _scale(draft, name, scale)]
    if zero_point is not None:
        names.append(draft.keep(zero_point, f"{name}.zero_point"))
    return names


def _scale(draft: GraphBuilder, name: str, scale: np.ndarray) -> str:
    """Store scales, in half where float16 holds them."""
    size = np.abs(scale[scale != 0])
    limits = np.finfo(np.float16)
    if size.size and (size.min() < limits.tiny or size.max() > limits.max):
        return draft.keep(scale, f"{name}.scale")
    half = draft.keep(scale.astype(np.float16), f"{name}.scale.half")
    return draft.node("Cast", [half], f"{name}.scale", to=onnx.TensorProto.FLOAT)
