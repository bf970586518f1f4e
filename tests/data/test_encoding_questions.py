"""Questions with their contexts as windows of tokens and back, for tokenizers of every kind."""

import json
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest

from bertshrink.data.encoding import MAX_ANSWER_TOKENS, N_BEST, EncodedRows, answers_of, best_span, encode
from bertshrink.data.texts import Split
from bertshrink.errors import UserError
from tests.data.test_encoding import VOCABULARY
from tests.support.tokenizers_that_cut import KINDS, tokenizer_of

WORDS = tuple(word for word in VOCABULARY if word != "\u200b")


def asked(num, seed=0, longest=60, share_without=0.0):
    """Questions whose answers are one or two words anywhere in their contexts."""
    generator = np.random.default_rng(seed)
    questions, contexts, answers = [], [], []
    for length in generator.integers(3, longest + 1, num):
        words = [WORDS[i] for i in generator.integers(0, len(WORDS), length)]
        first = int(generator.integers(0, length))
        text = " ".join(words[first : first + int(generator.integers(1, 3))])
        questions.append("where is " + " ".join(WORDS[i] for i in generator.integers(0, len(WORDS), 2)))
        contexts.append(" ".join(words))
        start = len(" ".join(words[:first])) + (first > 0)
        answers.append(() if generator.random() < share_without else ((text, start),))
    return Split(tuple(questions), tuple(contexts), labels=tuple(answers))


def encode_asked(kind, split, max_length=384):
    return encode("question-answering", tokenizer_of(kind), split, max_length, (), "asked")


def one_hot(encoded):
    """Logits that say the labels."""
    rows = []
    for row, (first, last) in zip(encoded.rows, encoded.labels, strict=True):
        length = len(row["input_ids"])
        rows.append({"start_logits": 9.0 * np.eye(length)[first], "end_logits": 9.0 * np.eye(length)[last]})
    return rows


@pytest.mark.parametrize("max_length", [96, 128, 384])
@pytest.mark.parametrize("kind", KINDS)
def test_answers_come_back_through_windows(kind, max_length):
    split = asked(40, seed=max_length, share_without=0.3)
    encoded = encode_asked(kind, split, max_length)
    assert all(len(row["input_ids"]) <= max_length for row in encoded.rows)
    found = answers_of(encoded, one_hot(encoded), split.pairs, may_be_none=True)
    gold = [label[0][0] if label else "" for label in split.labels]
    assert found == gold
    assert any(not text for text in gold) and (max_length > 128 or len(encoded.rows) > 40)
    certain = answers_of(encoded, one_hot(encoded), split.pairs, may_be_none=False)
    assert [text for text, wanted in zip(certain, gold, strict=True) if wanted] == [text for text in gold if text]
    assert all(certain), "where no answer is nothing, each is a text"


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_is_what_a_look_at_every_character_says(kind):
    split = asked(60, seed=3)
    encoded = encode_asked(kind, split, 48)
    assert sum(label == (0, 0) for label in encoded.labels) > 10, "windows without the answer"
    tokenizer = tokenizer_of(kind)
    for spans, label, at in zip(encoded.spans, encoded.labels, encoded.examples, strict=True):
        context, ((text, start),) = split.pairs[at], split.labels[at]
        whole = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        wanted = {i for i in range(start, start + len(text)) if not context[i].isspace()}
        wanted &= {i for a, b in whole for i in range(a, b)}
        here = {i for a, b in spans for i in range(a, b)}
        inside = [token for token, (a, b) in enumerate(spans) if wanted & set(range(a, b))]
        assert label == ((inside[0], inside[-1]) if wanted <= here else (0, 0))


@pytest.mark.parametrize("kind", KINDS)
def test_windows_hold_every_token_of_the_context(kind):
    split = asked(10, longest=90)
    encoded = encode_asked(kind, split, 64)
    for number, context in enumerate(split.pairs):
        whole = tokenizer_of(kind)(context, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        rows = [spans for spans, at in zip(encoded.spans, encoded.examples, strict=True) if at == number]
        here = {span for spans in rows for span in spans}
        assert {span for span in whole if span[1] > span[0]} <= here
        shared = [len({span for span in a if span[0] >= 0} & set(b)) for a, b in pairwise(rows)]
        assert all(shared), "neighbours overlap"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("question", ["where is Ærøskøbing " * 60, "🙂" * 300, "playedplaying" * 50, "", "a"])
def test_a_question_of_any_length_leaves_room_for_its_context(kind, question):
    split = Split((question,), ("the fox plays in Berlin " * 12,), labels=((("Berlin", 17),),))
    tokenizer = tokenizer_of(kind)
    least = tokenizer.num_special_tokens_to_add(pair=True) + 2
    for max_length in (*range(least, least + 12), 64, 384):
        encoded = encode_asked(kind, split, max_length)
        for row, spans in zip(encoded.rows, encoded.spans, strict=True):
            assert len(row["input_ids"]) <= max_length
            assert any(start >= 0 for start, _ in spans), "a token of the context"
        if question and max_length > least + 8:
            start = tokenizer(question, add_special_tokens=False)["input_ids"][:2]
            assert encoded.rows[0]["input_ids"][1 : 1 + len(start)] == start
    with pytest.raises(UserError, match="are too few for a question"):
        encode_asked(kind, split, least - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_that_cannot_be_found_are_the_first_token(kind):
    context = "the fox plays in  Berlin \u200b"
    answers = ((), (("", 4),), (("  ", 16),), (("fox", 4), ("Berlin", 18)), ((" fox ", 3),), None)
    split = Split(("where",) * len(answers), (context,) * len(answers), labels=answers)
    encoded = encode_asked(kind, split)
    assert encoded.labels[:3] == [(0, 0)] * 3
    assert encoded.labels[3] == encoded.labels[4] != (0, 0), "the first answer, spaces around it left out"
    assert encoded.labels[5] is None
    mute = encode_asked(kind, Split(("where",), (context,), labels=((("\u200b", 25),),)))
    assert (mute.labels == [(0, 0)]) == (kind == "wordpiece"), "a character that the tokenizer drops"


def test_token_types_tell_question_from_context():
    encoded = encode_asked("wordpiece", asked(5), 40)
    for row, spans in zip(encoded.rows, encoded.spans, strict=True):
        context = [token for token, (start, _) in enumerate(spans) if start >= 0]
        assert {row["token_type_ids"][token] for token in context} == {1}
        assert set(row["token_type_ids"][: context[0]]) == {0}
    assert "token_type_ids" not in encode_asked("bytes", asked(2)).rows[0]


def test_a_question_needs_a_context():
    with pytest.raises(UserError, match="needs a context"):
        encode_asked("wordpiece", Split(("where",)))


# From logits to answers


def slow_span(start_L, end_L, allowed):
    """The best span by trying all."""
    best = (-np.inf, 0, 0)
    for first in allowed:
        for last in allowed:
            if first <= last < first + MAX_ANSWER_TOKENS and start_L[first] + end_L[last] > best[0]:
                best = (start_L[first] + end_L[last], first, last)
    return best


def test_the_best_span_is_that_of_a_search_through_all():
    generator = np.random.default_rng(0)
    for length in (1, 2, N_BEST - 1, N_BEST):
        for _ in range(50):
            start_L, end_L = generator.normal(size=(2, length + 5))
            allowed = sorted(generator.choice(length + 5, length, replace=False).tolist())
            assert best_span(start_L, end_L, allowed) == pytest.approx(slow_span(start_L, end_L, allowed))
    assert best_span(start_L, end_L, []) == (-np.inf, 0, 0)


def test_no_answer_is_longer_than_the_limit():
    start_L, end_L = np.zeros(80), np.zeros(80)
    start_L[5], end_L[5 + MAX_ANSWER_TOKENS] = 9, 9
    score, first, last = best_span(start_L, end_L, range(80))
    assert score == 9 and 0 <= last - first < MAX_ANSWER_TOKENS
    end_L[4 + MAX_ANSWER_TOKENS] = 9
    assert best_span(start_L, end_L, range(80)) == (18, 5, 4 + MAX_ANSWER_TOKENS)


def windows(*scores):
    """One question over the context `ab`, a window for each (CLS, a, b) score."""
    spans = [(-1, -1), (-1, -1), (0, 1), (1, 2), (-1, -1)]
    encoded = EncodedRows([{}] * len(scores), [None] * len(scores), [0] * len(scores), spans=[spans] * len(scores))
    logits = [np.array([cls / 2, 99, a / 2, b / 2, 99]) for cls, a, b in scores]
    return encoded, [{"start_logits": row, "end_logits": row} for row in logits]


@pytest.mark.parametrize(
    ("scores", "certain", "none"),
    [
        (((0, 2, 1),), "a", "a"),
        (((3, 2, 1),), "a", ""),
        (((2, 2, 1),), "a", "a"),  # a threshold of 0: nothing has to score higher
        (((5, 1, 0), (0, 0, 2)), "b", "b"),  # nothing counts by its lowest score of all windows
        (((5, 1, 0), (3, 0, 2)), "b", ""),
    ],
)
def test_no_answer_competes_with_the_best_of_all_windows(scores, certain, none):
    encoded, outputs = windows(*scores)
    assert answers_of(encoded, outputs, ["ab"], may_be_none=False) == [certain]
    assert answers_of(encoded, outputs, ["ab"], may_be_none=True) == [none]


def test_a_context_without_a_token_has_no_answer():
    split = Split(("where", "where"), ("\u200b", "Berlin"), labels=((), (("Berlin", 0),)))
    encoded = encode_asked("wordpiece", split)
    for may_be_none in (False, True):
        assert answers_of(encoded, one_hot(encoded), split.pairs, may_be_none=may_be_none) == ["", "Berlin"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_is_saved_as_it_was_given(kind, tmp_path):
    tokenizer = deepcopy(tokenizer_of(kind))
    backend = tokenizer.backend_tokenizer
    for own in ({"max_length": 30, "stride": 3, "strategy": "only_first", "direction": "left"}, None):
        if own is None:
            backend.no_truncation()
            backend.no_padding()
        else:
            backend.enable_truncation(**own)
            backend.enable_padding(length=30, pad_id=1, pad_token="<pad>")
        before = backend.to_str()
        encode("question-answering", tokenizer, asked(3), 40, (), "asked")
        encode("token-classification", tokenizer, Split(("the fox",)), 40, ("O",), "words")
        encode("mlm", tokenizer, Split(("the fox",)), 40, (), "texts")
        assert backend.to_str() == before
        tokenizer.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "tokenizer.json").read_text()) == json.loads(before)
