"""Heads and neurons that can say nothing, left out while a graph is made of the encoder.

A stock checkpoint holds zeros in their place (see `model.units`), whoever made them; a graph has no configuration that
all layers must agree with, so each layer keeps as many as say something. One head and one neuron stay where none does:
`onnx_graph.zero_products` takes such a sub-layer out of the graph as a whole.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bertshrink.model.units import Units, layers_of, num_attention_units, present, touching

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder

_COUNTS = ("num_attention_heads", "num_heads", "n_heads")
_WIDTHS = ("all_head_size",)


def units_left(encoder: Encoder) -> list[Units]:
    """Which units of each layer are written: those that say something, and one of each kind at least."""

    def at_least_one(there: Tensor) -> Tensor:
        return there if there.any() else torch.arange(len(there)) == 0

    return [one.map(at_least_one) for one in present(encoder)] if encoder.anatomy.layer is not None else []


@contextmanager
def without_removed_units(encoder: Encoder) -> Iterator[None]:
    """While it is open, the encoder's layers have the units alone that say something, and give the same numbers."""
    left = units_left(encoder)
    names = encoder.anatomy.layer
    with ExitStack() as stack:
        for layer, of_layer in zip(layers_of(encoder) if left else [], left, strict=True):
            assert names is not None
            if of_layer.heads.all() and of_layer.neurons.all():
                continue
            for parameter, axis, stays in list(touching(layer, names, of_layer)):
                stack.enter_context(_sliced(parameter, axis, stays))
            if not of_layer.heads.all():
                attention = layer.get_submodule(names.query.rpartition(".")[0])
                stack.enter_context(_fewer_heads(attention, of_layer.heads, encoder))
        yield


def note_on(encoder: Encoder) -> str:
    """How many units the graph does without, as a sentence; empty: none."""
    there = present(encoder) if encoder.anatomy.layer is not None else []
    heads, neurons = (
        [(int(getattr(one, name).sum()), len(getattr(one, name))) for one in there] for name in ("heads", "neurons")
    )
    if all(number == of for number, of in heads + neurons):
        return ""
    shown = [", ".join(str(number) for number, _ in counts) for counts in (heads, neurons)]
    return (
        f"heads and neurons that are all zeros are left out; by layer the file has {shown[0]} of {heads[0][1]} heads "
        f"and {shown[1]} of {neurons[0][1]} neurons"
    )


@contextmanager
def _sliced(parameter: nn.Parameter, axis: int, stays: Tensor) -> Iterator[None]:
    """A parameter with some of its rows or columns."""
    whole = parameter.data
    parameter.data = whole.index_select(axis, stays.nonzero().flatten()).contiguous()
    try:
        yield
    finally:
        parameter.data = whole


@contextmanager
def _fewer_heads(attention: Any, heads: Tensor, encoder: Encoder) -> Iterator[None]:
    """An attention's own counts, what it adds for each head, and projections of distances, for the heads that stay."""
    share = encoder.shape.num_heads // num_attention_units(encoder.shape)
    stays = heads.repeat_interleave(share)
    numbers = {name: int(stays.sum()) for name in _COUNTS if hasattr(attention, name)}
    numbers |= {
        name: getattr(attention, name) * int(stays.sum()) // len(stays) for name in _WIDTHS if hasattr(attention, name)
    }
    before = {name: getattr(attention, name) for name in numbers}
    with ExitStack() as stack:
        if encoder.anatomy.attention == "distance-bias":
            hook = attention.register_forward_pre_hook(
                _with_bias_of(attention, stays.nonzero().flatten()), with_kwargs=True
            )
            stack.callback(hook.remove)
        for name in ("pos_key_proj", "pos_query_proj"):
            if (dense := getattr(attention, name, None)) is not None:
                each = stays.repeat_interleave(dense.weight.shape[0] // len(stays))
                for parameter in dense.parameters():
                    stack.enter_context(_sliced(parameter, 0, each))
        for name, value in numbers.items():
            setattr(attention, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(attention, name, value)


def _with_bias_of(attention: Any, heads: Tensor) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """What is added to scores (B, heads, L, L), of some heads."""
    takes = inspect.signature(attention.forward)

    def give(module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound = takes.bind(*args, **given)
        bias = bound.arguments.get("position_bias")
        if bias is not None:
            bound.arguments["position_bias"] = bias.index_select(1, heads)
        return bound.args, bound.kwargs

    return give
