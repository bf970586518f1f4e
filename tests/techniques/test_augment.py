"""Made rows of small data: what they are made of, how often, that none appears twice, and who may have them."""

import random
from collections import Counter

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from bertshrink.data.texts import Split, TextDataset
from bertshrink.errors import UserError
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.techniques.distill import Distill, augment
from bertshrink.techniques.distill.apply import training_rows
from bertshrink.techniques.distill.augment import _Maker, augmented
from tests.support.tiny import bench_of, tiny_encoder

NAMES, NUMBERS = ("Anna", "Boris", "Clara", "Denis"), ("12", "340", "5.5", "1999")
NOUNS, VERBS = ("river", "mountain", "harbour", "engine", "market"), ("crosses", "watches", "paints", "follows")


def sentences(number, seed=0):
    rng = random.Random(seed)
    made = (
        f"{rng.choice(NAMES)} {rng.choice(VERBS)} the {rng.choice(NOUNS)} and not a {rng.choice(NOUNS)} in "
        f"{rng.choice(NUMBERS)} of the {rng.choice(NOUNS)} s"
        for _ in range(number * 3)
    )
    return tuple(dict.fromkeys(made))[:number]


def pairs_of(number):
    texts = sentences(2 * number)
    return Split(texts[:number], texts[number:])


def test_pairs_are_made_by_their_kinds_and_none_twice():
    split = pairs_of(60)
    made = augmented(split, 6, seed=0)
    rows, given = list(zip(made.texts, made.pairs, strict=True)), set(zip(split.texts, split.pairs, strict=True))
    assert made.labels is None
    assert len(rows) == len(set(rows)) and not given & set(rows)
    assert 340 <= len(rows) <= 360
    known = {*split.texts, *split.pairs}
    swapped = {(b, a) for a, b in given}
    assert swapped <= set(rows)
    whole = [(a, b) for a, b in rows if a in known and b in known and (a, b) not in swapped]
    maker = _Maker(split, 0)
    near = [(a, b) for a, b in whole if maker.number[b] in maker.near[maker.number[a]][:1]]
    back = [(a, b) for a, b in whole if maker.number[a] in maker.near[maker.number[b]][:1]]
    # One of six is of this kind, one way round or the other, and an altered text is now and then another or the same.
    assert {*near, *back} <= set(whole) and 40 <= len({*near, *back}) <= 60
    assert len(whole) - len({*near, *back}) < 10
    assert abs(sum(a in known for a, _ in rows) - sum(b in known for _, b in rows)) < 60


def test_the_same_seed_makes_the_same_and_each_row_is_made_alone():
    split = pairs_of(20)
    assert augmented(split, 5, seed=1) == augmented(split, 5, seed=1)
    assert augmented(split, 5, seed=1) != augmented(split, 5, seed=2)
    fewer = augmented(split, 3, seed=1)
    assert set(zip(fewer.texts, fewer.pairs, strict=True)) < set(
        zip(*_columns(augmented(split, 5, seed=1)), strict=True)
    )


def _columns(split):
    return split.texts, split.pairs


def test_a_word_becomes_one_of_its_kind_and_short_words_stay():
    maker = _Maker(Split(sentences(80)), 0)
    rng, seen = random.Random(0), Counter()
    for number, words in enumerate(list(maker.words) * 20):
        new = list(words)
        maker._replace(new, rng)
        for old, now in zip(words, new, strict=True):
            if old == now:
                continue
            seen[old] += 1
            same = [group for group in (NAMES, NUMBERS, NOUNS + VERBS) if old in group]
            assert same and now in same[0], (number, old, now)
    assert set(seen) == {*NAMES, *NUMBERS, *NOUNS, *VERBS}


def test_words_are_drawn_as_often_as_they_stand():
    texts = tuple(f"alpha beta gamma delta {word} {i}" for i, word in enumerate(["usual"] * 9 + ["seldom"]))
    maker, rng, found = _Maker(Split(texts), 0), random.Random(0), Counter()
    for _ in range(4000):
        words = ["target"] * 5
        maker._replace(words, rng)
        found.update(words)
    drawn = found["usual"] + found["seldom"]
    assert found["seldom"] / drawn == pytest.approx(0.1, abs=0.03)
    assert drawn / (sum(found.values()) - found["target"]) == pytest.approx(0.2, abs=0.03)


def test_altering_does_all_four_things_and_leaves_short_texts():
    texts = (*sentences(40), "too short this one")
    maker, rng = _Maker(Split(texts), 0), random.Random(0)
    assert maker.altered("too short this one", rng) == "too short this one"
    vocabulary = {word for text in texts for word in text.split()}
    text, seen = texts[0], Counter()
    words = text.split()
    for _ in range(2000):
        new = maker.altered(text, rng).split()
        assert set(new) <= vocabulary and len(new) >= 2
        if len(new) < len(words):
            seen["shorter"] += 1
        elif len(new) > len(words):
            seen["longer"] += 1
        elif sorted(new) == sorted(words) and new != words:
            seen["turned"] += 1
        elif sum(a != b for a, b in zip(words, new, strict=True)) == 1:
            seen["replaced"] += 1
    # Half of the texts have one thing done to them: 0.35, 0.3, 0.2 and 0.15 of those are of each sort; a word may be
    # replaced by itself.
    assert seen["shorter"] > 350 and seen["longer"] > 150 and seen["turned"] > 100 and seen["replaced"] > 150


def test_near_texts_are_those_of_plain_tf_idf(monkeypatch):
    texts = sentences(70, seed=4)
    maker = _Maker(Split(texts), 0)
    vectors = TfidfVectorizer(analyzer=lambda text: text.lower().split(), sublinear_tf=True).fit_transform(texts)
    likeness = (vectors @ vectors.T).toarray()
    np.fill_diagonal(likeness, -1)
    for row, near in enumerate(maker.near):
        assert len(near) == 12 and row not in near
        assert likeness[row][near] == pytest.approx(np.sort(likeness[row])[::-1][:12])
    monkeypatch.setattr(augment, "_BLOCK", 16)
    assert _Maker(Split(texts), 0).near == maker.near
    monkeypatch.setattr(augment, "_SOUGHT", 20)
    some = _Maker(Split(texts), 0).near
    assert len({number for near in some for number in near}) <= 20 and all(len(near) == 12 for near in some)


def test_texts_that_share_no_word_have_no_near_ones():
    split = Split(("one two three four five", "six seven eight nine ten"), ("a b c d e", "f g h i j"))
    maker = _Maker(split, 0)
    assert maker.near == [[], [], [], []]
    assert maker.pair(("one two three four five", "a b c d e"), 5, random.Random(0)) in [
        (text, text) for text in maker.texts
    ]


def test_an_empty_second_text_makes_no_empty_first_one():
    made = augmented(Split(sentences(4), ("", "one two three four five", " ", "")), 12, seed=0)
    assert len(made) > 4 and all(text.strip() for text in (*made.texts, *made.pairs))


def test_single_texts_and_tagged_words():
    texts = sentences(30)
    made = augmented(Split(texts, labels=("x",) * 30), 4, seed=0)
    assert made.pairs is None and made.words is None and made.labels is None
    assert len(made) == len(set(made.texts)) > 100 and not set(made.texts) & set(texts)
    tagged = tuple(tuple(text.split()) for text in texts)
    assert augmented(Split(texts, words=tagged), 4, seed=0).words == tuple(tuple(text.split()) for text in made.texts)
    # Tagged words of a script without spaces stay words.
    japanese = (("今日", "は", "天気", "が", "いい", "です"), ("明日", "も", "雨", "が", "降り", "ます"))
    found = augmented(Split(tuple(map(" ".join, japanese)), words=japanese), 8, seed=0)
    assert {word for row in found.words for word in row} <= {word for row in japanese for word in row}
    assert found.texts == tuple(map(" ".join, found.words))


def test_a_script_without_blanks_is_altered_by_characters():
    texts = ("今日は天気がとてもいいですね", "今日は雨がひどく降っています", "明日の東京は Python 日和です")
    made = augmented(Split(texts), 6, seed=0)
    assert len(made) > 12 and all(" " not in text for text in made.texts if "Python" not in text)
    assert set("".join(made.texts)) <= set("".join(texts))


def test_made_rows_join_the_training_rows_without_labels(tmp_path):
    encoder = tiny_encoder("bert", "classification")
    split = Split(
        ("the cat sat on the mat", "dogs run over the long hill"),
        ("a small bird sat on the hill", "rivers are long and cold"),
        labels=(encoder.labels[0], encoder.labels[1]),
    )
    bench = bench_of(encoder, tmp_path, TextDataset("made up", split, split))
    plain = training_rows(encoder, Distill(layers=1), bench, labelled=True)
    rows = training_rows(encoder, Distill(layers=1, augment_per_example=3), bench, labelled=True)
    number = len(augmented(split, 3, bench.seed))
    assert number >= 4
    assert rows.rows[:2] == plain.rows and rows.labels == [*plain.labels, *[None] * number]
    assert f"{number} unlabelled rows were generated from the 2 rows of the training split" in bench.notes


@pytest.mark.parametrize(
    ("settings", "task", "told"),
    [
        ({}, "mlm", "masking already alters its texts"),
        ({}, "question-answering", "its whole context"),
        ({"soft_weight": 0, "hidden_weight": 0}, "classification", "the loss uses only labels"),
    ],
)
def test_who_learns_nothing_of_made_rows_is_refused(settings, task, told, tmp_path):
    tiny_encoder("bert", task).save(tmp_path)
    with pytest.raises(UserError, match=told):
        Distill(layers=1, augment_per_example=2, **settings).fit(read_facts(tmp_path))
