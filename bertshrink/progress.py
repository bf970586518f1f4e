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
    def task(
        self,
        title: str,
        total: float | None = None,
        unit: str = "steps",
        done: float = 0,
        *,
        is_timed: bool = False,
    ) -> Iterator[Task]:
        """Open a task of `total` units (None: unknown), `done` of them finished already; it closes with the block.

        While a task is open that `is_timed`, models are timed on this machine, and showing it must cost nothing.
        """

    def stage(self, number: int, total: int) -> None:
        """Say which stage of the run all that follows belongs to; 0: to none."""

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
    def task(
        self,
        title: str,
        total: float | None = None,
        unit: str = "steps",
        done: float = 0,
        *,
        is_timed: bool = False,
    ) -> Iterator[Task]:
        """Open a task that shows nothing."""
        yield _SilentTask()

    def stage(self, number: int, total: int) -> None:
        """Show nothing."""

    def log(self, message: str) -> None:
        """Drop the line."""
