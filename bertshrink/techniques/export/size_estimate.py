"""What a checkpoint becomes as an ONNX file, in bytes: the same numbers, and a graph whose bytes are names.

Measured on models of two and four layers, every family and task: what is told of a graph is right to 5 %, which in a
file of any use is a thousandth.
"""

from __future__ import annotations

from dataclasses import replace

from bertshrink.model.checkpoint_info import CheckpointInfo
from bertshrink.model.sizes.parameter_count import folded
from bertshrink.model.sizes.size_estimate import Part, Sizes, halved, part_of

_SPELT_OUT = 2200
"""Bytes of a layer's GELU by its tangent, which is written in many operations."""


def activation(facts: CheckpointInfo) -> str:
    """The activation of the layers, as config.json names it."""
    return str(facts.config.get(facts.anatomy.field("hidden_act"), facts.anatomy.default_activation))


def as_onnx(before: Sizes, *, is_half: bool) -> Sizes:
    """The ONNX file of a checkpoint; `is_half`: in 16 bits."""
    assert before.facts is not None
    shape, row = before.facts.shape, before.facts.anatomy
    named = row.file_bytes
    is_none = row.adds_positions is not None and not row.has_positions(before.facts.config)
    positions = 0 if is_none or row.positions_follow_padding else 8 * shape.max_positions  # their numbers, 0, 1, 2, ...
    layer = named.layer + before.prefix * named.letter
    layer += _SPELT_OUT if activation(before.facts) in ("gelu_new", "gelu_fast", "gelu_pytorch_tanh") else 0
    frame = named.graph + positions + shape.num_layers * layer + shape.num_groups * named.group
    parts = [replace(_kept(part, before), about=0.0) for part in before.parts if part.is_exported]
    parts += [part_of(one, 0.0) for one in folded(before.facts)]
    made = Sizes("onnx", before.family, tuple(parts), frame, before.prefix)
    return halved(made) if is_half else made


def _kept(part: Part, before: Sizes) -> Part:
    """What is stored of a dense layer where zeros are left out."""
    if part.role != "dense" or part.is_head or before.kept == 1:
        return part
    outputs = max(1, round(part.shape[1] * before.kept))
    return replace(part, shape=(part.shape[0], outputs), num_bytes=part.num_bytes * outputs // part.shape[1])
