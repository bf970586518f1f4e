"""On which processors workers run that take turns (`turns`): the same ones for all of a round.

With fewer threads than processors each worker would stay where the scheduler first put it, and two processors of a
shared machine differ by more than two models do: the hypervisor has its own plans for each. So all workers of a round
are bound to the same processors, one a core, and every round moves on to others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

_SYSTEM = Path("/sys/devices/system/cpu")


def bind(threads: int, number: int) -> None:
    """Keep this process and all that it starts on the processors of round `number`; none, where it takes all."""
    if not hasattr(os, "sched_setaffinity"):
        return
    usable = sorted(os.sched_getaffinity(0))
    if chosen := processors_of(_one_of_each_core(_strongest(usable)), threads, number):
        os.sched_setaffinity(0, chosen)


def processors_of(pool: Sequence[int], threads: int, number: int) -> set[int]:
    """Those of a round: as many as threads, the next ones in each round; empty where there are too few to choose.

    Args:
        number: of the round, from 0.
    """
    if threads >= len(pool):
        return set()
    start = number * threads
    return {pool[(start + at) % len(pool)] for at in range(threads)}


def _strongest(processors: Sequence[int]) -> list[int]:
    """Those of a phone's or a laptop's fast cores, where the system tells how strong its cores are (ARM)."""
    strength = {number: _text(f"cpu{number}/cpu_capacity") or "0" for number in processors}
    most = max(map(int, strength.values()))
    return [number for number, own in strength.items() if int(own) == most]


def _one_of_each_core(processors: Sequence[int]) -> list[int]:
    """One where a core shows as two processors."""
    cores: dict[str, int] = {}
    for number in processors:
        cores.setdefault(_text(f"cpu{number}/topology/thread_siblings_list") or str(number), number)
    return list(cores.values())


def _text(name: str) -> str | None:
    try:
        return (_SYSTEM / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
