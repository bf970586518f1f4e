"""SIGTERM and SIGINT while training: the step is finished and a checkpoint written before the process ends.

A second signal ends it at once, as it would without this.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from bertshrink.errors import BertshrinkError, Interrupted, Terminated

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """While it is open, remembers that a signal came."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def error(self, step: int | None) -> BertshrinkError:
        """What to raise once the checkpoint of `step` is written; None: training was at its end."""
        assert self.number is not None
        kind = Interrupted if self.number == signal.SIGINT else Terminated
        when = "at the end of training" if step is None else f"after step {step}"
        return kind(f"stopped by {signal.Signals(self.number).name} {when}", hint="run the same command to resume")
