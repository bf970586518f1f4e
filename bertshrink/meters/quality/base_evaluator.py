"""What all exams have in common: one set of questions, asked of every model of a run (see `evaluators`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from bertshrink.data.labels.labels import match_labels
from bertshrink.data.texts import fingerprint_of
from bertshrink.errors import CheckFailed
from bertshrink.meters.quality.intervals import Share, Spread, ahead
from bertshrink.model.tasks import TASKS
from bertshrink.report.correctness_bits import Outcomes
from bertshrink.report.measurement import Better, Conditions, Measurement

if TYPE_CHECKING:
    from bertshrink.data.texts import Split
    from bertshrink.model.artifact import Artifact
    from bertshrink.model.batches import Row
    from bertshrink.model.encoder import Encoder


class Score(NamedTuple):
    """One figure of a model's answers.

    `right`: of a share of answers, which of them are right; `spread`: what its texts say of it; `chance`: what always
    giving the commonest answer gets; `is_likeness`: it is about the reference, in which that one is not a rival.
    """

    metric: str
    unit: str
    value: float
    better: Better
    right: Sequence[bool] | None = None
    spread: Spread | None = None
    chance: float | None = None
    is_likeness: bool = False


def share_of(metric: str, right: Sequence[bool], chance: float | None = None, *, is_likeness: bool = False) -> Score:
    """The share of answers that are right, one answer a question, with the outcome of each."""
    num = sum(map(bool, right))
    share = num / max(1, len(right))
    return Score(metric, "fraction", share, "higher", right, Share(num, len(right)), chance, is_likeness)


@dataclass
class Evaluator(ABC):
    """The texts that judge and the reference's answers.

    Every model reads the texts with its own tokenizer and up to its own longest input. Only masked tokens bind all
    models to one vocabulary: they are the question itself.

    Attributes:
        task: a name in `TASKS`.
        max_length: cap on tokens per text; None: each model's own.
        labels: the reference's label names, in whose order logits are compared.
        conditions: dataset, side, number of texts.
        dimensions: to each of which sentence vectors are truncated and evaluated again.
        reference: the first model's answers, set by its own sitting.
        of_reference: its figures, by metric.
    """

    task: str
    split: Split
    max_length: int | None
    labels: tuple[str, ...]
    conditions: Conditions
    seed: int
    dimensions: tuple[int, ...] = ()
    reference: Any = None
    of_reference: dict[str, Score] = field(default_factory=dict)

    def sit(self, model: Encoder | Artifact) -> list[Measurement]:
        """The model's figures; the first model to sit becomes the reference.

        Raises:
            CheckFailed: the model's outputs are not finite.
            UserError: its classes, or for MLM its tokens, are others than the reference's.
        """
        is_first = self.reference is None
        figures = self.figures(model)
        if is_first:
            self.of_reference = {one.metric: one for one in figures}
        conditions = self.conditions.model_copy(update={"questions": self.questions})
        return [
            Measurement.single(
                one.metric,
                one.unit,
                one.value,
                one.better,
                conditions=conditions,
                outcomes=Outcomes.of(one.right) if one.right is not None and len(one.right) else None,
                sampling=one.spread.interval() if one.spread is not None else None,
                ahead=None if is_first else self._ahead(one),
                chance=one.chance,
            )
            for one in figures
        ]

    def figures(self, model: Encoder | Artifact) -> list[Score]:
        """The model's bare figures; errors, and what the first model is, as in `sit`."""
        answers = self.answer(model)
        if self.reference is None:
            self.reference = answers
        return self.judge(answers, self.reference)

    def _ahead(self, own: Score) -> tuple[float, float] | None:
        other = self.of_reference.get(own.metric)
        if own.is_likeness or own.spread is None or other is None or other.spread is None:
            return None
        return ahead(own.spread, other.spread)

    @cached_property
    def questions(self) -> str:
        """The fingerprint of what is asked: texts, right answers, and what decides which tokens are masked."""
        return fingerprint_of(self.split, *([self.seed] if TASKS[self.task].is_masked else []))

    def headline(self, model: Encoder | Artifact) -> float | None:
        """The task's headline metric alone; None where nothing is labelled."""
        score = self.headline_of(self.figures(model))
        return score.value if score is not None else None

    def headline_of(self, scores: Sequence[Score]) -> Score | None:
        """The headline metric among a model's figures; None where nothing is labelled."""
        return next((one for one in scores if one.metric == TASKS[self.task].headline), None)

    def set(self, model: Encoder | Artifact) -> None:
        """Prepare what all models are asked."""
        if self.split.labels is not None and TASKS[self.task].needs_labels:
            match_labels(
                self.task, self.split.labels, model.labels, str(self.conditions.dataset), self.split.label_names
            )

    @abstractmethod
    def answer(self, model: Encoder | Artifact) -> Any:
        """The model's answers to all questions."""

    @abstractmethod
    def judge(self, answers: Any, reference: Any) -> list[Score]:
        """The figures of answers."""

    @property
    def truth(self) -> list[Any]:
        """The right answer of each text, None where there is none."""
        if self.split.labels is None:
            return [None] * len(self.split)
        where = str(self.conditions.dataset)
        return match_labels(self.task, self.split.labels, self.labels, where, self.split.label_names)

    def labelled(self) -> tuple[list[int], list[Any]]:
        """Numbers of the labelled texts, and their right answers."""
        known = [(i, value) for i, value in enumerate(self.truth) if value is not None]
        return [i for i, _ in known], [value for _, value in known]

    def outputs(self, model: Encoder | Artifact, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """The model's finite outputs of rows, float32."""
        import numpy as np

        outputs = [{name: value.astype(np.float32) for name, value in row.items()} for row in model.predict(rows)]
        self.require_finite(model, all(np.isfinite(value).all() for row in outputs for value in row.values()))
        return outputs

    @staticmethod
    def require_finite(model: Encoder | Artifact, is_finite: bool) -> None:
        """Refuse a model that answers with numbers that are none."""
        if not is_finite:
            raise CheckFailed(
                f"the outputs of `{model.source}` are not finite on the dev texts",
                hint="the model is damaged, or its training diverged: train it with a lower learning rate",
            )
