"""Attention as one operator: the same numbers, the same dense layers, and only where the mask is what it must be."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bertshrink.engines import engine
from bertshrink.errors import CheckFailed, UserError
from bertshrink.model.families import FAMILIES
from bertshrink.model.sizes.parameter_count import facts_of
from bertshrink.onnx_graph.encoder_graph import operators, read_model, tensor, weight_matmuls
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.export import onnx as graph_module
from bertshrink.techniques.export.fused_attention import fuse_attention
from bertshrink.techniques.export.parity import padded_text
from bertshrink.techniques.quantize import Quantize
from tests.support.tiny import tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@pytest.mark.parametrize("family", [name for name, row in FAMILIES.items() if row.is_fused])
def test_fused_equals_standard(family, tmp_path):
    encoder = tiny_encoder(family, "token-classification", num_hidden_layers=2)
    files = {}
    for form in ("standard", "fused"):
        artifact = Export(attention=form)(encoder, Workbench(None, None, tmp_path / form))
        files[form] = artifact.file
        assert artifact.card.details["attention"] == form
    standard, fused = (read_model(files[form]) for form in ("standard", "fused"))
    assert operators(fused)["MultiHeadAttention"] == 2
    assert "Softmax" not in operators(fused)
    assert [found.weight for found in weight_matmuls(fused)] == [found.weight for found in weight_matmuls(standard)]
    feeds = padded_text(encoder, 5, 31)
    at = feeds["attention_mask"] == 1
    ours, theirs = (engine("onnxruntime").load(str(files[form])).run(feeds)["logits"][at] for form in files)
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("family", [name for name, row in FAMILIES.items() if not row.is_fused])
def test_what_one_operator_does_not_compute_is_refused_in_the_plan(family):
    with pytest.raises(UserError, match="is not what ONNX Runtime's one operator computes"):
        Export(attention="fused").fit(facts_of(tiny_encoder(family, "embedding")))


def test_a_second_pass_finds_nothing(tmp_path):
    artifact = Export(attention="fused")(tiny_encoder(), Workbench(None, None, tmp_path))
    model = read_model(artifact.file)
    again, num_fused = fuse_attention(model)
    assert num_fused == 0
    assert again is model


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("halved", "some score at padding would count"),
        ("shifted", "scores at tokens would change"),
        ("another input", "the operator reads the mask of tokens"),
    ],
)
def test_another_mask_is_left_alone(change, why, tmp_path):
    artifact = Export()(tiny_encoder(num_hidden_layers=1), Workbench(None, None, tmp_path))
    model = read_model(artifact.file)
    (masked,) = (
        node
        for node in model.graph.node
        if node.op_type == "Add" and any("Softmax" in reader.op_type for reader in readers(model, node.output[0]))
    )
    at = list(model.graph.node).index(next(n for n in model.graph.node if masked.input[1] in n.output))
    if change == "another input":
        model.graph.input.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, ["b", 1, 1, "l"]))
        masked.input[1] = "bias"
    else:
        kind, number = {"halved": ("Mul", 1e-36), "shifted": ("Add", 0.5)}[change]
        model.graph.initializer.append(tensor(np.array(number, dtype=np.float32), "number"))
        model.graph.node.insert(at + 1, helper.make_node(kind, [masked.input[1], "number"], ["changed"]))
        masked.input[1] = "changed"
    onnx.checker.check_model(model)
    assert fuse_attention(model)[1] == 0, why


def readers(model, name):
    return [node for node in model.graph.node if name in node.input]


def test_an_export_that_cannot_be_fused_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(graph_module, "fuse_attention", lambda model: (model, 1))
    with pytest.raises(CheckFailed, match="1 of 2 attentions"):
        Export(attention="fused")(tiny_encoder(num_hidden_layers=2), Workbench(None, None, tmp_path))


def test_what_the_runtime_joins_is_told(tmp_path):
    bench = Workbench(None, None, tmp_path)
    artifact = Export()(tiny_encoder(num_hidden_layers=2), bench)
    as_run = artifact.card.details["operators_as_run"]
    assert as_run["BiasGelu"] == 2
    assert "BiasGelu" not in artifact.card.details["operators"]
    assert any("2 BiasGelu" in note for note in bench.notes)


def test_quantizing_a_fused_file_names_each_domain_once(tmp_path):
    fused = Export(attention="fused")(tiny_encoder(num_hidden_layers=1), Workbench(None, None, tmp_path / "fused"))
    made = Quantize(scheme="block-int4", min_cosine=-1)(fused, Workbench(None, None, tmp_path / "small"))
    assert [entry.domain for entry in read_model(made.file).opset_import] == ["", "com.microsoft"]
