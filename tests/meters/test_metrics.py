"""What answers are worth: against seqeval and scikit-learn, slow plain versions, and figures worked out by hand."""

import warnings

import numpy as np
import pytest

from bertshrink.meters.quality.metrics import (
    answer_scores,
    entities,
    entity_scores,
    label_f1,
    plain,
    rank_correlation,
    word_f1,
)

# Entities


def tag_rows(schemes, seed):
    """Two taggings of the same texts, half of which they agree on."""
    generator = np.random.default_rng(seed)
    tags = ["O", *(f"{part}-{name}" for part in schemes for name in ("PER", "LOC"))]

    def row(length):
        return [tags[i] for i in generator.integers(0, len(tags), length)]

    truth = [row(length) for length in generator.integers(1, 12, 8)]
    return truth[:4] + [row(len(right)) for right in truth[4:]], truth


@pytest.mark.parametrize("schemes", ["B", "BI", "IES", "BIES"])
def test_entities_count_as_seqeval_counts_them(schemes):
    from seqeval.metrics import f1_score, precision_score, recall_score

    for seed in range(20):
        tags, truth = tag_rows(schemes, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # seqeval warns where nothing was found
            expected = [score(truth, tags) for score in (precision_score, recall_score, f1_score)]
        assert entity_scores(tags, truth) == pytest.approx(expected)


def test_entities_by_hand():
    assert entities(["B-PER", "I-PER", "O", "B-LOC", "B-LOC"]) == {("PER", 0, 1), ("LOC", 3, 3), ("LOC", 4, 4)}
    assert entities(["I-PER", "I-LOC", "I-LOC", "O", "I-LOC"]) == {("PER", 0, 0), ("LOC", 1, 2), ("LOC", 4, 4)}
    assert entities(["B-a-b", "I-a-b"]) == {("a-b", 0, 1)}, "types may hold the sign"
    assert entities([]) == entities(["O"]) == set()
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"]]
    found = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "B-ORG"]]
    # One of three found, one of three to be found.
    assert entity_scores(found, truth) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert entity_scores([["B-PER", "O"]], [["B-PER", "I-PER"]]) == (0, 0, 0), "half an entity is none"
    assert entity_scores([["B-PER", "O", "B-LOC"]], [["B-PER", "O", "O"]]) == pytest.approx((1 / 2, 1, 2 / 3))
    assert entity_scores([["O"]], [["O"]]) == (0, 0, 0)


def test_schemes_other_than_iob2():
    expected = {("PER", 0, 2), ("LOC", 3, 3)}
    assert entities(["B-PER", "I-PER", "E-PER", "S-LOC"]) == expected
    assert entities(["B-PER", "I-PER", "L-PER", "U-LOC"]) == expected
    assert entities(["I-PER", "I-PER", "I-PER", "I-LOC"]) == expected


def test_tags_of_no_entities_count_word_by_word():
    assert entities(["NUM", "SYM", "SYM", "O", "X", "ADV-M"]) == {
        ("NUM", 0, 0),
        ("SYM", 1, 1),
        ("SYM", 2, 2),
        ("X", 4, 4),
        ("ADV-M", 5, 5),
    }
    precision, recall, f1 = entity_scores([["NUM", "SYM", "X", "X"]], [["NUM", "NUM", "X", "VERB"]])
    assert (precision, recall, f1) == (0.5, 0.5, 0.5), "the share of right words, where every word has a tag"


# Answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cat", "cat"),
        ("a  cat,\tan owl\nand the theme.", "cat owl and theme"),
        ("U.S.A.", "usa"),
        ("the", ""),
        ("A-Team", "ateam"),
        ("an-other a.b", "another ab"),
        ("«Å» — 1,000", "«å» — 1000"),
    ],
)
def test_plain_texts(text, expected):
    assert plain(text) == expected
    assert plain(plain(text)) == expected


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        ("Denver Broncos", ["Denver Broncos"], 1, 1),
        ("the Broncos!", ["Denver Broncos", "Broncos"], 1, 1),
        ("Denver", ["Denver Broncos"], 0, 2 / 3),
        ("big big dog", ["the big dog dog"], 0, 2 * 2 / 6),
        ("cat", ["dog"], 0, 0),
        ("", ["dog"], 0, 0),
        ("", [], 1, 1),
        ("the", [], 1, 1),
        ("dog", [], 0, 0),
        ("dog", ["a", "dog"], 1, 1),
        ("", ["a", "dog"], 0, 0),  # an answer of nothing but an article is none beside others
        ("", ["a"], 1, 1),
    ],
)
def test_one_answer_by_hand(answer, right, exact, f1):
    matches, found = answer_scores([answer], [tuple((text, 0) for text in right)])
    assert (matches, found) == ([bool(exact)], [pytest.approx(f1)])


def slow_f1(answer, right):
    """Precision and recall over words, one word struck out after the other."""
    mine, theirs = plain(answer).split(), plain(right).split()
    if not mine or not theirs:
        return float(mine == theirs)
    left, shared = list(theirs), 0
    for word in mine:
        if word in left:
            left.remove(word)
            shared += 1
    precision, recall = shared / len(mine), shared / len(theirs)
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def test_answers_equal_a_slow_plain_version():
    generator = np.random.default_rng(0)
    words = ["the", "a", "Cat", "cat", "dog,", "dog", "owl", ""]

    def text():
        return " ".join(words[i] for i in generator.integers(0, len(words), generator.integers(0, 5)))

    answers = [text() for _ in range(300)]
    truth = [tuple((text(), 0) for _ in range(generator.integers(0, 4))) for _ in answers]
    best = []
    for answer, right in zip(answers, truth, strict=True):
        assert all(word_f1(answer, one) == pytest.approx(slow_f1(answer, one)) for one, _ in right)
        kept = [one for one, _ in right if plain(one)] or [""]
        best.append((max(plain(answer) == plain(one) for one in kept), max(slow_f1(answer, one) for one in kept)))
    exact, f1 = answer_scores(answers, truth)
    assert list(zip(exact, f1, strict=True)) == [(bool(found), pytest.approx(value)) for found, value in best]
    assert answer_scores([], []) == ([], [])


# Labels and scores


def test_label_f1_is_scikit_learns():
    from sklearn.metrics import f1_score

    generator = np.random.default_rng(0)
    for _ in range(20):
        chosen, truth = generator.random((2, 30, 5)) < 0.4
        truth[:, 4] = chosen[:, 4] = False
        expected = [f1_score(truth, chosen, average=kind, zero_division=0) for kind in ("micro", "macro")]
        assert label_f1(chosen, truth) == pytest.approx(tuple(expected))


def test_label_f1_of_one_class_counts_only_that_class():
    chosen, truth = np.array([[1], [1], [0], [0], [0]]) > 0, np.array([[1], [0], [0], [0], [1]]) > 0
    assert label_f1(chosen, truth) == (0.5, 0.5), "one right, one too many, one missed"


def test_ranks_of_constants_say_nothing():
    assert rank_correlation(np.ones(3), np.arange(3.0)) == rank_correlation(np.arange(3.0), np.ones(3)) == 0
    assert rank_correlation(np.ones(3), np.ones(3)) == 1
    assert rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([3.0, 5.0, 5.5])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)
