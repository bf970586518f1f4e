"""What a worker must know to run one model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.model.artifact import Artifact
from bertshrink.model.tasks import TASKS
from bertshrink.report.measurement import Conditions

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder


@dataclass(frozen=True)
class RunSpec:
    """What a worker must know to run one model.

    Attributes:
        engine: a name in `engines.ENGINES`.
        path: the model's folder or file.
        options: the engine's options.
        precision: `float32`, `int8`, ...
        vocab_size: token ids are below this.
        inputs: the names of the arrays that the model takes.
        max_length: the longest input in tokens.
        shape: the one (batch, length) that it takes; None: any.
        max_batch: the most rows that it takes at once; None: any number.
        tokenizer: the folder of its tokenizer; needed for texts only.

    """

    engine: str
    path: Path
    options: Mapping[str, Any]
    precision: str
    vocab_size: int
    inputs: tuple[str, ...]
    max_length: int
    shape: tuple[int, int] | None = None
    max_batch: int | None = None
    tokenizer: Path | None = None

    def conditions(self, target: str, threads: int, batch: int, length: int) -> Conditions:
        """What a figure of one (batch, length) is taken under."""
        return Conditions(
            target=target, engine=self.engine, precision=self.precision, threads=threads, batch=batch, length=length
        )


def launch_of(model: Encoder | Artifact, folder: Path) -> RunSpec:
    """How to run a model that is in `folder`: an encoder by torch, an artifact by its own engine."""
    if isinstance(model, Artifact):
        card = model.card
        path = folder.resolve() / card.file
        return RunSpec(
            engine=card.engine,
            path=path,
            options=model.options,
            precision=card.precision,
            vocab_size=card.vocab_size,
            inputs=card.inputs,
            max_length=card.max_length,
            shape=card.shape,
            max_batch=card.max_batch,
            tokenizer=folder.resolve(),
        )
    task = TASKS[model.task]
    pooling = list(model.pooling.spec) if model.pooling else None
    session = model.session().describe()
    return RunSpec(
        engine="torch",
        path=folder.resolve(),
        options={"auto_class": task.auto_class, "outputs": list(task.outputs), "pooling": pooling},
        precision=session["precision"],
        vocab_size=model.shape.vocab_size,
        inputs=tuple(session["inputs"]),
        max_length=model.max_length,
        tokenizer=folder.resolve(),
    )
