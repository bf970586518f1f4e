"""The units of an encoder's layers, attention heads and feed-forward neurons: factors on them, and which are there.

A unit speaks through an output projection: a head through its columns of `mix`, a neuron through its column of
`narrow`. A factor on these inputs turns it down or off, in any implementation of attention. A unit is gone where it can
say nothing: its columns are zero. `remove` makes zeros of all that touches it, which a stock checkpoint can hold.

Heads that share keys and values (EuroBERT) are one unit. Layers that share weights (ALBERT) are one entry, and a factor
counts for all their uses.

B batch, A attention units, D width of one at `mix`, N neurons
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from bertshrink.errors import CheckFailed

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.family import LayerNames
    from bertshrink.model.sizes.encoder_dims import EncoderDims


@dataclass(frozen=True)
class Units:
    """One number for each unit of a layer, or of a group that shares weights: a factor, a score, whether it is there.

    Attributes:
        heads: (A,), or (B, A) where each row of a batch has its own.
        neurons: (N,), or (B, N).
    """

    heads: Tensor
    neurons: Tensor

    def map(self, function: Callable[[Tensor], Tensor]) -> Units:
        """The same with a function of both."""
        return Units(function(self.heads), function(self.neurons))


def num_attention_units(shape: EncoderDims) -> int:
    """A: heads, or sets of heads with keys and values in common."""
    return shape.num_key_value_heads or shape.num_heads


def layers_of(encoder: Encoder) -> list[nn.Module]:
    """The layers, or the groups' layers, of an encoder."""
    return [
        encoder.model.get_submodule(f"{encoder.prefix}{encoder.anatomy.path_of_layer(number)}")
        for number in range(encoder.shape.num_groups)
    ]


def ones(encoder: Encoder, *rows: int) -> list[Units]:
    """The factor 1 for every unit of every layer; `rows`: of each row of a batch."""
    shape = encoder.shape
    return [
        Units(torch.ones(*rows, num_attention_units(shape)), torch.ones(*rows, shape.intermediate_size))
        for _ in range(shape.num_groups)
    ]


@contextmanager
def scaled(encoder: Encoder, factors: Sequence[Units]) -> Iterator[None]:
    """While it is open, what each unit gives is multiplied with its factor."""
    names = _names(encoder)
    handles = [
        layer.get_submodule(path).register_forward_pre_hook(_times(factor))
        for layer, of_layer in zip(layers_of(encoder), factors, strict=True)
        for path, factor in ((names.mix, of_layer.heads), (names.narrow, of_layer.neurons))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _times(factor: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def multiply(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        states = given[0]
        each = factor.repeat_interleave(states.shape[-1] // factor.shape[-1], dim=-1).to(states.dtype)
        return (states * (each[:, None, :] if each.ndim == 2 else each), *given[1:])

    return multiply


def present(encoder: Encoder) -> list[Units]:
    """Which units can say something, as booleans: what goes into them and what comes out is not all zero."""
    names, num_units = _names(encoder), num_attention_units(encoder.shape)
    is_off_at_zero = ACT2FN[activation(encoder)](torch.zeros(())) == 0
    silent = {"value": "heads", "mix": "heads", "narrow": "neurons", "gate": "neurons", "widen": "neurons"}
    if names.gate is None and not is_off_at_zero:
        del silent["widen"]
    if names.gate is not None and not is_off_at_zero:
        del silent["gate"]
    there = []
    for layer in layers_of(encoder):
        speaks = {
            "heads": torch.ones(num_units, dtype=torch.bool),
            "neurons": torch.ones(encoder.shape.intermediate_size, dtype=torch.bool),
        }
        for path, roles in names.modules().items():
            module: Any = layer.get_submodule(path)
            for at, role in enumerate(roles):
                if role not in silent:
                    continue
                units = speaks[silent[role]]
                if role in ("mix", "narrow"):
                    said = module.weight.any(dim=0)
                else:
                    said = module.weight.any(dim=1).chunk(len(roles))[at]
                    if module.bias is not None:
                        said = said | (module.bias != 0).chunk(len(roles))[at]
                units &= said.unflatten(0, (len(units), -1)).any(dim=1)
        there.append(Units(speaks["heads"], speaks["neurons"]))
    return there


def activation(encoder: Encoder) -> str:
    """The name of the activation of an encoder's neurons."""
    row = encoder.anatomy
    return str(getattr(encoder.model.config, row.field("hidden_act"), row.default_activation))


@torch.no_grad()
def remove(encoder: Encoder, keep: Sequence[Units]) -> None:
    """Make zeros, in place, of every row, column and bias of the units that are not to be kept.

    Args:
        keep: booleans.
    """
    names = _names(encoder)
    for layer, of_layer in zip(layers_of(encoder), keep, strict=True):
        for weight, axis, stays in touching(layer, names, of_layer):
            weight.index_fill_(axis, (~stays).nonzero().flatten(), 0.0)


def touching(layer: nn.Module, names: LayerNames, units: Units) -> Iterator[tuple[nn.Parameter, int, Tensor]]:
    """Each parameter of a layer that units touch, the axis, and each place's unit's number in `units`."""
    of_roles = {"query": units.heads, "key": units.heads, "value": units.heads}
    of_roles |= {"widen": units.neurons, "gate": units.neurons}
    for path, roles in names.modules().items():
        module: Any = layer.get_submodule(path)
        if roles[0] in of_roles:
            size = module.weight.shape[0] // len(roles)
            spread = [of_roles[role].repeat_interleave(size // len(of_roles[role])) for role in roles]
            for parameter in (module.weight, module.bias):
                if parameter is not None:
                    yield parameter, 0, torch.cat(spread)
        elif roles[0] in ("mix", "narrow"):
            each = units.heads if roles[0] == "mix" else units.neurons
            yield module.weight, 1, each.repeat_interleave(module.weight.shape[1] // len(each))


def _names(encoder: Encoder) -> LayerNames:
    names = encoder.anatomy.layer
    assert names is not None, "a family whose layers are of another kind was refused before"
    return names


@contextmanager
def held_at_zero(encoder: Encoder) -> Iterator[None]:
    """While it is open, a training of the encoder leaves the units that are gone alone.

    Most losses could not bring them back, whose gradients there are zero; those on queries, keys and values could.

    Raises:
        CheckFailed: when it closes: one has come back.
    """
    if encoder.anatomy.layer is None or all(bool(one.heads.all() and one.neurons.all()) for one in present(encoder)):
        yield
        return
    keep, names = present(encoder), encoder.anatomy.layer
    remove(encoder, keep)  # what could say nothing anyway, and would learn to
    handles = []
    for layer, of_layer in zip(layers_of(encoder), keep, strict=True):
        for weight, axis, stays in touching(layer, names, of_layer):
            shape = [-1 if at == axis else 1 for at in range(weight.ndim)]
            hook: Any = weight.register_hook  # untyped
            handles.append(hook(_masked(stays.view(shape))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    for before, after in zip(keep, present(encoder), strict=True):
        if (after.heads & ~before.heads).any() or (after.neurons & ~before.neurons).any():
            raise CheckFailed("training has brought pruned heads or neurons back", hint="train without FSDP")


def _masked(stays: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda gradient: gradient * stays.to(gradient.dtype)
