"""Outlier features: nothing changes in float, and int8 keeps what one large input would take from all others."""

import numpy as np
import onnx
import pytest
import torch

from bertshrink.data.texts import Split, TextDataset
from bertshrink.engines import engine
from bertshrink.model.batches import pad
from bertshrink.onnx_graph.encoder_graph import array, initializers, tensor
from bertshrink.onnx_graph.weights import weights
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.quantize import Quantize
from bertshrink.techniques.quantize.apply import read_source
from bertshrink.techniques.quantize.calibration.outlier_features import Outliers, find_outliers, split_outliers
from bertshrink.techniques.quantize.rewrite import rewrite
from tests.support.quantizing import activations, calibration, difference, graph
from tests.support.tiny import sentences, tiny_encoder

NEURONS = ("Gelu_output_0", "Relu_output_0")

pytestmark = pytest.mark.usefixtures("one_thread")


def with_outliers(family="bert", task="embedding"):
    """A tiny encoder in which one feature behind each norm, and one neuron, is always large."""
    encoder = tiny_encoder(family, task, num_hidden_layers=2)
    with torch.no_grad():
        for layer in encoder.model.get_submodule(encoder.prefix.rstrip(".")).encoder.layer:
            layer.attention.output.LayerNorm.weight[3] = 60
            layer.intermediate.dense.weight[:, 3] *= 0.02
            layer.intermediate.dense.bias[7] = 90
            layer.output.dense.weight[:, 7] *= 0.01
    return encoder


def bench_with(folder):
    texts = TextDataset("salad", Split(tuple(sentences(40))), Split(tuple(sentences(20, 1))))
    return Workbench(texts, None, folder)


def planted(model, value):
    """The features that are large in an activation of `with_outliers`."""
    return [7] if "intermediate" in value else [3] if "attention/output" in value else []


def all_dense(model):
    return [name for name, weight in weights(model).items() if weight.matmuls]


def test_the_large_inputs_are_found_and_no_others(tmp_path):
    bench = bench_with(tmp_path)
    artifact = Export()(with_outliers(), bench)
    model = read_source(artifact)
    found = find_outliers(model, all_dense(model), calibration(tmp_path))
    wanted = {value: places for value in activations(model) if (places := planted(model, value))}
    assert {value: one.places.tolist() for value, one in found.items()} == wanted
    assert {value for value, one in found.items() if one.times is None} == {
        value for value in wanted if "Gelu" in value
    }
    assert all(one.times.tolist() == [8] for one in found.values() if one.times is not None)
    assert len(wanted) == 4
    assert not find_outliers(model, [], calibration(tmp_path))


@pytest.mark.parametrize(
    ("family", "task", "function"),
    [
        ("bert", "embedding", "gelu"),
        ("albert", "classification", "gelu"),
        ("albert", "classification", "gelu_new"),
        ("bert", "mlm", "relu"),
    ],
)
def test_nothing_changes_in_float_and_weights_keep_their_names(family, task, function):
    model = graph(family, task, hidden_act=function)
    places, times = np.array([1, 4]), np.array([2, 8])
    of_layers = [value for value in activations(model) if "cls" not in value and "predictions" not in value]
    chosen = {value: Outliers(places, None if value.endswith(NEURONS) else times) for value in of_layers}
    split = split_outliers(model, chosen)
    assert difference(model, split, family) < 1e-5
    before, after = initializers(model), initializers(split)
    copied, neurons = set(), set()
    for name, weight in weights(model).items():
        for read in weight.matmuls:
            if read.node.input[0] in chosen:
                (neurons if chosen[read.node.input[0]].times is None else copied).add(name)
    assert (bool(copied), bool(neurons)) == (True, function != "gelu_new")
    for name in copied:
        assert after[name].dims[0] == before[name].dims[0] + 1 + 7
        np.testing.assert_array_equal(array(after[name])[-7:, 0], [array(before[name])[4, 0]] * 7)
    for name in neurons:
        assert not array(after[name])[places].any()
        np.testing.assert_array_equal(array(after[f"{name}.outliers"]), array(before[name])[places])
    assert weights(model).keys() <= weights(split).keys()


def test_a_bias_that_two_layers_share_is_whole_in_each():
    model = graph()  # all of a fresh model's biases are zeros, stored once
    gelus = [value for value in activations(model) if value.endswith(NEURONS)]
    chosen = {value: Outliers(np.array([at]), None) for at, value in enumerate(gelus)}
    assert len(chosen) == 2
    assert difference(model, split_outliers(model, chosen)) < 1e-5


def test_activations_that_share_a_weight_share_their_features(tmp_path):
    model = onnx.ModelProto()
    model.CopyFrom(graph("albert", hidden_act="gelu", num_hidden_groups=1))
    values = [value for value in activations(model) if value.endswith(NEURONS)]
    stored = initializers(model)
    (first,) = (name for name in stored if name.endswith(".ffn.weight.T"))
    pushed = array(stored[first]).copy()
    pushed[:, 5] *= 400
    stored[first].CopyFrom(tensor(pushed, first))
    found = find_outliers(model, all_dense(model), calibration(tmp_path, family="albert"))
    assert len(values) == 2
    assert all(found[value].places.tolist() == [5] and found[value].times is None for value in values)
    assert difference(model, split_outliers(model, found), "albert") < 1e-4


def test_a_table_that_is_multiplied_with_stays_one(tmp_path):
    model = graph("bert", "mlm")
    (table,) = [name for name, weight in weights(model).items() if weight.is_table and weight.matmuls]
    value = weights(model)[table].matmuls[0].node.input[0]
    assert value not in find_outliers(model, all_dense(model), calibration(tmp_path))


@pytest.mark.parametrize("scheme", ["dynamic-int8", "static-int8"])
def test_int8_keeps_what_large_inputs_take(scheme, tmp_path):
    bench = bench_with(tmp_path)
    encoder = with_outliers()
    artifact = Export()(encoder, bench)
    cosine, notes = {}, {}
    for choice in ("round", "keep", "auto"):
        bench.notes.clear()
        made = Quantize(scheme=scheme, outlier_features=choice, embeddings="float32", min_cosine=-1)(artifact, bench)
        cosine[choice], notes[choice] = made.card.details["agreement"]["cosine"], " ".join(bench.notes)
        assert made.card.details["calibration"].get("num_outlier_features", 0) == (0 if choice == "round" else 4)
    assert cosine["round"] < 0.99
    assert 1 - cosine["keep"] < 0.3 * (1 - cosine["round"])
    assert cosine["auto"] == cosine["keep"]
    assert "4 inputs of dense layers, in 4 activations" in notes["auto"]
    assert f"without that, the cosine of outputs is {cosine['round']:.4f}" in notes["auto"]
    assert "far larger" not in notes["round"]
    feeds = pad(encoder.tokenize(sentences(3)), 0)
    vectors = engine("onnxruntime").load(str(made.file)).run(feeds)["sentence_embedding"]
    assert np.isfinite(vectors).all()


def test_where_int8_serves_nothing_is_looked_for(tmp_path, monkeypatch):
    bench = bench_with(tmp_path)
    artifact = Export()(tiny_encoder("bert", "embedding", num_hidden_layers=1), bench)
    made = Quantize()(artifact, bench)
    assert made.card.details["agreement"]["cosine"] > 0.99
    assert "num_outlier_features" not in made.card.details["calibration"]


def test_without_outliers_the_graph_is_the_plain_one(tmp_path):
    model = graph()
    types = dict.fromkeys(all_dense(model), "int8-dynamic")
    assert rewrite(split_outliers(model, {}), types).model == rewrite(model, types).model
