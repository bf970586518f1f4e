"""How an encoder is factorized: calibrate, choose the subspace, convert, prove that its tokenizer survived."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from bertshrink import units
from bertshrink.data.calibration import calibration_rows
from bertshrink.model.batches import Row
from bertshrink.model.conversion import EmbeddingWeights, EncoderWeights, assemble, decompose, prove_tokenizer, steep
from bertshrink.model.encoder import Encoder
from bertshrink.model.families import anatomy_of
from bertshrink.model.sizes.parameter_count import facts_of, target_family
from bertshrink.model.sizes.size_estimate import savings_summary
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.factorize import subspace as spaces
from bertshrink.techniques.factorize.low_rank import factorized, principal_basis
from bertshrink.techniques.factorize.mlm_head import fitted_mask_head, stand_in
from bertshrink.techniques.factorize.settings import check_rank

if TYPE_CHECKING:
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.factorize.settings import FactorizeSettings

CALIBRATION_TOKENS = 200_000
"""At most, for the moment; the projection is fitted to a part of them."""
_FITTED = 60_000
_PROBED = 2048
"""Tokens whose gradients are looked at."""


@dataclass
class EmbeddingFactorization:
    """An encoder's tables made narrow, to any rank: what all ranks need of the texts is computed once.

    Attributes:
        parts: of it, its head as the target family has it.
        tokens: of the rows.
        unseen: tokens from the whole vocabulary.
        moment_MM: of both (see `subspace`).
        explained_M: the share of the moment that so many directions keep.
        subspace: as `Factorize.subspace`.
    """

    encoder: Encoder
    parts: EncoderWeights
    rows: list[Row]
    tokens: spaces.TokenSample
    unseen: spaces.TokenSample
    moment_MM: Tensor
    explained_M: Tensor
    subspace: str
    seed: int

    @classmethod
    def of(cls, encoder: Encoder, rows: list[Row], subspace: str, seed: int) -> EmbeddingFactorization:
        """Look at the texts."""
        parts = decompose(encoder)
        target = anatomy_of(target_family(encoder.anatomy.family, encoder.task))
        if (encoder.anatomy.text_head.activation, target.text_head.activation) == ("relu", "gelu"):
            parts = replace(parts, head=steep(parts.head))
        given, tokens = parts.embedding, spaces.tokens_of(rows)
        unseen = spaces.from_vocabulary(given, tokens, len(tokens) // 2 + 1000, seed)
        moment_MM = (1 - spaces.UNSEEN) * spaces.moment(given, tokens) + spaces.UNSEEN * spaces.moment(given, unseen)
        _, explained_M = principal_basis(moment_MM, 0)
        return cls(encoder, parts, rows, tokens, unseen, moment_MM, explained_M, subspace, seed)

    def explained(self, rank: int) -> float:
        """The share of the moment that tables `rank` wide keep."""
        return float(self.explained_M[min(self.parts.embedding.num_directions(rank), len(self.explained_M) - 1)])

    def rank_that_keeps(self, share: float) -> int:
        """The least width with which the tables keep so much of the moment."""
        given = self.parts.embedding
        return next(rank for rank in range(1, given.width + 1) if rank == given.width or self.explained(rank) >= share)

    @cached_property
    def sensitivity_MM(self) -> Tensor:
        """As `subspace.sensitivity`."""
        return spaces.sensitivity(self.encoder, self.parts.embedding, self.rows, _PROBED, self.seed)

    def embedding(self, rank: int) -> EmbeddingWeights:
        """The closed form in the chosen subspace, its projection fitted to the tokens."""
        given = self.parts.embedding
        if rank == given.width and self._is_copied:
            return given
        directions = given.num_directions(rank)
        if rank == given.width:
            return factorized(given, principal_basis(self.moment_MM, directions)[0])
        if self.subspace == "sensitive":
            basis = spaces.sensitive_basis(self.moment_MM, self.sensitivity_MM, directions)
        else:
            basis, _ = principal_basis(self.moment_MM, directions)
        some = self.tokens.first(_FITTED).and_more(self.unseen.first(_FITTED // 10))
        return spaces.refitted(given, factorized(given, basis), some)

    def parts_at(self, rank: int) -> EncoderWeights:
        """The encoder with tables `rank` wide; below full width the head of masked tokens is a stand-in."""
        parts = replace(self.parts, embedding=self.embedding(rank))
        if TASKS[self.encoder.task].has_masked_head and rank < self.parts.embedding.width:
            return replace(parts, head=stand_in(parts.head, rank))
        return parts

    @property
    def _is_copied(self) -> bool:
        """Whether full width means to copy the tables: a head is tied to them, or the class has no projection then."""
        target = anatomy_of(target_family(self.encoder.anatomy.family, self.encoder.task))
        is_narrow = self.parts.embedding.width != self.encoder.shape.hidden_size
        lacks_projection = not (target.embedding.always_projects or is_narrow)
        return TASKS[self.encoder.task].has_masked_head or lacks_projection


def factorize(encoder: Encoder, settings: FactorizeSettings, bench: Workbench) -> Encoder:
    """The encoder with narrow tables, as a stock model.

    Raises:
        CheckFailed: the result is not the model that was meant.
        UserError: a rank that the tables do not allow; calibration texts without a token; gradients that are not
            finite.
    """
    family = target_family(encoder.anatomy.family, encoder.task)
    rows, note = calibration_rows(
        encoder, bench.texts, settings.calibration_examples, CALIBRATION_TOKENS, bench.max_length, bench.seed
    )
    bench.note(note)
    narrowing = EmbeddingFactorization.of(encoder, rows, settings.subspace, bench.seed)
    width, rank = narrowing.parts.embedding.width, _rank(narrowing, settings)
    check_rank(rank, width)
    parts = narrowing.parts_at(rank)
    if TASKS[encoder.task].has_masked_head and rank < width:
        head, said = fitted_mask_head(encoder, assemble(encoder, parts, family), rows, bench.seed, bench.progress)
        parts = replace(parts, head=head)
        bench.note(f"approximate: the head now uses the narrow table and was fitted to it; {said}")
    narrow = assemble(encoder, parts, family)
    prove_tokenizer(encoder, narrow, bench.texts.train.texts[:64] if bench.texts is not None else ())
    bench.note(
        f"embedding tables {rank} wide instead of {width}: {savings_summary(facts_of(encoder), facts_of(narrow))}"
    )
    share = units.format(narrowing.explained(rank), "fraction")
    bench.note(
        f"a stock {type(narrow.model).__name__}; rank {rank} retains {share} of the embedding variance on the "
        "calibration texts"
    )
    return narrow


def _rank(narrowing: EmbeddingFactorization, settings: FactorizeSettings) -> int:
    """The width that the settings mean."""
    if settings.said_rank is not None:
        return settings.said_rank
    if settings.max_size is not None:
        return settings.rank_within(facts_of(narrowing.encoder))
    return narrowing.rank_that_keeps(units.share(str(settings.explained_variance)) - 1e-9)
