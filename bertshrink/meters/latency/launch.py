"""How a model that lies in a folder is run, and under which conditions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bertshrink.model.artifact import Artifact
from bertshrink.model.tasks import TASKS
from bertshrink.report.measurement import Conditions
from bertshrink.worker.job import RunSpec

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder


def conditions_of(launch: RunSpec, target: str, threads: int, batch: int, length: int) -> Conditions:
    """What a figure of one (batch, length) is taken under."""
    return Conditions(
        target=target, engine=launch.engine, precision=launch.precision, threads=threads, batch=batch, length=length
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
            tokenizer=folder.resolve() / "tokenizer.json",
        )
    task = TASKS[model.task]
    pooling = list(model.pooling.spec) if model.pooling else None
    layers = [layer.spec for layer in model.pooling.layers] if model.pooling else []
    session, words = model.session().describe(), model.words_in(folder)
    return RunSpec(
        engine="torch",
        path=folder.resolve(),
        options={"auto_class": task.auto_class, "outputs": list(task.outputs), "pooling": pooling}
        | ({"layers": layers} if layers else {})
        | ({"words": words} if words else {}),
        precision=session["precision"],
        vocab_size=model.shape.vocab_size,
        inputs=tuple(session["inputs"]),
        max_length=model.max_length,
        tokenizer=folder.resolve() / "tokenizer.json",
    )
