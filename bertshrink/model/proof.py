"""What is done with any model, encoder or artifact alike: load it, tell it apart, describe it, prove it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bertshrink.errors import CheckFailed
from bertshrink.model.facts import ARTIFACT_CARD, WEIGHTS, Facts, read_facts
from bertshrink.model.files import MANIFEST, sha256_file
from bertshrink.model.json_files import read_object
from bertshrink.model.store import STAGE_CARD, fingerprint
from bertshrink.model.task import TASKS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertshrink.model.artifact import Artifact
    from bertshrink.model.encoder import Encoder

    Model = Encoder | Artifact

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


def load_model(
    folder: Path, facts: Facts | None = None, source: str | None = None, *, is_lasting: bool = False
) -> Model:
    """An encoder or an artifact from its folder.

    Args:
        folder: where it lies.
        facts: what the folder says, where a recipe named the task.
        source: its name for messages.
        is_lasting: whether the folder stays as long as the model is used, and nobody changes the model in memory: an
            encoder can then let its weights go (`Encoder.release`).

    """
    from bertshrink.model.artifact import Artifact
    from bertshrink.model.encoder import Encoder, quiet_libraries

    quiet_libraries()
    if (folder / ARTIFACT_CARD).is_file():
        return Artifact.load(folder, source)
    facts = facts or read_facts(folder)
    found = Encoder.from_facts(facts, source)
    return replace(found, stored=facts) if is_lasting else found


def folder_key(folder: Path, task: str) -> str:
    """What decides a model that was given: the content of its files and the task it is used for."""
    paths = {*folder.glob("*"), *folder.glob("[0-9]*_*/*")}
    if (folder / ARTIFACT_CARD).is_file():
        paths |= {folder / str(read_object(folder / ARTIFACT_CARD).get("file"))}
    names = sorted(p for p in paths if p.is_file() and _matters(p))
    return fingerprint(task, [(p.relative_to(folder).as_posix(), sha256_file(p)) for p in names])


def _matters(path: Path) -> bool:
    """Whether a file at the top, or in a sentence-transformers module's folder, can change what the model answers."""
    kinds = (".json", ".txt", ".model", ".safetensors", ".onnx", ".ort", ".pte")
    return path.suffix in kinds and path.name not in (MANIFEST, STAGE_CARD, "report.json")


def weights_sha256(model: Model, folder: Path) -> str:
    """The sha256 of the file that holds a model's weights: by it a gate knows what a report is about."""
    from bertshrink.model.artifact import Artifact

    return sha256_file(folder / (model.card.file if isinstance(model, Artifact) else WEIGHTS))


def describe(model: Model) -> dict[str, Any]:
    """Family, task and sizes of a model, for the report."""
    from bertshrink.model.encoder import Encoder

    if isinstance(model, Encoder):
        shape = model.shape
        facts: dict[str, Any] = {
            "family": model.anatomy.family,
            "task": model.task,
            "num_layers": shape.num_layers,
            "hidden_size": shape.hidden_size,
            "num_heads": shape.num_heads,
            "intermediate_size": shape.intermediate_size,
            "vocab_size": shape.vocab_size,
            "precision": str(model.model.dtype).removeprefix("torch."),
        }
        if model.anatomy.is_shared:
            facts["num_groups"] = shape.num_groups
        return facts
    card = model.card
    return {
        "family": card.family,
        "task": card.task,
        "format": card.format,
        "engine": card.engine,
        "precision": card.precision,
        **{f"detail_{key}": value for key, value in card.details.items() if not isinstance(value, dict | list)},
    }


def proof_answers(model: Model) -> list[NDArray[Any]]:
    """What a model answers to `PROOF_TEXTS`: every output of each."""
    rows = model.tokenize(PROOF_TEXTS)
    return [out[name] for out in model.predict(rows) for name in TASKS[model.task].outputs]


def prove(
    made: Model, folder: Path, kind: Literal["encoder", "artifact"], before: Sequence[NDArray[Any]] | None
) -> Model:
    """Prove a stage's result: of the right kind and outputs, finite, and the same after loading it back.

    Args:
        made: what the stage gave.
        folder: where it was saved.
        kind: what the stage promised.
        before: `proof_answers` of the model that it was made from; None: there is none to be like.

    Returns:
        the model as loaded from `folder`.

    Raises:
        CheckFailed: it is not.
    """
    import numpy as np

    is_artifact = (folder / ARTIFACT_CARD).is_file()
    if is_artifact != (kind == "artifact"):
        raise CheckFailed(f"the stage promised an {kind} and gave something else")
    if is_artifact:
        from bertshrink.model.artifact import Artifact

        again: Model = Artifact(folder, made.card)  # type: ignore[union-attr]
    else:
        again = load_model(folder, read_facts(folder, made.task), made.source)
    first, second = proof_answers(made), proof_answers(again)
    outputs = TASKS[made.task].outputs

    def widths(answer: NDArray[Any]) -> tuple[int, ...]:
        return answer.shape[1:] if TASKS[made.task].per_token else answer.shape  # a text may be cut shorter now

    hint = "nothing of the stage was kept; try other settings, and report it if it stays"
    for at, (mine, reloaded, previous) in enumerate(zip(first, second, before or first, strict=True)):
        if not np.isfinite(mine).all():
            raise CheckFailed("the stage's model gives values that are not finite", hint=hint)
        if widths(mine) != widths(previous):
            name, shapes = outputs[at % len(outputs)], f"from {widths(previous)} to {widths(mine)}"
            raise CheckFailed(f"the stage changed the shape of `{name}` {shapes}", hint=hint)
        if np.abs(mine - reloaded).max() > PROOF_TOLERANCE * max(1.0, float(np.abs(mine).max())):
            raise CheckFailed("the stage's model gives other numbers after it was saved and loaded", hint=hint)
    return again
