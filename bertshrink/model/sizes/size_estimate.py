"""How many bytes a model's file takes, before it is made: the one estimator, in which techniques say what they change.

A model is a list of parts, each a stored tensor or several alike, and a frame: what the file says besides (a header, a
graph). `of_encoder` knows the parts of a stock checkpoint from its sizes, `of_file` those of a file from its header.
Each technique turns the parts before into the parts after (`Technique.sizes`). No weight is read, nothing is made.

    checkpoint   the numbers are counted exactly; an entry of the header is a mean one
    ONNX         the numbers likewise; what the graph's nodes take is told by whoever writes them
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from bertshrink import units
from bertshrink.files.headers import DRESSINGS, FileFacts
from bertshrink.model.checkpoint_info import CheckpointInfo
from bertshrink.model.families import FAMILIES, name_bytes
from bertshrink.model.sizes.parameter_count import BYTES, Stored, num_parameters, stored
from bertshrink.model.tasks import TASKS

Role = Literal["table", "dense", "other"]

TOLERANCE = 0.02
"""How far an estimate may be off, as a share: what is refused by it is refused only beyond that."""

MIN_TABLE_ROWS = 16
"""Tables with fewer rows (token types: 2) are left alone: nothing to save, and more nodes to run."""

MIN_INT4_OUTPUTS = 16
"""Dense layers with fewer outputs (classifiers) take 8 bits where all others take 4: a few hundred bytes in which every
error is an error of the answer."""

_CAST, _CAST_LETTER, _CAST_IN_FRONT = 171, 3.0, 135
"""Bytes of one Cast: in a layer, more for each letter of the prefix; of a table or a head."""


@dataclass(frozen=True)
class Part:
    """Stored tensors that are alike.

    Attributes:
        role: `dense`: multiplied with; `table`: looked up by rows; `other`: norms, biases, constants.
        shape: (inputs, outputs) of a dense layer, (rows, width) of a table, (numbers, 1) of the rest.
        number: how many tensors.
        num_bytes: of each, with the scales that belong to it.
        about: bytes of each besides its numbers: its entry in a header, the nodes that were added for it.
        uses: how many operations multiply with each.
        is_head: whether it is behind the layers.
        is_tied: of a table: whether a head multiplies with it, too.
        is_exported: whether an exported file stores it as it is.
    """

    role: Role
    shape: tuple[int, int]
    number: int
    num_bytes: int
    about: float = 0.0
    uses: float = 1.0
    is_head: bool = False
    is_tied: bool = False
    is_exported: bool = True

    @property
    def is_weight(self) -> bool:
        """Whether it is a matrix that techniques store in fewer bits; see `onnx_graph.weights`."""
        return self.role == "dense" or self.is_tied or (self.role == "table" and self.shape[0] >= MIN_TABLE_ROWS)


@dataclass(frozen=True)
class Sizes:
    """What decides the bytes of a model's file.

    Attributes:
        format: `safetensors` or `onnx`; of other formats nothing is known, and no `Sizes` are given for them.
        family: as in config.json.
        parts: what is stored.
        frame: bytes besides the parts.
        prefix: letters by which a head lengthens the names of all inner operations: those of `bert/`.
        facts: of an encoder; None: an artifact.
        is_float: whether every weight is in float32.
        kept: of a checkpoint: the share of its layers' dense weights that an exported file stores.
    """

    format: str
    family: str
    parts: tuple[Part, ...]
    frame: float
    prefix: int = 0
    facts: CheckpointInfo | None = None
    is_float: bool = True
    kept: float = 1.0

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        return round(self.frame + sum(part.number * (part.num_bytes + part.about) for part in self.parts))


def of_encoder(facts: CheckpointInfo) -> Sizes:
    """The sizes of a stock checkpoint in float32."""
    entry = name_bytes(facts.anatomy.family).entry
    prefix = 0 if TASKS[facts.task].is_bare else len(facts.anatomy.base) + 1
    return Sizes(
        "safetensors", facts.anatomy.family, tuple(part_of(one, entry) for one in stored(facts)), 40.0, prefix, facts
    )


def checkpoint_bytes(facts: CheckpointInfo) -> int:
    """Bytes of a stock checkpoint in float32."""
    return of_encoder(facts).num_bytes


def part_of(one: Stored, about: float) -> Part:
    """A part in float32; `about`: bytes of each besides its numbers."""
    return Part(
        one.role,
        one.shape,
        one.number,
        BYTES * math.prod(one.shape),
        about,
        one.uses,
        one.is_head,
        one.is_tied,
        one.is_exported,
    )


def of_file(file: FileFacts, family: str) -> Sizes | None:
    """The sizes of an ONNX file, from its graph; None where no stored matrix is multiplied with."""
    origins = {tensor.name: tensor.name for tensor in file.tensors}
    uses: Counter[str] = Counter()
    tables, prefix = set(), 0
    for node in file.nodes:
        kind = node.op.rpartition(":")[2]
        if kind in DRESSINGS and node.inputs and node.inputs[0] in origins:
            origins[node.outputs[0]] = origins[node.inputs[0]]
        elif kind in ("MatMul", "Gemm") and len(node.inputs) > 1 and node.inputs[1] in origins:
            uses[origins[node.inputs[1]]] += 1
            first = node.outputs[0].strip("/").partition("/")[0]
            prefix = len(first) + 1 if first in {row.base for row in FAMILIES.values()} else prefix
        elif kind == "Gather" and node.inputs[0] in origins:
            tables.add(origins[node.inputs[0]])
    parts, is_float = [], True
    for tensor in file.tensors:
        is_weight = len(tensor.shape) == 2 and min(tensor.shape) > 1 and (tensor.name in tables or uses[tensor.name])
        if not is_weight:
            parts.append(Part("other", (tensor.num_elements, 1), 1, tensor.num_bytes))
            continue
        is_table, is_float = tensor.name in tables, is_float and tensor.dtype == "FLOAT"
        role: Role = "table" if is_table else "dense"
        shape, times = (tensor.shape[0], tensor.shape[1]), uses[tensor.name]
        parts.append(Part(role, shape, 1, tensor.num_bytes, 0.0, times, is_tied=is_table and times > 0))
    if not uses:
        return None
    frame = file.num_bytes - sum(part.num_bytes for part in parts)
    return Sizes(file.format, family, tuple(parts), frame, prefix, is_float=is_float)


def halved(before: Sizes) -> Sizes:
    """An ONNX file with every weight in 16 bits and the Cast that brings it back (see `half_weights`)."""
    return replace(before, parts=tuple(half_of(part, before) for part in before.parts), is_float=False)


def half_of(part: Part, before: Sizes) -> Part:
    """A part of an ONNX file in 16 bits, where it is a weight."""
    if not part.is_weight:
        return part
    in_layer = _CAST + name_bytes(before.family).cast + _CAST_LETTER * before.prefix
    about = _CAST_IN_FRONT if part.role == "table" or part.is_head else in_layer
    return replace(part, num_bytes=2 * math.prod(part.shape), about=about)


def savings_summary(before: CheckpointInfo, after: CheckpointInfo) -> str:
    """Parameters, bytes and operations before and after, as a sentence."""
    given, remaining = num_parameters(before), num_parameters(after)
    sizes = [units.format(checkpoint_bytes(facts), "B") for facts in (before, after)]
    ops = [units.format((facts.shape.flops_per_token() or 0) / 1e6, "count") for facts in (before, after)]
    return (
        f"{units.format(given, 'count')} parameters ({sizes[0]}) become {units.format(remaining, 'count')} "
        f"({sizes[1]}); {ops[0]} MFLOP per token before, {ops[1]} after: saves memory, not time"
    )
