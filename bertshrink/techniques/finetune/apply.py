"""The head that a task needs, and its training."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bertshrink import units
from bertshrink.data.encoding import encode
from bertshrink.data.labels.labels import labels_of, match_classes
from bertshrink.data.texts import Split, TextDataset
from bertshrink.engines.torch_session import SENTENCE, of_tokens, pool
from bertshrink.errors import UserError
from bertshrink.model.checkpoint_info import own_limit, usual_pooling
from bertshrink.model.encoder import Encoder
from bertshrink.model.folder.pooling import Pooling
from bertshrink.model.tasks import TASKS
from bertshrink.model.units import held_at_zero
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.finetune.settings import FinetuneSettings
from bertshrink.training.loop import TrainingJob, arithmetic, train
from bertshrink.training.losses import task_loss
from bertshrink.training.rows.batching import Collator, TokenizedRows
from bertshrink.training.rows.masking import TokenMasker
from bertshrink.training.rows.pretraining_rows import PackedRows, TokenStore


def with_head(model: Encoder, bench: Workbench) -> Encoder:
    """The encoder as one for `bench.task`: its own head where that fits, else base weights and a new head.

    Raises:
        UserError: no texts, or labels that are none for the task.
    """
    texts = _texts(bench)
    task = TASKS[bench.task]
    own = model.labels if model.task == bench.task else ()
    labels = labels_of(texts, bench.task, own) if task.has_labels else ()
    if model.task == bench.task and has_classes(model, labels):
        if task.needs_labels:
            bench.note("the model's own head was kept")
        return model
    import transformers

    base = model.model if TASKS[model.task].is_bare else getattr(model.model, model.anatomy.base)
    config = copy.deepcopy(model.model.config)
    config.num_labels = task.num_outputs or 2  # also what transformers sizes the head for answers by
    if task.has_labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
    config.problem_type = task.problem
    torch.manual_seed(bench.seed)
    made: Any = getattr(transformers, task.auto_class).from_config(config)
    target = made if task.is_bare else getattr(made, model.anatomy.base)
    missing = target.load_state_dict(base.state_dict(), strict=False).missing_keys
    made.tie_weights()
    config.architectures = [type(made).__name__]
    fresh = f"; the {len(missing)} weights of the pooler are also new" if missing else ""
    new_head = "the model" if task.is_bare else f"a new head for {bench.task}"
    if labels:
        shown = ", ".join(labels[:6]) + (", ..." if len(labels) > 6 else "")
        new_head += f" with {len(labels)} labels ({shown})"
    bench.note(f"{new_head} was added to the weights of `{model.source}`{fresh}")
    if task.is_vector:
        pooling = usual_pooling(bench.task)
        return Encoder(made.eval(), model.tokenizer, bench.task, model.source, model.max_length, pooling)
    tokenizer, limit = model.tokenizer, model.max_length
    if model.sentence_folder is not None:  # what it says of the length of sentences binds no other task
        tokenizer, limit = copy.deepcopy(tokenizer), own_limit(model.shape, config.to_dict())
        tokenizer.model_max_length = limit
    return Encoder(made.eval(), tokenizer, bench.task, model.source, limit)


def has_classes(model: Encoder, labels: tuple[str, ...]) -> bool:
    """Whether a model's own classes are those of the data, in whatever order: then its head can go on with them."""
    try:
        match_classes(model.labels, labels, model.source)
    except UserError:
        return False
    return True


class TaskObjective(nn.Module):
    """A model with its task's own loss.

    Args:
        student: stock transformers; what is trained.
        task: a name in `TASKS`.
        pooling: for embedding.
        layers: behind it; they are trained, too.
        activation: what makes a score of a logit: `identity` or `sigmoid`.

    Pairs of texts (two rows each) without scores learn to find each other in their batch.
    """

    def __init__(
        self,
        student: nn.Module,
        task: str,
        pooling: Pooling | None,
        activation: str = "identity",
        layers: nn.ModuleList | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList() if layers is None else layers
        self.student = student
        self.task = task
        self.pooling = pooling
        self.activation = activation

    def forward(self, **batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss (scalar) and no parts; `batch` as `training.rows.batching.Collator` makes it."""
        labels = batch.pop("labels")
        del batch["rows"]
        out = self.student(**batch)
        if TASKS[self.task].is_vector:
            assert self.pooling is not None
            cut = replace(self.pooling, normalize=False, active=None).spec  # all numbers learn
            outputs = {SENTENCE: pool(of_tokens(out).float(), batch["attention_mask"], *cut, layers=self.layers)}
        else:
            outputs = {name: out[name] for name in TASKS[self.task].outputs}
        return task_loss(self.task, outputs, labels, self.activation), {}


class PairCollator:
    """Pairs as rows one after the other, and the cosine that each pair should have (NaN: it has no score).

    Args:
        pad_id: of the tokenizer.
        second: the second texts' rows.
    """

    def __init__(self, pad_id: int, second: TokenizedRows) -> None:
        self.plain = Collator("embedding", pad_id)
        self.second = second

    def __call__(self, items: list[Any]) -> dict[str, Tensor]:
        """A batch of twice as many rows as pairs."""
        both = [side for item in items for side in (item, (self.second.rows[item[2]], None, item[2], 0))]
        wanted = [math.nan if label is None else float(label) for _, label, *_ in items]
        return self.plain(both) | {"labels": torch.tensor(wanted)}


def learn(model: Encoder, settings: FinetuneSettings, bench: Workbench) -> Encoder:
    """Train `model` in place and return it, in eval mode.

    Raises:
        CheckFailed: training diverged.
        UserError: labels that are none for the task.
    """
    rows, collate = training_rows(model, settings, bench)
    rate = settings.rate(model.task, model.shape.hidden_size, len(rows))
    choose = bench.choose
    bench.note(
        f"trained {units.counted(rate.epochs, 'epoch')} of {len(rows)} rows ({sum(rows.lengths)} tokens), "
        f"{str(arithmetic(settings)).removeprefix('torch.')} arithmetic, learning rate {rate.learning_rate:g}"
    )
    with held_at_zero(model):
        outcome = train(
            TrainingJob(
                name=settings.name,
                objective=TaskObjective(model.model, model.task, model.pooling, model.activation, model.layers),
                rows=rows,
                collate=collate,
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
    bench.record(outcome)
    return model


def training_rows(
    model: Encoder, settings: FinetuneSettings, bench: Workbench
) -> tuple[TokenizedRows | PackedRows, Any]:
    """What is learnt from, and what makes batches of it. Raises UserError: labels that are none for the task."""
    texts, task = _texts(bench), model.task
    limit = min(bench.max_length or model.max_length, model.max_length)
    pad_id = model.tokenizer.pad_token_id or 0
    side = texts.train if settings.early_stopping_patience is None else texts.choosing()[0]
    if TASKS[task].is_vector:
        return _pairs(model, side, limit, pad_id)
    if TASKS[task].is_masked:
        masker = TokenMasker(model.tokenizer, settings.mask_share, whole_word=settings.whole_word, seed=bench.seed)
        collate = Collator(task, pad_id, masker=masker)
        if texts.corpus is not None:
            store = TokenStore.of(texts.corpus, model.tokenizer, (bench.cache or bench.work) / "tokens", bench.progress)
            return PackedRows(store, model.tokenizer, "full-sentences", limit, bench.seed), collate
        encoded = encode(task, model.tokenizer, side, limit, (), texts.name, model.prompt)
        return TokenizedRows(encoded.rows, encoded.labels), collate
    encoded = encode(task, model.tokenizer, side, limit, model.labels, texts.name, model.prompt)
    known = [i for i, label in enumerate(encoded.labels) if label is not None]
    if len(known) < len(encoded.rows):
        bench.note(f"{len(encoded.rows) - len(known)} unlabelled rows were skipped")
    rows = TokenizedRows([encoded.rows[i] for i in known], [encoded.labels[i] for i in known])
    return rows, Collator(task, pad_id, len(model.labels))


def _pairs(model: Encoder, side: Split, limit: int, pad_id: int) -> tuple[TokenizedRows, PairCollator]:
    """Rows of the first texts, labelled with the cosine wanted, and what collates them with the second texts.

    Scores are stretched to 0..1; pairs that belong together without one have the label None.
    """
    assert side.pairs is not None
    wanted: list[float | None] = [None] * len(side)
    keep = list(range(len(side)))
    if side.is_scored:
        labels = side.labels or ()
        keep = [i for i, score in enumerate(labels) if score is not None]
        known = [float(labels[i]) for i in keep]
        low, high = min(0.0, *known), max(known)
        for i, score in zip(keep, known, strict=True):
            wanted[i] = (score - low) / ((high - low) or 1.0)
    first = model.tokenize(side.texts, None, limit)
    second = model.tokenize(side.pairs, None, limit)
    rows = TokenizedRows([first[i] for i in keep], [wanted[i] for i in keep])
    return rows, PairCollator(pad_id, TokenizedRows([second[i] for i in keep], [None] * len(keep)))


def _texts(bench: Workbench) -> TextDataset:
    if bench.texts is None:
        raise UserError("`finetune` needs texts", hint="name texts with `data:` or `--data`")
    return bench.texts
