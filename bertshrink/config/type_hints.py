"""What a settings field's type allows: the members of a union, and the words of a `Literal`."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin


def union_members(annotation: Any) -> tuple[Any, ...]:
    """`int` and `None` of `int | None`; of any other type, itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def literal_words(annotation: Any) -> list[Any]:
    """Every value that a `Literal` of the type names."""
    return [word for kind in union_members(annotation) if get_origin(kind) is Literal for word in get_args(kind)]
