"""What one inference of a model has to do: the operations of its matrix products, and the bytes that it must touch.

    operations   2 M K N of every product, by the type that it is multiplied in; attention's two products grow with the
                 square of the length: 4 H L of each token in each layer
    bytes        every matrix that is multiplied with, once (layers that share weights read one copy), and the rows of
                 the embeddings that are looked up. Activations are left out, as if they never left the caches: a lower
                 bound

Softmax, norms and activation functions, under 2 % of the operations together, are left out. A checkpoint's are counted
from its configuration, an ONNX file's from its graph; of other files nothing is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bertshrink.model.checkpoint_info import CheckpointInfo
from bertshrink.model.sizes.parameter_count import stored
from bertshrink.model.tasks import TASKS

WIDTH_BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2}
"""Of a number, by the precision that a checkpoint is run in; TF32 is how a GPU may multiply float32."""


@dataclass(frozen=True)
class InferenceCost:
    """What one inference has to do.

    Attributes:
        operations: by the type that they are multiplied in; a multiply-add is two.
        num_bytes: the fewest that must be touched.
    """

    operations: Mapping[str, int]
    num_bytes: int

    @property
    def num_operations(self) -> int:
        """Of all types together."""
        return sum(self.operations.values())


def encoder_work(facts: CheckpointInfo, batch: int, length: int, precision: str = "float32") -> InferenceCost | None:
    """The work of a checkpoint; None where its layers are of another kind.

    Args:
        precision: what it is run in: all its products and weights.
    """
    shape, tokens = facts.shape, batch * length
    flops = shape.flops_per_token(length)
    if flops is None:
        return None
    kept = [one for one in stored(facts) if one.role == "dense" or one.is_tied]
    heads = [(math.prod(one.shape), one.number) for one in kept if one.is_head or one.is_tied]
    head = sum(size * number for size, number in heads)
    is_per_token = TASKS[facts.task].per_token or TASKS[facts.task].has_masked_head
    operations = tokens * flops + 2 * (tokens if is_per_token else batch) * head
    weights = sum(math.prod(one.shape) * one.number for one in kept)
    rows = tokens + (length if facts.anatomy.has_positions(facts.config) else 0)  # of words and of positions
    num_bytes = (weights + rows * shape.embedding_size) * WIDTH_BYTES[precision]
    return InferenceCost({precision: operations}, num_bytes)


def onnx_work(path: Path, batch: int, length: int, precision: str | None = None) -> InferenceCost | None:
    """The work of an ONNX file; None where its graph does not tell.

    Args:
        precision: what the engine multiplies floats in; None: the graph's own types.

    Raises:
        UnsafeModel: the file is damaged.
    """
    from bertshrink.meters.roofline.graph_flops import graph_work
    from bertshrink.onnx_graph.encoder_graph import read_model

    cost = graph_work(read_model(path, numbers=False), batch, length)
    if cost is None:
        return None
    operations: dict[str, int] = {}
    weights: dict[str, int] = {}
    for product in cost.products:
        kind = precision if precision is not None and product.precision in WIDTH_BYTES else product.precision
        operations[kind] = operations.get(kind, 0) + product.operations
        weights |= product.weights
    return InferenceCost(operations, sum(weights.values()) + cost.gathered_bytes)
