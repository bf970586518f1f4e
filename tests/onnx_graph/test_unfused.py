"""Joined operators apart: the numbers that ONNX Runtime gives for both."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from bertshrink.onnx_graph.encoder_graph import tensor
from bertshrink.onnx_graph.unfused import unfused, with_plain_norms
from tests.support.foreign_onnx import attention, dense_behind, embedding, norms_of_an_older_opset, numbers, plain

WIDTH = 32
MASK = np.array([[1] * 7, [1] * 4 + [0] * 3, [0, 0] + [1] * 5], np.int32)


def attention_of(inputs, sizes=None, opset=21, **settings):
    """One Attention, its inputs by their places."""
    given = {
        "x": (TensorProto.FLOAT, ["b", "l", WIDTH]),
        "mask": (TensorProto.INT32, ["b", "l"]),
        "ends": (TensorProto.INT32, ["b"]),
        "bias": (TensorProto.FLOAT, ["b", 2, "l", "l"]),
    }
    more = {"qkv_hidden_sizes": sizes} if sizes else {}
    made = helper.make_node("Attention", inputs, ["y"], domain="com.microsoft", num_heads=2, **more, **settings)
    weight = numbers(WIDTH, sum(sizes or [3 * WIDTH]), seed=1)
    stored = [tensor(weight, "w"), tensor(numbers(weight.shape[1], seed=2), "b")]
    asked = [helper.make_tensor_value_info(name, *given[name]) for name in given if name in inputs]
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", "l", (sizes or [WIDTH])[-1]])
    graph = helper.make_graph([made], "g", asked, [answer], stored)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def answer(model, feeds):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    return session.run(None, {name: value for name, value in feeds.items() if name in names})[0]


@pytest.mark.parametrize("opset", [11, 21])
@pytest.mark.parametrize("sizes", [None, [16, 16, 32]])
@pytest.mark.parametrize(
    "inputs",
    [["x", "w", "b"], ["x", "w", "b", "mask"], ["x", "w", "b", "", "", "bias"], ["x", "w", "b", "mask", "", "bias"]],
)
def test_attention_apart_gives_the_same_numbers(inputs, sizes, opset):
    feeds = {"x": numbers(3, 7, WIDTH, seed=3), "mask": MASK, "bias": numbers(3, 2, 7, 7, seed=4)}
    for settings in ({}, {"mask_filter_value": -3.0, "scale": 0.3}, {"unidirectional": 1}):
        model = attention_of(inputs, sizes, opset, **settings)
        apart = unfused(model)
        assert "Attention" not in [node.op_type for node in apart.graph.node]
        np.testing.assert_allclose(answer(apart, feeds), answer(model, feeds), atol=2e-6)


@pytest.mark.parametrize(
    "model",
    [
        attention_of(["x", "w", "b", "ends"]),  # one axis may be ends, ends and starts, or more
        attention_of(["x", "w", "b"], do_rotary=1),
        plain().model(),
    ],
)
def test_what_is_not_known_stays(model):
    assert [node.op_type for node in unfused(model).graph.node] == [node.op_type for node in model.graph.node]


def test_an_activation_without_its_setting_stays():
    assert "FusedGemm" in [node.op_type for node in unfused(dense_behind("LeakyRelu")().model()).graph.node]


@pytest.mark.parametrize(
    "make", [attention, embedding, dense_behind("Sigmoid"), dense_behind("Elu", activation_alpha=0.7)]
)
def test_whole_graphs_give_the_same_numbers(make):
    model = make().model()
    before = model.SerializeToString()
    apart = unfused(model)
    onnx.checker.check_model(apart)
    assert model.SerializeToString() == before
    assert not {"Attention", "EmbedLayerNormalization", "FusedGemm"} & {node.op_type for node in apart.graph.node}
    ids = np.random.default_rng(0).integers(0, 30, (2, 7))
    feeds = {"input_ids": ids, "attention_mask": MASK[:2].astype(np.int64), "token_type_ids": ids % 2}
    np.testing.assert_allclose(answer(apart, feeds), answer(model, feeds), atol=1e-5)


def test_norms_of_an_older_opset_are_spelled_out():
    model = norms_of_an_older_opset().model()
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    spelled = with_plain_norms(model)
    onnx.checker.check_model(spelled)
    feeds = {"input_ids": np.arange(14).reshape(2, 7), "attention_mask": MASK[:2].astype(np.int64)}
    np.testing.assert_allclose(answer(spelled, feeds), answer(model, feeds), atol=1e-5)
    valid = norms_of_an_older_opset()
    valid.opset = 17
    model = valid.model()
    assert with_plain_norms(model) is model
