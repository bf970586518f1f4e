"""What each width of the tables would cost and keep, measured before one is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from bertshrink.data.calibration import calibration_rows
from bertshrink.model.batches import Row, batch_by_length, take_tokens, tensors
from bertshrink.model.conversion import assemble
from bertshrink.model.encoder import Encoder
from bertshrink.model.sizes.parameter_count import converted, facts_of, num_parameters, target_family
from bertshrink.model.sizes.size_estimate import checkpoint_bytes
from bertshrink.techniques.factorize.apply import CALIBRATION_TOKENS, EmbeddingFactorization

if TYPE_CHECKING:
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.factorize.settings import FactorizeSettings

_RANKS = (16, 32, 64, 96, 128, 192, 256, 384, 512)
_KEPT_OUT = 10
"""One calibration text in so many is not calibrated with: cosines are measured on those."""
_MEASURED = 4096
"""Tokens they are measured on, at most."""


def explain(encoder: Encoder, settings: FactorizeSettings, bench: Workbench) -> list[dict[str, Any]]:
    """A row for each of some ranks up to the tables' width, and for the rank that is asked for.

    `parameters` and `bytes` are the whole model's; `energy` is the share of the embeddings' energy that is kept;
    `cosine` is the mean over tokens between last hidden states and the given model's, without any training.

    Raises:
        UserError: as `apply.factorize`.
    """
    rows, note = calibration_rows(
        encoder, bench.texts, settings.calibration_examples, CALIBRATION_TOKENS, bench.max_length, bench.seed
    )
    bench.note(note)
    learnt, measured = rows, rows
    if len(rows) >= 2 * _KEPT_OUT:
        learnt, measured = [r for i, r in enumerate(rows) if i % _KEPT_OUT], rows[::_KEPT_OUT]
    narrowing = EmbeddingFactorization.of(encoder, learnt, settings.subspace, bench.seed)
    width, facts = narrowing.parts.embedding.width, facts_of(encoder)
    family = target_family(encoder.anatomy.family, encoder.task)
    asked = {settings.said_rank} if settings.said_rank is not None and settings.said_rank <= width else set()
    ranks = sorted({rank for rank in _RANKS if rank < width} | {width} | asked)
    few = take_tokens(measured, _MEASURED)
    wanted = _states(encoder, few)
    bench.note(f"cosines measured on {len(wanted)} tokens of {len(few)} held-out calibration texts")
    by_rank = []
    with bench.progress.task("explain", len(ranks), "ranks") as task:
        for rank in ranks:
            narrowed = converted(facts, family, embedding_size=rank)
            narrow = assemble(encoder, narrowing.parts_at(rank), family)
            by_rank.append(
                {
                    "rank": rank,
                    "parameters": num_parameters(narrowed),
                    "bytes": checkpoint_bytes(narrowed),
                    "energy": narrowing.explained(rank),
                    "cosine": float(cosine_similarity(_states(narrow, few), wanted, dim=1).mean()),
                }
            )
            task.advance(1)
    return by_rank


@torch.no_grad()
def _states(encoder: Encoder, rows: Sequence[Row]) -> Tensor:
    """(N, H) last hidden states of all tokens."""
    base: Any = encoder.model.base_model
    states = []
    for batch in batch_by_length([len(row["input_ids"]) for row in rows], 2048):
        block = tensors([rows[i] for i in batch])
        states.append(base(**block).last_hidden_state[block["attention_mask"].bool()])
    return torch.cat(states)
