"""Labels of data, teacher and student: from what the data says to the numbers that losses and metrics read.

    classification        a name or number            -> int
    multi-label           a tuple of names            -> tuple of 0.0 and 1.0, one per class
    regression            a number                    -> float
    token-classification  a tuple of tags, one a word -> tuple of ints
    question-answering    a tuple of (answer, first character), empty for none: left as it is

A row whose label is None is unlabelled and stays None: a teacher's soft targets need no label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bertshrink.errors import RequestError
from bertshrink.model.task import TASKS

if TYPE_CHECKING:
    from bertshrink.model.texts import Texts


class LabelsDiffer(RequestError):
    """The data has labels that a model has not.

    Attributes:
        strange: those labels.
    """

    strange: list[str]


def map_labels(values: Sequence[Any], labels: Sequence[str], where: str, value_names: Sequence[str] = ()) -> list[int]:
    """Turn the labels of a data set into the teacher's class numbers.

    Args:
        values: one label a row, names or numbers.
        labels: the teacher's class names in the order of its logits.
        where: the data, for messages.
        value_names: what the data calls its numbers, where it knows (a hub data set's ClassLabel).

    A value matches by name (any case), or by number when every value is a whole number in 0..C-1.

    Raises:
        RequestError: values that the teacher does not have; the message names both sides.
    """
    by_name = {name.casefold(): i for i, name in enumerate(labels)}
    if value_names and {name.casefold() for name in value_names} <= set(by_name):
        # A hub data set writes -1 where a row has no label.
        known = range(len(value_names))
        values = [value_names[value] if value in known else f"{value} (no label)" for value in values]
    texts = [str(value).strip() for value in values]
    if all(text.casefold() in by_name for text in texts):
        return [by_name[text.casefold()] for text in texts]
    numbers = {str(i): i for i in range(len(labels))}
    if all(text in numbers for text in texts):
        return [numbers[text] for text in texts]
    seen = sorted(set(texts))
    strange = [text for text in seen if text.casefold() not in by_name and text not in numbers] or seen
    differ = LabelsDiffer(
        f"the data's labels do not match the teacher's: `{'`, `'.join(strange[:5])}` in the data, "
        f"`{'`, `'.join(labels[:10])}` in the teacher",
        where=where,
        hint=f"name the label column with `label:` under `data:`, or use the teacher's names or 0..{len(labels) - 1}",
    )
    differ.strange = strange
    raise differ


def match_labels(
    task: str, values: Sequence[Any], labels: Sequence[str], where: str, value_names: Sequence[str] = ()
) -> list[Any]:
    """Each row's label as numbers of the model's classes (see this file's opening); None stays None.

    Args:
        task: a name in `TASKS` that learns from labels; a task that has none gives the values back.
        values: one label a row, as the data has it.
        labels: the model's label names in the order of its logits.
        where: the data, for messages.
        value_names: what the data calls its numbers, where it knows.

    Raises:
        RequestError: labels that the model does not have, or of another kind than the task's.
    """
    at = [i for i, value in enumerate(values) if value is not None]
    known = [values[i] for i in at]
    if task == "classification":
        found: Sequence[Any] = map_labels(known, labels, where, value_names)
    elif task in ("multi-label", "token-classification"):
        for i, value in zip(at, known, strict=True):
            if not isinstance(value, tuple | list):
                kind = "list of labels" if task == "multi-label" else "list of tags, one a word"
                raise RequestError(
                    f"row {i + 1} is labelled `{value}`, and `{task}` needs a {kind}",
                    where=where,
                    hint="name the column with `label:` under `data:`, or choose another task with `--task`",
                )
        flat = iter(map_labels([label for value in known for label in value], labels, where, value_names))
        numbers = [tuple(next(flat) for _ in value) for value in known]
        if task == "multi-label":
            found = [tuple(float(i in row) for i in range(len(labels))) for row in numbers]
        else:
            found = numbers
    elif task == "regression":
        found = [_score(value, i, where) for i, value in zip(at, known, strict=True)]
    else:
        if task == "question-answering":
            _check_answers(at, known, where)
        found = known
    whole: list[Any] = [None] * len(values)
    for i, value in zip(at, found, strict=True):
        whole[i] = value
    return whole


def _check_answers(rows: Sequence[int], values: Sequence[Any], where: str) -> None:
    for row, value in zip(rows, values, strict=True):
        if not isinstance(value, tuple | list) or not all(isinstance(one, tuple | list) for one in value):
            raise RequestError(
                f"row {row + 1} is labelled `{value}`, and `question-answering` needs answers, with where they start",
                where=where,
                hint="give SQuAD files, or choose another task with `--task`",
            )


def _score(value: Any, row: int, where: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if math.isfinite(score):
        return score
    raise RequestError(
        f"row {row + 1} is labelled `{value}`, which is no number, and `regression` learns scores",
        where=where,
        hint="name the column of the scores with `label:` under `data:`, or choose another task with `--task`",
    )


def match_classes(labels: Sequence[str], reference: Sequence[str], name: str) -> list[int]:
    """Where each class of the reference stands among a model's own: the order that makes their logits comparable.

    Args:
        labels: the model's class names, in the order of its logits.
        reference: the reference's.
        name: the model, for messages.

    Names match in any case. Names that say nothing (`LABEL_0`) stand for the classes in their order.

    Raises:
        RequestError: the classes are others.
    """
    own, wanted = [label.casefold() for label in labels], [label.casefold() for label in reference]
    if len(set(own)) == len(own) and sorted(own) == sorted(wanted):
        return [own.index(label) for label in wanted]
    unnamed = [f"label_{i}" for i in range(len(wanted))]
    if len(own) == len(wanted) and (own == wanted or unnamed in (own, wanted)):
        return list(range(len(wanted)))
    raise RequestError(
        f"`{name}` has the classes `{'`, `'.join(labels[:10])}`, the first model `{'`, `'.join(reference[:10])}`",
        hint="compare models of the same classes, or leave out `data` and compare only size and speed",
    )


def labels_of(texts: Texts, task: str) -> tuple[str, ...]:
    """The label names that a new head for the data has: as the data numbers them, else sorted by name.

    Numbers that have no names become `LABEL_0`, ...; tags are ordered O first, then B- and I- of each kind.

    Raises:
        RequestError: nothing is labelled, or labels are of another kind than the task's.
    """
    values = [value for value in texts.train.labels or () if value is not None]
    if not values:
        raise RequestError(
            f"the train side of `{texts.name}` has no labels, which {task} needs",
            hint="name the column with `label:` under `data:`",
        )
    if texts.train.label_names:
        return texts.train.label_names
    if task == "classification":
        if any(isinstance(value, float) and not value.is_integer() for value in values):
            raise RequestError(
                f"the rows of `{texts.name}` are labelled with scores such as {values[0]}, and `classification` learns "
                "classes",
                hint="name the task with `--task regression`",
            )
        if any(isinstance(value, tuple | list) for value in values):
            raise RequestError(
                f"the rows of `{texts.name}` have several labels each, and `classification` learns one",
                hint="name the task with `--task multi-label` (or token-classification)",
            )
        found = set(map(str, values))
        if found == {str(i) for i in range(len(found))}:
            return tuple(f"LABEL_{i}" for i in range(len(found)))
        return tuple(sorted(found))
    if not all(isinstance(value, tuple | list) for value in values):
        raise RequestError(
            f"the rows of `{texts.name}` have one label each, and `{task}` learns a list of them",
            hint="name the task with `--task classification`",
        )
    if task == "token-classification":  # an I- tag may be so rare that it comes in one side alone
        for split in (texts.dev, texts.test):
            values += [value for value in (split.labels if split is not None else None) or () if value is not None]
    names = {str(label) for value in values for label in value}
    return tuple(sorted(names, key=lambda tag: (tag != "O", tag[2:], tag) if task == "token-classification" else tag))


def check_texts(texts: Texts, task: str, labels: Sequence[str] | None, *, needs_labels: bool) -> None:
    """Prove, before anything is trained, that labels are there where they are needed and that the model knows them all.

    Args:
        texts: the data.
        task: a name in `TASKS`.
        labels: the model's; None: a new head takes the data's own.
        needs_labels: whether there is nothing to learn from without them.

    Raises:
        RequestError: they are not, or one is not the model's; the message names both sides' labels.
    """
    if task == "embedding" and labels is None:
        _check_pairs(texts)
    if task in ("mlm", "embedding"):
        return
    if needs_labels:
        from bertshrink.model.texts import check_labels

        check_labels(texts, task)
    known = labels_of(texts, task) if labels is None and TASKS[task].has_labels else labels or ()
    for side, split in (("train", texts.train), ("dev", texts.dev), ("test", texts.test)):
        if split is None or split.labels is None:
            continue
        try:
            match_labels(task, split.labels, known, texts.name, split.label_names)
        except LabelsDiffer as error:
            if labels is not None:
                raise
            raise RequestError(
                f"the {side} side of `{texts.name}` has labels that its train side has not: "
                f"`{'`, `'.join(error.strange[:5])}`; there are `{'`, `'.join(known[:10])}`",
                where=error.where,
                hint="mend the labels, or give a train side with every label",
            ) from None


def _check_pairs(texts: Texts) -> None:
    """Prove that a sentence encoder can be fine-tuned on the data: on pairs with scores, or on pairs that belong
    together.
    """
    train = texts.train
    if train.pairs is None:
        raise RequestError(
            f"a sentence encoder is fine-tuned on pairs of texts, and the train side of `{texts.name}` has none",
            hint="name the column of the second texts with `pair:` under `data:`, or another task with `--task`",
        )
    if train.labels is not None and not train.is_scored:
        shown = next(value for value in train.labels if value is not None)
        raise RequestError(
            f"the pairs of `{texts.name}` are labelled with classes such as `{shown}`, which are no scores",
            hint="give pairs with a column of numbers such as STS-B's `score`, pairs without labels that belong "
            "together, or name another task with `--task`",
        )
