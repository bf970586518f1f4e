"""The table of tasks: which model class, which outputs, which headline metric, what labels a checkpoint must have.

    classification       one label of C for a text or a pair
    multi-label          any number of C labels
    regression           one score for a text or a pair; a cross-encoder re-ranker is one
    token-classification one tag for every word (named entities)
    question-answering   extractive: where in a context the answer starts and ends
    embedding            one vector for a text
    sparse-embedding     one number for a text and each token of the vocabulary, most of them 0 (SPLADE)
    mlm                  the masked tokens

This table holds what all rooms must agree on. What else a task needs is one table in the room that does it, each with
an entry for every task:

    LABEL_RULES     data.labels.labels           how its labels become numbers
    ENCODERS        data.encoding                how its texts become rows
    LABEL_TENSORS   training.rows.batching       how the labels of a batch become a tensor
    LOSSES          training.losses              what it costs
    PROBES          training.divergence_probes   how its answers diverge from themselves
    SOFT_LOSSES     techniques.distill.losses    how far a student is from its teacher
    DEFAULTS        techniques.distill.defaults  settings where the recipe is silent
    RATES           techniques.finetune.settings likewise
    EXAMS           meters.quality.evaluators    what it is worth
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bertshrink.errors import UserError
from bertshrink.model.checks.label_maps import label_names, num_outputs

_OTHER_MODELS = ("LMHeadModel", "HeadsModel")
"""Endings of classes that are no base models for all that their names end like one."""

_CLASSIFIER = "AutoModelForSequenceClassification"
_BASE = "AutoModel"
_MASKED = "AutoModelForMaskedLM"


@dataclass(frozen=True)
class TaskSpec:
    """One thing that an encoder is used for.

    Attributes:
        name: as recipes write it.
        auto_class: the transformers class that loads it.
        suffixes: endings of `architectures` in config.json that mean this task.
        outputs: the names of the arrays that its sessions give (see `engines`).
        beside: those that a file for an engine gives besides, before them, each with a length axis: other libraries
            pool token vectors themselves.
        headline: the metric that stands for quality where only one fits; higher is better.
        learns_from: what a row has besides its text: one class, any number of classes, a score, a tag for each word,
            answers in a second text (the context); a second text that belongs to it, maybe with a score; masked tokens.
        per_token: whether the outputs have a length axis after the batch axis.
        has_labels: whether its outputs are numbered by label names.
        problem: `problem_type` in config.json, where one class serves several tasks.
    """

    name: str
    auto_class: str
    suffixes: tuple[str, ...]
    outputs: tuple[str, ...]
    headline: str
    learns_from: Literal["class", "classes", "score", "tags", "answers", "pairs", "masks"]
    per_token: bool = False
    has_labels: bool = False
    problem: str | None = None
    beside: tuple[str, ...] = ()

    @property
    def needs_labels(self) -> bool:
        """Whether its own loss needs rows with labels."""
        return self.learns_from not in ("pairs", "masks")

    @property
    def is_score(self) -> bool:
        """Whether its one output is a number that means something by itself."""
        return self.learns_from == "score"

    @property
    def is_masked(self) -> bool:
        """Whether it masks the tokens that it is asked for."""
        return self.learns_from == "masks"

    @property
    def is_vector(self) -> bool:
        """Whether its output is a vector pooled from those of the tokens, and what counts is which are alike."""
        return self.learns_from == "pairs"

    @property
    def is_bare(self) -> bool:
        """Whether its model is the base model: it has no head."""
        return self.auto_class == _BASE

    @property
    def has_masked_head(self) -> bool:
        """Whether its model has the head that gives each token a number for every token of the vocabulary."""
        return self.auto_class == _MASKED

    @property
    def sentence_kind(self) -> Literal["encoder", "sparse", "cross-encoder"] | None:
        """The kind of sentence-transformers' models that it is for; None: that library has none."""
        if self.is_vector:
            return "encoder" if self.is_bare else "sparse"
        return "cross-encoder" if self.has_text_head else None

    @property
    def reads_context(self) -> bool:
        """Whether a row is a question and the text that its answer stands in, of whose tokens each output names one."""
        return self.learns_from == "answers"

    @property
    def has_text_head(self) -> bool:
        """Whether a head makes its outputs of a whole text."""
        return self.auto_class == _CLASSIFIER

    @property
    def num_outputs(self) -> int | None:
        """How many numbers an output has; None: as many as there are labels, tokens or dimensions."""
        return 1 if self.is_score else None


TASKS: dict[str, TaskSpec] = {
    task.name: task
    for task in (
        TaskSpec(
            "classification",
            _CLASSIFIER,
            ("ForSequenceClassification",),
            ("logits",),
            headline="accuracy",
            learns_from="class",
            has_labels=True,
            problem="single_label_classification",
        ),
        TaskSpec(
            "multi-label",
            _CLASSIFIER,
            ("ForSequenceClassification",),
            ("logits",),
            headline="micro_f1",
            learns_from="classes",
            has_labels=True,
            problem="multi_label_classification",
        ),
        TaskSpec(
            "regression",
            _CLASSIFIER,
            ("ForSequenceClassification",),
            ("logits",),
            headline="spearman",
            learns_from="score",
            problem="regression",
        ),
        TaskSpec(
            "token-classification",
            "AutoModelForTokenClassification",
            ("ForTokenClassification",),
            ("logits",),
            headline="f1",
            learns_from="tags",
            per_token=True,
            has_labels=True,
        ),
        TaskSpec(
            "question-answering",
            "AutoModelForQuestionAnswering",
            ("ForQuestionAnswering", "ForQuestionAnsweringSimple"),
            ("start_logits", "end_logits"),
            headline="f1",
            learns_from="answers",
            per_token=True,
        ),
        TaskSpec(
            "embedding",
            _BASE,
            ("Model",),
            ("sentence_embedding",),
            headline="spearman",
            learns_from="pairs",
            beside=("last_hidden_state",),
        ),
        TaskSpec(
            "sparse-embedding",
            _MASKED,
            (),
            ("sentence_embedding",),
            headline="recall@10",
            learns_from="pairs",
        ),
        TaskSpec(
            "mlm",
            _MASKED,
            ("ForMaskedLM", "ForPreTraining"),
            ("logits",),
            headline="masked_accuracy",
            learns_from="masks",
            per_token=True,
        ),
    )
}


def guess_task(config: Mapping[str, Any], *, sentence_kind: str | None, where: str) -> str:
    """The task that a checkpoint was saved for.

    Args:
        sentence_kind: as of `TaskSpec`, where sentence-transformers saved it.

    Raises:
        UserError: its class is for a task outside the table, or it names no class.
    """
    for task in TASKS.values():
        if task.is_vector and task.sentence_kind == sentence_kind:
            return task.name
    named = config.get("architectures")
    names = named if isinstance(named, list) else []
    for name in names:
        for task in TASKS.values():
            if str(name).endswith(task.suffixes) and not str(name).endswith(_OTHER_MODELS):
                return _sequence_task(config) if task.has_text_head else task.name
    raise UserError(
        f"the checkpoint's class, `{', '.join(map(str, names)) or 'not named'}`, belongs to no task that "
        "bertshrink supports",
        where=where,
        hint=f"known tasks: {', '.join(TASKS)}; choose one with `task:` in the recipe or `--task`",
    )


def _sequence_task(config: Mapping[str, Any]) -> str:
    """One class serves three tasks: the problem type tells them apart, else the number of outputs."""
    problem = config.get("problem_type")
    if problem is None and num_outputs(config) == 1:
        return "regression"
    return next((task.name for task in TASKS.values() if problem and task.problem == problem), "classification")


def read_labels(task: str, config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The label names of a checkpoint in the order of its logits; empty where the task has none.

    Raises:
        UserError: the checkpoint's outputs are not the task's, or as `label_names`.
    """
    row = TASKS[task]
    if row.has_text_head:
        _check_problem(row, config, where)
    return label_names(config, where) if row.has_labels else ()


def _check_problem(row: TaskSpec, config: Mapping[str, Any], where: str) -> None:
    """One class, three tasks: refuse to read a checkpoint as another of them than it was saved for."""
    number, problem = num_outputs(config), config.get("problem_type")
    outputs = f"{number} output{'s' if number != 1 else ''}"
    _refuse_problem(number, problem, where)
    fits = problem in (None, row.problem) or (row.is_score and number == 1)
    if fits and (number == 1 if row.is_score else number > 1 or row.learns_from == "classes"):
        return
    raise UserError(
        f"the model has {outputs} and `problem_type: {problem or 'not set'}`: that is not a model for `{row.name}`",
        where=where,
        hint=f"its own task is `{_sequence_task(config)}`; leave `task` out, or choose another model",
    )


def _refuse_problem(number: int, problem: Any, where: str) -> None:
    """Refuse a `problem_type` that is not known, or does not go with the number of outputs."""
    known = [task.problem for task in TASKS.values() if task.problem]
    if problem is not None and problem not in known:
        hint = f"write the right one, or leave it out: {', '.join(known)}"
        raise UserError(f"`problem_type: {str(problem)[:40]}` of config.json is not known", where=where, hint=hint)
    row = next((task for task in TASKS.values() if problem and task.problem == problem), None)
    if row is not None and row.learns_from == "class" and number == 1:
        score = next(task.problem for task in TASKS.values() if task.is_score)
        raise UserError(
            f"config.json says `problem_type: {problem}` of one label, which transformers does not build",
            where=where,
            hint=f'one output is a score: write `"problem_type": "{score}"`; or train with two labels',
        )
    if row is not None and row.is_score and number > 1:
        raise UserError(
            f"the model gives {number} scores for a text, and bertshrink's `{row.name}` is one",
            where=where,
            hint="if its outputs are classes, correct `problem_type` in config.json; else choose a model of one score",
        )
