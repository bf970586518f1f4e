"""A canonical graph by who makes and who reads what, for those who change what dense layers read."""

from __future__ import annotations

from collections import defaultdict

import onnx

from bertshrink.onnx_graph.encoder_graph import initializers
from bertshrink.onnx_graph.weights import weights


class DenseGraph:
    """A graph's connections.

    Attributes:
        weights: by name.
        stored: stored tensors by name.
        makers: value -> the node that gives it.
        readers: value -> the nodes that read it.
        reads: activation -> the weights that it is multiplied with.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.weights = weights(model)
        self.stored = initializers(model)
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self.reads: dict[str, list[str]] = defaultdict(list)
        for name, weight in self.weights.items():
            for read in weight.matmuls:
                self.reads[read.node.input[0]].append(name)
