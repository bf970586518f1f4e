"""Static int8: ranges from texts without their padding, bytes as a plain version has them, scales moved exactly."""

import numpy as np
import pytest

from bertshrink.data.texts import Split, TextDataset
from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import initializers
from bertshrink.onnx_graph.weights import weights
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.export.fixed_shape import fix_shape
from bertshrink.techniques.quantize import Quantize
from bertshrink.techniques.quantize.calibration.observe import ActivationObserver
from bertshrink.techniques.quantize.calibration.prepare import gram_matrices, ranges
from bertshrink.techniques.quantize.calibration.smooth_graph import migrate
from bertshrink.techniques.quantize.numerics.int8 import quantize_matrix
from bertshrink.techniques.quantize.numerics.ranges import activation_scale
from bertshrink.techniques.quantize.rewrite import rewrite
from bertshrink.techniques.quantize.writers.builder import RewriteOptions
from tests.support.quantizing import activations, calibration, dense_graph, difference, graph, rows, session
from tests.support.tiny import sentences, tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("per_channel", [True, False])
def test_oracle_of_the_graph(per_channel, tied):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(20, 8)).astype(np.float32)
    table[:, 1::2] = 0  # older CPUs add neighbouring products in 16 bits; with every other one zero nothing overflows
    weight = table.T.copy() if tied else np.where(np.arange(8)[:, None] % 2, 0, rng.normal(size=(8, 6)))
    weight, bias = weight.astype(np.float32), rng.normal(size=weight.shape[1]).astype(np.float32)
    low, high = -1.5, 2.5  # narrower than the values: the rest is cut off
    types = {"table": "int8-static"} | ({} if tied else {"weight": "int8-static"})
    made = options = RewriteOptions(per_channel=per_channel, ranges={"rows": (low, high)})
    made = rewrite(dense_graph(weight, bias, table, tied=tied), types, options)
    ids = rng.integers(0, 20, size=(2, 5))
    (found,) = session(made.model).run(None, {"input_ids": ids})

    scale, zero = activation_scale(low, high)
    x = quantize_matrix(table, 1).dequantize()[ids]
    steps = np.clip(np.rint(x / scale) + zero, 0, 255) - float(zero)
    w = quantize_matrix(weight, 0 if per_channel or tied else None)
    expected = (steps @ w.bytes_IO.astype(np.float64)) * float(scale) * w.scale + bias
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert made.accounting.matmuls == {"int8-static": 1}


def test_padding_is_not_calibrated_with(tmp_path):
    source = graph("bert", "token-classification")
    names = activations(source)
    given = rows(6)
    together = ranges(source, names, ActivationObserver(given, 0, tmp_path, True), "min-max")
    alone = [ranges(source, names, ActivationObserver([row], 0, tmp_path, True), "min-max") for row in given]
    for name in names:
        least, most = min(found[name][0] for found in alone), max(found[name][1] for found in alone)
        assert together[name] == pytest.approx((least, most), abs=1e-4)
    assert list(tmp_path.iterdir()) == [], "the file that was run is gone"


def test_a_graph_of_one_shape_is_calibrated_alike(tmp_path):
    source, texts = graph("bert", "token-classification"), ActivationObserver(rows(6), 0, tmp_path, True)
    longest = max(len(row["input_ids"]) for row in texts.rows)
    names = activations(source)
    expected = ranges(source, names, texts, "min-max")
    for shape in ((1, longest), (4, longest + 3)):  # four rows at a time: of six, two passes, the second one filled up
        found = ranges(fix_shape(source, *shape), names, texts, "min-max")
        for name in names:
            assert found[name] == pytest.approx(expected[name], abs=1e-4)


def test_gram_matrices_are_sums_over_tokens_and_over_readers(tmp_path, monkeypatch):
    source = graph("albert", "embedding", num_hidden_groups=1)
    chosen = {name: weight for name, weight in weights(source).items() if weight.matmuls}
    texts = calibration(tmp_path, family="albert")
    found = {name: np.array(gram) for name, gram in gram_matrices(source, chosen, texts)}
    seen = {name: [] for name in activations(source)}
    texts.watch(source, {name: batches.append for name, batches in seen.items()})
    for name, weight in chosen.items():
        read = np.concatenate([np.concatenate(seen[m.node.input[0]]) for m in weight.matmuls]).astype(np.float64)
        assert len(read) == texts.num_tokens * len(weight.matmuls)
        np.testing.assert_allclose(found[name], read.T @ read, rtol=1e-4, atol=1e-3)
    monkeypatch.setattr("bertshrink.techniques.quantize.calibration.prepare._GRAM_BYTES", 1)  # a group for each weight
    for name, gram in gram_matrices(source, chosen, texts):
        np.testing.assert_allclose(gram, found[name], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra"])
def test_moving_scales_changes_nothing_in_float(family, tmp_path):
    source = graph(family, "token-classification")
    before = source.SerializeToString(deterministic=True)
    moved = migrate(source, calibration(tmp_path, 12, family), 0.5)
    assert source.SerializeToString(deterministic=True) == before
    # of each layer: what query, key and value read, the mix of values, and what the intermediate layer reads; electra's
    # first layer reads the embeddings' projection, which is not a norm's, while that itself reads a norm
    assert moved.num_smoothed == 3 * 2 + 1, "and what the classifier reads"
    assert moved.num_activations == 4 * 2 + 1 + (family == "electra")
    assert moved.num_muls == 2 * 2 - (family == "electra"), "residual paths; the last norm has none"
    assert difference(source, moved.model, family) < 1e-5
    changed = {n for n, s in initializers(source).items() if s != initializers(canonicalise(moved.model)).get(n)}
    dense = {name for name, weight in weights(source).items() if weight.matmuls and "output.dense" not in name}
    assert len(changed & dense) > 0
    assert set(weights(canonicalise(moved.model))) == set(weights(source))


@pytest.mark.slow
def test_moving_scales_between_shared_layers(tmp_path):
    source = graph("albert", "embedding", num_hidden_layers=3, num_hidden_groups=1)
    moved = migrate(source, calibration(tmp_path, 12, "albert"), 0.5)
    # what query, key and value read is in the first layer a projection's, so in none; the tables' projection, and three
    # times the mix and what the intermediate layer reads, are smoothed
    assert (moved.num_smoothed, moved.num_activations, moved.num_muls) == (1 + 2 * 3, 1 + 4 * 3, 3)
    assert difference(source, moved.model, "albert") < 1e-5
    assert set(weights(canonicalise(moved.model))) == set(weights(source))


def test_a_table_is_not_smoothed(tmp_path):
    source = graph("bert", "mlm")
    moved = migrate(source, calibration(tmp_path), 0.5)
    head = next(
        weight.matmuls[0].node.input[0] for weight in weights(source).values() if weight.gathers and weight.matmuls
    )
    table = next(name for name, weight in weights(source).items() if weight.gathers and weight.matmuls)
    assert initializers(moved.model)[table] == initializers(source)[table]
    assert any(head in node.output for node in moved.model.graph.node)
    assert difference(source, moved.model) < 1e-5


@pytest.mark.slow
def test_outliers_are_tamed(tmp_path):
    encoder = tiny_encoder("bert", "embedding", num_hidden_layers=2)
    with_outlier = tiny_encoder("bert", "embedding", num_hidden_layers=2)
    for layer in with_outlier.model.encoder.layer:
        layer.attention.output.LayerNorm.weight.data[3] = 40.0
    assert encoder.shape == with_outlier.shape
    bench = Workbench(TextDataset("salad", Split(tuple(sentences(40))), Split(tuple(sentences(20, 1)))), None, tmp_path)
    artifact = Export()(with_outlier, bench)
    cosine = {}
    for smooth in (None, 0.6):
        found = Quantize(scheme="static-int8", smoothquant_alpha=smooth, min_cosine=-1, embeddings="float32")(
            artifact, bench
        )
        cosine[smooth] = found.card.details["agreement"]["cosine"]
    assert 1 - cosine[0.6] < 0.7 * (1 - cosine[None])


@pytest.mark.slow
@pytest.mark.parametrize("smooth", [None, 0.5])
def test_the_technique(smooth, tmp_path):
    train = Split(tuple(sentences(40)))
    bench = Workbench(TextDataset("salad", train, Split(tuple(sentences(20, 1)))), None, tmp_path)
    artifact = Export()(tiny_encoder("bert", num_hidden_layers=2), bench)
    settings = {"scheme": "static-int8", "smoothquant_alpha": smooth, "calibration_examples": 10, "min_cosine": 0.5}
    found = Quantize(**settings, rounding="gptq")(artifact, bench)
    tokens = sum(len(row["input_ids"]) for row in artifact.tokenize(train.first(10).texts))
    facts = found.card.details["calibration"]
    assert (facts["num_texts"], facts["num_tokens"], facts["ranges"]) == (10, tokens, "percentile")
    assert facts["num_gptq"] == 2 * 6 + 2
    assert found.card.precision == "int8"
    assert found.card.details["accounting"]["matmuls"] == {"activations": 4, "int8-static": 2 * 6 + 2}
    assert any("10 training texts" in note for note in bench.notes)
    assert any("(SmoothQuant)" in note for note in bench.notes) == (smooth is not None)
    again = Quantize(**settings, rounding="gptq")(artifact, Workbench(bench.texts, None, tmp_path / "again"))
    assert again.file.read_bytes() == found.file.read_bytes()


def test_without_texts_its_own_sentences_serve(tmp_path):
    bench = Workbench(None, None, tmp_path)
    artifact = Export()(tiny_encoder("bert", num_hidden_layers=1), bench)
    Quantize(scheme="static-int8", min_cosine=-1)(artifact, bench)
    assert any("built-in sentences, because no texts are named" in note for note in bench.notes)
