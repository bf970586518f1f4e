"""A graph while it is rewritten: the new nodes in their order, the new tensors, each made once.

Values keep their names, so what is not rewritten needs no change: a MatMul's replacement ends in the MatMul's output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bertshrink.onnx_graph.encoder_graph import CONTRIB, array, import_contrib, initializers, tensor
from bertshrink.onnx_graph.weights import assembled, weights
from bertshrink.techniques.quantize.numerics.blockwise import Blocks
from bertshrink.techniques.quantize.numerics.int8 import Int8


@dataclass(frozen=True)
class RewriteOptions:
    """What the writers of all types need to know besides the types.

    Attributes:
        per_channel: a scale for each output of a dense layer in int8, instead of one for all.
        block_size: the most neighbours that share a scale in a block type.
        accuracy_level: MatMulNBits' own: 4 turns activations to bytes, too, 0 multiplies in float32. Measured with six
            layers 384 wide on an AVX2 core: one text of 32 tokens takes 17 ms at 4 and 41 ms at 0 with 8 bits, 11 and
            16 with 4 bits (float32 14); 8 texts of 64 take up to 1.3 times as long at 4; cosines alike to 0.0001.
        ranges: int8-static: the name of each activation that a dense layer reads -> its least and largest value.
        blocks: block types: (weight name, bits) -> the weight (outputs, inputs) as rounded beforehand.
        columns: the other int8 types: weight name -> the weight (inputs, outputs) as rounded beforehand.
    """

    per_channel: bool = True
    block_size: int = 32
    accuracy_level: int = 4
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    blocks: Mapping[tuple[str, int], Blocks] = field(default_factory=dict)
    columns: Mapping[str, Int8] = field(default_factory=dict)


class GraphBuilder:
    """The new nodes and tensors of one graph."""

    def __init__(self, model: onnx.ModelProto, options: RewriteOptions) -> None:
        self.model = model
        self.options = options
        self.weights = weights(model)
        self.stored = initializers(model)
        self.added: dict[str, onnx.TensorProto] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.made: set[str] = set()
        self.blocks: dict[str, Blocks] = {}

    def weight(self, name: str) -> NDArray[np.float32]:
        """A weight's numbers."""
        return array(self.stored[name])

    def keep(self, value: NDArray[Any], name: str) -> str:
        """Store a tensor, the first time; returns its name."""
        if name not in self.added:
            self.added[name] = tensor(value, name)
        return name

    def node(self, kind: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Append a node of one output, the first time; returns the output's name."""
        if output not in self.made:
            self.made.add(output)
            name = f"{output}/{kind}"
            self.nodes.append(onnx.helper.make_node(kind, inputs, [output], name, domain=domain or None, **attributes))
        return output

    def result(self) -> onnx.ModelProto:
        """The model with the new nodes and tensors, without what nothing reads any more."""
        quantized = assembled(self.model, self.nodes, {**self.stored, **self.added})
        if any(node.domain == CONTRIB for node in self.nodes):
            import_contrib(quantized)
        return quantized
