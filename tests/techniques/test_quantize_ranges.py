"""Ranges of activations: a histogram that forgets order and portions, and cuts where a plain look finds them."""

import math
from itertools import pairwise

import numpy as np
import pytest

from bertshrink.techniques.quantize.numerics.ranges import (
    RANGES,
    Histogram,
    activation_scale,
    entropy_range,
    min_max_range,
    percentile_range,
)


def histogram(*portions, **settings):
    found = Histogram(**settings)
    for portion in portions:
        found.update(np.asarray(portion))
    return found


def normal(count=50_000, seed=0):
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


def gelu(values):
    return np.array([0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in values.tolist()], np.float32)


def squared_error(values, low, high):
    scale, zero = activation_scale(low, high)
    steps = np.clip(np.rint(values / scale) + zero, 0, 255)
    return float((((steps - zero) * scale - values) ** 2).mean())


# the histogram


def test_counts_equal_numpys():
    values = normal()
    found = histogram(values[:7], values[7:30_000].reshape(-1, 1), values[30_000:])
    assert np.array_equal(found.counts, np.histogram(values.astype(np.float64), bins=found.edges)[0])
    assert math.log2(found.width).is_integer() and found.edges[0] / found.width == found.first
    assert found.num_bins / 2 < len(found.counts) <= found.num_bins
    assert (found.num_values, found.low, found.high) == (values.size, values.min(), values.max())


def test_any_order_and_portions_give_the_same():
    values = np.concatenate([normal(3000), [1e-6, -4e4, 0, 250, 3.0, -1024.0]])
    whole = histogram(values)
    for seed in range(4):
        random = np.random.default_rng(seed)
        cuts = np.sort(random.integers(0, values.size, 20))
        parts = histogram(*np.split(random.permutation(values), cuts))  # some portions are empty
        assert np.array_equal(parts.counts, whole.counts)
        assert (parts.first, parts.width, parts.low, parts.high) == (whole.first, whole.width, whole.low, whole.high)


def test_types_and_sizes_of_values():
    for kind in (np.float16, np.float32, np.float64):
        found = histogram(np.array([2.0**-14, -6e4, 6e4], kind), np.array([1e-5], kind))
        assert found.counts.sum() == 4 and found.high == float(kind(6e4))
    assert histogram([1e30], [-1e-30], num_bins=16).counts.sum() == 2


def test_values_that_are_not_finite():
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="not finite"):
            histogram([0.0, value])


# the ranges


@pytest.mark.parametrize("method", RANGES)
def test_nothing_and_constants(method):
    assert RANGES[method](Histogram()) == (0, 0)
    assert RANGES[method](histogram(np.zeros(100))) == (0, 0)
    for constant in (3.7, -0.02):
        low, high = RANGES[method](histogram(np.full(100, constant)))
        assert (low, high) == pytest.approx((min(constant, 0), max(constant, 0)), rel=1e-3)


@pytest.mark.parametrize("method", RANGES)
def test_one_sided_values_keep_zero(method):
    values = np.abs(normal()) + 0.5
    low, high = RANGES[method](histogram(values))
    assert low == 0 and 3 < high <= values.max()
    mirrored = 1.0 if method == "entropy" else 2 * histogram(values).width  # its levels begin at the other end
    assert RANGES[method](histogram(-values)) == pytest.approx((-high, 0), abs=mirrored)


@pytest.mark.slow
def test_entropy_looks_at_no_range_without_values():
    for sign in (1, -1):
        for shift in np.linspace(0.4, 0.7, 12):  # candidates end before the first value; an empty one tells all it has
            low, high = entropy_range(histogram(sign * (np.abs(normal(500)) + shift)))
            assert high - low > shift + 1


@pytest.mark.parametrize("method", RANGES)
def test_uniform_values_are_hardly_clipped(method):
    values = np.random.default_rng(0).uniform(-1, 3, 50_000)
    low, high = RANGES[method](histogram(values))
    assert values.min() <= low < -0.98 and 2.98 < high <= values.max()


def test_min_max():
    assert min_max_range(histogram([1.0, 2.0], [-0.5])) == (-0.5, 2.0)


@pytest.mark.parametrize("percent", [50.0, 99.0, 99.9, 99.99, 100.0])
def test_percentile_against_numpy(percent):
    for values in (normal(), np.exp(normal()), gelu(normal()), np.concatenate([normal(), [50, 60, -70]])):
        found = histogram(values)
        low, high = percentile_range(found, percent)
        for end, cut in ((low, (100 - percent) / 2), (high, 100 - (100 - percent) / 2)):
            ends = [float(np.percentile(values, cut, method=method)) for method in ("lower", "higher")]
            before, after = (min(x, 0) for x in ends) if end is low else (max(x, 0) for x in ends)
            assert before - found.width <= end <= after + found.width


def test_percentile_clips_outliers_and_refuses_nonsense():
    values = np.concatenate([normal(200_000), [60.0, 61.0, -50.0]])
    low, high = percentile_range(histogram(values))
    assert -4.5 < low < -3.5 and 3.5 < high < 4.5
    for percent in (0, -1, 100.1):
        with pytest.raises(ValueError, match="percentile"):
            percentile_range(Histogram(), percent)


def slow_entropy(counts, first, reach):
    """The divergence at one threshold, bin by bin."""
    start, end = max(-first - reach, 0), min(-first + reach, len(counts))
    inside = [int(count) for count in counts[start:end]]
    was = list(inside)
    was[0] += sum(counts[:start])
    was[-1] += sum(counts[end:])
    begins = [level * len(inside) // 256 for level in range(257)]
    told = [1e-4] * len(inside)
    for begin, after in pairwise(begins):
        filled = [i for i in range(begin, after) if inside[i]]
        for i in filled:
            told[i] = sum(inside[begin:after]) / len(filled)
    pairs = [(p, q) for p, q in zip(was, told, strict=True) if p]
    all_p, all_q = (sum(pair[side] for pair in pairs) for side in (0, 1))
    return sum(p / all_p * math.log((p / all_p) / (q / all_q)) for p, q in pairs)


def test_oracle_of_entropy():
    values = np.concatenate([normal(5000), [9.0, 8.0, -3.0]])
    found = histogram(values, num_bins=1024)
    furthest = max(-found.first, found.first + len(found.counts))
    reaches = [r for r in range(furthest, 0, -8) if min(r, -found.first) + min(r, furthest) >= 256]
    best = min(reaches, key=lambda reach: slow_entropy(found.counts, found.first, reach))
    assert best not in (reaches[0], reaches[-1])
    assert entropy_range(found) == (max(-best * found.width, values.min()), min(best * found.width, values.max()))


def test_entropy_clips_outliers():
    bulk = normal()
    found = histogram(bulk, [60.0, 61.0, -50.0])
    low, high = entropy_range(found)
    assert -6 < low < -3 and 3 < high < 6
    assert squared_error(bulk, low, high) < squared_error(bulk, *min_max_range(found)) / 100


def test_entropy_spends_no_levels_where_there_is_nothing():
    values = gelu(normal() * 1.5)
    low, high = entropy_range(histogram(values))
    assert low == values.min() and 1 < high <= values.max()
    assert squared_error(values.clip(low, high), low, high) < squared_error(values.clip(low, high), -high, high) / 3


# the scale


def test_scale_by_hand():
    assert activation_scale(-1.0, 1.55) == (np.float32(0.01), 100)
    assert activation_scale(0.0, 255.0) == (1, 0)
    assert activation_scale(-255.0, 0.0) == (1, 255)
    assert activation_scale(2.0, 5.1) == (np.float32(5.1 / 255), 0)  # widened to hold 0
    assert activation_scale(0.0, 0.0) == activation_scale(-1e-44, 1e-44) == (1, 0)
    scale, zero = activation_scale(-0.5, 2.0)
    assert scale.dtype == np.float32 and zero.dtype == np.uint8
    for low, high in ((1.0, 0.0), (np.nan, 1.0), (0.0, np.inf)):
        with pytest.raises(ValueError, match="not a range"):
            activation_scale(low, high)
