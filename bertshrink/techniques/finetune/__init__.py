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

from typing import TYPE_CHECKING

from bertshrink.errors import UserError
from bertshrink.techniques.base import Workbench

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.model_ref import Model
from bertshrink.techniques.finetune.settings import FinetuneSettings


class Finetune(FinetuneSettings):
    """Fine-tune an encoder on labelled texts."""

    def __call__(self, model: Model, bench: Workbench) -> Encoder:
        """Give the model its head and train it."""
        from bertshrink.model.encoder import Encoder
        from bertshrink.techniques.finetune.apply import learn, with_head

        if not isinstance(model, Encoder):
            raise UserError("`finetune` takes an encoder, not an artifact")
        return learn(with_head(model, bench), self, bench)
