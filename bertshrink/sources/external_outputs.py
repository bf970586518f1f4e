"""Which of a file's outputs are a task's, whatever they are called; and which task it is, where only outputs can tell.

An output counts by its name where it has bertshrink's, else by its form: as many axes as the task's, the last as wide
as there are labels or tokens. Of several token vectors (the hidden states of all layers) the one that is computed from
all others is the last layer's. What is left (attentions, `pooler_output`) is dropped. Which of two, is asked.
"""

from __future__ import annotations

from collections.abc import Iterable

from bertshrink.errors import UserError
from bertshrink.model.tasks import TASKS, TaskSpec, guess_task
from bertshrink.sources.external_file import ExternalFile
from bertshrink.sources.probe_process import ProbeResult

_TOKEN_VECTORS = ("last_hidden_state", "token_embeddings")
_FLOATS = ("float", "float16", "bfloat16", "double")


def task_of(origin: ExternalFile, asked: str) -> tuple[str, bool]:
    """The task of a file that does not say it itself, and whether that is known.

    It is not where neither config.json nor a name tells, nor the user: then a vector is taken for an embedding and
    `logits` for what has as many axes. That serves for sizes and times, of which little depends on it: which outputs
    are kept, and the pooling that is appended to token vectors.

    Args:
        asked: a name in `TASKS`, or `auto`.

    Raises:
        UserError: nothing tells, and no output has a form that one can do without knowing.
    """
    look, sentence = origin.look, origin.sentence
    names = set(look.outputs)
    answers = next(task for task in TASKS.values() if task.reads_context)
    if set(answers.outputs) <= names:
        return answers.name, True
    kind = sentence.kind if sentence is not None else None
    if "sentence_embedding" in names:
        vectors = (task.name for task in TASKS.values() if task.is_vector and task.sentence_kind == kind)
        return next(vectors, "embedding"), True
    fault = None
    if origin.config:
        try:
            return guess_task(origin.config, sentence_kind=kind, where=origin.where), True
        except UserError as error:
            fault = error.what
    if asked in TASKS:
        return asked, True
    if names & set(_TOKEN_VECTORS) and not origin.config.get("architectures"):
        return "embedding", True
    if (logits := look.outputs.get("logits")) is not None and len(logits.shape) in (2, 3):
        whole, tokens = ("classification", "token-classification")
        width = logits.shape[-1]
        if width == 1 and len(logits.shape) == 2:
            whole = "regression"
        if width == look.vocab_size:
            tokens = "mlm"
        return (whole if len(logits.shape) == 2 else tokens), False
    if of_rank(look, 3) or len(of_rank(look, 2)) == 1:
        return "embedding", False
    raise UserError(
        fault or "cannot tell the task of the file",
        where=origin.where,
        hint="name it with `--task`, or put the model's config.json, which names its class and labels, beside the file",
    )


def outputs_of(origin: ExternalFile, task: TaskSpec, num_labels: int) -> tuple[dict[str, str], bool]:
    """The file's outputs -> ours, and whether the task's are among them (else: token vectors, to be pooled).

    Raises:
        UserError: none is the task's, or several could be.
    """
    look, wanted = origin.look, task.outputs
    width = num_labels or task.num_outputs
    if set(wanted) <= set(look.outputs):
        named = [name for name in _token_vectors(look) if name in _TOKEN_VECTORS][: len(task.beside)]
        outputs = dict(zip(named, task.beside, strict=False)) | {name: name for name in wanted}
        _check_form(origin, task, wanted[0], width)
        return outputs, True
    if task.beside and (of_tokens := of_rank(look, 3)):
        if not (vectors := _token_vectors(look)):
            raise UserError(
                f"several of the file's outputs are vectors of tokens: {shown(of_tokens)}; none is computed from all "
                "others, as the last layer's are",
                where=origin.where,
                hint=f"give a file that has one of them, or call it `{task.beside[0]}` (`output_names` at export)",
            )
        return {vectors[0]: task.beside[0]}, False
    if len(wanted) == len(look.outputs) > 1 and all(name.isdecimal() for name in look.outputs):
        return dict(zip(look.outputs, wanted, strict=True)), True
    if len(wanted) == 1:
        fitting = _fitting(look, task, width)
        if len(fitting) == 1 or len(look.outputs) == 1:
            name = fitting[0] if fitting else next(iter(look.outputs))
            _check_form(origin, task, name, width)
            return {name: wanted[0]}, True
        if len(fitting) > 1:
            raise UserError(
                f"several of the file's outputs could be a model's for `{task.name}`: {shown(fitting)}",
                where=origin.where,
                hint=f"give a file that has one of them, or call it {shown(wanted)} (`output_names` at export)",
            )
    raise UserError(
        f"the file gives {shown(look.outputs)}, where a model for `{task.name}` gives {shown(wanted)}",
        where=origin.where,
        hint="use these output names at export (`output_names`), or fix `architectures` in config.json",
    )


def width_of(look: ProbeResult, task: TaskSpec) -> int | None:
    """How many numbers the task's output has, where only the file tells."""
    names = [name for name in task.outputs if name in look.outputs] or _fitting(look, task, None)
    return look.outputs[names[0]].shape[-1] if len(names) == 1 and look.outputs[names[0]].shape else None


def shown(names: Iterable[str]) -> str:
    """Names, for a message."""
    return ", ".join(f"`{name}`" for name in names)


def _token_vectors(look: ProbeResult) -> list[str]:
    """Outputs of token vectors, (B, L, H), the last layer's first."""
    vectors = of_rank(look, 3)
    named = [name for name in _TOKEN_VECTORS if name in look.outputs]
    behind = [name for name in vectors if set(vectors) - {name} <= set(look.behind.get(name, ()))]
    return list(dict.fromkeys((*named, *behind, *(vectors if len(vectors) == 1 else ()))))


def of_rank(look: ProbeResult, rank: int) -> list[str]:
    """The outputs of floats with so many axes, the first of which is the batch."""
    outputs = {name: value.shape for name, value in look.outputs.items() if value.type in _FLOATS}
    return [name for name, shape in outputs.items() if len(shape) == rank and shape[0] in (None, look.shape[0])]


def _rank(task: TaskSpec) -> int:
    return 2 + (task.per_token and not task.reads_context)


def _fitting(look: ProbeResult, task: TaskSpec, width: int | None) -> list[str]:
    """The outputs with the form of the task's only one."""
    if task.is_masked:
        width = look.vocab_size
    names = of_rank(look, _rank(task))
    return [name for name in names if width is None or look.outputs[name].shape[-1] in (None, width)]


def _check_form(origin: ExternalFile, task: TaskSpec, name: str, width: int | None) -> None:
    """Refuse an output that is not shaped as the task's, or is not as wide as there are labels; raises UserError."""
    shape, rank = origin.look.outputs[name].shape, _rank(task)
    has_rows = not shape or shape[0] in (None, origin.look.shape[0])
    if shape and (len(shape) != rank or not has_rows or (width and shape[-1] not in (None, width))):
        sizes = "x".join("any" if size is None else str(size) for size in shape)
        asked = f"{rank} axes, the first of the rows" + (f", the last of {width}" if width else "")
        raise UserError(
            f"the file's output `{name}` has the shape {sizes}; a model for `{task.name}` gives {asked}",
            where=origin.where,
            hint="its config.json (`architectures`, `id2label`) may be that of another model",
        )
