"""What a batch costs: the task's losses from a student's and a teacher's outputs, each part by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bertshrink.engines.torch_engine import pool
from bertshrink.model.facts import Pooling
from bertshrink.techniques.distill import Defaults
from bertshrink.techniques.distill.losses import (
    hard_targets,
    hidden_cosine,
    similarity_structure,
    soft_targets,
    vector_cosine,
)


class Objective:
    """The weighted sum of a task's losses.

    Args:
        task: `classification`, `embedding` or `mlm`.
        weights: the weights of the parts.
        aligned: (student state, teacher state) pairs compared by cosine; 0 is the embeddings' output, i layer i's.
        pooling: for `embedding`.
    """

    def __init__(
        self, task: str, weights: Defaults, aligned: Sequence[tuple[int, int]], pooling: Pooling | None = None
    ) -> None:
        self.task = task
        self.weights = weights
        self.aligned = list(aligned[-1:] if weights.states == "last" else aligned) if weights.hidden else []
        self.pooling = pooling

    def __call__(
        self, student: nn.Module, teacher: nn.Module, batch: dict[str, Tensor], labels: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (scalar, with gradient) and its unweighted parts (scalars, without).

        Args:
            student: gets gradients.
            teacher: gets none; its parameters' type is its arithmetic's.
            batch: input_ids, attention_mask[, token_type_ids], each (B, L).
            labels: (B,) class numbers, (B, L) token ids with `IGNORED` elsewhere, or None.
        """
        wants_states = bool(self.aligned)
        with torch.no_grad():
            taught = teacher(**batch, output_hidden_states=wants_states)
        out = student(**batch, output_hidden_states=wants_states)
        mask_BL = batch["attention_mask"]
        parts = self._task_parts(out, taught, mask_BL, labels)
        total = sum(weight * value for weight, value in parts.values())
        if wants_states:
            cosines = [hidden_cosine(out.hidden_states[s], taught.hidden_states[t], mask_BL) for s, t in self.aligned]
            hidden = torch.stack(cosines).mean()
            parts["hidden"] = (self.weights.hidden, hidden)
            total = total + self.weights.hidden * hidden
        return torch.as_tensor(total), {name: value.detach() for name, (_, value) in parts.items()}

    def _task_parts(
        self, out: Any, taught: Any, mask_BL: Tensor, labels: Tensor | None
    ) -> dict[str, tuple[float, Tensor]]:
        weights = self.weights
        if self.task == "embedding":
            assert self.pooling is not None
            settings = (self.pooling.mode, self.pooling.normalize)
            mine, theirs = (pool(o.last_hidden_state.float(), mask_BL, *settings) for o in (out, taught))
            return {
                "vector": (weights.soft, vector_cosine(mine, theirs)),
                "structure": (weights.soft, similarity_structure(mine, theirs, weights.temperature)),
            }
        student, teacher = out.logits, taught.logits
        if self.task == "mlm":
            attended = mask_BL.bool()
            student, teacher = student[attended], teacher[attended]
            labels = labels[attended] if labels is not None else None
        parts = {"soft": (weights.soft, soft_targets(student, teacher, weights.temperature))} if weights.soft else {}
        if weights.task and labels is not None:
            parts["task"] = (weights.task, hard_targets(student, labels))
        return parts
