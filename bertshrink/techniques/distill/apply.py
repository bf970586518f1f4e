"""From a model to a taught student: what it is made of, what it reads, who teaches it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import torch
from torch import nn

from bertshrink import units
from bertshrink.data.calibration import uniform_rows
from bertshrink.data.encoding import encode
from bertshrink.data.labels.labels import match_classes
from bertshrink.data.texts import Split, TextDataset
from bertshrink.errors import UserError
from bertshrink.model.encoder import Encoder
from bertshrink.model.sizes.components import component_of
from bertshrink.model.tasks import TASKS
from bertshrink.model.thinner_copy import thin
from bertshrink.model.units import held_at_zero
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.distill.augment import augmented
from bertshrink.techniques.distill.defaults import LossWeights, default_epochs
from bertshrink.techniques.distill.layer_maps import align
from bertshrink.techniques.distill.objective import DistillationLoss, wanted
from bertshrink.techniques.distill.quant_aware.fake_quant import FakeQuant
from bertshrink.techniques.distill.settings import DistillSettings
from bertshrink.techniques.distill.shared_embedding import Coded
from bertshrink.techniques.distill.student import reduce_layers
from bertshrink.techniques.distill.teacher import LiveTeacher
from bertshrink.techniques.distill.teacher_cache import CachedTeacher, note_of
from bertshrink.training.distributed import ranks
from bertshrink.training.loop import TrainingJob, arithmetic, batches_of, train
from bertshrink.training.optim.row_adagrad import TABLE_STEP
from bertshrink.training.rows.batching import Collator, TokenizedRows
from bertshrink.training.rows.masking import TokenMasker
from bertshrink.training.rows.pretraining_rows import PackedRows, TokenStore

SAMPLE = 256
"""Texts on which `layer_map: auto` compares maps."""
DRAWN_LENGTH = 16
"""Tokens of a row that is drawn from the vocabulary."""


def make_student(model: Encoder, settings: DistillSettings, bench: Workbench) -> tuple[Encoder, tuple[int, ...]]:
    """The untrained student, and the layers of the model that it is made of, counted from 1."""
    depth = model.shape.num_layers
    chosen = settings.chosen(depth, keeps_first=model.anatomy.keeps_first_layer)
    if settings.layer_map == "auto" and len(chosen) < depth:
        chosen = choose_map(model, settings, bench)
    student = reduce_layers(model, chosen, unshare=settings.allow_unsharing) if len(chosen) < depth else model
    if len(chosen) < depth:
        bench.note(f"the student keeps the layers {', '.join(map(str, chosen))} of {depth}")
        if student.shape.num_groups > model.shape.num_groups and model.anatomy.is_shared:
            bench.note(
                f"layers no longer share weights: {model.shape.num_groups} groups of weights grew to {len(chosen)}"
            )
    old, new = student.shape, settings.thinner(student.shape)
    if new != old:
        student = thin(student, new)
        bench.note(
            f"the student is {new.hidden_size} wide with {new.num_heads} heads and {new.intermediate_size} neurons "
            f"per layer; the model has {old.hidden_size}, {old.num_heads} and {old.intermediate_size}"
        )
    if student is not model:
        bench.baseline("untrained", f"{len(chosen)} layers, untrained", student.copy())
    return student, chosen


def choose_map(model: Encoder, settings: DistillSettings, bench: Workbench) -> tuple[int, ...]:
    """The layers whose untrained student is nearest to the teacher on a sample of the training texts.

    Near is what is trained for: the loss of outputs and last hidden states, without labels.
    """
    teacher, texts = _given(bench)
    weights = settings.weights(model.task)
    # States of another width are compared through a projection, and one that has learnt nothing says nothing.
    hidden = float(model.shape.hidden_size == teacher.shape.hidden_size)
    outputs = float(weights.soft > 0 or TASKS[model.task].is_vector or not hidden)
    judged = LossWeights(outputs, 0.0, hidden, temperature=weights.temperature, states="last")
    sample = texts.train.first(SAMPLE)
    rows = encode(
        model.task, model.tokenizer, _bare(sample), _limit(model, bench), model.labels, texts.name, model.prompt
    ).rows
    collate = Collator(model.task, model.tokenizer.pad_token_id or 0, len(model.labels))
    depth = model.shape.num_layers
    losses: dict[str, tuple[float, tuple[int, ...]]] = {}
    for name, layers in settings.compared(model.shape, model.anatomy).items():
        student = reduce_layers(model, layers, unshare=True)
        aligned = align(layers, depth, teacher.shape.num_layers)
        objective = _objective(
            student, LiveTeacher(teacher, wanted(judged, aligned)[1]), judged, aligned, settings, teacher
        )
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(rows), 32):
                items = [(row, None, i, 0) for i, row in enumerate(rows[start : start + 32])]
                total += float(objective(**collate(items))[0]) * len(items)
        losses[name] = (total / len(rows), layers)
    best = min(losses, key=lambda name: losses[name][0])
    scores = ", ".join(f"{name} {loss:.4f}" for name, (loss, _) in losses.items())
    bench.note(f"`layer_map: auto` chose `{best}`: on {len(sample)} texts the untrained student's loss is {scores}")
    return losses[best][1]


def teach(
    student: Encoder,
    settings: DistillSettings,
    chosen: tuple[int, ...],
    num_layers: int,
    bench: Workbench,
    rows: TokenizedRows | PackedRows | None = None,
    tables: tuple[nn.Parameter, ...] = (),
) -> Encoder:
    """Teach `student` in place and return it, in eval mode.

    Args:
        student: its layers are the incoming model's layers `chosen`.
        chosen: counted from 1; they say which hidden states belong together.
        rows: what is read; None: the texts.
        tables: parameters that learn by rows.

    Raises:
        CheckFailed: training diverged.
        UserError: teacher and student do not fit, or labels do not match.
    """
    teacher, _ = _given(bench)
    task, weights = student.task, settings.weights(student.task)
    if num_layers > teacher.shape.num_layers:
        raise UserError(
            f"the model has {num_layers} layers, its teacher {teacher.shape.num_layers}: it cannot be distilled"
        )
    if TASKS[task].has_labels and match_classes(student.labels, teacher.labels, student.source) != list(
        range(len(teacher.labels))
    ):
        raise UserError(
            f"the student's classes are `{'`, `'.join(student.labels[:10])}`, the teacher's "
            f"`{'`, `'.join(teacher.labels[:10])}`, in another order",
            hint="distill a model that was made from its teacher",
        )
    # An earlier stage may have made the student thinner than its teacher, which `fit` cannot know.
    settings.check_heads(task, student.shape, teacher.shape)
    if rows is None:
        rows = training_rows(student, settings, bench, labelled=bool(weights.task))
    aligned = align(chosen, num_layers, teacher.shape.num_layers)
    _, of_teacher = wanted(weights, aligned)
    dtype, choose = arithmetic(settings), bench.choose
    live = LiveTeacher(teacher, of_teacher, dtype)
    answering: LiveTeacher | CachedTeacher = live
    if settings.teacher_cache and isinstance(rows, TokenizedRows):
        if bench.cache is None:
            raise UserError("`teacher_cache` is set, but there is no folder to keep it in", hint="leave it out")
        pooling = asdict(teacher.pooling) if teacher.pooling else None
        answering = CachedTeacher(
            live,
            of_teacher,
            rows.rows,
            per_token=TASKS[task].per_token,
            root=bench.cache / "teacher",
            conditions={"task": task, "arithmetic": str(dtype), "pooling": pooling},
            top_k=settings.cache_top_k,
        )
    masker = None
    if TASKS[task].is_masked:
        masker = TokenMasker(student.tokenizer, settings.mask_share, whole_word=settings.whole_word, seed=bench.seed)
    num_batches = len(batches_of(rows, settings, bench.seed)) / settings.gradient_accumulation_steps
    epochs = weights.epochs or default_epochs(max(1, round(num_batches)), weights.most_epochs)
    bench.note(_sentence(rows, epochs, dtype, weights, task))
    layers = student.layers or nn.ModuleList()
    if settings.trainable == "embeddings":
        for name, parameter in student.model.named_parameters():
            parameter.requires_grad_(component_of(student.anatomy, name) == "embeddings")
        layers.requires_grad_(False)
    torch.manual_seed(bench.seed)  # a projection starts at random, whatever was drawn before
    job = TrainingJob(
        name=settings.name,
        objective=_objective(student, answering, weights, aligned, settings, teacher),
        rows=rows,
        collate=Collator(task, student.tokenizer.pad_token_id or 0, len(student.labels), masker),
        epochs=epochs,
        learning_rate=weights.learning_rate,
        dropout=weights.dropout,
        judge=None if choose is None else lambda: choose(student),
        companions=(live.module, live.layers),
        tables=tables,
    )
    with held_at_zero(student), _as_quantized(student, settings, bench):
        outcome = train(job, settings, work=bench.work, seed=bench.seed, progress=bench.progress)
    student.model.requires_grad_(True)
    layers.requires_grad_(True)
    bench.record(outcome)
    bench.notes += note_of(answering) if isinstance(answering, CachedTeacher) else []
    return student


def teach_shallow(student: Encoder, settings: DistillSettings, bench: Workbench) -> Encoder:
    """Teach the embeddings of `student` in place by the hidden states after its first `settings.match_layers` layers.

    The layers above them are not computed at all, and what goes wrong in embeddings shows in the first layers already.
    Half of the rows are tokens drawn from the whole vocabulary, so that those which the texts lack learn, too: without
    them the projection follows the others and leaves them behind.

    Raises:
        CheckFailed: training diverged.
        UserError: the teacher has another number of layers, or another width.
    """
    teacher, _ = _given(bench)
    mine, theirs = student.shape, teacher.shape
    if (mine.num_layers, mine.hidden_size) != (theirs.num_layers, theirs.hidden_size):
        raise UserError(
            f"`match_layers` compares layer with layer; the model has {mine.num_layers} of width {mine.hidden_size}, "
            f"its teacher {theirs.num_layers} of width {theirs.hidden_size}",
            hint="leave it out",
        )
    depth = settings.match_layers or mine.num_layers
    first = tuple(range(1, depth + 1))
    low, high = (
        one if depth == mine.num_layers else reduce_layers(one, first, unshare=True) for one in (student, teacher)
    )
    only = {
        "match_layers": None,
        "soft_weight": 0.0,
        "task_weight": 0.0,
        "hidden_states": settings.hidden_states or "last",
    }
    shallow = settings.model_copy(update=only)
    rows = training_rows(low, shallow, bench, labelled=False)
    if isinstance(rows, TokenizedRows):
        drawn = uniform_rows(low, len(rows.rows), DRAWN_LENGTH, bench.seed)
        more = [{name: row.get(name, [0] * DRAWN_LENGTH) for name in rows.rows[0]} for row in drawn]
        rows = TokenizedRows([*rows.rows, *more], [*rows.labels, *[None] * len(more)])
        bench.note(f"half of the rows are {DRAWN_LENGTH} tokens each, drawn from the whole vocabulary")
    with Coded(low, high) as codes:
        lone = replace(bench, teacher=high, choose=None)
        taught = teach(low, shallow, first, depth, lone, rows, tables=(codes.own_VK,))
    rule = f", rows of the table by whitened Adagrad at {TABLE_STEP:g} times the learning rate, without weight decay"
    bench.note(
        f"the embeddings were trained on the hidden states after the first {depth} of {mine.num_layers} layers"
        f"{'' if ranks.is_sharded() else rule}"
    )
    taught_parameters = dict(taught.model.named_parameters())
    with torch.no_grad():
        for name, parameter in student.model.named_parameters():
            if component_of(student.anatomy, name) == "embeddings":
                parameter.copy_(taught_parameters[name])
    return student


def training_rows(
    model: Encoder, settings: DistillSettings, bench: Workbench, *, labelled: bool
) -> TokenizedRows | PackedRows:
    """What the student reads: the training texts, or running text packed to full length.

    Raises:
        UserError: labels that the model does not have.
    """
    _, texts = _given(bench)
    limit = _limit(model, bench)
    if texts.corpus is not None:
        root = (bench.cache or bench.work) / "tokens"
        store = TokenStore.of(texts.corpus, model.tokenizer, root, bench.progress)
        return PackedRows(store, model.tokenizer, "full-sentences", limit, bench.seed)
    side = texts.train if settings.early_stopping_patience is None else texts.choosing()[0]
    if settings.augment_per_example:
        bench.progress.log(f"generating rows from the {len(side)} training texts")
        made = augmented(side, settings.augment_per_example, bench.seed)
        bench.note(f"{len(made)} unlabelled rows were generated from the {len(side)} rows of the training split")
        side = side.with_unlabelled(made)
    read = side if labelled else _bare(side)
    encoded = encode(model.task, model.tokenizer, read, limit, model.labels, texts.name, model.prompt)
    return TokenizedRows(encoded.rows, encoded.labels)


def _objective(
    student: Encoder,
    answering: LiveTeacher | CachedTeacher,
    weights: LossWeights,
    aligned: list[tuple[int, int]],
    settings: DistillSettings,
    teacher: Encoder,
) -> DistillationLoss:
    return DistillationLoss(
        student.model,
        answering,
        student.task,
        weights,
        aligned,
        widths=(student.shape.hidden_size, teacher.shape.hidden_size),
        heads=(student.shape.num_heads, settings.relation_heads or teacher.shape.num_heads),
        pooling=student.pooling,
        activation=student.activation,
        layers=student.layers,
    )


@contextmanager
def _as_quantized(student: Encoder, settings: DistillSettings, bench: Workbench) -> Iterator[None]:
    """While it is open, the student computes as the stage's `fake_quant` says."""
    if settings.fake_quant is None:
        yield
        return
    rounded = FakeQuant(student, settings.fake_quant, settings.block_size, is_sharded=ranks.is_sharded())
    with rounded as rounded_weights:
        bench.note(rounded_weights.sentence())
        yield
        rounded.settle()


def _given(bench: Workbench) -> tuple[Encoder, TextDataset]:
    if bench.teacher is None or bench.texts is None:
        raise UserError("`distill` needs a teacher and texts", hint="name texts with `data:` or `--data`")
    return bench.teacher, bench.texts


def _limit(model: Encoder, bench: Workbench) -> int:
    return min(bench.max_length or model.max_length, model.max_length)


def _bare(split: Split) -> Split:
    return replace(split, labels=None)


def _sentence(
    rows: TokenizedRows | PackedRows, epochs: float, dtype: torch.dtype, weights: LossWeights, task: str
) -> str:
    """What was trained, for the report."""
    parts = {
        "soft": weights.soft,
        "task": weights.task,
        "hidden": weights.hidden,
        "attention": weights.attention,
        "relation": weights.relation,
        "logits": weights.logits,
    }
    shown = ", ".join(
        f"{name} {value:g}" for name, value in parts.items() if value or name in ("soft", "task", "hidden")
    )
    labelled = ""
    if isinstance(rows, PackedRows):
        labelled = ", packed to full length"
    elif weights.task and TASKS[task].needs_labels:
        num_labelled = sum(label is not None for label in rows.labels)
        labelled = f", {'all' if num_labelled == len(rows) else f'{num_labelled} of them'} labelled"
    return (
        f"trained {units.counted(epochs, 'epoch')} of {len(rows)} rows ({sum(rows.lengths)} tokens){labelled}, "
        f"{str(dtype).removeprefix('torch.')} arithmetic, learning rate {weights.learning_rate:g}, "
        f"loss weights {shown}, hidden states {weights.states} by {weights.hidden_loss}, T {weights.temperature:g}"
    )
