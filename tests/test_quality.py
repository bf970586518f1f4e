"""The quality meter against slow plain versions and cases known by hand."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from bertshrink.errors import CheckFailed
from bertshrink.meters.quality import Exam, neighbour_recall, pair_spearman, pseudo_perplexity
from bertshrink.model.texts import Split, Texts
from tests.tiny import sentences, tiny_encoder


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return [[float(a @ b) for b in unit] for a in unit]


def test_pair_spearman_equals_a_loop_over_pairs(vectors):
    other = vectors + np.random.default_rng(1).normal(size=vectors.shape)
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    mine, theirs = cosines(other), cosines(vectors)
    expected = spearmanr([mine[i][j] for i, j in pairs], [theirs[i][j] for i, j in pairs]).statistic
    assert pair_spearman(other, vectors) == pytest.approx(float(expected), abs=1e-4)
    assert pair_spearman(vectors, vectors) == pytest.approx(1)


def test_neighbour_recall_equals_a_loop(vectors):
    other = vectors + np.random.default_rng(1).normal(size=vectors.shape)

    def nearest(table, i):
        return set(sorted((j for j in range(12) if j != i), key=lambda j: -table[i][j])[:3])

    mine, theirs = cosines(other), cosines(vectors)
    expected = sum(len(nearest(mine, i) & nearest(theirs, i)) for i in range(12)) / 36
    assert neighbour_recall(other, vectors, 3) == pytest.approx(expected)
    assert neighbour_recall(vectors, vectors, 10) == 1


def test_likeness_ignores_rotation_and_scale(vectors):
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))
    assert pair_spearman(2 * vectors @ turn, vectors) == pytest.approx(1, abs=1e-3)
    assert neighbour_recall(2 * vectors @ turn, vectors, 3) == 1


def test_pseudo_perplexity_by_hand():
    logits = np.log(np.array([[0.5, 0.5], [0.25, 0.75]]))
    assert pseudo_perplexity(logits, np.array([0, 0])) == pytest.approx(math.sqrt(1 / (0.5 * 0.25)))
    assert pseudo_perplexity(np.zeros((3, 7)), np.array([0, 1, 2])) == pytest.approx(7)


def exam_of(task, labels=None):
    encoder = tiny_encoder("bert", task)
    split = Split(tuple(sentences(30)), labels=labels)
    return encoder, Exam.prepare(encoder, Texts("salad", split, split), None, 0)


def test_accuracy_counts_right_answers():
    encoder, exam = exam_of("classification", tuple(["positive", "Negative"] * 15))
    rows = encoder.tokenize(sentences(30))
    guesses = [int(out["logits"].argmax()) for out in encoder.predict(rows)]
    right = sum(guess == (1, 0)[i % 2] for i, guess in enumerate(guesses))
    found = {m.metric: m.value for m in exam.sit(encoder)}
    assert found["accuracy"] == pytest.approx(right / 30) and found["agreement"] == 1


@pytest.mark.parametrize(
    ("task", "metric"), [("embedding", "spearman"), ("mlm", "agreement"), ("classification", "agreement")]
)
def test_the_first_to_sit_is_the_scale(task, metric):
    encoder, exam = exam_of(task)
    assert {m.metric: m.value for m in exam.sit(encoder)}[metric] == pytest.approx(1)
    other = {m.metric: m.value for m in exam.sit(tiny_encoder("bert", task, seed=9))}
    assert other[metric] < 0.9


def test_masks_are_fixed_by_the_seed_and_spare_special_tokens():
    encoder, exam = exam_of("mlm")
    again = exam_of("mlm")[1]
    assert exam.rows == again.rows and exam.truth == again.truth
    special = {encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id, encoder.tokenizer.pad_token_id}
    for row, at, truth in zip(exam.rows, exam.positions, exam.truth, strict=True):
        assert at and all(row["input_ids"][i] == encoder.tokenizer.mask_token_id for i in at)
        assert not special & set(truth)


def test_outputs_that_are_not_finite_are_refused():
    import torch

    encoder, exam = exam_of("classification", tuple([0, 1] * 15))
    with torch.no_grad():
        encoder.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(CheckFailed, match="not finite"):
        exam.sit(encoder)
