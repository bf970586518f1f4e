"""A table of word embeddings while it learns alone: `row_t = d_t + x_t A`.

`x_t` (E) is the teacher's own row of the token, `A` (E, K) is learnt by all tokens together and begins at zero, `d_t`
(K) is the token's own and begins as the table was given. A table that learns row by row leaves the rows behind that the
texts seldom have, while the projection behind it follows the others; through `A` what frequent tokens find out about
their teacher's rows moves the rare ones, too. Afterwards the sum is a table as before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bertshrink.model.encoder import Encoder


class Codes(nn.Module):
    """In place of a table of word embeddings.

    Args:
        rows_VK: the table as given.
        contexts_VE: the rows of the teacher; they stay as they are, and are scaled to the table's root mean square, so
            that one learning rate suits both parts.
    """

    def __init__(self, rows_VK: Tensor, contexts_VE: Tensor) -> None:
        super().__init__()
        self.own_VK = nn.Parameter(rows_VK.detach().clone())
        self.shared_EK = nn.Parameter(rows_VK.new_zeros(contexts_VE.shape[1], rows_VK.shape[1]))
        scale = rows_VK.detach().square().mean().sqrt() / contexts_VE.detach().square().mean().sqrt().clamp(min=1e-12)
        self.register_buffer("contexts_VE", contexts_VE.detach() * scale, persistent=False)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """(B, L, K) the rows of the tokens."""
        contexts: Tensor = nn.functional.embedding(ids_BL, self.get_buffer("contexts_VE"))
        return nn.functional.embedding(ids_BL, self.own_VK) + contexts @ self.shared_EK

    @torch.no_grad()
    def table(self) -> Tensor:
        """(V, K) the table that this is the sum of."""
        return self.own_VK + self.get_buffer("contexts_VE") @ self.shared_EK


class Coded:
    """A student whose word embeddings are `Codes` for a while.

    Args:
        teacher: whose rows are the contexts; with another vocabulary, the student's own rows are.
    """

    def __init__(self, student: Encoder, teacher: Encoder) -> None:
        self.model: Any = student.model
        self.table: Any = self.model.get_input_embeddings()
        contexts: Any = teacher.model.get_input_embeddings()
        same = contexts.weight.shape[0] == self.table.weight.shape[0]
        self.codes = Codes(self.table.weight, (contexts if same else self.table).weight)

    def __enter__(self) -> Codes:
        self.model.set_input_embeddings(self.codes)
        return self.codes

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            self.table.weight.copy_(self.codes.table())
        self.model.set_input_embeddings(self.table)
