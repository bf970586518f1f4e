"""The quality meter against slow plain versions and cases known by hand."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import spearmanr

from bertshrink.data.texts import Split, TextDataset
from bertshrink.errors import CheckFailed, UserError
from bertshrink.meters.quality.evaluators import prepare
from bertshrink.meters.quality.metrics import likelihood, neighbour_recall, pair_spearman, pseudo_perplexity
from bertshrink.meters.quality.similarities import paired_similarities, similarity_table
from bertshrink.report.measurement import Measurement
from tests.support.gate_fixtures import accuracy, bits, outcomes
from tests.support.tiny import sentences, tiny_encoder


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return [[float(a @ b) for b in unit] for a in unit]


def tables(mine, theirs, by="cosine"):
    return similarity_table(mine, by), similarity_table(theirs, by)


def test_pair_spearman_equals_a_loop_over_pairs(vectors):
    other = vectors + np.random.default_rng(1).normal(size=vectors.shape)
    pairs = [(i, j) for i in range(12) for j in range(i + 1, 12)]
    mine, theirs = cosines(other), cosines(vectors)
    expected = spearmanr([mine[i][j] for i, j in pairs], [theirs[i][j] for i, j in pairs]).statistic
    assert pair_spearman(*tables(other, vectors)) == pytest.approx(float(expected), abs=1e-4)
    assert pair_spearman(*tables(vectors, vectors)) == pytest.approx(1)


def test_neighbour_recall_equals_a_loop(vectors):
    other = vectors + np.random.default_rng(1).normal(size=vectors.shape)

    def nearest(table, i):
        return set(sorted((j for j in range(12) if j != i), key=lambda j: -table[i][j])[:3])

    mine, theirs = cosines(other), cosines(vectors)
    expected = sum(len(nearest(mine, i) & nearest(theirs, i)) for i in range(12)) / 36
    assert neighbour_recall(*tables(other, vectors), 3).mean() == pytest.approx(expected)
    assert neighbour_recall(*tables(vectors, vectors), 10).tolist() == [1] * len(vectors)


def test_likeness_ignores_rotation_and_scale(vectors):
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))
    assert pair_spearman(*tables(2 * vectors @ turn, vectors)) == pytest.approx(1, abs=1e-3)
    assert neighbour_recall(*tables(2 * vectors @ turn, vectors), 3).mean() == 1


@pytest.mark.parametrize("by", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities_equal_loops_over_pairs(by, vectors):
    def near(a, b):
        return {
            "cosine": a @ b / np.linalg.norm(a) / np.linalg.norm(b),
            "dot": a @ b,
            "euclidean": -np.sqrt(((a - b) ** 2).sum()),
            "manhattan": -np.abs(a - b).sum(),
        }[by]

    assert np.allclose(similarity_table(vectors, by), [[near(a, b) for b in vectors] for a in vectors], atol=1e-5)
    first, second = vectors[:5], vectors[5:10]
    assert np.allclose(
        paired_similarities(first, second, by), [near(*pair) for pair in zip(first, second, strict=True)]
    )


@dataclass
class Answering:
    """A model that gives each text the vector of its place."""

    vectors: np.ndarray
    similarity: str | None
    task: str = "embedding"
    labels: tuple = ()
    source: str = "answering"

    def tokenize(self, texts, pairs, max_length):
        return range(len(texts))

    def predict(self, rows):
        return [{"sentence_embedding": self.vectors[row]} for row in rows]


@pytest.mark.parametrize("by", ["cosine", "dot", "euclidean", "manhattan", None])
def test_each_models_vectors_are_compared_as_it_says(by, vectors):
    """Texts with longer vectors are others to all but cosines; the reference is compared by its own similarity."""
    long = vectors * np.linspace(1, 9, len(vectors), dtype=np.float32)[:, None]
    scores = tuple(map(float, range(6)))
    split = Split(tuple(sentences(6)), pairs=tuple(sentences(6, seed=1)), labels=scores)
    exam = prepare(Answering(vectors, None), TextDataset("pairs", split, split), None, 0, dimensions=(4,))
    exam.sit(Answering(vectors, "cosine"))
    found = {one.metric: one.value for one in exam.sit(Answering(long, by))}
    for name, mine in (("", long), ("@4d", long[:, :4])):
        table, theirs = similarity_table(mine, by or "cosine"), similarity_table(vectors, "cosine")
        upper = np.triu_indices(12, 1)
        assert found[f"spearman{name}"] == pytest.approx(spearmanr(table[upper], theirs[upper]).statistic)
        assert found[f"recall@10{name}"] == pytest.approx(neighbour_recall(table, theirs, 10).mean())
        near = [table[i, i + 6] for i in range(6)]
        assert found[f"sts_spearman{name}"] == pytest.approx(spearmanr(near, scores).statistic)
    assert (found["spearman"] > 0.999) == (by in ("cosine", None))
    other = prepare(Answering(vectors, "dot"), TextDataset("pairs", split, split), None, 0)
    other.sit(Answering(vectors, "dot"))
    unsaid, said = (other.figures(Answering(long, one)) for one in (None, "dot"))
    assert [one.value for one in unsaid] == [one.value for one in said], "as the reference's"


def test_pseudo_perplexity_by_hand():
    logits = np.log(np.array([[0.5, 0.5], [0.25, 0.75]]))
    assert pseudo_perplexity(likelihood(logits, np.array([0, 0]))) == pytest.approx(math.sqrt(1 / (0.5 * 0.25)))
    assert pseudo_perplexity(likelihood(np.zeros((3, 7)), np.array([0, 1, 2]))) == pytest.approx(7)


def exam_of(task, labels=None):
    encoder = tiny_encoder("bert", task)
    split = Split(tuple(sentences(30)), labels=labels)
    return encoder, prepare(encoder, TextDataset("salad", split, split), None, 0)


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
    assert exam.rows == again.rows and exam.hidden == again.hidden
    special = {encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id, encoder.tokenizer.pad_token_id}
    for row, at, truth in zip(exam.rows, exam.positions, exam.hidden, strict=True):
        assert at and all(row["input_ids"][i] == encoder.tokenizer.mask_token_id for i in at)
        assert not special & set(truth)


def test_masked_figures_equal_a_loop_over_texts():
    encoder, exam = exam_of("mlm")
    right, total, logs = 0, 0, 0.0
    for row, at, truth in zip(exam.rows, exam.positions, exam.hidden, strict=True):
        (out,) = encoder.predict([row])
        for i, token in zip(at, truth, strict=True):
            logits = out["logits"][i].astype(np.float64)
            right += int(logits.argmax() == token)
            logs += logits[token] - np.log(np.exp(logits).sum())
            total += 1
    found = {m.metric: m.value for m in exam.sit(encoder)}
    assert found["masked_accuracy"] == pytest.approx(right / total)
    assert found["pseudo_perplexity"] == pytest.approx(math.exp(-logs / total), rel=1e-4)


def with_other_tokens(encoder):
    """The same model behind another tokenizer: the word of id n is that of id n - 3, its embedding moved along."""
    import json

    import torch
    import transformers
    from tokenizers import Tokenizer

    given = json.loads(encoder.tokenizer.backend_tokenizer.to_str())
    vocab = given["model"]["vocab"]
    words = [word for word in vocab if not word.startswith("[")]
    ids = dict(zip(words, [vocab[word] for word in words[3:] + words[:3]], strict=True))
    given["model"]["vocab"] = vocab | ids
    names = ("cls_token", "sep_token", "pad_token", "unk_token", "mask_token")
    special = {name: getattr(encoder.tokenizer, name) for name in names}
    backend = Tokenizer.from_str(json.dumps(given))
    other = encoder.copy()
    other.tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_input_names=encoder.tokenizer.model_input_names, **special
    )
    table = other.model.get_input_embeddings().weight
    with torch.no_grad():
        table[[ids[word] for word in words]] = table[[vocab[word] for word in words]].clone()
    return other


@pytest.mark.parametrize(("task", "metric"), [("embedding", "spearman"), ("classification", "agreement")])
def test_each_model_reads_the_texts_with_its_own_tokenizer(task, metric):
    encoder, exam = exam_of(task)
    exam.sit(encoder)
    other = with_other_tokens(encoder)
    assert other.tokenize(["good film"]) != encoder.tokenize(["good film"])
    assert {m.metric: m.value for m in exam.sit(other)}[metric] == pytest.approx(1, abs=1e-4)


def test_masked_tokens_bind_models_to_one_vocabulary():
    encoder, exam = exam_of("mlm")
    exam.sit(encoder)
    with pytest.raises(UserError, match="tokenizes the dev texts differently"):
        exam.sit(with_other_tokens(encoder))


def test_a_model_of_shorter_inputs_reads_less():
    encoder = tiny_encoder()
    split = Split(tuple(sentences(12, shortest=50, longest=60)))
    exam = prepare(encoder, TextDataset("long", split, split), None, 0)
    exam.sit(encoder)
    short = tiny_encoder(max_position_embeddings=16)
    short.max_length = 16
    assert exam.sit(short)[0].metric == "agreement"


def test_classes_are_compared_by_name():
    import torch

    encoder, exam = exam_of("classification", tuple(["positive", "negative"] * 15))
    expected = {m.metric: m.value for m in exam.sit(encoder)}
    turned = encoder.copy()
    with torch.no_grad():
        for parameter in turned.model.classifier.parameters():
            parameter.copy_(parameter.flip(0).clone())
    turned.model.config.id2label = {0: "Positive", 1: "Negative"}
    assert {m.metric: m.value for m in exam.sit(turned)} == expected
    turned.model.config.id2label = {0: "good", 1: "bad"}
    with pytest.raises(UserError, match="has the classes `good`, `bad`, the first model `negative`, `positive`"):
        exam.sit(turned)


def test_outputs_that_are_not_finite_are_refused():
    import torch

    encoder, exam = exam_of("classification", tuple([0, 1] * 15))
    with torch.no_grad():
        encoder.model.classifier.bias.fill_(float("nan"))
    with pytest.raises(CheckFailed, match="not finite"):
        exam.sit(encoder)


@pytest.mark.parametrize("metric", ["accuracy", "agreement"])
def test_the_outcome_of_each_text_is_kept(metric):
    encoder = tiny_encoder("bert", "classification")
    other = tiny_encoder("bert", "classification", seed=1)
    texts = sentences(21, seed=5)
    labels = (*(("negative", "positive")[i % 2] for i in range(20)), None)
    split = Split(tuple(texts), labels=labels)
    exam = prepare(encoder, TextDataset("t", split, split), None, 0)
    exam.sit(encoder)
    found = {m.metric: m for m in exam.sit(other)}
    answers, theirs = (exam.answer(model).argmax(axis=1) for model in (other, encoder))
    right = [a == i % 2 for i, a in enumerate(answers[:20])] if metric == "accuracy" else list(answers == theirs)
    kept = found[metric].outcomes
    assert bits(kept.bits)[: kept.num].tolist() == [bool(one) for one in right]
    assert kept.num_right / kept.num == pytest.approx(found[metric].value)
    assert found["macro_f1"].outcomes is None
    changed = prepare(encoder, TextDataset("t", split, Split(tuple(texts), labels=("negative",) * 21)), None, 0)
    assert len({m.conditions.questions for m in found.values()}) == 1
    assert changed.questions != exam.questions, "other right answers are other questions"


def test_a_report_keeps_outcomes():
    measured = accuracy(outcomes(range(7)))
    again = Measurement.model_validate_json(measured.model_dump_json())
    assert again == measured
    assert again.outcomes.num_right == 872 - 7
