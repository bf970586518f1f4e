"""Share: layers in a row use one set of weights, as ALBERT's do (arXiv:1909.11942), after training.

The L layers of a trained encoder become G groups; a group's weights are chosen so that it still turns what its first
layer reads into what its last one gave (see `fitting`). What comes out is a stock ALBERT. Where the head is none that
ALBERT has (DistilBERT's and ELECTRA's for whole texts), one is fitted to the answers of the model that came in.

It saves memory and no time: every layer is still computed. It also costs quality, which a `distill` stage after it
brings back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from bertshrink.techniques.base import Workbench

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.model_ref import Model
from bertshrink.techniques.share.settings import ShareSettings


class Share(ShareSettings):
    """Let layers share their weights in groups."""

    def __call__(self, model: Model, bench: Workbench) -> Model:
        """Share; see `apply.share`."""
        from bertshrink.techniques.share.apply import share

        return share(cast("Encoder", model), self, bench)
