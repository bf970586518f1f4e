"""How much memory this process takes, from the kernel's own books: exact, free, never sampled.

peak   the high-water mark of resident memory (VmHWM), set back to the present between phases; where it cannot be
set back, the peak since the process began (`ru_maxrss`)
PSS    the proportional set size at the end of a phase: what is resident, each shared page divided by the number of
processes that share it; so files that several workers map are not counted several times
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_RESET_HIGH_WATER = "5"
"""What /proc/PID/clear_refs takes to set VmHWM back (proc(5))."""


def reset_peak() -> bool:
    """Set the high-water mark back to what is resident now; False where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_HIGH_WATER, encoding="ascii")
        return _high_water_bytes() is not None
    except OSError:
        return False


def peak_bytes() -> int:
    """The most memory that was resident since `reset_peak`, or since the process began where that did nothing.

    Raises:
        ModuleNotFoundError: on Windows, which counts it in another way.
    """
    peak = _high_water_bytes()
    if peak is None:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak


def pss_bytes() -> int | None:
    """The proportional set size now; None where the kernel does not tell."""
    return _kilobytes(Path("/proc/self/smaps_rollup"), "Pss")


def _high_water_bytes() -> int | None:
    return _kilobytes(Path("/proc/self/status"), "VmHWM")


def _kilobytes(path: Path, name: str) -> int | None:
    """The bytes of the line `name:  123 kB`."""
    try:
        match = re.search(rf"^{name}:\s+(\d+) kB$", path.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) * 1024 if match else None
