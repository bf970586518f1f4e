"""Quantize an artifact: weights, and what they are multiplied with, in fewer bits than 32.

Every weight is written in a type, and a scheme is one type for all of them:

    dynamic-int8         a quarter of the bytes, integer arithmetic, nothing to calibrate
    static-int8          the same with ranges of activations from calibration texts
    block-int8           a scale for each block of a row: nearest to the float numbers of all the 8-bit schemes
    block-int4           an eighth of the bytes
    float16, bfloat16    half the bytes, float32's arithmetic

The result is counted (`coverage`) and compared with the float artifact (`similarity`) before it counts as made. See
`rewrite` for the engine, and the files it names for each type.

The default of `min_cosine` is meant to catch what went wrong, not what quantization costs: all-MiniLM-L6-v2 measures
0.991 to 0.994 with 6 layers and 0.995 to 0.997 with 3 of them in dynamic int8, and the loss grows with depth, so that
12 layers are near 0.985.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bertshrink.techniques.base import Workbench

if TYPE_CHECKING:
    from bertshrink.model.artifact import Artifact
    from bertshrink.model.model_ref import Model
from bertshrink.techniques.quantize.settings import QuantizeSettings


class Quantize(QuantizeSettings):
    """Store weights and embeddings in fewer bits, and multiply in integers where the scheme does."""

    def __call__(self, model: Model, bench: Workbench) -> Model:
        """Quantize; see `apply.quantize`."""
        from bertshrink.techniques.quantize.apply import quantize

        return quantize(cast("Artifact", model), self, bench)
