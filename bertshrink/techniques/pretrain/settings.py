"""Settings of `pretrain`: what they mean, what fits them, what they promise. No torch at import."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from bertshrink.model.families import DEFAULT_PRETRAINED, FAMILIES, PretrainedFamily, anatomy_of
from bertshrink.model.family import ModelFamily, PretrainManner
from bertshrink.model.sizes.encoder_dims import EncoderDims
from bertshrink.techniques.base import Need, Technique
from bertshrink.training.settings import TrainingSettings

if TYPE_CHECKING:
    from bertshrink.model.checkpoint_info import CheckpointInfo
    from bertshrink.model.model_ref import Kind

EPOCHS = 3.0
LEARNING_RATE = 5e-4
MAX_LENGTH = 512


class PretrainSettings(TrainingSettings, Technique):
    """Pre-train an encoder from scratch on running text, with its tokenizer."""

    name: ClassVar[str] = "pretrain"
    paper: ClassVar[str] = "arXiv:1810.04805"
    takes: ClassVar[tuple[Kind, ...]] = ()
    gives: ClassVar[Kind] = "encoder"
    trains: ClassVar[bool] = True
    makes_teacher: ClassVar[bool] = True

    family: PretrainedFamily = Field(DEFAULT_PRETRAINED, description="architecture")
    layers: int = Field(4, ge=1, description="layers")
    hidden_size: int = Field(256, ge=8, description="width")
    heads: int = Field(4, ge=1, description="attention heads")
    intermediate_size: int | None = Field(None, ge=1, description="feed-forward width; default: 4 times the width")
    embedding_size: int = Field(128, ge=1, description="albert: width of the embeddings")
    vocab_size: int = Field(8192, ge=256, description="size of the trained vocabulary, in tokens")
    tokenizer: Literal["wordpiece", "byte-bpe"] | None = Field(
        None, description="tokenizer; default: byte-bpe for roberta, else wordpiece"
    )
    lowercase: bool = Field(True, description="wordpiece: lower-case all text")
    objective: Literal["mlm", "mlm+nsp", "mlm+sop"] | None = Field(
        None, description="masked tokens, with next sentence (bert) or sentence order (albert); default: by family"
    )
    mask_share: float = Field(0.15, gt=0, lt=1, description="fraction of masked tokens")
    whole_word: bool = Field(False, description="mask whole words")
    tokens_per_row: int = Field(128, ge=16, le=512, description="length of the training rows, in tokens")

    @model_validator(mode="after")
    def _together(self) -> PretrainSettings:
        if self.hidden_size % self.heads:
            raise ValueError(f"`hidden_size` {self.hidden_size} is not divisible by {self.heads} `heads`")
        own = self.manner.objective
        if self.second_objective and self.manner.pair_head is None:
            raise ValueError(f"`objective: {self.objective}` needs two segments, for which `{self.family}` has no head")
        if self.second_objective and self.objective not in (None, own):
            other = next(
                row for row in FAMILIES.values() if row.pretraining and row.pretraining.objective == self.objective
            )
            raise ValueError(
                f"`objective: {self.objective}` is {other.title}'s: choose `family: {other.family}`, or `{own}`"
            )
        return self

    @property
    def row(self) -> ModelFamily:
        """The family's."""
        return anatomy_of(self.family)

    @property
    def manner(self) -> PretrainManner:
        """How the family is pre-trained."""
        assert self.row.pretraining is not None
        return self.row.pretraining

    @property
    def max_positions(self) -> int:
        """Rows of the table of positions."""
        return MAX_LENGTH + self.row.first_position(self.row.style.id_of("pad"))

    @property
    def second_objective(self) -> Literal["nsp", "sop"] | None:
        """What is learnt of pairs of segments."""
        chosen = self.objective or self.manner.objective
        return "nsp" if chosen.endswith("nsp") else "sop" if chosen.endswith("sop") else None

    def needs(self) -> frozenset[Need]:
        """Running text to learn from and to be judged by."""
        return frozenset({"train", "dev"})

    def label(self) -> str:
        """The stage in a few words."""
        return f"{self.family} of {self.layers} layers, pre-trained"

    def makes(self) -> CheckpointInfo:
        """The facts of the encoder that comes out."""
        from pathlib import Path

        from bertshrink.model.checkpoint_info import CheckpointInfo

        shape = EncoderDims(
            num_layers=self.layers,
            hidden_size=self.hidden_size,
            num_heads=self.heads,
            intermediate_size=self.intermediate_size or 4 * self.hidden_size,
            vocab_size=self.vocab_size,
            embedding_size=self.embedding_size if self.row.embedding.projection else self.hidden_size,
            max_positions=self.max_positions,
            num_groups=1 if self.row.is_shared else self.layers,
        )
        return CheckpointInfo(Path(), self.row, shape, {}, "mlm", max_length=MAX_LENGTH)
