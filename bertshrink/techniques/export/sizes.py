"""What a checkpoint becomes as an ONNX file, in bytes: the same numbers, and a graph whose bytes are names.

Measured on models of two and four layers, every family and task: what is told of a graph is right to 5 %, which in a
file of any use is a thousandth.
"""

from __future__ import annotations

from dataclasses import replace

from bertshrink.model.estimate import Part, Sizes

_FIXED = {"bert": 3970, "roberta": 4460, "xlm-roberta": 4460, "distilbert": 3640, "albert": 4860, "electra": 4530}
_LAYER = {"bert": 6430, "roberta": 6370, "xlm-roberta": 6370, "distilbert": 6215, "albert": 11190, "electra": 6400}
_LETTER = {"albert": 150}
_ANY_LETTER = 120
"""A layer's names hold the head's prefix so many times."""

_CAST = 175
"""Bytes of the operation that turns a half weight back into float32."""


def as_onnx(before: Sizes, *, is_half: bool) -> Sizes:
    """The ONNX file of a checkpoint; `is_half`: in 16 bits."""
    assert before.facts is not None
    layers, family = before.facts.shape.num_layers, before.family
    frame = _FIXED[family] + layers * (_LAYER[family] + before.prefix * _LETTER.get(family, _ANY_LETTER))
    needs_pooler = before.facts.task != "embedding"
    parts = [replace(part, about=0.0) for part in before.parts if needs_pooler or not part.is_pooler]
    if is_half:
        parts = [halved(part) for part in parts]
    return Sizes("onnx", family, tuple(parts), frame, before.prefix, is_float=not is_half)


def halved(part: Part) -> Part:
    """A weight in 16 bits."""
    return replace(part, num_bytes=part.num_bytes // 2, about=_CAST) if part.is_weight else part
