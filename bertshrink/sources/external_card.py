"""The card of a model file that came without one: from what it says of itself, its outputs, and its config.json.

    task         bertshrink's own metadata; else outputs that only one task has; else the class in config.json; else the
                 user; else it is not known, which serves for sizes and times (see `external_outputs`)
    labels       metadata; else `id2label`; as many as the output is wide
    pooling      metadata; else, where the graph ends in token vectors, what 1_Pooling says, and it is appended
    max_length   metadata; else positions in config.json, capped by what the tokenizer says and a fixed shape takes;
                 else the longest that runs
    shape        the batch and the length that the file takes, where it does not take any (see `probe_run`)
    max_batch    what a program says
    family       metadata; else `model_type`; it need be none of bertshrink's own, an artifact is only run

What none of them tells is an error that says what to add. An .onnx file is given the inputs and outputs that engines
promise; .ort and .pte files cannot be changed, so they must have them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.bounded_text import Reader
from bertshrink.model.artifact import ArtifactCard
from bertshrink.model.checkpoint_info import capped_length, position_limit
from bertshrink.model.families import FAMILIES
from bertshrink.model.folder.layer_weights import layer_files, load_layers
from bertshrink.model.folder.pooling import Pooling, SentenceLayer, Similarity
from bertshrink.model.folder.sentence_modules import SETTINGS, SIGMOID_NOTE, read_activation
from bertshrink.model.tasks import TASKS, read_labels
from bertshrink.sources.external_file import ExternalFile, PositionRule
from bertshrink.sources.external_outputs import of_rank, outputs_of, shown, task_of, width_of
from bertshrink.sources.probe_process import TensorSpec, longest_in_subprocess

_ENGINES = {".onnx": "onnxruntime", ".ort": "onnxruntime", ".pte": "executorch"}
_SIMILARITIES = {name: name for name in get_args(Similarity)}
_ACTIVATIONS = {"identity": "identity", "sigmoid": "sigmoid"}
_TO = {".ort": "ort", ".pte": "executorch"}
_SAID = Reader(UnsafeModel, "the file's metadata is damaged", "export the model again")
_LENGTHS = "put the model's config.json beside it, or set `model_max_length` in tokenizer_config.json"


def make_card(origin: ExternalFile, file: Path, vocab_size: int, asked: str = "auto") -> ArtifactCard:
    """A card for a file that has none; an .onnx file is given the task's inputs and outputs where it has others.

    Args:
        file: the private copy of it.
        asked: the task as the user names it, for a file that nothing else tells of; `auto`: not named.

    Raises:
        UserError: something is missing that neither the file nor config.json says, or they contradict each other,
            or the file would have to be changed and cannot be.
        UnsafeModel: what the file says of itself is damaged.
    """
    look = origin.look
    said = _said(origin) if "bertshrink_version" in look.metadata else _told(origin, file, asked)
    task, notes = TASKS[said["task"]], said.pop("notes", [])
    if any(look.names[name] == "attention_mask" for name in look.unread):
        notes.append("the file does not read its mask: what stands in the padding may change what it gives")
    shape = look.shape if any(look.shape) else None
    max_batch, longest = look.most or (None, look.shape[1])
    if longest is not None:
        said["max_length"] = min(said["max_length"], longest)
    outputs, is_pooled = outputs_of(origin, task, len(said["labels"]))
    layers: list[tuple[SentenceLayer, dict[str, Any]]] = []
    checked = next(name for name, ours in outputs.items() if (ours in task.outputs) is is_pooled)
    pooling, notes = said.pop("pooling"), [*notes, *_notes(origin, said, checked, is_pooled)]
    inputs, positions = {name: look.names[name] for name in look.inputs}, _positions(origin)
    is_ready = is_pooled and positions is None
    is_ready &= all(
        name == ours and look.inputs[name] == TensorSpec("int64", look.shape) for name, ours in inputs.items()
    )
    is_ready &= all(look.outputs[name].type == "float" for name in outputs)
    if file.suffix != ".onnx":
        _refuse_unready(origin, file.suffix, task.outputs, is_ready)
    elif list(look.outputs) != list(outputs.values()):
        is_ready = False
    if not is_pooled:
        layers = [] if pooling else _layers(origin, checked)
        pooling = pooling or _pooling(origin)
        mode, normalize, *cut = pooling
        named = mode if isinstance(mode, str) else " and ".join(mode)
        notes.append(
            f"the file returns token vectors: {'a normalised' if normalize else 'a'} {named} of them was appended"
            + (f" with the {len(layers)} layer(s) behind it" if layers else "")
            + (f", cut to its first {cut[0]} numbers" if cut else "")
        )
        notes += [
            f"the file's output `{name}` is left out; where it is the sentence vector, call it `{task.outputs[0]}` at "
            "export (`output_names`)"
            for name in of_rank(look, 2)
            if name != "pooler_output" and not name.startswith("hidden_states")
        ]
    if not is_ready:
        from bertshrink.onnx_graph.encoder_graph import read_model, write_model
        from bertshrink.sources.onnx_interface import with_interface

        given = read_model(file, numbers=False)
        model = with_interface(given, inputs, outputs, None if is_pooled else pooling, positions, look.shape, layers)
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


def _positions(origin: ExternalFile) -> PositionRule | None:
    """How the position ids that a file asks for are computed; None: it does not ask.

    Raises:
        UserError: it does, and how its family counts is not known.
    """
    if "position_ids" not in origin.look.names.values():
        return None
    family = str(origin.config.get("model_type") or "")
    row, pad_id = FAMILIES.get(family), origin.config.get("pad_token_id")
    if row is None:
        raise UserError(
            "the file takes `position_ids`, and "
            + (f"how the family `{family}` counts positions is not known" if family else "nothing says its family"),
            where=origin.where,
            hint="put the model's config.json beside it; known families: " + ", ".join(FAMILIES) + "; or export it "
            "without this input",
        )
    pad_id = pad_id if isinstance(pad_id, int) else None
    return PositionRule(row.first_position(pad_id), row.positions_follow_padding)


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
        f"the file takes {inputs} and gives {shown(look.outputs)}, where {needed} and {shown(wanted)} are needed, "
        f"and a{'n' if suffix == '.ort' else ''} {suffix} file cannot be changed",
        where=origin.where,
        hint="give the .onnx file that it was made from, or make one with "
        f"`bertshrink export MODEL --to {_TO[suffix]} -o DIR`",
    )


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
            "similarity": _SIMILARITIES[data["similarity"]] if "similarity" in data else _similarity(origin),
            "max_length": int(data["max_length"]),
        }
    except (KeyError, ValueError, TypeError):
        raise UnsafeModel(_SAID.fault, where=origin.where, hint=_SAID.hint) from None
    return card


def _told(origin: ExternalFile, file: Path, asked: str) -> dict[str, Any]:
    """What outputs, config.json and the user tell, and what running the file shows."""
    config, where, look = origin.config, origin.where, origin.look
    name, is_known = task_of(origin, asked)
    task, notes, sentence = TASKS[name], [], origin.sentence
    if sentence is not None and sentence.pooling is not None and sentence.pooling.active is not None:
        raise UserError(
            f"sentence-transformers leaves {sentence.pooling.active} numbers of a vector (`max_active_dims` in "
            f"{SETTINGS}), and nothing says whether the file does",
            where=where,
            hint="give the model that the file was exported from, or set `max_active_dims` to null",
        )
    if not is_known:
        notes.append(
            f"nothing says what the file is for: it is taken for `{name}`, which decides what of its outputs is kept; "
            "`--task` names it"
        )
    try:
        labels = read_labels(name, config, where) if config else ()
    except UserError as error:
        raise UserError(error.what, where=where, hint="fix the config.json beside the file") from None
    if task.has_labels and not config:
        labels = tuple(f"LABEL_{i}" for i in range(width_of(look, task) or 0))  # as transformers names them
    positions = config.get("max_position_embeddings")
    unknown = 1 << 30
    limit = position_limit(positions, config) if isinstance(positions, int) else unknown
    limit = capped_length(origin.papers, limit)
    if not 0 < limit < unknown:
        limit = (look.most or look.shape)[1] or 0
        if not limit and file.suffix == ".pte":
            raise UserError("cannot tell the longest input of the file", where=where, hint=_LENGTHS)
        if not limit:
            limit = longest_in_subprocess(file, where)
            notes.append(f"nothing says how long an input may be: {limit} tokens is the most that was tried and ran")
    return {
        "task": name,
        "is_task_known": is_known,
        "family": str(config.get("model_type") or "unknown"),
        "labels": labels,
        "pooling": None,
        "max_length": limit,
        "prompt": sentence.prompt if sentence is not None else "",
        "similarity": _similarity(origin),
        "activation": (
            read_activation(origin.papers, config, is_score=task.is_score) if task.has_text_head else "identity"
        ),
        "notes": notes,
    }


def _similarity(origin: ExternalFile) -> Similarity | None:
    return origin.sentence.similarity if origin.sentence is not None else None


def _pooled(said: dict[str, Any]) -> tuple[Any, ...]:
    dimension, mode = said.get("dimension"), said["mode"]
    return Pooling(
        tuple(mode) if isinstance(mode, list) else mode,
        bool(said["normalize"]),
        None if dimension is None else int(dimension),
        int(said.get("skip", 0)),
        None if said.get("active") is None else int(said["active"]),
    ).spec


def _pooling(origin: ExternalFile) -> tuple[Any, ...]:
    """What is to be appended to a file that returns token vectors; raises UserError: more than a pooling."""
    sentence = origin.sentence
    pooling = (sentence.pooling if sentence is not None else None) or Pooling()
    if sentence is not None and sentence.leaves_prompt_out and sentence.prompt:
        raise UserError(
            "the file returns token vectors, and the pooling beside it leaves out the tokens of the default prompt "
            "(`include_prompt: false`)",
            where=origin.where,
            hint="give the model's folder with `model.safetensors`, or export it with `bertshrink export MODEL -o DIR`",
        )
    return pooling.spec


def _layers(origin: ExternalFile, output: str) -> list[tuple[SentenceLayer, dict[str, Any]]]:
    """The layers behind the pooling, with the weights that are beside the file.

    Raises:
        UserError: there are none, or the layers do not take what the pooling gives.
        UnsafeModel: they are damaged.
    """
    pooling = origin.sentence.pooling if origin.sentence is not None else None
    if pooling is None or not pooling.layers:
        return []
    missing = [path for path in layer_files(origin.papers, pooling) if not path.is_file()]
    if missing:
        raise UserError(
            f"the file returns token vectors, and the modules beside it have {len(pooling.layers)} more layers behind "
            f"the pooling, whose weights are not beside it: `{missing[0].relative_to(origin.papers)}`",
            where=origin.where,
            hint="put the modules' folders with their `model.safetensors` beside the file, or give the model's own "
            "folder; a file that gives the vector itself calls it `sentence_embedding`",
        )
    width = origin.look.outputs[output].shape[-1]
    if width is not None:
        pooling.check(width, origin.where)
    modules = load_layers(origin.papers, pooling)
    weights = [{name: one.numpy() for name, one in module.state_dict().items()} for module in modules]
    return list(zip(pooling.layers, weights, strict=True))
