"""Factorize: narrow embedding tables and a projection to the layers' width, as ALBERT has them, without training.

A third to a half of a small encoder is its embedding tables. ALBERT (arXiv:1909.11942) keeps them narrow; what is here
turns a trained encoder into such a one in closed form, stock transformers from end to end. Its width (`rank`) is said
outright, or found from a share of energy or from a size. See `low_rank` for the maths, `subspace` for what is kept,
`model.conversion` for the class that comes out.

It saves memory and hardly any time: the layers stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from bertshrink.techniques.base import Workbench

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.model_ref import Model
from bertshrink.techniques.factorize.settings import FactorizeSettings


class Factorize(FactorizeSettings):
    """Make the embedding tables narrow, and keep what text uses of them."""

    def __call__(self, model: Model, bench: Workbench) -> Model:
        """Factorize; see `apply.factorize`."""
        from bertshrink.techniques.factorize.apply import factorize

        return factorize(cast("Encoder", model), self, bench)

    def explain(self, model: Model, bench: Workbench) -> list[dict[str, Any]]:
        """What each width would cost and keep; see `explain.explain`."""
        from bertshrink.techniques.factorize.explain import explain

        return explain(cast("Encoder", model), self, bench)
