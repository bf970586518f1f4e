"""From a PyTorch encoder to a canonical ONNX graph.

A small wrapper gives the model what every engine gives it (ids, mask, token types) and takes from it what every
engine returns (logits or a sentence vector); `traced_attention` gives attention a form that is worth writing down.
PyTorch's tracer writes the graph, `canonicalise` gives every weight one place, and `fix_reshapes` replaces the sums
about shapes by constants.

Why the TorchScript tracer, which PyTorch calls legacy: for a 6-layer MiniLM it takes 1.2 s where `dynamo=True` takes
11.7 s, it keeps module names on the nodes and parameter names on the weights, and the files run equally fast in float32
and in int8. Eager attention, because the fused form of PyTorch adds `IsNaN`/`Where` guards to every layer. `trace` is
the only place that knows the tracer.
"""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import onnx
import torch
from numpy.typing import NDArray
from torch.jit._trace import TracerWarning

from bertshrink import units
from bertshrink.engines import engine
from bertshrink.engines.torch_session import SENTENCE, of_tokens, pool
from bertshrink.errors import CheckFailed, listed
from bertshrink.model.artifact import Artifact, ArtifactCard, ArtifactSpec
from bertshrink.model.families import anatomy_of, shared_group
from bertshrink.model.family import part_of
from bertshrink.model.folder.layout import PLACES
from bertshrink.model.tasks import TASKS
from bertshrink.model.units import present
from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import (
    operators,
    set_metadata,
    tensor,
    unstored_weights,
    weight_matmuls,
    write_model,
)
from bertshrink.onnx_graph.external_data import BorrowedTensors
from bertshrink.onnx_graph.half_weights import store_half
from bertshrink.onnx_graph.runtime_ops import describe_fusions, operators_as_run
from bertshrink.onnx_graph.zero_products import drop_zero_products
from bertshrink.techniques.export import removed_units
from bertshrink.techniques.export.constant_reshapes import fix_reshapes
from bertshrink.techniques.export.fixed_shape import fix_shape
from bertshrink.techniques.export.fused_attention import fuse_attention
from bertshrink.techniques.export.grouped_layers import grouped_as_dense
from bertshrink.techniques.export.parity import check_parity, padded_text
from bertshrink.techniques.export.removed_units import without_removed_units
from bertshrink.techniques.export.traced_attention import traced_attention
from bertshrink.version import __version__

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.folder.pooling import Pooling
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.export.settings import ExportSettings

FILE = PLACES["onnx"]

_EXPECTED_WARNINGS: tuple[tuple[type[Warning], str], ...] = (
    (DeprecationWarning, "You are using the legacy TorchScript-based ONNX export"),
    (DeprecationWarning, "The feature will be removed"),
    (UserWarning, "Exporting aten::index operator of advanced indexing"),
    (UserWarning, "Constant folding - Only steps=1 can be constant folded"),
    (TracerWarning, ""),  # what it warns of, values frozen by tracing, is what the parity check looks for
)


def export(encoder: Encoder, settings: ExportSettings, bench: Workbench) -> Artifact:
    """Export an encoder into a new folder below `bench.work`.

    Raises:
        CheckFailed: the file does not give PyTorch's numbers, or a dense layer has no stored weight.
    """
    folder, form = bench.work / "export", replace(settings.form(None), format="onnx")
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    (folder / FILE).parent.mkdir(parents=True)
    outputs = settings.outputs_of(encoder.task)
    if sentence := removed_units.note_on(encoder):  # its weights are let go below
        bench.note(sentence)
    with bench.progress.task("export to ONNX", total=3, unit="steps") as task:
        with BorrowedTensors() as lender:
            model = make_graph(encoder, settings, lender)
            task.advance()
            write_model(model, folder / FILE)
            task.advance()
        num_matmuls, counts = len(weight_matmuls(model)), operators(model)
        card = make_card(encoder, {}, form, outputs, settings.half or "float32")
        worst = check_parity(encoder, folder / FILE, settings.largest_difference, form, outputs, bench.unload)
        as_run = operators_as_run(folder / FILE, form.shape) if form.engine == "onnxruntime" else {}
        task.advance()
    details = {
        "opset": settings.opset,
        "attention": settings.attention,
        "tolerance": settings.largest_difference,
        "parity": worst,
        "num_weight_matmuls": num_matmuls,
        "operators": counts,
        "operators_as_run": as_run,
    }
    bench.note(
        f"the ONNX graph gives PyTorch's numbers at {', '.join(worst)} (batch x length, padded): the largest "
        f"difference is {max(worst.values()):.1e} of the largest output; "
        f"{num_matmuls} dense layers, each distinct weight stored once"
    )
    if sentence := describe_fusions(counts, as_run):
        bench.note(sentence)
    if settings.half is not None:
        bench.note(f"weights are stored in {settings.half} and multiplied in float32: half the bytes, the same speed")
    if form.engine != "onnxruntime":
        note_precision(form.engine, folder / FILE, bench)
    made = Artifact.create(folder, card.model_copy(update={"details": card.details | details}), encoder)
    if made.card.data is not None:
        bench.note(
            f"the file takes {units.format(made.num_bytes, 'B')}, and one ONNX file holds 2.1 GB: the weights are in "
            f"{made.card.data}, which must stay beside {FILE}"
        )
    return made


def make_graph(encoder: Encoder, settings: ExportSettings, lender: BorrowedTensors) -> onnx.ModelProto:
    """The graph to be written; its weights are the encoder's own, lent.

    Raises:
        CheckFailed: a dense layer has no stored weight.
    """
    traced = trace(encoder, settings.opset, settings.outputs_of(encoder.task), lender.tensor)
    model = fix_reshapes(canonicalise(traced, lender.tensor))
    check_weights(model, encoder)
    if drop_zero_products(model):
        model = canonicalise(model, lender.tensor)
    if settings.attention == "fused":
        model = fuse_every_attention(model, encoder)
    if settings.half is not None:
        model = store_half(model, settings.half, keep=lender.tensor)
    if settings.shape is not None:
        model = fix_shape(model, *settings.shape)
    set_metadata(model, metadata(encoder))
    return model


def note_precision(name: str, path: Path, bench: Workbench) -> None:
    """Say where an engine, left to itself, multiplies in another type than the file's."""
    precision = engine(name).load(str(path)).describe().get("precision", "float32")
    if precision != "float32":
        bench.note(f"{name} runs the float32 file in {precision} on this machine, and is evaluated and timed so")


def input_names(encoder: Encoder) -> list[str]:
    """The graph's inputs: token types only where the model tells them apart and the tokenizer gives them."""
    names = ["input_ids", "attention_mask"]
    config = encoder.model.config
    if (
        has_token_types(config)
        and config.type_vocab_size > 1
        and "token_type_ids" in encoder.tokenizer.model_input_names
    ):
        names.append("token_type_ids")
    return names


def has_token_types(config: Any) -> bool:
    """Whether the model adds an embedding of token types."""
    return anatomy_of(config.model_type).has_token_types and getattr(config, "type_vocab_size", 0) > 0


class ExportWrapper(torch.nn.Module):
    """The model with the engines' inputs and outputs.

    Args:
        outputs: the names of what it gives, in this order.
    """

    def __init__(self, encoder: Encoder, outputs: Sequence[str]) -> None:
        super().__init__()
        self.model = encoder.model
        self.pooling = encoder.pooling if TASKS[encoder.task].is_vector else None
        # A name that no stock class has: the graph's weights are named by it.
        self.sentence = encoder.layers if self.pooling is not None and encoder.layers else torch.nn.ModuleList()
        self.outputs = outputs

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Arrays (B, L) to the task's outputs, as `engines` describes them."""
        if token_type_ids is None and has_token_types(self.model.config):
            token_type_ids = torch.zeros_like(input_ids)
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        if self.pooling is not None:
            out[SENTENCE] = pool(of_tokens(out), attention_mask, *self.pooling.spec, layers=self.sentence)
        outputs = tuple(out[name] for name in self.outputs)
        return outputs if len(outputs) > 1 else outputs[0]


def trace(
    encoder: Encoder,
    opset: int,
    outputs: Sequence[str],
    keep: Callable[[NDArray[Any], str], onnx.TensorProto] = tensor,
) -> onnx.ModelProto:
    """The graph as PyTorch's tracer writes it, dynamic in batch and length.

    Args:
        keep: what makes a stored tensor of a weight: (numbers, name).
    """
    inputs, task = input_names(encoder), TASKS[encoder.task]
    length = min(6, encoder.max_length)
    ids = torch.ones(2, length, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, length - length // 2 :] = 0
    arrays = (ids, mask, torch.zeros_like(ids))[: len(inputs)]
    axes = {name: {0: "batch", 1: "length"} for name in inputs}
    for name in outputs:
        axes[name] = {0: "batch", 1: "length"} if task.per_token or name in task.beside else {0: "batch"}
    file, wrapper = io.BytesIO(), ExportWrapper(encoder, outputs).eval()
    with (
        without_removed_units(encoder),
        eager_attention(encoder.model),
        types_without_numbers(),
        torch.no_grad(),
        warnings.catch_warnings(),
    ):
        for category, message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", category=category, message=message)
        torch.onnx.export(
            wrapper,
            arrays,
            cast(Any, file),  # the stub knows paths only; this exporter writes to a buffer, too
            dynamo=False,
            opset_version=opset,
            input_names=inputs,
            output_names=list(outputs),
            dynamic_axes=axes,
            do_constant_folding=False,
            export_params=False,
        )
        model = onnx.load_model_from_string(file.getvalue())
        store_weights(model, wrapper, keep)
    return shorten_names(model)


def store_weights(
    model: onnx.ModelProto, wrapper: ExportWrapper, keep: Callable[[NDArray[Any], str], onnx.TensorProto]
) -> None:
    """Store the weights in a graph that was traced without them, where they are inputs by name.

    The tracer would copy them four times over on the way.
    """
    weights = dict(wrapper.named_parameters(remove_duplicate=False)) | dict(
        wrapper.named_buffers(remove_duplicate=False)
    )
    given = [value for value in model.graph.input if value.name not in weights]
    for value in model.graph.input:
        if value.name in weights:
            model.graph.initializer.append(keep(weights[value.name].detach().cpu().numpy(), value.name))
    del model.graph.input[:]
    model.graph.input.extend(given)


@contextmanager
def types_without_numbers() -> Iterator[None]:
    """Let the tracer tell types and shapes without the weights' numbers while the block runs.

    It copies them into a message for ONNX's shape inference, which cannot hold 2 GB, and passes over its errors. What a
    matrix holds decides no shape, and its own stands in the graph.
    """
    name = "_jit_pass_onnx_graph_shape_type_inference"
    infer = getattr(torch._C, name)

    def infer_small(graph: Any, weights: dict[str, Any], opset: int) -> None:
        infer(graph, {key: value for key, value in weights.items() if value.dim() < 2}, opset)

    setattr(torch._C, name, infer_small)
    try:
        yield
    finally:
        setattr(torch._C, name, infer)


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Attention as two MatMuls and a Softmax, in the form of `traced_attention`, and no grouped dense layer."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with traced_attention(model), grouped_as_dense(model):
            yield
    finally:
        model.set_attn_implementation(before)


def shorten_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Names of nodes and values without the wrapper's own `model.` in front."""

    def short(name: str) -> str:
        # The wrapper's own nodes keep their slash: `/Split` beside the model's `Split` must stay another name.
        return name.removeprefix("/model/").removeprefix("model.")

    for stored in model.graph.initializer:
        stored.name = short(stored.name)
    for node in model.graph.node:
        node.name = short(node.name)
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    model.graph.name = "encoder"
    return model


def check_weights(model: onnx.ModelProto, encoder: Encoder) -> None:
    """Check that every dense layer multiplies with a stored weight.

    Raises:
        CheckFailed: one of an encoder layer multiplies with something that is not stored.
    """
    num_stored, num_dense = len(weight_matmuls(model)), _num_dense(encoder)
    others = [node.name or node.op_type for node in unstored_weights(model)]
    if num_stored < num_dense or others:
        shown = f", and {listed(others)} computed from one" if others else ""
        raise CheckFailed(
            f"the exported graph has {num_stored} products with a stored weight{shown}, where the layers have "
            f"{num_dense} dense layers",
            where=encoder.source,
            hint="the installed torch or transformers writes a graph that bertshrink does not know",
        )


def _num_dense(encoder: Encoder) -> int:
    """How many dense layers a text goes through; of a sub-layer whose units are all gone there may be any number."""
    row, shape = encoder.anatomy, encoder.shape
    if row.layer is None:
        layer = encoder.model.get_submodule(f"{encoder.prefix}{row.path_of_layer(0)}")
        return sum(isinstance(module, torch.nn.Linear) for module in _that_run(encoder, layer)) * shape.num_layers
    there = present(encoder)
    total = 0
    for number in range(shape.num_layers):
        group = shared_group(number, shape.num_layers, shape.num_groups)
        for roles in row.layer.modules().values():
            of_units = {"attention": there[group].heads, "feed-forward": there[group].neurons}.get(part_of(roles[0]))
            total += of_units is not None and bool(of_units.any())
    return total


def _that_run(encoder: Encoder, layer: torch.nn.Module) -> set[torch.nn.Module]:
    """The modules of a layer that a text goes through: some configurations leave others that were built aside."""
    ran: set[torch.nn.Module] = set()
    hooks = [each.register_forward_hook(lambda module, *_: ran.add(module)) for each in layer.modules()]
    try:
        encoder.session().run(padded_text(encoder, 1, 1))
    finally:
        for hook in hooks:
            hook.remove()
    return ran


def fuse_every_attention(model: onnx.ModelProto, encoder: Encoder) -> onnx.ModelProto:
    """The graph with each layer's attention as one operator.

    Raises:
        CheckFailed: a layer's attention has another form than the one that can be joined.
    """
    fused, num_fused = fuse_attention(model)
    if num_fused != (number := _num_attentions(encoder)):
        raise CheckFailed(
            f"{num_fused} of {number} attentions could be fused",
            where=encoder.source,
            hint="leave `attention` at `standard`",
        )
    return fused


def _num_attentions(encoder: Encoder) -> int:
    """How many layers have a head that says something."""
    shape = encoder.shape
    if encoder.anatomy.layer is None:
        return shape.num_layers
    there = present(encoder)
    groups = (shared_group(number, shape.num_layers, shape.num_groups) for number in range(shape.num_layers))
    return sum(bool(there[group].heads.any()) for group in groups)


def _told(pooling: Pooling) -> dict[str, Any]:
    """Mode and normalisation, and of the rest what there is."""
    said = asdict(pooling)
    return {name: value for name, value in said.items() if value or name in ("mode", "normalize")}


def metadata(encoder: Encoder) -> list[tuple[str, str]]:
    """What the file says of itself, for whoever opens it without its folder."""
    said = [("similarity", encoder.similarity)] if encoder.similarity is not None else []
    return [
        ("bertshrink_version", __version__),
        ("task", encoder.task),
        ("family", encoder.anatomy.family),
        ("labels", json.dumps(list(encoder.labels))),
        ("pooling", json.dumps(_told(encoder.pooling) if encoder.pooling else None)),
        ("prompt", encoder.prompt),
        ("activation", encoder.activation),
        ("max_length", str(encoder.max_length)),
        *said,
    ]


def make_card(
    encoder: Encoder, details: dict[str, Any], form: ArtifactSpec, outputs: Sequence[str], precision: str = "float32"
) -> ArtifactCard:
    """The card of an exported file, at its format's place in the layout."""
    return ArtifactCard(
        format=form.format,
        engine=form.engine,
        file=PLACES[form.format],
        task=encoder.task,
        family=encoder.anatomy.family,
        precision=precision,
        labels=encoder.labels,
        pooling=encoder.pooling.spec if encoder.pooling else None,
        prompt=encoder.prompt,
        activation=encoder.activation,
        similarity=encoder.similarity,
        inputs=tuple(input_names(encoder)),
        outputs=tuple(outputs),
        max_length=form.max_length or encoder.max_length,
        shape=form.shape,
        max_batch=form.max_batch,
        vocab_size=encoder.shape.vocab_size,
        details=details | ({"notes": list(encoder.remarks)} if encoder.remarks else {}),
        lineage=("export",),
    )
