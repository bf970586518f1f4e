"""ALBERT's head for masked tokens, fitted to tables that became narrower.

The head's table is the embeddings' own, so with it the head becomes narrow, too: z = LN(act(D h + d)), logits = w z + b
with the narrow table w. The other head gives logits W y + c of a wider y. What it answers at masked tokens of
calibration text is what this one is fitted to:

    start: the z of least squares, w z ~ W y, is linear in y. D is its regression on h; d is so great that act, GELU or
    ReLU, changes nothing, and what all numbers of a token have in common LN takes away.
    then:  Adam on the cross entropy with the other head's probabilities.

Letters: N masked tokens, H hidden size, E width of the other table, K of the narrow one, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, layer_norm
from transformers.activations import ACT2FN

from bertshrink.model.batches import Row, batch_by_length, take_tokens, tensors
from bertshrink.model.conversion import Weights
from bertshrink.model.encoder import Encoder
from bertshrink.progress import Progress
from bertshrink.training.optim.adam import fit_adam
from bertshrink.training.rows.masking import TokenMasker

_MASKED = 0.3
"""Share of the tokens that are masked: each costs a pass through the layers."""
_TOKENS = 40_000
_STEPS = 400
_LEARNING_RATE = 2e-3
_LOGITS = 256 * 32_768
"""Logits that a step computes, about."""
_KEPT_OUT = 10
_RIDGE = 1e-3


@dataclass(frozen=True)
class _Asked:
    """What masked tokens are: their states in the narrow model, and what the other head makes of theirs.

    Attributes:
        states_NH: last hidden states of the narrow model.
        vectors_NE: what the other model's table is multiplied with.
    """

    states_NH: Tensor
    vectors_NE: Tensor


def fitted_mask_head(
    encoder: Encoder, narrow: Encoder, rows: Sequence[Row], seed: int, progress: Progress
) -> tuple[dict[str, Weights], str]:
    """The head of `narrow`, whose table is narrower than that of `encoder`, and a sentence on how near it came.

    Args:
        narrow: the same with narrow tables, and any head.
    """
    given, table_VK = _asked(encoder, narrow, rows, seed), narrow.model.get_input_embeddings().weight.detach()
    old: Any = encoder.model.get_output_embeddings()
    table_VE, bias_V = old.weight.detach(), old.bias.detach()
    act = ACT2FN[narrow.model.config.hidden_act]
    eps = float(narrow.model.config.layer_norm_eps)
    kept_out = torch.arange(len(given.states_NH)) % _KEPT_OUT == 0
    learnt = _Asked(given.states_NH[~kept_out], given.vectors_NE[~kept_out])
    head = [*_start(learnt, table_VE, table_VK), bias_V.clone()]

    def logits(states_NH: Tensor) -> Tensor:
        weight_KH, offset_K, gain_K, shift_K, last_V = head
        inner = layer_norm(act(states_NH @ weight_KH.T + offset_K), (len(gain_K),), gain_K, shift_K, eps)
        answers: Tensor = inner @ table_VK.T + last_V
        return answers

    size = max(16, min(256, _LOGITS // len(table_VK)))
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        chosen = torch.randint(len(learnt.states_NH), (size,), generator=generator)
        wanted = torch.softmax(learnt.vectors_NE[chosen] @ table_VE.T + bias_V, -1)
        return cross_entropy(logits(learnt.states_NH[chosen]), wanted)

    with progress.task("fit the head", _STEPS, "steps") as task:
        fit_adam(head, loss, _STEPS, _LEARNING_RATE, task=task)
    weight, offset, gain, shift, last = (tensor.detach() for tensor in head)
    same = []
    with torch.no_grad():
        for some in kept_out.nonzero().flatten().tolist():
            mine, theirs = logits(given.states_NH[some]), given.vectors_NE[some] @ table_VE.T + bias_V
            same.append(bool(mine.argmax() == theirs.argmax()))
    share = sum(same) / len(same)
    parts = {
        "first": {"weight": weight, "bias": offset},
        "norm": {"weight": gain, "bias": shift},
        "table": {"bias": last},
    }
    return parts, f"{share:.1%} of {int(kept_out.sum())} masked tokens held out of the fit get the same top prediction"


def stand_in(head: dict[str, Weights], rank: int) -> dict[str, Weights]:
    """A head of the narrow shape, for while none is fitted."""
    first, norm = head["first"]["weight"][:1], head["norm"]["weight"][:1]
    flat = {"weight": norm.expand(rank), "bias": norm.expand(rank)}
    return {"first": {"weight": first.expand(rank, -1), "bias": flat["bias"]}, "norm": flat, "table": head["table"]}


@torch.no_grad()
def _asked(encoder: Encoder, narrow: Encoder, rows: Sequence[Row], seed: int) -> _Asked:
    """Mask calibration rows, and run both models over them."""
    few = take_tokens(rows, _TOKENS)
    masker = TokenMasker(encoder.tokenizer, _MASKED, whole_word=False, seed=seed)
    masked = []
    for i, row in enumerate(few):
        ids, labels = masker(row["input_ids"], 0, i)
        masked.append({**row, "input_ids": ids.tolist(), "chosen": (labels >= 0).astype(int).tolist()})
    wide: Any = encoder.model
    seen: list[Tensor] = []
    handle = wide.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    states, vectors = [], []
    try:
        for batch in batch_by_length([len(row["input_ids"]) for row in masked], 2048):
            block = tensors([masked[i] for i in batch])
            chosen_BL = block.pop("chosen").bool()
            states.append(narrow.model.base_model(**block).last_hidden_state[chosen_BL])
            wide(**block)
            vectors.append(seen.pop()[chosen_BL])
    finally:
        handle.remove()
    return _Asked(torch.cat(states), torch.cat(vectors))


def _start(given: _Asked, table_VE: Tensor, table_VK: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight (K, H) and bias (K,) of the product, weight (K,) and bias (K,) of LayerNorm, as the module's text says."""
    wide, narrow = table_VE.double(), table_VK.double()
    gram_KK = narrow.T @ narrow
    gram_KK += 1e-6 * gram_KK.diagonal().mean() * torch.eye(len(gram_KK), dtype=torch.float64)
    best_NK = given.vectors_NE.double() @ torch.linalg.solve(gram_KK, narrow.T @ wide).T
    mean_K = best_NK.mean(0)
    states, mean_H = given.states_NH.double(), given.states_NH.double().mean(0)
    there = states - mean_H
    gram_HH = there.T @ there / len(there)
    gram_HH += _RIDGE * gram_HH.diagonal().mean() * torch.eye(len(gram_HH), dtype=torch.float64)
    weight_KH = torch.linalg.solve(gram_HH, there.T @ (best_NK - mean_K) / len(there)).T
    before_NK = there @ weight_KH.T
    spread_K = before_NK.std(0).clamp(min=1e-6)
    normal_NK = before_NK / spread_K
    offset_K = -(weight_KH / spread_K[:, None]) @ mean_H + float(normal_NK.abs().max()) + 4.0
    pieces = (weight_KH / spread_K[:, None], offset_K, spread_K, mean_K)
    weight, offset, gain, shift = (piece.to(given.states_NH.dtype) for piece in pieces)
    return weight, offset, gain, shift
