"""Refit: what is left of each output projection makes up for what went, layer by layer from the front, in closed form.

The projection's kept columns W and its bias b become those that give, of the pruned model's own inputs x, what the
unpruned layer gives of its inputs, y:

    minimize  sum over tokens |y - (W + D) x - (b + d)|^2 + ridge * mean |x|^2 * |D|^2

The normal equations of each batch are added up in float64, so that memory does not grow with the texts. A layer that is
done answers from memory, which is one state for each token and model: each text goes through each layer a few times,
however many there are. Layers that share weights are fitted once, to all their uses together.

N tokens, I inputs kept, H hidden size
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bertshrink.errors import CheckFailed
from bertshrink.model.batches import Row, batch_by_length, tensors
from bertshrink.model.units import Units, layers_of

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.progress import Progress

_TOKENS_PER_BATCH = 4096
FEW = 2
"""Tokens for each input below which the pull to the given weights is ten times as strong."""


class _SeenEnoughError(Exception):
    """The forward pass has come to where the numbers are."""


@dataclass
class NormalEquations:
    """Sums of a least-squares problem with an intercept.

    Args:
        num_inputs: I.
        num_outputs: H.
    """

    num_inputs: int
    num_outputs: int
    moment: Tensor = field(init=False)
    target: Tensor = field(init=False)
    num_tokens: int = 0

    def __post_init__(self) -> None:
        self.moment = torch.zeros(self.num_inputs + 1, self.num_inputs + 1, dtype=torch.float64)
        self.target = torch.zeros(self.num_inputs + 1, self.num_outputs, dtype=torch.float64)

    def add(self, inputs_NI: Tensor, missing_NH: Tensor) -> None:
        """Take tokens in: their inputs, and what their outputs lack."""
        with_one = torch.cat([inputs_NI, inputs_NI.new_ones(len(inputs_NI), 1)], dim=1)
        self.moment += with_one.T @ with_one
        self.target += with_one.T @ missing_NH
        self.num_tokens += len(inputs_NI)

    def solve(self, ridge: float) -> tuple[Tensor, Tensor]:
        """(H, I) and (H,), what is added to the weights and the bias; `ridge` over the mean square of an input.

        Raises:
            CheckFailed: the numbers are not finite.
        """
        moment = self.moment.clone()
        square = moment.diagonal()[:-1].mean() if self.num_inputs else torch.zeros(())
        # An input that is always 0 asks for nothing, and must not make the equations singular.
        moment.diagonal()[:-1] += ridge * square + torch.finfo(torch.float64).tiny ** 0.5
        if not (moment.isfinite().all() and self.target.isfinite().all()):
            raise CheckFailed("the states of the layers are not finite", hint="look for NaN in the model's weights")
        solved = torch.cholesky_solve(self.target, torch.linalg.cholesky(moment))
        return solved[:-1].T, solved[-1]


@torch.no_grad()
def refit(
    given: Encoder, pruned: Encoder, keep: Sequence[Units], rows: Sequence[Row], ridge: float, progress: Progress
) -> int:
    """Fit the output projections of `pruned`, in place, to what those of `given` give; returns the number of tokens.

    Args:
        keep: which units `pruned` still has, as booleans.
        rows: calibration texts.

    Raises:
        CheckFailed: states that are not finite.
    """
    names, shape = given.anatomy.layer, given.shape
    assert names is not None
    batches = [
        tensors([rows[at] for at in batch])
        for batch in batch_by_length([len(row["input_ids"]) for row in rows], _TOKENS_PER_BATCH)
    ]
    sides = (_Resumed(given), _Resumed(pruned))
    num_tokens = 0
    with progress.task("refit", 2 * shape.num_groups, "projections") as task, sides[0].open(), sides[1].open():
        for number, kept in enumerate(keep):
            for path, stays in ((names.mix, kept.heads), (names.narrow, kept.neurons)):
                dense: Any = sides[1].layers[number].get_submodule(path)
                wanted = sides[0].layers[number].get_submodule(path)
                size = dense.weight.shape[1] // len(stays)
                columns = stays.repeat_interleave(size).nonzero().flatten()
                found = NormalEquations(len(columns), dense.weight.shape[0])
                for at, batch in enumerate(batches):
                    theirs, mine = (
                        sides[0].outputs(wanted, number, at, batch),
                        sides[1].outputs(dense, number, at, batch),
                    )
                    for (_, want_NH), (inputs_NA, have_NH) in zip(theirs, mine, strict=True):
                        found.add(inputs_NA[:, columns], want_NH - have_NH)
                num_tokens = found.num_tokens
                few = num_tokens < FEW * len(columns)
                added_HI, added_H = found.solve(ridge * (10 if few else 1))
                dense.weight[:, columns] += added_HI.to(dense.weight.dtype)
                if dense.bias is not None:
                    dense.bias += added_H.to(dense.bias.dtype)
                task.advance()
            for side in sides:
                side.finish(number, batches)
    return num_tokens


class _Resumed:
    """A model whose first layers answer from memory.

    Layers that share weights are run again each time: a layer's second use hangs on the first.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.layers = layers_of(encoder)
        self.is_shared = encoder.anatomy.is_shared
        self.answers: dict[int, Any] = {}
        self.done = 0
        self.batch = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """While it is open, layers that are done answer from memory."""
        try:
            yield
        finally:
            for layer in self.layers[: self.done]:
                layer.__dict__.pop("forward", None)

    def outputs(self, dense: nn.Module, number: int, at: int, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Inputs (N, A) and outputs (N, H) of a dense layer at the tokens of a batch, once for each of its uses."""
        seen: list[tuple[Tensor, Tensor]] = []
        is_token_BL = batch["attention_mask"].bool()

        def keep(module: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
            seen.append((given[0][is_token_BL], out[is_token_BL]))
            if not self.is_shared:
                raise _SeenEnoughError

        handle = dense.register_forward_hook(keep)
        try:
            self._run(at, batch)
        finally:
            handle.remove()
        return seen

    def finish(self, number: int, batches: list[dict[str, Tensor]]) -> None:
        """Keep what a layer answers to each batch: it does not change any more."""
        if self.is_shared:
            return
        answers: dict[int, Any] = {}

        def keep(module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            answers[self.batch] = out
            raise _SeenEnoughError

        handle = self.layers[number].register_forward_hook(keep)
        try:
            for at, batch in enumerate(batches):
                self._run(at, batch)
        finally:
            handle.remove()
        self.answers, self.done = answers, number + 1
        # What layers before the last one that is done answer is read by nobody.
        self.layers[number].__dict__["forward"] = self._from_memory()
        for layer in self.layers[:number]:
            layer.__dict__["forward"] = self.layers[number].__dict__["forward"]

    def _from_memory(self) -> Callable[..., Any]:
        return lambda *args, **kwargs: self.answers[self.batch]

    def _run(self, at: int, batch: dict[str, Tensor]) -> None:
        self.batch = at
        with suppress(_SeenEnoughError):
            self.encoder.model(**batch)
