"""What speaks against a set of timings: arithmetic over samples. No sample is ever dropped.

    not warmed up   the last block of warm-up iterations still differs from the one before by more than 2 %
    outliers        more than 5 % of the samples are further than 14.8 MAD from their process's median (hyperfine's
                    rule: a modified z-score of 10)
    drift           the first half of the processes and the second differ by more than 3 %; ratios hold all the same,
                    since models take turns
    other work      other processes took more than a tenth of a core meanwhile; invalid where they and the model's
                    threads together wanted more cores than there are
    stolen          the hypervisor gave more than 1 % of the time to other machines (10 %: invalid)
    throttled       the processor was slowed down for heat or current: invalid; so were a GPU's clocks, unless only for
                    the power that it is allowed, at which a busy GPU stays
    outputs         differ between processes: invalid
    too few         rounds that were asked for and did not fit into the time
    crowded         the machine was busier than it has cores when the measuring began

Figures with any doubt are semivalid (MLPerf Mobile's word): true of what happened, and to be repeated before much hangs
on them. Every rule speaks of the median over the processes, so that one noisy process does not cry wolf.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from bertshrink.meters.latency.worker_result import Interference
from bertshrink.report.measurement import MeasurementWarning, Validity
from bertshrink.worker.machine.nvidia import POWER_CAP

WARMUP_BLOCK = 10
"""Iterations whose medians are compared; fewer where the warm-up was shorter than two blocks."""

WARMUP_TOLERANCE = 0.02
DRIFT_TOLERANCE = 0.03
OTHERS_TOLERANCE = 0.10
"""Cores. A quiet system's own housekeeping takes some 0.02."""

CROWDED_BY = 0.25
"""Cores wanted beyond those there are, from which the figures are not the model's any more."""

STEAL_TOLERANCE = 0.01
STEAL_LIMIT = 0.10
OUTLIER_MADS = 10 * 1.4826
"""1.4826 MAD are one standard deviation of normally distributed values."""

OUTLIER_SHARE = 0.05
"""Fewer than this cannot move a median by anything that matters."""

OUTPUT_TOLERANCE = 1e-3
"""Far above what another order of summation does, bfloat16 included."""


def validity_of(warnings: Sequence[MeasurementWarning]) -> Validity:
    """What figures are worth."""
    if any(warning.is_grave for warning in warnings):
        return "invalid"
    return "semivalid" if warnings else "valid"


def of_case(
    case: str, samples: Sequence[Sequence[float]], warmups: Sequence[Sequence[float]], levels: Sequence[float]
) -> tuple[MeasurementWarning, ...]:
    """What to know before believing the latency of one case.

    Args:
        samples: of each process.
        warmups: the warm-up iterations of each process.
        levels: the root mean square of the outputs in each process.
    """
    warnings = []
    change = statistics.median(warmup_change(values) for values in warmups)
    if abs(change) > WARMUP_TOLERANCE:
        warnings.append(MeasurementWarning(kind="not_warmed_up", case=case, values=(change,)))
    outliers, total = sum(count_outliers(values) for values in samples), sum(len(values) for values in samples)
    if outliers > OUTLIER_SHARE * total:
        warnings.append(MeasurementWarning(kind="outliers", case=case, values=(outliers, total)))
    moved = drift([statistics.median(values) for values in samples])
    if abs(moved) > DRIFT_TOLERANCE:
        warnings.append(MeasurementWarning(kind="drift", case=case, values=(moved,)))
    if max(levels) - min(levels) > OUTPUT_TOLERANCE * max(levels):
        warnings.append(MeasurementWarning(kind="outputs_differ", case=case, is_grave=True))
    return tuple(warnings)


def of_machine(strains: Sequence[Interference], threads: int, num_cores: int) -> tuple[MeasurementWarning, ...]:
    """What the machine went through while one model was measured."""
    warnings = []
    others = _median(s.others / s.seconds for s in strains if s.others is not None and s.seconds)
    if others > OTHERS_TOLERANCE:
        is_grave = others + threads > num_cores + CROWDED_BY
        warnings.append(MeasurementWarning(kind="others_busy", values=(others,), is_grave=is_grave))
    stolen = _median(s.stolen / s.seconds / num_cores for s in strains if s.stolen is not None and s.seconds)
    if stolen > STEAL_TOLERANCE:
        warnings.append(MeasurementWarning(kind="stolen", values=(stolen,), is_grave=stolen > STEAL_LIMIT))
    throttled = sum(s.throttled or 0 for s in strains)
    if throttled > 0:
        warnings.append(MeasurementWarning(kind="throttled", values=(throttled,), is_grave=True))
    held_back = {reason for s in strains if s.gpu is not None for reason in s.gpu.held_back}
    if held_back:
        names = tuple(sorted(held_back))
        warnings.append(MeasurementWarning(kind="gpu_held_back", names=names, is_grave=held_back != {POWER_CAP}))
    return tuple(warnings)


def of_rounds(rounds: int, asked: int, budget_s: float | None) -> tuple[MeasurementWarning, ...]:
    """Whether the rounds that were asked for were run; without a budget they were."""
    if rounds >= asked or budget_s is None:
        return ()
    return (MeasurementWarning(kind="rounds_missing", values=(rounds, asked, budget_s)),)


def _median(values: Iterable[float]) -> float:
    numbers = list(values)
    return statistics.median(numbers) if numbers else 0.0


def warmup_change(warmup: Sequence[float]) -> float:
    """The last block's median against the block before, minus 1; negative while it still gets faster."""
    block = min(WARMUP_BLOCK, len(warmup) // 2)
    if block == 0:
        return 0.0
    return statistics.median(warmup[-block:]) / statistics.median(warmup[-2 * block : -block]) - 1


def count_outliers(samples: Sequence[float]) -> int:
    """How many samples of one process are further from its median than `OUTLIER_MADS` median absolute deviations."""
    middle = statistics.median(samples)
    spread = statistics.median(abs(value - middle) for value in samples)
    return sum(abs(value - middle) > OUTLIER_MADS * spread for value in samples)


def drift(rounds: Sequence[float]) -> float:
    """The second half of the rounds against the first, minus 1; a middle round belongs to neither. 0 below 4 rounds."""
    half = len(rounds) // 2
    if half < 2:
        return 0.0
    return statistics.median(rounds[-half:]) / statistics.median(rounds[:half]) - 1


def initial_load_warning(num_cores: int) -> tuple[MeasurementWarning, ...]:
    """Whether something else is using the machine now: its load average is above its cores, and someone else runs.

    The load average alone would also remember this process's own work of the last minute.
    """
    if not hasattr(os, "getloadavg"):
        return ()
    load = os.getloadavg()[0]
    try:
        running = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        running = 2
    if load <= num_cores or running < 2:
        return ()
    return (MeasurementWarning(kind="busy_at_start", values=(load, num_cores)),)
