"""Words and their tags as rows of tokens and back, for tokenizers of every kind, against slow plain versions."""

import numpy as np
import pytest

from bertshrink.data.encoding import IGNORED, EncodedRows, encode, tags_of
from bertshrink.data.texts import Split
from bertshrink.errors import UserError
from tests.support.tokenizers_that_cut import KINDS, tokenizer_of

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
# Many pieces, punctuation, accents, characters of many bytes, one that BERT's tokenizer drops, an unknown one.
VOCABULARY = (
    *("The", "playing", "played", ",", ".", "naïve", "Ærøskøbing", "🙂🙂", "東京", "don't", "Berlin", "PARIS", "a"),
    *("😀x", "U.S.", "1,000", "ZZZZZZ", "\u200b"),
)


def word_rows(num, seed=0, shortest=1, longest=30):
    generator = np.random.default_rng(seed)
    words, tags = [], []
    for length in generator.integers(shortest, longest + 1, num):
        words.append(tuple(VOCABULARY[i] for i in generator.integers(0, len(VOCABULARY), length)))
        tags.append(tuple(TAGS[i] for i in generator.integers(0, len(TAGS), length)))
    return Split(tuple(map(" ".join, words)), words=tuple(words), labels=tuple(tags))


def encode_words(kind, split, max_length=64):
    return encode("token-classification", tokenizer_of(kind), split, max_length, TAGS, "words")


def one_hot(labels, seed=0):
    """Logits (L, C) that say a row's labels, and noise where a token has none."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), len(TAGS)))
    for token, label in enumerate(labels):
        if label != IGNORED:
            logits[token] = 10 * np.eye(len(TAGS))[label]
    return logits


def dropped(kind, word):
    return kind == "wordpiece" and word == "\u200b"


def first_tokens(kind, words):
    """Where each word begins, by tokenizing ever longer starts of the text; None for a word without a token."""
    tokenizer, found = tokenizer_of(kind), []
    whole = tokenizer.convert_ids_to_tokens(tokenizer(" ".join(words))["input_ids"])
    for number, word in enumerate(words):
        before = len(tokenizer(" ".join(words[:number]), add_special_tokens=False)["input_ids"])
        is_blank = number > 0 and whole[before + 1] in ("Ġ", "▁")
        found.append(None if dropped(kind, word) else before + 1 + is_blank)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_token_of_a_word_carries_its_tag(kind):
    split = word_rows(30, longest=12)
    encoded = encode_words(kind, split, 512)
    assert encoded.examples == list(range(30)), "nothing here is longer than a row"
    for words, tags, labels in zip(split.words, split.labels, encoded.labels, strict=True):
        expected = [IGNORED] * len(labels)
        for at, tag in zip(first_tokens(kind, words), tags, strict=True):
            if at is not None:
                expected[at] = TAGS.index(tag)
        assert list(labels) == expected


@pytest.mark.parametrize("max_length", [4, 7, 16, 64, 512])
@pytest.mark.parametrize("kind", KINDS)
def test_tags_come_back_through_windows_of_any_length(kind, max_length):
    split = word_rows(25, seed=max_length)
    encoded = encode_words(kind, split, max_length)
    assert all(len(row["input_ids"]) <= max_length for row in encoded.rows)
    logits = [one_hot(labels, i) for i, labels in enumerate(encoded.labels)]
    found = tags_of(encoded, logits, [len(row) for row in split.words], outside=0)
    for words, tags, numbers in zip(split.words, split.labels, found, strict=True):
        expected = ["O" if dropped(kind, word) else tag for word, tag in zip(words, tags, strict=True)]
        assert [TAGS[number] for number in numbers] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_windows_overlap_and_hold_every_token(kind):
    split = word_rows(10, shortest=40, longest=60)
    tokenizer, encoded = tokenizer_of(kind), encode_words(kind, split, 32)
    for number, text in enumerate(split.texts):
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        windows = [
            row["input_ids"][1:-1] for row, at in zip(encoded.rows, encoded.examples, strict=True) if at == number
        ]
        assert len(windows) > 1
        joined = windows[0]
        for window in windows[1:]:
            assert joined[-8:] == window[:8], "a quarter of the row"
            joined = joined + window[8:]
        assert joined == whole


def test_a_window_that_begins_inside_a_word_has_none_of_its_tags():
    word = "fox" + "z" * 40
    split = Split((f"{word} Berlin",), words=((word, "Berlin"),), labels=(("B-PER", "B-LOC"),))
    for kind in KINDS:
        encoded = encode_words(kind, split, 16)
        counts = {TAGS[tag]: sum(list(row).count(tag) for row in encoded.labels) for tag in (1, 3)}
        assert len(encoded.rows) > 2 and counts["B-PER"] == 1 and counts["B-LOC"] >= 1, kind


def test_a_word_is_tagged_where_it_stands_farthest_from_an_edge():
    encoded = EncodedRows(
        rows=[{"input_ids": [0] * 6}] * 2,
        labels=[None, None],
        examples=[0, 0],
        words=[[-1, 0, 1, 2, 3, -1], [-1, 2, 3, 4, 5, -1]],
    )
    logits = [np.eye(3)[[0, 1, 1, 1, 1, 0]], np.eye(3)[[0, 2, 2, 2, 2, 0]]]
    # Word 2 is two tokens from an edge in the first window, word 3 in the second; word 6 has no token.
    assert tags_of(encoded, logits, [7], outside=0) == [[1, 1, 1, 2, 2, 2, 0]]


def test_words_between_blanks_stand_for_texts_without_words():
    split = word_rows(6)
    bare = Split(split.texts, labels=split.labels)
    assert encode_words("wordpiece", bare) == encode_words("wordpiece", split)


def test_rows_without_tags_stay_without():
    split = word_rows(4, longest=4)
    mixed = Split(split.texts, words=split.words, labels=(None, *split.labels[1:]))
    assert encode_words("wordpiece", mixed).labels == [None, *encode_words("wordpiece", split).labels[1:]]
    bare = Split(split.texts, words=split.words)
    assert encode_words("wordpiece", bare).labels == [None] * 4
    assert encode_words("wordpiece", bare).rows == encode_words("wordpiece", split).rows


def test_empty_words_and_empty_texts_have_no_token():
    words = (("", "Berlin", ""), ())
    split = Split((" Berlin ", ""), words=words, labels=(("B-PER", "B-LOC", "I-LOC"), ()))
    for kind in KINDS:
        encoded = encode_words(kind, split)
        found = tags_of(encoded, [one_hot(labels) for labels in encoded.labels], [3, 0], outside=0)
        assert found == [[0, 3, 0], []], kind


def test_as_many_tags_as_words():
    split = Split(("a b", "a b"), words=(("a", "b"),) * 2, labels=(("O", "O"), ("O",)))
    with pytest.raises(UserError, match="row 2 has 2 words and 1 tags"):
        encode_words("wordpiece", split)


# Texts that are cut at the end


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        ("classification", ("no", None), [0, None]),
        ("multi-label", (("yes", "no"), ()), [(1.0, 1.0), (0.0, 0.0)]),
        ("regression", (0.5, None), [0.5, None]),
        ("embedding", None, [None, None]),
        ("mlm", None, [None, None]),
    ],
)
def test_one_row_a_text(kind, task, labels, expected):
    split = Split(("playing in Berlin " * 20, "fox"), pairs=("the", "dog " * 40), labels=labels)
    encoded = encode(task, tokenizer_of(kind), split, 16, ("no", "yes"), "texts")
    assert (encoded.labels, encoded.examples, encoded.words, encoded.spans) == (expected, [0, 1], None, None)
    assert [len(row["input_ids"]) for row in encoded.rows] == [16, 16]
    assert all(row.keys() == set(tokenizer_of(kind).model_input_names) for row in encoded.rows)
