"""Dynamic int8 of an encoder's graph: every dense layer in integers, every embedding table in bytes.

Dense layer                                         Embedding
    x -> DynamicQuantizeLinear -> bytes, sx, zx         ids -> Gather(table bytes) -> Cast --.
    MatMulInteger(bytes, weight bytes) -> Cast          ids -> Gather(row scales) -----------+-> Mul
    -> Mul(sx * weight scales) -> the old bias Add

Standard operators only; ONNX Runtime fuses a dense layer into one kernel (DynamicQuantizeMatMul) when it loads.
Layers that read the same x (query, key, value) share its DynamicQuantizeLinear. A weight that several layers share is
quantized once, and a table that a masked-language head multiplies with is stored once for both: its row scales are
the head's column scales.

Left in float32: attention scores and mixing (two activations), norms, biases, and tables of a few rows (token types).
Scales of activations are taken over a whole batch, padding included, so an output depends a little on its neighbours;
the agreement check measures it as it comes. Q8BERT (arXiv:1910.06188) trains with quantization; here nothing is
trained.
"""

from __future__ import annotations

import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bertshrink.errors import CheckFailed, ModelRefused, RequestError
from bertshrink.model.artifact import Artifact
from bertshrink.model.onnx_canonical import canonicalise
from bertshrink.model.onnx_graph import (
    WeightMatMul,
    array,
    bytes_by_type,
    initializers,
    operators,
    table_gathers,
    tensor,
    weight_matmuls,
    write_model,
)
from bertshrink.model.onnx_start import read_start
from bertshrink.techniques.quantize.agreement import check_agreement
from bertshrink.techniques.quantize.int8 import quantize_matrix

if TYPE_CHECKING:
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.quantize import Quantize

MIN_TABLE_ROWS = 16
"""Smaller tables (token types: 2 rows) stay as they are: nothing to save, and four more nodes to run."""


def quantize(artifact: Artifact, settings: Quantize, bench: Workbench) -> Artifact:
    """Quantize an ONNX artifact into a new folder below `bench.work`.

    Raises:
        RequestError: an artifact of another format.
        ModelRefused: the file is damaged, quantized already, or not an encoder's graph.
        CheckFailed: a dense layer was left out, or the outputs agree less than `min_cosine` asks.

    """
    if artifact.card.format != "onnx":
        raise RequestError(
            f"`{artifact.card.format}` files cannot be quantized, ONNX files can", where=str(artifact.folder)
        )
    source = read_start(artifact.file, artifact.max_length, artifact.source)
    refuse_unfit(source, artifact.source)
    with bench.progress.task("quantize to int8", total=2, unit="steps") as task:
        model, num_matmuls, num_tables = rewrite(
            source, per_channel=settings.per_channel, embeddings=settings.embeddings
        )
        folder = bench.work / "quantize"
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
        folder.mkdir(parents=True)
        write_model(model, folder / artifact.card.file)
        task.advance()
        agreement = check_agreement(artifact, folder / artifact.card.file, bench, settings.min_cosine)
        task.advance()
    details: dict[str, Any] = {
        "scheme": settings.scheme,
        "num_quantized_matmuls": num_matmuls,
        "num_quantized_tables": num_tables,
        "num_float_matmuls": operators(model).get("MatMul", 0),
        "bytes_by_type": bytes_by_type(model),
        "operators": operators(model),
        "agreement": agreement,
    }
    before, after = artifact.file.stat().st_size, (folder / artifact.card.file).stat().st_size
    bench.note(
        f"all {num_matmuls} dense layers and {num_tables} embedding tables are in 8 bits: {after / before:.3f}x the "
        f"bytes of the float file; cosine of outputs {agreement['cosine']:.4f} "
        f"over {agreement['num_texts']} texts"
    )
    card = artifact.card.model_copy(
        update={"precision": "int8", "lineage": (*artifact.card.lineage, "quantize"), "details": details}
    )
    return Artifact.create(folder, card, artifact.tokenizer)


def refuse_unfit(model: onnx.ModelProto, where: str) -> None:
    """Refuse what is no encoder's graph.

    Raises:
        ModelRefused: it is none.

    """
    inputs = {value.name for value in model.graph.input}
    if not {"input_ids", "attention_mask"} <= inputs or not table_gathers(model) or not weight_matmuls(model):
        raise ModelRefused(
            "the file is no encoder's graph: it lacks `input_ids`, `attention_mask`, a table or dense layers",
            where=where,
            hint="make one with `bertshrink export MODEL -o DIR`",
        )


def rewrite(
    source: onnx.ModelProto, *, per_channel: bool = True, embeddings: bool = True
) -> tuple[onnx.ModelProto, int, int]:
    """The graph in int8.

    Args:
        source: an encoder's float32 graph; it is not changed.
        per_channel: a scale for each output instead of one a weight.
        embeddings: whether tables are quantized, too.

    Returns:
        the new model, how many MatMuls and how many tables are in integers.

    Raises:
        CheckFailed: fewer MatMuls are than have a stored weight.

    """
    model = canonicalise(source)
    matmuls = weight_matmuls(model)
    work = _Rewrite(model, per_channel)
    dense = {found.node.output[0]: found for found in matmuls}
    lookups = [
        node for node in table_gathers(model) if embeddings and work.stored[node.input[0]].dims[0] >= MIN_TABLE_ROWS
    ]
    looked_up = {node.output[0] for node in lookups}
    for node in model.graph.node:
        if node.output[0] in dense:
            work.dense_layer(dense[node.output[0]])
        elif node.output[0] in looked_up:
            work.lookup(node)
        else:
            work.nodes.append(node)
    found = canonicalise(work.result())
    done = Counter(node.op_type for node in found.graph.node)["MatMulInteger"]
    if done != len(matmuls) or weight_matmuls(found):
        raise CheckFailed(f"{done} of {len(matmuls)} dense layers were quantized", where=source.graph.name)
    return found, done, len({node.input[0] for node in lookups})


class _Rewrite:
    """The new nodes and tensors of one graph, each weight and each activation quantized once."""

    def __init__(self, model: onnx.ModelProto, per_channel: bool) -> None:
        self.model = model
        self.per_channel = per_channel
        self.stored = initializers(model)
        self.added: dict[str, onnx.TensorProto] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.activations: set[str] = set()

    def keep(self, value: np.ndarray[Any, Any], name: str) -> str:
        """Store a tensor; returns its name."""
        self.added.setdefault(name, tensor(value, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append a node of one output; returns the output's name."""
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], f"{output}/{kind}", **attributes))
        return output

    def weight(self, name: str, axis: int | None) -> tuple[str, str]:
        """Names of a weight's bytes and scales, quantized the first time."""
        if f"{name}.bytes" not in self.added:
            found = quantize_matrix(array(self.stored[name]), axis)
            self.keep(found.bytes_IO, f"{name}.bytes")
            self.keep(found.scale, f"{name}.scale")
        return f"{name}.bytes", f"{name}.scale"

    def activation(self, name: str) -> tuple[str, str, str]:
        """Names of an activation's bytes, scale and zero point, quantized the first time."""
        parts = (f"{name}.bytes", f"{name}.scale", f"{name}.zero_point")
        if name not in self.activations:
            self.activations.add(name)
            self.nodes.append(
                onnx.helper.make_node("DynamicQuantizeLinear", [name], list(parts), f"{name}/DynamicQuantizeLinear")
            )
        return parts

    def dense_layer(self, found: WeightMatMul) -> None:
        """A MatMul with a stored weight, in integers."""
        left, left_scale, left_zero = self.activation(found.node.input[0])
        output = found.node.output[0]
        if found.is_transposed:  # (O, I): a table; rows become columns, as their scales do
            right, scale = self.weight(found.weight, 1)
            right = self.node("Transpose", [right], f"{right}.T", perm=[1, 0])
            scale = self.node("Transpose", [scale], f"{scale}.T", perm=[1, 0])
        else:
            right, scale = self.weight(found.weight, 0 if self.per_channel else None)
        scale = self.flat(scale, found)
        sums = self.node("MatMulInteger", [left, right, left_zero], f"{output}.sums")
        floats = self.node("Cast", [sums], f"{output}.floats", to=onnx.TensorProto.FLOAT)
        step = self.node("Mul", [left_scale, scale], f"{output}.step")
        self.node("Mul", [floats, step], output)

    def flat(self, scale: str, found: WeightMatMul) -> str:
        """Scales with one axis, (O,) or (1,), as ONNX Runtime's fused kernel wants them."""
        shape = self.keep(np.array([-1], dtype=np.int64), "flat")
        return self.node("Reshape", [scale, shape], f"{found.node.output[0]}.weight_scale")

    def lookup(self, node: onnx.NodeProto) -> None:
        """A Gather of table rows: bytes and scales looked up, then multiplied."""
        table, scale = self.weight(node.input[0], 1)
        ids, output = node.input[1], node.output[0]
        rows = self.node("Gather", [table, ids], f"{output}.row_bytes", axis=0)
        steps = self.node("Cast", [rows], f"{output}.steps", to=onnx.TensorProto.FLOAT)
        scales = self.node("Gather", [scale, ids], f"{output}.row_scale", axis=0)
        self.node("Mul", [steps, scales], output)

    def result(self) -> onnx.ModelProto:
        """The model with the new nodes; tensors that nothing reads are left to `canonicalise`."""
        found = onnx.ModelProto()
        found.CopyFrom(self.model)
        found.graph.ClearField("node")
        found.graph.node.extend(self.nodes)
        found.graph.initializer.extend(self.added.values())
        return found
