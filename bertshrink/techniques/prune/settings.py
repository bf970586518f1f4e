"""Settings of `prune`: what they mean, what fits them, what they promise. No torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from bertshrink import units
from bertshrink.errors import UserError
from bertshrink.techniques.base import Need, Technique

if TYPE_CHECKING:
    from bertshrink.model.checkpoint_info import CheckpointInfo
    from bertshrink.model.model_ref import Kind
    from bertshrink.model.sizes.encoder_dims import EncoderDims
    from bertshrink.model.sizes.size_estimate import Sizes


def costs_of(shape: EncoderDims) -> int:
    """Multiply-adds of a layer's dense products for each token, which are their parameters, too."""
    attention = 2 * shape.hidden_size * (shape.attention_size + shape.key_value_size)
    return attention + shape.num_wide * shape.hidden_size * shape.intermediate_size


class PruneSettings(Technique):
    """Remove attention heads and feed-forward neurons, and refit the rest."""

    name: ClassVar[str] = "prune"
    paper: ClassVar[str] = "arXiv:2204.09656"
    takes: ClassVar[tuple[Kind, ...]] = ("encoder",)
    gives: ClassVar[Kind] = "encoder"
    other_names: ClassVar[Mapping[str, str]] = {"density": "keep", "amount": "keep", "importance": "method"}

    keep: str = Field(
        "50%", description="fraction of the multiply-adds of the layers' dense products to keep, such as 60%"
    )
    uniform: bool = Field(
        False,
        description="the same number of neurons in every layer, so that the checkpoint itself is smaller: "
        "`intermediate_size` becomes the share `keep` of it",
    )
    method: Literal["fisher", "magnitude", "random"] = Field(
        "fisher",
        description="importance of a unit: `fisher`: squared gradients of a factor on it; `magnitude`: of what it "
        "adds; `random`: for comparison",
    )
    labels: bool = Field(
        False,
        description="`fisher`: read gradients of the loss on the texts' labels, not of the divergence from the "
        "model's own answers",
    )
    refit: bool = Field(True, description="fit each output projection to what the unpruned layer gives")
    importance_examples: int = Field(1024, ge=1, description="maximum number of texts that importance is read from")
    calibration_examples: int = Field(2048, ge=1, description="maximum number of texts for the refit")
    ridge: float = Field(
        1.0, gt=0, le=100, description="refit: strength of the pull to the given weights, over the mean square input"
    )

    @field_validator("keep")
    @classmethod
    def _is_kept(cls, text: str) -> str:
        if units.share(text) == 0:
            raise ValueError(f"`{text}` is not a fraction above 0")
        return text

    @model_validator(mode="after")
    def _all_are_read(self) -> PruneSettings:
        idle = []
        if not self.refit:
            idle += [(name, "`refit` is off") for name in ("calibration_examples", "ridge")]
        if self.method != "fisher":
            idle += [("labels", f"`method` is {self.method}")]
        if self.method == "random":
            idle += [("importance_examples", "`method` is random")]
        for name, why in idle:
            if name in self.model_fields_set:
                raise ValueError(f"`{name}` would do nothing: {why}")
        return self

    @property
    def share(self) -> float:
        """`keep` as a number."""
        return units.share(self.keep)

    def needs(self) -> frozenset[Need]:
        """Texts: what a unit is worth depends on them."""
        return frozenset({"train"})

    def needs_labels(self, task: str) -> bool:
        """Where it is asked to read labels."""
        return self.labels

    def label(self) -> str:
        """The stage in a few words."""
        return f"prune to {self.keep}" + (" evenly" if self.uniform else "")

    def fit(self, facts: CheckpointInfo) -> CheckpointInfo:
        """Prove that the family's layers are made of heads and neurons, and that something can be left."""
        from bertshrink.model.tasks import TASKS

        if facts.anatomy.layer is None:
            raise UserError(
                f"`prune` knows layers of heads and one feed-forward, and those of a {facts.anatomy.title} are others",
                hint="make it smaller with `quantize`",
            )
        if self.labels and not TASKS[facts.task].needs_labels:
            raise UserError(f"`labels` is set, and `{facts.task}` has none", hint="leave it out", setting="labels")
        if not self.uniform:
            return facts
        return replace(facts, shape=replace(facts.shape, intermediate_size=self.num_neurons(facts.shape)))

    def num_neurons(self, shape: EncoderDims) -> int:
        """How many neurons every layer keeps under `uniform`: a multiple of 8 where there are many."""
        step = 8 if shape.intermediate_size >= 64 else 1
        return max(step, int(shape.intermediate_size * self.share + 1e-9) // step * step)

    def sizes(self, before: Sizes) -> Sizes | None:
        """Of the checkpoint the same, or that of its narrower layers; an exported file leaves the zeros out."""
        if before.facts is None:
            return None
        shape, after = before.facts.shape, self.fit(before.facts)
        whole, left = (costs_of(one) for one in (shape, after.shape))
        share = min(1.0, self.share * whole / left)
        made = super().sizes(before) if self.uniform else before
        return replace(made, kept=before.kept * share) if made is not None else None

    def promise(self, before: CheckpointInfo, after: CheckpointInfo) -> str:
        """What it buys."""
        return (
            f"{self.keep} of the multiply-adds of the layers' dense products stay; the checkpoint holds zeros in the "
            "others' place, and `export` leaves them out"
        )
