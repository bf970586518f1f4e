"""Altered copies of rows: what may change, how often, and what must not."""

import numpy as np
import pytest

from bertshrink.errors import RequestError
from bertshrink.model.facts import read_facts
from bertshrink.model.texts import Split, Texts
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.distill.teach import training_rows
from bertshrink.training.augment import CUT, DROPPED, MASKED, REPLACED, Augmenter
from tests.test_masking import PIECES, SPECIAL, tokenizer_of
from tests.tiny import bench_of, tiny_encoder

CLS, SEP, MASK = 0, 1, 4
RUN, NING, UP, DOT, HILL, SIDE = 5, 6, 8, 9, 10, 11


def row_of(*texts):
    ids, types = [CLS], [0]
    for number, text in enumerate(texts):
        ids += [*text, SEP]
        types += [number] * (len(text) + 1)
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": types}


@pytest.mark.parametrize("kind", PIECES)
def test_special_tokens_part_the_texts_and_marks_the_words(kind):
    row = row_of([RUN, NING, UP], [DOT, HILL, SIDE])
    assert list(SPECIAL.values())[CLS] == "[CLS]"
    augmenter = Augmenter(tokenizer_of(PIECES[kind]), [row], 64, seed=0)
    assert augmenter.texts_of(row) == [[[1, 2], [3]], [[5], [6, 7]]]
    assert augmenter.words == [(RUN, NING), (UP,), (DOT,), (HILL, SIDE)]


def test_an_unknown_word_is_a_word_as_others():
    unknown = list(SPECIAL.values()).index("[UNK]")
    row = row_of([UP, unknown, UP, unknown])
    augmenter = Augmenter(tokenizer_of(PIECES["wordpiece"]), [row], 64, seed=0)
    assert augmenter.texts_of(row) == [[[1], [2], [3], [4]]]
    assert any(unknown not in augmenter([row], i)[0]["input_ids"] for i in range(60))


def test_words_are_masked_replaced_and_dropped_whole_and_as_often_as_stated():
    """The word `up` is dropped, masked or replaced; all others are replaced only by words of the texts, whole."""
    rows = [row_of([RUN, NING, UP, HILL, SIDE] * 8) for _ in range(300)]
    augmenter = Augmenter(tokenizer_of(PIECES["wordpiece"]), rows, 512, seed=0)
    masked = words = uncut = 0
    lengths = []
    for copy in augmenter(rows):
        ids = copy["input_ids"]
        assert ids[0] == CLS and ids[-1] == SEP and ids.count(SEP) == 1
        assert {len(values) for values in copy.values()} == {len(ids)}
        inner = ids[1:-1]
        for at, token in enumerate(inner):  # a piece stands behind its own beginning: no word was torn
            if token in (NING, SIDE):
                assert inner[at - 1] == {NING: RUN, SIDE: HILL}[token]
            if token in (RUN, HILL):
                assert inner[at + 1] == {RUN: NING, HILL: SIDE}[token]
        count = sum(token in (RUN, HILL, UP) for token in inner)
        masks = inner.count(MASK)
        masked += masks
        words += count
        lengths.append(len(inner))
        uncut += len(inner) > 30
    assert masked / (masked + words * 5 / 3) == pytest.approx(MASKED / (1 - DROPPED), abs=0.01)
    assert uncut / len(rows) == pytest.approx(1 - CUT * 0.55, abs=0.08)
    assert np.mean([length for length in lengths if length > 30]) == pytest.approx(40 * (1 - DROPPED), abs=1.5)


def test_replacing_words_come_as_often_as_they_stand_in_the_texts():
    many, few = row_of([UP] * 9), row_of([DOT])
    augmenter = Augmenter(tokenizer_of(PIECES["wordpiece"]), [many, few], 512, seed=3)
    long = row_of([HILL] * 400)
    found = [token for i in range(20) for copy in augmenter([long], i) for token in copy["input_ids"]]
    replaced = found.count(UP) + found.count(DOT)
    assert found.count(DOT) / replaced == pytest.approx(0.1, abs=0.04)
    kept = found.count(HILL) + found.count(MASK) + replaced
    assert replaced / kept == pytest.approx(REPLACED / (1 - DROPPED), abs=0.02)


def test_copies_differ_and_are_the_same_again_for_a_seed():
    rows = [row_of([RUN, NING, UP, DOT] * 5)] * 2
    augmenter = Augmenter(tokenizer_of(PIECES["wordpiece"]), rows, 64, seed=0)
    first, second = augmenter(rows, 0), augmenter(rows, 1)
    assert first[0] != first[1] and first != second
    assert first == Augmenter(tokenizer_of(PIECES["wordpiece"]), rows, 64, seed=0)(rows, 0)
    assert first != Augmenter(tokenizer_of(PIECES["wordpiece"]), rows, 64, seed=1)(rows, 0)


def test_a_copy_is_never_longer_than_the_model_reads_and_a_text_keeps_a_word():
    full = row_of([UP] * 30)
    wide = row_of([RUN, NING, NING, NING, NING])
    augmenter = Augmenter(tokenizer_of(PIECES["wordpiece"]), [wide, full], 32, seed=0)
    single = row_of([UP])
    for i in range(60):
        assert len(augmenter([full], i)[0]["input_ids"]) <= 32
        assert len(augmenter([single], i)[0]["input_ids"]) > 2
    empty = row_of([])
    assert augmenter([empty]) == [empty]


def test_of_a_pair_one_text_is_altered_and_the_other_stays():
    first, second = [UP] * 20, [HILL] * 20
    augmenter = Augmenter(tokenizer_of(PIECES["wordpiece"]), [row_of(first, second)], 64, seed=0)
    altered = []
    for i in range(40):
        copy = augmenter([row_of(first, second)], i)[0]
        end = copy["input_ids"].index(SEP)
        texts = copy["input_ids"][1:end], copy["input_ids"][end + 1 : -1]
        assert (texts[0] == first) or (texts[1] == second)
        assert copy["token_type_ids"] == [0] * (end + 1) + [1] * (len(texts[1]) + 1)
        altered.append(texts[0] != first)
    assert 8 < sum(altered) < 32


def test_without_a_mask_words_are_dropped_instead():
    tokenizer = tokenizer_of(PIECES["wordpiece"])
    tokenizer.mask_token = None
    rows = [row_of([UP] * 200)]
    augmenter = Augmenter(tokenizer, rows, 512, seed=0)
    lengths = [len(augmenter(rows, i)[0]["input_ids"]) - 2 for i in range(40)]
    assert max(lengths) < 190
    assert all(set(augmenter(rows, i)[0]["input_ids"]) == {CLS, SEP, UP} for i in range(5))


def test_copies_join_the_texts_without_labels_and_pairs_are_swapped(tmp_path):
    encoder = tiny_encoder("bert", "classification")
    split = Split(
        ("the cat sat on the mat", "dogs run"),
        ("a small bird", "rivers are long and cold"),
        labels=(encoder.labels[0], encoder.labels[1]),
    )
    bench = bench_of(encoder, tmp_path, Texts("made up", split, split))
    rows = training_rows(encoder, Distill(layers=1, augment=2), bench, labelled=True)
    plain = training_rows(encoder, Distill(layers=1), bench, labelled=True)
    assert rows.labels == [*plain.labels, None, None, None, None]
    assert rows.rows[:2] == plain.rows
    lengths = [row["token_type_ids"].count(0) for row in rows.rows]
    assert lengths[4] < lengths[0] and lengths[5] > lengths[1]  # the second copy is swapped: the shorter first
    assert abs(lengths[2] - lengths[0]) < 3 and abs(lengths[3] - lengths[1]) < 3
    assert "4 altered copies of the 2 training rows, one text of each pair altered, 2 pairs swapped" in bench.notes


@pytest.mark.parametrize(
    ("settings", "family_task", "told"),
    [
        ({"augment": 2}, ("bert", "mlm"), "learns what stood there"),
        (
            {"augment": 2, "soft_weight": 0, "hidden_weight": 0},
            ("bert", "classification"),
            "only labels are learnt from",
        ),
    ],
)
def test_what_cannot_be_augmented_is_refused(settings, family_task, told, tmp_path):
    tiny_encoder(*family_task).save(tmp_path)
    with pytest.raises(RequestError, match=told):
        Distill(layers=1, **settings).fit(read_facts(tmp_path))
