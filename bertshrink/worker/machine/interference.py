"""What the machine went through while something was measured: two looks at the kernel's counters and their difference.

    others      processor seconds that other processes took (all processes' less this one's and its fellow workers')
    stolen      processor seconds that the hypervisor gave to other machines
    switches    times that this process was put aside although it wanted to go on
    throttled   times that a processor was slowed down for heat or current
    seconds     between the two looks
    gpu         of a GPU that is measured: its clocks, heat and power at the end, and what held its clocks back at the
                beginning or at the end (`nvidia.state`)

A counter that the system does not have is None: nothing is known, which is not zero.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bertshrink.worker.machine import nvidia

_BUSY = (0, 1, 2, 5, 6)
"""user, nice, system, irq, softirq: the busy ones among the columns of /proc/stat's first line (proc(5))."""

_STEAL = 7
_PI_THROTTLED_NOW = 0xF
"""The lower bits of the Raspberry Pi firmware's `get_throttled`: under-voltage, capped, throttled, soft limit."""


class Interference:
    """Begins to look now.

    Args:
        fellows: the processor seconds that workers have used that take turns with this one.
    """

    def __init__(self, on_gpu: bool = False, fellows: Callable[[], float] = lambda: 0.0) -> None:
        self.gpu = nvidia.state() if on_gpu else None
        self._fellows = fellows
        self.began = self._counters()

    def end(self) -> dict[str, Any]:
        """What happened since."""
        ended = self._counters()
        moved = {
            name: ended[name] - before if before is not None and ended[name] is not None else None
            for name, before in self.began.items()
        }
        busy, own = moved.pop("busy"), moved.pop("own")
        moved["others"] = None if busy is None else max(0.0, busy - own)
        if _pi_is_throttled():
            moved["throttled"] = (moved["throttled"] or 0) + 1
        moved["load"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        now = nvidia.state() if self.gpu is not None else None
        if self.gpu is not None and now is not None:
            moved["gpu"] = now | {"held_back": sorted({*self.gpu["held_back"], *now["held_back"]})}
        return moved

    def _counters(self) -> dict[str, Any]:
        busy, stolen = _processor_seconds()
        return {
            "seconds": time.perf_counter(),
            "busy": busy,
            "own": processor_seconds() + self._fellows(),
            "stolen": stolen,
            "switches": _switches(),
            "throttled": _throttled(),
        }


def processor_seconds() -> float:
    """That this process and the children that it waited for have used so far."""
    own = os.times()
    return own.user + own.system + own.children_user + own.children_system


def _processor_seconds() -> tuple[float | None, float | None]:
    """Of all processors together: seconds at work, and seconds stolen."""
    try:
        columns = [int(text) for text in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]]
        tick = os.sysconf("SC_CLK_TCK")
        return sum(columns[at] for at in _BUSY) / tick, columns[_STEAL] / tick
    except (OSError, ValueError, IndexError):
        return None, None


def _switches() -> int | None:
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    except ImportError:
        return None


def _throttled() -> int | None:
    """Times that a processor was slowed down since the system began."""
    paths = sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
    counts = [count for path in paths if (count := _number(path, 10)) is not None]
    return sum(counts) if counts else None


def _pi_is_throttled() -> bool:
    """Whether a Raspberry Pi's firmware holds its processors back now."""
    paths = Path("/sys/devices/platform").glob("soc*/*firmware/get_throttled")
    return any((_number(path, 16) or 0) & _PI_THROTTLED_NOW for path in paths)


def _number(path: Path, base: int) -> int | None:
    try:
        return int(path.read_text(encoding="ascii").strip(), base)
    except (OSError, ValueError):
        return None
