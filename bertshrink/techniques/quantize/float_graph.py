"""The graph that quantization starts from: canonical, in float32, without guards that never act, every dense weight
stored by itself, also those that ONNX Runtime's optimizers joined with what is behind them (`onnx_graph.unfused`).

Exporters write fused attention (PyTorch's SDPA) with a guard in every layer, `Where(IsNaN(p), 0, p)` after the softmax
p: a query that may see no key at all has a softmax of nothing, which is NaN. In an encoder whose mask only hides
padding, and whose texts have at least one token, no such query exists, and the guard costs two passes over the largest
arrays of the layer (B, heads, L, L).

Whether it exists is not guessed from the graph but tried in the worst case: a single token, padded to the longest
input. What a query may see only grows with the number of tokens, whatever else a mask hides
(windows, distances, padded queries), so a guard that stays silent there is silent for every batch of texts with at
least one token each; the guards go if all of them are, and stay if one speaks. What is given up: logits that
overflow are no longer turned into zeros, they show; and rows without any token, which bertshrink never makes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bertshrink.errors import UnsafeModel
from bertshrink.files.scratch_folder import scratch_folder
from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import (
    QUANTIZED_OPS,
    array,
    fixed_shape,
    initializers,
    read_model,
    tensor,
    unstored_weights,
    weight_matmuls,
)
from bertshrink.onnx_graph.external_data import stream
from bertshrink.onnx_graph.half_arithmetic import has_half, in_float32
from bertshrink.onnx_graph.unfused import unfused

_INTEGERS = tuple(getattr(onnx.TensorProto, name) for name in ("INT8", "UINT8", "INT4", "UINT4"))
_MAX_LENGTH = 1024
"""Attention of a longer input takes hundreds of megabytes a layer to try; there the guards stay."""


def read_float_graph(
    path: Path,
    max_length: int,
    where: str | None = None,
    keep: Callable[[NDArray[Any], str], onnx.TensorProto] = tensor,
) -> onnx.ModelProto:
    """Read an artifact's ONNX file as the graph that quantization starts from.

    Args:
        path: of a file that bertshrink made, or took in (see `import_external`). Large tensors stay in it, so it must
        not
            change as long as the graph is used.
        keep: what makes a stored tensor of what is computed: (numbers, name).

    Raises:
        UnsafeModel: it is not an ONNX file, quantized already, computes in float64, branches, or holds a dense layer's
            weight in another form than as a stored matrix.
    """
    where = where or str(path)
    model = read_model(path, numbers=False)
    refuse_quantized(model, where)
    branch = next((node for node in model.graph.node if any(a.HasField("g") for a in node.attribute)), None)
    if branch is not None or model.functions:
        what = f"the graph branches (`{branch.op_type}`)" if branch is not None else "the graph calls functions"
        raise UnsafeModel(
            f"{what}, and cannot be rewritten",
            where=where,
            hint="export it again with `bertshrink export MODEL -o DIR`",
        )
    model = canonicalise(unfused(model), keep)
    if has_half(model):
        model = canonicalise(in_float32(model), keep)
    model = remove_nan_guards(model, max_length)
    _refuse_other_floats(model, where)
    odd = unstored_weights(model)
    if odd:
        names = ", ".join(f"`{node.name or node.output[0]}` ({node.op_type})" for node in odd[:3])
        raise UnsafeModel(
            f"{len(odd)} dense layer(s) multiply with weights in a form that cannot be quantized: "
            f"{names}{', ...' if len(odd) > 3 else ''}",
            where=where,
            hint="start from a plain float32 export: `bertshrink export MODEL -o DIR`, or another exporter's without "
            "graph optimization",
        )
    return model


def refuse_quantized(model: onnx.ModelProto, where: str) -> None:
    """Refuse what is quantized already, wholly or in part.

    Raises:
        UnsafeModel: naming an operator of integers, or a matrix of them that is brought back where it is used.
    """
    hint = "start from the float32 export"
    for node in model.graph.node:
        if node.op_type in QUANTIZED_OPS:
            what = f"node `{node.name or node.output[0]}` is a `{node.op_type}` of integers"
            raise UnsafeModel(f"the file is already quantized: {what}", where=where, hint=hint)
    for stored in model.graph.initializer:
        if stored.data_type in _INTEGERS and len(stored.dims) > 1:
            what = f"the weight `{stored.name}` is stored in integers"
            raise UnsafeModel(f"the file is already quantized: {what}", where=where, hint=hint)


def _refuse_other_floats(model: onnx.ModelProto, where: str) -> None:
    """Refuse a graph that computes in other floats; what was in half precision is in float32 by now."""
    stored = initializers(model)
    kinds = {onnx.TensorProto.DataType.Name(stored[matmul.weight].data_type) for matmul in weight_matmuls(model)}
    if kinds - {"FLOAT"}:
        raise UnsafeModel(
            f"the graph computes in {min(kinds - {'FLOAT'}).lower()}, but only float32 can be quantized",
            where=where,
            hint="start from the float32 export",
        )


def remove_nan_guards(model: onnx.ModelProto, max_length: int) -> onnx.ModelProto:
    """The same graph without guards after softmaxes, where they never act (see this file's opening).

    Args:
        model: canonical; it is not changed.
    """
    guards = _guards(model)
    if not guards or max_length > _MAX_LENGTH or _speak(model, sorted(set(guards.values())), max_length):
        return model
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for node in bare.graph.node:
        node.input[:] = [guards.get(name, name) for name in node.input]
    return canonicalise(bare)


def _guards(model: onnx.ModelProto) -> dict[str, str]:
    """What a guard gives -> the softmax that it guards; guards that are outputs of the graph are left out."""
    stored = initializers(model)
    outputs = {value.name for value in model.graph.output}
    softmaxes = {node.output[0] for node in model.graph.node if node.op_type == "Softmax"}
    tests = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "IsNaN" and node.input[0] in softmaxes
    }
    return {
        node.output[0]: node.input[2]
        for node in model.graph.node
        if node.op_type == "Where"
        and tests.get(node.input[0]) == node.input[2]
        and node.input[1] in stored
        and not array(stored[node.input[1]]).any()
        and array(stored[node.input[1]]).size == 1
        and node.output[0] not in outputs
    }


def _speak(model: onnx.ModelProto, softmaxes: list[str], max_length: int) -> bool:
    """Whether any of these softmaxes gives NaN for one token padded to the longest input."""
    from bertshrink.engines.ort import onnxruntime

    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    names = []
    for at, name in enumerate(softmaxes):
        parts = [f"guard.{at}.{part}" for part in ("is_nan", "number", "any")]
        names.append(parts[-1])
        wider.graph.node.extend(
            (
                onnx.helper.make_node("IsNaN", [name], parts[:1]),
                onnx.helper.make_node("Cast", parts[:1], parts[1:2], to=onnx.TensorProto.FLOAT),
                onnx.helper.make_node("ReduceMax", parts[1:2], parts[2:], keepdims=0),
            )
        )
        wider.graph.output.append(onnx.helper.make_tensor_value_info(parts[-1], onnx.TensorProto.FLOAT, []))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with scratch_folder() as folder:
        path = folder / "guards.onnx"
        stream(wider, path)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    mask = np.zeros((fixed_shape(model)[0] or 1, max_length), dtype=np.int64)
    mask[:, 0] = 1
    given = {"input_ids": np.ones_like(mask), "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
    feeds = {value.name: given[value.name] for value in model.graph.input}
    return any(float(value) != 0 for value in session.run(names, feeds))
