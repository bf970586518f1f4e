"""Has a model lost more answers than allowed, or was it chance? An exact paired test.

Of N questions both models answered, b were lost (right before, wrong now) and c won. Let d be the share of questions on
which two such models differ, and theta the share of losses among those. The accuracy falls by d (2 theta - 1), so that

    the fall is at most the limit L   <=>   theta <= (1 + L / d) / 2

Given that they differ on m = b + c questions, b is binomial(m, theta). For L = 0 the bound is 1/2 whatever d is, and
the test is McNemar's in its exact form, the sign test. For L > 0 the bound depends on d, which is not known: it is
taken at the lower end of an exact confidence interval (Clopper and Pearson, Biometrika 26, 1934) with error `NUISANCE`,
which is added to the p-value (Berger and Boos, JASA 89, 1994):

    p = P[ binomial(m, (1 + L / d_low) / 2) >= b ] + NUISANCE

So a model that is within the limit is called worse in at most `ALPHA` of all cases, for every N, without a normal
approximation. What it costs: the more is allowed, the more is wanted before a loss counts as proven.
"""

from bertshrink.report.statistics import binomial_tail

ALPHA = 0.05
"""How often a model that holds the limit may be called worse. Smaller: fewer false alarms, larger losses unproven."""

NUISANCE = 0.005
"""The part of `ALPHA` that is spent on not knowing how often two models differ: a tenth of it."""


def p_value(num: int, lost: int, won: int, limit: float) -> float:
    """How probable so many losses are, at most, where accuracy falls by no more than the limit.

    Args:
        num: questions that both models answered.
        lost: right before, wrong now.
        won: wrong before, right now.
        limit: the fall that is allowed, as a fraction of all questions; 0 or more.
    """
    differing = lost + won
    if limit <= 0:
        return binomial_tail(differing, lost, 0.5)
    lowest = _lower_bound(num, differing)
    share = (1 + limit / lowest) / 2 if lowest > 0 else 1.0
    return min(1.0, binomial_tail(differing, lost, min(share, 1.0)) + NUISANCE)


def _lower_bound(num: int, num_hits: int) -> float:
    """Clopper and Pearson's lower end: at this share, `num_hits` or more of `num` have the probability `NUISANCE`."""
    if num_hits == 0:
        return 0.0
    low, high = 0.0, num_hits / num
    for _ in range(60):
        middle = (low + high) / 2
        if binomial_tail(num, num_hits, middle) > NUISANCE:
            high = middle
        else:
            low = middle
    return low
