"""One form for every graph: what is stored once, computed once, and what stays apart."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from bertshrink.onnx_graph import canonicalize
from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import initializers, operators, tensor


def graph_of(nodes, stored, outputs=("y",), element=TensorProto.FLOAT):
    values = [helper.make_tensor_value_info(name, element, None) for name in outputs]
    x = helper.make_tensor_value_info("x", element, ["batch", 4])
    graph = helper.make_graph(nodes, "g", [x], values, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def turned(weight, made, **how):
    return helper.make_node("Transpose", [weight], [made], **how)


def matmul(left, right, made):
    return helper.make_node("MatMul", [left, right], [made])


@pytest.mark.parametrize("element", [TensorProto.BFLOAT16, TensorProto.FLOAT16, TensorProto.INT4])
def test_numbers_of_every_type_are_compared(element):
    """Twins that are one, and one that differs in its last number."""
    stored = [
        helper.make_tensor(name, element, [4], [1, 2, 3, last]) for name, last in (("a", 4), ("twin", 4), ("other", 5))
    ]
    nodes = [
        helper.make_node("Cast", [name], [f"{name}.float"], to=TensorProto.FLOAT) for name in ("a", "twin", "other")
    ]
    nodes += [
        helper.make_node("Add", ["x", "a.float"], ["s"]),
        helper.make_node("Add", ["s", "twin.float"], ["t"]),
        helper.make_node("Add", ["t", "other.float"], ["y"]),
    ]
    found = canonicalise(graph_of(nodes, stored))
    assert [list(node.input) for node in found.graph.node] == [["x", "a.float"], ["s", "a.float"], ["t", "other.float"]]


def test_texts_are_compared_by_what_they_say():
    stored = [
        helper.make_tensor(name, TensorProto.STRING, [1], [text.encode()])
        for name, text in (("a", "word"), ("twin", "word"), ("other", "work"))
    ]
    nodes = [
        helper.make_node("StringConcat", ["x", "a"], ["s"]),
        helper.make_node("StringConcat", ["s", "twin"], ["t"]),
        helper.make_node("StringConcat", ["t", "other"], ["y"]),
    ]
    found = canonicalise(graph_of(nodes, stored, element=TensorProto.STRING))
    assert [node.input[1] for node in found.graph.node] == ["a", "a", "other"]


def test_weights_that_begin_alike_stay_apart():
    first = np.zeros((4, 400), np.float32)
    second = first.copy()
    second[-1, -1] = 1
    nodes = [matmul("x", "first", "a"), matmul("x", "second", "b"), helper.make_node("Sub", ["a", "b"], ["y"])]
    found = canonicalise(graph_of(nodes, [tensor(first, "first"), tensor(second, "second")]))
    assert sorted(initializers(found)) == ["first", "second"]
    assert operators(found) == {"MatMul": 2, "Sub": 1}


def test_a_shared_weight_is_computed_once(monkeypatch):
    asked = []
    monkeypatch.setattr(canonicalize, "computed", lambda node, feeds: asked.append(node) or compute(node, feeds))
    compute = canonicalize.__dict__["evaluate"]
    weight = tensor(np.arange(16, dtype=np.float32).reshape(4, 4), "w")
    nodes = [turned("w", "a", perm=[1, 0]), matmul("x", "a", "b"), turned("w", "c", perm=[1, 0]), matmul("b", "c", "y")]
    found = canonicalise(graph_of(nodes, [weight]))
    assert [node.input[1] for node in found.graph.node] == ["w.T", "w.T"]
    assert len(asked) == 1


def test_a_weight_turned_in_two_ways_keeps_both():
    weight = np.arange(16, dtype=np.float32).reshape(4, 4)
    nodes = [
        turned("w", "a", perm=[1, 0]),
        matmul("x", "a", "b"),
        turned("w", "c", perm=[0, 1]),
        matmul("b", "c", "y"),
    ]
    found = canonicalise(graph_of(nodes, [tensor(weight, "w")]))
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(ReferenceEvaluator(found).run(None, {"x": x})[0], x @ weight.T @ weight)


def test_a_stored_output_keeps_its_name_beside_its_twin():
    ones = np.ones(4, np.float32)
    nodes = [helper.make_node("Add", ["x", "ones"], ["y"])]
    found = canonicalise(graph_of(nodes, [tensor(ones, "ones"), tensor(ones, "kept")], ("y", "kept")))
    np.testing.assert_array_equal(ReferenceEvaluator(found).run(["kept"], {"x": np.ones((1, 4), np.float32)})[0], ones)


def test_notes_on_nodes_vanish_and_the_models_own_stay():
    model = graph_of([helper.make_node("Neg", ["x"], ["y"], doc_string="a note")], [])
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File ...")
    helper.set_model_props(model, {"task": "none"})
    found = canonicalise(model)
    assert not found.graph.node[0].doc_string
    assert not found.graph.node[0].metadata_props
    assert [(entry.key, entry.value) for entry in found.metadata_props] == [("task", "none")]


def test_only_a_cast_that_changes_nothing_vanishes():
    nodes = [
        helper.make_node("Cast", ["x"], ["same"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["x"], ["other"], to=TensorProto.INT64),
        helper.make_node("Cast", ["other"], ["back"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["same", "back"], ["y"]),
        helper.make_node("Cast", ["x"], ["z"], to=TensorProto.FLOAT),
    ]
    found = canonicalise(graph_of(nodes, [], outputs=("y", "z")))
    assert [list(node.output) for node in found.graph.node] == [["other"], ["back"], ["y"], ["z"]]
    assert list(found.graph.node[2].input) == ["x", "back"]
