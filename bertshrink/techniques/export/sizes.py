"""What a checkpoint becomes as an ONNX file, in bytes: the same numbers, and a graph whose bytes are names.

Measured on models of two and four layers, every family and task: what is told of a graph is right to 5 %, which in a
file of any use is a thousandth.
"""

from __future__ import annotations

from dataclasses import replace

from bertshrink.model.estimate import Sizes, halved

_FIXED = {"bert": 3830, "roberta": 4375, "xlm-roberta": 4375, "distilbert": 3575, "albert": 4510, "electra": 4330}
_LAYER = {"bert": 7160, "roberta": 7080, "xlm-roberta": 7080, "distilbert": 6895, "albert": 11860, "electra": 7095}
_LETTER = {"albert": 173}
_ANY_LETTER = 140
"""A layer's names hold the head's prefix so many times."""


def as_onnx(before: Sizes, *, is_half: bool) -> Sizes:
    """The ONNX file of a checkpoint; `is_half`: in 16 bits."""
    assert before.facts is not None
    layers, family = before.facts.shape.num_layers, before.family
    positions = 0 if "roberta" in family else 8 * before.facts.shape.max_positions  # their numbers, 0, 1, 2, ...
    frame = _FIXED[family] + positions + layers * (_LAYER[family] + before.prefix * _LETTER.get(family, _ANY_LETTER))
    needs_pooler = before.facts.task != "embedding"
    parts = [replace(part, about=0.0) for part in before.parts if needs_pooler or not part.is_pooler]
    made = Sizes("onnx", family, tuple(parts), frame, before.prefix)
    return halved(made) if is_half else made
