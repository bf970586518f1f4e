"""Intervals over rounds cover what they say, and verdicts are seldom wrong."""

import math
import random
import statistics

import numpy as np
import pytest
from scipy import stats

from bertshrink.report import statistics as own
from bertshrink.report.statistics import MIN_BOOTSTRAP, mean_interval, median_interval, student_quantile, verdict


@pytest.mark.parametrize("p", [0.9, 0.95, 0.975, 0.995])
@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 19, 30, 99])
def test_students_quantiles(freedom, p):
    assert student_quantile(freedom, p) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-7)


@pytest.mark.parametrize("num", range(2, MIN_BOOTSTRAP))
def test_few_rounds_have_students_interval(num):
    values = tuple(random.Random(num).gauss(10, 1) for _ in range(num))
    half = stats.t.ppf(0.975, num - 1) * statistics.stdev(values) / math.sqrt(num)
    assert mean_interval(values) == pytest.approx((statistics.fmean(values) - half, statistics.fmean(values) + half))
    middle = statistics.median(values)
    assert median_interval(values) == pytest.approx((middle - half, middle + half))


def test_one_round_is_a_point():
    assert mean_interval((2.0,)) == median_interval((2.0,)) == (2, 2)


@pytest.mark.slow
@pytest.mark.parametrize("num", [6, 10, 20])
@pytest.mark.parametrize("interval", [mean_interval, median_interval])
def test_a_95_percent_interval_covers_about_95_percent(interval, num, monkeypatch):
    monkeypatch.setattr(own, "NUM_RESAMPLES", 1000)
    dice = np.random.default_rng(num)
    hits = 0
    for _ in range(600):
        low, high = interval.__wrapped__(tuple(dice.normal(0, 1, num).tolist()))
        hits += low <= 0 <= high
    assert 0.925 <= hits / 600 <= 0.99


def test_one_slow_round_does_not_stretch_the_interval_of_the_median():
    calm = (10.0, 10.1, 9.9, 10.2, 9.8, 10.0, 10.1, 9.9)
    low, high = median_interval((*calm, 100.0))
    assert 9.8 <= low <= high <= 10.2


def test_an_interval_is_the_same_each_time_and_turned_round():
    values = tuple(random.Random(1).gauss(0.1, 0.05) for _ in range(8))
    assert mean_interval.__wrapped__(values) == mean_interval.__wrapped__(values)
    low, high = mean_interval(values)
    assert mean_interval(tuple(-v for v in values)) == pytest.approx((-high, -low))


@pytest.mark.parametrize(
    ("shift", "spread", "expected"),
    [
        (0.0, 0.005, "equivalent"),
        (0.02, 0.005, "equivalent"),  # slower for certain, and by less than matters
        (0.10, 0.02, "slower"),
        (-0.10, 0.02, "faster"),
        (0.0, 0.3, "inconclusive"),
    ],
)
def test_verdicts(shift, spread, expected):
    dice = random.Random(5)
    assert verdict([shift + dice.gauss(0, spread) for _ in range(10)]) == expected


def test_a_margin_is_the_users():
    values = [math.log(1.08) + e for e in (0.001, -0.001, 0.002, -0.002, 0, 0.001)]
    assert verdict(values) == "slower"
    assert verdict(values, margin=0.1) == "equivalent"


def test_three_rounds_say_nothing():
    assert verdict([0.5]) == verdict([]) == verdict([0.5, 0.5, 0.5]) == "inconclusive"


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.01, 0.03, 0.07])
def test_the_same_twice_is_seldom_told_apart_and_ten_percent_are_seen(spread, monkeypatch):
    monkeypatch.setattr(own, "NUM_RESAMPLES", 1000)
    monkeypatch.setattr(own, "mean_interval", own.mean_interval.__wrapped__)
    dice = np.random.default_rng(3)
    same = [verdict(dice.normal(0, spread, 10).tolist()) for _ in range(300)]
    assert sum(v in ("faster", "slower") for v in same) <= 3
    slower = [verdict(dice.normal(math.log(1.1), spread, 10).tolist()) for _ in range(300)]
    assert sum(v == "slower" for v in slower) >= (285 if spread <= 0.03 else 100)
    assert not any(v in ("faster", "equivalent") for v in slower)
