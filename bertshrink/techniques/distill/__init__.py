"""Distillation as DistilBERT does it: the student is the teacher with every other layer, taught by the whole teacher.

    student layer i = teacher layer round(i L / N)        i = 1..N, halves upward; other maps are in `layer_maps`
    loss = a KL(teacher/T || student/T) T^2 + b task + c (1 - cos(h_student, h_teacher)) + further parts (`losses`)

The KL runs over classes, over tags or the vocabulary at every attended token, or over the tokens at which an answer
starts and ends; of scores it is the squared error. The task loss compares with the labels, or with the masked tokens. A
sentence encoder has no classes: there, the soft target is the teacher's sentence vector and the matrix of similarities
in the batch. Rows without labels are learnt from by the teacher's answers alone.

A student may be thinner than its teacher, too (`narrow`): hidden states are then compared through a learned projection
(TinyBERT), relations need none (MiniLMv2). Without `layers` it keeps its depth and only learns: the recovery of a model
that another stage made smaller. With `fake_quant` it learns as it will compute after `quantize` (see there).

Of small data it reads made texts, too (`augment_per_example`).

Papers: DistilBERT, arXiv:1910.01108; the parts' own are in `losses` and `augment`. Left out: several teachers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertshrink.errors import UserError
from bertshrink.techniques.base import Workbench

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.model_ref import Model
from bertshrink.techniques.distill.settings import DistillSettings


class Distill(DistillSettings):
    """Distill a smaller student from its teacher."""

    def __call__(self, model: Model, bench: Workbench) -> Encoder:
        """Reduce the model and teach it."""
        from bertshrink.model.encoder import Encoder
        from bertshrink.techniques.distill.apply import make_student, teach, teach_shallow

        if not isinstance(model, Encoder):
            raise UserError("`distill` takes an encoder, not an artifact")
        if self.match_layers is not None:
            return teach_shallow(model, self, bench)
        student, chosen = make_student(model, self, bench)
        return teach(student, self, chosen, model.shape.num_layers, bench)
