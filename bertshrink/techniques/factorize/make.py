"""How an encoder is factorized: calibrate, choose the subspace, convert, prove that its tokenizer survived."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from bertshrink import units
from bertshrink.model.batches import Row
from bertshrink.model.calibration import calibration_rows
from bertshrink.model.counting import facts_of, target_family, what_it_buys
from bertshrink.model.encoder import Encoder
from bertshrink.model.parts import Embedding, prove_tokenizer, put_together, steep, take_apart
from bertshrink.techniques.factorize import check_rank
from bertshrink.techniques.factorize import subspace as spaces
from bertshrink.techniques.factorize.closed_form import factorized, principal_basis
from bertshrink.techniques.factorize.mask_head import fitted_mask_head, stand_in

if TYPE_CHECKING:
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.factorize import Factorize

_TOKENS = 200_000
"""Calibration tokens at most, for the moment; the projection is fitted to a part of them."""
_FITTED = 60_000
_PROBED = 4096
"""Tokens whose gradients are looked at."""


def factorize(encoder: Encoder, settings: Factorize, bench: Workbench) -> Encoder:
    """The encoder with narrow tables, as a stock model.

    Raises:
        CheckFailed: the result is not the model that was meant.
        RequestError: a rank that the tables do not allow; calibration texts without a token; gradients that are not
            finite.
    """
    parts = take_apart(encoder)
    given, family = parts.embedding, target_family(encoder.anatomy.family, encoder.task)
    rows, note = calibration_rows(encoder, bench.texts, settings.calibration, _TOKENS, bench.max_length, bench.seed)
    bench.note(note)
    tokens = spaces.tokens_of(rows)
    unseen = spaces.from_vocabulary(given, tokens, len(tokens) // 2 + 1000, bench.seed)
    moment = (1 - spaces.UNSEEN) * spaces.moment(given, tokens) + spaces.UNSEEN * spaces.moment(given, unseen)
    _, explained = principal_basis(moment, 1)
    rank = _rank(encoder, settings, explained)
    check_rank(rank, given.width)
    if rank == given.width and _is_copied(encoder, family):
        narrow = given
    else:
        narrow = _narrowed(encoder, settings, bench, given, rows, tokens, unseen, moment, rank)
    head = steep(parts.head) if (encoder.anatomy.family, family) == ("distilbert", "electra") else parts.head
    parts = replace(parts, embedding=narrow, head=head)
    if encoder.task == "mlm" and rank < given.width:
        parts = replace(parts, head=stand_in(parts.head, rank))
        head, said = fitted_mask_head(encoder, put_together(encoder, parts, family), rows, bench.seed, bench.progress)
        parts = replace(parts, head=head)
        bench.note(f"approximate: the head's table is the narrow one now, and the head was fitted to it; {said}")
    found = put_together(encoder, parts, family)
    prove_tokenizer(encoder, found, bench.texts.train.texts[:64] if bench.texts is not None else ())
    bench.note(f"tables of width {rank} instead of {given.width}: {what_it_buys(facts_of(encoder), facts_of(found))}")
    share = units.format(float(explained[rank - 1]), "fraction")
    bench.note(f"a stock {type(found.model).__name__}; rank {rank} keeps {share} of the energy of embeddings in text")
    return found


def _is_copied(encoder: Encoder, family: str) -> bool:
    """Whether full width means to copy the tables: a head is tied to them, or the class has no projection then."""
    return encoder.task == "mlm" or (family == "electra" and encoder.anatomy.family != "electra")


def _rank(encoder: Encoder, settings: Factorize, explained_E: Tensor) -> int:
    """The width that the settings mean; `explained_E` as `principal_basis` gives it."""
    if settings.said_rank is not None:
        return settings.said_rank
    if settings.max_size is not None:
        return settings.rank_within(facts_of(encoder))
    wanted, _ = units.parse(str(settings.energy))
    return min(len(explained_E), 1 + int((explained_E < wanted - 1e-9).sum()))


def _narrowed(
    encoder: Encoder,
    settings: Factorize,
    bench: Workbench,
    given: Embedding,
    rows: list[Row],
    tokens: spaces.Tokens,
    unseen: spaces.Tokens,
    moment_EE: Tensor,
    rank: int,
) -> Embedding:
    """The closed form in the chosen subspace, its projection fitted to the tokens."""
    if settings.subspace == "sensitive" and rank < given.width:
        cost = spaces.sensitivity(encoder, given, rows, _PROBED, bench.seed)
        basis = spaces.sensitive_basis(moment_EE, cost, rank)
    else:
        basis, _ = principal_basis(moment_EE, rank)
    narrow = factorized(given, basis)
    if rank == given.width:
        return narrow
    return spaces.refitted(given, narrow, tokens.first(_FITTED).and_more(unseen.first(_FITTED // 10)))
