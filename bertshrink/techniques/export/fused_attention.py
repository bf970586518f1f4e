"""Attention as one operator: com.microsoft's MultiHeadAttention in place of the ten nodes of every layer.

    Reshape, Transpose (q, k, v) -> MatMul -> Mul by 1/sqrt(d) -> Add mask -> Softmax -> MatMul -> Transpose -> Reshape
    MultiHeadAttention(q, k, v, mask)          q, k, v (B, L, H) as the dense layers give them, mask int32 (B, L)

ONNX Runtime and OpenVINO know it; other runtimes do not. The numbers stay the same to the bit in ONNX Runtime, and
the dense layers stay what quantizers look for. How much faster it is depends on how fast the machine multiplies: on a
CPU with AVX2 only, where dense layers are nine tenths of the time, a hundredth (`benchmarks/LOG.md`).

The operator takes the mask of tokens itself, so a layer is joined only where what is added to its scores is proven to
be 0 at tokens and below any score at padding; the proof is to compute it for masks of different shapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import CONTRIB, array, import_contrib, initializers

_MASK = "attention_mask"
_TOKENS = "attention_mask.int32"
_LOWEST = -1e4
"""What is added at padding must be lower than this: then its share after the softmax is exactly 0 in float32."""


def fuse_attention(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """Join every attention that can be joined.

    Args:
        model: a canonical graph with constant reshape targets; it is not changed.

    Returns:
        the new model and the number of joined attentions; with 0 the model is the one given.
    """
    graph = _Graph(model)
    matches = [(node, match) for node in model.graph.node if (match := graph.match(node)) is not None]
    if not matches:
        return model, 0
    made = onnx.ModelProto()
    made.CopyFrom(model)
    joined = {node.output[0]: match for node, match in matches}
    nodes = [onnx.helper.make_node("Cast", [_MASK], [_TOKENS], f"{_TOKENS}/Cast", to=onnx.TensorProto.INT32)]
    for node in model.graph.node:
        nodes.append(joined.get(node.output[0], node))
    made.graph.ClearField("node")
    made.graph.node.extend(nodes)
    import_contrib(made)
    return canonicalise(made), len(matches)


class _Graph:
    """Who makes and who reads each value of a graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.stored = initializers(model)
        self.num_readers: dict[str, int] = {}
        for node in model.graph.node:
            for name in node.input:
                self.num_readers[name] = self.num_readers.get(name, 0) + 1
        self.masks: dict[str, bool] = {}

    def maker(self, name: str, kind: str) -> onnx.NodeProto | None:
        """The node that makes a value, where it is of this kind and the value is read once."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type == kind and self.num_readers.get(name) == 1 else None

    def match(self, last: onnx.NodeProto) -> onnx.NodeProto | None:
        """The operator in place of the attention that ends in this Reshape; None where there is none."""
        if last.op_type != "Reshape":
            return None
        turned = self.maker(last.input[0], "Transpose")
        mixed = turned and _perm(turned) == [0, 2, 1, 3] and self.maker(turned.input[0], "MatMul")
        shares = mixed and self.maker(mixed.input[0], "Softmax")
        masked = shares and self.maker(shares.input[0], "Add")
        scaled = masked and self.maker(masked.input[0], "Mul")
        scores = scaled and self.maker(scaled.input[0], "MatMul")
        if not (mixed and masked and scaled and scores) or not self.is_padding(masked.input[1]):
            return None
        heads = [
            self.heads(name, perm) for name, perm in ((scores.input[0], [0, 2, 1, 3]), (scores.input[1], [0, 2, 3, 1]))
        ]
        heads.append(self.heads(mixed.input[1], [0, 2, 1, 3]))
        scale = self.scalar(scaled.input[1])
        if scale is None or any(head is None for head in heads) or len({head[1] for head in heads if head}) != 1:
            return None
        return onnx.helper.make_node(
            "MultiHeadAttention",
            [*(head[0] for head in heads if head), "", _TOKENS],
            [last.output[0]],
            f"{last.output[0]}/MultiHeadAttention",
            domain=CONTRIB,
            num_heads=heads[0][1] if heads[0] else 0,
            scale=scale,
        )

    def heads(self, name: str, perm: list[int]) -> tuple[str, int] | None:
        """Where (B, L, H) is cut into heads and turned: the value before, and the number of heads."""
        turned = self.maker(name, "Transpose")
        cut = turned and _perm(turned) == perm and self.maker(turned.input[0], "Reshape")
        if not cut or cut.input[1] not in self.stored:
            return None
        target = array(self.stored[cut.input[1]]).tolist()
        return (cut.input[0], target[2]) if len(target) == 4 and target[:2] == [0, 0] and target[2] > 0 else None

    def scalar(self, name: str) -> float | None:
        """A stored number."""
        stored = self.stored.get(name)
        return float(array(stored).ravel()[0]) if stored is not None and array(stored).size == 1 else None

    def is_padding(self, name: str) -> bool:
        """Whether a value is computed from the mask of tokens alone, and is 0 at tokens and very low at padding."""
        if name not in self.masks:
            self.masks[name] = self.prove_padding(name)
        return self.masks[name]

    def prove_padding(self, name: str) -> bool:
        """As `is_padding`, computed."""
        nodes = _ancestors(name, self.model.graph.node)
        read = {value for node in nodes for value in node.input}
        if not nodes or read - {value for node in nodes for value in node.output} - set(self.stored) != {_MASK}:
            return False
        graph = onnx.helper.make_graph(
            nodes,
            "mask",
            [onnx.helper.make_tensor_value_info(_MASK, onnx.TensorProto.INT64, ["B", "L"])],
            [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)],
            [self.stored[value] for value in sorted(read & set(self.stored))],
        )
        evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=self.model.opset_import))
        for mask in (np.array([[1, 1, 0], [1, 0, 0]]), np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]])):
            (bias,) = evaluator.run(None, {_MASK: mask.astype(np.int64)})
            if bias.shape != (mask.shape[0], 1, 1, mask.shape[1]):
                return False
            at = bias[:, 0, 0]
            if not (at[mask == 1] == 0).all() or not (at[mask == 0] < _LOWEST).all():
                return False
        return True


def _perm(node: onnx.NodeProto) -> list[int]:
    settings: dict[str, Any] = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return list(settings.get("perm", []))


def _ancestors(name: str, nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Those of the nodes, which are in the graph's order, that a value is computed by."""
    needed, ancestors = {name}, []
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            needed.update(node.input)
            ancestors.append(node)
    return ancestors[::-1]
