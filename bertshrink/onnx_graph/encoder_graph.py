"""ONNX graphs of encoders: read, look at, count, check, write. Needs onnx and numpy only.

A weight MatMul is a MatMul whose right side is stored: an initializer, or the transpose of one that an embedding
reads as well (a tied masked-language head, kept once in the file). The others (scores, mixing) multiply two
activations.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from bertshrink.errors import CheckFailed, UnsafeModel
from bertshrink.files.atomic import output_errors
from bertshrink.files.onnx_without_tensors import load_structure
from bertshrink.onnx_graph.external_data import follow, inline_tensor, stream, tensor_data, without_numbers

RANDOM_OPS = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
MULTIPLYING_OPS = (
    *("MatMul", "Gemm", "Einsum", "FusedMatMul", "FusedGemm", "GemmFastGelu", "TransposeMatMul"),
    *("Attention", "MultiHeadAttention", "PackedAttention", "LSTM", "GRU", "MoE"),
)
"""Operators that multiply with what may be a weight; ONNX's own Attention only ever has activations."""

CONTRIB = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""


@dataclass(frozen=True)
class WeightMatMul:
    """One MatMul with a stored right side.

    Attributes:
        node: the MatMul.
        weight: the name of the initializer, (I, O), or (O, I) where `is_transposed`.
        is_transposed: whether a Transpose is between the two.
    """

    node: onnx.NodeProto
    weight: str
    is_transposed: bool


def read_model(path: Path, *, numbers: bool = True) -> onnx.ModelProto:
    """Read an ONNX file that bertshrink made or took in; others are looked at apart first (`import_external`).

    Args:
        numbers: whether large tensors are read; otherwise they stay in the file, which must not change as long as the
            model is used (`external_data`). What is in a file beside it stays there in any case.

    Raises:
        UnsafeModel: no ONNX, damaged, or pointing at bytes that are not in a plain file of its folder.
    """
    hint = "export the model again"
    left: set[int] = set()
    try:
        if numbers:
            model = onnx.load_model(str(path), load_external_data=False)
        else:
            model, left = load_structure(path)
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise UnsafeModel(f"`{path.name}` cannot be read: {error}", where=str(path), hint=hint) from None
    except Exception as error:  # protobuf's DecodeError has no public home that all its builds share
        if type(error).__name__ != "DecodeError":
            raise
        raise UnsafeModel(f"`{path.name}` is not an ONNX file, or is truncated", where=str(path), hint=hint) from None
    if not model.graph.node or not model.graph.output:
        raise UnsafeModel(f"`{path.name}` is not an ONNX file or holds an empty graph", where=str(path), hint=hint)
    follow(model, path, left)
    return model


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Check a model and write it, in two files where one message cannot hold it (`external_data.stream`).

    Equal models give equal bytes, and an invalid one leaves no file.

    Raises:
        CheckFailed: it is not valid ONNX.
        OutputError: the disk is full or the place is not writable.
    """
    try:
        onnx.checker.check_model(without_numbers(model))
    except onnx.checker.ValidationError as error:
        raise CheckFailed(f"the graph is not valid ONNX: {str(error).splitlines()[0]}", where=path.name) from error
    with output_errors(path):
        stream(model, path)


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Stored tensors by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def array(tensor: onnx.TensorProto) -> NDArray[Any]:
    """A stored tensor as numpy, wherever its numbers are."""
    return tensor_data(tensor)


def tensor(value: NDArray[Any], name: str) -> onnx.TensorProto:
    """A numpy array as a stored tensor."""
    return inline_tensor(value, name)


def import_contrib(model: onnx.ModelProto) -> None:
    """Say, once, that a model uses ONNX Runtime's own operators."""
    if all(entry.domain != CONTRIB for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))


def weight_matmuls(model: onnx.ModelProto) -> list[WeightMatMul]:
    """The MatMuls with a stored right side of two axes, in the graph's order."""
    stored = {name for name, tensor in initializers(model).items() if len(tensor.dims) == 2}
    turned = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "Transpose" and node.input[0] in stored
    }
    matmuls = []
    for node in model.graph.node:
        if node.op_type == "MatMul":
            right = node.input[1]
            if right in stored or right in turned:
                matmuls.append(WeightMatMul(node, turned.get(right, right), right in turned))
    return matmuls


def convolutions(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """The stored kernels of convolutions by name."""
    stored = initializers(model)
    names = [node.input[1] for node in model.graph.node if node.op_type == "Conv" and len(node.input) > 1]
    return {name: stored[name] for name in names if name in stored}


def unstored_weights(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that multiply an activation with a weight in another form than `weight_matmuls` knows.

    Such are a MatMul whose weight is computed on the way (expanded, cast, sliced) or stands on its left, a Gemm that is
    no plain one, and the fused operators of engines (`Attention` of com.microsoft), which hold several layers' weights.
    A vector (rotary frequencies) is not a weight, and the kernel of a convolution stays as it is.
    """
    stored = initializers(model)
    known = {matmul.node.output[0] for matmul in weight_matmuls(model)}
    constant = set(stored)
    nodes = []

    def is_weight(name: str) -> bool:
        return name not in stored or sum(size > 1 for size in stored[name].dims) > 1

    for node in model.graph.node:
        inputs = [name for name in node.input if name]
        fixed = [name for name in inputs if name in constant]
        if len(fixed) == len(inputs) and node.op_type not in RANDOM_OPS:
            constant.update(node.output)
        elif node.op_type in MULTIPLYING_OPS and node.output[0] not in known and any(map(is_weight, fixed)):
            nodes.append(node)
    return nodes


def table_gathers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The Gathers that look rows up in a stored float table: embeddings."""
    stored = initializers(model)
    return [
        node
        for node in model.graph.node
        if node.op_type == "Gather"
        and node.input[0] in stored
        and len(stored[node.input[0]].dims) == 2
        and stored[node.input[0]].data_type == onnx.TensorProto.FLOAT
    ]


def bytes_by_type(model: onnx.ModelProto) -> dict[str, int]:
    """Stored bytes by element type, as `{"float32": 90261504}`."""
    num_bytes: Counter[str] = Counter()
    for stored in model.graph.initializer:
        num_bytes[str(onnx.helper.tensor_dtype_to_np_dtype(stored.data_type))] += stored_bytes(stored)
    return dict(sorted(num_bytes.items()))


def stored_bytes(stored: onnx.TensorProto) -> int:
    """Bytes of a stored tensor's numbers."""
    number: int = math.prod(stored.dims)
    return number * int(onnx.helper.tensor_dtype_to_np_dtype(stored.data_type).itemsize)


def operators(model: onnx.ModelProto) -> dict[str, int]:
    """Number of nodes by operator."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


def fixed_shape(model: onnx.ModelProto) -> tuple[int | None, int | None]:
    """The (batch, length) that an encoder's graph takes; None in a place: any."""
    ids = next(value for value in model.graph.input if value.name == "input_ids")
    batch, length = (int(size.dim_value) or None for size in ids.type.tensor_type.shape.dim)
    return batch, length


def set_metadata(model: onnx.ModelProto, entries: Iterable[tuple[str, str]]) -> None:
    """Replace the model's metadata."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(entries))


QUANTIZED_OPS = frozenset(
    (
        *("MatMulInteger", "QLinearMatMul", "DynamicQuantizeLinear", "QuantizeLinear", "DequantizeLinear"),
        *("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits", "QAttention", "GatherBlockQuantized"),
        *("QEmbedLayerNormalization", "QGemm", "QLinearAdd", "MatMulBnb4", "DynamicQuantizeLSTM"),
    )
)
