"""Bytes, parameters and components of encoders and artifacts."""

import struct

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from bertshrink.files.headers import read_onnx
from bertshrink.meters.size import measure, onnx_components
from bertshrink.model.artifact import Artifact, ArtifactCard
from bertshrink.model.families import FAMILIES
from bertshrink.onnx_graph.weights import weights
from bertshrink.techniques.quantize.rewrite import rewrite
from tests.support.foreign_onnx import FORMS, LABELS, POSITIONS, WIDTH
from tests.support.onnx_files import ROWS
from tests.support.quantizing import graph, options
from tests.support.tiny import tiny_encoder


def values(result):
    return {m.metric: m.value for m in result.measurements}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("task", ["classification", "mlm"])
def test_an_encoders_file_is_explained_to_the_byte(family, task, tmp_path):
    encoder = tiny_encoder(family, task)
    encoder.save(tmp_path)
    result = measure(encoder, tmp_path)
    path = tmp_path / "model.safetensors"
    header = 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]
    assert values(result)["size"] == path.stat().st_size
    assert sum(part.num_bytes for part in result.components) + header == path.stat().st_size
    assert {"embeddings", "attention", "feed-forward"} <= {part.name for part in result.components}


@pytest.mark.parametrize("family", FAMILIES)
def test_tied_parameters_count_once(family, tmp_path):
    encoder = tiny_encoder(family, "mlm")
    encoder.save(tmp_path)
    weights = {id(p): p for _, p in encoder.model.named_parameters(remove_duplicate=False)}
    counted = values(measure(encoder, tmp_path))["parameters"]
    assert counted == sum(p.numel() for p in weights.values())
    table = encoder.model.get_input_embeddings().weight.numel()
    with torch.no_grad():
        encoder.model.get_output_embeddings().weight = torch.nn.Parameter(
            encoder.model.get_output_embeddings().weight.clone()
        )
    is_tied = encoder.anatomy.ties_words
    assert values(measure(encoder, tmp_path))["parameters"] == counted + (table if is_tied else 0)


def test_operations_come_from_the_shape(tmp_path):
    encoder = tiny_encoder("bert")
    encoder.save(tmp_path)
    by_hand = 4 * (2 * (4 * 32**2 + 2 * 32 * 64) + 4 * 32 * 128)
    assert values(measure(encoder, tmp_path))["flops_per_token"] == by_hand


def tiny_onnx(int8):
    """Gather a table (20 x 4), multiply with a matrix (4 x 3), add a bias (3); int8: a scale per row and per column."""
    kind = np.int8 if int8 else np.float32
    stored = {"table": np.ones((20, 4), kind), "matrix": np.ones((4, 3), kind), "bias": np.ones(3, np.float32)}
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    if int8:
        stored |= {
            "table_scale": np.ones((20, 1), np.float32),
            "matrix_scale": np.ones(3, np.float32),
            "matrix_zero_point": np.zeros(3, np.int8),
        }
        nodes += [
            helper.make_node("Gather", ["table_scale", "input_ids"], ["row_scale"]),
            helper.make_node("Cast", ["rows"], ["rows_f"], to=1),
            helper.make_node("Mul", ["rows_f", "row_scale"], ["x"]),
            helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "x_scale", "x_zp"]),
            helper.make_node("MatMulInteger", ["xq", "matrix", "x_zp", "matrix_zero_point"], ["yi"]),
            helper.make_node("Cast", ["yi"], ["yf"], to=1),
            helper.make_node("Mul", ["x_scale", "matrix_scale"], ["scale"]),
            helper.make_node("Mul", ["yf", "scale"], ["y"]),
        ]
    else:
        stored["matrix"] = stored["matrix"].T.copy()
        nodes += [
            helper.make_node("Transpose", ["matrix"], ["matrix_t"]),
            helper.make_node("MatMul", ["rows", "matrix_t"], ["y"]),
        ]
    nodes.append(helper.make_node("Add", ["y", "bias"], ["logits"]))
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "l"])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "l", 3])
    initializers = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "g", [ids], [out], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.mark.parametrize("int8", [False, True])
def test_an_artifacts_parts_are_read_off_its_graph(int8, tmp_path):
    onnx.save(tiny_onnx(int8), tmp_path / "model.onnx")
    found = {part.name: part for part in onnx_components(read_onnx(tmp_path / "model.onnx"))}
    assert {name: part.num_parameters for name, part in found.items()} == {"embeddings": 80, "matmul": 12, "other": 3}
    assert found["embeddings"].num_bytes == 80 * (1 if int8 else 4)
    assert found["matmul"].num_bytes == 12 * (1 if int8 else 4)


@pytest.mark.parametrize("kind", ["int8-block", "int4-block", "float16", "int8-static"])
def test_parameters_are_counted_whatever_their_type(kind, tmp_path):
    source = graph("bert", "mlm")
    found = rewrite(source, dict.fromkeys(weights(source), kind), options("bert", "mlm"))
    for name, model in (("float", source), ("other", found.model)):
        onnx.save(model, tmp_path / f"{name}.onnx")
    plain, other = (
        {part.name: part.num_parameters for part in onnx_components(read_onnx(tmp_path / f"{name}.onnx"))}
        for name in ("float", "other")
    )
    assert other == plain


def test_an_artifact_is_measured_where_it_lies(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(tiny_onnx(int8=True), path)
    card = ArtifactCard(
        format="onnx",
        engine="onnxruntime",
        file="model.onnx",
        task="mlm",
        family="bert",
        precision="int8",
        inputs=("input_ids",),
        outputs=("logits",),
        max_length=64,
        vocab_size=20,
    )
    result = measure(Artifact(tmp_path, card), tmp_path)
    assert values(result) == {"size": path.stat().st_size, "parameters": 95}


@pytest.mark.parametrize("name", FORMS)
def test_parameters_of_a_file_of_another_exporter_are_those_of_its_form(name, tmp_path):
    """Scales and zero points are none; where a weight is, is seen through whatever brings it back."""
    (tmp_path / "m.onnx").write_bytes(FORMS[name].make().model().SerializeToString())
    parts = {part.name: part.num_parameters for part in onnx_components(read_onnx(tmp_path / "m.onnx"))}
    of_positions = ("positions and types", "QEmbedLayerNormalization", "EmbedLayerNormalization")
    tables = (POSITIONS + 2) * WIDTH if name in of_positions else 0
    behind = ("pooled", "dense layer behind the pooling", "dense layer with a setting")
    heads = {"hidden states": 0, "extra outputs": 0} | dict.fromkeys(behind, WIDTH**2)
    joined = ("QAttention", "Attention", "EmbedLayerNormalization")
    dense = 3 * WIDTH**2 if name in joined else WIDTH**2
    vectors = {
        **dict.fromkeys(joined, 4 * WIDTH),
        **dict.fromkeys(behind[1:], 2 * WIDTH),
        "QEmbedLayerNormalization": 3 * WIDTH,
        "EmbedLayerNormalization": 6 * WIDTH,
        "norms of an older opset": 3 * WIDTH,
    }
    assert parts == {
        "embeddings": ROWS * WIDTH + tables,
        "matmul": dense + heads.get(name, WIDTH * LABELS),
        "other": vectors.get(name, WIDTH),
    }
