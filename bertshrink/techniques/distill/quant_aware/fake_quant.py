"""A student that computes, while it learns, as it will after `quantize`: quantization-aware distillation.

Every dense layer multiplies with its weight as few bits hold it, and in int8 reads an input as 8 bits hold it, too; an
embedding table gives its rows as few bits hold them (see `rounding`). Gradients pass straight through to float weights,
which add up the steps that are too small for the grid. The teacher stays in float.

What is kept is a stock float checkpoint that gives what was trained once it is exported and quantized:

    int8    the float weights, which `quantize` rounds as they were rounded here, to the last bit
    int4    the rounded ones: `quantize` looks for better scales than the plain ones here, and rounds each input with
            regard to the others (GPTQ). Of weights on a grid it finds that grid again; float ones it would round to
            another model than the one that learnt (SST-2, cosine to the teacher: 0.9970 trained, 0.9969 from rounded
            weights, 0.9961 and with GPTQ 0.9968 from float ones).

    Q8BERT, arXiv:1910.06188       8 bits in training; there with ranges averaged over batches, here each batch's own
    TernaryBERT, arXiv:2009.12812  the float model teaches the rounded one, by answers and hidden states

Steps that are learnt (LSQ, arXiv:1902.08153) are left out: `quantize` takes its own from the weights, and would throw
them away. Left in float is what `quantize` leaves so: norms, biases, attention's two products, tables of a few rows.

The modules of the model change their class for the time being and keep their parameters. So names in checkpoints, ties
between weights, hooks and copies stay what they are, and nothing has to be taken over at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from bertshrink.errors import CheckFailed
from bertshrink.model.encoder import Encoder
from bertshrink.model.sizes.components import component_of
from bertshrink.model.sizes.size_estimate import MIN_INT4_OUTPUTS, MIN_TABLE_ROWS
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.distill.quant_aware.rounding import by_block, int4_rows, int8_rows, rounded, uint8_tensor

Bits = Literal["int8", "int4"]
BLOCK_SIZE = 32
"""Values of a row that share a scale in int4 where nothing else is said; what `quantize` takes, too."""


class Rounding:
    """How the modules of one model round, and what they have rounded since its forward pass began.

    Args:
        bits: of the weights; with int8 activations are rounded as well.
        block: with int4, values of a row that share a scale.
        keeps: whether a weight is rounded once for all who use it in one forward pass. Where weights are in pieces on
            several devices they are whole only while their own layer runs, and each use rounds again.
    """

    def __init__(self, bits: Bits, block: int, *, keeps: bool) -> None:
        self.bits = bits
        self.block = block
        self.keeps = keeps
        self._weights: dict[int, Tensor] = {}
        self._last: tuple[Tensor, Tensor] | None = None

    def __deepcopy__(self, memo: object) -> Rounding:
        """One for a copy of the model: with the same rule, and nothing rounded yet."""
        return Rounding(self.bits, self.block, keeps=self.keeps)

    def forget(self, *_: Any) -> None:
        """A forward pass begins."""
        self._weights.clear()
        self._last = None

    def rule(self, *, is_narrow: bool = False) -> Callable[[Tensor], Tensor]:
        """How a weight's rows are rounded; `is_narrow`: a dense layer with few outputs."""
        if self.bits == "int8":
            return int8_rows
        return partial(by_block, block=self.block, rule=int8_rows if is_narrow else int4_rows)

    def weight(self, weight_OI: Tensor) -> Tensor:
        """A dense layer's weight, rounded."""
        rounded_OI = self._weights.get(id(weight_OI))
        if rounded_OI is None:
            rule = self.rule(is_narrow=len(weight_OI) < MIN_INT4_OUTPUTS)
            rounded_OI = rounded(weight_OI, rule)
            if self.keeps:
                self._weights[id(weight_OI)] = rounded_OI
        return rounded_OI

    def rows(self, rows_BLE: Tensor) -> Tensor:
        """Rows of a table that were looked up, rounded; each by itself, so that the rest of the table can wait."""
        return rounded(rows_BLE, self.rule())

    def activation(self, values: Tensor) -> Tensor:
        """What a dense layer reads; query, key and value read the same one, rounded once."""
        if self.bits != "int8":
            return values
        if self._last is None or self._last[0] is not values:
            self._last = values, rounded(values, uint8_tensor)
        return self._last[1]


class RoundedLinear(nn.Linear):
    """A dense layer whose weight and input are rounded."""

    rounding: Rounding

    def forward(self, input: Tensor) -> Tensor:  # as nn.Linear names it
        """(..., I) to (..., O)."""
        return linear(self.rounding.activation(input), self.rounding.weight(self.weight), self.bias)


class RoundedEmbedding(nn.Embedding):
    """A table whose rows are rounded."""

    rounding: Rounding

    def forward(self, input: Tensor) -> Tensor:  # as nn.Embedding names it
        """(B, L) ids to (B, L, E) rows."""
        return self.rounding.rows(super().forward(input))


_ROUNDED: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: RoundedLinear, nn.Embedding: RoundedEmbedding}


@dataclass(frozen=True)
class RoundedWeights:
    """What of a model is rounded: distinct weights, one that is shared or tied counted once in each column.

    Attributes:
        dense: weights of dense layers.
        tables: embedding tables.
        parameters: numbers in all of them.
        bits: of each, and the size of its blocks where it has some.
    """

    dense: int
    tables: int
    parameters: int
    bits: str

    def sentence(self) -> str:
        """What the report says."""
        if self.bits == "int8":
            rest = ", and so was the input of each layer; the float weights were kept, and these figures are theirs"
        else:
            rest = "; the rounded weights were kept, in float"
        return (
            f"fake quantization: in every forward pass {self.dense} weights of dense layers "
            f"and {self.tables} embedding tables ({self.parameters} numbers) were rounded to {self.bits}{rest}"
        )


class FakeQuant:
    """While it is open, the student computes with rounded weights, in training and where it is judged.

    Args:
        student: its modules are changed in place, and changed back.
        bits: of the weights.
        block: with int4, values of a row that share a scale.
        is_sharded: whether a copy of it is trained whose weights are in pieces.

    Raises:
        CheckFailed: a matrix of the model is in no module that can be rounded.
    """

    def __init__(self, student: Encoder, bits: Bits, block: int | None = None, *, is_sharded: bool = False) -> None:
        self.model: nn.Module = student.model
        self.rounding = Rounding(bits, block or BLOCK_SIZE, keeps=not is_sharded)
        self.modules: list[Any] = _modules(student)
        blocks = f" in blocks of {self.rounding.block}" if bits == "int4" else ""
        self.rounded_weights = _rounded_weights(student, self.modules, bits + blocks)

    def __enter__(self) -> RoundedWeights:
        for module in self.modules:
            module.__class__ = _ROUNDED[type(module)]
            module.rounding = self.rounding  # no module, and no part of a checkpoint
        self.hook = self.model.register_forward_pre_hook(self.rounding.forget)
        return self.rounded_weights

    @torch.no_grad()
    def settle(self) -> None:
        """Put rounded weights in place of float ones where `quantize` would not round those as it was done here."""
        if self.rounding.bits == "int8":
            return
        self.rounding.forget()
        for module in {id(module.weight): module for module in self.modules}.values():
            rule = self.rounding.rows if isinstance(module, nn.Embedding) else self.rounding.weight
            module.weight.copy_(rule(module.weight))

    def __exit__(self, *_: object) -> None:
        self.hook.remove()
        plain = {changed: given for given, changed in _ROUNDED.items()}
        for module in self.modules:
            module.__class__ = plain[type(module)]
            del module.rounding
        self.rounding.forget()


def _modules(student: Encoder) -> list[Any]:
    """The modules that `quantize` will turn into integers."""
    inner = [
        module
        for name, module in student.model.named_modules()
        if type(module) in _ROUNDED and not _is_left(student, f"{name}.weight", module.weight)
    ]
    behind = student.layers.modules() if student.layers is not None else ()
    return [*inner, *(module for module in behind if type(module) in _ROUNDED)]


def _is_left(student: Encoder, name: str, weight: Any) -> bool:
    """Whether a matrix stays in float: a table of a few rows, or a pooler that no sentence vector is made of."""
    component = component_of(student.anatomy, name)
    if component == "pooler":
        return TASKS[student.task].is_vector
    return "embeddings." in name and len(weight) < MIN_TABLE_ROWS


def _rounded_weights(student: Encoder, modules: list[Any], bits: str) -> RoundedWeights:
    dense = {id(one.weight): one.weight for one in modules if isinstance(one, nn.Linear)}
    tables = {id(one.weight): one.weight for one in modules if isinstance(one, nn.Embedding)}
    distinct = dense | tables
    for name, parameter in student.model.named_parameters():
        if parameter.ndim == 2 and id(parameter) not in distinct and not _is_left(student, name, parameter):
            raise CheckFailed(f"`{name}` is multiplied by no module that can be fake-quantized")
    return RoundedWeights(len(dense), len(tables), sum(one.numel() for one in distinct.values()), bits)
