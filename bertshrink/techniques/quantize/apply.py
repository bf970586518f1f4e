"""Quantize an artifact: read, refuse, calibrate, rewrite, write, compare, and say what was done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import onnx
from numpy.typing import NDArray

from bertshrink import units
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.model.artifact import Artifact
from bertshrink.onnx_graph.encoder_graph import (
    convolutions,
    stored_bytes,
    table_gathers,
    tensor,
    weight_matmuls,
)
from bertshrink.onnx_graph.external_data import BorrowedTensors
from bertshrink.onnx_graph.runtime_ops import describe_fusions, operators_as_run
from bertshrink.techniques.quantize.float_graph import read_float_graph
from bertshrink.techniques.quantize.schemes import HALF, uniform
from bertshrink.techniques.quantize.search.fastest import choose_fastest
from bertshrink.techniques.quantize.search.keep_accuracy import meet_accuracy_limit
from bertshrink.techniques.quantize.search.trials import BuiltVariant, VariantBuilder
from bertshrink.techniques.quantize.similarity import require

if TYPE_CHECKING:
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.quantize.settings import QuantizeSettings


def quantize(artifact: Artifact, settings: QuantizeSettings, bench: Workbench) -> Artifact:
    """Quantize an ONNX artifact into a new folder below `bench.work`.

    Raises:
        UserError: an artifact of another format.
        UnsafeModel: the file is damaged, quantized already, or not an encoder's graph.
        CheckFailed: a weight was left out, the outputs agree less than `min_cosine` asks, or no assignment holds
            `max_metric_drop`.
    """
    lender = BorrowedTensors()  # of weights that had to be turned; they stay in memory until this returns
    trials = VariantBuilder(artifact, read_source(artifact, lender.tensor), settings, bench)
    if settings.auto:
        made, details = choose_fastest(trials)
    elif settings.max_metric_drop is not None:
        made, details = meet_accuracy_limit(trials)
    else:
        made, details = apply_scheme(trials)
    require(made.agreement, settings.min_cosine, str(made.artifact.file))
    accounting = made.accounting
    runs_here = made.artifact.card.engine == "onnxruntime"
    as_run = operators_as_run(made.artifact.file, made.artifact.card.shape) if runs_here else {}
    bench.note(
        f"{accounting.sentence()}; {made.size_bytes / artifact.num_bytes:.3f}x the bytes of the float file; "
        f"{agreement_words(made.agreement)}"
    )
    if kernels := convolutions(trials.source):
        num_bytes = sum(stored_bytes(kernel) for kernel in kernels.values())
        bench.note(f"{len(kernels)} convolutions stay in float32: {units.format(num_bytes, 'B')}")
    if sentence := describe_fusions(made.artifact.card.details["operators"], as_run):
        bench.note(sentence)
    if as_run and any(kind in HALF for kind in made.types.values()):
        bench.note(
            "ONNX Runtime converts half-precision weights to float32 when it loads them on a CPU: speed and "
            "memory are those of float32"
        )
    details |= {"accounting": accounting.details(), "agreement": made.agreement, "operators_as_run": as_run}
    card = made.artifact.card
    card = card.model_copy(update={"details": card.details | details})
    return Artifact.create(made.artifact.folder, card, artifact)


def apply_scheme(trials: VariantBuilder) -> tuple[BuiltVariant, dict[str, Any]]:
    """The scheme that was asked for, and what was done for it."""
    settings, bench = trials.settings, trials.bench
    with bench.progress.task(settings.label(), total=2, unit="steps") as task:
        types = uniform(trials.source, settings.scheme, settings)
        task.advance()
        made, prepared = trials.make_good(types, "quantize", settings)
        task.advance()
    bench.notes += prepared.sentences
    return made, {"scheme": settings.scheme, "calibration": prepared.facts}


def agreement_words(agreement: dict[str, float | int]) -> str:
    """The agreement as a clause."""
    words = f"cosine of outputs {agreement['cosine']:.4f} over {agreement['num_texts']} texts"
    return words + (f", {agreement['same_label']:.1%} keep their label" if "same_label" in agreement else "")


def read_source(artifact: Artifact, keep: Callable[[NDArray[Any], str], onnx.TensorProto] = tensor) -> onnx.ModelProto:
    """The artifact's float graph in canonical form; `keep` makes a stored tensor of what is computed.

    Raises:
        UserError: an artifact of another format.
        UnsafeModel: the file is damaged, quantized already, or not an encoder's graph.
    """
    if artifact.card.format != "onnx":
        raise UserError(
            f"`{artifact.card.format}` files cannot be quantized, ONNX files can", where=str(artifact.folder)
        )
    source = read_float_graph(artifact.file, artifact.max_length, artifact.source, keep)
    refuse_no_encoder(source, artifact.source)
    return source


def refuse_no_encoder(model: onnx.ModelProto, where: str) -> None:
    """Refuse a graph that is not an encoder's. Raises UnsafeModel: naming what it lacks."""
    inputs = {value.name for value in model.graph.input}
    multiplies = weight_matmuls(model) or convolutions(model)
    if not {"input_ids", "attention_mask"} <= inputs or not table_gathers(model) or not multiplies:
        raise UnsafeModel(
            "the file is not an encoder's graph: it lacks `input_ids`, `attention_mask`, a table or dense layers",
            where=where,
            hint="make one with `bertshrink export MODEL -o DIR`",
        )
