"""How large a model is: bytes on disk, parameters, and where they sit.

An encoder's bytes are those of its weights' files, distinguished by the family's anatomy, and of a sentence encoder's
dense layers and norms beside them (the head); its parameters are those of the model that runs, tied ones once. An
artifact's are read off its graph, whatever technique wrote it:

    embeddings   tables of which rows are gathered
    matmul       matrices that are multiplied with
    other        the rest: norms, biases, scales, constants

Files of other formats (.ort, .pte) have bytes only: their insides are their engine's own matter.

Each is followed through the operations that only dress it (Transpose, Cast, DequantizeLinear). A scale or zero point of
a quantized weight has bytes, but is not a parameter; two parameters of 4 bits share a byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertshrink.files.headers import DRESSINGS, FileFacts, Node, Tensor, read_onnx, read_safetensors
from bertshrink.files.shards import read_weight_facts
from bertshrink.model.artifact import Artifact
from bertshrink.model.folder.layer_weights import layer_files
from bertshrink.model.sizes.components import count_components
from bertshrink.report.measurement import Conditions, Measurement
from bertshrink.report.report import Component

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder

FLOPS_LENGTH = 128
"""The sequence length at which operations per token are counted: attention's share grows with it."""

_LOOKS_UP = ("Gather", "GatherBlockQuantized")
_EMBEDS = ("EmbedLayerNormalization", "QEmbedLayerNormalization")
"""Three tables in one operation: words, positions, types."""
_MULTIPLIES = (
    "MatMulNBits",
    "MatMul",
    "Gemm",
    "FusedGemm",
    "MatMulInteger",
    "QLinearMatMul",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
)
_ATTENDS = ("Attention", "MultiHeadAttention", "QAttention")
"""Whole attentions as one operation: scores and mixing; some with the projections before them."""
_SCALES_BY_HAND = ("Mul", "Sub")
_INTEGERS = ("INT8", "UINT8", "INT4", "UINT4")

_SCALE_INPUTS = {
    # operation: which of its inputs are scales and zero points
    ":DequantizeLinear": (1, 2),
    ":QuantizeLinear": (1, 2),
    ":MatMulInteger": (2, 3),
    ":QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "com.microsoft:DynamicQuantizeMatMul": (2, 3),
    "com.microsoft:MatMulIntegerToFloat": (2, 3, 4, 5),
    "com.microsoft:MatMulNBits": (2, 3),
    "com.microsoft:GatherBlockQuantized": (2, 3),
    "com.microsoft:QAttention": (3, 4, 6, 7),
}


@dataclass(frozen=True)
class SizeResult:
    """Measurements `size` (B), where known `parameters` and, of an encoder, `flops_per_token` (count); the parts."""

    measurements: list[Measurement]
    components: list[Component]


def measure(model: Encoder | Artifact, folder: Path) -> SizeResult:
    """Measure a model whose files are in `folder`. Raises UnsafeModel: the weights file is damaged."""
    return _measure_artifact(model, folder) if isinstance(model, Artifact) else _measure_encoder(model, folder)


def _measure_encoder(encoder: Encoder, folder: Path) -> SizeResult:
    files = [read_weight_facts(folder), *map(read_safetensors, layer_files(folder, encoder.pooling))]
    stored = [tensor for facts in files for tensor in facts.tensors]
    tensors = ((one.name, one.num_elements if one.is_countable else 0, one.num_bytes) for one in stored)
    parts = count_components(encoder.anatomy, tensors)
    modules = [encoder.model, *(encoder.layers or ())]
    num_parameters = sum(parameter.numel() for module in modules for parameter in module.parameters())
    measured = _counts(sum(facts.num_bytes for facts in files), num_parameters)
    if (flops := encoder.shape.flops_per_token(FLOPS_LENGTH)) is not None:
        at = Conditions(length=FLOPS_LENGTH)
        measured.append(Measurement.single("flops_per_token", "count", flops, "lower", conditions=at))
    components = [Component(name=name, num_parameters=n, num_bytes=b) for name, (n, b) in parts.items()]
    return SizeResult(measured, components)


def _measure_artifact(artifact: Artifact, folder: Path) -> SizeResult:
    if artifact.card.format != "onnx":
        return SizeResult([Measurement.single("size", "B", (folder / artifact.card.file).stat().st_size, "lower")], [])
    facts = read_onnx(folder / artifact.card.file)
    components = onnx_components(facts)
    return SizeResult(_counts(facts.num_bytes, sum(part.num_parameters for part in components)), components)


def _counts(num_bytes: int, num_parameters: int) -> list[Measurement]:
    return [
        Measurement.single("size", "B", num_bytes, "lower"),
        Measurement.single("parameters", "count", num_parameters, "lower"),
    ]


def onnx_components(facts: FileFacts) -> list[Component]:
    """The parts `embeddings`, `matmul` and `other` of a graph, those that it has, with parameters and bytes."""
    origins = _origins(facts)
    gathered = _stored_inputs(facts.nodes, origins, _LOOKS_UP, (0,))
    gathered |= _stored_inputs(facts.nodes, origins, _EMBEDS, (2, 3, 4))
    multiplied = _stored_inputs(facts.nodes, origins, _MULTIPLIES, (0, 1, 3))
    multiplied |= _stored_inputs(facts.nodes, origins, _ATTENDS, (1,))
    scales = _scales(facts, origins, gathered)
    packed = _packed(facts, origins)

    def part_of(tensor: Tensor) -> str:
        if len(tensor.shape) >= 2 and tensor.name not in scales:
            if tensor.name in gathered:
                return "embeddings"
            if tensor.name in multiplied:
                return "matmul"
        return "other"

    return [
        Component(
            name=name,
            num_parameters=sum(
                packed.get(tensor.name, tensor.num_elements) for tensor in tensors if _is_weight(tensor, scales)
            ),
            num_bytes=sum(tensor.num_bytes for tensor in tensors),
        )
        for name in ("embeddings", "matmul", "other")
        if (tensors := [tensor for tensor in facts.tensors if part_of(tensor) == name])
    ]


def products(facts: FileFacts) -> tuple[list[tuple[int, int]], int]:
    """What a graph multiplies: (inputs, outputs) of each stored matrix, once for every operation that uses it, smaller
    side first; and how many operations multiply two computed matrices (scores and mixing of attention).
    """
    origins = _origins(facts)
    shapes = {tensor.name: tensor.shape for tensor in facts.tensors}
    stored, num_computed = [], 0
    for node in facts.nodes:
        kind = _type(node)
        if kind == "MatMulNBits":
            stored.append((node.integers["N"], node.integers["K"]))
        elif kind in _MULTIPLIES:
            names = [origins[name] for name in node.inputs[:4] if len(shapes.get(origins.get(name, ""), ())) == 2]
            stored += [(shapes[name][0], shapes[name][1]) for name in names[:1]]
            num_computed += not names
        elif kind in _ATTENDS:
            num_computed += 2
            shape = shapes.get(origins.get(node.inputs[1], ""), ()) if len(node.inputs) > 1 else ()
            stored += [(shape[0], shape[1])] if len(shape) == 2 else []
    return [(min(sides), max(sides)) for sides in stored], num_computed


def _is_weight(tensor: Tensor, scales: set[str]) -> bool:
    return len(tensor.shape) >= 1 and tensor.is_countable and tensor.name not in scales


def _packed(facts: FileFacts, origins: dict[str, str]) -> dict[str, int]:
    """Stored tensors that hold weights in blocks -> how many weights, padding left out."""
    num_weights: dict[str, int] = {}
    num_elements = {tensor.name: tensor.num_elements for tensor in facts.tensors}
    for node in facts.nodes:
        if node.op == "com.microsoft:GatherBlockQuantized" and node.inputs[0] in origins:
            name = origins[node.inputs[0]]
            num_weights.setdefault(name, num_elements[name] * 8 // node.integers.get("bits", 4))
        if node.op == "com.microsoft:MatMulNBits" and node.inputs[1] in origins:
            num_weights[origins[node.inputs[1]]] = node.integers["N"] * node.integers["K"]
    return num_weights


def _origins(facts: FileFacts) -> dict[str, str]:
    """Value -> the stored tensor that it is, as it is or dressed; nodes are in the order they run."""
    origins, tensors = {tensor.name: tensor.name for tensor in facts.tensors}, _by_name(facts)
    for node in facts.nodes:
        if _type(node) in DRESSINGS and node.inputs and node.inputs[0] in origins:
            origins[node.outputs[0]] = origins[node.inputs[0]]
        elif (pair := _by_hand(node, tensors, origins)) is not None:
            origins[node.outputs[0]] = pair[0]
    return origins


def _by_name(facts: FileFacts) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in facts.tensors}


def _by_hand(node: Node, tensors: dict[str, Tensor], origins: dict[str, str]) -> tuple[str, str] | None:
    """The integers, and their scale or zero point, that an operation on two stored tensors makes numbers of."""
    if _type(node) not in _SCALES_BY_HAND or not all(name in origins for name in node.inputs):
        return None
    both = sorted((tensors[origins[name]] for name in node.inputs), key=lambda one: one.num_elements)
    is_scaled = len(both) == 2 and both[1].dtype in _INTEGERS and both[0].num_elements < both[1].num_elements
    return (both[1].name, both[0].name) if is_scaled else None


def _stored_inputs(
    nodes: Iterable[Node], origins: dict[str, str], types: tuple[str, ...], places: tuple[int, ...]
) -> set[str]:
    """The stored tensors that enter operations of these types at these places."""
    entering = (node.inputs[at] for node in nodes if _type(node) in types for at in places if at < len(node.inputs))
    return {origins[name] for name in entering if name in origins}


def _scales(facts: FileFacts, origins: dict[str, str], gathered: set[str]) -> set[str]:
    """The stored tensors that scale or shift a quantized weight, also where that is spelt out as Mul.

    Dynamic quantization multiplies the weight's scale with that of the input, which DynamicQuantizeLinear gives; a
    table quantized by rows gathers one number per row, which no table of embeddings has.
    """
    scales = {
        origins[node.inputs[at]]
        for node in facts.nodes
        for at in _SCALE_INPUTS.get(node.op, ())
        if at < len(node.inputs) and node.inputs[at] in origins
    }
    dynamic = {node.outputs[1] for node in facts.nodes if _type(node) == "DynamicQuantizeLinear"}
    for node in facts.nodes:
        if _type(node) == "Mul" and dynamic & set(node.inputs):
            scales |= {origins[name] for name in node.inputs if name in origins}
    tensors = _by_name(facts)
    scales |= {pair[1] for node in facts.nodes if (pair := _by_hand(node, tensors, origins)) is not None}
    by_row = (tensor for tensor in facts.tensors if tensor.name in gathered and tensor.shape)
    return scales | {tensor.name for tensor in by_row if tensor.num_elements == tensor.shape[0]}


def _type(node: Node) -> str:
    return node.op.rpartition(":")[2]
