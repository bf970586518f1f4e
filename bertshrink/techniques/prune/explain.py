"""What other shares would cost and keep, measured before one is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bertshrink.model.sizes.parameter_count import facts_of, num_parameters
from bertshrink.techniques.prune.apply import Pruning

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.prune.settings import PruneSettings

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


def explain(encoder: Encoder, settings: PruneSettings, bench: Workbench) -> list[dict[str, Any]]:
    """A row for each of eight shares of the multiply-adds, and for the one that is asked for.

    `parameters` and `bytes` (float32) are what an exported file stores, graph and constants left out; `quality` is the
    task's headline metric of the refitted model on texts kept for choosing.

    Raises:
        UserError: as `apply.prune`.
    """
    pruning = Pruning.of(encoder, settings, bench)
    whole = num_parameters(facts_of(encoder))
    uses = encoder.shape.num_groups / encoder.shape.num_layers
    flops = encoder.shape.flops_per_token() or 0
    rows: list[dict[str, Any]] = []
    for share in sorted({*SHARES, settings.share}, reverse=True):
        pruned, keep = pruning.at(share)
        gone = pruning.costs.of_units([one.map(torch.logical_not) for one in keep])
        rows.append(
            {
                "keep": f"{share:.0%}",
                "parameters": whole - gone,
                "bytes": 4 * (whole - gone),
                "mflop per token": round((flops - 2 * gone / uses) / 1e6, 2),
                "heads": sum(int(one.heads.sum()) for one in keep),
                "neurons": sum(int(one.neurons.sum()) for one in keep),
                **({"quality": bench.choose(pruned)} if bench.choose is not None else {}),
            }
        )
    return rows
