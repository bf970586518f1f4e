"""What an encoder's heads do, as one versioned JSON document: `inspect --attention` makes it, and draws its page of it.

Maps are small squares of bytes: a byte is the share of a row's attention, of `largest` at 255.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Literal["bertshrink.attention/1"] = "bertshrink.attention/1"

Role = Literal["vertical", "diagonal", "vertical+diagonal", "block", "heterogeneous", "mixed"]
ROLES: tuple[Role, ...] = ("vertical", "vertical+diagonal", "diagonal", "block", "mixed", "heterogeneous")
"""In the order in which one would expect them to be missed, the least first."""

Way = Literal["zeroed", "uniform"]
WAYS: tuple[Way, ...] = ("zeroed", "uniform")
"""How a head is disabled: its output is 0, or the mean of the values of all tokens."""

Finding = Literal["worse", "better", "no difference shown", "not tested"]

Order = Literal["fisher", "class", "class reversed", "random"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AttentionMap(_Part):
    """A square of attention: row = token that looks, column = token looked at."""

    size: int = Field(description="rows, and columns")
    largest: float = Field(description="the share that the byte 255 stands for")
    pixels: str = Field(description="base64 of size x size bytes")


class Effect(_Part):
    """What disabling a head or a layer does to the metric."""

    value: float
    change: float = Field(description="value less that of the undisturbed model")
    interval: tuple[float, float] | None = Field(description="95 % bounds of the change over the same texts")
    lost: int | None = Field(None, description="answers that were right and are wrong")
    won: int | None = Field(None, description="answers that were wrong and are right")
    p: float | None = Field(None, description="of the paired test that there is no difference; None: not tested")
    p_holm: float | None = Field(None, description="the same, corrected for all tests of this document")
    finding: Finding


class HeadFacts(_Part):
    """One head; shares are of a row's attention, means over rows and texts."""

    layer: int = Field(description="from 0")
    head: int = Field(description="from 0")
    role: Role
    first: float = Field(description="on the first token")
    separators: float = Field(description="on separators and other special tokens than the first")
    punctuation: float
    before: float = Field(description="on the token before, offset -1")
    itself: float = Field(description="offset 0")
    after: float = Field(description="offset +1")
    segment: float | None = Field(description="within the own text of a pair, above the share of its tokens")
    entropy: float = Field(description="over log of the length: 0 one token, 1 all alike")
    variation: float = Field(description="spread of the resampled maps over texts, relative to their mean")
    vertical_score: float = Field(description="what the role was decided by: 0 as by chance, 1 all")
    diagonal_score: float
    block_score: float | None
    importance: float = Field(description="Fisher: mean squared gradient with respect to a factor on its output")
    base_cosine: float | None = Field(None, description="mean cosine of its maps with the base model's")
    mean_map: AttentionMap
    examples: list[AttentionMap]
    effects: dict[Way, Effect]


class LayerFacts(_Part):
    """One layer, all of whose heads are disabled together."""

    layer: int
    base_cosine: float | None = None
    effects: dict[Way, Effect]


class Point(_Part):
    """The metric with so many heads zeroed, once for each drawn order."""

    num_removed: int
    values: list[float]


class Curve(_Part):
    """What removing more and more heads in one order does."""

    order: Order
    points: list[Point]


class AttentionReport(_Part):
    """All of it."""

    schema_: Literal["bertshrink.attention/1"] = Field("bertshrink.attention/1", alias="schema")
    bertshrink: str
    created: str
    model: str
    family: str
    task: str
    data: str
    split: str = Field(description="the side of the data that heads are judged by")
    num_map_texts: int
    map_length: int = Field(description="tokens at which texts were truncated for maps")
    num_judged: int
    metric: str
    is_labelled: bool = Field(description="whether the metric is against labels; else against the undisturbed model")
    undisturbed: float
    importance_from: str
    thresholds: dict[str, float]
    base: str | None
    examples: list[list[str]] = Field(description="tokens of each example")
    heads: list[HeadFacts]
    layers: list[LayerFacts]
    curves: list[Curve]
    notes: list[str]
    seconds: float

    def to_json(self) -> str:
        """One document."""
        return self.model_dump_json(indent=1, by_alias=True) + "\n"

    @property
    def num_heads(self) -> int:
        """Heads of a layer."""
        return len(self.heads) // len(self.layers)
