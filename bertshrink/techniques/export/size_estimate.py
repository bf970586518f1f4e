"""What a checkpoint becomes as an ONNX file, in bytes: the same numbers, and a graph whose bytes are names.

Measured on models of two and four layers, every family and task: what is told of a graph is right to 5 %, which in a
file of any use is a thousandth.
"""

from __future__ import annotations

from dataclasses import replace

from bertshrink.model.checkpoint import CheckpointInfo
from bertshrink.model.size_estimate import Sizes, halved

_FIXED = {"bert": 3830, "roberta": 4375, "xlm-roberta": 4375, "distilbert": 3575, "albert": 4800, "electra": 4330}
_LAYER = {"bert": 7160, "roberta": 7080, "xlm-roberta": 7080, "distilbert": 6895, "albert": 9060, "electra": 7095}
_LETTER = {"albert": 173}
_ANY_LETTER = 140
"""A layer's names hold the head's prefix so many times."""

_GROUP = {"albert": 964}
"""What a group of layers stores is named once, however many layers use it."""

_SPELT_OUT = 2200
"""Bytes of a layer's GELU by its tangent, which is written in many operations."""


def activation(facts: CheckpointInfo) -> str:
    """The activation of the layers, as config.json names it."""
    default = "gelu_new" if facts.anatomy.family == "albert" else "gelu"
    return str(facts.config.get("hidden_act", facts.config.get("activation", default)))


def as_onnx(before: Sizes, *, is_half: bool) -> Sizes:
    """The ONNX file of a checkpoint; `is_half`: in 16 bits."""
    assert before.facts is not None
    layers, family = before.facts.shape.num_layers, before.family
    positions = 0 if "roberta" in family else 8 * before.facts.shape.max_positions  # their numbers, 0, 1, 2, ...
    layer = _LAYER[family] + before.prefix * _LETTER.get(family, _ANY_LETTER)
    layer += _SPELT_OUT if activation(before.facts) in ("gelu_new", "gelu_fast", "gelu_pytorch_tanh") else 0
    frame = _FIXED[family] + positions + layers * layer + before.facts.shape.num_groups * _GROUP.get(family, 0)
    needs_pooler = before.facts.task != "embedding"
    parts = [replace(part, about=0.0) for part in before.parts if needs_pooler or not part.is_pooler]
    made = Sizes("onnx", family, tuple(parts), frame, before.prefix)
    return halved(made) if is_half else made
