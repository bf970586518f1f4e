"""AdamW, with tables of which a step touches few rows by whitened row-wise Adagrad.

Adam's moments suit a row badly that comes by once in a hundred steps: the second one has decayed, the first one goes on
pushing after the row is gone, and each number of a row is scaled by itself although all rows share their directions.
Here the gradients of a table's rows are whitened together: multiplied with `C^(-1/2)`, `C` their running second moment
(one side of Shampoo, arXiv:1802.09568), and then each is divided by the root of its own row's sum of squares (Adagrad).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bertshrink.training.optim.sparse_adamw import RowSparseAdamW, rows_of

TABLE_STEP = 10.0
"""A table's learning rate, in those of the rest."""
EVERY = 20
"""Steps between two computations of the whitening matrix."""
_DECAY = 0.98
_FLOOR = 1e-6


class WhitenedRowAdagrad(RowSparseAdamW):
    """Whitened row-wise Adagrad for `tables`, AdamW for all else.

    Args:
        tables: (V, K) each; rows without a gradient stay as they are.
        decayed: other parameters, with weight decay.
        rest: all others, without it, as the tables are.
        learning_rate: of the others; the tables' is `TABLE_STEP` times it.
        weight_decay: decoupled.
    """

    def __init__(
        self,
        tables: Sequence[nn.Parameter],
        decayed: Sequence[nn.Parameter],
        rest: Sequence[nn.Parameter],
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": list(decayed), "is_table": False},
            {"params": list(rest), "is_table": False, "weight_decay": 0.0},
            {"params": list(tables), "is_table": True, "lr": TABLE_STEP * learning_rate},
        ]
        super().__init__(groups, learning_rate, weight_decay=weight_decay)

    def step_apart(self) -> None:
        """Step the tables."""
        for group in self.param_groups:
            for table in group["params"] if group["is_table"] else ():
                if table.grad is not None:
                    self._step_rows(table, group["lr"])
                    table.grad = None  # what is left is AdamW's

    def _step_rows(self, table: nn.Parameter, learning_rate: float) -> None:
        gradient_VK = table.grad
        assert gradient_VK is not None
        rows_N, given_NK = rows_of(gradient_VK)
        if not len(rows_N):
            return
        moment_KK = given_NK.T @ given_NK / len(rows_N)
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros(())  # on the CPU, where it is read
            state["moment"] = torch.zeros_like(moment_KK)
            state["whitening"] = torch.zeros_like(moment_KK)
            state["squares"] = table.new_zeros(table.shape[0], 1)
        count = int(state["step"])
        state["step"] += 1
        state["moment"].lerp_(moment_KK, max(1 - _DECAY, 1 / (count + 1)))
        if count < EVERY or count % EVERY == 0:
            state["whitening"] = whitening(state["moment"])
        white_NK = given_NK @ state["whitening"]
        state["squares"][rows_N] += white_NK.square().mean(1, keepdim=True)
        table[rows_N] -= learning_rate * white_NK / state["squares"][rows_N].sqrt().clamp(min=1e-12)


def whitening(moment_KK: Tensor) -> Tensor:
    """(K, K) the symmetric matrix after which vectors of that second moment are white, with a mean square of one."""
    values, vectors = torch.linalg.eigh(moment_KK.double())
    values = values.clamp(min=_FLOOR * max(float(values[-1]), torch.finfo(torch.float32).tiny))
    matrix_KK: Tensor = (vectors * values.rsqrt()) @ vectors.T
    return matrix_KK.to(moment_KK.dtype)
