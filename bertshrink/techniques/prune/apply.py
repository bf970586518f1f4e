"""How an encoder is pruned: read importance, choose, remove, refit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bertshrink import units
from bertshrink.data.calibration import calibration_rows
from bertshrink.data.encoding import encode
from bertshrink.errors import UserError
from bertshrink.model.batches import Row
from bertshrink.model.encoder import Encoder
from bertshrink.model.thinner_copy import thin
from bertshrink.model.units import Units, present, remove
from bertshrink.techniques.prune.choose_units import UnitCosts, choose_units
from bertshrink.techniques.prune.importance import importance
from bertshrink.techniques.prune.refit import FEW, refit
from bertshrink.training.rows.batching import TokenizedRows

if TYPE_CHECKING:
    from bertshrink.data.texts import Split
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.prune.settings import PruneSettings

CALIBRATION_TOKENS = 100_000
"""At most, for the refit."""


@dataclass
class Pruning:
    """An encoder with the scores of its units: what all shares need of the texts is read once.

    Attributes:
        encoder: unpruned; it is not changed.
        scores: of units that are there; below 0 where one is gone already.
        rows: calibration texts of the refit.
    """

    encoder: Encoder
    settings: PruneSettings
    bench: Workbench
    costs: UnitCosts
    scores: list[Units]
    rows: list[Row]

    @classmethod
    def of(cls, encoder: Encoder, settings: PruneSettings, bench: Workbench) -> Pruning:
        """Look at the texts.

        Raises:
            UserError: no texts; labels that the model does not have; too few texts.
        """
        if bench.texts is None:
            raise UserError("`prune` needs texts", hint="name texts with `data:` or `--data`")
        texts = bench.texts.choosing()[0]
        read = _rows(encoder, texts.first(settings.importance_examples, "importance"), settings, bench)
        scores = importance(
            encoder, read, settings.method, labels=settings.labels, seed=bench.seed, progress=bench.progress
        )
        # What is gone already stays so: it is worth less than anything.
        scores = [
            Units(one.heads.where(there.heads, -1.0), one.neurons.where(there.neurons, -1.0))
            for one, there in zip(scores, present(encoder), strict=True)
        ]
        kinds = {
            "fisher": "squared gradients of the loss on their labels"
            if settings.labels
            else "squared gradients of the divergence from the model's own answers",
            "magnitude": "the size of what each unit adds",
            "random": "nothing: it is random",
        }
        bench.note(f"importance was read from {len(read)} training texts: {kinds[settings.method]}")
        rows: list[Row] = []
        if settings.refit:
            side = replace(bench.texts, train=texts)
            rows, _ = calibration_rows(
                encoder, side, settings.calibration_examples, CALIBRATION_TOKENS, bench.max_length, bench.seed
            )
        return cls(encoder, settings, bench, UnitCosts.of(encoder.shape), scores, rows)

    def at(self, share: float) -> tuple[Encoder, list[Units]]:
        """The encoder with so much of its multiply-adds, refitted, and the units that are left."""
        settings = self.settings.model_copy(update={"keep": f"{share:.6%}"})
        num_neurons = settings.num_neurons(self.encoder.shape) if settings.uniform else None
        keep = choose_units(self.scores, self.costs, share, num_neurons)
        keep = [
            Units(one.heads & (score.heads >= 0), one.neurons & (score.neurons >= 0))
            for one, score in zip(keep, self.scores, strict=True)
        ]
        pruned = self.encoder.copy()
        remove(pruned, keep)
        if self.settings.refit and any((~one.heads).any() or (~one.neurons).any() for one in keep):
            num_tokens = refit(self.encoder, pruned, keep, self.rows, self.settings.ridge, self.bench.progress)
            widest = max(int(one.neurons.sum()) for one in keep)
            if num_tokens < FEW * widest:
                self.bench.note(
                    f"few calibration texts for the refit: {num_tokens} tokens for {widest} neurons, so it was pulled "
                    "ten times as hard to the given weights; more texts would serve"
                )
        if num_neurons is not None:
            wanted = replace(pruned.shape, intermediate_size=num_neurons)
            # A layer may have fewer left than the others: zeros fill it up.
            pruned = thin(pruned, wanted, [_numbers(one.neurons, num_neurons) for one in keep])
        return pruned, keep


def _numbers(there: Tensor, number: int) -> Tensor:
    """The numbers of the neurons that are there, and of as many others as make `number`, in their order."""
    return torch.argsort(there.int(), descending=True, stable=True)[:number].sort().values


def prune(encoder: Encoder, settings: PruneSettings, bench: Workbench) -> Encoder:
    """The encoder with zeros in the place of the units that went, and the rest refitted.

    Raises:
        CheckFailed: scores or states that are not finite.
        UserError: as `Pruning.of`.
    """
    pruning = Pruning.of(encoder, settings, bench)
    pruned, keep = pruning.at(settings.share)
    bench.note(summary(keep, pruning.costs, uniform=settings.uniform))
    if settings.refit:
        number = sum(len(row["input_ids"]) for row in pruning.rows)
        bench.note(
            f"each output projection was refitted to the unpruned layer's on {len(pruning.rows)} training texts of "
            f"{number} tokens"
        )
    return pruned


def summary(keep: Sequence[Units], costs: UnitCosts, *, uniform: bool) -> str:
    """What is left, as a sentence."""
    whole = [Units(one.heads | True, one.neurons | True) for one in keep]
    share = units.format(costs.of_units(keep) / costs.of_units(whole), "fraction")
    heads, neurons = (", ".join(str(int(getattr(one, name).sum())) for one in keep) for name in ("heads", "neurons"))
    return (
        f"{share} of the layers' multiply-adds are left; by layer: heads {heads} of {len(keep[0].heads)}, neurons "
        f"{neurons} of {len(keep[0].neurons)}; "
        + ("heads that went" if uniform else "the rest")
        + " are zeros, which `export` leaves out"
    )


def _rows(encoder: Encoder, texts: Split, settings: PruneSettings, bench: Workbench) -> TokenizedRows:
    """The texts as rows, with labels where they are asked for."""
    limit = min(bench.max_length or encoder.max_length, encoder.max_length)
    read = texts if settings.labels else replace(texts, labels=None)
    name = bench.texts.name if bench.texts is not None else ""
    encoded = encode(encoder.task, encoder.tokenizer, read, limit, encoder.labels, name, encoder.prompt)
    return TokenizedRows(encoded.rows, encoded.labels)
