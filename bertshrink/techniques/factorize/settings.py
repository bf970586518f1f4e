"""Settings of `factorize`: what they mean, what fits them, what they promise. No torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from bertshrink import units
from bertshrink.errors import UserError
from bertshrink.techniques.base import Technique, is_size

if TYPE_CHECKING:
    from bertshrink.model.checkpoint_info import CheckpointInfo
    from bertshrink.model.model_ref import Kind

ALBERT_RANK = 128
"""The width of every published ALBERT's tables (arXiv:1909.11942, table 1)."""


class FactorizeSettings(Technique):
    """Make the embedding tables narrow, and keep what text uses of them."""

    name: ClassVar[str] = "factorize"
    paper: ClassVar[str] = "arXiv:1909.11942"
    takes: ClassVar[tuple[Kind, ...]] = ("encoder",)
    gives: ClassVar[Kind] = "encoder"
    other_names: ClassVar[Mapping[str, str]] = {
        "calibration": "calibration_examples",
        "energy": "explained_variance",
    }

    rank: int | None = Field(None, ge=1, description="embedding size; default: 128, as in ALBERT")
    explained_variance: str | None = Field(
        None, description="instead of `rank`: minimum explained variance, such as 99%"
    )
    max_size: str | None = Field(None, description="instead of `rank`: maximum size of the weights, such as 60 MB")
    subspace: Literal["sensitive", "principal"] = Field(
        "sensitive", description="directions to keep: those the layers are most sensitive to, or the strongest"
    )
    calibration_examples: int = Field(
        4000, ge=1, description="maximum number of calibration texts, which weight the tokens"
    )

    @field_validator("explained_variance")
    @classmethod
    def _is_kept(cls, text: str | None) -> str | None:
        if text is not None and units.share(text) == 0:
            raise ValueError(f"`{text}` is not a fraction above 0")
        return text

    _max_is_size = field_validator("max_size")(is_size)

    @model_validator(mode="after")
    def _one_of_three(self) -> FactorizeSettings:
        given = [name for name in ("rank", "explained_variance", "max_size") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}` both decide the width: keep one")
        return self

    @property
    def said_rank(self) -> int | None:
        """The width, unless it follows from energy or size."""
        if self.rank is None and self.explained_variance is None and self.max_size is None:
            return ALBERT_RANK
        return self.rank

    def label(self) -> str:
        """The stage in a few words."""
        if self.said_rank is not None:
            return f"factorize to rank {self.said_rank}"
        return (
            f"factorize to {self.explained_variance} explained variance"
            if self.explained_variance is not None
            else f"factorize to {self.max_size}"
        )

    def fit(self, facts: CheckpointInfo) -> CheckpointInfo:
        """Prove the rank against the tables' width, and a size against what the layers alone take."""
        from bertshrink.model.sizes.parameter_count import converted, target_family

        width, rank = facts.shape.embedding_size, self.said_rank
        if self.max_size is not None:
            rank = self.rank_within(facts)
        check_rank(width if rank is None else rank, width)
        return converted(facts, target_family(facts.anatomy.family, facts.task), embedding_size=rank or width)

    def promise(self, before: CheckpointInfo, after: CheckpointInfo) -> str:
        """What it buys, as far as it is known before the texts are looked at."""
        from bertshrink.model.sizes.size_estimate import savings_summary

        if self.explained_variance is not None:
            return f"the rank follows from the texts: the lowest that retains {self.explained_variance} of the variance"
        return f"embedding tables {after.shape.embedding_size} wide instead of {before.shape.embedding_size}: " + (
            savings_summary(before, after)
        )

    @property
    def largest_size(self) -> float | None:
        """`max_size` in bytes."""
        return None if self.max_size is None else units.size(self.max_size)

    def rank_within(self, facts: CheckpointInfo) -> int:
        """The greatest width with which the weights take at most `max_size`.

        Raises:
            UserError: even one number a token is too much.
        """
        from bertshrink.model.sizes.parameter_count import converted, target_family
        from bertshrink.model.sizes.size_estimate import checkpoint_bytes

        most = units.size(str(self.max_size))
        family = target_family(facts.anatomy.family, facts.task)
        narrow = (converted(facts, family, embedding_size=rank) for rank in (1, 2))
        least, more = (checkpoint_bytes(checkpoint) for checkpoint in narrow)
        if least > most:
            raise UserError(
                f"`max_size` is {self.max_size}; with tables of width 1 the weights take {units.format(least, 'B')}",
                hint="layers that share weights (`share`, as a stage before this one), fewer layers (`distill`) or "
                "8-bit weights (`quantize`) make the rest smaller",
                setting="max_size",
            )
        return min(facts.shape.embedding_size, 1 + int((most - least) // (more - least)))


def check_rank(rank: int, width: int) -> None:
    """Prove a rank against the width of the tables. Raises UserError: it is greater."""
    if rank > width:
        hint = f"give 1 to {width}"
        raise UserError(f"`rank` is {rank}; the model's embedding tables are {width} wide", hint=hint, setting="rank")
