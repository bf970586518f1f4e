"""Products with zeros leave the sums that they are in, and nothing else."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from bertshrink.onnx_graph.zero_products import drop_zero_products

STATES = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)


def graph(nodes, outputs, **weights):
    """A model of the states `x` (2, 3, 4)."""
    stored = [onnx.numpy_helper.from_array(np.asarray(values, np.float32), name) for name, values in weights.items()]
    given = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3, 4])]
    made = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    made_nodes = [onnx.helper.make_node(*node) for node in nodes]
    return onnx.helper.make_model(onnx.helper.make_graph(made_nodes, "g", given, made, stored))


def run(model):
    return ReferenceEvaluator(model).run(None, {"x": STATES})


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_with_zeros_in_a_sum_is_dropped(bias, turned):
    nodes = [("Tanh", ["x"], ["t"]), ("MatMul", ["t", "w"], ["p"])]
    nodes += [("Add", ["b", "p"], ["q"])] if bias else []
    sides = ["q" if bias else "p", "x"]
    nodes += [("Add", sides[::-1] if turned else sides, ["s"]), ("Sqrt", ["s"], ["r"]), ("Abs", ["r"], ["y"])]
    model = graph(nodes, ["y"], w=np.zeros((4, 4)), b=[1, 2, 3, 4])
    before = run(model)
    assert drop_zero_products(model) == 1
    assert np.array_equal(run(model), before, equal_nan=True)
    read = {name for node in model.graph.node[-3 if bias else -2 :] for name in node.input}
    assert not read & {"p", "q"}


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [
        ([("MatMul", ["x", "w"], ["y"])], ["y"]),  # the answer
        ([("MatMul", ["x", "w"], ["p"]), ("Add", ["p", "x"], ["y"])], ["y", "p"]),  # asked for
        ([("MatMul", ["x", "w"], ["p"]), ("Add", ["p", "b"], ["y"])], ["y"]),  # the only states
        ([("MatMul", ["x", "w"], ["p"]), ("Mul", ["p", "x"], ["y"])], ["y"]),
        ([("MatMul", ["x", "w"], ["p"]), ("Add", ["p", "x"], ["s"]), ("Add", ["s", "p"], ["y"])], ["y"]),  # twice
    ],
)
def test_others_are_left_alone(nodes, outputs):
    model = graph(nodes, outputs, w=np.zeros((4, 4)), b=[1, 2, 3, 4])
    before = model.SerializeToString()
    assert drop_zero_products(model) == 0
    assert model.SerializeToString() == before


def test_a_product_with_other_numbers_stays():
    weight = np.zeros((4, 4))
    weight[1, 2] = 1e-30
    model = graph([("MatMul", ["x", "w"], ["p"]), ("Add", ["p", "x"], ["y"])], ["y"], w=weight)
    assert drop_zero_products(model) == 0


def test_sums_one_after_another_are_followed():
    nodes = [("MatMul", ["x", "w"], ["p"]), ("Add", ["p", "x"], ["s"])]
    nodes += [("MatMul", ["s", "v"], ["q"]), ("Add", ["q", "s"], ["t"]), ("Abs", ["t"], ["y"])]
    model = graph(nodes, ["y"], w=np.zeros((4, 4)), v=np.zeros((4, 4)))
    assert drop_zero_products(model) == 2
    assert model.graph.node[-1].input[0] == "x"
    assert np.array_equal(run(model)[0], np.abs(STATES))
