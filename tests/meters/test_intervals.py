"""Intervals of figures over texts: against plain versions and scikit-learn, and by how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, pearsonr, spearmanr
from sklearn.metrics import f1_score

from bertshrink.data.texts import Split, TextDataset
from bertshrink.meters.quality import intervals
from bertshrink.meters.quality.evaluators import prepare
from bertshrink.meters.quality.intervals import Correlation, Groups, Share, Sums, ahead, groups_of, quotient
from bertshrink.report.statistics import fisher_interval, sign_test, wilson_interval
from tests.support.tiny import sentences, tiny_encoder


@pytest.mark.parametrize(("right", "num"), [(0, 5), (1, 7), (50, 100), (872, 872), (795, 872)])
def test_wilsons_interval_is_scipys(right, num):
    found = binomtest(right, num).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, num) == pytest.approx((found.low, found.high))
    assert Share(right, num).interval() == wilson_interval(right, num)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (3, 0), (5, 7), (40, 12), (300, 301)])
def test_the_sign_test_is_scipys(lost, won):
    expected = binomtest(lost, lost + won, 0.5).pvalue if lost + won else 1.0
    assert sign_test(lost, won) == sign_test(won, lost) == pytest.approx(expected)


def test_fishers_interval_is_scipys_and_wider_for_ranks():
    dice = np.random.default_rng(0)
    a = dice.normal(size=80)
    b = a + dice.normal(size=80)
    found = pearsonr(a, b)
    expected = found.confidence_interval(0.95)
    assert fisher_interval(found.statistic, 80) == pytest.approx((expected.low, expected.high))
    low, high = fisher_interval(found.statistic, 80, is_of_ranks=True)
    assert low < expected.low < expected.high < high
    assert fisher_interval(0.5, 3) is None and fisher_interval(1.0, 9) == (1.0, 1.0)


def test_a_mean_over_texts_has_the_bootstraps_interval():
    values = np.random.default_rng(1).random(60)
    low, high = quotient(values).interval()
    found = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2))
    expected = found.confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_macro_f1_on_a_resample_is_scikit_learns(monkeypatch):
    dice = np.random.default_rng(3)
    right, mine = dice.integers(0, 4, 50), dice.integers(0, 5, 50)
    classes = np.union1d(right, mine)
    one, other = (side[:, None] == classes for side in (mine, right))
    drawn = Sums(2.0 * (one & other), one.astype(float) + other).drawn()
    (draws,) = intervals._draws(50)
    for at in (0, 1, 999):
        rows = draws[at]
        assert drawn[at] == pytest.approx(f1_score(right[rows], mine[rows], average="macro"))
    monkeypatch.setattr(intervals, "_MOST_DRAWN", 700)
    parts = Sums(2.0 * (one & other), one.astype(float) + other).drawn()
    assert len(parts) == intervals.NUM_RESAMPLES, "in parts that fit into memory"


def test_a_correlation_on_a_resample_is_scipys():
    dice = np.random.default_rng(4)
    a = dice.normal(size=30)
    b = np.round(a + dice.normal(size=30))
    (draws,) = intervals._draws(30)
    ranks = Correlation(a, b, 0.5, is_of_ranks=True).drawn()
    plain = Correlation(a, b, 0.5, is_of_ranks=False).drawn()
    for at in (0, 500):
        rows = draws[at]
        assert ranks[at] == pytest.approx(spearmanr(a[rows], b[rows]).statistic)
        assert plain[at] == pytest.approx(pearsonr(a[rows], b[rows]).statistic)


def test_a_perplexity_and_what_has_no_spread():
    low, high = quotient([-2.0] * 9, [2] * 9, is_loss=True).interval()
    assert (low, high) == pytest.approx((np.e, np.e))
    assert quotient([0.5]).interval() is None
    assert Correlation(np.ones(3), np.ones(3), 1.0, is_of_ranks=True).drawn() is None
    assert Groups(0.9, ()).interval() is None and groups_of(49) == []
    assert sorted(i for part in groups_of(53) for i in range(53)[part]) == list(range(53))


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Tags that hang together within a text: an interval over tags would hold it in two of three cases only."""
    dice = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        shares = dice.beta(4, 2, 60)
        num = dice.integers(1, 30, 60)
        low, high = quotient(dice.binomial(num, shares), num).interval()
        held += low <= 4 / 6 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_the_distance_to_the_reference_is_drawn_over_the_same_texts():
    dice = np.random.default_rng(6)
    hard = dice.random(300)
    reference, better = quotient(hard), quotient(np.minimum(1, hard + 0.02 + dice.normal(0, 0.02, 300)))
    low, high = ahead(better, reference)
    assert 0 < low < 0.03 > high, "their own intervals overlap by far"
    assert ahead(reference, reference) == (0.0, 0.0)
    assert ahead(Share(1, 2), reference) is None


@pytest.mark.parametrize("task", ["classification", "multi-label", "regression", "token-classification", "mlm"])
def test_every_figure_of_a_model_has_its_interval(task):
    """Each holds its value; the reference itself is never ahead of itself."""
    model = tiny_encoder(task=task)
    texts = tuple(sentences(40, seed=2))
    labels = {
        "classification": ["positive", "negative", "negative", "negative"] * 10,
        "multi-label": [(model.labels[0],), ()] * 20 if model.labels else None,
        "regression": [float(i % 7) for i in range(40)],
        "token-classification": None,
        "mlm": None,
    }[task]
    if task == "token-classification":
        words = tuple(tuple(text.split()) for text in texts)
        split = Split(texts=texts, words=words, labels=tuple(tuple("O" for _ in row) for row in words))
    else:
        split = Split(texts=texts, labels=tuple(labels) if labels is not None else None)
    exam = prepare(model, TextDataset("made", split, split), None, 0)
    first, again = exam.sit(model), exam.sit(model)
    for m in first:
        low, high = m.sampling
        assert low - 1e-9 <= m.value <= high + 1e-9, m.metric
        assert m.ahead is None
    for m in again:
        assert m.ahead in (None, (0.0, 0.0)), "the same model again is not ahead"
    accuracy = next((m for m in first if m.metric == "accuracy"), None)
    assert accuracy is None or accuracy.chance == 0.75
