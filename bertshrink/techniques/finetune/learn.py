"""The head that a task needs, and its training."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from bertshrink.engines.torch_engine import pool
from bertshrink.errors import RequestError
from bertshrink.model.encoder import Encoder
from bertshrink.model.encoding import encode
from bertshrink.model.facts import Pooling
from bertshrink.model.labels import labels_of
from bertshrink.model.task import TASKS
from bertshrink.model.texts import Split, Texts
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.finetune import Finetune
from bertshrink.training.batching import Collator, Rows
from bertshrink.training.loop import Job, arithmetic, train
from bertshrink.training.losses import squared_error, task_loss
from bertshrink.training.masking import Masker


def with_head(model: Encoder, bench: Workbench) -> Encoder:
    """The encoder as one for `bench.task`: its own head where that fits, else base weights and a new head.

    Raises:
        RequestError: no texts, or labels that are none for the task.
    """
    texts = _texts(bench)
    task = TASKS[bench.task]
    labels = labels_of(texts, bench.task) if task.has_labels else ()
    if model.task == bench.task and model.labels == labels:
        bench.note("the model's own head was kept")
        return model
    import transformers

    base = model.model if model.task == "embedding" else getattr(model.model, model.anatomy.base)
    config = copy.deepcopy(model.model.config)
    if task.has_labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
    elif task.name == "regression":
        config.num_labels = 1
    if task.auto_class == TASKS["classification"].auto_class:
        config.problem_type = task.problem
    torch.manual_seed(bench.seed)
    made: Any = getattr(transformers, task.auto_class).from_config(config)
    target = made if task.name == "embedding" else getattr(made, model.anatomy.base)
    missing = target.load_state_dict(base.state_dict(), strict=False).missing_keys
    made.tie_weights()
    config.architectures = [type(made).__name__]
    fresh = f", and {len(missing)} weights of its pooler" if missing else ""
    new_head = "" if task.name == "embedding" else f"a new head for {bench.task}"
    if labels:
        shown = ", ".join(labels[:6]) + (", ..." if len(labels) > 6 else "")
        new_head += f" with {len(labels)} labels ({shown})"
    bench.note(f"{new_head or 'the model'} stands on the weights of `{model.source}`{fresh}")
    pooling = (model.pooling or Pooling()) if task.name == "embedding" else None
    keeps_layout = task.name == "embedding"
    return Encoder(
        made.eval(),
        model.tokenizer,
        bench.task,
        model.source,
        model.max_length if not model.sentence_folder or keeps_layout else _own_limit(model),
        pooling,
        model.sentence_folder if keeps_layout else None,
    )


def _own_limit(model: Encoder) -> int:
    """The longest input of the network itself: what a sentence encoder says of sentences binds no other task."""
    padding = model.model.config.pad_token_id or 0
    offset = padding + 1 if model.anatomy.family in ("roberta", "xlm-roberta") else 0
    return model.shape.max_positions - offset


class Task(nn.Module):
    """A model with its task's own loss.

    Args:
        student: stock transformers; what is trained.
        task: a name in `TASKS`.
        pooling: for embedding.
    """

    def __init__(self, student: nn.Module, task: str, pooling: Pooling | None) -> None:
        super().__init__()
        self.student = student
        self.task = task
        self.pooling = pooling

    def forward(self, **batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (scalar) and no parts; `batch` as `training.batching.Collator` makes it."""
        labels = batch.pop("labels")
        del batch["rows"]
        out = self.student(**batch)
        if self.task == "embedding":
            assert self.pooling is not None
            vectors = pool(out.last_hidden_state.float(), batch["attention_mask"], self.pooling.mode, True)
            first, second = vectors[0::2], vectors[1::2]
            return squared_error((first * second).sum(dim=-1), labels), {}
        outputs = {name: out[name] for name in TASKS[self.task].outputs}
        if self.task == "mlm":
            chosen = labels >= 0
            outputs, labels = {"logits": outputs["logits"][chosen]}, labels[chosen]
        return task_loss(self.task, outputs, labels), {}


class PairCollator:
    """Scored pairs as rows one after the other, and the cosine that each pair shall have.

    Args:
        pad_id: of the tokenizer.
        second: the second texts' rows.
    """

    def __init__(self, pad_id: int, second: Rows) -> None:
        self.plain = Collator("embedding", pad_id)
        self.second = second

    def __call__(self, items: list[Any]) -> dict[str, Tensor]:
        """A batch of twice as many rows as pairs."""
        both = [side for item in items for side in (item, (self.second.rows[item[2]], None, item[2], 0))]
        return self.plain(both) | {"labels": torch.tensor([float(label) for _, label, *_ in items])}


def learn(model: Encoder, settings: Finetune, bench: Workbench) -> Encoder:
    """Train `model` in place and return it, in eval mode.

    Raises:
        CheckFailed: training diverged.
        RequestError: labels that are none for the task.
    """
    texts, task = _texts(bench), model.task
    side = texts.train if settings.patience is None else texts.choosing()[0]
    limit = min(bench.max_length or model.max_length, model.max_length)
    pad_id = model.tokenizer.pad_token_id or 0
    masker, collate = None, None
    if task == "mlm":
        masker = Masker(model.tokenizer, settings.mask_share, whole_word=settings.whole_word, seed=bench.seed)
    if task == "embedding":
        rows, collate = _pairs(model, side, limit, pad_id)
    else:
        encoded = encode(task, model.tokenizer, side, limit, model.labels, texts.name)
        rows = Rows(encoded.rows, encoded.labels)
    rate = settings.rate(task, model.shape.hidden_size)
    choose = bench.choose
    bench.note(
        f"trained {rate.epochs:g} epochs of {len(rows)} rows ({sum(rows.lengths)} tokens), "
        f"{str(arithmetic(settings)).removeprefix('torch.')} arithmetic, learning rate {rate.learning_rate:g}"
    )
    outcome = train(
        Job(
            name=settings.name,
            objective=Task(model.model, task, model.pooling),
            rows=rows,
            collate=collate or Collator(task, pad_id, len(model.labels), masker),
            epochs=rate.epochs,
            learning_rate=rate.learning_rate,
            dropout=settings.dropout is not False,
            judge=None if choose is None else lambda: choose(model),
        ),
        settings,
        work=bench.work,
        seed=bench.seed,
        progress=bench.progress,
    )
    bench.history += outcome.history
    for note in outcome.notes:
        bench.note(note)
    return model


def _pairs(model: Encoder, side: Split, limit: int, pad_id: int) -> tuple[Rows, Any]:
    """Rows of the first texts, labelled with the cosine wanted, and what collates them with the second texts."""
    if not side.is_scored:
        raise RequestError(
            "a sentence encoder is fine-tuned on pairs of texts with scores, and the data has none",
            hint="give pairs with a column of numbers such as STS-B's `score`, or name another task with `--task`",
        )
    assert side.pairs is not None and side.labels is not None
    known = [float(score) for score in side.labels if score is not None]
    low, high = min(0.0, *known), max(known)
    wanted = [None if score is None else (float(score) - low) / ((high - low) or 1.0) for score in side.labels]
    keep = [i for i, score in enumerate(wanted) if score is not None]
    first = model.tokenize(side.texts, None, limit)
    second = model.tokenize(side.pairs, None, limit)
    rows = Rows([first[i] for i in keep], [wanted[i] for i in keep])
    return rows, PairCollator(pad_id, Rows([second[i] for i in keep], [None] * len(keep)))


def _texts(bench: Workbench) -> Texts:
    if bench.texts is None:
        raise RequestError("`finetune` needs texts", hint="name texts with `data:` or `--data`")
    return bench.texts
