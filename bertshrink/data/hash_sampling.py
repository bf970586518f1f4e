"""Choices of rows by the hashes of their texts: the same rows every time, wherever they are in the file.

A choice has a purpose, which goes into the hash: what one purpose has drawn says nothing about another's choice, so
that a part can be drawn from again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from bertshrink.data.labels.shapes import classes_of

_HASHES = 1000
"""Hashes are distinguished in so many classes: shares are whole thousandths."""


def salt(seed: int) -> str:
    """The purpose that makes another seed's choice another one; the first seed has none."""
    return f"{seed}:" if seed else ""


def drawn(texts: Sequence[str], labels: Sequence[Any] | None, share: float, purpose: str) -> list[bool]:
    """For each row, whether it is of about `share` of them that are drawn.

    A row that alone has a class stays, and one of a class whose rows were all drawn: nothing can be learnt of what is
    only asked for.
    """
    limit = round(share * _HASHES)
    hashes = [hash_of(purpose + text) for text in texts]
    are_drawn = [int(value[:8], 16) % _HASHES < limit for value in hashes]
    if labels is None:
        return are_drawn
    classes = [classes_of(label) for label in labels]
    stay = {one for own, is_drawn in zip(classes, are_drawn, strict=True) if not is_drawn for one in own}
    for at in sorted((at for at, is_drawn in enumerate(are_drawn) if is_drawn), key=lambda at: hashes[at]):
        if not stay.issuperset(classes[at]):
            are_drawn[at] = False
            stay |= classes[at]
    return are_drawn


def lowest(texts: Sequence[str], limit: int, purpose: str) -> list[int]:
    """The numbers of `limit` rows, in their order."""
    return sorted(sorted(range(len(texts)), key=lambda i: hash_of(purpose + texts[i]))[:limit])


def hash_of(text: str) -> str:
    """The sha256 of a text in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
