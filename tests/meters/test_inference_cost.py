"""Operations and bytes of one inference: as PyTorch counts them, and as the graph that was exported has them."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils.flop_counter import FlopCounterMode

from bertshrink.meters.roofline.inference_cost import encoder_work, onnx_work
from bertshrink.model.families import FAMILIES
from bertshrink.model.sizes.parameter_count import facts_of
from bertshrink.onnx_graph.encoder_graph import CONTRIB
from bertshrink.onnx_graph.weights import weights
from bertshrink.techniques.export.fused_attention import fuse_attention
from bertshrink.techniques.quantize.rewrite import rewrite
from tests.support.families import SERVED
from tests.support.foreign_onnx import FORMS, LABELS, WIDTH
from tests.support.quantizing import graph, options
from tests.support.tiny import tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPES = [(1, 7), (3, 16)]


def counted_by_torch(encoder, batch, length):
    encoder.model.set_attn_implementation("eager")
    ids = torch.randint(5, 20, (batch, length))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), [(f, t) for f, t in SERVED if FAMILIES[f].layer is not None])
def test_operations_are_those_that_torch_counts(family, task):
    encoder = tiny_encoder(family, task, num_hidden_layers=2)
    row = FAMILIES[family]
    if row.attention == "disentangled":
        pytest.skip("PyTorch multiplies with every distance, not with those of the text alone")
    # Angles of rotary positions are a product, too, and a head may make its outputs of each token before their mean.
    rel = {"rotary": 0.08 if family == "eurobert" else 0.01}.get(row.attention, 0)
    for batch, length in SHAPES:
        found = encoder_work(facts_of(encoder), batch, length)
        assert found.operations["float32"] == pytest.approx(counted_by_torch(encoder, batch, length), rel=rel)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classification", "token-classification", "embedding", "mlm"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "albert", "electra"])
def test_a_graph_has_the_work_of_its_encoder(family, task, tmp_path):
    onnx.save(graph(family, task), tmp_path / "m.onnx")
    facts = facts_of(tiny_encoder(family, task, num_hidden_layers=2))
    for batch, length in SHAPES:
        found, wanted = onnx_work(tmp_path / "m.onnx", batch, length), encoder_work(facts, batch, length)
        unused = 2 * batch * 32**2 if task == "embedding" and family in ("bert", "albert") else 0
        assert found.operations == {"float32": wanted.num_operations - unused}, "an exported graph has no idle pooler"
        assert found.num_bytes == pytest.approx(wanted.num_bytes - unused / batch * 2, rel=0.02)


def saved(model, folder):
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.parametrize(
    ("kind", "dense", "width"),
    [
        ("int8-dynamic", "int8", 1),
        ("int8-static", "int8", 1),
        ("int8-block", "int8", 1 + 2 / 16),
        ("int4-block", "int8", 0.5 + 2 / 16),
        ("float16", "float32", 2),
    ],
)
def test_quantizing_moves_operations_to_another_type_and_loses_none(kind, dense, width, tmp_path):
    source = graph("bert", "embedding")
    plain = onnx_work(saved(source, tmp_path), 3, 16)
    made = rewrite(source, dict.fromkeys(weights(source), kind), options("bert", "embedding")).model
    found = onnx_work(saved(made, tmp_path), 3, 16)
    attention = 2 * 3 * 16 * 4 * 32 * 16
    assert found.num_operations == plain.num_operations
    if dense == "int8":
        assert found.operations == {"int8": plain.num_operations - attention, "float32": attention}
    else:
        assert found.operations == plain.operations, "stored in half, multiplied in float32"
    assert found.num_bytes == pytest.approx(plain.num_bytes * width / 4, rel=0.1)


def test_attention_in_one_operator_has_the_work_of_its_ten(tmp_path):
    source = graph("bert", "classification")
    fused, joined = fuse_attention(source)
    assert joined == 2
    for batch, length in SHAPES:
        before, after = (onnx_work(saved(model, tmp_path), batch, length) for model in (source, fused))
        assert after.operations == before.operations


def test_floats_are_counted_as_what_the_engine_multiplies_them_in(tmp_path):
    path = saved(graph("bert", "embedding"), tmp_path)
    assert list(onnx_work(path, 1, 8, "bfloat16").operations) == ["bfloat16"]


def test_shared_layers_are_worked_through_each_time_and_read_once():
    base = facts_of(tiny_encoder("albert", "mlm", num_hidden_layers=4, num_hidden_groups=4))
    shared = dataclasses.replace(base, shape=dataclasses.replace(base.shape, num_groups=1))
    whole, once = (encoder_work(facts, 2, 8) for facts in (base, shared))
    assert once.operations == whole.operations
    layer = 4 * 32**2 + 2 * 32 * base.shape.intermediate_size
    assert whole.num_bytes - once.num_bytes == 3 * layer * 4


def test_half_the_width_is_half_the_bytes():
    facts = facts_of(tiny_encoder())
    assert encoder_work(facts, 2, 8, "bfloat16").num_bytes * 2 == encoder_work(facts, 2, 8).num_bytes


def test_a_graph_that_does_not_tell_has_no_work(tmp_path):
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "l"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    matrix = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    nodes = [
        helper.make_node("Strange", ["input_ids"], ["x"], domain="nobody"),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nobody", 1)]
    made = helper.make_model(helper.make_graph(nodes, "g", [ids], [out], [matrix]), opset_imports=opsets)
    assert onnx_work(saved(made, tmp_path), 1, 8) is None


@pytest.mark.parametrize("name", FORMS)
def test_a_file_of_another_exporter_has_the_work_of_its_form(name, tmp_path):
    """One dense layer and a head of each row; one more product where two are multiplied with each other."""
    made, shape = FORMS[name].make(), FORMS[name].shape or (None, None)
    batch, length = shape[0] or 3, shape[1] or 16
    found = onnx_work(saved(made.model(), tmp_path), batch, length)
    tokens = batch * length
    dense, head = 2 * tokens * WIDTH**2, 2 * batch * WIDTH * LABELS
    attention = 3 * dense + 4 * tokens * length * WIDTH + head
    expected = {
        "hidden states": dense,
        "pooled": dense + 2 * batch * WIDTH**2,
        "extra outputs": dense + 2 * tokens * length * WIDTH,
        **dict.fromkeys(("QAttention", "Attention", "EmbedLayerNormalization"), attention),
        **dict.fromkeys(("dense layer behind the pooling", "dense layer with a setting"), dense + 2 * batch * WIDTH**2),
    }
    assert found.num_operations == expected.get(name, dense + head)
    kinds = {"QOperator": dense, "dynamic": dense, "QDQ": dense, "QAttention": 3 * dense}
    assert found.operations.get("int8", 0) == kinds.get(name, 0)


@pytest.mark.parametrize("kind", ["Einsum", "QGemm", "GemmFastGelu"])
def test_a_graph_with_a_product_that_is_not_counted_tells_nothing(kind, tmp_path):
    parts = FORMS["pooled"].make()
    parts.nodes.append(helper.make_node(kind, ["sum", "head"], ["more"], domain="" if kind == "Einsum" else CONTRIB))
    assert onnx_work(saved(parts.model(), tmp_path), 2, 8) is None
