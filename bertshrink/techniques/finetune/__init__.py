"""Fine-tuning: the teacher of a task, made from any encoder.

    base weights of the model + a new head        (the model's own head where it has one for this task and these labels)
    loss = the task's own (`training.losses`)
    embedding: squared error of the cosine of pairs with scores                            arXiv:1908.10084
               pairs without scores: cross-entropy of each text's partner among the batch  arXiv:1705.00652

The labels are the data's, in the order in which the data numbers them or sorted by name. Rates and epochs follow the
BERT paper's advice (arXiv:1810.04805, appendix A.3: 2 to 4 epochs, 2e-5 to 5e-5), higher for the small encoders that
this tool is mostly given: where the width is below 768 the rate is doubled, a choice that was not measured against
others. Left out: wrong partners chosen beforehand; pairs learn from those of their own batch alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from bertshrink.errors import RequestError
from bertshrink.techniques.base import Kind, Need, Technique, Workbench
from bertshrink.training.settings import TrainingSettings

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.facts import Facts
    from bertshrink.techniques.base import Model


@dataclass(frozen=True)
class Rate:
    """What a task decides where the recipe is silent: epochs, and the learning rate of a BERT of base size."""

    epochs: float
    learning_rate: float


RATES: dict[str, Rate] = {
    "classification": Rate(3, 5e-5),
    "multi-label": Rate(5, 5e-5),
    "regression": Rate(4, 5e-5),
    "token-classification": Rate(5, 5e-5),
    "question-answering": Rate(3, 5e-5),
    "embedding": Rate(4, 2e-5),
    "mlm": Rate(3, 5e-5),
}
BASE_WIDTH = 768
SMALL_FACTOR = 2.0
"""The rate of encoders below `BASE_WIDTH` over that of BERT base: smaller models are trained at higher rates."""


class Finetune(TrainingSettings, Technique):
    """Teach an encoder a task from labelled texts: make a teacher."""

    name: ClassVar[str] = "finetune"
    paper: ClassVar[str] = "arXiv:1810.04805"
    takes: ClassVar[tuple[Kind, ...]] = ("encoder",)
    gives: ClassVar[Kind] = "encoder"
    trains: ClassVar[bool] = True
    makes_teacher: ClassVar[bool] = True

    mask_share: float = Field(0.15, gt=0, lt=1, description="MLM: share of tokens that are masked")
    whole_word: bool = Field(False, description="MLM: mask whole words")

    def needs(self) -> frozenset[Need]:
        """Texts to learn from and to be judged by."""
        return frozenset({"train", "dev"})

    def needs_labels(self, task: str) -> bool:
        """Every task learns from labels but masked tokens and pairs of texts."""
        return task not in ("mlm", "embedding")

    def label(self) -> str:
        """The stage in a few words."""
        return "fine-tuned"

    def rate(self, task: str, hidden_size: int) -> Rate:
        """The task's rate with this stage's own settings laid over it."""
        found = RATES[task]
        if hidden_size < BASE_WIDTH:
            found = replace(found, learning_rate=found.learning_rate * SMALL_FACTOR)
        own = {"epochs": self.epochs, "learning_rate": self.learning_rate}
        return replace(found, **{key: value for key, value in own.items() if value is not None})

    def fit(self, facts: Facts) -> Facts:
        """Prove that masks are asked for only where there are any; `facts.task` is the task that is learnt."""
        for name in ("mask_share", "whole_word"):
            if facts.task != "mlm" and name in self.model_fields_set:
                raise RequestError(
                    f"`{name}` is set, but only a masked language model has tokens masked in training",
                    hint="leave it out",
                )
        return facts

    def __call__(self, model: Model, bench: Workbench) -> Encoder:
        """Give the model its head and train it."""
        from bertshrink.model.encoder import Encoder
        from bertshrink.techniques.finetune.learn import learn, with_head

        if not isinstance(model, Encoder):
            raise RequestError("`finetune` takes an encoder, not an artifact")
        return learn(with_head(model, bench), self, bench)
