"""What is remembered while one command runs, and forgotten with it.

A plan looks at models and data that the pipeline then loads, so a file is probed, texts are read and the hub is tried
once for both. Two commands in one process (calls from Python) see what there is at their own time. Outside of a command
nothing is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bertshrink.errors import BertshrinkError

T = TypeVar("T")


@dataclass
class _Scope:
    """One command: outcomes by kind and key, and what is undone at its end."""

    outcomes: dict[str, dict[Hashable, Any]] = field(default_factory=dict)
    undo: ExitStack = field(default_factory=ExitStack)


_CURRENT: ContextVar[_Scope | None] = ContextVar("command_scope", default=None)


@contextmanager
def command_scope() -> Iterator[None]:
    """One command; within another one it is part of that."""
    if _CURRENT.get() is not None:
        yield
        return
    scope = _Scope()
    token = _CURRENT.set(scope)
    try:
        with scope.undo:
            yield
    finally:
        _CURRENT.reset(token)


def once(kind: str, key: Hashable, compute: Callable[[], T], *, only_last: bool = False) -> T:
    """What `compute` gives, or the `BertshrinkError` that it raises, computed once for a key in a command.

    Args:
        kind: what it is; keys of two kinds do not meet.
        key: everything that decides it.
        only_last: whether another key of this kind is forgotten, since what was computed is large.
    """
    scope = _CURRENT.get()
    if scope is None:
        return compute()
    outcomes = scope.outcomes.setdefault(kind, {})
    if key not in outcomes:
        if only_last:
            outcomes.clear()
        try:
            outcomes[key] = compute()
        except BertshrinkError as error:
            outcomes[key] = error
    outcome: T | BertshrinkError = outcomes[key]
    if isinstance(outcome, BertshrinkError):
        raise outcome
    return outcome


def at_end(undo: Callable[[], object]) -> None:
    """Have something undone when the command ends; outside of one it stays."""
    scope = _CURRENT.get()
    if scope is not None:
        scope.undo.callback(undo)
