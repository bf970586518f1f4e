"""Share: layers in a row use one set of weights, as ALBERT's do (arXiv:1909.11942), after training.

The L layers of a trained encoder become G groups; a group's weights are chosen so that it still turns what its first
layer reads into what its last one gave (see `fitting`). What comes out is a stock ALBERT. Where the head is none that
ALBERT has (DistilBERT's and ELECTRA's for whole texts), one is fitted to the answers of the model that came in.

It saves memory and no time: every layer is still computed. It also costs quality, which a `distill` stage after it
brings back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field

from bertshrink.errors import RequestError
from bertshrink.model.counting import converted
from bertshrink.model.estimate import what_it_buys
from bertshrink.techniques.base import Kind, Technique, Workbench

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.facts import Facts
    from bertshrink.techniques.base import Model


class Share(Technique):
    """Let layers share their weights in groups."""

    name: ClassVar[str] = "share"
    paper: ClassVar[str] = "arXiv:1909.11942"
    takes: ClassVar[tuple[Kind, ...]] = ("encoder",)
    gives: ClassVar[Kind] = "encoder"

    groups: int = Field(1, ge=1, description="groups of layers that share their weights; 1: all of them, as ALBERT's")
    method: Literal["fitted", "best", "mean"] = Field(
        "fitted",
        description="a group's weights: fitted to give what its layers gave, those of its best layer, or the mean",
    )
    steps: int = Field(200, ge=1, description="steps of fitting, for each group")
    calibration: int = Field(4000, ge=1, description="training texts that are looked at, at most")

    def label(self) -> str:
        """The stage in a few words."""
        return f"share {self.groups} group{'s' if self.groups != 1 else ''} of layers"

    def fit(self, facts: Facts) -> Facts:
        """Prove the number of groups against the layers, and against what is shared already."""
        check_groups(self.groups, facts.shape.num_layers, facts.shape.num_groups)
        return facts if self.groups == facts.shape.num_groups else converted(facts, "albert", num_groups=self.groups)

    def promise(self, before: Facts, after: Facts) -> str:
        """What it buys."""
        return what_it_buys(before, after)

    def __call__(self, model: Model, bench: Workbench) -> Model:
        """Share; see `make.share`."""
        from bertshrink.techniques.share.make import share

        return share(cast("Encoder", model), self, bench)


def check_groups(groups: int, num_layers: int, num_groups: int) -> None:
    """Prove a number of groups.

    Raises:
        RequestError: more than there are layers, or than sets of weights.
    """
    if groups > num_layers:
        raise RequestError(f"`groups` is {groups}; the model has {num_layers} layers", hint=f"give 1 to {num_layers}")
    if groups > num_groups:
        raise RequestError(
            f"`groups` is {groups}; the model's layers share {num_groups} sets of weights already",
            hint=f"give 1 to {num_groups}",
        )
