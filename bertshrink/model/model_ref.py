"""One model: where it is, what it is, and itself while something needs it.

`ModelRef.read` looks at a folder's small files once: which of the two kinds of model is there, and what it says of
itself. Everything after that asks the reference. Weights are read by `load` and go again with `unload`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bertshrink.errors import named_as_given
from bertshrink.files.atomic import MANIFEST, sha256_file
from bertshrink.files.fingerprint import STAGE_CARD, fingerprint
from bertshrink.files.shards import sha256_weights, weight_file, weight_files
from bertshrink.model.artifact import Artifact, ArtifactCard
from bertshrink.model.checkpoint_info import ARTIFACT_CARD, CheckpointInfo, read_base_info, read_facts

if TYPE_CHECKING:
    from bertshrink.model.checks.reference_vectors import ReferenceVectors
    from bertshrink.model.encoder import Encoder

    Model = Encoder | Artifact

Kind = Literal["encoder", "artifact"]
"""The two kinds of model."""


@dataclass
class ModelRef:
    """One model.

    Attributes:
        name: in reports: as it was given, or of the stage that made it.
        folder: where it is.
        about: what it says of itself.
        source: its name as it was given, for messages; None: the folder is its name.
        where: the place at which it was named, for messages.
        key: the fingerprint of what decides it; empty where nobody asked.
        loaded: itself, while it is in memory.
        asked_task: the task as it was asked for; `auto`: what the model says.
        given: the folder that was given, where `folder` is a private one made of it.
        reference: what its vectors are compared with before anything is made of it; None: nothing.
    """

    name: str
    folder: Path
    about: CheckpointInfo | ArtifactCard
    source: str | None = None
    where: str | None = None
    key: str = ""
    loaded: Model | None = field(default=None, repr=False)
    asked_task: str = "auto"
    given: Path | None = None
    reference: ReferenceVectors | None = None

    @classmethod
    def read(
        cls,
        folder: Path,
        task: str = "auto",
        source: str | None = None,
        *,
        name: str | None = None,
        where: str | None = None,
        key: str = "",
        is_base: bool = False,
    ) -> ModelRef:
        """The model in a folder, from its small files alone.

        Args:
            folder: where it is.
            task: what an encoder is used for; `auto`: what it says. An artifact knows its own.
            source: its name as it was given.
            name: in reports; None: its source, or the folder's name.
            where: the place at which it was named, for messages.
            key: the fingerprint of what decides it.
            is_base: whether it is to be fine-tuned: the head that an encoder was saved with then does not matter.

        Raises:
            UserError: no model is there, or one that is not known.
            UnsafeModel: a damaged file, or a model that asks for code of its own.
        """
        about: CheckpointInfo | ArtifactCard
        if (folder / ARTIFACT_CARD).is_file():
            about = ArtifactCard.read(folder)
        else:
            about = read_base_info(folder) if is_base else read_facts(folder, task)
        return cls(name or source or folder.name, folder, about, source, where, key, asked_task=task)

    @property
    def kind(self) -> Kind:
        """Which of the two kinds it is."""
        return "artifact" if isinstance(self.about, ArtifactCard) else "encoder"

    @property
    def label(self) -> str:
        """The last part of its name, as tables show it."""
        name = self.source or self.name
        return Path(name).name or name

    @property
    def file(self) -> Path:
        """The file that holds its weights, or the index of several."""
        return self.folder / self.about.file if isinstance(self.about, ArtifactCard) else weight_file(self.folder)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of its weights: an artifact's one or two, a checkpoint's one, or an index and those it names."""
        if isinstance(self.about, ArtifactCard):
            return tuple(self.folder / name for name in self.about.files)
        return weight_files(self.folder)

    @property
    def sha256(self) -> str:
        """The sha256 of its weights' file; of several files, that of their names and sums."""
        return sha256_weights(self.files)

    def load(self) -> Model:
        """The model, in memory from now on; everyone who asks gets the same one.

        Raises:
            UserError: weights or tokenizer are missing.
            UnsafeModel: they are damaged, pickled, changed or not finite.
        """
        if self.loaded is None:
            from bertshrink.model.encoder import Encoder
            from bertshrink.model.quiet import quiet_libraries

            with quiet_libraries(), self.named_as_given():
                if isinstance(self.about, CheckpointInfo):
                    self.loaded = Encoder.from_facts(self.about, self.source)
                else:
                    self.loaded = Artifact.load(self.folder, self.source)
        return self.loaded

    def compared(self) -> str:
        """Load the model and compare it with its reference vectors, of which it has some; what came of it, a sentence.

        Raises:
            BertshrinkError: as `load`; or its vectors are not the reference's.
        """
        from bertshrink.model.encoder import Encoder

        assert self.reference is not None
        encoder = self.load()
        assert isinstance(encoder, Encoder)
        with self.named_as_given():
            return self.reference.compare(encoder)

    def named_as_given(self) -> AbstractContextManager[None]:
        """Have errors inside name the folder that was given, not a private one made of it."""
        return named_as_given(self.folder, self.given)

    def unload(self) -> None:
        """Let the weights go, also for those who still hold the model: they keep its configuration and tokenizer."""
        if self.loaded is not None and not isinstance(self.loaded, Artifact):
            self.loaded.model.to("meta")
        self.loaded = None

    def moved(self, folder: Path) -> ModelRef:
        """The same model after its folder was renamed; an encoder in memory goes along, an artifact is opened anew."""
        if isinstance(self.about, ArtifactCard):
            return replace(self, folder=folder, loaded=None)
        model = self.loaded
        if model is not None and not isinstance(model, Artifact) and model.sentence_folder is not None:
            model = replace(model, sentence_folder=folder)
        return replace(self, folder=folder, about=replace(self.about, folder=folder), loaded=model)

    def content_key(self, task: str) -> str:
        """What decides a model that was given: the content of its files and the task it is used for."""
        paths = {*self.folder.glob("*"), *self.folder.glob("[0-9]*_*/*"), *self.files}
        names = sorted(path for path in paths if path.is_file() and _matters(path))
        return fingerprint(task, [(path.relative_to(self.folder).as_posix(), sha256_file(path)) for path in names])


def _matters(path: Path) -> bool:
    """Whether a file at the top, or in a sentence-transformers module's folder, can change what the model answers."""
    kinds = (".json", ".txt", ".model", ".safetensors", ".onnx", ".onnx_data", ".ort", ".pte")
    return path.suffix in kinds and path.name not in (MANIFEST, STAGE_CARD, "report.json")


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
