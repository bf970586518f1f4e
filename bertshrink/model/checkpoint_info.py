"""What a model folder is, from its small JSON files and headers alone: no weight is loaded, no code of it runs.

`read_facts` is what a plan is proven with; `check_weights` refuses what must not be loaded:

    pickles (`pytorch_model.bin`)      loading one runs whatever is in it
    remote code (`auto_map`)           never runs; a stock class is used or nothing
    kernels of a hub repository        transformers would fetch and run them when config.json names one
    a truncated or overlapping file    found in the safetensors header
    a changed bit                      found by the manifest, where bertshrink wrote the folder
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.atomic import READ_BY_LOADERS, verify
from bertshrink.files.json_files import read_object
from bertshrink.files.shards import WEIGHTS, Header, read_weights, weight_file
from bertshrink.model.checks.stock_class import (
    refuse_beside,
    refuse_other_head,
    refuse_task_without_class,
    refuse_unnamed,
    refuse_unpadded,
    refuse_values,
)
from bertshrink.model.families import FAMILIES, anatomy_of
from bertshrink.model.family import ModelFamily
from bertshrink.model.folder.pooling import SPLADE, Pooling
from bertshrink.model.folder.sentence_modules import (
    SIGMOID_NOTE,
    Sentence,
    own_length,
    read_activation,
    read_modules,
    read_sentence,
)
from bertshrink.model.sizes.encoder_dims import EncoderDims
from bertshrink.model.tasks import TASKS, guess_task, read_labels

OF_SENTENCES = tuple(name for name, task in TASKS.items() if task.sentence_kind is not None)
"""The tasks of models that sentence-transformers saves."""
ARTIFACT_CARD = "artifact.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin", "pytorch_model.pt", "model.pt")


@dataclass(frozen=True)
class CheckpointInfo:
    """What the configuration of an encoder says.

    Attributes:
        config: config.json as it is.
        task: a name in `TASKS`.
        labels: label names, empty where the task has none (see `TASKS`).
        pooling: for embedding models.
        max_length: the longest input in tokens, special tokens included.
        sentence: what sentence-transformers says of it, where it is used as that library uses it.
        activation: what makes a score of a cross-encoder's logit.
        remarks: what was found out about the folder elsewhere, a sentence each.
    """

    folder: Path
    anatomy: ModelFamily
    shape: EncoderDims
    config: dict[str, Any]
    task: str
    labels: tuple[str, ...] = ()
    pooling: Pooling | None = None
    max_length: int = 512
    sentence: Sentence | None = None
    activation: Literal["identity", "sigmoid"] = "identity"
    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What whoever uses the model must know of its folder."""
        notes = [*self.remarks, *(self.sentence.notes() if self.sentence is not None else [])]
        if TASKS[self.task].is_vector and self.sentence is None:
            usual = (
                "the normalised mean of its tokens"
                if TASKS[self.task].is_bare
                else "log(1 + relu) of each vocabulary token's largest logit, as in SPLADE"
            )
            notes.append(f"the model does not define its pooling: the sentence vector is {usual}")
        if self.activation == "sigmoid":
            notes.append(SIGMOID_NOTE)
        return notes


def read_facts(folder: Path, task: str = "auto") -> CheckpointInfo:
    """Read what the folder says of itself.

    Raises:
        UserError: no config.json, an unknown family or task, sizes missing.
        UnsafeModel: a damaged file, or a checkpoint that asks for remote code.
    """
    where = str(folder)
    path = folder / "config.json"
    refuse_beside(folder)
    refuse_no_files(folder)
    read_modules(folder)
    if not path.is_file():
        raise UserError(
            f"`{folder}` is not a model folder: it has no config.json",
            where=where,
            hint="give a folder saved with `save_pretrained`, or a hub name such as `distilbert-base-uncased`",
        )
    config = read_object(path)
    refuse_remote_code(folder, config)
    _refuse_other_weights(path, config)
    refuse_values(config, str(path))
    refuse_unnamed(config, str(path))
    anatomy = anatomy_of(str(config["model_type"]), where=str(path))
    refuse_unpadded(anatomy, config, str(path))
    shape = EncoderDims.read(anatomy, config, str(path))
    check_task(task)
    sentence = read_sentence(folder, config) if task == "auto" or task in OF_SENTENCES else None
    if task == "auto":
        task = guess_task(config, sentence_kind=sentence.kind if sentence is not None else None, where=str(path))
    if sentence is not None and sentence.kind != TASKS[task].sentence_kind:
        sentence = None  # asked for as something else than what that library saved
    refuse_task_without_class(anatomy, task, str(path))
    refuse_other_head(anatomy, config, task, str(path))
    pooling = (sentence.pooling if sentence is not None else None) or usual_pooling(task)
    pooling.check(shape.hidden_size, where)
    return CheckpointInfo(
        folder=folder,
        anatomy=anatomy,
        shape=shape,
        config=config,
        task=task,
        labels=read_labels(task, config, str(path)),
        pooling=pooling if TASKS[task].is_vector else None,
        max_length=capped_length(folder, own_limit(shape, config)),
        sentence=sentence,
        activation=(
            read_activation(folder, config, is_score=TASKS[task].is_score) if TASKS[task].has_text_head else "identity"
        ),
    )


def usual_pooling(task: str) -> Pooling:
    """That of a model that does not define it, where the task has one."""
    return SPLADE if TASKS[task].has_masked_head else Pooling()


def check_task(task: str, where: str | None = None) -> None:
    """Refuse what is neither `auto` nor a name in `TASKS`.

    Raises:
        UserError: it is neither.

    """
    if task != "auto" and task not in TASKS:
        raise UserError(f"there is no task `{task}`", where=where, hint=f"tasks: auto, {', '.join(TASKS)}")


def refuse_no_files(folder: Path) -> None:
    """Refuse a folder in which a pipe, folder, device or broken link has the name of a file that a loader reads.

    Raises:
        UnsafeModel: there is one; for us it would be a file that is missing, others would wait for it for ever.
    """
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.suffix in READ_BY_LOADERS and not path.is_file():
            hint = "remove it, or download or save the model again"
            raise UnsafeModel(f"`{path.name}` in the model's folder is not a file", where=str(path), hint=hint)


def read_base_info(folder: Path) -> CheckpointInfo:
    """The facts of a checkpoint that is to be fine-tuned: of whatever class it was saved, its base weights serve.

    Raises:
        UnsafeModel: as `read_facts`.
        UserError: no model folder, or an unknown family.
    """
    try:
        return read_facts(folder)
    except UserError:
        return read_facts(folder, "embedding")


def refuse_remote_code(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that asks for code of its own; raises UnsafeModel."""
    files = ["config.json"] if config.get("auto_map") else []
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.is_file() and read_object(tokenizer).get("auto_map"):
        files.append(tokenizer.name)
    kernel = str(config.get("attn_implementation") or config.get("_attn_implementation") or "")
    if "/" in kernel:
        raise UnsafeModel(
            f"the checkpoint asks to download and run the attention kernel `{kernel}`; bertshrink never does that",
            where=str(folder / "config.json"),
            hint="delete `attn_implementation` from the file",
        )
    if files:
        raise UnsafeModel(
            "the checkpoint asks to run its own code (`auto_map`); bertshrink never does that",
            where=str(folder / files[0]),
            hint="if the model is of a stock family, delete `auto_map` from the file and load it as that family",
        )


def _refuse_other_weights(path: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that sends transformers to weights other than those that `check_weights` looks at."""
    named = config.get("transformers_weights")
    if named not in (None, WEIGHTS):
        raise UnsafeModel(
            f"`config.json` names other weights than `{WEIGHTS}`: `{named}`",
            where=str(path),
            hint="save the model again with `save_pretrained`",
        )


def capped_length(folder: Path, limit: int) -> int:
    """The longest input in tokens: what the network takes, capped by what the model was made for."""
    path = folder / "tokenizer_config.json"
    of_tokenizer = _length_of(read_object(path), path) if path.is_file() else None
    for value in (own_length(folder), of_tokenizer):  # sentence-transformers' own length is before the tokenizer's
        if value is not None:
            return min(value, limit)
    return limit


def _length_of(about: Mapping[str, Any], path: Path) -> int | None:
    """The length that a tokenizer's settings state; None: they state none. `1e30` stands for none, and is capped."""
    key = "model_max_length" if about.get("model_max_length") is not None else "max_len"  # as transformers 2 called it
    value = about.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        hint = "write the longest input in tokens, or delete it"
        raise UnsafeModel(f"`{key}` of {path.name} is `{str(value)[:40]}`, not a number", where=str(path), hint=hint)
    return int(value) if value is not None and value > 0 else None


def own_limit(shape: EncoderDims, config: dict[str, Any]) -> int:
    """The longest input of the network itself, in tokens."""
    return position_limit(shape.max_positions, config)


def position_limit(max_positions: int, config: dict[str, Any]) -> int:
    """The longest input that a table of positions allows."""
    row, pad_id = FAMILIES.get(str(config.get("model_type"))), config.get("pad_token_id")
    return max_positions - (row.first_position(pad_id if isinstance(pad_id, int) else None) if row is not None else 0)


def check_weights(folder: Path) -> Header:
    """Prove that the folder's weights may be loaded; returns their header, of all files together.

    Raises:
        UnsafeModel: a pickle, a damaged file, or bytes that are not those bertshrink wrote.
        UserError: no weights at all.
    """
    verify(folder)
    if weight_file(folder).is_file():
        return read_weights(folder)
    pickles = [name for name in _PICKLES if (folder / name).exists()]
    if pickles:
        raise UnsafeModel(
            f"the weights are a pickle (`{pickles[0]}`), which can run arbitrary code when loaded",
            where=str(folder / pickles[0]),
            hint="if you trust it, `AutoModel.from_pretrained(DIR).save_pretrained(DIR)` writes safetensors",
        )
    raise UserError(
        f"`{folder}` has no weights: `{WEIGHTS}` is missing",
        where=str(folder),
        hint="download the whole model, or save it again with `save_pretrained`",
    )
