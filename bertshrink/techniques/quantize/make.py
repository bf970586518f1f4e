"""Quantize an artifact: read, refuse, calibrate, rewrite, write, compare, and say what was done."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import onnx

from bertshrink.errors import ModelRefused, RequestError
from bertshrink.model.artifact import Artifact
from bertshrink.model.onnx_canonical import canonicalise
from bertshrink.model.onnx_graph import (
    bytes_by_type,
    initializers,
    operators,
    read_model,
    table_gathers,
    weight_matmuls,
    write_model,
)
from bertshrink.techniques.quantize.agreement import check_agreement
from bertshrink.techniques.quantize.assign import HALF, precision, uniform
from bertshrink.techniques.quantize.prepare import prepare
from bertshrink.techniques.quantize.rewrite import rewrite

if TYPE_CHECKING:
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.quantize import Quantize

_INTEGER_OPS = frozenset(
    (
        "MatMulInteger",
        "QLinearMatMul",
        "DynamicQuantizeLinear",
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "GatherBlockQuantized",
    )
)

_INTEGERS = frozenset((onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4, onnx.TensorProto.UINT4))


def quantize(artifact: Artifact, settings: Quantize, bench: Workbench) -> Artifact:
    """Quantize an ONNX artifact into a new folder below `bench.work`.

    Raises:
        RequestError: an artifact of another format.
        ModelRefused: the file is damaged, quantized already, or not an encoder's graph.
        CheckFailed: a weight was left out, or the outputs agree less than `min_cosine` asks.

    """
    source = read_source(artifact)
    types = uniform(source, settings.scheme, settings)
    with bench.progress.task(settings.label(), total=3, unit="steps") as task:
        prepared = prepare(source, types, artifact, settings, bench)
        task.advance()
        found = rewrite(prepared.model, types, prepared.options)
        folder = bench.work / "quantize"
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
        folder.mkdir(parents=True)
        write_model(found.model, folder / artifact.card.file)
        task.advance()
        agreement = check_agreement(artifact, folder / artifact.card.file, bench, settings.min_cosine)
        task.advance()
    details: dict[str, Any] = {
        "scheme": settings.scheme,
        "accounting": found.accounting.details(),
        "calibration": prepared.facts,
        "bytes_by_type": bytes_by_type(found.model),
        "operators": operators(found.model),
        "agreement": agreement,
    }
    before, after = artifact.file.stat().st_size, (folder / artifact.card.file).stat().st_size
    size = f"{after / before:.3f}x the bytes of the float file"
    bench.note(f"{found.accounting.sentence()}; {size}; {agreement_words(agreement)}")
    for sentence in prepared.sentences:
        bench.note(sentence)
    if any(kind in HALF for kind in types.values()):
        bench.note("ONNX Runtime's CPU turns half weights into float32 when it loads them: float32's speed and memory")
    update = {
        "precision": precision(source, types),
        "lineage": (*artifact.card.lineage, "quantize"),
        "details": details,
    }
    return Artifact.create(folder, artifact.card.model_copy(update=update), artifact.tokenizer)


def agreement_words(agreement: dict[str, float | int]) -> str:
    """What the comparison found, as a clause."""
    words = f"cosine of outputs {agreement['cosine']:.4f} over {agreement['num_texts']} texts"
    return words + (f", {agreement['same_label']:.1%} keep their label" if "same_label" in agreement else "")


def read_source(artifact: Artifact) -> onnx.ModelProto:
    """The artifact's float graph in canonical form.

    Raises:
        RequestError: an artifact of another format.
        ModelRefused: the file is damaged, quantized already, or not an encoder's graph.

    """
    if artifact.card.format != "onnx":
        raise RequestError(
            f"`{artifact.card.format}` files cannot be quantized, ONNX files can", where=str(artifact.folder)
        )
    source = read_model(artifact.file)
    refuse_quantized(source, str(artifact.file))
    source = canonicalise(source)
    refuse_no_encoder(source, str(artifact.file))
    return source


def refuse_quantized(model: onnx.ModelProto, where: str) -> None:
    """Refuse what is quantized already, wholly or in part.

    Raises:
        ModelRefused: naming the first node that works on integers.

    """
    stored = initializers(model)
    for node in model.graph.node:
        is_table = node.op_type == "Gather" and node.input[0] in stored and stored[node.input[0]].data_type in _INTEGERS
        if node.op_type in _INTEGER_OPS or is_table:
            raise ModelRefused(
                f"the file is quantized already: `{node.name or node.output[0]}` is a `{node.op_type}` of integers",
                where=where,
                hint="start from the float32 export",
            )


def refuse_no_encoder(model: onnx.ModelProto, where: str) -> None:
    """Refuse a graph that is no encoder's.

    Raises:
        ModelRefused: naming what it lacks.

    """
    inputs = {value.name for value in model.graph.input}
    if not {"input_ids", "attention_mask"} <= inputs or not table_gathers(model) or not weight_matmuls(model):
        raise ModelRefused(
            "the file is no encoder's graph: it lacks `input_ids`, `attention_mask`, a table or dense layers",
            where=where,
            hint="make one with `bertshrink export MODEL -o DIR`",
        )
