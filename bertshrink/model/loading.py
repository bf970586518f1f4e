"""A model from its folder, whichever kind it is; what tells it apart, and what it is in a few facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.files.atomic import MANIFEST, sha256_file
from bertshrink.files.fingerprint import STAGE_CARD, fingerprint
from bertshrink.files.json_files import read_object
from bertshrink.model.checkpoint import ARTIFACT_CARD, WEIGHTS, CheckpointInfo, read_facts

if TYPE_CHECKING:
    from bertshrink.model.artifact import Artifact
    from bertshrink.model.encoder import Encoder

    Model = Encoder | Artifact


def load_model(
    folder: Path, facts: CheckpointInfo | None = None, source: str | None = None, *, is_lasting: bool = False
) -> Model:
    """An encoder or an artifact from its folder.

    Args:
        facts: what the folder says, where a recipe named the task.
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
