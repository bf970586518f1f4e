"""Exams of every task: who answers right gets full marks, who does not gets what a count by hand gives."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from bertshrink.data.encoding import encode
from bertshrink.data.texts import Split, TextDataset
from bertshrink.errors import CheckFailed, UserError
from bertshrink.meters.quality.evaluators import MAX_PAIRED, chooser, prepare
from bertshrink.meters.quality.metrics import answer_scores, entity_scores
from bertshrink.model.batches import tokenize
from bertshrink.model.tasks import TASKS
from tests.support.tiny import LABELS, sentences, tiny_encoder, tiny_split, tiny_texts, tiny_tokenizer
from tests.support.tokenizers_that_cut import tokenizer_of

LABELLED = ("classification", "multi-label", "regression", "token-classification", "question-answering")
METRICS = {
    "classification": ("accuracy", "macro_f1", "agreement"),
    "multi-label": ("micro_f1", "macro_f1", "agreement"),
    "regression": ("spearman", "pearson", "score_difference", "agreement"),
    "token-classification": ("f1", "precision", "recall", "agreement"),
    "question-answering": ("f1", "exact_match", "agreement"),
    "embedding": ("spearman", "recall@10"),
    "sparse-embedding": ("recall@10", "active_dimensions", "term_overlap"),
    "mlm": ("masked_accuracy", "pseudo_perplexity", "agreement"),
}

OF_LIKENESS = ("score_difference", "agreement")
"""Figures of every text, labelled or not."""


@dataclass
class Knowing:
    """A model that answers as a side of the data is labelled, in the order of its own labels."""

    task: str
    split: Split
    tokenizer: Any = None
    labels: tuple[str, ...] = ()
    max_length: int = 64
    source: str = "knowing"
    shift: float = 0.0
    activation: str = "identity"

    def __post_init__(self):
        self.tokenizer = self.tokenizer or tiny_tokenizer()
        self.labels = self.labels or LABELS.get(self.task, ())

    def tokenize(self, texts, pairs=None, max_length=None):
        return tokenize(self.tokenizer, texts, pairs, min(max_length or 64, self.max_length))

    def predict(self, rows):
        limit = self.max_length
        encoded = encode(self.task, self.tokenizer, self.split, limit, self.labels, "knowing")
        assert rows == encoded.rows, "it is asked what it knows"
        return [self._answer(len(row["input_ids"]), label) for row, label in zip(rows, encoded.labels, strict=True)]

    def _answer(self, length, label):
        if self.task == "question-answering":
            return {name: 9 * np.eye(length)[at] for name, at in zip(TASKS[self.task].outputs, label, strict=True)}
        if self.task == "token-classification":
            return {"logits": np.eye(len(self.labels))[[max(0, tag) for tag in label]]}
        if self.task == "classification":
            return {"logits": np.eye(len(self.labels))[label] + self.shift}
        return {"logits": np.atleast_1d(np.asarray(label)) * 2.0 - 1 + self.shift}


def split_of(task, num, seed):
    """Labelled texts; every one of several labels comes up, and no side is without one of them."""
    split = tiny_split(task, num, seed)
    if task != "multi-label":
        return split
    names = LABELS[task]
    return replace(split, labels=tuple(names[i % 3 :: 1 + i % 2] if i % 4 else () for i in range(num)))


def texts_of(split, name="salad"):
    return TextDataset(name, split, split)


def figures(measurements):
    return {m.metric: m.value for m in measurements}


def without(split, rows):
    """The same texts, some of them unlabelled."""
    return replace(split, labels=tuple(None if i in rows else label for i, label in enumerate(split.labels)))


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_its_figures(task):
    model, texts = tiny_encoder("bert", task), tiny_texts(task, num_dev=30)
    exam = prepare(model, texts, None, 0)
    found = exam.sit(model)
    assert tuple(m.metric for m in found) == METRICS[task]
    assert all(
        (m.conditions.dataset, m.conditions.split, m.conditions.num_examples) == ("salad", "dev", 30) for m in found
    )
    assert figures(found)[METRICS[task][-1]] == pytest.approx(1), "the reference is the scale of likeness"
    assert TASKS[task].headline in figures(found)
    other = tiny_encoder("bert", task, seed=9)
    again = figures(exam.sit(other))
    assert again == figures(exam.sit(other))
    assert again[METRICS[task][-1]] < 1
    assert exam.headline(other) == again[TASKS[task].headline]


@pytest.mark.parametrize("task", LABELLED)
def test_who_knows_gets_full_marks(task):
    split = split_of(task, 30, 3)
    exam = prepare(tiny_encoder("bert", task), texts_of(split), None, 0)
    exam.sit(tiny_encoder("bert", task))
    found = figures(exam.sit(Knowing(task, split)))
    assert all(found[name] == pytest.approx(1) for name in METRICS[task] if name not in OF_LIKENESS)
    assert found["agreement"] < 1


@pytest.mark.parametrize("task", LABELLED)
def test_what_is_unlabelled_counts_for_likeness_only(task):
    split = split_of(task, 24, 3)
    rows = set(range(0, 24, 3))
    known = split.take([i for i in range(24) if i not in rows])
    model, other = tiny_encoder("bert", task), tiny_encoder("bert", task, seed=5)
    of_all, of_some, of_known, of_none = (
        prepare(model, texts_of(side), None, 0)
        for side in (split, without(split, rows), known, without(split, range(24)))
    )
    for exam in (of_all, of_some, of_known, of_none):
        exam.sit(model)
    likeness = {name: value for name, value in figures(of_all.sit(other)).items() if name in OF_LIKENESS}
    assert figures(of_some.sit(other)) == pytest.approx(figures(of_known.sit(other)) | likeness)
    assert figures(of_none.sit(other)) == pytest.approx(likeness)
    if task != "regression":
        assert of_none.headline(other) is None


@pytest.mark.parametrize("task", LABELS)
def test_classes_in_another_order_are_the_same_classes(task):
    split = split_of(task, 20, 3)
    exam = prepare(Knowing(task, split), texts_of(split), None, 0)
    exam.sit(Knowing(task, split))
    turned = Knowing(task, split, labels=tuple(name.upper() for name in reversed(LABELS[task])))
    assert set(figures(exam.sit(turned)).values()) == {1.0}
    with pytest.raises(UserError, match=r"`knowing` has the classes"):
        exam.sit(Knowing(task, replace(split, labels=None), labels=("x", "y")))


@pytest.mark.parametrize("task", LABELLED)
def test_labels_that_the_model_has_not_are_refused_first(task):
    strange = {"token-classification": ("O", "B-XYZ"), "multi-label": ("xyz",), "question-answering": "xyz"}
    split = tiny_split(task, 4)
    texts = texts_of(replace(split, labels=(strange.get(task, "xyz"), *split.labels[1:])))
    with pytest.raises(UserError, match=r"(?i)xyz"):
        prepare(tiny_encoder("bert", task), texts, None, 0)


def test_nothing_that_is_not_finite_is_judged():
    split = tiny_split("regression", 6)
    exam = prepare(Knowing("regression", split), texts_of(split), None, 0)
    with pytest.raises(CheckFailed, match="not finite"):
        exam.sit(Knowing("regression", split, shift=float("nan")))


# Figures by hand


def test_several_labels_are_chosen_from_half_on():
    split = Split(tuple(sentences(4)), labels=(("place",), ("place", "time"), (), ("person",)))
    says = replace(split, labels=(("place",), ("time",), ("person",), ("person",)))
    exam = prepare(Knowing("multi-label", split), texts_of(split), None, 0)
    exam.sit(Knowing("multi-label", split))
    found = figures(exam.sit(Knowing("multi-label", says)))
    # place: 1 right, 1 missed; time: 1 right; person: 1 right, 1 too many. Ten of twelve decisions are right.
    assert found["micro_f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)
    assert found["agreement"] == pytest.approx(10 / 12)
    shifted = figures(exam.sit(Knowing("multi-label", split, shift=1.5)))
    assert shifted["micro_f1"] == pytest.approx(2 * 4 / (2 * 4 + 8)), "every class is chosen"


def test_scores_are_judged_by_rank_and_by_line():
    split = Split(tuple(sentences(4)), labels=(0.0, 1.0, 2.0, 4.0))
    says = replace(split, labels=(0.0, 2.0, 1.0, 8.0))
    exam = prepare(Knowing("regression", split), texts_of(split), None, 0)
    exam.sit(Knowing("regression", split))
    found = figures(exam.sit(Knowing("regression", says, shift=3.0)))
    assert found["spearman"] == found["agreement"] == pytest.approx(0.8)
    assert found["score_difference"] == pytest.approx((3 + 5 + 1 + 11) / 4)
    assert found["pearson"] == pytest.approx(np.corrcoef([0, 1, 2, 4], [0, 2, 1, 8])[0, 1])
    flat = figures(exam.sit(Knowing("regression", replace(split, labels=(1.0,) * 4))))
    assert flat.pop("score_difference") == pytest.approx((2 + 0 + 2 + 6) / 4)
    assert set(flat.values()) == {0.0}, "one score for all ranks nothing"


def test_tags_are_judged_by_whole_entities_and_compared_by_words():
    words = (("you", "her", "said", "you"), ("time",))
    split = Split(("you her said you", "time"), words=words, labels=(("B-PER", "I-PER", "O", "B-LOC"), ("O",)))
    says = replace(split, labels=(("B-PER", "O", "O", "B-LOC"), ("B-LOC",)))
    exam = prepare(Knowing("token-classification", split), texts_of(split), None, 0)
    exam.sit(Knowing("token-classification", split))
    found = figures(exam.sit(Knowing("token-classification", says)))
    assert (found["precision"], found["recall"]) == pytest.approx((1 / 3, 1 / 2))
    assert found["f1"] == pytest.approx(2 / 5)
    assert found["agreement"] == pytest.approx(3 / 5)


def test_answers_are_judged_by_words_and_compared_as_they_stand():
    context = "the quick film was a great movie, not a bad movie"
    right = ((("great movie", 21),), (("quick film", 4), ("film", 10)), (("bad", 40),))
    split = Split(("what", "which", "who"), (context,) * 3, labels=right)
    says = replace(split, labels=((("a great movie", 19),), (("film", 10),), (("great movie", 21),)))
    exam = prepare(Knowing("question-answering", split), texts_of(split), None, 0)
    exam.sit(Knowing("question-answering", split))
    found = figures(exam.sit(Knowing("question-answering", says)))
    assert found["exact_match"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["agreement"] == 0, "`a great movie` and `great movie` are two answers"


@pytest.mark.parametrize(("may_be_none", "answer"), [(True, ""), (False, "the")])
def test_no_answer_is_an_answer_where_the_data_has_questions_without(may_be_none, answer):
    labels = ((), (("film", 10),)) if may_be_none else ((("quick", 4),), (("film", 10),))
    split = Split(("what", "which"), ("the quick film",) * 2, labels=labels)
    exam = prepare(Knowing("question-answering", split), texts_of(split), None, 0)
    mute = Knowing("question-answering", replace(split, labels=((), ())))
    assert exam.answer(mute) == [answer, answer]
    assert figures(exam.sit(mute))["exact_match"] == (0.5 if may_be_none else 0)


def test_scored_pairs_are_judged_by_the_cosine_of_their_vectors():
    from scipy.stats import spearmanr

    given = np.random.default_rng(0).uniform(0, 5, 40).tolist()
    split = without(Split(tuple(sentences(40)), tuple(sentences(40, 1)), labels=tuple(given)), {1, 2})
    model, other = tiny_encoder(task="embedding"), tiny_encoder(task="embedding", seed=5)
    exam = prepare(model, texts_of(split), None, 0)
    exam.sit(model)
    found = exam.sit(other)
    assert [m.metric for m in found] == ["sts_spearman", "spearman", "recall@10"]
    first, second = (
        [row["sentence_embedding"] for row in other.predict(other.tokenize(side))]
        for side in (split.texts, split.pairs)
    )
    alike = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(first, second, strict=True)]
    at = [i for i in range(40) if i not in (1, 2)]
    expected = spearmanr([alike[i] for i in at], [split.labels[i] for i in at]).statistic
    assert found[0].value == pytest.approx(float(expected), abs=1e-5)
    assert exam.headline(other) == found[0].value


def test_texts_for_likeness_are_counted_where_they_are_many():
    texts = tuple(f"good film {i}" for i in range(MAX_PAIRED + 5))
    exam = prepare(tiny_encoder(task="embedding"), texts_of(Split(texts)), None, 0)
    assert exam.conditions.num_examples == len(exam.split) == MAX_PAIRED


# Texts longer than a model reads, models of other tokenizers


@pytest.mark.parametrize("kind", ["wordpiece", "bytes", "raw-bytes", "unigram"])
@pytest.mark.parametrize("task", ["token-classification", "question-answering"])
def test_models_of_other_tokenizers_and_lengths_say_the_same(task, kind):
    split = tiny_split(task, 20, seed=4)
    if task == "token-classification":
        words, labels = (
            tuple(a + b for a, b in zip(side, side[1:] + side[:1], strict=True)) for side in (split.words, split.labels)
        )
        split = Split(tuple(map(" ".join, words)), words=words, labels=labels)
    exam = prepare(Knowing(task, split), texts_of(split), None, 0)
    exam.sit(Knowing(task, split))
    for max_length in (48, 64):
        found = figures(exam.sit(Knowing(task, split, tokenizer_of(kind), max_length=max_length)))
        assert set(found.values()) == {1.0}


@pytest.mark.parametrize("task", ["token-classification", "question-answering"])
def test_real_models_are_judged_on_all_of_a_long_text(task):
    long = tiny_split(task, 6, seed=4)
    if task == "token-classification":
        words, labels = (tuple(row * 20 for row in side) for side in (long.words, long.labels))
        long = Split(tuple(map(" ".join, words)), words=words, labels=labels)
    else:
        shift = len("now and then ") * 60
        answers = tuple(tuple((text, start + shift) for text, start in row) for row in long.labels)
        long = replace(long, pairs=tuple("now and then " * 60 + context for context in long.pairs), labels=answers)
    model = tiny_encoder("bert", task)
    exam = prepare(model, texts_of(long), 32, 0)
    answers = exam.answer(model)
    encoded = exam.encoded(model)
    assert len(encoded.rows) > 12 and max(len(row["input_ids"]) for row in encoded.rows) == 32
    found = figures(exam.sit(model))
    if task == "token-classification":
        assert [len(row) for row in answers] == [len(row) for row in long.words]
        assert (found["precision"], found["recall"], found["f1"]) == entity_scores(answers, long.labels)
    else:
        exact, f1 = answer_scores(answers, long.labels)
        assert (found["exact_match"], found["f1"]) == (np.mean(exact), np.mean(f1))
        assert all(answer in context for answer, context in zip(answers, long.pairs, strict=True))


# What is chosen by


def sides(task, test=True):
    return TextDataset(
        "salad",
        *(split_of(task, num, seed) for num, seed in ((60, 1), (12, 2), (14, 3))[: 2 + test]),
        judged_name="test" if test else "dev",
    )


@pytest.mark.parametrize("test", [True, False])
@pytest.mark.parametrize("task", LABELLED)
def test_what_judges_does_not_choose(task, test):
    texts, model = sides(task, test), tiny_encoder("bert", task)
    learnt, chosen = texts.choosing()
    assert not set(chosen.texts if task != "question-answering" else chosen.pairs) & set(
        texts.judged.pairs or texts.judged.texts
    )
    assert len(chosen) == (12 if test else 60 - len(learnt))
    choose = chooser(None, texts, None, 0)
    exam = prepare(model, texts, None, 0, chosen)
    assert exam.conditions.split == "choice"
    assert choose(model) == exam.headline(model)
    other = tiny_encoder("bert", task, seed=5)
    assert choose(other) == exam.headline(other)
    assert chooser(None, texts, None, 0)(Knowing(task, chosen)) == pytest.approx(1)


def test_nothing_to_choose_by_is_said():
    texts = TextDataset(
        "salad", Split(tuple(sentences(40))), Split(tuple(sentences(8, 1))), Split(tuple(sentences(8, 2)))
    )
    with pytest.raises(UserError, match="needs labelled dev data; `salad` has none"):
        chooser(None, texts, None, 0)(tiny_encoder())


def test_vectors_are_chosen_by_likeness_to_the_teacher():
    texts = TextDataset("salad", Split(tuple(sentences(40))), Split(tuple(sentences(20, 1))))
    teacher, student = tiny_encoder(task="embedding"), tiny_encoder(task="embedding", seed=5)
    choose = chooser(lambda: teacher, texts, None, 0)
    assert choose(student) < choose(teacher) == pytest.approx(1)
