"""Artifact: a file that an engine runs, in a folder that others load, with a card that says what it is.

onnx/model.onnx   the graph with its weights; the other formats' places: see `layout`
onnx/model.onnx_data
                  the weights, where one file cannot hold graph and weights
artifact.json     file, format, engine, task, labels, pooling, precision, inputs, outputs, lineage (the card)
the rest          configuration, tokenizer, a sentence encoder's modules: see `side_files`
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from bertshrink.engines import ENGINES
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.atomic import verify
from bertshrink.files.json_files import read_json, read_object
from bertshrink.files.onnx_data_file import DATA_SUFFIX, files_of
from bertshrink.hardware import release_freed_memory
from bertshrink.model.batches import predict, tokenize
from bertshrink.model.checkpoint_info import ARTIFACT_CARD
from bertshrink.model.checks.tokenizer import require_tokenizer
from bertshrink.model.checks.tokenizer_files import load_tokenizer
from bertshrink.model.fixed_shape_session import FixedShapeSession, Shape
from bertshrink.model.folder.layout import named_file
from bertshrink.model.folder.pooling import Mode, Pooling, Similarity
from bertshrink.model.folder.side_files import copy_papers, fit_tokenizer, write_modules
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bertshrink.engines import Arrays, Session

_Modes = Mode | tuple[Mode, ...]

CARD_SCHEMA = "bertshrink.artifact/1"


@dataclass(frozen=True)
class ArtifactSpec:
    """What is known of an artifact before it is made, as far as others must fit it.

    Attributes:
        format: `onnx`, `ort`, `pte`.
        engine: a name in `engines.ENGINES`.
        shape: the (batch, length) that it takes; None, or None in a place: any.
        max_batch: the most rows that it takes at once; None: any number.
        max_length: the longest input in tokens; None: the encoder's.
    """

    format: str = "onnx"
    engine: str = "onnxruntime"
    shape: Shape | None = None
    max_batch: int | None = None
    max_length: int | None = None


class ArtifactCard(BaseModel):
    """What artifact.json says; `read` looks at nothing else, `Artifact.load` proves the bytes beside it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_id: str = Field(CARD_SCHEMA)
    format: str = Field(description="`onnx`, `ort`, `pte`")
    engine: str = Field(description="what runs it: a name in `engines.ENGINES`")
    options: dict[str, Any] = Field(default_factory=dict, description="the engine's options")
    file: str = Field(description="where it is in the folder")
    data: str | None = Field(None, description="the file beside it that holds its weights, where they are not in it")
    task: str
    is_task_known: bool = Field(True, description="false: nothing said it, and it serves for sizes and times only")
    family: str
    precision: str = Field(description="of the weights, most bytes first: `float32`, `int8`, `int4+int8`")
    labels: tuple[str, ...] = ()
    pooling: (
        tuple[_Modes, bool]
        | tuple[_Modes, bool, int]
        | tuple[_Modes, bool, int | None, int]
        | tuple[_Modes, bool, int | None, int, int]
        | None
    ) = Field(
        None,
        description="inside the graph: mode, whether it normalises, how many numbers stay where not all do, how many "
        "tokens of the prompt are left out, and how many numbers are not 0 at most",
    )
    prompt: str = Field("", description="prompt to prepend to every text; the tokenizer does not")
    activation: Literal["identity", "sigmoid"] = Field(
        "identity", description="what makes a score of a logit; outside of the graph"
    )
    similarity: Similarity | None = Field(
        None, description="how its vectors are compared; none: by cosines, of a sparse encoder by products"
    )
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    max_length: int
    shape: tuple[PositiveInt | None, PositiveInt | None] | None = Field(
        None, description="(batch, length) where the file takes these only; none in a place: any"
    )
    max_batch: PositiveInt | None = Field(None, description="the most rows at once; none: any number")
    vocab_size: int
    details: dict[str, Any] = Field(default_factory=dict, description="what the technique counted and checked")
    lineage: tuple[str, ...] = Field((), description="the stages it came through, first to last")

    @classmethod
    def read(cls, folder: Path) -> ArtifactCard:
        """The card of an artifact folder.

        Raises:
            UserError: it is for an engine that is not known.
            UnsafeModel: it is damaged, or names no file of its folder.

        """
        path = folder / ARTIFACT_CARD
        hint = "restore the folder from where it came, or export the model again"
        try:
            card = cls.model_validate(read_json(path))
        except ValidationError as error:
            what = f"`{ARTIFACT_CARD}` is damaged: {error.errors()[0]['msg']}"
            raise UnsafeModel(what, where=str(path), hint=hint) from None
        if card.engine not in ENGINES:
            what = f"the artifact needs the engine `{card.engine}`, which this version does not support"
            raise UserError(what, where=str(path), hint=f"known engines: {', '.join(ENGINES)}")
        for name in card.files:
            if named_file(folder, name) is None:
                what = f"`{ARTIFACT_CARD}` names a file that is not in this folder: `{name}`"
                raise UnsafeModel(what, where=str(path), hint=hint)
        if card.data not in (None, card.file + DATA_SUFFIX):
            what = f"`{ARTIFACT_CARD}` names `{card.data}` for the weights of `{card.file}`"
            raise UnsafeModel(what, where=str(path), hint=hint)
        return card

    @property
    def files(self) -> tuple[str, ...]:
        """The file and the one beside it, in the folder."""
        return (self.file,) if self.data is None else (self.file, self.data)

    def of_file(self, folder: Path, file: str) -> ArtifactCard:
        """The same for a file that was written into a folder, with the one beside it, if there is one."""
        files = [path.relative_to(folder).as_posix() for path in files_of(folder / file)]
        return self.model_copy(update={"file": file, "data": files[1] if len(files) > 1 else None})

    @property
    def form(self) -> ArtifactSpec:
        """What others must fit."""
        return ArtifactSpec(self.format, self.engine, self.shape, self.max_batch, self.max_length)


class Like(Protocol):
    """A model that an artifact is made of: an encoder, or another artifact."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""

    def write_papers(self, folder: Path) -> None:
        """Write what is beside its file into a folder: see `side_files`."""


class Artifact:
    """An artifact folder.

    Args:
        source: its name for messages, where that is not the folder.

    Attributes:
        notes: how its tokenizer is read where its files do not agree; empty until somebody asks for the tokenizer.
    """

    def __init__(self, folder: Path, card: ArtifactCard, source: str | None = None) -> None:
        self.folder = folder
        self.card = card
        self.source = source or str(folder)
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self.notes: tuple[str, ...] = ()
        self._like: Like | None = None

    @property
    def task(self) -> str:
        """A name in `TASKS`."""
        return self.card.task

    @property
    def max_length(self) -> int:
        """The longest input in tokens."""
        return self.card.max_length

    @property
    def activation(self) -> str:
        """What makes a score of a logit."""
        return self.card.activation

    @property
    def similarity(self) -> Similarity | None:
        """How its vectors are compared; None: as usual."""
        return self.card.similarity

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.card.labels

    @property
    def file(self) -> Path:
        """The file that the engine opens."""
        return self.folder / self.card.file

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and the one beside it that holds its weights, where there is one."""
        return tuple(self.folder / name for name in self.card.files)

    @property
    def num_bytes(self) -> int:
        """Bytes of its files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def options(self) -> dict[str, Any]:
        """The engine's: the card's own, and that what the task asks for is all that is fetched."""
        return self.card.options | {"outputs": list(TASKS[self.task].outputs)}

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer beside the file, loaded once. Raises UserError: there is none."""
        if self._tokenizer is None:
            require_tokenizer(self.folder, self.source)
            self._tokenizer, self.notes = load_tokenizer(self.folder)
        return self._tokenizer

    @classmethod
    def load(cls, folder: Path, source: str | None = None) -> Artifact:
        """Open an artifact folder that bertshrink wrote.

        Raises:
            UserError: no card there, or one for an engine that is not known.
            UnsafeModel: a damaged card, or bytes that are not those bertshrink wrote.
        """
        if not (folder / ARTIFACT_CARD).is_file():
            hint = "make one with `bertshrink export MODEL -o DIR`"
            raise UserError(
                f"`{folder}` is not an artifact folder: it has no {ARTIFACT_CARD}", where=str(folder), hint=hint
            )
        verify(folder)
        return cls(folder, ArtifactCard.read(folder), source)

    @classmethod
    def draft(cls, folder: Path, card: ArtifactCard, like: Like) -> Artifact:
        """The artifact of a file in `folder`, to be judged first: card and papers are written when it is saved."""
        artifact = cls(folder, card.of_file(folder, card.file))
        artifact._tokenizer, artifact._like = like.tokenizer, like
        return artifact

    @classmethod
    def create(cls, folder: Path, card: ArtifactCard, like: Like) -> Artifact:
        """Write card and papers beside the engine's file, which must be in `folder` already.

        Args:
            folder: where the file is, at its place in the layout.
            like: the model that it was made of, whose papers are taken.
        """
        artifact = cls.draft(folder, card, like)
        artifact.write_papers(folder)
        artifact.write_card(folder)
        artifact._like = None
        return artifact

    def write_card(self, folder: Path) -> None:
        """Write the card into a folder."""
        unsaid = {name for name in ("data", "similarity") if getattr(self.card, name) is None}
        said = self.card.model_dump(mode="json", exclude=unsaid)
        text = json.dumps(said, indent=1, sort_keys=True) + "\n"
        (folder / ARTIFACT_CARD).write_text(text, encoding="utf-8")

    def write_papers(self, folder: Path) -> None:
        """Write what is beside the file into a folder, with the length that this file takes."""
        if self._like is not None:
            self._like.write_papers(folder)
        elif self.folder != folder:
            copy_papers(self.folder, folder, self.card.files)
        card, config = self.card, folder / "config.json"
        if card.pooling is not None and config.is_file():
            told = read_object(config)
            if isinstance(width := told.get("hidden_size", told.get("dim")), int):
                pooling = Pooling(*card.pooling)
                write_modules(folder, pooling, width, card.max_length, card.prompt, card.similarity)
        fit_tokenizer(folder, card.max_length, card.shape[1] if card.shape else None)

    def copy(self) -> Artifact:
        """The same artifact: its files never change in place."""
        return self

    def with_engine(self, name: str, options: Mapping[str, Any]) -> Artifact:
        """The same files, opened by another engine."""
        card = self.card.model_copy(update={"engine": name, "options": dict(options)})
        artifact = Artifact(self.folder, card, self.source)
        artifact._tokenizer, artifact._like = self._tokenizer, self._like
        return artifact

    def save(self, folder: Path) -> None:
        """Copy the artifact's files into `folder`."""
        (folder / self.card.file).parent.mkdir(parents=True, exist_ok=True)
        for name in self.card.files:
            shutil.copyfile(self.folder / name, folder / name)
        self.write_papers(folder)
        self.write_card(folder)

    def tokenize(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int | None = None
    ) -> list[dict[str, list[int]]]:
        """Token ids of each text (or pair), not padded: as `Encoder.tokenize`."""
        limit = min(max_length or self.max_length, self.max_length)
        return tokenize(self.tokenizer, texts, pairs, limit, self.card.prompt)

    def session(self, file: Path | None = None, options: Mapping[str, Any] | None = None) -> Session:
        """A file opened by the artifact's engine; it takes any batch, also where the file takes one shape only.

        Args:
            file: another file of the same shape; None: its own.
            options: the engine's; None: the artifact's own.
        """
        from bertshrink.engines import engine

        card = self.card
        asked = self.options | dict(options or {})
        session = engine(card.engine).load(str(file or self.file), options=asked)
        if card.shape is None and card.max_batch is None:
            return session
        pad_id, per_token = self.tokenizer.pad_token_id or 0, TASKS[self.task].per_token
        return FixedShapeSession(session, card.shape, pad_id, per_token=per_token, max_batch=card.max_batch)

    def predict(self, rows: Sequence[dict[str, list[int]]], max_tokens_per_batch: int = 4096) -> list[Arrays]:
        """Outputs of tokenized rows, in their order."""
        per_token = TASKS[self.task].per_token
        outputs = predict(
            self.session(), rows, self.tokenizer.pad_token_id or 0, max_tokens_per_batch, per_token=per_token
        )
        release_freed_memory()
        return outputs
