"""What speaks against a set of timings: arithmetic over samples, said in a sentence each. No sample is ever dropped.

    not warmed up   the last block of warm-up iterations still differs from the one before by more than 2 %
    outliers        more than 5 % of the samples lie further than 14.8 MAD from their process's median (hyperfine's
                    rule: a modified z-score of 10)
    drift           the first half of the processes and the second differ by more than 3 %
    other work      the machine was busier than it has cores when the measuring began

Every rule speaks of the median over the processes, so that one noisy process does not cry wolf.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

WARMUP_BLOCK = 10
"""Iterations whose medians are compared; fewer where the warm-up was shorter than two blocks."""

WARMUP_TOLERANCE = 0.02
DRIFT_TOLERANCE = 0.03
OUTLIER_MADS = 10 * 1.4826
"""1.4826 MAD are one standard deviation of normally distributed values."""

OUTLIER_SHARE = 0.05
"""Fewer than this cannot move a median by anything that matters."""

OUTPUT_TOLERANCE = 1e-3
"""Far above what another order of summation does, bfloat16 included."""


def warnings(
    case: str, samples: Sequence[Sequence[float]], warmups: Sequence[Sequence[float]], levels: Sequence[float]
) -> tuple[str, ...]:
    """What to know before believing the latency of one case.

    Args:
        case: as people write it: `8x128`.
        samples: of each process.
        warmups: the warm-up iterations of each process.
        levels: the root mean square of the outputs in each process.

    """
    found = []
    change = statistics.median(warmup_change(values) for values in warmups)
    if abs(change) > WARMUP_TOLERANCE:
        found.append(f"{case}: not warmed up, the last warm-up iterations still changed by {100 * change:+.0f} %")
    outliers, total = sum(count_outliers(values) for values in samples), sum(len(values) for values in samples)
    if outliers > OUTLIER_SHARE * total:
        found.append(f"{case}: {outliers} of {total} samples are outliers; all are kept")
    moved = drift([statistics.median(values) for values in samples])
    if abs(moved) > DRIFT_TOLERANCE:
        found.append(f"{case}: drift, the second half of the rounds differs from the first by {100 * moved:+.0f} %")
    if max(levels) - min(levels) > OUTPUT_TOLERANCE * max(levels):
        found.append(f"{case}: the outputs differ between processes")
    return tuple(found)


def warmup_change(warmup: Sequence[float]) -> float:
    """The last block's median against the block before, minus 1; negative while it still gets faster."""
    block = min(WARMUP_BLOCK, len(warmup) // 2)
    if block == 0:
        return 0.0
    return statistics.median(warmup[-block:]) / statistics.median(warmup[-2 * block : -block]) - 1


def count_outliers(samples: Sequence[float]) -> int:
    """How many samples of one process lie further from its median than `OUTLIER_MADS` median absolute deviations."""
    middle = statistics.median(samples)
    spread = statistics.median(abs(value - middle) for value in samples)
    return sum(abs(value - middle) > OUTLIER_MADS * spread for value in samples)


def drift(rounds: Sequence[float]) -> float:
    """The second half of the rounds against the first, minus 1; a middle round belongs to neither. 0 below 4 rounds."""
    half = len(rounds) // 2
    if half < 2:
        return 0.0
    return statistics.median(rounds[-half:]) / statistics.median(rounds[:half]) - 1


def crowding(num_cores: int) -> tuple[str, ...]:
    """Whether something else is using the machine now: its load average is above its cores, and someone else runs.

    The load average alone would also remember this process's own work of the last minute.
    """
    load = os.getloadavg()[0]
    try:
        running = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        running = 2
    if load <= num_cores or running < 2:
        return ()
    return (f"the machine was busy at the start: load average {load:.1f} on {num_cores} cores",)
