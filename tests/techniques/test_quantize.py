"""Quantize: the technique as a whole, and dynamic int8 in particular against a slow plain version."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bertshrink.data.texts import Split, TextDataset
from bertshrink.engines import engine
from bertshrink.errors import CheckFailed, UnsafeModel, UserError
from bertshrink.model.artifact import Artifact
from bertshrink.onnx_graph.encoder_graph import (
    array,
    initializers,
    operators,
    read_model,
    tensor,
    weight_matmuls,
    write_model,
)
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.output_cosine import cosine, dev_texts
from bertshrink.techniques.quantize import Quantize
from bertshrink.techniques.quantize import rewrite as rewrite_module
from bertshrink.techniques.quantize.float_graph import refuse_quantized
from bertshrink.techniques.quantize.numerics.int8 import quantize_matrix
from bertshrink.techniques.quantize.similarity import SENTENCES, OutputSimilarity, same_label
from bertshrink.techniques.quantize.size_estimate import SCHEMES
from bertshrink.techniques.quantize.writers.builder import RewriteOptions
from tests.support.tiny import EACH_FAMILY_AND_TASK, sentences, tiny_encoder

PRECISIONS = ("int8", "int8", "int8", "int4", "float16", "bfloat16")
ANY = -1.0  # tiny random models are noise amplifiers: these tests look at the file, not at how well int8 suits them


pytestmark = pytest.mark.usefixtures("one_thread")


def export(encoder, folder):
    return Export()(encoder, Workbench(None, None, folder))


def quantize(artifact, folder, **settings):
    return Quantize(**settings)(artifact, Workbench(None, None, folder))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return export(tiny_encoder("bert", "embedding"), tmp_path_factory.mktemp("plain"))


# the numbers


@pytest.mark.parametrize("axis", [0, 1, None])
def test_oracle_of_the_numbers(axis):
    weight = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    found = quantize_matrix(weight, axis)
    for i in range(5):
        for o in range(7):
            group = {0: weight[:, o], 1: weight[i, :], None: weight}[axis]
            scale = np.float32(np.abs(group).max()) / np.float32(127)
            expected = round(float(weight[i, o] / scale))
            assert found.bytes_IO[i, o] == expected
            assert found.dequantize()[i, o] == np.float32(expected) * scale
    assert found.scale.shape == {0: (1, 7), 1: (5, 1), None: (1, 1)}[axis]
    assert np.all(np.abs(found.dequantize() - weight) <= found.scale / 2 * 1.0001)


def test_numbers_that_bytes_hold_come_back_exactly():
    steps = np.random.default_rng(0).integers(-127, 128, size=(6, 4))
    steps[0] = 127
    weight = (steps * np.float32(0.25)).astype(np.float32)
    assert np.array_equal(quantize_matrix(weight, 0).dequantize(), weight)


def test_a_column_of_zeros_stays_zero():
    found = quantize_matrix(np.zeros((3, 2), dtype=np.float32), 0)
    assert np.all(np.isfinite(found.scale))
    assert not found.dequantize().any()


# the graph


def dense_graph(weight, table):
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask_BL1"]),
        helper.make_node("Mul", ["rows", "mask_BL1"], ["x"]),
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
    ]
    ids = [helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "l"]) for n in ("input_ids", "attention_mask")]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "l", weight.shape[1]])
    bias = np.arange(weight.shape[1], dtype=np.float32)
    stored = {"weight": weight, "table": table, "bias": bias, "last": np.array([-1])}
    graph = helper.make_graph(nodes, "g", ids, [output], [tensor(value, name) for name, value in stored.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def in_int8(model, options=None):
    return rewrite_module.rewrite(model, dict.fromkeys(("weight", "table"), "int8-dynamic"), options)


@pytest.mark.parametrize("per_channel", [True, False])
def test_oracle_of_the_graph(per_channel, tmp_path):
    rng = np.random.default_rng(0)
    weight, table = rng.normal(size=(8, 6)).astype(np.float32), rng.normal(size=(20, 8)).astype(np.float32)
    weight[1::2] = 0  # older CPUs add neighbouring products in 16 bits; with every other one zero nothing overflows
    found = in_int8(dense_graph(weight, table), RewriteOptions(per_channel=per_channel))
    write_model(found.model, tmp_path / "m.onnx")
    ids = rng.integers(0, 20, size=(2, 5))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    logits = engine("onnxruntime").load(str(tmp_path / "m.onnx")).run(feeds)["logits"]

    x = quantize_matrix(table, 1).dequantize()[ids]
    low, high = min(0, x.min()), max(0, x.max())
    scale = (high - low) / 255
    zero = np.rint(np.clip(-low / scale, 0, 255))
    x_bytes = np.clip(np.rint(x / scale) + zero, 0, 255)
    w = quantize_matrix(weight, 0 if per_channel else None)
    expected = ((x_bytes - zero) @ w.bytes_IO.astype(np.float64)) * scale * w.scale + np.arange(6)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    assert found.accounting.matmuls == {"int8-dynamic": 1}
    assert found.accounting.gathers == {"int8-rows": 1}


def test_the_tables_rows_are_what_the_graph_looks_up(tmp_path):
    rng = np.random.default_rng(1)
    table = rng.normal(size=(20, 8)).astype(np.float32) * rng.lognormal(size=(20, 1)).astype(np.float32)
    model = in_int8(dense_graph(np.eye(8, dtype=np.float32), table)).model
    model.graph.output.append(helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["b", "l", 8]))
    write_model(model, tmp_path / "m.onnx")
    ids = np.arange(20)[None]
    found = engine("onnxruntime").load(str(tmp_path / "m.onnx")).run({"input_ids": ids, "attention_mask": ids})
    assert np.array_equal(found["rows"][0], quantize_matrix(table, 1).dequantize())
    assert np.all(np.abs(found["rows"][0] - table) <= np.abs(table).max(axis=1, keepdims=True) / 253)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "task"),
    [*EACH_FAMILY_AND_TASK, ("bert", "embedding"), ("bert", "mlm"), ("albert", "mlm"), ("roberta", "mlm")],
)
def test_every_family_and_task(family, task, tmp_path):
    encoder = tiny_encoder(family, task, num_hidden_layers=2)
    artifact = export(encoder, tmp_path)
    source = read_model(artifact.file)
    found = Artifact.load(quantize(artifact, tmp_path, min_cosine=ANY).folder)
    kinds = operators(read_model(found.file))
    counted = found.card.details["accounting"]["matmuls"]
    assert kinds["MatMulInteger"] == len(weight_matmuls(source)) == counted["int8-dynamic"]
    products = 4 if encoder.anatomy.attention == "disentangled" else 2
    assert kinds["MatMul"] == counted["activations"]
    if encoder.anatomy.layer is not None:
        assert kinds["MatMul"] == products * encoder.shape.num_layers
    assert not weight_matmuls(read_model(found.file))
    assert found.card.precision == "int8"
    assert found.card.lineage == ("export", "quantize")
    rows = encoder.tokenize(sentences(5))
    name = found.card.outputs[-1]
    ours, theirs = ([row[name].ravel() for row in model.predict(rows)] for model in (found, artifact))
    assert [row.shape for row in ours] == [row.shape for row in theirs]
    ours, theirs = np.concatenate(ours), np.concatenate(theirs)
    assert np.linalg.norm(ours - theirs) < 0.4 * np.linalg.norm(theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "precision"), [*zip(SCHEMES, PRECISIONS, strict=True)])
def test_every_scheme(scheme, precision, plain, tmp_path):
    bench = Workbench(None, None, tmp_path)
    made = Quantize(scheme=scheme, min_cosine=0.3)(plain, bench)
    found = Artifact.load(made.folder)
    assert (found.card.precision, found.card.details["scheme"]) == (precision, scheme)
    assert any(f"dense layers: 24 {SCHEMES[scheme]}; lookups: " in note for note in bench.notes)
    assert any("speed and memory are those of float32" in note for note in bench.notes) == scheme.endswith("float16")
    assert found.file.stat().st_size < plain.file.stat().st_size
    rows = plain.tokenize(sentences(5))
    ours, theirs, again = (
        np.stack([row["sentence_embedding"] for row in model.predict(rows)]) for model in (found, plain, made)
    )
    assert np.array_equal(ours, again)
    assert cosine(ours, theirs) > 0.3
    assert Quantize(scheme=scheme).label().startswith("quantize to ")


def test_query_key_and_value_share_one_activation(plain, tmp_path):
    kinds = operators(read_model(quantize(plain, tmp_path, min_cosine=ANY).file))
    # per layer: one for query, key and value, and one each for attention output, intermediate and output
    assert kinds["DynamicQuantizeLinear"] == 4 * 4
    assert kinds["MatMulInteger"] == 4 * 6


@pytest.mark.slow
def test_bytes_of_a_realistic_proportion(tmp_path):
    more = {"hidden_size": 64, "intermediate_size": 256, "vocab_size": 8000, "num_hidden_layers": 3}
    artifact = export(tiny_encoder("bert", "embedding", **more), tmp_path)
    found = quantize(artifact, tmp_path, min_cosine=ANY)
    by_type = found.card.details["bytes_by_type"]
    assert by_type["int8"] > 10 * by_type["float32"]
    assert found.file.stat().st_size <= 0.36 * artifact.file.stat().st_size  # 64 wide: scales and names weigh more
    unshrunk = quantize(artifact, tmp_path / "float_tables", min_cosine=ANY, embeddings="float32")
    assert "int8-rows" not in unshrunk.card.details["accounting"]["gathers"]
    assert unshrunk.card.details["bytes_by_type"]["float32"] > 8000 * 64 * 4
    assert unshrunk.card.precision == "float32+int8"


def test_equal_bytes_from_equal_files(plain, tmp_path):
    first, second = (quantize(plain, tmp_path / name, min_cosine=ANY) for name in "ab")
    assert first.file.read_bytes() == second.file.read_bytes()


def test_the_float_artifact_is_left_as_it_was(plain, tmp_path):
    before = plain.file.read_bytes()
    quantize(plain, tmp_path, min_cosine=ANY)
    assert plain.file.read_bytes() == before


# the checks


def test_agreement_is_measured_on_the_dev_texts(plain, tmp_path):
    dev = Split(tuple(sentences(100)), tuple(sentences(100, seed=1)))
    bench = Workbench(TextDataset("pairs", dev, dev), None, tmp_path)
    found = Quantize(min_cosine=ANY)(plain, bench)
    agreement = found.card.details["agreement"]
    assert agreement["num_texts"] == 64
    tokens = plain.tokenize(dev.texts[:64], dev.pairs[:64])
    pairs = zip(plain.predict(tokens), found.predict(tokens), strict=True)
    expected = np.mean([float(a["sentence_embedding"] @ b["sentence_embedding"]) for a, b in pairs])
    assert agreement["cosine"] == pytest.approx(expected, abs=1e-5)
    assert "64 texts" in bench.notes[0]


def test_a_file_agrees_with_itself(plain, tmp_path):
    found = OutputSimilarity(plain, dev_texts(None, SENTENCES), None).agreement(plain)
    assert found == {"cosine": pytest.approx(1.0), "num_texts": len(SENTENCES)}


def test_labels_that_stay_the_same():
    logits = np.array([[1.0, 2.0, 0.0], [3.0, 2.0, -1.0]])
    turned = np.array([[2.0, 1.0, 0.0], [4.0, 2.0, 1.0]])
    assert same_label("classification", list(zip(logits, turned, strict=True))) == 1 / 2
    assert same_label("token-classification", [(logits, turned), (logits[:1], logits[:1])]) == 2 / 3
    assert same_label("multi-label", [(logits, turned)]) == 5 / 6
    assert same_label("question-answering", [(logits[0], turned[0])]) == 0
    assert same_label("regression", [(logits[:, :1], logits[:, :1])]) is None
    assert same_label("embedding", [(logits[0], turned[0])]) is None


def test_too_little_agreement_fails(plain, tmp_path):
    with pytest.raises(CheckFailed, match="a cosine of"):
        quantize(plain, tmp_path, min_cosine=1.0)
    assert (tmp_path / "quantize/onnx/model_quantized.onnx").is_file()  # what failed can be looked at


def test_cosine_of_tokens_is_averaged():
    a = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    b = np.array([[3.0, 0.0], [0.0, -1.0], [0.0, 0.0]])
    assert cosine(a, b) == pytest.approx((1 - 1 + 1) / 3)
    assert cosine(a, np.full_like(a, np.nan)) != cosine(a, a)


def test_class_logits_are_compared_together(tmp_path, monkeypatch):
    plain = export(tiny_encoder("distilbert", num_hidden_layers=1), tmp_path)
    logits = np.array([[3.0, -3.0], [0.01, -0.01], [-2.0, 2.0]], dtype=np.float32)
    turned = np.array([[3.0, -3.0], [-0.01, 0.01], [-2.0, 2.0]], dtype=np.float32)
    answers = iter((logits, turned))
    monkeypatch.setattr(Artifact, "predict", lambda self, rows: [{"logits": row} for row in next(answers)])
    found = OutputSimilarity(plain, dev_texts(None, SENTENCES), None).agreement(plain)
    assert found["cosine"] == pytest.approx(float((logits * turned).sum() / (logits**2).sum()))
    assert found["same_label"] == pytest.approx(2 / 3)


def test_a_dense_layer_left_out_fails(plain, tmp_path, monkeypatch):
    honest = rewrite_module.DENSE["int8-dynamic"]

    def dense(draft, found):
        if "layer.2.attention.output" in found.weight:
            draft.nodes.append(found.node)
        else:
            honest(draft, found)

    monkeypatch.setitem(rewrite_module.DENSE, "int8-dynamic", dense)
    with pytest.raises(CheckFailed, match="should be 24 int8-dynamic, and are 1 float32, 23 int8-dynamic"):
        quantize(plain, tmp_path)


@pytest.mark.slow
def test_quantized_already(plain, tmp_path):
    once = quantize(plain, tmp_path / "a", min_cosine=ANY)
    with pytest.raises(UnsafeModel, match=r"already quantized: .* is a `"):
        quantize(once, tmp_path / "b")
    for scheme in set(SCHEMES) - {"float16", "bfloat16"}:  # these are floats still, and may be quantized
        with pytest.raises(UnsafeModel, match="already quantized"):
            quantize(quantize(plain, tmp_path / scheme, scheme=scheme, min_cosine=ANY), tmp_path / "c")
    half = quantize(plain, tmp_path / "half", scheme="float16")
    assert quantize(half, tmp_path / "of_half", min_cosine=ANY).card.precision == "int8"
    assert not (tmp_path / "b/quantize").exists()


def test_tables_alone_are_quantized_already(tmp_path):
    table = np.ones((20, 8), dtype=np.float32)
    found = rewrite_module.rewrite(dense_graph(np.eye(8, dtype=np.float32), table), {"table": "int8-dynamic"})
    with pytest.raises(UnsafeModel, match=r"the weight `table\.bytes` is stored in integers"):
        refuse_quantized(found.model, "x.onnx")


def with_file(artifact, folder, data):
    file = folder / artifact.card.file
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    return Artifact.create(folder, artifact.card, artifact)


def test_what_is_no_encoder_is_refused(plain, tmp_path):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    relu = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y]))
    with pytest.raises(UnsafeModel, match="not an encoder's graph"):
        quantize(with_file(plain, tmp_path / "relu", relu.SerializeToString()), tmp_path)
    for name, data in (("empty", b""), ("cut", plain.file.read_bytes()[:-1000]), ("text", b"no model at all" * 9)):
        with pytest.raises(UnsafeModel):
            quantize(with_file(plain, tmp_path / name, data), tmp_path)


def test_weights_outside_the_file_are_refused(plain, tmp_path):
    model = read_model(plain.file)
    first = model.graph.initializer[0]
    first.ClearField("raw_data")
    first.data_location = TensorProto.EXTERNAL
    first.external_data.append(onnx.StringStringEntryProto(key="location", value="../../etc/passwd"))
    with pytest.raises(UnsafeModel, match="is not a file beside it"):
        quantize(with_file(plain, tmp_path / "outside", model.SerializeToString()), tmp_path)


def test_another_format_is_refused(plain, tmp_path):
    other = Artifact(plain.folder, plain.card.model_copy(update={"format": "pte"}))
    with pytest.raises(UserError, match="pte"):
        quantize(other, tmp_path)


def test_stored_scales_follow_the_weights(plain, tmp_path):
    source, found = read_model(plain.file), read_model(quantize(plain, tmp_path, min_cosine=ANY).file)
    stored, floats = initializers(found), initializers(source)
    name = "encoder.layer.0.attention.self.query.weight.T"
    expected = quantize_matrix(array(floats[name]), 0)
    assert np.array_equal(array(stored[f"{name}.bytes"]), expected.bytes_IO)
    assert np.array_equal(array(stored[f"{name}.scale"]), expected.scale[0])
