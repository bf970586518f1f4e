"""Settings of `pretrain`: what they mean, what fits them, what they promise. No torch at import."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from bertshrink.techniques.base import Kind, Need, Technique
from bertshrink.training.settings import TrainingSettings

if TYPE_CHECKING:
    from bertshrink.model.checkpoint import CheckpointInfo

OBJECTIVES = {"bert": "mlm+nsp", "roberta": "mlm", "distilbert": "mlm", "albert": "mlm+sop"}
TOKENIZERS = {"bert": "wordpiece", "roberta": "byte-bpe", "distilbert": "wordpiece", "albert": "wordpiece"}
EPOCHS = 3.0
LEARNING_RATE = 5e-4
MAX_LENGTH = 512
PADDED_POSITIONS = {"roberta": 2}
"""Rows of the table of positions that no token has: RoBERTa counts from behind the padding's id."""


class PretrainSettings(TrainingSettings, Technique):
    """Pre-train an encoder from scratch on running text, with its tokenizer."""

    name: ClassVar[str] = "pretrain"
    paper: ClassVar[str] = "arXiv:1810.04805"
    takes: ClassVar[tuple[Kind, ...]] = ()
    gives: ClassVar[Kind] = "encoder"
    trains: ClassVar[bool] = True
    makes_teacher: ClassVar[bool] = True

    family: Literal["bert", "roberta", "distilbert", "albert"] = Field("bert", description="architecture")
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
        if self.second_objective and self.family not in ("bert", "albert"):
            raise ValueError(f"`objective: {self.objective}` needs two segments, for which `{self.family}` has no head")
        if self.family == "bert" and self.objective == "mlm+sop":
            raise ValueError("`objective: mlm+sop` is ALBERT's: choose `family: albert`, or `mlm+nsp`")
        if self.family == "albert" and self.objective == "mlm+nsp":
            raise ValueError("`objective: mlm+nsp` is BERT's: choose `family: bert`, or `mlm+sop`")
        return self

    @property
    def second_objective(self) -> Literal["nsp", "sop"] | None:
        """What is learnt of pairs of segments."""
        chosen = self.objective or OBJECTIVES[self.family]
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

        from bertshrink.model.checkpoint import CheckpointInfo
        from bertshrink.model.families import EncoderDims, anatomy_of

        anatomy = anatomy_of(self.family)
        shape = EncoderDims(
            num_layers=self.layers,
            hidden_size=self.hidden_size,
            num_heads=self.heads,
            intermediate_size=self.intermediate_size or 4 * self.hidden_size,
            vocab_size=self.vocab_size,
            embedding_size=self.embedding_size if self.family == "albert" else self.hidden_size,
            max_positions=MAX_LENGTH + PADDED_POSITIONS.get(self.family, 0),
            num_groups=1 if anatomy.is_shared else self.layers,
        )
        return CheckpointInfo(Path(), anatomy, shape, {}, "mlm", max_length=MAX_LENGTH)
