"""Is a metric another one after a change of the model, on the same texts, and for how many changes can that be said?

    a share of right answers       McNemar's exact test; its interval by Agresti and Min (Statistics in Medicine 24,
                                   2005): half a text more in each of the two cells that differ
    F1, correlations, means        both figures on the same texts drawn again (`quality.intervals`): the percentiles of
                                   their difference are the interval, and the difference over its spread gives p by the
                                   normal distribution: a count of 1,000 resamples knows no p below 0.001, which a
                                   correction for hundreds of tests would need
    likeness to the undisturbed    not tested: that model is alike to itself by definition, and a change is no loss

Many tests are corrected after Holm (Scandinavian Journal of Statistics 6, 1979): with N tests, the chance that any
difference is called one that is none is at most 5 %.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bertshrink.meters.quality.base_evaluator import Score
from bertshrink.report.attention import Effect, Finding
from bertshrink.report.statistics import sign_test

ALPHA = 0.05


@dataclass(frozen=True)
class Change:
    """A metric after a change; fields as of `Effect`."""

    value: float
    change: float
    interval: tuple[float, float] | None = None
    lost: int | None = None
    won: int | None = None
    p: float | None = None

    def effect(self, p_holm: float | None, *, is_higher_better: bool = True) -> Effect:
        """With what the corrected p says of it."""
        finding: Finding = "not tested"
        if p_holm is not None:
            is_worse = (self.change < 0) == is_higher_better
            finding = "no difference shown" if p_holm >= ALPHA else "worse" if is_worse else "better"
        return Effect(
            value=self.value,
            change=self.change,
            interval=self.interval,
            lost=self.lost,
            won=self.won,
            p=self.p,
            p_holm=p_holm,
            finding=finding,
        )


def compare(before: Score, after: Score) -> Change:
    """What became of a metric: of one and the same metric, over the same texts."""
    change = after.value - before.value
    if after.is_likeness:
        bounds = after.spread.interval() if after.spread is not None else None
        around = (bounds[0] - before.value, bounds[1] - before.value) if bounds is not None else None
        return Change(after.value, change, around)
    if before.right is not None and after.right is not None:
        pairs = list(zip(before.right, after.right, strict=True))
        lost = sum(bool(was and not now) for was, now in pairs)
        won = sum(bool(now and not was) for was, now in pairs)
        return Change(after.value, change, difference_interval(lost, won, len(pairs)), lost, won, sign_test(lost, won))
    mine = after.spread.drawn() if after.spread is not None else None
    theirs = before.spread.drawn() if before.spread is not None else None
    if mine is None or theirs is None:
        return Change(after.value, change)
    import numpy as np

    apart = mine - theirs
    low, high = np.quantile(apart, [0.025, 0.975])
    spread = float(apart.std(ddof=1))
    p = 2 * statistics.NormalDist().cdf(-abs(change) / spread) if spread > 0 else 1.0
    return Change(after.value, change, (float(low), float(high)), p=p)


def difference_interval(lost: int, won: int, num: int) -> tuple[float, float]:
    """95 % bounds of the change of a share, by Agresti and Min."""
    b, c, n = lost + 0.5, won + 0.5, num + 2
    middle = (c - b) / n
    half = 1.96 * max(0.0, b + c - (c - b) ** 2 / n) ** 0.5 / n
    return max(-1.0, middle - half), min(1.0, middle + half)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order."""
    corrected, largest = [0.0] * len(values), 0.0
    for rank, at in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[at]))
        corrected[at] = largest
    return corrected
