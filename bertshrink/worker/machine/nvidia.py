"""What NVIDIA's driver says of the GPU that is measured, asked by `nvidia-smi`, which comes with the driver.

    driver_bytes   the device memory of this process by the driver's books: context, libraries and allocator together.
                   None where the driver does not tell (in a container its process numbers are others).
    state          clocks, heat, power, and what held the clocks back at this moment (NVML's clocks event reasons)

Each look takes some 50 ms, so nothing here runs within a clock. The GPU is the first of CUDA_VISIBLE_DEVICES, else the
first one; the runner sees to it that CUDA counts them as the driver does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

_MIB = 1 << 20
_SECONDS = 10
POWER_CAP = "software power cap"
_REASONS = {
    # bit: NVML's name for what holds the clocks back; idle GPUs and clocks set by the user are not slowing down
    0x4: POWER_CAP,
    0x8: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
_FIELDS = ("clocks.current.sm", "clocks.current.memory", "temperature.gpu", "power.draw")
_ACTIVE = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""The bits' name in drivers of today, and before version 535."""


def about() -> dict[str, Any] | None:
    """The GPU's `name` and the `driver`; None where no driver answers."""
    answer = _ask("--query-gpu=name,driver_version")
    return {"name": answer[0], "driver": answer[1]} if answer is not None and len(answer) == 2 else None


def state() -> dict[str, Any] | None:
    """`sm_mhz`, `memory_mhz`, `celsius`, `watts` and `held_back`, now; None where no driver answers."""
    for active in _ACTIVE:
        answer = _ask(f"--query-gpu={','.join((*_FIELDS, active))}")
        if answer is not None and len(answer) == len(_FIELDS) + 1:
            names = ("sm_mhz", "memory_mhz", "celsius", "watts")
            numbers = {name: _number(text) for name, text in zip(names, answer, strict=False)}
            return numbers | {"held_back": reasons(answer[-1])}
    return None


def reasons(text: str) -> list[str]:
    """What the bits say, in words; nothing where they are not bits."""
    try:
        bits = int(text, 16)
    except ValueError:
        return []
    return [name for bit, name in _REASONS.items() if bits & bit]


def driver_bytes(pid: int | None = None) -> int | None:
    """Device memory of a process (this one) now, by the driver's books."""
    number = str(os.getpid() if pid is None else pid)
    lines = _run("--query-compute-apps=pid,used_gpu_memory")
    rows = [[part.strip() for part in line.split(",")] for line in lines or ()]
    used = [_number(row[1]) for row in rows if len(row) == 2 and row[0] == number]
    known = [value for value in used if value is not None]
    return int(sum(known) * _MIB) if known else None


def _ask(query: str) -> list[str] | None:
    lines = _run(query, ("-i", os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0] or "0"))
    return [part.strip() for part in lines[0].split(",")] if lines else None


def _run(query: str, which: Sequence[str] = ()) -> list[str] | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, query, *which, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [line for line in done.stdout.splitlines() if line.strip()]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]": this GPU does not tell
        return None
