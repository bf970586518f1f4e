"""What a CPU trains faster in another way, with the same mathematics. Nothing of it stays in the model afterwards.

    attention    softmax(q k / sqrt(D)) v as two products of matrices. PyTorch's fused kernel keeps no matrix of length
                 by length, which decides at thousands of tokens; an encoder's texts are short, and there the kernel
                 takes longer, backward above all: 10 times as long in bfloat16 at 13 tokens (see `LONGEST`).
    dropout      16 random bits a number. PyTorch draws a double for each, in one thread: 8.6 ms a step, and now 2.
    tables       a step reads a few hundred rows of some ten thousand. Their gradient is kept as those rows (`optim`);
                 a whole one is new memory in every step, and the kernel's zeroing it was a fifth of the step.

Two cores of a Zen 4, batches of 32 texts, 13 tokens each, 12 heads of 32 (benchmarks/LOG.md).

Left alone: GPUs, whose kernels are made for it; steps that torch.compile makes, which chooses for itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from bertshrink.training.distributed import ranks

ATTENTION = "two_products"
"""The name under which transformers finds `attend`."""
LONGEST = {torch.bfloat16: 384, torch.float32: 64}
"""Tokens up to which two products are at least as fast as the fused kernel, forward and backward, by the type that is
multiplied. Measured at 8 to 384 tokens and heads of 32 and 64: bfloat16 1.4 to 11 times as fast; float32 1.8 times at
13 tokens, and level from 96 on, where the fused kernel saves memory."""
LARGE = 4096
"""Rows from which a table's gradient is kept by rows: below it the whole gradient fits in a cache."""
_LANES = 1 << 16


def attention(
    module: nn.Module,
    query_BALD: Tensor,
    key_BALD: Tensor,
    value_BALD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[Tensor, None]:
    """(B, L, A, D) what attention reads, as transformers asks for it; by the fused kernel where that is faster.

    Args:
        attention_mask: (B, 1, L or 1, L) True at what is attended; None: everything is.
        scaling: of the scores; None: 1 / sqrt(D).
    """
    size, heads, length, width = query_BALD.shape
    type_ = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query_BALD.dtype
    is_plain = attention_mask is None or attention_mask.dtype == torch.bool
    if query_BALD.is_cuda or not is_plain or key_BALD.shape != query_BALD.shape or length > LONGEST.get(type_, 0):
        options = {"dropout": dropout, "scaling": scaling} | more
        attended, _ = sdpa_attention_forward(module, query_BALD, key_BALD, value_BALD, attention_mask, **options)
        return attended, None
    scaling = width**-0.5 if scaling is None else scaling
    query, key, value = (x.reshape(size * heads, length, width) for x in (query_BALD * scaling, key_BALD, value_BALD))
    if attention_mask is None:
        scores = torch.bmm(query, key.transpose(1, 2))
    else:
        if attention_mask.stride(2) == 0:  # one row for all queries, repeated
            attention_mask = attention_mask[:, :, :1]
        hidden = torch.zeros(attention_mask.shape, dtype=query.dtype, device=query.device)
        hidden.masked_fill_(~attention_mask, torch.finfo(query.dtype).min)
        rows = hidden.expand(size, heads, -1, length).reshape(size * heads, -1, length)
        scores = torch.baddbmm(rows, query, key.transpose(1, 2))
    weights = nn.functional.dropout(scores.softmax(-1), dropout, module.training)
    attended = torch.bmm(weights, value).view(size, heads, length, width)
    return attended.transpose(1, 2).contiguous(), None


class FastDropout(nn.Dropout):
    """nn.Dropout from fewer random bits; `p` is met to 1 in 65,536, and the scale is that of the share that is met."""

    def forward(self, input: Tensor) -> Tensor:  # as nn.Dropout names it
        """The input, or while training what is left of it, scaled."""
        cut = round(self.p * _LANES)
        if not self.training or cut == 0:
            return input
        if cut == _LANES:
            return input * 0.0
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        lanes = words.view(torch.int16)[: input.numel()].view(input.shape)
        kept = (lanes >= cut - _LANES // 2).to(input.dtype)
        return input * kept.mul_(_LANES / (_LANES - cut))


@contextmanager
def with_cpu_kernels(student: Any, companions: Sequence[Any], *, compiled: bool) -> Iterator[None]:
    """While it is open, models compute as suits a CPU, if that is where they are trained.

    Args:
        student: learns; stock transformers.
        companions: compute for it, without gradients.
        compiled: whether torch.compile makes the step.
    """
    if torch.cuda.is_available() or compiled:
        yield
        return
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    models = [one for one in (student, *companions) if hasattr(one, "set_attn_implementation")]
    before = [one.config._attn_implementation for one in models]
    dropouts = [part for part in student.modules() if type(part) is nn.Dropout]
    # Processes average whole gradients, and FSDP cuts them.
    tables = large_embeddings(student) if ranks.world_size() == 1 else []
    try:
        for model in models:
            model.set_attn_implementation(ATTENTION)
        for part in dropouts:
            part.__class__ = FastDropout
        for table in tables:
            table.sparse = True
        yield
    finally:
        for model, name in zip(models, before, strict=True):
            model.set_attn_implementation(name)
        for part in dropouts:
            part.__class__ = nn.Dropout
        for table in tables:
            table.sparse = False


def large_embeddings(student: nn.Module) -> list[nn.Embedding]:
    """Tables whose gradient is better kept by rows: large ones that learn, and that nothing else multiplies with."""
    uses = Counter(id(one) for _, one in student.named_parameters(remove_duplicate=False))
    return [
        part
        for part in student.modules()
        if isinstance(part, nn.Embedding)
        and part.weight.requires_grad
        and len(part.weight) >= LARGE
        and uses[id(part.weight)] == 1
    ]
