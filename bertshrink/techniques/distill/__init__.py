"""Distillation as DistilBERT does it: the student is the teacher with every other layer, taught by the whole teacher.

    student layer i = teacher layer round(i L / N)        i = 1..N, halves upward; width and heads stay
    loss = a KL(teacher/T || student/T) T^2 + b task + c (1 - cos(h_student, h_teacher))

The KL runs over classes (classification) or the vocabulary at every attended token (MLM); the task loss is
cross-entropy with the labels or with the masked tokens; the cosine runs over attended tokens of aligned hidden
states. A sentence encoder has no classes: there, the soft target is the teacher's sentence vector and the matrix of
similarities in the batch (`losses`).

Without `layers` the student keeps its depth and only learns: the recovery of a model that another stage made smaller.

Paper: DistilBERT, arXiv:1910.01108. Similarity structure: Similarity-Preserving Knowledge Distillation,
arXiv:1907.09682. Left out: several teachers, attention and relation losses, early stopping.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bertshrink.errors import RequestError
from bertshrink.model.anatomy import shared_group
from bertshrink.techniques.base import Kind, Need, Technique, Workbench

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.model.facts import Facts
    from bertshrink.techniques.base import Model

DISTILBERT_LAYERS = (1, 3, 5, 8, 10, 12)
"""0, 2, 4, 7, 9, 11 of 12 counted from 1: the choice in DistilBERT's published code."""


@dataclass(frozen=True)
class Defaults:
    """What a task uses where the recipe is silent."""

    soft: float
    task: float
    hidden: float
    temperature: float
    states: Literal["last", "all"]
    dropout: bool
    learning_rate: float
    epochs: float | None


DEFAULTS: dict[str, Defaults] = {
    # The published command of DistilBERT's code: alpha_ce 5, alpha_mlm 2, alpha_cos 1, T 2, last state, lr 5e-4,
    # 3 epochs. Embedding's are chosen among six measured settings; classification's are the first that held the goal of
    # 97 % of the teacher (benchmarks/LOG.md).
    "mlm": Defaults(
        soft=5.0,
        task=2.0,
        hidden=1.0,
        temperature=2.0,
        states="last",
        dropout=True,
        learning_rate=5e-4,
        epochs=3,
    ),
    "classification": Defaults(
        soft=1.0,
        task=0.5,
        hidden=1.0,
        temperature=2.0,
        states="all",
        dropout=True,
        learning_rate=1e-4,
        epochs=None,
    ),
    "embedding": Defaults(
        soft=1.0,
        task=0.0,
        hidden=1.0,
        temperature=0.2,
        states="all",
        dropout=False,
        learning_rate=2e-4,
        epochs=None,
    ),
}


MOST_EPOCHS = 3
ENOUGH_STEPS = 2000
"""Where a task has no number of epochs of its own: `MOST_EPOCHS`, fewer where that is more than `ENOUGH_STEPS` steps,
but each text once. SST-2 (2,105 steps an epoch) is past 97 % of its teacher after one; small data want the three."""


def default_epochs(num_batches: int) -> float:
    """Passes over the texts where neither recipe nor task says, from the steps that one takes."""
    return min(float(MOST_EPOCHS), max(1.0, round(ENOUGH_STEPS / num_batches, 1)))


def every_other(num_layers: int, num_kept: int) -> tuple[int, ...]:
    """The teacher's layers, counted from 1, that make a student of `num_kept`: round(i L / N), halves upward."""
    return tuple((2 * i * num_layers + num_kept) // (2 * num_kept) for i in range(1, num_kept + 1))


def kept_groups(chosen: tuple[int, ...], num_layers: int, num_groups: int) -> tuple[int, ...] | None:
    """The teacher's groups of weights, in order, of a layer-shared student made of the layers `chosen` (from 1).

    Returns:
        None when a stock model cannot share them so: stock gives layer i of N the group int(i / (N / G)).
    """
    wanted = [shared_group(layer - 1, num_layers, num_groups) for layer in chosen]
    kept = tuple(sorted(set(wanted)))
    given = [kept[shared_group(i, len(chosen), len(kept))] for i in range(len(chosen))]
    return kept if given == wanted else None


class Distill(Technique):
    """Teach a student with fewer layers what its teacher knows."""

    name: ClassVar[str] = "distill"
    paper: ClassVar[str] = "arXiv:1910.01108"
    takes: ClassVar[Kind] = "encoder"
    gives: ClassVar[Kind] = "encoder"

    layers: int | None = Field(None, description="layers that the student keeps; none given: it keeps its depth")
    keep: Literal["every-other", "distilbert"] | tuple[int, ...] = Field(
        "every-other",
        description="which teacher layers: `every-other`, `distilbert` (1,3,5,8,10,12 of 12), or a list counted from 1",
    )
    unshare: bool = Field(False, description="let a layer-shared student (ALBERT) grow where sharing cannot be kept")
    epochs: float | None = Field(
        None, gt=0, le=1000, description="passes over the training texts; default: 1 to 3, fewer the more texts; MLM 3"
    )
    learning_rate: float | None = Field(None, gt=0, lt=1, description="peak of the linear schedule")
    batch_size: int = Field(32, ge=1, description="texts per step, at most; batches hold texts of like length")
    batch_tokens: int | None = Field(None, ge=16, description="tokens per step, padding included, at most")
    temperature: float | None = Field(None, gt=0, description="T, which softens the soft targets")
    soft_weight: float | None = Field(None, ge=0, description="weight of the teacher's soft targets")
    task_weight: float | None = Field(None, ge=0, description="weight of the task's own loss (labels, masked tokens)")
    hidden_weight: float | None = Field(None, ge=0, description="weight of the cosine between aligned hidden states")
    states: Literal["last", "all"] | None = Field(None, description="hidden states compared: the last, or all aligned")
    mask_share: float = Field(0.15, gt=0, lt=1, description="MLM: share of tokens that are masked")
    warmup: float = Field(0.06, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay of AdamW")
    dropout: bool | None = Field(None, description="keep the model's own dropout while training")
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="of the arithmetic in training; auto: bfloat16 where the hardware multiplies it natively"
    )
    checkpoint_steps: int | None = Field(
        None, ge=1, description="steps between checkpoints; default: a tenth of the run"
    )

    @model_validator(mode="after")
    def _together(self) -> Distill:
        if self.layers is not None and self.layers != self.num_kept:
            raise ValueError(f"`keep` names {self.num_kept} layers, `layers` says {self.layers}")
        if isinstance(self.keep, tuple) and (
            not self.keep or list(self.keep) != sorted(set(self.keep)) or self.keep[0] < 1
        ):
            raise ValueError("`keep` must list layers counted from 1, each once, in rising order")
        return self

    def needs(self) -> frozenset[Need]:
        """A teacher, texts to learn from and to be judged by."""
        return frozenset({"teacher", "train", "dev"})

    def label(self) -> str:
        """The stage in a few words."""
        number = self.num_kept
        return f"distill to {number} layer{'s' if number != 1 else ''}" if number else "distill"

    @property
    def num_kept(self) -> int | None:
        """How many layers the student will have; None: as many as before."""
        if isinstance(self.keep, tuple):
            return len(self.keep)
        return len(DISTILBERT_LAYERS) if self.keep == "distilbert" else self.layers

    def chosen(self, num_layers: int) -> tuple[int, ...]:
        """The incoming model's layers, counted from 1, that the student keeps.

        Raises:
            RequestError: more than there are, fewer than one, or a preset for another depth.
        """
        if isinstance(self.keep, tuple):
            if self.keep[-1] > num_layers:
                hint = f"name layers from 1 to {num_layers}"
                raise RequestError(f"`keep` names layer {self.keep[-1]}; the model has {num_layers}", hint=hint)
            return self.keep
        if self.keep == "distilbert":
            if num_layers != 12:
                hint = f"leave `keep` out and say `layers: {max(1, num_layers // 2)}`"
                raise RequestError(f"`keep: distilbert` makes 6 layers of 12; the model has {num_layers}", hint=hint)
            return DISTILBERT_LAYERS
        number = num_layers if self.layers is None else self.layers
        if not 1 <= number <= num_layers:
            raise RequestError(
                f"`layers` is {number}; the model has {num_layers}",
                hint=f"give 1 to {num_layers}; half is `layers: {max(1, num_layers // 2)}`",
            )
        return every_other(num_layers, number)

    def defaults(self, task: str) -> Defaults:
        """The task's defaults with this stage's own settings laid over them."""
        own: dict[str, Any] = {
            "soft": self.soft_weight,
            "task": self.task_weight,
            "hidden": self.hidden_weight,
            "temperature": self.temperature,
            "states": self.states,
            "dropout": self.dropout,
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
        }
        return replace(DEFAULTS[task], **{key: value for key, value in own.items() if value is not None})

    def fit(self, facts: Facts) -> Facts:
        """Prove the number of layers, the sharing and the losses against the model."""
        shape = facts.shape
        chosen = self.chosen(shape.num_layers)
        weights = self.defaults(facts.task)
        if facts.task == "embedding" and weights.task:
            raise RequestError(
                "`task_weight` is set, but a sentence encoder has no task loss of its own",
                hint="its soft targets are the teacher's sentence vectors: use `soft_weight`",
            )
        if facts.task != "mlm" and "mask_share" in self.model_fields_set:
            raise RequestError(
                "`mask_share` is set, but only a masked language model has tokens masked in training",
                hint="leave it out",
            )
        if weights.soft == weights.task == weights.hidden == 0:
            raise RequestError(
                "every loss weight is 0: there is nothing to learn from",
                hint="leave one of `soft_weight`, `task_weight` and `hidden_weight` at its default",
            )
        if not facts.anatomy.is_shared:
            if self.unshare:
                raise RequestError(
                    f"`unshare` is set, but layers of the family `{facts.anatomy.family}` share no weights",
                    hint="leave it out",
                )
            return replace(facts, shape=replace(shape, num_layers=len(chosen), num_groups=len(chosen)))
        groups = kept_groups(chosen, shape.num_layers, shape.num_groups)
        if groups is None and not self.unshare:
            raise RequestError(
                f"the layers {', '.join(map(str, chosen))} cannot keep the sharing of the model's {shape.num_groups} "
                f"groups of weights over {shape.num_layers} layers",
                hint=f"choose other layers, or set `unshare: true`: {shape.num_groups} groups grow to {len(chosen)}",
            )
        num_groups = len(groups) if groups is not None else len(chosen)
        return replace(facts, shape=replace(shape, num_layers=len(chosen), num_groups=num_groups))

    def __call__(self, model: Model, bench: Workbench) -> Encoder:
        """Reduce the model and teach it."""
        from bertshrink.model.encoder import Encoder
        from bertshrink.techniques.distill.student import reduce_layers
        from bertshrink.techniques.distill.training import train

        if not isinstance(model, Encoder):
            raise RequestError("`distill` takes an encoder, not an artifact")
        student, num_layers = model, model.shape.num_layers
        chosen = self.chosen(num_layers)
        if len(chosen) < num_layers:
            student = reduce_layers(model, chosen, unshare=self.unshare)
            bench.note(f"the student is the model's layers {', '.join(map(str, chosen))} of {num_layers}")
            if student.shape.num_groups > model.shape.num_groups and model.anatomy.is_shared:
                bench.note(f"sharing was given up: {model.shape.num_groups} groups of weights grew to {len(chosen)}")
            bench.baseline("untrained", f"{len(chosen)} layers, untrained", student.copy())
        return train(student, self, chosen, num_layers, bench)
