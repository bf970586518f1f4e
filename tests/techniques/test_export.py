"""Export: the file gives PyTorch's numbers, stores each weight once, and says when it does not."""

import json
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from bertshrink.engines import engine
from bertshrink.errors import CheckFailed
from bertshrink.model.artifact import Artifact
from bertshrink.model.batches import pad
from bertshrink.model.families import FAMILIES
from bertshrink.model.tasks import TASKS
from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import array, initializers, read_model, table_gathers, tensor, weight_matmuls
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.export import onnx as graph_module
from bertshrink.techniques.export.constant_reshapes import constant_target
from bertshrink.techniques.export.parity import SHAPES, check_parity, padded_text
from tests.support.families import serves
from tests.support.pairwise import matrix
from tests.support.tiny import sentences, tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")


def export(encoder, folder, **settings):
    return Export(**settings)(encoder, Workbench(None, None, folder))


@pytest.mark.slow
@matrix(("family", "task"), FAMILIES, TASKS, strength=1, possible=serves)
def test_every_family_and_task(family, task, tmp_path):
    encoder = tiny_encoder(family, task, num_hidden_layers=2)
    bench = Workbench(None, None, tmp_path)
    artifact = Export()(encoder, bench)
    again = Artifact.load(artifact.folder)
    rows = encoder.tokenize(sentences(7))
    wanted = encoder.predict(rows)
    largest = max(np.abs(value).max() for row in wanted for value in row.values())
    for ours, theirs in zip(again.predict(rows), wanted, strict=True):
        assert tuple(ours) == tuple(theirs) == TASKS[task].outputs
        for name in theirs:
            assert ours[name].shape == theirs[name].shape
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5 * largest)
    model = read_model(artifact.file)
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"IsNaN", "Where", "Identity", "Dropout", "Gemm", "Constant"}
    assert not model.graph.value_info
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    without = len(products) - len(weight_matmuls(model))
    each = {"disentangled": 4, "rotary": 2}.get(encoder.anatomy.attention, 2)
    angles = encoder.anatomy.attention == "rotary" and encoder.anatomy.kinds_of_layers is None
    if encoder.anatomy.layer is not None:
        assert without in (each * encoder.shape.num_layers, each * encoder.shape.num_layers + angles)
    assert [value.name for value in model.graph.input] == list(artifact.card.inputs)
    assert ("token_type_ids" in artifact.card.inputs) == (
        encoder.anatomy.gives_token_types and encoder.model.config.type_vocab_size > 1
    )
    assert len(artifact.card.details["parity"]) == len(SHAPES)
    assert "1x7" in bench.notes[0]


def test_metadata_and_card(tmp_path):
    artifact = export(tiny_encoder("bert", "embedding"), tmp_path)
    entries = {entry.key: entry.value for entry in read_model(artifact.file).metadata_props}
    assert entries["task"] == "embedding"
    assert entries["family"] == "bert"
    assert json.loads(entries["pooling"]) == {"mode": "mean", "normalize": True}
    assert artifact.card.pooling == ("mean", True)
    assert artifact.card.precision == "float32"
    assert artifact.card.lineage == ("export",)


def test_the_encoder_is_left_as_it_was(tmp_path):
    encoder = tiny_encoder()
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    export(encoder, tmp_path)
    assert encoder.model.config._attn_implementation == "sdpa"
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.state_dict().items())


@pytest.mark.slow
def test_equal_bytes_from_equal_models(tmp_path):
    first = export(tiny_encoder(), tmp_path / "a")
    second = export(tiny_encoder(), tmp_path / "b")
    assert first.file.read_bytes() == second.file.read_bytes()


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_pooling_is_inside_the_graph(pooling, tmp_path):
    from bertshrink.model.folder.pooling import Pooling

    encoder = tiny_encoder("distilbert", "embedding", num_hidden_layers=1)
    encoder.pooling = Pooling(pooling, normalize=pooling != "max")
    artifact = export(encoder, tmp_path)
    rows = encoder.tokenize(sentences(5))
    for ours, theirs in zip(artifact.predict(rows), encoder.predict(rows), strict=True):
        np.testing.assert_allclose(ours["sentence_embedding"], theirs["sentence_embedding"], atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_groups", [1, 2])
def test_shared_weights_are_stored_once(num_groups, tmp_path):
    encoder = tiny_encoder("albert", "classification", num_hidden_layers=4, num_hidden_groups=num_groups)
    artifact = export(encoder, tmp_path)
    model = read_model(artifact.file)
    stored_bytes = sum(array(stored).nbytes for stored in model.graph.initializer)
    stock_bytes = sum(value.numel() * value.element_size() for value in encoder.model.parameters())
    assert stored_bytes <= stock_bytes + 2048  # position ids, reshape targets and scalars
    # besides the weights the file has its nodes, some 300 bytes of names each
    assert artifact.file.stat().st_size <= stock_bytes + 400 * len(model.graph.node)
    matmuls = weight_matmuls(model)
    assert len(matmuls) == 4 * 6 + 3  # projections of 4 layers, embedding projection, pooler, classifier
    assert len({found.weight for found in matmuls}) == num_groups * 6 + 3
    assert not any(found.is_transposed for found in matmuls)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "albert", "electra"])
def test_a_tied_head_shares_its_table(family, tmp_path):
    model = read_model(export(tiny_encoder(family, "mlm"), tmp_path).file)
    vocabulary = {found.weight for found in weight_matmuls(model) if found.is_transposed}
    assert vocabulary
    assert vocabulary <= {node.input[0] for node in table_gathers(model)}


def test_an_untied_head_has_its_own_weight(tmp_path):
    encoder = tiny_encoder("bert", "mlm", tie_word_embeddings=False)
    model = read_model(export(encoder, tmp_path).file)
    assert not any(found.is_transposed for found in weight_matmuls(model))


def test_reshapes_are_constant(tmp_path):
    model = read_model(export(tiny_encoder("bert"), tmp_path).file)
    stored = initializers(model)
    targets = [array(stored[node.input[1]]).tolist() for node in model.graph.node if node.op_type == "Reshape"]
    assert targets
    assert all(target in ([0, 0, 4, 8], [0, 0, 32]) for target in targets)


def test_constant_target_explains_what_was_seen_or_gives_up():
    assert constant_target([([2, 3, 32], [2, 3, 4, 8]), ([5, 4, 32], [5, 4, 4, 8])]) == [0, 0, 4, 8]
    assert constant_target([([2, 3, 8], [6, 8]), ([5, 4, 8], [20, 8])]) == [-1, 8]
    assert constant_target([([6, 8], [2, 3, 8]), ([20, 8], [5, 4, 8])]) is None


@pytest.mark.slow
def test_older_operators(tmp_path):
    artifact = export(tiny_encoder("bert"), tmp_path, opset=17)
    model = read_model(artifact.file)
    assert model.opset_import[0].version == 17
    assert "Gelu" not in {node.op_type for node in model.graph.node}


def test_a_graph_that_lies_is_found(tmp_path, monkeypatch):
    honest = graph_module.trace

    def trace(*given):
        model = honest(*given)
        weight = next(t for t in model.graph.initializer if t.name.endswith("layer.1.output.dense.weight"))
        weight.CopyFrom(tensor(array(weight) * np.float32(1.01), weight.name))
        return model

    monkeypatch.setattr(graph_module, "trace", trace)
    with pytest.raises(CheckFailed, match="differs from PyTorch"):
        export(tiny_encoder(), tmp_path)


def test_a_graph_that_forgets_the_padding_is_found(tmp_path, monkeypatch):
    honest = graph_module.trace

    def trace(*given):
        model = honest(*given)
        for node in model.graph.node:
            node.input[:] = ["input_ids" if name == "attention_mask" else name for name in node.input]
        return model

    monkeypatch.setattr(graph_module, "trace", trace)
    with pytest.raises(CheckFailed):
        export(tiny_encoder(), tmp_path)


def test_parity_reports_each_shape_and_its_rows_differ_in_length(tmp_path):
    encoder = tiny_encoder("bert", "mlm")
    artifact = export(encoder, tmp_path)
    worst = check_parity(encoder, artifact.file, 1e-4)
    assert list(worst) == ["1x1", "1x7", "5x31", "8x64", "2x64"]
    assert max(worst.values()) < 1e-5
    lengths = padded_text(encoder, 8, 64)["attention_mask"].sum(axis=1).tolist()
    assert lengths[0] == 64
    assert sorted(set(lengths), reverse=True) == lengths


def test_what_a_killed_run_left_does_not_disturb(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export/stale.bin").write_bytes(b"half")
    artifact = export(tiny_encoder("distilbert", num_hidden_layers=1), tmp_path)
    assert not (artifact.folder / "stale.bin").exists()


def test_unexpected_warnings_are_not_swallowed(tmp_path):
    encoder = tiny_encoder()
    forward = encoder.model.forward

    def noisy(*args, **kwargs):
        warnings.warn("something new", UserWarning, stacklevel=2)
        return forward(*args, **kwargs)

    encoder.model.forward = noisy
    with pytest.raises(UserWarning, match="something new"):
        export(encoder, tmp_path)


def graph_of(nodes, stored, outputs=("y",)):
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", None]) for name in outputs]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph(nodes, "g", [x], values, [tensor(value, name) for name, value in stored.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model, x, tmp_path):
    onnx.checker.check_model(model)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    return engine("onnxruntime").load(str(path)).run({"x": x})


def test_canonical_form_keeps_the_function_and_one_copy_of_each_weight(tmp_path):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        helper.make_node("Identity", ["w_twin"], ["w_named"]),
        helper.make_node("Transpose", ["w_named"], ["wt2"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "wt"], ["a"]),
        helper.make_node("MatMul", ["a", "wt2"], ["b"]),
        helper.make_node("Gemm", ["b", "w", "bias"], ["c"], transB=1),
        helper.make_node("Constant", [], ["two"], value=tensor(np.float32([2.0]), "v")),
        helper.make_node("Mul", ["two", "bias"], ["doubled"]),
        helper.make_node("Add", ["c", "doubled"], ["y"]),
        helper.make_node("Add", ["c", "bias"], ["unread"]),
    ]
    model = graph_of(nodes, {"w": weight, "w_twin": weight, "bias": np.arange(4, dtype=np.float32)})
    model.graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [9, 9]))
    found = canonicalise(model)
    x = rng.normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(run(found, x, tmp_path)["y"], run(model, x, tmp_path)["y"], rtol=1e-5)
    assert [node.op_type for node in found.graph.node] == ["MatMul", "MatMul", "MatMul", "Add", "Add"]
    assert sorted(initializers(found)) == ["bias", "doubled", "w.T"]
    assert not found.graph.value_info
    assert len(model.graph.node) == len(nodes)


def test_canonical_form_is_its_own(tmp_path):
    model = read_model(export(tiny_encoder("albert", "mlm"), tmp_path).file)
    assert canonicalise(model).SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def test_a_table_that_is_looked_up_and_multiplied_stays_one(tmp_path):
    table = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("Add", ["x", "rows"], ["sum"]),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["sum", "turned"], ["y"]),
    ]
    found = canonicalise(graph_of(nodes, {"table": table, "ids": np.array([0, 2, 1])}))
    assert "Transpose" in {node.op_type for node in found.graph.node}
    (matmul,) = weight_matmuls(found)
    assert (matmul.weight, matmul.is_transposed) == ("table", True)
    x = np.ones((3, 4), dtype=np.float32)
    np.testing.assert_allclose(run(found, x, tmp_path)["y"], (x + table[[0, 2, 1]]) @ table.T, rtol=1e-5)


def test_padding_does_not_matter(tmp_path):
    encoder = tiny_encoder("roberta")
    session = export(encoder, tmp_path).session()
    short, long = encoder.tokenize(["a good movie", "a very long and boring movie about work and the world of old"])
    alone = session.run(pad([short], encoder.tokenizer.pad_token_id))["logits"]
    beside = session.run(pad([short, long], encoder.tokenizer.pad_token_id))["logits"]
    np.testing.assert_allclose(alone[0], beside[0], atol=1e-5)
