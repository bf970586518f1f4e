"""How an encoder is factorized: calibrate, choose the subspace, convert, prove that its tokenizer survived."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from bertshrink import units
from bertshrink.errors import CheckFailed, RequestError
from bertshrink.model.batches import Row
from bertshrink.model.encoder import Encoder
from bertshrink.model.encoding import encode
from bertshrink.model.facts import own_limit
from bertshrink.techniques.factorize import check_rank, saved, target_family
from bertshrink.techniques.factorize import subspace as spaces
from bertshrink.techniques.factorize.closed_form import Embedding, factorized, principal_basis
from bertshrink.techniques.factorize.target import put_together, steep, take_apart

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
    rows = calibration_rows(encoder, settings, bench)
    tokens = spaces.tokens_of(rows)
    unseen = spaces.from_vocabulary(given, tokens, len(tokens) // 2 + 1000, bench.seed)
    moment = (1 - spaces.UNSEEN) * spaces.moment(given, tokens) + spaces.UNSEEN * spaces.moment(given, unseen)
    _, explained = principal_basis(moment, 1)
    rank = _rank(encoder, settings, explained)
    check_rank(rank, given.width, encoder.task)
    if rank == given.width and _is_copied(encoder, family):
        narrow = given
    else:
        narrow = _narrowed(encoder, settings, bench, given, rows, tokens, unseen, moment, rank)
    head = steep(parts.head) if (encoder.anatomy.family, family) == ("distilbert", "electra") else parts.head
    found = put_together(encoder, replace(parts, embedding=narrow, head=head), family)
    _check_tokenizer(encoder, found, bench)
    before, after = (sum(p.numel() for p in one.model.parameters()) for one in (encoder, found))
    bench.note(saved((encoder.shape, before), (found.shape, after)))
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
        shape = replace(encoder.shape, max_positions=own_limit(encoder.shape, encoder.model.config.to_dict()))
        return settings.rank_within(shape, encoder.task, len(encoder.labels))
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


def calibration_rows(encoder: Encoder, settings: Factorize, bench: Workbench) -> list[Row]:
    """Rows that say which tokens matter: training texts, or tokens drawn by Zipf's law where there are none.

    Raises:
        RequestError: the texts hold no token but special ones.
    """
    if bench.texts is None:
        bench.note(
            "no calibration texts: tokens count as Zipf's law has them in the vocabulary's order; name some with `data`"
        )
        return spaces.zipf_rows(encoder, 2000, 32, bench.seed)
    texts = replace(bench.texts.train.first(settings.calibration), labels=None)
    limit = min(bench.max_length or encoder.max_length, encoder.max_length)
    rows = encode(encoder.task, encoder.tokenizer, texts, limit, encoder.labels, bench.texts.name).rows
    special = set(encoder.tokenizer.all_special_ids)
    if not any(i not in special for row in rows for i in row["input_ids"]):
        raise RequestError(
            f"the training texts of `{bench.texts.name}` tokenize to nothing but special tokens",
            hint="calibrate with texts in the model's language, or leave `data` out",
        )
    kept, number = [], 0
    for row in rows:
        kept.append(row)
        number += len(row["input_ids"])
        if number >= _TOKENS:
            break
    bench.note(f"calibrated with {len(kept)} training texts of {number} tokens")
    return kept


def _check_tokenizer(encoder: Encoder, found: Encoder, bench: Workbench) -> None:
    """Prove that the tokenizer, read again from beside the new class, gives the old ids.

    Raises:
        CheckFailed: it does not.
    """
    texts = list(bench.texts.train.texts[:64]) if bench.texts is not None else []
    texts += ["A factorized model's tokenizer, read again: does it agree? (2 + 2 = 4) Größe, naïve, 東京"]
    with tempfile.TemporaryDirectory() as folder:
        found.save(Path(folder))
        again = Encoder.load(Path(folder), encoder.task)
    mine, theirs = (one.tokenize(texts) for one in (again, encoder))
    if [row["input_ids"] for row in mine] != [row["input_ids"] for row in theirs]:
        raise CheckFailed(
            f"beside a stock {type(found.model).__name__} the tokenizer reads other ids than before",
            hint="save it as `tokenizer.json` (`PreTrainedTokenizerFast`), which no class reinterprets",
        )
