"""Progress as a person sees it: live lines on a terminal (on stderr) and in a notebook's cell, plain lines at intervals
on stderr anywhere else.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from bertshrink import progress as base
from bertshrink.command_scope import at_end
from bertshrink.progress import Progress, Silent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

LINE_INTERVAL_S = 15.0
"""Without a terminal, a running task speaks this often."""


def make_progress(quiet: bool) -> Progress:
    """What fits stderr."""
    if quiet:
        return Silent()
    if sys.stderr.isatty():
        return RichProgress()
    return NotebookProgress() if is_notebook() else PlainProgress()


def is_notebook() -> bool:
    """Whether this runs in a Jupyter kernel, whose cells can show more than text."""
    from rich.console import Console

    return Console().is_jupyter


def duration(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _fields(fields: dict[str, str]) -> str:
    return "  ".join(f"{name} {value}" for name, value in fields.items())


class _Screen(Protocol):
    """What lines are drawn on."""

    def refresh(self) -> None: ...

    def stop(self) -> None: ...


class _Staged:
    """What is said of tasks begins with the stage that they belong to."""

    prefix = ""

    def stage(self, number: int, total: int) -> None:
        """Titles begin with `stage 1/3 `."""
        self.prefix = f"stage {number}/{total} " if number and total > 1 else ""


class PlainProgress(_Staged):
    """Plain lines: for logs."""

    @contextmanager
    def task(
        self,
        title: str,
        total: float | None = None,
        unit: str = "steps",
        done: float = 0,
        *,
        is_timed: bool = False,
    ) -> Iterator[base.Task]:
        """A task that speaks every `LINE_INTERVAL_S` and when it ends."""
        task = _PlainTask(self, f"{self.prefix}{title}", total, unit, done)
        yield task
        task.say(ended=True)

    def log(self, message: str) -> None:
        """One line."""
        print(message, file=sys.stderr, flush=True)  # noqa: T201


class _PlainTask:
    def __init__(self, lines: PlainProgress, title: str, total: float | None, unit: str, done: float) -> None:
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
        """Where it is: share, rate, time left."""
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


class RichProgress(_Staged):
    """A line for each open task: title, bar, share, the time it took and has left, and one number.

    Where a window is narrow, what is least needed goes first, and nothing is cut: further numbers, the number, the bar;
    at last the title has a line of its own. The clock moves although nothing else does: the lines are drawn again every
    second, and every `TIMED_S` while models are timed, whose processors a redraw (about 1 ms) would take.
    """

    REDRAW_S = 0.2
    """A task that moves is drawn again at most so often."""
    CLOCK_S = 1.0
    TIMED_S = 5.0

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self.console = console or Console(stderr=True)
        self._open: list[_RichTask] = []
        self._live: _Screen | None = None
        self._ended = threading.Event()

    @contextmanager
    def task(
        self,
        title: str,
        total: float | None = None,
        unit: str = "steps",
        done: float = 0,
        *,
        is_timed: bool = False,
    ) -> Iterator[base.Task]:
        """A line for as long as the block runs; under it those of tasks within it."""
        task = _RichTask(self, f"{self.prefix}{title}", total, unit, done, is_timed)
        self._open.append(task)
        try:
            if len(self._open) == 1:
                self._start()
            else:
                self.redraw()
            yield task
        finally:
            self._open.remove(task)
            if not self._open:
                self._stop()

    def log(self, message: str) -> None:
        """One line that stays."""
        self.console.print(message, highlight=False, markup=False)

    def redraw(self) -> None:
        """Draw the lines now."""
        if self._live is not None:
            self._live.refresh()

    def _start(self) -> None:
        self._live = self._screen()
        self._ended = threading.Event()
        threading.Thread(target=self._tick, args=(self._ended, self._live), daemon=True).start()

    def _stop(self) -> None:
        self._ended.set()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _screen(self) -> _Screen:
        """Where the lines are drawn, again and again, until they are gone."""
        from rich.live import Live

        live = Live(console=self.console, get_renderable=self._drawn, auto_refresh=False, transient=True)
        live.start(refresh=True)
        return live

    def _tick(self, ended: threading.Event, live: _Screen) -> None:
        while not ended.wait(self.TIMED_S if any(task.is_timed for task in [*self._open]) else self.CLOCK_S):
            live.refresh()

    def _drawn(self) -> Text:
        from rich.text import Text

        width, is_plain = self.console.width, not self.console.encoding.lower().startswith("utf")
        lines = [line for task in [*self._open] for line in task.lines(width, is_plain)]
        return Text("\n".join(lines), overflow="fold")


class NotebookProgress(RichProgress):
    """The same lines in the output of a notebook's cell, as Rich shows text there."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        # The libraries' own bars are off, and tqdm warns all the same that it lacks ipywidgets to draw them. The
        # caller's filters come back with the end of the command.
        before = warnings.catch_warnings()
        before.__enter__()
        warnings.filterwarnings("ignore", message="IProgress not found")
        at_end(lambda: before.__exit__(None, None, None))

    def _screen(self) -> _Screen:
        return _Cell(self._drawn)


class _Cell:
    """An output of a notebook's cell that is drawn again in place; Rich's own `Live` asks for ipywidgets there.

    Args:
        drawn: what is to be seen now.
    """

    def __init__(self, drawn: Callable[[], Text]) -> None:
        from IPython.display import display

        self._drawn = drawn
        self._shown = display(drawn(), display_id=True)

    def refresh(self) -> None:
        self._shown.update(self._drawn())

    def stop(self) -> None:
        from IPython.display import HTML

        self._shown.update(HTML(""))


class _RichTask:
    _SHORTEST, _LONGEST, _WIDE = 8, 30, 100
    _SETTLED_S = 1.0
    """Before that a rate says nothing: of two steps the first may take a millisecond and the second a minute."""

    def __init__(
        self, bars: RichProgress, title: str, total: float | None, unit: str, done: float, is_timed: bool
    ) -> None:
        self.bars, self.title, self.total, self.unit, self.is_timed = bars, title, total, unit, is_timed
        self.began = self.moved = time.monotonic()
        self.first = self.done = done
        self.drawn = 0.0
        self.fields: dict[str, str] = {}

    def advance(self, steps: float = 1, **fields: str) -> None:
        self.done += steps
        self.moved = now = time.monotonic()
        self.fields = fields or self.fields
        if now - self.drawn >= self.bars.REDRAW_S:
            self.drawn = now
            self.bars.redraw()

    def log(self, message: str) -> None:
        self.bars.log(message)

    def lines(self, width: int, is_plain: bool = False) -> list[str]:
        """What is shown in so many columns: one line, or the title and one."""
        left = self._left()
        parts = [f"{100 * self._share():3.0f} %"] if self.total else []
        parts += [duration(time.monotonic() - self.began), *([f"{duration(left)} left"] if left is not None else [])]
        tail = "  ".join(parts)
        numbers = self._numbers()
        for count in range(len(numbers) if width >= self._WIDE else min(1, len(numbers)), -1, -1):
            more = "".join(f"  {number}" for number in numbers[:count])
            room = width - len(self.title) - len(tail) - len(more) - 4
            if self.total and room >= self._SHORTEST:
                return [f"{self.title}  {self._bar(min(room, self._LONGEST), is_plain)}  {tail}{more}"]
            if (not self.total or not count) and room >= -2:
                return [f"{self.title}  {tail}{more}"]
        room = width - len(tail) - 2
        bar = f"{self._bar(min(room, self._LONGEST), is_plain)}  " if self.total and room >= self._SHORTEST else ""
        return [self.title, f"{bar}{tail}"]

    def _share(self) -> float:
        """A total may be an estimate, such as the tokens of a part of an epoch."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    def _rate(self) -> float:
        """Units per second as of the last step; 0 while it is not known."""
        took = self.moved - self.began
        return (self.done - self.first) / took if took >= self._SETTLED_S else 0.0

    def _left(self) -> float | None:
        """Seconds to go, as of the last step; they pass while nothing moves. None before a rate is known."""
        if not self.total or not self._rate():
            return None
        waited = time.monotonic() - self.moved
        return max(0.0, (self.total - self.done) / self._rate() - waited)

    def _numbers(self) -> list[str]:
        """The task's own numbers, then its rate; the first is the one that a narrow window shows."""
        own = [f"{name} {value}" for name, value in self.fields.items()]
        return [*own[:1], *([f"{self._rate():,.0f} {self.unit}/s"] if self._rate() >= 1 else []), *own[1:]]

    def _bar(self, width: int, is_plain: bool) -> str:
        full = round(width * self._share())
        return "#" * full + "." * (width - full) if is_plain else "\u2501" * full + "\u2500" * (width - full)
