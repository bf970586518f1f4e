"""What labels are, told from all rows of all sides at once: classes, scores, lists of names, a 0 or 1 for each class.

    scores    what a task that learns them reads; a column of scores by its name; numbers of JSON and Parquet with a
              part behind the point; for a sentence encoder, pairs whose labels are numbers such as 0.8
    vectors   lists as long as each other that hold 0 and 1 alone: as numbers of classes, they would name one twice
    classes   everything else, as it is written; whole floats of JSON and Parquet (1.0, what pandas makes of 1 beside a
              missing one) are whole numbers

What may be either and is unknown is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from bertshrink.data.columns.guesses import number_of
from bertshrink.data.columns.roles import shown
from bertshrink.data.labels.shapes import OneHot, is_answers
from bertshrink.data.texts import Split
from bertshrink.errors import UserError
from bertshrink.model.tasks import TASKS

Sides = dict[str, Split]
SCORED = ("auto", *(name for name, task in TASKS.items() if task.learns_from in ("score", "pairs")))
"""Tasks for which a column of scores holds numbers; for the others its cells are classes."""


def settle(sides: Sides, task: str) -> Sides:
    """The sides with their labels as what they are.

    Args:
        sides: as `to_split`, `conll` and `squad` make them.
        task: what is learnt from them, or `auto`.

    Raises:
        UserError: labels of several kinds, a score that is not a number, text that no file can hold.
    """
    for name, split in sides.items():
        _check_characters(name, split)
    if any(split.words is not None or any(map(is_answers, split.labels or ())) for split in sides.values()):
        return sides
    values = [value for _, _, value in _cells(sides)]
    if not values or all(isinstance(value, OneHot) for value in values):
        return sides
    lists = [isinstance(value, tuple) for value in values]
    if any(lists):
        if not all(lists):
            _refuse(sides, lambda value: isinstance(value, tuple) != lists[0], "other rows have", "a list of labels")
        return _vectors(sides, [value for value in values if isinstance(value, tuple)])
    return _single(sides, values, task)


def _cells(sides: Sides) -> Iterator[tuple[str, int, Any]]:
    """(side, place in it, label) of every labelled row."""
    for name, split in sides.items():
        for at, value in enumerate(split.labels or ()):
            if value is not None:
                yield name, at, value


def _mapped(sides: Sides, change: Callable[[Any], Any]) -> Sides:
    return {
        name: split
        if split.labels is None
        else replace(split, labels=tuple(None if value is None else change(value) for value in split.labels))
        for name, split in sides.items()
    }


def _refuse(sides: Sides, is_bad: Callable[[Any], bool], why: str, wanted: str, hint: str = "") -> NoReturn:
    """Name the first row whose label is none of what is wanted."""
    side, at, value = next(cell for cell in _cells(sides) if is_bad(cell[2]))
    split = sides[side]
    raise UserError(
        f"a row of the {side} split is labelled `{shown(value)}`; {why} {wanted}",
        where=split.where(at),
        hint=hint or "fix the labels, or name another column with `--label`",
    )


def _single(sides: Sides, values: Sequence[Any], task: str) -> Sides:
    """One label a row: scores, or classes as they are written."""
    if any(isinstance(value, bool) for value in values) and not all(isinstance(value, bool) for value in values):
        _refuse(sides, lambda value: not isinstance(value, bool), "other rows have", "true or false")
    numbers = [number_of(value) for value in values]
    if _are_scores(sides, values, numbers, task):
        if None in numbers:
            hint = "a number is written as 3.8; name another column with `--label`, or the task with `--task`"
            _refuse(sides, lambda value: number_of(value) is None, "the column holds", "scores", hint)
        return _mapped(sides, number_of)
    return _mapped(sides, lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)


def _are_scores(sides: Sides, values: Sequence[Any], numbers: Sequence[float | None], task: str) -> bool:
    if task not in SCORED:
        return False
    if task in TASKS and TASKS[task].is_score:
        return True
    if any(isinstance(value, float) and not value.is_integer() for value in values):
        return True
    if any(split.roles is not None and split.roles.is_score for split in sides.values()):
        # Words in a column of scores may be classes, but not words among numbers, and no decimal commas.
        return any(number is not None for number in numbers) or all(map(_has_comma, values))
    is_paired = any(split.pairs is not None for split in sides.values())
    return task != "auto" and is_paired and None not in numbers and any(map(_is_broken, numbers))


def _has_comma(value: Any) -> bool:
    return isinstance(value, str) and number_of(value.replace(",", ".", 1)) is not None


def _is_broken(number: float | None) -> bool:
    return number is not None and not number.is_integer()


def may_be_scores(values: Iterable[Any]) -> bool:
    """Whether labels as they are written may as well be scores: all are numbers, not all are whole, and no two are one
    number written in two ways, as versions (`1.1` and `1.10`) are.
    """
    written = {value for value in values if isinstance(value, str)}
    numbers = [number_of(value) for value in written]
    return bool(written) and None not in numbers and any(map(_is_broken, numbers)) and len(set(numbers)) == len(numbers)


def _vectors(sides: Sides, values: Sequence[tuple[Any, ...]]) -> Sides:
    """Lists that hold a 0 or 1 for each class as such; lists of names, or of numbers of classes, as they are."""
    if any(split.label_names for split in sides.values()):
        return sides  # the data itself knows them as numbers of classes
    flat = [one for value in values for one in value]
    is_typed = [isinstance(one, bool | int | float) for one in flat]
    if not flat or not any(is_typed):
        return sides
    if not all(is_typed):
        return _mapped(sides, lambda value: tuple(map(str, value)))
    is_float = any(isinstance(one, float | bool) for one in flat)
    lengths = {len(value) for value in values}
    if all(one in (0, 1) for one in flat) and len(lengths) == 1:
        (length,) = lengths
        # Of two classes, [0, 1] and [1, 0] may name classes by number only if each row had both of them.
        if is_float or length > 1:
            return _mapped(sides, lambda value: OneHot(map(int, value)))
        raise UserError(
            f"every label is a list of one number: with one class [1] means yes, with several it means class 1 (the "
            f"first: `{shown(list(values[0]))}`)",
            where=next((split.source for split in sides.values() if split.source), None),
            hint="write the classes' names, or true and false",
        )
    if is_float:
        length = len(values[0])
        _refuse(
            sides,
            lambda value: len(value) != length or any(one not in (0, 1) for one in value),
            "a list of numbers holds a 0 or 1 for each class, and the first row has",
            f"{length} of them",
            "write 0 or 1 for each class, or the names of a row's classes",
        )
    if any(len(set(value)) < len(value) for value in values):
        _refuse(
            sides,
            lambda value: len(set(value)) < len(value),
            "a list of numbers holds a 0 or 1 for each class in every row, or numbers of classes,",
            "each once",
        )
    return sides


def _check_characters(name: str, split: Split) -> None:
    """Refuse half characters: JSON can write them, but no file and no tokenizer takes them."""
    headers = (split.roles.text, split.roles.pair, *split.roles.labels) if split.roles is not None else ()
    for header in headers:
        if header is not None and not _is_whole(header):
            raise UserError(
                f"the name of the column `{shown(header)}` contains half of a surrogate pair",
                where=split.source or None,
            )
    columns = (("text", split.texts), ("second text", split.pairs), ("words", split.words), ("label", split.labels))
    for kind, cells in columns:
        for at, cell in enumerate(cells or ()):
            if not _is_whole(cell):
                raise UserError(
                    f"a row of the {name} split: the {kind} `{shown(cell)}` contains half of a surrogate pair",
                    where=split.where(at),
                    hint="fix the row: an emoji or another rare character was cut in two when it was written",
                )


def _is_whole(cell: Any) -> bool:
    if isinstance(cell, tuple):
        return all(map(_is_whole, cell))
    if not isinstance(cell, str) or cell.isascii():
        return True
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True
