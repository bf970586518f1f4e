"""Prune: attention heads and feed-forward neurons go, without training, and what is left is refitted in closed form.

Which units matter is read from gradients (`importance`); the least important for what they cost go until a share of the
multiply-adds is left (`choose_units`); each output projection is then fitted to what its layer gave before (`refit`).
After Kwon et al., arXiv:2204.09656, who rescale where this refits.

The checkpoint stays stock: units that went are zeros, of the same numbers anywhere, and as large as before. `export`
leaves them out, as many in each layer as there are: the file is smaller and faster. Training keeps them zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from bertshrink.techniques.base import Workbench

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.model_ref import Model
from bertshrink.techniques.prune.settings import PruneSettings


class Prune(PruneSettings):
    """Remove attention heads and feed-forward neurons, and refit the rest."""

    def __call__(self, model: Model, bench: Workbench) -> Model:
        """Prune; see `apply.prune`."""
        from bertshrink.techniques.prune.apply import prune

        return prune(cast("Encoder", model), self, bench)

    def explain(self, model: Model, bench: Workbench) -> list[dict[str, Any]]:
        """What other shares would cost and keep; see `explain.explain`."""
        from bertshrink.techniques.prune.explain import explain

        return explain(cast("Encoder", model), self, bench)
