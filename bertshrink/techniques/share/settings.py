"""Settings of `share`: what they mean, what fits them, what they promise. No torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from bertshrink.errors import UserError
from bertshrink.techniques.base import Technique

if TYPE_CHECKING:
    from bertshrink.model.checkpoint_info import CheckpointInfo
    from bertshrink.model.model_ref import Kind


class ShareSettings(Technique):
    """Let layers share their weights in groups."""

    name: ClassVar[str] = "share"
    paper: ClassVar[str] = "arXiv:1909.11942"
    takes: ClassVar[tuple[Kind, ...]] = ("encoder",)
    gives: ClassVar[Kind] = "encoder"
    other_names: ClassVar[Mapping[str, str]] = {
        "calibration": "calibration_examples",
    }

    groups: int = Field(1, ge=1, description="number of layer groups that share weights; 1: all layers, as in ALBERT")
    method: Literal["fitted", "best", "mean"] = Field(
        "fitted",
        description="how a group's weights are chosen: fitted to its layers' outputs, those of its best "
        "layer, or the mean",
    )
    steps: int = Field(200, ge=1, description="fitting steps per group")
    calibration_examples: int = Field(4000, ge=1, description="maximum calibration texts")

    def label(self) -> str:
        """The stage in a few words."""
        return f"share {self.groups} group{'s' if self.groups != 1 else ''} of layers"

    def fit(self, facts: CheckpointInfo) -> CheckpointInfo:
        """Prove the number of groups against the layers, and against what is shared already."""
        from bertshrink.model.sizes.parameter_count import converted, sharing_family

        check_groups(self.groups, facts.shape.num_layers, facts.shape.num_groups)
        if self.groups == facts.shape.num_groups:
            return facts
        return converted(facts, sharing_family(facts.anatomy.family), num_groups=self.groups)

    def promise(self, before: CheckpointInfo, after: CheckpointInfo) -> str:
        """What it buys."""
        from bertshrink.model.sizes.size_estimate import savings_summary

        return savings_summary(before, after)


def check_groups(groups: int, num_layers: int, num_groups: int) -> None:
    """Prove a number of groups. Raises UserError: more than there are layers, or than sets of weights."""
    if groups > num_layers:
        raise UserError(
            f"`groups` is {groups}; the model has {num_layers} layers", hint=f"give 1 to {num_layers}", setting="groups"
        )
    if groups > num_groups:
        raise UserError(
            f"`groups` is {groups}; the model's layers share {num_groups} sets of weights already",
            hint=f"give 1 to {num_groups}",
            setting="groups",
        )
