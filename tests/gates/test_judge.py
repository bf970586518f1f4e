"""The verdicts: exact where figures are, honest where they are uncertain, and never better for a worse model."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from bertshrink.gates.baseline.growth import growth
from bertshrink.gates.figures.figure import Reading
from bertshrink.gates.judge import Verdict, judge, judge_ratio
from bertshrink.gates.limits.limit import Rule, read_limit
from bertshrink.gates.limits.metric_key import read_key
from bertshrink.gates.paired_test import ALPHA, binomial_tail, p_value
from bertshrink.report.correctness_bits import Outcomes
from bertshrink.report.measurement import Interval
from tests.support.gate_fixtures import bits, floats

BITS = st.lists(st.booleans(), min_size=1, max_size=60)

KEY = read_key("size_growth")
"""What a finding is called, where no matter."""


def rule(key, limit, severity="fail"):
    found = read_key(key)
    return Rule(found, read_limit(limit, found), severity, "pyproject.toml:1:1")


def answers(right):
    outcomes = Outcomes.of(right)
    return Reading(value=outcomes.num_right / outcomes.num, unit="fraction", questions="q", outcomes=outcomes)


# Outcomes


@given(BITS)
def test_outcomes_keep_every_answer(right):
    kept = Outcomes.of(right)
    assert bits(kept.bits)[: kept.num].tolist() == right
    assert (kept.num, kept.num_right) == (len(right), sum(right))
    assert Outcomes.model_validate(kept.model_dump()) == kept


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_lost_and_won_equal_a_loop(pairs):
    first, second = (Outcomes.of(side) for side in zip(*pairs, strict=True))
    expected = (sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs))
    assert first.lost_and_won(second) == expected


@pytest.mark.parametrize("entry", [{"num": 9, "bits": "/w=="}, {"num": 7, "bits": "/w=="}, {"num": 8, "bits": "?"}])
def test_outcomes_that_are_not_whole_are_refused(entry):
    with pytest.raises(ValueError, match="outcomes"):
        Outcomes.model_validate(entry)


# The paired test


@given(st.integers(0, 400), st.integers(0, 400), floats(0, 1))
def test_the_tail_is_the_binomial_tail(num, at_least, p):
    assert binomial_tail(num, at_least, p) == pytest.approx(binom.sf(at_least - 1, num, p), rel=1e-8, abs=1e-14)


@given(st.integers(0, 60), st.integers(0, 60))
def test_without_an_allowance_it_is_mcnemars_exact_test(lost, won):
    if lost + won:
        expected = binomtest(lost, lost + won, 0.5, alternative="greater").pvalue
        assert p_value(872, lost, won, 0) == pytest.approx(expected)
    else:
        assert p_value(872, 0, 0, 0) == 1


@given(st.integers(0, 80), st.integers(0, 80), st.sampled_from([0.0, 0.002, 0.005, 0.02, 0.1]))
def test_more_losses_prove_more_and_more_wins_less(lost, won, limit):
    p = p_value(400, lost, won, limit)
    assert p_value(400, lost + 1, won, limit) <= p + 1e-12
    if p <= ALPHA and won:
        assert p_value(400, lost, won - 1, limit) <= ALPHA, "a won answer less is worse"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num", "limit", "won"), [(872, 0.0, 0.02), (872, 0.005, 0.0), (872, 0.005, 0.02), (200, 0.05, 0.05)]
)
def test_a_model_within_its_limit_is_seldom_called_worse(num, limit, won):
    """The fall is exactly what is allowed: the hardest case for the test to keep its word."""
    drawn = np.random.default_rng(0).multinomial(num, [limit + won, won, 1 - limit - 2 * won], size=400)
    alarms = np.mean([p_value(num, int(lost), int(more), limit) <= ALPHA for lost, more, _ in drawn])
    assert alarms <= ALPHA + 2 * math.sqrt(ALPHA / 400)


def test_three_and_thirty_of_872():
    right = np.ones(872, dtype=bool)
    before = answers(right)
    found = {}
    for num in (3, 4, 5, 30):
        worse = right.copy()
        worse[:num] = False
        now = answers(worse)
        found[num] = [judge(KEY, rule("accuracy_drop", f"<= {limit} pt"), now, before).verdict for limit in (0, 0.5)]
    assert found[3] == [Verdict.INCONCLUSIVE, Verdict.PASS]
    assert found[4] == [Verdict.INCONCLUSIVE, Verdict.PASS]
    assert found[5] == [Verdict.FAIL, Verdict.INCONCLUSIVE]
    assert found[30] == [Verdict.FAIL, Verdict.FAIL]


# Monotone


ORDER = {Verdict.PASS: 0, Verdict.INCONCLUSIVE: 1, Verdict.FAIL: 2}


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80),
    st.sampled_from(["<= 0 pt", "<= 0.5 pt", "<= 5 pt"]),
    st.data(),
)
def test_an_answer_lost_never_mends_a_verdict(pairs, limit, data):
    before, now = (list(side) for side in zip(*pairs, strict=True))
    at = data.draw(st.integers(0, len(now) - 1))
    worse = [*now[:at], False, *now[at + 1 :]]
    first, second = (
        judge(KEY, rule("accuracy_drop", limit), answers(side), answers(before)).verdict for side in (now, worse)
    )
    assert not (ORDER[first] > ORDER[second] and second is Verdict.PASS)
    assert ORDER[second] >= ORDER[first]


FIGURES = floats(1, 1e9)


@given(
    st.sampled_from(
        [
            ("size", "<= 25 MB"),
            ("size_growth", "<= 0.5%"),
            ("size_growth", "<= 100 kB"),
            ("memory", "<= 110 MB"),
            ("memory_growth", "<= 5%"),
            ("instructions_growth", "<= 1%"),
        ]
    ),
    FIGURES,
    FIGURES,
    floats(0, 1e8),
    floats(0, 0.2),
)
def test_a_larger_figure_never_mends_a_verdict(written, before, now, more, spread):
    asked = rule(*written)
    unit = asked.key.gauge.unit
    is_memory = asked.key.metric == "memory"

    def reading(value):
        width = spread * value if is_memory else 0
        bounds = {"low": value - width, "high": value + width} if is_memory else {}
        return Reading(value=value, unit=unit, engine="onnxruntime 1", **bounds)

    first, second = (judge(asked.key, asked, reading(value), reading(before)).verdict for value in (now, now + more))
    assert ORDER[second] >= ORDER[first]


@given(floats(0.5, 2), floats(0, 0.3), floats(0, 1), floats(1.01, 1.5))
def test_a_slower_artifact_never_mends_a_verdict(value, width, more, limit):
    asked = rule("cpu p50 ratio", f"<= {limit:.6f}")
    first, second = (
        judge_ratio(asked.key, asked, Interval(value=v, low=v - width, high=v + width)).verdict
        for v in (value, value + more)
    )
    assert ORDER[second] >= ORDER[first]


@given(FIGURES, st.sampled_from(["<= 0 B", "<= 0%"]))
def test_what_did_not_change_is_never_an_alarm(value, limit):
    reading = Reading(value=value, unit="B")
    assert judge(KEY, rule("size_growth", limit), reading, reading).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict"),
    [
        (0.9, 1.0, 1.05, "pass"),
        (0.9, 1.0, 1.2, "inconclusive"),
        (1.05, 1.2, 1.4, "inconclusive"),
        (1.11, 1.2, 1.3, "fail"),
        (1.10, 1.2, 1.3, "inconclusive"),
    ],
)
def test_a_ratio_needs_its_whole_interval(low, value, high, verdict):
    assert (
        judge_ratio(KEY, rule("cpu p50 ratio", "<= 1.10"), Interval(value=value, low=low, high=high)).verdict == verdict
    )


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict"),
    [
        (108, 109, 112, "pass"),
        (110.5, 111, 112, "inconclusive"),
        (111, 115, 119, "inconclusive"),
        (114, 115, 116, "fail"),
    ],
)
def test_memory_past_its_limit_fails_by_more_than_its_tolerance(low, value, high, verdict):
    reading = Reading(value=value * 1e6, unit="B", low=low * 1e6, high=high * 1e6, engine="onnxruntime 1")
    assert judge(KEY, rule("memory", "<= 110 MB"), reading, None).verdict == verdict


# What cannot be judged


def test_what_cannot_be_judged_is_no_pass():
    asked, now = rule("size_growth", "<= 1%"), Reading(value=100, unit="B")
    cases = {
        "no baseline": judge(asked.key, asked, now, None),
        "zero": judge(asked.key, asked, now, Reading(value=0, unit="B")),
        "its unit": judge(asked.key, asked, now, Reading(value=100, unit="kB")),
        "our unit": judge(asked.key, asked, Reading(value=100, unit="count"), now),
        "engine": judge(asked.key, asked, now, Reading(value=100, unit="B", engine="zlib 1.2")),
    }
    assert {name: (found.verdict, found.cause) for name, found in cases.items()} == {
        "no baseline": (Verdict.FAIL, "baseline"),
        "zero": (Verdict.FAIL, "baseline"),
        "its unit": (Verdict.FAIL, "baseline"),
        "our unit": (Verdict.FAIL, "measurement"),
        "engine": (Verdict.FAIL, "baseline"),
    }
    assert all(found.hint for found in cases.values())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reading_that_is_no_number_cannot_be_made(value):
    with pytest.raises(ValueError, match="not finite"):
        Reading(value=value, unit="B")


def test_a_figure_that_contradicts_its_outcomes_cannot_be_made():
    with pytest.raises(ValueError, match="differs from the share"):
        Reading(value=0.9, unit="fraction", outcomes=Outcomes.of([True, False]))


def test_a_warning_does_not_fail():
    asked = rule("size", "<= 1 MB", "warn")
    found = judge(asked.key, asked, Reading(value=2e6, unit="B"), None)
    assert (found.verdict, found.is_failure) == (Verdict.FAIL, False)
    assert judge(KEY, replace(asked, severity="fail"), Reading(value=2e6, unit="B"), None).is_failure


# What grew


def test_what_grew_is_told_largest_first_and_at_most_ten():
    before = {f"encoder.layer.0.w{i}": "INT8 8x8 64" for i in range(30)}
    now = {name: f"FLOAT 8x8 {256 + i}" for i, name in enumerate(before)}
    found = growth(before, now, {"MatMul": 1}, {"MatMul": 3, "Add": 1})
    tensors = [one for one in found if one.kind == "tensor"]
    assert [one.delta for one in tensors] == sorted((one.delta for one in tensors), reverse=True)
    assert len(tensors) == 10
    assert [(one.name, one.text) for one in found if one.kind == "layer"] == [("encoder.layer.0", "grown")]
    assert [(one.name, one.delta) for one in found if one.kind == "operation"] == [("MatMul", 2), ("Add", 1)]


@pytest.mark.slow
@given(st.dictionaries(st.text(max_size=4), st.integers(0, 9), max_size=8), st.permutations(range(8)))
def test_names_alone_are_no_growth(sizes, order):
    before = {name: f"INT8 {size} {size}" for name, size in sizes.items()}
    now = {f"other.{order[i]}": what for i, what in enumerate(before.values())}
    assert growth(before, now, {}, {}) == []


@given(st.dictionaries(st.text("abc.", max_size=4), st.integers(1, 9), max_size=8), st.integers(1, 1000))
def test_one_tensor_more_is_the_one_that_is_told(sizes, num_bytes):
    before = {name: f"INT8 {size} {size}" for name, size in sizes.items()}
    found = growth(before, before | {"new": f"FLOAT {num_bytes} {10 * num_bytes}"}, {}, {})
    assert [(one.name, one.delta) for one in found] == [("new", 10 * num_bytes)]
