"""Sparse encoders (SPLADE): the vectors of sentence-transformers in every file made of one; what is refused."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("sentence_transformers")
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SpladePooling

from bertshrink.data.texts import Split, TextDataset
from bertshrink.engines.torch_session import pool
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.meters.quality import metrics
from bertshrink.meters.quality.evaluators import prepare
from bertshrink.meters.quality.similarities import similarity_table
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.encoder import Encoder
from bertshrink.model.folder.pooling import Pooling
from bertshrink.model.folder.side_files import write_modules
from bertshrink.model.folder.usage_snippet import usage
from bertshrink.model.model_ref import ModelRef
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.export import Export
from bertshrink.techniques.finetune import Finetune
from bertshrink.techniques.quantize import Quantize
from bertshrink.training.losses import expected_products
from tests.support.sentence_folders import TEXTS, edit, everything_made_of, ours
from tests.support.tiny import bench_of, sentences, tiny_encoder, tiny_pairs

TASK = "sparse-embedding"


def sparse_model(place, strategy="max", activation="relu", family="bert"):
    """A folder as sentence-transformers itself saves it."""
    raw = place.parent / f"{place.name}-raw"
    raw.mkdir()
    tiny_encoder(family, "mlm").save(raw)
    transformer = Transformer(str(raw), transformer_task="fill-mask")
    pooling = SpladePooling(strategy, activation_function=activation)
    SparseEncoder(modules=[transformer, pooling], device="cpu").save(str(place))
    return place


def products(vectors):
    return similarity_table(vectors, "dot")


def theirs(folder, texts=TEXTS):
    model = SparseEncoder(str(folder), device="cpu")
    return model.encode(texts, convert_to_sparse_tensor=False, show_progress_bar=False).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "activation", "family"),
    [
        ("max", "relu", "distilbert"),
        ("sum", "relu", "bert"),
        ("max", "log1p_relu", "roberta"),
        ("sum", "log1p_relu", "bert"),
    ],
)
def test_every_pooling_gives_the_vectors_of_sentence_transformers(strategy, activation, family, tmp_path):
    folder = sparse_model(tmp_path / "m", strategy, activation, family)
    facts = read_facts(folder)
    assert (facts.task, facts.sentence.kind) == (TASK, "sparse")
    wanted = theirs(folder)
    assert 0 < (wanted != 0).mean() < 1, "some numbers are 0, and not all"
    for model in everything_made_of(folder, tmp_path):
        assert model.task == TASK
        assert ours(model).shape == wanted.shape
        assert np.allclose(ours(model), wanted, atol=1e-5), type(model)
        assert np.array_equal(ours(model) != 0, wanted != 0), "the same numbers are 0"
    assert np.allclose(theirs(tmp_path / "student"), wanted, atol=1e-5), "the saved folder says the same"
    assert "SparseEncoder(" in usage(ModelRef.read(tmp_path / "student"), "student")


def test_padding_is_left_out():
    logits, mask = torch.randn(2, 4, 9), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    for mode in ("splade_max", "splade_sum", "splade_max_log1p", "splade_sum_log1p"):
        whole = pool(logits, mask, mode, False)
        alone = pool(logits[1:, :2], mask[1:, :2], mode, False)
        assert torch.allclose(whole[1:], alone, atol=1e-6), mode


def test_the_folders_of_version_5(tmp_path):
    """MLMTransformer by its old places, no `transformer_task`, and the older name of the size."""
    folder = sparse_model(tmp_path / "m")
    wanted = theirs(folder)
    listed = json.loads((folder / "modules.json").read_text())
    for module, name in zip(listed, ("MLMTransformer", "SpladePooling"), strict=True):
        module["type"] = f"sentence_transformers.sparse_encoder.models.{name}"
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 64, "do_lower_case": false}')
    said = {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": None}
    (folder / listed[1]["path"] / "config.json").write_text(json.dumps(said))
    assert np.allclose(ours(Encoder.load(folder)), wanted, atol=1e-5)
    assert np.allclose(theirs(folder), wanted, atol=1e-5)


@pytest.mark.slow
def test_only_the_largest_numbers_stay(tmp_path):
    """`max_active_dims`: in PyTorch, in a file, and again where the folder's settings have to be written anew."""
    folder = sparse_model(tmp_path / "m")
    whole = theirs(folder)
    edit(folder / "config_sentence_transformers.json", max_active_dims=5)
    wanted = theirs(folder)
    assert ((wanted != 0).sum(axis=1) == 5).all() and ((whole != 0).sum(axis=1) > 5).all()
    assert any("`max_active_dims`" in note for note in read_facts(folder).notes)
    made = everything_made_of(folder, tmp_path)
    for model in made:
        assert np.allclose(ours(model), wanted, atol=1e-5), type(model)
        assert np.array_equal(ours(model) != 0, wanted != 0)
    assert made[-1].card.pooling == ("splade_max", False, None, 0, 5)
    for name in ("modules.json", "config_sentence_transformers.json"):
        (tmp_path / "exported" / name).unlink()
    write_modules(tmp_path / "exported", Pooling(*made[-1].card.pooling), 32, 64)
    assert json.loads((tmp_path / "exported" / "config_sentence_transformers.json").read_text())["max_active_dims"] == 5


@pytest.mark.slow
def test_a_masked_model_can_be_used_as_one(tmp_path):
    """Without modules of its own it is pooled as SPLADE, with a note, and saved as a sparse encoder."""
    (tmp_path / "m").mkdir()
    tiny_encoder("bert", "mlm").save(tmp_path / "m")
    assert "SPLADE" in " ".join(read_facts(tmp_path / "m", TASK).notes)
    encoder = Encoder.load(tmp_path / "m", TASK)
    (tmp_path / "out").mkdir()
    encoder.save(tmp_path / "out")
    assert np.allclose(theirs(tmp_path / "out"), ours(encoder), atol=1e-5)
    assert read_facts(tmp_path / "out").task == TASK
    assert read_facts(tmp_path / "out", "mlm").pooling is None


@pytest.mark.slow
def test_the_head_is_quantized_with_the_rest(tmp_path):
    encoder = Encoder.load(sparse_model(tmp_path / "m"))
    exported = Export()(encoder, bench_of(encoder, tmp_path / "export", texts=None))
    made = Quantize(min_cosine=0.5)(exported, bench_of(encoder, tmp_path / "quantize", texts=None))
    assert made.card.task == TASK and made.card.outputs == ("sentence_embedding",)
    assert set(made.card.details["accounting"]["matmuls"]) == {"activations", "int8-dynamic"}
    texts = sentences(20, seed=4)
    before, after = ours(encoder, texts), ours(made, texts)
    assert metrics.neighbour_recall(products(after), products(before), 5).mean() > 0.7


@pytest.mark.training
def test_a_narrower_student_learns_the_vectors(tmp_path):
    teacher = Encoder.load(sparse_model(tmp_path / "m"))
    student = Distill(layers=2, hidden_size=16, heads=2, epochs=1)(teacher.copy(), bench_of(teacher, tmp_path / "work"))
    (tmp_path / "out").mkdir()
    student.save(tmp_path / "out")
    assert student.shape.hidden_size == 16
    assert np.allclose(theirs(tmp_path / "out"), ours(student), atol=1e-5)


@pytest.mark.training
def test_fine_tuning_keeps_vectors_sparse(tmp_path, monkeypatch):
    """What it costs is a search's products, too: with a heavier weight fewer numbers are left."""
    texts = TextDataset("pairs", tiny_pairs(16, 1), tiny_pairs(8, 2))
    active = []
    for weight in (0.0, 1.0):
        monkeypatch.setattr("bertshrink.training.losses.SPARSITY", weight)
        encoder = tiny_encoder("bert", TASK)
        bench = bench_of(encoder, tmp_path / f"work{weight}", texts=texts)
        made = Finetune(epochs=6, learning_rate=1e-3)(encoder, bench)
        active.append(expected_products(torch.from_numpy(ours(made))).item())
    assert active[1] < 0.7 * active[0]


def test_products_and_terms_decide():
    reference = np.array([[0, 0, 3, 1], [0, 2, 0, 0], [0, 1, 4, 0], [5, 0, 0, 0]], dtype=np.float32)
    exam_rows = reference.copy()
    exam_rows[0] = [0, 3, 0, 1]
    assert metrics.term_overlap(exam_rows, reference, 2).tolist() == [0.5, 1, 1, 1]
    assert metrics.term_overlap(np.zeros_like(reference), reference, 2).tolist() == [0, 0, 0, 0]
    assert metrics.term_overlap(np.zeros((1, 4)), np.zeros((1, 4)), 2).tolist() == [1]
    # Text 0's nearest was 2 (12 against 0), and is 1 now; 1's was 2 (2), and is 0 (6); 2's was 0, and is 0 (3 of 3, 2).
    found = metrics.neighbour_recall(products(exam_rows), products(reference), 1)
    assert found.tolist()[:3] == [0, 0, 1]
    long = reference * np.array([[1], [100], [1], [1]], dtype=np.float32)
    assert metrics.neighbour_recall(products(long), products(reference), 1)[0] == 1
    assert not np.allclose(products(long), products(reference)), "length counts, unlike in cosines"


def test_the_reference_is_the_scale(tmp_path):
    encoder, other = tiny_encoder("bert", TASK), tiny_encoder("bert", TASK, seed=3)
    texts = Split(tuple(sentences(24, seed=2)))
    exam = prepare(encoder, TextDataset("salad", texts, texts), None, 0)
    found = {m.metric: m.value for m in exam.sit(encoder)}
    assert (found["recall@10"], found["term_overlap"]) == (1, 1)
    assert found["active_dimensions"] == pytest.approx((ours(encoder, texts.texts) > 0).sum(axis=1).mean())
    again = {m.metric: m.value for m in exam.sit(other)}
    assert again["recall@10"] < 1 and again["term_overlap"] < 1


@pytest.mark.parametrize("kind", ["SparseAutoEncoder", "SparseStaticEmbedding", "Router", "Normalize", "Pooling"])
def test_other_modules_are_refused_by_name(kind, tmp_path):
    folder = sparse_model(tmp_path / "m")
    listed = json.loads((folder / "modules.json").read_text())
    listed.append({"idx": 2, "name": "2", "path": f"2_{kind}", "type": f"sentence_transformers.models.{kind}"})
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(UserError, match=f"`{kind}`") as caught:
        read_facts(folder)
    assert "SpladePooling" in caught.value.hint


@pytest.mark.parametrize(
    ("file", "values", "word"),
    [
        ("config_sentence_transformers.json", {"max_active_dims": 0}, "`max_active_dims` is `0`"),
        ("1_SpladePooling/config.json", {"pooling_strategy": "mean"}, "by `mean`"),
        ("1_SpladePooling/config.json", {"activation_function": "gelu"}, "of `gelu`"),
        ("1_SpladePooling/config.json", {"chunk": 3}, "`chunk`"),
        ("sentence_bert_config.json", {"transformer_task": "feature-extraction"}, "`feature-extraction`"),
    ],
)
def test_settings_that_would_change_the_vectors(file, values, word, tmp_path):
    folder = sparse_model(tmp_path / "m")
    edit(folder / file, **values)
    with pytest.raises((UserError, UnsafeModel)) as caught:
        read_facts(folder)
    assert word in caught.value.what and caught.value.where and caught.value.hint
