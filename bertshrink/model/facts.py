"""What a model folder is, from its small JSON files and headers alone: no weight is loaded, no code of it runs.

`read_facts` is what a plan is proven with; `check_weights` refuses what must not be loaded:

    pickles (`pytorch_model.bin`)      loading one runs whatever is in it
    remote code (`auto_map`)           never runs; a stock class is used or nothing
    kernels of a hub repository        transformers would fetch and run them when config.json names one
    a truncated or overlapping file    found in the safetensors header
    a changed bit                      found by the manifest, where bertshrink wrote the folder
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bertshrink.errors import ModelRefused, RequestError
from bertshrink.model.anatomy import Anatomy, Shape, anatomy_of
from bertshrink.model.files import verify
from bertshrink.model.task import TASKS, guess_task, read_labels
from bertshrink.model.whole import refuse_beside, refuse_values
from bertshrink.report.files import read_header
from bertshrink.untrusted import Reader

_PAPERS = Reader(ModelRefused, "the file cannot be read", "download or save the model again")
_VOCABULARIES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
"""Their tokens may hold any character."""

WEIGHTS = "model.safetensors"
ARTIFACT_CARD = "artifact.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin", "pytorch_model.pt", "model.pt")
_POOLING_KEYS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True)
class Pooling:
    """How token vectors become a sentence vector."""

    mode: Literal["mean", "cls", "max"] = "mean"
    normalize: bool = True


@dataclass(frozen=True)
class Facts:
    """What the configuration of an encoder says.

    Attributes:
        folder: where it lies.
        anatomy: its family's row.
        shape: its sizes.
        config: config.json as it is.
        task: a name in `TASKS`.
        labels: label names, empty where the task has none (see `TASKS`).
        pooling: for embedding models.
        max_length: the longest input in tokens, special tokens included.
        is_sentence_transformer: whether the folder has the sentence-transformers layout (modules.json).

    """

    folder: Path
    anatomy: Anatomy
    shape: Shape
    config: dict[str, Any]
    task: str
    labels: tuple[str, ...] = ()
    pooling: Pooling | None = None
    max_length: int = 512
    is_sentence_transformer: bool = False


def read_json(path: Path) -> Any:
    """Read one JSON file of a model folder.

    Raises:
        ModelRefused: it is no plain file, no JSON, or beyond the bounds of `untrusted`.

    """
    is_vocabulary = path.name in _VOCABULARIES
    return replace(_PAPERS, fault=f"`{path.name}` cannot be read", may_have_nul=is_vocabulary).read_json(path)


def read_object(path: Path) -> dict[str, Any]:
    """Read one JSON file of a model folder that must hold an object.

    Raises:
        ModelRefused: it is no JSON, or something else.

    """
    found = read_json(path)
    if not isinstance(found, dict):
        hint = "download or save the model again"
        raise ModelRefused(f"`{path.name}` is not a JSON object", where=str(path), hint=hint)
    return found


def read_facts(folder: Path, task: str = "auto") -> Facts:
    """Read what the folder says of itself.

    Raises:
        RequestError: no config.json, an unknown family or task, sizes missing.
        ModelRefused: a damaged file, or a checkpoint that asks for remote code.

    """
    where = str(folder)
    path = folder / "config.json"
    refuse_beside(folder)
    if not path.is_file():
        raise RequestError(
            f"`{folder}` is no model folder: it has no config.json",
            where=where,
            hint="give a folder saved with `save_pretrained`, or a hub name such as `distilbert-base-uncased`",
        )
    config = read_object(path)
    refuse_remote_code(folder, config)
    _refuse_other_weights(path, config)
    refuse_values(config, str(path))
    anatomy = anatomy_of(str(config.get("model_type")), where=str(path))
    shape = Shape.read(anatomy, config)
    modules = folder / "modules.json"
    is_st = modules.is_file()
    if task == "auto":
        task = guess_task(config, is_sentence_transformer=is_st, where=str(path))
    elif task not in TASKS:
        raise RequestError(f"there is no task `{task}`", hint=f"tasks: auto, {', '.join(TASKS)}")
    return Facts(
        folder=folder,
        anatomy=anatomy,
        shape=shape,
        config=config,
        task=task,
        labels=read_labels(task, config, str(path)),
        pooling=read_pooling(folder, modules) if task == "embedding" else None,
        max_length=capped_length(folder, own_limit(shape, config)),
        is_sentence_transformer=is_st and task == "embedding",
    )


def read_start(folder: Path) -> Facts:
    """The facts of a checkpoint that is to be fine-tuned: of whatever class it was saved, its base weights serve.

    Raises:
        ModelRefused: as `read_facts`.
        RequestError: no model folder, or an unknown family.

    """
    try:
        return read_facts(folder)
    except RequestError:
        return read_facts(folder, "embedding")


def refuse_remote_code(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that asks for code of its own.

    Raises:
        ModelRefused: it does.

    """
    found = ["config.json"] if config.get("auto_map") else []
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.is_file() and read_object(tokenizer).get("auto_map"):
        found.append(tokenizer.name)
    kernel = str(config.get("attn_implementation") or config.get("_attn_implementation") or "")
    if "/" in kernel:
        raise ModelRefused(
            f"the checkpoint asks for the attention kernel `{kernel}` to be fetched and run; bertshrink never does",
            where=str(folder / "config.json"),
            hint="delete `attn_implementation` from the file",
        )
    if found:
        raise ModelRefused(
            "the checkpoint asks for code of its own to be run (`auto_map`); bertshrink never runs it",
            where=str(folder / found[0]),
            hint="if the model is of a stock family, delete `auto_map` from the file and load it as that family",
        )


def _refuse_other_weights(path: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that sends transformers to weights other than those that `check_weights` looks at."""
    named = config.get("transformers_weights")
    if named not in (None, WEIGHTS):
        raise ModelRefused(
            f"`config.json` names other weights than `{WEIGHTS}`: `{named}`",
            where=str(path),
            hint="save the model again with `save_pretrained`",
        )


def read_pooling(folder: Path, modules: Path) -> Pooling:
    """Pooling as the sentence-transformers layout states it; mean and normalised where nothing is stated.

    Raises:
        ModelRefused: a damaged file, or a path out of the folder.
        RequestError: a layout or a module that is not supported.

    """
    if not modules.is_file():
        return Pooling()
    mode: Literal["mean", "cls", "max"] = "mean"
    normalize = False
    listed = read_json(modules)
    if not isinstance(listed, list) or not all(isinstance(module, dict) for module in listed):
        hint = "download or save the model again"
        raise ModelRefused("`modules.json` is not a list of modules", where=str(modules), hint=hint)
    for module in listed:
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind == "Transformer" and module.get("path"):
            raise RequestError(
                f"the transformer of this sentence-transformers model lies in `{module['path']}/`, not at the top",
                where=str(modules),
                hint="load and save it again with a current sentence-transformers, which writes it at the top",
            )
        if kind == "Pooling":
            path = folder / str(module.get("path", "")) / "config.json"
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ModelRefused(
                    f"`modules.json` leads out of the model's folder: `{module['path']}`",
                    where=str(modules),
                    hint="download or save the model again",
                )
            mode = _pooling_mode(path)
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise RequestError(
                f"the sentence-transformers module `{kind}` is not supported",
                where=str(modules),
                hint="supported: Transformer, Pooling (mean, cls, max), Normalize",
            )
    return Pooling(mode, normalize)


def _pooling_mode(path: Path) -> Literal["mean", "cls", "max"]:
    config = read_object(path)
    named = config.get("pooling_mode")
    chosen = [named] if named else [mode for key, mode in _POOLING_KEYS.items() if config.get(key)]
    others = [
        key for key, on in config.items() if key.startswith("pooling_mode_") and on is True and key not in _POOLING_KEYS
    ]
    match chosen:
        case ["mean"] if not others:
            return "mean"
        case ["cls"] if not others:
            return "cls"
        case ["max"] if not others:
            return "max"
    raise RequestError(
        f"pooling `{chosen + others}` is not supported", where=str(path), hint="supported: mean, cls, max"
    )


def capped_length(folder: Path, limit: int) -> int:
    """The longest input in tokens: what the network takes, capped by what the model was made for."""
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        path = folder / name
        if path.is_file():
            value = read_object(path).get(key)
            if isinstance(value, int) and 0 < value < limit:
                limit = value
    return limit


def own_limit(shape: Shape, config: dict[str, Any]) -> int:
    """The longest input of the network itself, in tokens."""
    return position_limit(shape.max_positions, config)


def position_limit(max_positions: int, config: dict[str, Any]) -> int:
    """The longest input that a table of positions allows; RoBERTa's count starts after its pad id."""
    pad_id = config.get("pad_token_id")
    first = (pad_id if isinstance(pad_id, int) else 1) + 1
    return max_positions - (first if config.get("model_type") in ("roberta", "xlm-roberta") else 0)


def check_weights(folder: Path) -> dict[str, dict[str, Any]]:
    """Prove that the folder's weights may be loaded; returns their header.

    Raises:
        ModelRefused: a pickle, a damaged file, or bytes that are not those bertshrink wrote.
        RequestError: no weights at all.

    """
    verify(folder)
    path = folder / WEIGHTS
    if path.is_file():
        return read_header(path)
    pickles = [name for name in _PICKLES if (folder / name).exists()]
    if pickles:
        raise ModelRefused(
            f"the weights are a pickle (`{pickles[0]}`), which can run any code when it is loaded",
            where=str(folder / pickles[0]),
            hint="where you trust it, `AutoModel.from_pretrained(DIR).save_pretrained(DIR)` writes safetensors",
        )
    if (folder / f"{WEIGHTS}.index.json").exists():
        raise RequestError(
            "the weights are sharded over several files",
            where=str(folder),
            hint="save them in one: `model.save_pretrained(DIR, max_shard_size='100GB')`",
        )
    raise RequestError(
        f"`{folder}` has no weights: `{WEIGHTS}` is missing",
        where=str(folder),
        hint="download the whole model, or save it again with `save_pretrained`",
    )
