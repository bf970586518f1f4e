"""A stage's result is proven before it is kept: of the right kind, finite, and the same after a round trip to disk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bertshrink.errors import CheckFailed
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertshrink.model.model_ref import Kind, Model, ModelRef

PROOF_TOLERANCE = 1e-5
"""Largest difference between a model in memory and the same one loaded back, as a share of its largest output."""

PROOF_TEXTS = (
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "It was, all in all, a surprisingly good film.",
    "Return the first element, or None when there is none!",
    "Prices rose by 3.5 % in 2019; wages did not.",
    "no",
    "Who wrote this, and when was it written?",
    "Batteries are not included, and neither are instructions for putting the thing together.",
)


def proof_answers(model: Model) -> list[NDArray[Any]]:
    """What a model answers to `PROOF_TEXTS`: every output of each."""
    rows = model.tokenize(PROOF_TEXTS)
    return [out[name] for out in model.predict(rows) for name in TASKS[model.task].outputs]


def prove(made: Model, saved: ModelRef, kind: Kind, before: Sequence[NDArray[Any]] | None) -> None:
    """Prove a stage's result: of the right kind and outputs, finite, and the same after loading it back.

    Args:
        made: what the stage gave.
        saved: the same as it was saved; loaded afterwards.
        before: `proof_answers` of the model that it was made from; None: there is none to be like.

    Raises:
        CheckFailed: it is not.
    """
    import numpy as np

    if saved.kind != kind:
        raise CheckFailed(f"the stage should return an {kind} and returned something else")
    first, second = proof_answers(made), proof_answers(saved.load())
    outputs = TASKS[made.task].outputs

    def widths(answer: NDArray[Any]) -> tuple[int, ...]:
        return answer.shape[1:] if TASKS[made.task].per_token else answer.shape  # a text may be cut shorter now

    hint = "the stage's output was discarded; try other settings, and report it if it persists"
    for at, (mine, reloaded, previous) in enumerate(zip(first, second, before or first, strict=True)):
        if not np.isfinite(mine).all():
            raise CheckFailed("the stage's model returns non-finite values", hint=hint)
        if widths(mine) != widths(previous):
            name, shapes = outputs[at % len(outputs)], f"from {widths(previous)} to {widths(mine)}"
            raise CheckFailed(f"the stage changed the shape of `{name}` {shapes}", hint=hint)
        if np.abs(mine - reloaded).max() > PROOF_TOLERANCE * max(1.0, float(np.abs(mine).max())):
            raise CheckFailed("the stage's model gives different outputs after saving and loading", hint=hint)
