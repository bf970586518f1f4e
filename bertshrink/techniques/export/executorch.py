"""From an encoder to an ExecuTorch program (.pte) whose matrix products run in XNNPACK, the kernels of phones.

`torch.export` writes down what the model does with eager attention; the XNNPACK partitioner takes what XNNPACK can do
(dense layers, products, softmax, sums), and the rest (lookups, layer norms, reshapes) runs in ExecuTorch's portable
operators. Memory is planned ahead. So a program has one shape (`static_shape`), or bounds: at most `max_batch` rows of
the model's longest input. Batch and length stay free below them, but the memory is taken for the largest.

`int8` is dynamic quantization by PyTorch 2 export (torchao's `prepare_pt2e` with ExecuTorch's XNNPACKQuantizer):
weights of dense layers in 8 bits with one scale for each output, activations turned to 8 bits as the program runs.
That quantizer leaves lookups alone, and in a small model the tables are half the file, so here tables become bytes with
one scale per row before the model is exported:  row = bytes[id] * scale[id].  The outputs are compared with the float
model's on text; what quantization has ruined is not given away.

Stored twice: the table of a masked-language head, once for the lookup and once as XNNPACK's weight.

Lowering takes long, about a minute for 6 layers, nearly all of it in passes over the graph, not over the weights.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from bertshrink.errors import CheckFailed
from bertshrink.files.atomic import output_errors
from bertshrink.model.artifact import Artifact
from bertshrink.model.folder.layout import PLACES
from bertshrink.model.sizes.size_estimate import MIN_TABLE_ROWS
from bertshrink.techniques.export.onnx import ExportWrapper, eager_attention, input_names, make_card
from bertshrink.techniques.export.parity import check_parity, padded_text, shapes_of
from bertshrink.techniques.export.removed_units import without_removed_units
from bertshrink.techniques.output_cosine import agreement, dev_texts

if TYPE_CHECKING:
    from pathlib import Path

    from bertshrink.model.artifact import ArtifactSpec
    from bertshrink.model.encoder import Encoder
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.export.settings import ExportSettings

FILE = PLACES["pte"]


def export(encoder: Encoder, settings: ExportSettings, bench: Workbench) -> Artifact:
    """Export an encoder as a .pte artifact into a new folder below `bench.work`.

    Raises:
        CheckFailed: the program does not give PyTorch's numbers; or in int8 agrees less than `int8_cosine` asks.
    """
    form = settings.form(None)
    folder = bench.work / "export"
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    (folder / FILE).parent.mkdir(parents=True)
    with bench.progress.task("export to ExecuTorch", total=3, unit="steps") as task, quiet():
        outputs = settings.outputs_of(encoder.task)
        program = trace(encoder, form, outputs, int8=settings.int8)
        task.advance()
        delegated, planned_bytes = write(program, encoder, outputs, folder / FILE)
        task.advance()
        details: dict[str, Any] = {"delegated": delegated, "planned_bytes": planned_bytes}
        card = make_card(encoder, details, form, outputs, "int8" if settings.int8 else "float32")
        made = Artifact.create(folder, card, encoder)
        if settings.int8:
            details |= {"agreement": check_agreement(encoder, made, bench, settings.int8_cosine)}
        else:
            details |= {
                "tolerance": settings.largest_difference,
                "parity": check_parity(encoder, made.file, settings.largest_difference, form, outputs, bench.unload),
            }
        task.advance()
    bench.note(_note(details, form, settings))
    return Artifact.create(folder, card.model_copy(update={"details": card.details | details}), encoder)


def trace(encoder: Encoder, form: ArtifactSpec, outputs: Sequence[str], *, int8: bool) -> Any:
    """The model as `torch.export` sees it, for one shape or within bounds, quantized or not."""
    names = input_names(encoder)
    only_batch, only_length = form.shape or (None, None)
    largest = (only_batch or form.max_batch or 1, only_length or encoder.max_length)
    # An example that is not a special case: sizes of 1 would be taken for constants.
    sizes = largest if form.shape else tuple(min(size, at_most) for size, at_most in zip((3, 7), largest, strict=True))
    ids = torch.ones(sizes, dtype=torch.int64)
    given = (ids, torch.ones_like(ids), torch.zeros_like(ids))[: len(names)]
    free = {at: name for at, name in enumerate(("batch", "length")) if form.shape is None and largest[at] > 1}
    dims = {at: torch.export.Dim(name, min=1, max=largest[at]) for at, name in free.items()}
    shapes = tuple(dict(dims) for _ in names) if dims else None
    with without_removed_units(encoder), eager_attention(encoder.model), torch.no_grad():
        model: Any = ExportWrapper(encoder, outputs).eval()
        if int8:
            with tables_in_bytes(model):
                traced = torch.export.export(model, given, dynamic_shapes=shapes, strict=False)
            model = quantize(traced.module(), encoder, form)
        return torch.export.export(model, given, dynamic_shapes=shapes, strict=False)


class Int8Embedding(torch.nn.Module):
    """An embedding table in 8 bits with one scale per row.

    Args:
        weight_VH: the float table.
    """

    def __init__(self, weight_VH: torch.Tensor) -> None:
        super().__init__()
        scale_V1 = weight_VH.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
        self.register_buffer("bytes_VH", (weight_VH / scale_V1).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale_V1", scale_V1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows of the table: any shape of ids to the same shape with one more axis."""
        rows = torch.nn.functional.embedding(ids, self.get_buffer("bytes_VH"))
        return rows.to(torch.float32) * torch.nn.functional.embedding(ids, self.get_buffer("scale_V1"))


@contextmanager
def tables_in_bytes(model: torch.nn.Module) -> Iterator[None]:
    """Put byte tables in the place of the embedding tables while the block runs."""
    tables = [
        (parent, name, child)
        for parent in list(model.modules())
        for name, child in parent.named_children()
        if isinstance(child, torch.nn.Embedding) and child.num_embeddings >= MIN_TABLE_ROWS
    ]
    try:
        for parent, name, child in tables:
            setattr(parent, name, Int8Embedding(child.weight.detach()))
        yield
    finally:
        for parent, name, child in tables:
            setattr(parent, name, child)


def quantize(module: Any, encoder: Encoder, form: ArtifactSpec) -> Any:
    """Dense layers of an exported module in dynamic int8, one scale for each output."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    class DenseLayers(XNNPACKQuantizer):  # type: ignore[misc]  # of a package without types
        """XNNPACK's quantizer, which else turns plain numbers into float tensors, in RoBERTa's position ids too."""

        def transform_for_annotation(self, model: Any) -> Any:
            """Nothing: only sums and products would need it, and dynamic quantization leaves those alone."""
            return model

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    prepared = prepare_pt2e(module, DenseLayers().set_global(config))
    feeds = padded_text(encoder, *shapes_of(form, encoder.max_length)[-1])
    prepared(*(torch.from_numpy(feeds[name]) for name in input_names(encoder)))  # observers of weights want one pass
    return convert_pt2e(prepared)


def write(program: Any, encoder: Encoder, outputs: Sequence[str], path: Path) -> tuple[dict[str, int], int]:
    """Lower an exported program to XNNPACK and write it, with the names of its inputs and outputs inside.

    Returns:
        how many calls went to XNNPACK (`xnnpack`) and to portable operators (`portable`), and the bytes of working
        memory that it plans.
    """
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    names = {
        "input_names": ",".join(input_names(encoder)),
        "output_names": ",".join(outputs),
    }
    dynamic = XnnpackPartitioner(config_precisions=ConfigPrecisionType.DYNAMIC_QUANT, per_op_mode=True)
    edge = to_edge_transform_and_lower(program, partitioner=[dynamic, XnnpackPartitioner()], constant_methods=names)
    done = edge.to_executorch()
    with output_errors(path), path.open("wb") as file:
        done.write_to_file(file)
    calls = [str(node.target) for node in edge.exported_program().graph.nodes if node.op == "call_function"]
    delegated = {
        "xnnpack": sum("executorch_call_delegate" in call for call in calls),
        "portable": sum(call.startswith("aten.") for call in calls),
    }
    plans = done.executorch_program.execution_plan
    return delegated, sum(sum(plan.non_const_buffer_sizes) for plan in plans)


def check_agreement(encoder: Encoder, made: Artifact, bench: Workbench, min_cosine: float) -> dict[str, float | int]:
    """Compare the int8 program with the float model on the dev texts, or on sentences where there are none.

    Raises:
        CheckFailed: the cosine is below `min_cosine`, or an output is not finite.
    """
    from bertshrink.model.round_trip import PROOF_TEXTS

    dev = dev_texts(bench.texts, PROOF_TEXTS)
    rows = made.tokenize(dev.texts, dev.pairs, bench.max_length)
    likeness = agreement(encoder.task, encoder.predict(rows), made.predict(rows))
    if not likeness >= min_cosine:
        raise CheckFailed(
            f"the int8 program's outputs have a cosine of {likeness:.4f} to the float ones, less than {min_cosine}",
            where=str(made.file),
            hint="accept it with a lower `int8_cosine`, or leave `int8` out",
        )
    return {"cosine": likeness, "num_texts": len(dev)}


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and notes of torch, torchao and ExecuTorch, which are about their own insides."""
    before, handlers = logging.root.manager.disable, logging.root.handlers[:]
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        logging.root.handlers[:] = handlers  # an import of theirs gives the root logger one


def _note(details: dict[str, Any], form: ArtifactSpec, settings: ExportSettings) -> str:
    if settings.int8:
        likeness = details["agreement"]
        proof = f"cosine of outputs {likeness['cosine']:.4f} to the float model over {likeness['num_texts']} texts"
    else:
        proof = f"it gives PyTorch's numbers at {', '.join(details['parity'])} (batch x length, padded)"
    taken = f"{form.shape[0]}x{form.shape[1]} only" if form.shape else f"up to {form.max_batch} rows at once"
    megabytes = details["planned_bytes"] / 1e6
    return f"the ExecuTorch program takes {taken} and plans {megabytes:.0f} MB of working memory; {proof}"
