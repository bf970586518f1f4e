"""What a row's label is in Python, beyond names and numbers (see `texts.Split.labels`)."""

from __future__ import annotations

from typing import Any


class OneHot(tuple[int, ...]):
    """A row's labels as a 0 or 1 for each class."""


def classes_of(label: Any) -> frozenset[Any]:
    """The classes of a label; none of a score, of answers, and of no label."""
    if label is None or isinstance(label, float):
        return frozenset()
    if isinstance(label, OneHot):
        return frozenset(at for at, is_there in enumerate(label) if is_there)
    if isinstance(label, tuple):
        return frozenset(one for one in label if not isinstance(one, tuple))
    return frozenset((label,))


def is_answers(label: Any) -> bool:
    """Whether a label is question answering's: answers with their places."""
    return isinstance(label, tuple) and any(isinstance(one, tuple) for one in label)
