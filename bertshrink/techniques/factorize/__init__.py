"""Factorize: narrow embedding tables and a projection to the layers' width, as ALBERT has them, without training.

A third to a half of a small encoder is its embedding tables. ALBERT (arXiv:1909.11942) keeps them narrow; what is here
turns a trained encoder into such a one in closed form, stock transformers from end to end. Its width (`rank`) is said
outright, or found from a share of energy or from a size. See `closed_form` for the maths, `subspace` for what is kept,
`target` for the class that comes out.

It saves memory and hardly any time: the layers stay as they are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field, field_validator, model_validator

from bertshrink import units
from bertshrink.errors import RequestError
from bertshrink.model.anatomy import FAMILIES, Shape
from bertshrink.model.facts import Facts, own_limit
from bertshrink.model.task import TASKS
from bertshrink.techniques.base import Kind, Technique, Workbench

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.techniques.base import Model

_BYTES = 4
ALBERT_RANK = 128
"""The width of every published ALBERT's tables (arXiv:1909.11942, table 1)."""


def target_family(family: str, task: str) -> str:
    """The family of the stock model that a factorized encoder becomes (see `target`)."""
    is_sequence = TASKS[task].auto_class == "AutoModelForSequenceClassification"
    return "electra" if family in ("distilbert", "electra") and is_sequence else "albert"


class Factorize(Technique):
    """Make the embedding tables narrow, and keep what text uses of them."""

    name: ClassVar[str] = "factorize"
    paper: ClassVar[str] = "arXiv:1909.11942"
    takes: ClassVar[Kind | None] = "encoder"
    gives: ClassVar[Kind] = "encoder"

    rank: int | None = Field(None, ge=1, description="width of the embedding tables; default: 128, as ALBERT's")
    energy: str | None = Field(None, description="instead of `rank`: the least share that is kept, such as 99%")
    max_size: str | None = Field(None, description="instead of `rank`: the most that the weights take, such as 60 MB")
    subspace: Literal["sensitive", "principal"] = Field(
        "sensitive", description="directions that are kept: those the layers are sensitive to, or the strongest"
    )
    calibration: int = Field(4000, ge=1, description="training texts that say which tokens matter, at most")

    @field_validator("energy")
    @classmethod
    def _is_share(cls, text: str | None) -> str | None:
        if text is not None:
            value, unit = units.parse(text)
            if unit not in ("fraction", "count") or not 0 < value <= 1:
                raise ValueError(f"`{text}` is no share such as `99%`")
        return text

    @field_validator("max_size")
    @classmethod
    def _is_size(cls, text: str | None) -> str | None:
        if text is not None and (units.parse(text)[1] != "B" or units.parse(text)[0] <= 0):
            raise ValueError(f"`{text}` is no size such as `60 MB`")
        return text

    @model_validator(mode="after")
    def _one_of_three(self) -> Factorize:
        given = [name for name in ("rank", "energy", "max_size") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}` both decide the width: say one")
        return self

    @property
    def said_rank(self) -> int | None:
        """The width, unless it follows from energy or size."""
        if self.rank is None and self.energy is None and self.max_size is None:
            return ALBERT_RANK
        return self.rank

    def label(self) -> str:
        """The stage in a few words."""
        if self.said_rank is not None:
            return f"factorize to rank {self.said_rank}"
        return f"factorize to {self.energy} energy" if self.energy is not None else f"factorize to {self.max_size}"

    def fit(self, facts: Facts) -> Facts:
        """Prove the rank against the tables' width, and a size against what the layers alone take."""
        shape = replace(facts.shape, max_positions=own_limit(facts.shape, facts.config))
        width, rank = shape.embedding_size, self.said_rank
        if self.max_size is not None:
            rank = self.rank_within(shape, facts.task, len(facts.labels))
        check_rank(width if rank is None else rank, width, facts.task)
        family = target_family(facts.anatomy.family, facts.task)
        return replace(facts, anatomy=FAMILIES[family], shape=replace(shape, embedding_size=rank or width))

    def rank_within(self, shape: Shape, task: str, num_labels: int) -> int:
        """The greatest width with which the weights take at most `max_size`.

        Raises:
            RequestError: even one number a token is too much.
        """
        most = units.parse(str(self.max_size))[0]
        least, more = (_BYTES * num_parameters(shape, task, max(1, num_labels), rank) for rank in (1, 2))
        if least > most:
            raise RequestError(
                f"`max_size` is {self.max_size}; with tables one number wide the weights take "
                f"{units.format(least, 'B')}",
                hint="fewer layers (`distill`) or 8-bit weights (`quantize`) make the rest smaller",
            )
        return min(shape.embedding_size, 1 + int((most - least) // (more - least)))

    def __call__(self, model: Model, bench: Workbench) -> Model:
        """Factorize; see `make.factorize`."""
        from bertshrink.techniques.factorize.make import factorize

        return factorize(cast("Encoder", model), self, bench)


def check_rank(rank: int, width: int, task: str) -> None:
    """Prove a rank against the width of the tables.

    Raises:
        RequestError: it is greater, or tables that are a head as well would become narrower.
    """
    if rank > width:
        hint = f"give 1 to {width}"
        raise RequestError(f"`rank` is {rank}; the model's embedding tables are {width} wide", hint=hint)
    if task == "mlm" and rank != width:
        raise RequestError(
            "a masked language model's tables are its head as well, and no head is fitted to narrower ones",
            hint="factorize the model for the task that it is fine-tuned for, or keep "
            f"`rank: {width}`, which only changes the class",
        )


def num_parameters(shape: Shape, task: str, num_labels: int, rank: int) -> int:
    """Parameters of the stock model of an encoder of this shape with tables `rank` wide.

    Args:
        shape: of the given encoder, with its own limit as its positions: RoBERTa's first rows stand for none.
        task: a name in `TASKS`.
        num_labels: outputs of the head.
        rank: width of the tables.
    """
    hidden, inner = shape.hidden_size, shape.intermediate_size
    layer = 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden
    tables = (shape.vocab_size + shape.max_positions + 2) * rank + 2 * rank + rank * hidden + hidden
    heads: dict[str, int] = {
        "question-answering": 2 * (hidden + 1),
        "token-classification": num_labels * (hidden + 1),
        "embedding": hidden * hidden + hidden,
        "mlm": rank * (hidden + 1) + 2 * rank + shape.vocab_size,
    }
    whole_text = hidden * hidden + hidden + num_labels * (hidden + 1)
    return tables + shape.num_groups * layer + heads.get(task, whole_text)


def saved(before: tuple[Shape, int], after: tuple[Shape, int]) -> str:
    """What factorizing buys, as a sentence; both are (shape, number of parameters)."""
    (shape, given), (narrow, found) = before, after
    ops = units.format(shape.flops_per_token() / 1e6, "count"), units.format(narrow.flops_per_token() / 1e6, "count")
    return (
        f"tables of width {narrow.embedding_size} instead of {shape.embedding_size}: "
        f"{units.format(given, 'count')} parameters become {units.format(found, 'count')}, "
        f"{units.format(_BYTES * given, 'B')} {units.format(_BYTES * found, 'B')}; "
        f"{ops[0]} MFLOP a token become {ops[1]}: memory is saved, not time"
    )
