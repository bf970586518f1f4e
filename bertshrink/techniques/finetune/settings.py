"""Settings of `finetune`: what they mean, what fits them, what they promise. No torch at import."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from bertshrink.errors import UserError
from bertshrink.model.checks.stock_class import refuse_task_without_class
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.base import Need, Technique
from bertshrink.training.settings import TrainingSettings

if TYPE_CHECKING:
    from bertshrink.model.checkpoint_info import CheckpointInfo
    from bertshrink.model.model_ref import Kind


@dataclass(frozen=True)
class TrainingDefaults:
    """What a task decides where the recipe is silent: epochs, and the learning rate of a BERT of base size."""

    epochs: float
    learning_rate: float


RATES: dict[str, TrainingDefaults] = {
    "classification": TrainingDefaults(3, 5e-5),
    "multi-label": TrainingDefaults(5, 5e-5),
    "regression": TrainingDefaults(4, 5e-5),
    "token-classification": TrainingDefaults(5, 5e-5),
    "question-answering": TrainingDefaults(3, 5e-5),
    "embedding": TrainingDefaults(4, 2e-5),
    "sparse-embedding": TrainingDefaults(4, 2e-5),
    "mlm": TrainingDefaults(3, 5e-5),
}
BASE_WIDTH = 768
LEAST_STEPS, MOST_EPOCHS = 150, 20
"""Of few texts, as many epochs as take so many steps, but no more: small data needs steps, not passes (Mosbach et al.
2021, arXiv:2006.04884)."""
SMALL_FACTOR = 2.0
"""The rate of encoders below `BASE_WIDTH` over that of BERT base: smaller models are trained at higher rates."""


class FinetuneSettings(TrainingSettings, Technique):
    """Fine-tune an encoder on labelled texts."""

    name: ClassVar[str] = "finetune"
    paper: ClassVar[str] = "arXiv:1810.04805"
    takes: ClassVar[tuple[Kind, ...]] = ("encoder",)
    gives: ClassVar[Kind] = "encoder"
    trains: ClassVar[bool] = True
    makes_teacher: ClassVar[bool] = True

    mask_share: float = Field(0.15, gt=0, lt=1, description="MLM: fraction of masked tokens")
    whole_word: bool = Field(False, description="MLM: mask whole words")

    def needs(self) -> frozenset[Need]:
        """Texts to learn from and to be judged by."""
        return frozenset({"train", "dev"})

    def needs_labels(self, task: str) -> bool:
        """Every task learns from labels but masked tokens and pairs of texts."""
        return TASKS[task].needs_labels

    def label(self) -> str:
        """The stage in a few words."""
        return "fine-tuned"

    def rate(self, task: str, hidden_size: int, num_rows: int) -> TrainingDefaults:
        """The task's rate, for so many rows, with this stage's own settings laid over it."""
        defaults = RATES[task]
        if TASKS[task].has_labels and num_rows:
            wanted = math.ceil(LEAST_STEPS * self.batch_size / num_rows)
            defaults = replace(defaults, epochs=max(defaults.epochs, min(MOST_EPOCHS, wanted)))
        if hidden_size < BASE_WIDTH:
            defaults = replace(defaults, learning_rate=defaults.learning_rate * SMALL_FACTOR)
        own = {"epochs": self.epochs, "learning_rate": self.learning_rate}
        return replace(defaults, **{key: value for key, value in own.items() if value is not None})

    def fit(self, facts: CheckpointInfo) -> CheckpointInfo:
        """Prove that masks are asked for only where there are any; `facts.task` is the task that is learnt."""
        refuse_task_without_class(facts.anatomy, facts.task, str(facts.folder))
        for name in ("mask_share", "whole_word"):
            if not TASKS[facts.task].is_masked and name in self.model_fields_set:
                raise UserError(
                    f"`{name}` is set, but only a masked language model has tokens masked in training",
                    hint="leave it out",
                    setting=name,
                )
        return facts
