"""The weights of the losses, by task, and what else a task decides where the recipe is silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LossWeights:
    """The weights of a task's losses, and what else a task decides where the recipe is silent."""

    soft: float = 1.0
    task: float = 0.5
    hidden: float = 1.0
    attention: float = 0.0
    relation: float = 0.0
    logits: float = 0.0
    temperature: float = 2.0
    states: Literal["last", "all"] = "all"
    hidden_loss: Literal["cosine", "mse"] = "cosine"
    dropout: bool = True
    learning_rate: float = 1e-4
    epochs: float | None = None
    most_epochs: int = 10


DEFAULTS: dict[str, LossWeights] = {
    # Classification's are the first that held the goal of 97 % of the teacher on SST-2, embedding's are chosen among
    # six measured settings (benchmarks/LOG.md).
    "classification": LossWeights(),
    "multi-label": LossWeights(),
    "regression": LossWeights(),
    "token-classification": LossWeights(learning_rate=2e-4),
    "question-answering": LossWeights(learning_rate=2e-4, most_epochs=3),
    "embedding": LossWeights(task=0.0, temperature=0.2, dropout=False, learning_rate=2e-4, most_epochs=3),
    # As embedding's; not chosen by measuring.
    "sparse-embedding": LossWeights(task=0.0, temperature=0.2, dropout=False, learning_rate=2e-4, most_epochs=3),
    # The published command of DistilBERT's code: alpha_ce 5, alpha_mlm 2, alpha_cos 1, T 2, last state, lr 5e-4,
    # 3 epochs.
    "mlm": LossWeights(soft=5.0, task=2.0, states="last", learning_rate=5e-4, epochs=3),
}

EMBEDDINGS_LEARNING_RATE = 1e-3
"""Where embeddings learn alone, the best of 4e-4, 1e-3 and 4e-3 with AdamW (benchmarks/LOG.md)."""
ROUNDED_SLOWDOWN = 5.0
"""What the learning rate is divided by where a student keeps its size and only learns to bear rounding: it has little
to learn and much to forget. SST-2, 3,000 texts, int4 with zero points, no labels: the cosine of the rounded student's
logits to its teacher's is 0.9966 before, 0.9911 after training with 1e-4, and 0.9973 with 2e-5."""
SHALLOW_BATCH = 8
"""Rows a step where embeddings learn from the first layers alone: many small steps do more (benchmarks/LOG.md)."""
ENOUGH_STEPS = 2000
"""Where a task has no number of epochs of its own: as many as take so many steps, but each text once, and none more
often than the task's `most_epochs`. SST-2 (2,105 steps an epoch) is past 97 % of its teacher after one; small data want
several."""


def default_epochs(num_batches: int, most_epochs: int) -> float:
    """Passes over the texts where neither recipe nor task says, from the steps that one takes."""
    return min(float(most_epochs), max(1.0, round(ENOUGH_STEPS / num_batches, 1)))
