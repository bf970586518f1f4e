"""That labels and texts are seen where they are expected, and are of the task's kind: before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bertshrink.data.columns.roles import HINT
from bertshrink.data.labels.kinds import may_be_scores
from bertshrink.data.labels.labels import LabelMismatch, labels_of, match_labels
from bertshrink.data.labels.shapes import is_answers
from bertshrink.errors import UserError
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from bertshrink.data.texts import Split, TextDataset


def check_texts(texts: TextDataset, task: str, labels: Sequence[str] | None, *, needs_labels: bool) -> None:
    """Prove, before anything is trained, that labels are there where they are needed and that the model knows them all.

    Args:
        labels: the model's; None: a new head takes the data's own.
        needs_labels: whether there is nothing to learn from without them.

    Raises:
        UserError: they are not, or one is not the model's (the message names both sides' labels); or a column that
            may be one of labels or of second texts is not read though nobody said so.
    """
    check_seen(texts, task)
    if TASKS[task].is_vector and labels is None:
        _check_pairs(texts)
    if not TASKS[task].needs_labels:
        return
    if needs_labels:
        check_labels(texts, task)
    known = labels_of(texts, task) if labels is None and TASKS[task].has_labels else labels or ()
    for side, split in (("train", texts.train), ("dev", texts.dev), ("test", texts.test)):
        if split is None or split.labels is None:
            continue
        try:
            match_labels(task, split.labels, known, texts.name, split.label_names)
        except LabelMismatch as error:
            if labels is not None:
                raise
            raise UserError(
                f"the {side} split of `{texts.name}` has labels that its train split lacks: "
                f"`{'`, `'.join(error.strange[:5])}`; there are `{'`, `'.join(known[:10])}`",
                where=error.where,
                hint="fix the labels, give a train split with every label, or raise `--max-train` where it is set",
            ) from None


def _check_pairs(texts: TextDataset) -> None:
    """Prove that a sentence encoder can be fine-tuned on the data: on pairs with scores, or on pairs that belong
    together.
    """
    train = texts.train
    if train.pairs is None:
        raise UserError(
            f"a sentence encoder is fine-tuned on pairs of texts, and the train split of `{texts.name}` has none",
            hint="name the column of the second texts with `--pair` (`pair:` under `data:`), or another task with "
            "`--task`",
        )
    if train.labels is not None and not train.is_scored:
        shown = next(value for value in train.labels if value is not None)
        raise UserError(
            f"the pairs of `{texts.name}` are labelled with classes such as `{shown}`, which are not scores",
            hint="give pairs with a column of numbers such as STS-B's `score`, pairs without labels that belong "
            "together, or name another task with `--task`",
        )


def check_seen(texts: TextDataset, task: str) -> None:
    """Prove that no column is passed over that the task reads: one of labels, or one of second texts.

    Raises:
        UserError: there may be one; the message says which and what settles it.
    """
    for side, split in (("train", texts.train), ("dev", texts.dev), ("test", texts.test)):
        roles = split.roles if split is not None else None
        if split is None or roles is None:
            continue
        if roles.second is not None:
            raise UserError(
                f"`{roles.second}` also holds texts, but only `{roles.text}`"
                f"{f' and `{roles.pair}`' if roles.pair else ''} would be read",
                where=roles.table.name,
                hint=f"`--pair '{roles.second}'` reads both as pairs, `--pair {roles.pair or 'none'}` leaves it out, "
                f"`--text '{roles.second}'` reads it alone; in a recipe `pair:` or `text:` under `data:`",
            )
        if (task not in TASKS or TASKS[task].needs_labels) and split.labels is None and roles.maybe_labels:
            shown = ", ".join(f"`{name}` ({roles.left_out[name]})" for name in roles.maybe_labels[:12])
            raise UserError(
                f"the {side} split has no labels, which `{task}` needs; columns that may hold them: {shown}",
                where=roles.table.name,
                hint="name one with `--label COLUMN`, or say `--label none`; in a recipe `label:` under `data:`",
            )


def check_labels(texts: TextDataset, task: str = "classification") -> None:
    """Prove that the data can teach and judge a task that learns from labels.

    Raises:
        UserError: no label column, no labelled row, or only one class in it.
    """
    for side, split in (("train", texts.train), (texts.judged_name, texts.judged)):
        labels = [label for label in split.labels or () if label is not None]
        if not labels:
            left = split.roles.left_out if split.roles is not None else {}
            others = f"; columns without a role: {', '.join(f'`{name}`' for name in left)}" if left else ""
            raise UserError(f"the {side} split of `{texts.name}` has no labels, which {task} needs{others}", hint=HINT)
        if TASKS[task].learns_from == "class" and len(classes := Counter(map(str, labels))) < 2:
            raise UserError(
                f"every label of the {side} split of `{texts.name}` is `{next(iter(classes))}`: there is "
                "nothing to learn from them",
                hint="check the label column, or give data with two classes or more",
            )


def guess_data_task(split: Split) -> str | None:
    """The task that labels of this shape are for; None where the rows have none.

    Raises:
        UserError: they may be classes or scores.
    """
    label = next((label for label in split.labels or () if label is not None), None)
    if label is None:
        return None
    if split.words is not None:
        return "token-classification"
    if isinstance(label, tuple):
        return "question-answering" if any(map(is_answers, split.labels or ())) else "multi-label"
    if isinstance(label, float):
        return "regression"
    if may_be_scores(label for label in split.labels or () if label is not None):
        raise UserError(
            f"the labels are numbers such as `{label}`: they may be scores or class names",
            where=split.source or None,
            hint="choose with `--task regression` or `--task classification`",
        )
    return "classification"
