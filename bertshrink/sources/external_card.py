"""The card of a model file that came without one: from what it says of itself, its outputs, and its config.json.

    task         bertshrink's own metadata; else outputs that only one task has; else the class in config.json
    labels       metadata; else `id2label`; as many as the output is wide
    pooling      metadata; else, where the graph ends in token vectors, what 1_Pooling says, and it is appended
    max_length   metadata; else positions in config.json, capped by what the tokenizer says and a fixed shape takes
    shape        the inputs' own, where batch and length are both fixed
    max_batch    what a program says
    family       metadata; else `model_type`; it need be none of bertshrink's own, an artifact is only run

What none of them tells is an error that says what to add. An .onnx file is given the inputs and outputs that engines
promise; .ort and .pte files cannot be changed, so they must have them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.bounded_text import Reader
from bertshrink.files.json_files import read_object
from bertshrink.model.artifact import ArtifactCard
from bertshrink.model.checkpoint_info import capped_length, position_limit
from bertshrink.model.folder.pooling import Pooling
from bertshrink.model.folder.sentence_modules import (
    SETTINGS,
    SIGMOID_NOTE,
    Sentence,
    read_activation,
    read_sentence,
)
from bertshrink.model.tasks import TASKS, guess_task, read_labels
from bertshrink.sources.probe_process import ProbeResult

_TOKEN_VECTORS = ("last_hidden_state", "token_embeddings")
_ENGINES = {".onnx": "onnxruntime", ".ort": "onnxruntime", ".pte": "executorch"}
_ACTIVATIONS = {"identity": "identity", "sigmoid": "sigmoid"}
_TO = {".ort": "ort", ".pte": "executorch"}
_SAID = Reader(UnsafeModel, "the file's metadata is damaged", "export the model again")
_EXPORT = "or export the model with `bertshrink export MODEL -o DIR`"


@dataclass(frozen=True)
class ExternalFile:
    """What is known of a file: the look at it, the copies of what is beside it, its name for messages."""

    look: ProbeResult
    papers: Path
    where: str

    @property
    def config(self) -> dict[str, Any]:
        """config.json; empty where there is none."""
        path = self.papers / "config.json"
        return read_object(path) if path.is_file() else {}

    @property
    def sentence(self) -> Sentence | None:
        """What sentence-transformers says beside it; its modules count where the file does not do their work itself."""
        return read_sentence(self.papers, self.config, has_modules_inside="sentence_embedding" in self.look.outputs)


def make_card(origin: ExternalFile, file: Path, vocab_size: int) -> ArtifactCard:
    """A card for a file that has none; an .onnx file is given the task's inputs and outputs where it has others.

    Args:
        file: the private copy of it.

    Raises:
        UserError: something is missing that neither the file nor config.json says, or they contradict each other,
            or the file would have to be changed and cannot be.
        UnsafeModel: what the file says of itself is damaged.
    """
    look = origin.look
    said = _said(origin) if "bertshrink_version" in look.metadata else _told(origin)
    task = TASKS[said["task"]]
    shape = _one_shape(origin)
    max_batch, longest = look.most or (None, shape[1] if shape else None)
    if longest is not None:
        said["max_length"] = min(said["max_length"], longest)
    outputs, is_pooled = _outputs(origin, task.name)
    checked = next(name for name, ours in outputs.items() if (ours in task.outputs) is is_pooled)
    _check_outputs(origin, said, checked, is_pooled)
    pooling, notes = said.pop("pooling"), _notes(origin, said, checked, is_pooled)
    inputs = {name: look.names[name] for name in look.inputs}
    is_ready = is_pooled and all(name == ours and look.inputs[name].type == "int64" for name, ours in inputs.items())
    if file.suffix != ".onnx":
        _refuse_unready(origin, file.suffix, task.outputs, is_ready)
    elif list(look.outputs) != list(outputs.values()):
        is_ready = False
    if not is_pooled:
        pooling = pooling or _pooling(origin)
        mode, normalize, *cut = pooling
        named = mode if isinstance(mode, str) else " and ".join(mode)
        notes.append(
            f"the file returns token vectors: {'a normalised' if normalize else 'a'} {named} of them was appended"
            + (f", cut to its first {cut[0]} numbers" if cut else "")
        )
    if not is_ready:
        from bertshrink.onnx_graph.encoder_graph import read_model, write_model
        from bertshrink.sources.onnx_interface import with_interface

        model = with_interface(read_model(file), inputs, outputs, None if is_pooled else pooling)
        write_model(model, file)
    return ArtifactCard(
        format=file.suffix[1:],
        engine=_ENGINES[file.suffix],
        options={"output_names": list(outputs.values())} if file.suffix == ".pte" else {},
        file=file.name,
        precision=look.precision,
        pooling=pooling,
        inputs=tuple(name for name in ("input_ids", "attention_mask", "token_type_ids") if name in inputs.values()),
        outputs=tuple(outputs.values()) if is_pooled else (*outputs.values(), *task.outputs),
        shape=shape,
        max_batch=max_batch,
        vocab_size=vocab_size,
        details={"opset": look.opset, "producer": look.producer, "notes": notes},
        **said,
    )


def _notes(origin: ExternalFile, said: dict[str, Any], output: str, is_pooled: bool) -> list[str]:
    """What the settings of sentence-transformers beside the file mean for it."""
    sentence = origin.sentence
    notes = sentence.notes() if sentence is not None else []
    dimension = sentence.pooling.dimension if sentence is not None and sentence.pooling is not None else None
    width = next(iter(origin.look.outputs[output].shape[-1:]), None)
    if is_pooled and dimension is not None and (width is None or width > dimension):
        raise UserError(
            f"the file's `{output}` has {width or 'any number of'} numbers, and sentence-transformers "
            "truncates them to "
            f"{dimension} (`truncate_dim` in {SETTINGS})",
            where=origin.where,
            hint="give the model that the file was exported from, or a file that returns token vectors, or set "
            "`truncate_dim` to null",
        )
    return [*notes, SIGMOID_NOTE] if said["activation"] == "sigmoid" else notes


def _refuse_unready(origin: ExternalFile, suffix: str, wanted: tuple[str, ...], is_ready: bool) -> None:
    """Refuse a file that would have to be changed, in a format that cannot be. A program's outputs are named by us."""
    look = origin.look
    if is_ready and (suffix == ".pte" or set(wanted) <= set(look.outputs)):
        return
    inputs = ", ".join(f"{value.type} `{name}`" for name, value in look.inputs.items())
    needed = ", ".join(f"int64 `{look.names[name]}`" for name in look.inputs)
    raise UserError(
        f"the file takes {inputs} and gives {_shown(look.outputs)}, where {needed} and {_shown(wanted)} are needed, "
        f"and a{'n' if suffix == '.ort' else ''} {suffix} file cannot be changed",
        where=origin.where,
        hint="give the .onnx file that it was made from, or make one with "
        f"`bertshrink export MODEL --to {_TO[suffix]} -o DIR`",
    )


def _shown(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _said(origin: ExternalFile) -> dict[str, Any]:
    """What a file that bertshrink exported says of itself."""
    data = origin.look.metadata
    try:
        pooling = _SAID.json(data["pooling"], origin.where)
        card = {
            "task": TASKS[data["task"]].name,
            "family": data["family"],
            "labels": tuple(str(label) for label in _SAID.json(data["labels"], origin.where)),
            "pooling": _pooled(pooling) if pooling else None,
            "prompt": data.get("prompt", ""),
            "activation": _ACTIVATIONS[data.get("activation", "identity")],
            "max_length": int(data["max_length"]),
        }
    except (KeyError, ValueError, TypeError):
        raise UnsafeModel(_SAID.fault, where=origin.where, hint=_SAID.hint) from None
    return card


def _told(origin: ExternalFile) -> dict[str, Any]:
    """What outputs and config.json tell."""
    config, names, where = origin.config, set(origin.look.outputs), origin.where
    sentence = origin.sentence
    is_st = sentence is not None and sentence.kind == "encoder"
    if {"start_logits", "end_logits"} <= names:
        task = "question-answering"
    elif "sentence_embedding" in names or (not config and names & set(_TOKEN_VECTORS)):
        task = "embedding"
    elif not config:
        raise UserError(
            "cannot tell the task of the file",
            where=where,
            hint=f"put the model's config.json, which names its class and labels, beside it; {_EXPORT}",
        )
    else:
        task = _task_of(config, is_st, where)
    try:
        labels = read_labels(task, config, where) if config else ()
    except UserError as error:
        raise UserError(error.what, where=where, hint="fix the config.json beside the file") from None
    positions = config.get("max_position_embeddings")
    unknown = 1 << 30
    limit = position_limit(positions, config) if isinstance(positions, int) else unknown
    limit = capped_length(origin.papers, limit)
    if not 0 < limit < unknown:
        raise UserError(
            "cannot tell the longest input of the file",
            where=where,
            hint="put the model's config.json beside it, or set `model_max_length` in tokenizer_config.json",
        )
    family = str(config.get("model_type") or "unknown")
    return {
        "task": task,
        "family": family,
        "labels": labels,
        "pooling": None,
        "max_length": limit,
        "prompt": sentence.prompt if sentence is not None else "",
        "activation": (
            read_activation(origin.papers, config, is_score=TASKS[task].is_score)
            if TASKS[task].has_text_head
            else "identity"
        ),
    }


def _pooled(said: dict[str, Any]) -> tuple[Any, ...]:
    dimension, mode = said.get("dimension"), said["mode"]
    return Pooling(
        tuple(mode) if isinstance(mode, list) else mode,
        bool(said["normalize"]),
        None if dimension is None else int(dimension),
    ).spec


def _task_of(config: dict[str, Any], is_st: bool, where: str) -> str:
    try:
        return guess_task(config, is_sentence_transformer=is_st, where=where)
    except UserError as error:
        hint = "name the model's class under `architectures` in the config.json beside it"
        raise UserError(error.what, where=where, hint=f'{hint}, as ["BertForSequenceClassification"]') from None


def _one_shape(origin: ExternalFile) -> tuple[int, int] | None:
    """The one (batch, length) that the file takes; None: any."""
    shapes = {tuple(value.shape) for value in origin.look.inputs.values()}
    sizes = next(iter(shapes))
    if len(shapes) == 1 and len(sizes) == 2:
        if sizes == (None, None):
            return None
        if sizes[0] is not None and sizes[1] is not None:
            return sizes[0], sizes[1]
    words = ["x".join("any" if size is None else str(size) for size in sizes) for sizes in shapes]
    raise UserError(
        f"the file takes inputs of the shape {' and '.join(sorted(words))}, where batch and length must both be "
        "dynamic, or both fixed and equal for all inputs",
        where=origin.where,
        hint=f"export it with dynamic axes; {_EXPORT}",
    )


def _outputs(origin: ExternalFile, task: str) -> tuple[dict[str, str], bool]:
    """The file's outputs -> ours, and whether the task's are among them (else: token vectors, to be pooled)."""
    wanted, beside, outputs = TASKS[task].outputs, TASKS[task].beside, origin.look.outputs
    vectors = [name for name in (*_TOKEN_VECTORS, *outputs) if name in outputs and len(outputs[name].shape) in (0, 3)]
    if set(wanted) <= set(outputs):
        named = [name for name in vectors if name in _TOKEN_VECTORS][: len(beside)]
        return dict(zip(named, beside, strict=False)) | {name: name for name in wanted}, True
    if beside and vectors:
        return {vectors[0]: beside[0]}, False
    if len(wanted) == len(outputs) and (len(outputs) == 1 or all(name.isdecimal() for name in outputs)):
        return dict(zip(outputs, wanted, strict=True)), True
    raise UserError(
        f"the file gives {_shown(outputs)}, where a model for `{task}` gives {_shown(wanted)}",
        where=origin.where,
        hint="use these output names at export (`output_names`), or fix `architectures` in config.json",
    )


def _check_outputs(origin: ExternalFile, said: dict[str, Any], name: str, is_pooled: bool) -> None:
    """Refuse outputs that are not shaped as the task's, or are not as many as there are labels."""
    task, shape = TASKS[said["task"]], origin.look.outputs[name].shape
    rank = 2 + (task.per_token and not task.reads_context) + (not is_pooled)
    wanted = len(said["labels"]) if task.has_labels else task.num_outputs
    if shape and (len(shape) != rank or (wanted and shape[-1] not in (None, wanted))):
        sizes = "x".join("any" if size is None else str(size) for size in shape)
        asked = f"{rank} axes" + (f", the last of {wanted}" if wanted else "")
        raise UserError(
            f"the file's output `{name}` has the shape {sizes}; a model for `{task.name}` gives {asked}",
            where=origin.where,
            hint="its config.json (`architectures`, `id2label`) may be that of another model",
        )


def _pooling(origin: ExternalFile) -> tuple[Any, ...]:
    """What is to be appended to a file that returns token vectors; raises UserError: more than a pooling."""
    sentence = origin.sentence
    pooling = (sentence.pooling if sentence is not None else None) or Pooling()
    if pooling.layers:
        raise UserError(
            f"the file returns token vectors, and the modules beside it have {len(pooling.layers)} more layers behind "
            "the pooling, which are not in it",
            where=origin.where,
            hint="give the model's folder with `model.safetensors`, or export it with `bertshrink export MODEL -o DIR`",
        )
    return pooling.spec
