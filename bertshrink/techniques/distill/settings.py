"""Settings of `distill`: what they mean, what fits them, what they promise. No torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from bertshrink.errors import UserError
from bertshrink.model.families import shared_group
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.base import Need, Technique
from bertshrink.techniques.distill.defaults import (
    DEFAULTS,
    EMBEDDINGS_LEARNING_RATE,
    ROUNDED_SLOWDOWN,
    SHALLOW_BATCH,
    LossWeights,
)
from bertshrink.techniques.distill.layer_maps import MAPS, candidates, uniform
from bertshrink.training.settings import TrainingSettings

if TYPE_CHECKING:
    from bertshrink.model.checkpoint_info import CheckpointInfo
    from bertshrink.model.family import ModelFamily
    from bertshrink.model.model_ref import Kind
    from bertshrink.model.sizes.encoder_dims import EncoderDims


def kept_groups(chosen: tuple[int, ...], num_layers: int, num_groups: int) -> tuple[int, ...] | None:
    """The teacher's groups of weights, in order, of a layer-shared student made of the layers `chosen` (from 1).

    Returns:
        None when a stock model cannot share them so: stock gives layer i of N the group int(i / (N / G)).
    """
    wanted = [shared_group(layer - 1, num_layers, num_groups) for layer in chosen]
    kept = tuple(sorted(set(wanted)))
    given = [kept[shared_group(i, len(chosen), len(kept))] for i in range(len(chosen))]
    return kept if given == wanted else None


class DistillSettings(TrainingSettings, Technique):
    """Distill a smaller student from its teacher."""

    name: ClassVar[str] = "distill"
    paper: ClassVar[str] = "arXiv:1910.01108"
    takes: ClassVar[tuple[Kind, ...]] = ("encoder",)
    gives: ClassVar[Kind] = "encoder"
    trains: ClassVar[bool] = True
    other_names: ClassVar[Mapping[str, str]] = {
        **TrainingSettings.other_names,
        "augment": "augment_per_example",
        "depth": "match_layers",
        "keep": "layer_map",
        "states": "hidden_states",
        "trained": "trainable",
        "unshare": "allow_unsharing",
    }
    panels: ClassVar[Mapping[str, str]] = {
        **TrainingSettings.panels,
        "temperature": "Losses",
        "hidden_loss": "Losses",
        "hidden_states": "Losses",
        "relation_heads": "Losses",
        **{f"{loss}_weight": "Losses" for loss in ("soft", "task", "hidden", "attention", "relation", "logits")},
    }

    layers: int | None = Field(None, description="number of student layers; default: the model's")
    layer_map: Literal["uniform", "every-other", "first", "last", "auto"] | tuple[int, ...] = Field(
        "uniform",
        description="which teacher layers: uniform (first, last and evenly between), every-other, first, last, a list "
        "counted from 1, or auto: the map whose untrained student is nearest to the teacher",
    )
    hidden_size: int | None = Field(None, ge=1, description="hidden size of the student; default: the model's")
    heads: int | None = Field(None, ge=1, description="attention heads of the student; default: the model's")
    intermediate_size: int | None = Field(
        None, ge=1, description="feed-forward hidden size of the student; default: the model's"
    )
    allow_unsharing: bool = Field(
        False, description="allow a layer-shared (ALBERT) student to grow when sharing cannot be kept"
    )
    trainable: Literal["all", "embeddings"] = Field(
        "all", description="weights that are trained: all, or the embeddings only"
    )
    match_layers: int | None = Field(
        None, ge=1, description="with `trainable: embeddings`: number of first layers to run and compare"
    )
    temperature: float | None = Field(None, gt=0, description="temperature T of the soft targets")
    soft_weight: float | None = Field(None, ge=0, description="weight of the teacher's soft targets")
    task_weight: float | None = Field(None, ge=0, description="weight of the task's own loss (labels, masked tokens)")
    hidden_weight: float | None = Field(None, ge=0, description="weight of the hidden-state loss")
    hidden_loss: Literal["cosine", "mse"] | None = Field(
        None, description="how hidden states are compared: cosine (DistilBERT) or mse (TinyBERT)"
    )
    hidden_states: Literal["last", "all"] | None = Field(
        None, description="hidden states to compare: last, or all aligned ones"
    )
    attention_weight: float | None = Field(
        None, ge=0, description="weight of the error of aligned layers' attention scores (TinyBERT)"
    )
    relation_weight: float | None = Field(
        None, ge=0, description="weight of the last layers' query, key and value relations (MiniLMv2)"
    )
    relation_heads: int | None = Field(None, ge=1, description="number of relation heads; default: the teacher's heads")
    logits_weight: float | None = Field(None, ge=0, description="weight of the squared error of the logits")
    fake_quant: Literal["int8", "int4"] | None = Field(
        None,
        description="train with weights (for int8 also activations) rounded as `quantize` will round them: int8 for "
        "`dynamic-int8`, int4 for `block-int4`; the result is a stock float checkpoint",
    )
    block_size: Literal[16, 32, 64, 128, 256] | None = Field(
        None, description="with `fake_quant: int4`: values that share a scale; default: 32"
    )
    mask_share: float = Field(0.15, gt=0, lt=1, description="MLM: fraction of masked tokens")
    whole_word: bool = Field(False, description="MLM: mask whole words")
    augment_per_example: int = Field(
        0, ge=0, description="synthetic rows per training text or pair, labelled by the teacher; for small data"
    )
    teacher_cache: bool = Field(
        False, description="cache the teacher's outputs on disk for later epochs and other students"
    )
    cache_top_k: int | None = Field(None, ge=1, description="cache only the top N logits of each output")

    @model_validator(mode="before")
    @classmethod
    def _shallow_batch(cls, given: Any) -> Any:
        # Here, so that a stage's fingerprint and report tell the number that is used.
        if isinstance(given, dict) and given.get("match_layers") is not None:
            return {"batch_size": SHALLOW_BATCH, **given}
        return given

    @model_validator(mode="after")
    def _together(self) -> DistillSettings:
        if self.layers is not None and self.layers != self.num_kept:
            raise ValueError(f"`layer_map` names {self.num_kept} layers, `layers` says {self.layers}")
        if isinstance(self.layer_map, tuple) and (
            not self.layer_map or list(self.layer_map) != sorted(set(self.layer_map)) or self.layer_map[0] < 1
        ):
            raise ValueError("`layer_map` must list layers counted from 1, each once, in rising order")
        if self.match_layers is not None:
            self._check_shallow()
        if self.cache_top_k is not None and not self.teacher_cache:
            raise ValueError("`cache_top_k` is set, but no cache is kept: set `teacher_cache: true`")
        if self.block_size is not None and self.fake_quant != "int4":
            raise ValueError("`block_size` is set, but only int4 has blocks: set `fake_quant: int4`")
        return self

    def _check_shallow(self) -> None:
        if self.trainable != "embeddings":
            raise ValueError("`match_layers` is for training the embeddings only: set `trainable: embeddings`")
        outputs = ("soft_weight", "task_weight", "logits_weight", "relation_weight", "early_stopping_patience")
        for name in ("layers", "hidden_size", "heads", "intermediate_size", *outputs):
            if getattr(self, name):
                raise ValueError(
                    f"`{name}` needs all layers, and `match_layers` runs only the first ones: leave one out"
                )
        if self.fake_quant:
            raise ValueError("`fake_quant` rounds the rows of a table, which `match_layers` sums: leave one out")

    def needs(self) -> frozenset[Need]:
        """A teacher, texts to learn from and to be judged by; labels only where they are learnt from."""
        return frozenset({"teacher", "train", "dev"})

    def needs_labels(self, task: str) -> bool:
        """Whether nothing can be learnt from texts without labels: the task's own loss is all there is."""
        weights = self.weights(task)
        others = weights.soft + weights.hidden + weights.attention + weights.relation + weights.logits
        return bool(weights.task) and others == 0 and not TASKS[task].is_masked

    def label(self) -> str:
        """The stage in a few words."""
        number = self.num_kept
        parts = [f"to {number} layer{'s' if number != 1 else ''}"] if number else []
        parts += [f"{self.hidden_size} wide"] if self.hidden_size else []
        parts += ["the embeddings"] if self.trainable == "embeddings" else []
        parts += [f"for {self.fake_quant}"] if self.fake_quant else []
        return " ".join(["distill", ", ".join(parts)]).strip()

    @property
    def is_recovery(self) -> bool:
        """Whether the student keeps depth and width, and only learns again what another stage lost."""
        return not any((self.num_kept, self.hidden_size, self.heads, self.intermediate_size))

    @property
    def num_kept(self) -> int | None:
        """How many layers the student will have; None: as many as before."""
        return len(self.layer_map) if isinstance(self.layer_map, tuple) else self.layers

    def chosen(self, num_layers: int, *, keeps_first: bool = False) -> tuple[int, ...]:
        """The incoming model's layers, counted from 1, that the student keeps; of `auto` the first candidate.

        Args:
            keeps_first: whether only the first layer can be the first: a rule's own choice then gives way to it.

        Raises:
            UserError: more than there are, or fewer than one.
        """
        if isinstance(self.layer_map, tuple):
            if self.layer_map[-1] > num_layers:
                hint = f"name layers from 1 to {num_layers}"
                raise UserError(
                    f"`layer_map` names layer {self.layer_map[-1]}; the model has {num_layers}",
                    hint=hint,
                    setting="layer_map",
                )
            return self.layer_map
        number = num_layers if self.layers is None else self.layers
        if not 1 <= number <= num_layers:
            raise UserError(
                f"`layers` is {number}; the model has {num_layers}",
                hint=f"give 1 to {num_layers}; half is `layers: {max(1, num_layers // 2)}`",
                setting="layers",
            )
        layers = MAPS.get(self.layer_map, uniform)(num_layers, number)
        return (1, *layers[1:]) if keeps_first else layers

    def compared(self, shape: EncoderDims, anatomy: ModelFamily) -> dict[str, tuple[int, ...]]:
        """The maps that `layer_map: auto` chooses among, by name.

        Of a layer-shared model they are those that keep the sharing, with one number of groups, so that the plan knows
        the student's size; where none keeps it, all: the student is then unshared, or refused.
        """
        maps = candidates(shape.num_layers, len(self.chosen(shape.num_layers)))
        if anatomy.keeps_first_layer:
            maps = {name: (1, *layers[1:]) for name, layers in maps.items()}
        if not anatomy.is_shared:
            return maps
        groups = {name: kept_groups(chosen, shape.num_layers, shape.num_groups) for name, chosen in maps.items()}
        number = next((len(kept) for kept in groups.values() if kept is not None), None)
        if number is None:
            return maps
        return {name: maps[name] for name, kept in groups.items() if kept is not None and len(kept) == number}

    def weights(self, task: str) -> LossWeights:
        """The task's defaults with this stage's own settings laid over them."""
        own: dict[str, Any] = {
            "soft": self.soft_weight,
            "task": self.task_weight,
            "hidden": self.hidden_weight,
            "attention": self.attention_weight,
            "relation": self.relation_weight,
            "logits": self.logits_weight,
            "temperature": self.temperature,
            "states": self.hidden_states,
            "hidden_loss": self.hidden_loss,
            "dropout": self.dropout,
            "learning_rate": self.learning_rate,
            "epochs": self.epochs,
        }
        base = DEFAULTS[task]
        if self.is_recovery:
            base = replace(base, dropout=False)  # the student is near already: noise only takes it away
            if self.fake_quant:
                base = replace(base, learning_rate=base.learning_rate / ROUNDED_SLOWDOWN)
        if self.trainable == "embeddings":
            base = replace(base, learning_rate=EMBEDDINGS_LEARNING_RATE)
        return replace(base, **{key: value for key, value in own.items() if value is not None})

    def fit(self, facts: CheckpointInfo) -> CheckpointInfo:
        """Prove the number of layers, the widths, the sharing and the losses against the model."""
        shape = facts.shape
        chosen = self.chosen(shape.num_layers, keeps_first=facts.anatomy.keeps_first_layer)
        if self.match_layers is not None and self.match_layers > shape.num_layers:
            raise UserError(
                f"`match_layers` is {self.match_layers}; the model has {shape.num_layers} layers",
                hint=f"give 1 to {shape.num_layers}; 2 is enough for embeddings",
                setting="match_layers",
            )
        if self.layer_map == "auto":
            chosen = next(iter(self.compared(shape, facts.anatomy).values()))
        self._check_losses(facts.task)
        thinner = self.thinner(shape)
        if thinner != shape:
            self._check_width(thinner, facts)
        self.check_heads(facts.task, thinner, shape)
        self._check_layers(facts, chosen)
        if not facts.anatomy.is_shared:
            if self.allow_unsharing:
                raise UserError(
                    f"`allow_unsharing` is set, but layers of the family `{facts.anatomy.family}` do not share weights",
                    hint="leave it out",
                    setting="allow_unsharing",
                )
            return replace(facts, shape=replace(thinner, num_layers=len(chosen), num_groups=len(chosen)))
        groups = kept_groups(chosen, shape.num_layers, shape.num_groups)
        if groups is None and not self.allow_unsharing:
            raise UserError(
                f"the layers {', '.join(map(str, chosen))} cannot keep the sharing of the model's {shape.num_groups} "
                f"groups of weights over {shape.num_layers} layers",
                hint="choose other layers, or set `allow_unsharing: true`: "
                f"{shape.num_groups} groups grow to {len(chosen)}",
            )
        num_groups = len(groups) if groups is not None else len(chosen)
        return replace(facts, shape=replace(thinner, num_layers=len(chosen), num_groups=num_groups))

    def thinner(self, shape: EncoderDims) -> EncoderDims:
        """The sizes of the student's layers."""
        width = self.hidden_size or shape.hidden_size
        factorized = shape.embedding_size != shape.hidden_size
        return replace(
            shape,
            hidden_size=width,
            num_heads=self.heads or shape.num_heads,
            head_size=shape.head_size if (self.heads, self.hidden_size) == (None, None) else None,
            num_key_value_heads=shape.num_key_value_heads if self.heads is None else None,
            intermediate_size=self.intermediate_size or shape.intermediate_size,
            embedding_size=shape.embedding_size if factorized else width,
        )

    def check_heads(self, task: str, student: EncoderDims, teacher: EncoderDims) -> None:
        """Prove that queries, keys and values of a student can be compared with a teacher's.

        Raises:
            UserError: other heads, or widths that the relations' parts do not divide.
        """
        if self.weights(task).attention and student.num_heads != teacher.num_heads:
            raise UserError(
                f"`attention_weight` compares heads one by one, and the student has {student.num_heads} of "
                f"{teacher.num_heads} heads",
                hint="use `relation_weight`, which frees the number of heads, or keep the teacher's heads",
                setting="attention_weight",
            )
        parts = self.relation_heads or teacher.num_heads
        if self.weights(task).relation and (student.hidden_size % parts or teacher.hidden_size % parts):
            raise UserError(
                f"relations in {parts} parts need widths that {parts} divides; student and teacher are "
                f"{student.hidden_size} and {teacher.hidden_size} wide",
                hint="set `relation_heads` to a common divisor",
            )

    def _check_layers(self, facts: CheckpointInfo, chosen: tuple[int, ...]) -> None:
        """Prove that a family's layers can be chosen so, and that what they are compared by can be read."""
        row, weights = facts.anatomy, self.weights(facts.task)
        if row.keeps_first_layer and chosen[0] != 1:
            raise UserError(
                f"the first layer of a {row.title} has no norm in front, and only it can be the first",
                hint=f"choose layer 1 and others: `layer_map: [1, {', '.join(map(str, chosen[1:]))}]`",
                setting="layer_map",
            )
        if row.layer is None and (weights.attention or weights.relation):
            raise UserError(
                f"queries, keys and values of a {row.title} are made in another way than a BERT's",
                hint="leave `attention_weight` and `relation_weight` out",
                setting="attention_weight" if weights.attention else "relation_weight",
            )

    def _check_losses(self, task: str) -> None:
        weights = self.weights(task)
        if TASKS[task].is_vector and (weights.task or weights.logits):
            name = "task_weight" if weights.task else "logits_weight"
            raise UserError(
                f"`{name}` is set, but a sentence encoder has neither labels nor logits",
                hint="its soft targets are the teacher's sentence vectors: use `soft_weight`",
                setting=name,
            )
        for name in ("mask_share", "whole_word"):
            if not TASKS[task].is_masked and name in self.model_fields_set:
                raise UserError(
                    f"`{name}` is set, but only a masked language model has tokens masked in training",
                    hint="leave it out",
                    setting=name,
                )
        parts = (weights.soft, weights.task, weights.hidden, weights.attention, weights.relation, weights.logits)
        if not any(parts):
            raise UserError(
                "every loss weight is 0: there is nothing to train on",
                hint="leave one of `soft_weight`, `task_weight` and `hidden_weight` at its default",
            )
        if self.augment_per_example:
            self._check_made(task)
        if self.teacher_cache:
            if self.cache_top_k is not None and TASKS[task].is_vector:
                raise UserError(
                    "`cache_top_k` keeps the largest logits and the probability of the rest, and the numbers of a "
                    "sentence vector are neither",
                    hint="leave `cache_top_k` out",
                    setting="cache_top_k",
                )
            if TASKS[task].is_masked:
                raise UserError(
                    "`teacher_cache` needs fixed inputs, and masks change in every epoch",
                    hint="leave `teacher_cache` out",
                    setting="teacher_cache",
                )
            if weights.attention or weights.relation:
                raise UserError(
                    "`teacher_cache` keeps outputs and hidden states, not queries, keys and values",
                    hint="leave `teacher_cache` out, or set `attention_weight` and `relation_weight` to 0",
                    setting="teacher_cache",
                )

    def _check_made(self, task: str) -> None:
        row = TASKS[task]
        if row.is_masked or row.reads_context:
            reason = "masking already alters its texts" if row.is_masked else "an answer needs its whole context"
            raise UserError(
                f"`augment_per_example` is set, but the task is {task}: {reason}",
                hint="leave it out",
                setting="augment_per_example",
            )
        if self.needs_labels(task):
            raise UserError(
                "`augment_per_example` makes unlabelled rows, but the loss uses only labels",
                hint="leave `soft_weight` at its default, or leave `augment_per_example` out",
                setting="augment_per_example",
            )

    def _check_width(self, thinner: EncoderDims, facts: CheckpointInfo) -> None:
        """A thinner student must be one that stock classes can hold."""
        shape = facts.shape
        if facts.anatomy.layer is None:
            raise UserError(
                f"the layers of a {facts.anatomy.title} are made of other parts than a BERT's, and keep their width",
                hint="leave `hidden_size`, `heads` and `intermediate_size` out; `layers` makes it smaller",
            )
        for name, new, old in (
            ("hidden_size", thinner.hidden_size, shape.hidden_size),
            ("intermediate_size", thinner.intermediate_size, shape.intermediate_size),
        ):
            if new > old:
                raise UserError(
                    f"`{name}` is {new}; the model has {old}", hint="a student is cut from its teacher", setting=name
                )
        if thinner.hidden_size % thinner.num_heads:
            raise UserError(
                f"a width of {thinner.hidden_size} is not divisible by {thinner.num_heads} attention heads",
                hint="choose `hidden_size` and `heads` so that one divides the other",
            )
        size = thinner.attention_size // thinner.num_heads
        if facts.anatomy.attention == "rotary" and size % 2:
            raise UserError(
                f"`{facts.anatomy.family}` turns the numbers of a head in pairs, and the student's heads have {size}",
                hint="choose `hidden_size` and `heads` so that a head has an even width",
            )
        factorized = shape.embedding_size != shape.hidden_size
        if factorized and thinner.hidden_size != shape.hidden_size and thinner.hidden_size <= shape.embedding_size:
            raise UserError(
                f"a width of {thinner.hidden_size} is not above the width of its embeddings, {shape.embedding_size}",
                hint="choose a larger `hidden_size`",
            )
        if TASKS[facts.task].is_bare and thinner.hidden_size != shape.hidden_size:
            raise UserError(
                f"a sentence encoder of width {thinner.hidden_size} cannot produce the teacher's vectors of "
                f"{shape.hidden_size} numbers",
                hint="leave `hidden_size` out; `heads` and `intermediate_size` are free",
            )

    def promise(self, before: CheckpointInfo, after: CheckpointInfo) -> str:
        """What fake quantization is for; a smaller student's sizes the plan shows anyway."""
        if self.fake_quant is None:
            return ""
        return (
            f"weights trained to be rounded to {self.fake_quant}; the checkpoint stays float until "
            "`export` and `quantize`"
        )
