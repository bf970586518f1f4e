"""What a batch costs: the weighted sum of a task's losses from a student's and a teacher's answers, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bertshrink.model.folder.pooling import Pooling
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.distill import losses
from bertshrink.techniques.distill.defaults import LossWeights
from bertshrink.techniques.distill.teacher import Answers, Wanted, run_model
from bertshrink.training.losses import task_loss


class DistillationLoss(nn.Module):
    """The student with its losses, and a projection to the teacher's width where it is thinner.

    Args:
        student: the model that learns, stock transformers.
        teacher: answers a batch; a `LiveTeacher` or a `CachedTeacher`. It is not part of this module.
        task: a name in `TASKS`.
        weights: of the parts.
        aligned: (student state, teacher state) pairs that belong together; i is layer i's output.
        widths: hidden sizes of student and teacher.
        heads: attention heads of the student, and parts into which relations are cut.
        pooling: for embedding.
        layers: the student's own behind it; they learn, too.
        activation: what makes a score of a logit: `identity` or `sigmoid`.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Callable[[dict[str, Tensor], Tensor | None], Answers],
        task: str,
        weights: LossWeights,
        aligned: Sequence[tuple[int, int]],
        widths: tuple[int, int],
        heads: tuple[int, int],
        pooling: Pooling | None = None,
        activation: str = "identity",
        layers: nn.ModuleList | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList() if layers is None else layers
        self.student = student
        self._teacher = (teacher,)  # in a tuple: a frozen teacher is neither saved nor wrapped with the student
        self.task = task
        self.weights = weights
        self.aligned = list(aligned[-1:] if weights.states == "last" else aligned)
        self.heads = heads
        self.pooling = pooling
        self.activation = activation
        self.mine, theirs = wanted(weights, aligned)
        self.is_taught = theirs != Wanted(False)  # not where labels alone are learnt from
        needs_projection = weights.hidden > 0 and widths[0] != widths[1]
        self.projection = nn.Linear(*widths, bias=False) if needs_projection else nn.Identity()

    def forward(self, **batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (scalar, with gradient) and its unweighted parts (scalars, without).

        Args:
            batch: as `training.rows.batching.Collator` makes it.
        """
        labels, rows = batch.pop("labels", None), batch.pop("rows", None)
        batch.pop("pairs", None)  # a pre-training task of its own, which no student is taught
        theirs = self._teacher[0](batch, rows) if self.is_taught else Answers()
        mine = run_model(self.student, batch, self.mine, self.task, self.pooling, self.layers)
        mask_BL = batch["attention_mask"]
        parts = self._output_parts(mine, theirs, mask_BL, labels) | self._inner_parts(mine, theirs, mask_BL)
        total = torch.stack([weight * value for weight, value in parts.values()]).sum()
        return total, {name: value.detach() for name, (_, value) in parts.items()}

    def _output_parts(
        self, mine: Answers, theirs: Answers, mask_BL: Tensor, labels: Tensor | None
    ) -> dict[str, tuple[float, Tensor]]:
        weights, task = self.weights, TASKS[self.task]
        parts: dict[str, tuple[float, Tensor]] = {}
        pairs = [(mine.outputs[name], theirs.outputs[name]) for name in theirs.outputs]
        if task.reads_context:
            # Probability of padding is not an answer to anything.
            hidden = mask_BL == 0
            pairs = [
                (student.masked_fill(hidden, -1e4), teacher.masked_fill(hidden, -1e4)) for student, teacher in pairs
            ]
        elif task.per_token:
            attended = mask_BL.bool()
            pairs = [(student[attended], teacher[attended]) for student, teacher in pairs]
        if weights.soft:
            for name, loss in losses.SOFT_LOSSES[self.task].items():
                errors = torch.stack([loss(*pair, weights.temperature) for pair in pairs])
                parts[name] = (weights.soft, errors.mean())
        if weights.logits:
            if task.reads_context:
                attended = mask_BL.bool()
                pairs = [(student[attended][:, None], teacher[attended][:, None]) for student, teacher in pairs]
            parts["logits"] = (weights.logits, torch.stack([losses.logits_error(*pair) for pair in pairs]).mean())
        if weights.task and labels is not None:
            parts["task"] = (weights.task, task_loss(self.task, mine.outputs, labels, self.activation))
        return parts

    def _inner_parts(self, mine: Answers, theirs: Answers, mask_BL: Tensor) -> dict[str, tuple[float, Tensor]]:
        weights, parts = self.weights, {}
        if weights.hidden:
            compare = losses.hidden_cosine if weights.hidden_loss == "cosine" else losses.hidden_error
            errors = [compare(self.projection(mine.states[s]), theirs.states[t], mask_BL) for s, t in self.aligned]
            parts["hidden"] = (weights.hidden, torch.stack(errors).mean())
        layers = list(zip(mine.layers.values(), theirs.layers.values(), strict=True))
        if weights.attention:
            errors = [losses.attention_error(s[:2], t[:2], mask_BL, self.heads[0]) for s, t in layers]
            parts["attention"] = (weights.attention, torch.stack(errors).mean())
        if weights.relation:
            errors = [losses.relation_divergence(*layers[-1], mask_BL, self.heads[1])]
            parts["relation"] = (weights.relation, torch.stack(errors).mean())
        return parts


def wanted(weights: LossWeights, aligned: Sequence[tuple[int, int]]) -> tuple[Wanted, Wanted]:
    """What is read of the student and of the teacher."""
    pairs = list(aligned[-1:] if weights.states == "last" else aligned) if weights.hidden else []
    layers = list(aligned) if weights.attention else list(aligned[-1:]) if weights.relation else []
    outputs = bool(weights.soft or weights.logits)
    return (
        Wanted(outputs or bool(weights.task), tuple(s for s, _ in pairs), tuple(s for s, _ in layers)),
        Wanted(outputs, tuple(t for _, t in pairs), tuple(t for _, t in layers)),
    )
