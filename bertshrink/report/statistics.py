"""What samples say and what they do not: intervals over rounds, and the verdict on two models.

A round is one process per model; what varies between processes is what counts, so rounds are resampled, never samples
(pyperf's argument).

    a value   the percentile bootstrap of the median over rounds: with six or more it is close to the interval that
              order statistics give, never leaves what was seen, and one slow round does not stretch it
    a ratio   the mean of the rounds' log-ratios with the expanded percentile bootstrap (Hesterberg 2015,
              arXiv:1411.5279): the bare percentile interval is too short by sqrt((n-1)/n) and by z/t, which matters
              for ten rounds; the quantile levels are moved out to make up for both

Below six rounds no bootstrap can be wide enough (all resamples of 3 values are between the least and the largest, which
cover a mean in 3 of 4 cases), so Student's interval of the mean is there.

A figure of answers to texts has one round and an interval all the same, since other texts would have given another:
Wilson's of a share, Fisher's of a correlation. Two models' answers to the same texts are compared by an exact test.

The verdict: `equivalent` when the 90 % interval is within the margin (two one-sided tests at 5 %, Schuirmann 1987);
else `faster` or `slower` when the 99.5 % interval leaves out 1, by the bootstrap and by Student's t alike (far out in
the tails ten values hold too little for a bootstrap alone), so that the same model twice is distinguished from itself
in less than one of a hundred comparisons; else `inconclusive`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Verdict = Literal["faster", "slower", "equivalent", "inconclusive"]

NUM_RESAMPLES = 10_000
MIN_BOOTSTRAP = 6
"""Rounds from which a bootstrap is trusted."""

MIN_VERDICT = 4
"""Rounds from which a verdict is given: fewer may agree by chance, and then their spread says nothing."""

MARGIN = 0.05
"""What counts as the same speed: between 1 / 1.05 and 1.05."""

EQUIVALENCE_CONFIDENCE = 0.90
DIFFERENCE_CONFIDENCE = 0.995
_SEED = 20261


@lru_cache(maxsize=4096)
def median_interval(rounds: tuple[float, ...], confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the median over rounds; a point when there is one round."""
    if len(rounds) < MIN_BOOTSTRAP:
        half = _student_half(rounds, confidence)
        middle = statistics.median(rounds)
        return middle - half, middle + half
    import numpy as np

    drawn = np.median(_resampled(rounds), axis=1)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], method="nearest")
    return float(low), float(high)


@lru_cache(maxsize=4096)
def mean_interval(values: tuple[float, ...], confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the mean of values, one per round; a point when there is one."""
    middle = statistics.fmean(values)
    if len(values) < MIN_BOOTSTRAP:
        half = _student_half(values, confidence)
        return middle - half, middle + half
    import numpy as np

    count = len(values)
    stretched = math.sqrt(count / (count - 1)) * student_quantile(count - 1, (1 + confidence) / 2)
    tail = statistics.NormalDist().cdf(-stretched)
    low, high = np.quantile(_resampled(values).mean(axis=1), [tail, 1 - tail])
    return float(low), float(high)


def verdict(log_ratios: Sequence[float], margin: float = MARGIN) -> Verdict:
    """What rounds of log(other / base) of a time say of the other.

    Args:
        log_ratios: one per round.
        margin: what counts as the same, as a share of the base.
    """
    if len(log_ratios) < MIN_VERDICT:
        return "inconclusive"
    values = tuple(log_ratios)
    low, high = mean_interval(values, EQUIVALENCE_CONFIDENCE)
    if -math.log1p(margin) <= low and high <= math.log1p(margin):
        return "equivalent"
    low, high = mean_interval(values, DIFFERENCE_CONFIDENCE)
    middle, half = statistics.fmean(values), _student_half(values, DIFFERENCE_CONFIDENCE)
    if min(low, middle - half) > 0:
        return "slower"
    return "faster" if max(high, middle + half) < 0 else "inconclusive"


def _resampled(values: Sequence[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """`NUM_RESAMPLES` draws with replacement, one a row; the same ones each time."""
    import numpy as np

    at = np.random.default_rng(_SEED).integers(0, len(values), size=(NUM_RESAMPLES, len(values)))
    return np.asarray(values, np.float64)[at]


def _student_half(values: Sequence[float], confidence: float) -> float:
    """Half of Student's interval of the mean; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    quantile = student_quantile(len(values) - 1, (1 + confidence) / 2)
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def wilson_interval(num_right: int, num: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share (Wilson, JASA 22, 1927): right in the middle and near 0 and 1 alike; `num` above 0."""
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    share, extra = num_right / num, z * z / num
    middle = (share + extra / 2) / (1 + extra)
    half = z * math.sqrt(share * (1 - share) / num + extra / num / 4) / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)


def fisher_interval(
    value: float, num: int, confidence: float = 0.95, *, is_of_ranks: bool = False
) -> tuple[float, float] | None:
    """The interval of a correlation over `num` pairs by Fisher's z, of ranks with Bonett and Wright's error
    (Psychometrika 65, 2000); None below four pairs.
    """
    if num < 4:
        return None
    if abs(value) >= 1:
        return value, value
    error = math.sqrt((1 + value * value / 2 if is_of_ranks else 1.0) / (num - 3))
    half = statistics.NormalDist().inv_cdf((1 + confidence) / 2) * error
    return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)


def binomial_tail(num: int, at_least: int, p: float) -> float:
    """P[binomial(num, p) >= at_least]."""
    if at_least <= 0:
        return 1.0
    if at_least > num or p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    odds = math.log(p) - math.log1p(-p)
    log_term = math.lgamma(num + 1) - math.lgamma(at_least + 1) - math.lgamma(num - at_least + 1)
    log_term += at_least * math.log(p) + (num - at_least) * math.log1p(-p)
    total, k = 0.0, at_least
    while k <= num:
        term = math.exp(log_term)
        total += term
        if k > num * p and term < 1e-17 * total:
            break
        if k < num:
            log_term += math.log(num - k) - math.log(k + 1) + odds
        k += 1
    return min(1.0, total)


def sign_test(lost: int, won: int) -> float:
    """How probable so uneven a pair of counts is, in either direction, where both are as likely: McNemar's, exact."""
    return min(1.0, 2 * binomial_tail(lost + won, max(lost, won), 0.5)) if lost + won else 1.0


@lru_cache(maxsize=256)
def student_quantile(freedom: int, p: float) -> float:
    """The quantile of Student's t for p above 0.5, to nine digits: its distribution function, inverted by halving."""
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < p:
        low, high = high, 2 * high
    while high - low > 1e-9 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, freedom) < p else (low, middle)
    return (low + high) / 2


def _student_cdf(t: float, freedom: int) -> float:
    """Closed form for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    if freedom % 2:
        term, total = cosine, 0.0
        for k in range(1, freedom - 1, 2):
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        share = 2 / math.pi * (angle + sine * total)
    else:
        term, total = 1.0, 0.0
        for k in range(0, freedom - 1, 2):
            total += term
            term *= cosine * cosine * (k + 1) / (k + 2)
        share = sine * total
    return 0.5 + share / 2
