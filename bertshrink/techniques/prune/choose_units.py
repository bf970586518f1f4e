"""Which units stay: those that are worth the most for what they cost, until the budget is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bertshrink.errors import CheckFailed
from bertshrink.model.sizes.encoder_dims import EncoderDims
from bertshrink.model.units import Units, num_attention_units


@dataclass(frozen=True)
class UnitCosts:
    """Multiply-adds for each token, which are parameters of dense products, too.

    Attributes:
        head: of an attention unit's queries, keys, values and output projection.
        neuron: of a neuron.
    """

    head: int
    neuron: int

    @classmethod
    def of(cls, shape: EncoderDims) -> UnitCosts:
        """Of a model of these sizes."""
        attention = 2 * shape.hidden_size * (shape.attention_size + shape.key_value_size)
        return cls(attention // num_attention_units(shape), shape.num_wide * shape.hidden_size)

    def of_units(self, units: Sequence[Units]) -> int:
        """Of all units that are there."""
        return sum(
            self.head * int(of_layer.heads.sum()) + self.neuron * int(of_layer.neurons.sum()) for of_layer in units
        )


def choose_units(
    scores: Sequence[Units], costs: UnitCosts, share: float, num_neurons: int | None = None
) -> list[Units]:
    """The units to keep, as booleans: the best by score over cost, of all layers, within `share` of the whole cost.

    A unit that does not fit any more is passed over, and cheaper ones that follow may still do. Of equal ones those of
    earlier layers stay.

    Args:
        num_neurons: of every layer; None: as many as are worth it. Heads are chosen for what is left of the budget.

    Raises:
        CheckFailed: the scores are not finite.
    """
    if num_neurons is not None:
        heads = choose_units(
            [Units(one.heads, one.neurons[:0]) for one in scores],
            costs,
            _left_for_heads(scores, costs, share, num_neurons),
        )
        return [Units(of.heads, _best(one.neurons, num_neurons)) for of, one in zip(heads, scores, strict=True)]
    values = torch.cat([torch.cat([one.heads / costs.head, one.neurons / costs.neuron]) for one in scores]).double()
    if not values.isfinite().all():
        raise CheckFailed(
            "the importance of heads and neurons is not finite", hint="look for NaN in the model's outputs"
        )
    each = torch.cat(
        [torch.tensor([costs.head] * len(one.heads) + [costs.neuron] * len(one.neurons)) for one in scores]
    )
    budget, kept = share * float(each.sum()) + 1e-6, torch.zeros(len(values), dtype=torch.bool)
    for at in torch.argsort(values, descending=True, stable=True).tolist():
        if each[at] <= budget:
            budget -= float(each[at])
            kept[at] = True
    sizes = [size for one in scores for size in (len(one.heads), len(one.neurons))]
    parts = torch.split(kept, sizes)
    return [Units(heads, neurons) for heads, neurons in zip(parts[::2], parts[1::2], strict=True)]


def _left_for_heads(scores: Sequence[Units], costs: UnitCosts, share: float, num_neurons: int) -> float:
    """The share of all heads that the budget leaves when the neurons are chosen."""
    heads, neurons = (
        sum(len(getattr(one, name)) for one in scores) * cost
        for name, cost in (("heads", costs.head), ("neurons", costs.neuron))
    )
    return max(0.0, min(1.0, (share * (heads + neurons) - len(scores) * num_neurons * costs.neuron) / heads))


def _best(scores: Tensor, number: int) -> Tensor:
    """Which are among the highest, as booleans; of equal ones the first."""
    best = torch.argsort(scores, descending=True, stable=True)[:number]
    return torch.zeros(len(scores), dtype=torch.bool).index_fill(0, best, value=True)
