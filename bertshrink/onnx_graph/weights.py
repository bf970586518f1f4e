"""Which stored weights an encoder's graph has, and who reads each.

A weight is a float matrix that a dense layer multiplies with, a table that rows are looked up in, or both at once: the
word table that a masked-language head is tied to. Everything else that is stored (biases, norms, numbers that the
graph reckons with) is small and no weight, and so are tables of a few rows (token types).

A canonical graph is asked for (`canonicalize`): there every weight has one name, however many layers read it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from bertshrink.model.sizes.size_estimate import MIN_TABLE_ROWS
from bertshrink.onnx_graph.encoder_graph import WeightMatMul, initializers, table_gathers, weight_matmuls


@dataclass(frozen=True)
class StoredWeight:
    """One stored float matrix and its readers.

    Attributes:
        name: of the initializer.
        shape: as stored: (inputs, outputs) of a dense layer, (rows, width) of a table.
        matmuls: the MatMuls that multiply with it.
        gathers: the Gathers that look rows up in it.
    """

    name: str
    shape: tuple[int, int]
    matmuls: tuple[WeightMatMul, ...]
    gathers: tuple[onnx.NodeProto, ...]

    @property
    def is_table(self) -> bool:
        """Whether rows are looked up in it (a dense layer may multiply with it besides)."""
        return bool(self.gathers)

    @property
    def size_bytes(self) -> int:
        """Bytes in float32."""
        return 4 * self.shape[0] * self.shape[1]


def weights(model: onnx.ModelProto) -> dict[str, StoredWeight]:
    """The weights of a canonical graph by name, in the order in which they are stored."""
    matmuls: dict[str, list[WeightMatMul]] = defaultdict(list)
    gathers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for matmul in weight_matmuls(model):
        matmuls[matmul.weight].append(matmul)
    for node in table_gathers(model):
        gathers[node.input[0]].append(node)
    return {
        name: StoredWeight(name, (stored.dims[0], stored.dims[1]), tuple(matmuls[name]), tuple(gathers[name]))
        for name, stored in initializers(model).items()
        if name in matmuls or (name in gathers and stored.dims[0] >= MIN_TABLE_ROWS)
    }


def without_unread(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model without nodes and stored tensors that no output depends on."""
    return assembled(model, model.graph.node, initializers(model))


def assembled(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], stored: Mapping[str, onnx.TensorProto]
) -> onnx.ModelProto:
    """A model of these nodes and tensors, as far as an output depends on them; what is left out is never copied.

    Args:
        model: for inputs, outputs and everything besides.
        nodes: in the order in which they run.
    """
    needed, kept = {value.name for value in model.graph.output}, []
    for node in reversed(nodes):
        if any(name in needed for name in node.output):
            needed.update(node.input)
            kept.append(node)
    assembled_model = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        opset_import=model.opset_import,
        metadata_props=model.metadata_props,
        functions=model.functions,
    )
    graph = assembled_model.graph  # filled in its place: a graph that is handed over is copied once more
    graph.name = model.graph.name
    graph.node.extend(reversed(kept))
    graph.initializer.extend(tensor for name, tensor in stored.items() if name in needed)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    return assembled_model
