"""What disabling each head and each layer's attention does to the task's headline metric on the texts that judge."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertshrink.meters.attention.first_layers import FirstLayers
from bertshrink.meters.attention.paired_change import compare, holm
from bertshrink.report.attention import WAYS, Effect, Way

if TYPE_CHECKING:
    import torch

    from bertshrink.meters.attention.head_hooks import Heads
    from bertshrink.meters.quality.base_evaluator import Evaluator, Score
    from bertshrink.model.encoder import Encoder
    from bertshrink.progress import Progress

AGREEMENT = "agreement"


@dataclass(frozen=True)
class Judge:
    """The metric of a model whose heads are disturbed, on one set of texts.

    Attributes:
        before: that of the undisturbed model.
        first_layers: what layers in front of the first disturbed one gave before.
    """

    exam: Evaluator
    encoder: Encoder
    heads: Heads
    before: Score
    first_layers: FirstLayers

    @classmethod
    def of(cls, exam: Evaluator, encoder: Encoder, heads: Heads) -> Judge:
        """A judge who has seen the undisturbed model."""
        exam.reference = exam.answer(encoder)
        return cls(exam, encoder, heads, _score(exam, exam.reference), FirstLayers(encoder))

    @property
    def is_labelled(self) -> bool:
        """Whether the metric is against labels."""
        return not self.before.is_likeness

    def without(self, disabled_NA: torch.Tensor, way: Way) -> Score:
        """The metric with some heads (N, A; true: disabled) disabled."""
        layers = disabled_NA.any(dim=1).nonzero()
        with self.first_layers.skipped(int(layers[0]) if len(layers) else 0), disabling(self.heads, disabled_NA, way):
            return _score(self.exam, self.exam.answer(self.encoder))


def disabling(heads: Heads, disabled_NA: torch.Tensor, way: Way) -> AbstractContextManager[None]:
    """Heads (N, A; true: disabled) disabled in one of the two ways, while the block runs."""
    return heads.uniform(disabled_NA) if way == "uniform" else heads.factors((~disabled_NA).float())


def _score(exam: Evaluator, answers: Any) -> Score:
    """The headline metric, or without labels agreement with the undisturbed model."""
    scores = exam.judge(answers, exam.reference)
    return exam.headline_of(scores) or next(one for one in scores if one.metric == AGREEMENT)


@dataclass(frozen=True)
class Effects:
    """Of every head, (N, A), and of every layer, (N,): way -> effect."""

    heads: list[list[dict[Way, Effect]]]
    layers: list[dict[Way, Effect]]


def disable_each(judge: Judge, progress: Progress) -> Effects:
    """Disable each head and each layer in both ways; all tests are corrected for together."""
    import torch

    num_layers, num_heads = judge.heads.num_layers, judge.heads.num_heads
    units: list[tuple[int, int | None]] = [
        (layer, head) for layer in range(num_layers) for head in (*range(num_heads), None)
    ]
    changes = {}
    with progress.task("disable each head and layer", len(units) * len(WAYS), "models") as task:
        for unit in units:
            disabled = torch.zeros(num_layers, num_heads, dtype=torch.bool)
            disabled[unit[0], slice(None) if unit[1] is None else unit[1]] = True
            for way in WAYS:
                changes[unit, way] = compare(judge.before, judge.without(disabled, way))
                task.advance()
    tested = [key for key, change in changes.items() if change.p is not None]
    corrected = dict(zip(tested, holm([changes[key].p or 0.0 for key in tested]), strict=True))
    is_higher_better = judge.before.better == "higher"
    effects = {
        key: change.effect(corrected.get(key), is_higher_better=is_higher_better) for key, change in changes.items()
    }

    def of(unit: tuple[int, int | None]) -> dict[Way, Effect]:
        return {way: effects[unit, way] for way in WAYS}

    of_heads = [[of((layer, head)) for head in range(num_heads)] for layer in range(num_layers)]
    return Effects(of_heads, [of((layer, None)) for layer in range(num_layers)])
