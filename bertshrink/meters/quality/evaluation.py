"""The judge of a run: one exam for all its models, set by the reference, and what early stopping asks.

What a model is judged by it neither learnt from nor was stopped by: `data.texts` has the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bertshrink.progress import Progress

if TYPE_CHECKING:
    from bertshrink.data.texts import TextDataset
    from bertshrink.meters.quality.base_evaluator import Evaluator
    from bertshrink.model.model_ref import Model
    from bertshrink.report.measurement import Measurement


@dataclass
class Evaluation:
    """Judges the models of a run by their answers to texts.

    Attributes:
        texts: the data as models are compared on it; None: nothing judges.
        max_length: cap on tokens per text; None: each model's own.
        dimensions: to each of which sentence vectors are truncated and evaluated again.
    """

    texts: TextDataset | None
    max_length: int | None
    seed: int
    progress: Progress
    dimensions: tuple[int, ...] = ()
    _exam: Evaluator | None = field(default=None, repr=False)

    def quality(self, model: Model, reference: Callable[[], Model]) -> list[Measurement]:
        """A model's figures; the reference sits first, once, whoever is asked about.

        Args:
            reference: gives the model that all others are compared with.

        Raises:
            UserError: labels or classes that are not the reference's.
            CheckFailed: outputs that are not finite.
        """
        if self.texts is None:
            return []
        if self._exam is None:
            from bertshrink.meters.quality.evaluators import prepare

            first = reference()
            exam = prepare(first, self.texts, self.max_length, self.seed, dimensions=self.dimensions)
            self.progress.log(f"evaluating the reference on the {self.texts.judged_name} texts")
            with self.progress.task("evaluate the reference"):
                measurements = exam.sit(first)
            self._exam = exam
            if model is first:
                return measurements
        with self.progress.task(f"evaluate on the {self.texts.judged_name} texts"):
            return self._exam.sit(model)

    def chooser(
        self, texts: TextDataset | None, reference: Callable[[], Model] | None
    ) -> Callable[[Model], float] | None:
        """What early stopping asks of a model, higher is better; None where there is nothing to ask about.

        Args:
            texts: those that the model learns from.
            reference: gives what the model is compared with where the metric is a likeness; None: there is none yet.
        """
        if texts is None:
            return None
        from bertshrink.meters.quality.evaluators import chooser

        return chooser(reference, texts, self.max_length, self.seed)
