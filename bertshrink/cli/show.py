"""Progress as a person sees it: a Rich bar on a terminal, plain lines at intervals anywhere else. All of it on
stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bertshrink import progress as base
from bertshrink.progress import Progress, Silent

LINE_INTERVAL_S = 15.0
"""Without a terminal, a running task speaks this often."""


def make_progress(quiet: bool) -> Progress:
    """What fits stderr."""
    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines()


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _fields(fields: dict[str, str]) -> str:
    return "  ".join(f"{name} {value}" for name, value in fields.items())


class Lines:
    """Plain lines: for logs."""

    @contextmanager
    def task(self, title: str, total: float | None = None, unit: str = "steps", done: float = 0) -> Iterator[base.Task]:
        """A task that speaks every `LINE_INTERVAL_S` and when it ends."""
        task = _LineTask(self, title, total, unit, done)
        yield task
        task.say(ended=True)

    def log(self, message: str) -> None:
        """One line."""
        print(message, file=sys.stderr, flush=True)  # noqa: T201


class _LineTask:
    def __init__(self, lines: Lines, title: str, total: float | None, unit: str, done: float) -> None:
        self.lines, self.title, self.total, self.unit = lines, title, total, unit
        self.began = self.spoke = time.monotonic()
        self.first = self.done = done
        self.fields: dict[str, str] = {}

    def advance(self, steps: float = 1, **fields: str) -> None:
        self.done += steps
        self.fields = fields or self.fields
        if time.monotonic() - self.spoke >= LINE_INTERVAL_S:
            self.say()

    def log(self, message: str) -> None:
        self.lines.log(message)

    def say(self, *, ended: bool = False) -> None:
        """Where it stands: share, rate, time left."""
        now = time.monotonic()
        self.spoke = now
        elapsed = max(now - self.began, 1e-9)
        rate = (self.done - self.first) / elapsed
        parts = [f"{self.title}:"]
        if ended:
            parts.append(f"done in {duration(elapsed)}")
        elif self.total:
            # A total may be an estimate, such as the tokens of a part of an epoch.
            done = min(self.done, self.total)
            left = (self.total - done) / rate if rate > 0 else 0.0
            parts.append(f"{100 * done / self.total:.0f} %, {duration(left)} left")
        if rate >= 1:
            parts.append(f"{rate:,.0f} {self.unit}/s")
        if self.fields:
            parts.append(_fields(self.fields))
        self.lines.log("  ".join(parts))


class Bars:
    """A live bar with rate and time left.

    It redraws only when its task moves: a refresh thread would steal time from what is being measured.
    """

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    @contextmanager
    def task(self, title: str, total: float | None = None, unit: str = "steps", done: float = 0) -> Iterator[base.Task]:
        """A bar for as long as the block runs."""
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[more]}"),
        )
        with RichProgress(*columns, console=self.console, auto_refresh=False, transient=True) as bar:
            number = bar.add_task(title, total=total, completed=round(done), rate="", more="")
            yield _BarTask(bar, number, unit, self.console)

    def log(self, message: str) -> None:
        """One line that stays."""
        self.console.print(message, highlight=False, markup=False)


class _BarTask:
    REDRAW_S = 0.2

    def __init__(self, bar: object, number: object, unit: str, console: object) -> None:
        from rich.console import Console
        from rich.progress import Progress as RichProgress
        from rich.progress import TaskID

        assert isinstance(bar, RichProgress) and isinstance(console, Console)
        self.bar, self.number, self.unit, self.console = bar, TaskID(int(str(number))), unit, console
        self.began = time.monotonic()
        self.drawn = 0.0
        self.moved = 0.0
        self.more = ""

    def advance(self, steps: float = 1, **fields: str) -> None:
        self.moved += steps
        now = time.monotonic()
        rate = self.moved / max(now - self.began, 1e-9)
        shown = f"{rate:,.0f} {self.unit}/s" if rate >= 1 else ""
        self.more = _fields(fields) or self.more
        self.bar.update(self.number, advance=steps, rate=shown, more=self.more)
        if now - self.drawn >= self.REDRAW_S:
            self.bar.refresh()
            self.drawn = now

    def log(self, message: str) -> None:
        self.console.print(message, highlight=False, markup=False)
