"""Measurements: medians, intervals, ratios, percentiles."""

import math
import statistics

import pytest
from scipy import stats

from bertshrink.errors import MeasurementError
from bertshrink.report.measurement import PERCENTILE_NEEDS, Conditions, Measurement, compare


def measured(*rounds, metric="latency", unit="s", environment="m", **conditions):
    samples = tuple(tuple(r) if isinstance(r, list | tuple) else (r,) for r in rounds)
    return Measurement(
        metric=metric, unit=unit, samples=samples, environment=environment, conditions=Conditions(**conditions)
    )


def test_the_value_is_the_median_of_the_rounds_medians():
    m = measured([1, 2, 100], [3], [5, 7])
    assert m.rounds == [2, 3, 6]
    assert m.value == 3
    assert m.all == [1, 2, 100, 3, 5, 7]
    assert not m.is_exact
    assert Measurement.single("size", "B", 3).is_exact


def test_one_round_has_no_spread():
    found = measured([1.0, 2.0, 3.0]).interval()
    assert (found.value, found.low, found.high) == (2, 2, 2)


def test_the_ratio_is_taken_round_by_round():
    base, other = measured(1, 2, 4), measured(2, 4, 8)
    found = compare(base, other)
    assert (found.value, found.low, found.high) == pytest.approx((2, 2, 2)), "a drift that both share cancels"
    found = compare(measured(1, 1, 1), measured(2, 4, 8))
    logs = [math.log(v) for v in (2, 4, 8)]
    half = stats.t.ppf(0.975, 2) * statistics.stdev(logs) / math.sqrt(3)
    assert found.value == pytest.approx(4)
    assert math.log(found.high) == pytest.approx(math.log(4) + half, rel=1e-3)
    back = compare(measured(2, 4, 8), measured(1, 1, 1))
    assert (back.low, back.high) == pytest.approx((1 / found.high, 1 / found.low)), "the interval is the same reversed"


@pytest.mark.parametrize(
    "other",
    [
        measured(1, metric="memory"),
        measured(1, unit="B"),
        measured(1, environment="another machine"),
        measured(1, batch=8),
        measured(1, threads=2),
        measured(1, phase="load"),
        measured(1, target="arm64"),
        measured(1, dataset="another"),
        measured(1, num_examples=3),
        measured(0),
        measured(-1.0),
        measured(),
    ],
)
def test_there_is_no_ratio_of_unlike_things(other):
    base = measured(1)
    assert compare(base, base) is not None
    assert compare(base, other) is None
    assert compare(other, base) is None


def test_engines_and_precisions_may_be_compared():
    assert compare(measured(1, engine="torch"), measured(2, engine="onnxruntime", precision="int8")).value == 2


@pytest.mark.parametrize(("p", "needs"), [*PERCENTILE_NEEDS.items(), (75, 17)])
def test_a_percentile_needs_enough_samples(p, needs):
    values = list(range(1, needs + 1))
    assert measured(values[:-1]).percentile(p) is None
    assert measured(values).percentile(p) == math.ceil(round(p / 100 * needs, 9))


@pytest.mark.parametrize("p", [0, 100, -5])
def test_the_ends_are_no_percentiles(p):
    assert measured(list(range(10_000))).percentile(p) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_measurement(bad):
    with pytest.raises(MeasurementError, match="`spearman` gave a value that is not finite"):
        Measurement.single("spearman", "", bad)
    with pytest.raises(MeasurementError):
        measured([1.0, bad])


def test_conditions_in_a_few_words():
    assert Conditions(engine="torch", batch=8, length=128, phase="steady").label() == "torch 8x128 steady"
    assert Conditions().label() == ""
