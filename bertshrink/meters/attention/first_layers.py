"""Layers in front of the first one that is disturbed give what they gave before: they need not be run again.

Heads are disabled layer by layer on the same batches in the same order, so the outputs of one layer are kept, and the
layers up to it give those in place of computing them. That halves the work of disabling every head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder

MAX_BYTES = 512 << 20
"""Of kept outputs; where there are more, the layers are run again."""


class FirstLayers:
    """The first layers of an encoder, which may be skipped once their outputs are known.

    Layers that share weights are never skipped: hooks tell them apart by how often they were used.
    """

    def __init__(self, encoder: Encoder) -> None:
        family = encoder.anatomy
        numbers = () if family.is_shared else range(encoder.shape.num_layers)
        self.layers: list[Any] = [
            encoder.model.get_submodule(f"{encoder.prefix}{family.path_of_layer(number)}") for number in numbers
        ]
        self.number = 0
        self.outputs: list[Any] | None = None

    @contextmanager
    def skipped(self, number: int) -> Iterator[None]:
        """Skip the first `number` layers while the block runs, whose batches are those of every other such block.

        The first block for a number runs them all and keeps what it needs.
        """
        if not number or not self.layers:
            yield
        elif self.number == number and self.outputs is not None:
            with self._given(number, self.outputs):
                yield
        else:
            self.number, self.outputs = 0, None
            kept: list[Any] = []
            hook = self.layers[number - 1].register_forward_hook(lambda module, args, out: _keep(kept, out))
            try:
                yield
            finally:
                hook.remove()
            if kept and kept[-1] is not None:
                self.number, self.outputs = number, kept

    @contextmanager
    def _given(self, number: int, outputs: list[Any]) -> Iterator[None]:
        """The first layers give these outputs, batch by batch."""
        at = [0]

        def of_batch(is_last: bool) -> Callable[..., Any]:
            def forward(*args: Any, **given: Any) -> Any:
                output = outputs[at[0]]
                at[0] += is_last
                return output

            return forward

        for place, layer in enumerate(self.layers[:number]):
            layer.forward = of_batch(place == number - 1)
        try:
            yield
        finally:
            for layer in self.layers[:number]:
                del layer.forward


def _keep(kept: list[Any], out: Any) -> None:
    """Keep one batch's output; from the one on that is too much, nothing at all."""
    if kept and kept[-1] is None:
        return
    kept.append(out)
    if sum(_num_bytes(one) for one in kept) > MAX_BYTES:
        kept[:] = [None]


def _num_bytes(out: Any) -> int:
    tensors = out if isinstance(out, tuple) else (out,)
    return sum(one.nbytes for one in tensors if hasattr(one, "nbytes"))
