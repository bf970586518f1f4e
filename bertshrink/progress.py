"""How long work tells that it is alive, without printing: a protocol that `cli` fills.

A technique or meter opens a task and advances it. What it looks like (a Rich bar, plain lines at intervals, nothing)
is the command line's business.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """One running piece of work."""

    def advance(self, steps: float = 1, **fields: str) -> None:
        """Move on by `steps` of the total; `fields` are shown beside the bar, name and text."""

    def log(self, message: str) -> None:
        """Say one line that stays."""


class Progress(Protocol):
    """What opens tasks."""

    @contextmanager
    def task(self, title: str, total: float | None = None, unit: str = "steps", done: float = 0) -> Iterator[Task]:
        """Open a task of `total` units (None: unknown), `done` of them finished already; it closes with the block."""

    def log(self, message: str) -> None:
        """Say one line that stays."""


class _SilentTask:
    def advance(self, steps: float = 1, **fields: str) -> None:
        return None

    def log(self, message: str) -> None:
        return None


class Silent:
    """Progress that says nothing: the default in a notebook or a test."""

    @contextmanager
    def task(self, title: str, total: float | None = None, unit: str = "steps", done: float = 0) -> Iterator[Task]:
        """Open a task that shows nothing."""
        yield _SilentTask()

    def log(self, message: str) -> None:
        """Drop the line."""
