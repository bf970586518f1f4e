"""Labels of data, teacher and student: from what the data says to the numbers that losses and metrics read.

    classification        a name or number            -> int
    multi-label           a tuple of names, a vector  -> tuple of 0.0 and 1.0, one per class
    regression            a number                    -> float
    token-classification  a tuple of tags, one a word -> tuple of ints
    question-answering    a tuple of (answer, first character), empty for none: left as it is

A row whose label is None is unlabelled and stays None: a teacher's soft targets need no label.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertshrink.data.columns.roles import HINT
from bertshrink.data.labels.shapes import OneHot
from bertshrink.errors import UserError
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from bertshrink.data.texts import TextDataset


class LabelMismatch(UserError):
    """The data has labels that a model has not.

    Attributes:
        strange: those labels.
    """

    strange: list[str]


def map_labels(values: Sequence[Any], labels: Sequence[str], where: str, value_names: Sequence[str] = ()) -> list[int]:
    """Turn the labels of a dataset into the teacher's class numbers.

    Args:
        values: one label per row, names or numbers.
        labels: the teacher's class names in the order of its logits.
        value_names: what the data calls its numbers, where it knows (a hub dataset's ClassLabel).

    A value matches by name, as it is written or in any case, where that puts no two labels into one class; or by number
    when every value is a whole number in 0..C-1 (also all as 0.0, 1.0, or as false and true of two classes).

    Raises:
        UserError: values that the teacher does not have; the message names both sides.
    """
    if value_names:
        # A hub dataset writes -1 where a row has no label.
        known = range(len(value_names))
        named = [value_names[value] if value in known else f"{value} (no label)" for value in values]
        if {name.casefold() for name in named} <= {label.casefold() for label in labels}:
            values = named
        elif any(value not in known for value in values):
            values = [value if value in known else name for value, name in zip(values, named, strict=True)]
    texts = [str(value).strip() for value in values]
    for table in (_by_name(texts, labels), _by_number(values, texts, len(labels))):
        if table is not None:
            return [table[text] for text in texts]
    seen = sorted(set(texts))
    folded = {label.strip().casefold() for label in labels}
    numbers = {str(i) for i in range(len(labels))}
    strange = [text for text in seen if text.casefold() not in folded and text not in numbers] or seen
    differ = LabelMismatch(
        f"the data's labels do not match the teacher's: `{'`, `'.join(strange[:5])}` in the data, "
        f"`{'`, `'.join(labels[:10])}` in the teacher",
        where=where,
        hint=f"name the label column with `--label` (`label:` under `data:`), use the teacher's names or "
        f"0..{len(labels) - 1}, or leave the labels out with `--label none`",
    )
    differ.strange = strange
    raise differ


def _by_name(texts: Sequence[str], labels: Sequence[str]) -> dict[str, int] | None:
    """Label -> class by names as they are written, else in any case; None where two labels would be one class."""
    seen = set(texts)
    exact = {name: i for i, name in enumerate(labels) if list(labels).count(name) == 1}
    if seen <= exact.keys():
        return exact
    folded = [label.strip().casefold() for label in labels]
    by_fold = {name: i for i, name in enumerate(folded) if folded.count(name) == 1}
    is_clear = len({text.casefold() for text in seen}) == len(seen)
    if is_clear and all(text.casefold() in by_fold for text in seen):
        return {text: by_fold[text.casefold()] for text in seen}
    return None


def _by_number(values: Sequence[Any], texts: Sequence[str], num_classes: int) -> dict[str, int] | None:
    """Label -> class by numbers that are all written in one way."""
    numbers = {str(i): i for i in range(num_classes)}
    seen = set(texts)
    if seen <= numbers.keys():
        return numbers
    if num_classes == 2 and all(isinstance(value, bool) for value in values):
        return {"False": 0, "True": 1}
    whole = _whole_floats(seen)
    return whole if whole is not None and set(whole.values()) <= set(numbers.values()) else None


def _whole_floats(texts: Collection[str]) -> dict[str, int] | None:
    """`1.0` -> 1, as pandas writes whole numbers beside a missing one; None where one is written otherwise or twice."""
    numbers = {text: int(text.partition(".")[0]) for text in texts if _WHOLE_FLOAT.fullmatch(text)}
    return numbers if len(numbers) == len(texts) == len(set(numbers.values())) else None


_WHOLE_FLOAT = re.compile(r"(0|[1-9][0-9]{0,8})\.0")


def match_labels(
    task: str, values: Sequence[Any], labels: Sequence[str], where: str, value_names: Sequence[str] = ()
) -> list[Any]:
    """Each row's label as numbers of the model's classes (see this file's opening); None stays None.

    Args:
        task: a name in `TASKS` that learns from labels; a task that has none gives the values back.
        values: one label per row, as the data has it.
        labels: the model's label names in the order of its logits.
        value_names: what the data calls its numbers, where it knows.

    Raises:
        UserError: labels that the model does not have, or of another kind than the task's.
    """
    at = [i for i, value in enumerate(values) if value is not None]
    matched = LABEL_RULES[task](Labelled(task, [values[i] for i in at], at, labels, where, value_names))
    whole: list[Any] = [None] * len(values)
    for i, value in zip(at, matched, strict=True):
        whole[i] = value
    return whole


@dataclass(frozen=True)
class Labelled:
    """The labels of the rows that have one, and what they are to become; the rest as in `match_labels`.

    Attributes:
        values: the labels.
        rows: the numbers of their rows.
    """

    task: str
    values: Sequence[Any]
    rows: Sequence[int]
    labels: Sequence[str]
    where: str
    value_names: Sequence[str]

    def classes(self) -> Sequence[Any]:
        """A class number each."""
        return map_labels(self.values, self.labels, self.where, self.value_names)

    def sets(self) -> Sequence[Any]:
        """A 0.0 or 1.0 for every class each."""
        if any(isinstance(value, OneHot) for value in self.values):
            return _match_vectors(self.values, self.labels, self.where, self.value_names)
        numbers = self._lists("list of labels")
        return [tuple(float(i in row) for i in range(len(self.labels))) for row in numbers]

    def tags(self) -> Sequence[Any]:
        """A class number for every word each."""
        return self._lists("list of tags, one per word")

    def _lists(self, kind: str) -> list[tuple[int, ...]]:
        for i, value in zip(self.rows, self.values, strict=True):
            if not isinstance(value, tuple | list):
                raise UserError(
                    f"row {i + 1} is labelled `{value}`, and `{self.task}` needs a {kind}",
                    where=self.where,
                    hint="name the column with `label:` under `data:`, or choose another task with `--task`",
                )
        flat = [label for value in self.values for label in value]
        numbers = iter(map_labels(flat, self.labels, self.where, self.value_names))
        return [tuple(next(numbers) for _ in value) for value in self.values]

    def scores(self) -> Sequence[Any]:
        """A number each."""
        return [_score(value, i, self.where) for i, value in zip(self.rows, self.values, strict=True)]

    def answers(self) -> Sequence[Any]:
        """The answers as they are."""
        _check_answers(self.rows, self.values, self.where)
        return self.values

    def unread(self) -> Sequence[Any]:
        """The values as they are, whatever they are."""
        return self.values


LABEL_RULES: dict[str, Callable[[Labelled], Sequence[Any]]] = {
    "classification": Labelled.classes,
    "multi-label": Labelled.sets,
    "regression": Labelled.scores,
    "token-classification": Labelled.tags,
    "question-answering": Labelled.answers,
    "embedding": Labelled.unread,
    "sparse-embedding": Labelled.unread,
    "mlm": Labelled.unread,
}


def _match_vectors(
    values: Sequence[Any], labels: Sequence[str], where: str, names: Sequence[str]
) -> list[tuple[float, ...]]:
    """Rows of a 0 or 1 for each class, in the order of the model's classes.

    Args:
        values: `OneHot`.
        names: of the places, where the data knows them; else they are the model's classes in their order.
    """
    if names:
        try:
            order = match_classes(names, labels, where)
        except UserError:
            differ = LabelMismatch(
                f"the data's label columns are not the model's classes: `{'`, `'.join(names[:10])}` in the data, "
                f"`{'`, `'.join(labels[:10])}` in the model",
                where=where,
                hint="name a column of each of the model's classes with `--label A,B,C`",
            )
            differ.strange = [name for name in names if name not in labels] or list(names)
            raise differ from None
    else:
        order = list(range(len(labels)))
    for value in values:
        if not isinstance(value, OneHot) or len(value) != len(labels):
            raise UserError(
                f"a row is labelled with {len(value)} numbers, a 0 or 1 for each class, and the model has the "
                f"{len(labels)} classes `{'`, `'.join(labels[:10])}`",
                where=where,
                hint="give a 0 or 1 for each of the model's classes, in their order, or a list of their names",
            )
    return [tuple(float(value[at]) for at in order) for value in values]


def _check_answers(rows: Sequence[int], values: Sequence[Any], where: str) -> None:
    for row, value in zip(rows, values, strict=True):
        if not isinstance(value, tuple | list) or not all(isinstance(one, tuple | list) for one in value):
            raise UserError(
                f"row {row + 1} is labelled `{value}`, and `question-answering` needs answers with their "
                "start positions",
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
    raise UserError(
        f"row {row + 1} is labelled `{value}`, which is not a number, and `regression` is trained on scores",
        where=where,
        hint="name the column of the scores with `label:` under `data:`, or choose another task with `--task`",
    )


def match_classes(labels: Sequence[str], reference: Sequence[str], name: str) -> list[int]:
    """Where each class of the reference is among a model's own: the order that makes their logits comparable.

    Args:
        labels: the model's class names, in the order of its logits.

    Names match in any case. Names that say nothing (`LABEL_0`) stand for the classes in their order.

    Raises:
        UserError: the classes are others.
    """
    own, wanted = [label.casefold() for label in labels], [label.casefold() for label in reference]
    if len(set(own)) == len(own) and sorted(own) == sorted(wanted):
        return [own.index(label) for label in wanted]
    unnamed = [f"label_{i}" for i in range(len(wanted))]
    if len(own) == len(wanted) and (own == wanted or unnamed in (own, wanted)):
        return list(range(len(wanted)))
    raise UserError(
        f"`{name}` has the classes `{'`, `'.join(labels[:10])}`, the first model `{'`, `'.join(reference[:10])}`",
        hint="compare models of the same classes, or leave out `data` and compare only size and speed",
    )


def labels_of(texts: TextDataset, task: str, own: Sequence[str] = ()) -> tuple[str, ...]:
    """The label names that a new head for the data has: as the data numbers them, else sorted by name.

    Args:
        own: the names of the model's own head, which name the places of vectors where they are as many.

    Numbers that have no names become `LABEL_0`, ...; tags are ordered O first, then B- and I- of each kind. Classes
    that the data knows of and that no row of train has get no place, unless the model's own head has them.

    Raises:
        UserError: nothing is labelled, or labels are of another kind than the task's.
    """
    train = texts.train
    values = [value for value in train.labels or () if value is not None]
    if not values:
        raise UserError(
            f"the train split of `{texts.name}` has no labels, which {task} needs",
            hint=HINT,
        )
    is_listed = [isinstance(value, tuple | list) for value in values]
    if TASKS[task].learns_from == "class":
        if any(isinstance(value, float) and not value.is_integer() for value in values):
            raise UserError(
                f"the rows of `{texts.name}` are labelled with scores such as {values[0]}, and `classification` is "
                "trained on classes",
                hint="name the task with `--task regression`",
            )
        if any(is_listed):
            raise UserError(
                f"the rows of `{texts.name}` have several labels each, and `classification` is trained on one",
                hint="name the task with `--task multi-label` (or token-classification)",
            )
        flat = values
    elif not all(is_listed):
        raise UserError(
            f"the rows of `{texts.name}` have one label each, and `{task}` is trained on lists of labels",
            hint="name the task with `--task classification`",
        )
    else:
        flat = [label for value in values for label in value]
    if isinstance(values[0], OneHot):
        number = len(values[0])
        return train.label_names or (tuple(own) if len(own) == number else tuple(f"LABEL_{i}" for i in range(number)))
    if train.label_names:
        return _reachable(train.label_names, flat, own)
    if TASKS[task].learns_from == "tags":  # an I- tag may be so rare that it comes in one side alone
        for split in (texts.dev, texts.test):
            flat += [tag for value in (split.labels if split is not None else None) or () for tag in value or ()]
        return tuple(sorted(set(map(str, flat)), key=lambda tag: (tag != "O", tag[2:], tag)))
    distinct = set(map(str, flat))
    numbers = {str(i) for i in range(len(distinct))}
    if distinct == numbers or {str(i) for i in (_whole_floats(distinct) or {}).values()} == numbers:
        return tuple(f"LABEL_{i}" for i in range(len(distinct)))
    return tuple(sorted(distinct))


def _reachable(names: Sequence[str], numbers: Sequence[int], own: Sequence[str]) -> tuple[str, ...]:
    """The classes that rows have; all of them where the model's own head is for these."""
    if sorted(name.casefold() for name in names) == sorted(label.casefold() for label in own):
        return tuple(names)
    seen = set(numbers)
    return tuple(name for i, name in enumerate(names) if i in seen)
