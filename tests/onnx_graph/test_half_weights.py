"""Weights stored in half: half the bytes, one Cast a weight, the numbers rounded and no others touched."""

import numpy as np
import onnx
import pytest

from bertshrink.errors import CheckFailed
from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import array, bytes_by_type, initializers, operators
from bertshrink.onnx_graph.half_weights import store_half
from bertshrink.onnx_graph.weights import weights
from tests.support.quantizing import answers, difference, graph, operators_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("family", "task"), [("bert", "mlm"), ("albert", "embedding"), ("distilbert", "classification")]
)
def test_halved(dtype, family, task, tmp_path):
    source = graph(family, task)
    found = store_half(source, dtype)
    onnx.checker.check_model(found)
    sizes = bytes_by_type(found)
    assert sizes[dtype] == sum(weight.size_bytes for weight in weights(source).values()) // 2
    assert sizes["float32"] == bytes_by_type(source)["float32"] - 2 * sizes[dtype]
    assert operators(found)["Cast"] == operators(source)["Cast"] + len(weights(source))
    assert operators_run(found, tmp_path) == operators_run(source, tmp_path), "ONNX Runtime folds every Cast"
    assert 0 < difference(source, found, family) < (0.01 if dtype == "float16" else 0.06)


def test_each_number_is_the_nearest():
    source = graph()
    half, back = store_half(source, "float16"), canonicalise(store_half(source, "float16"))
    for name in weights(source):
        expected = array(initializers(source)[name]).astype(np.float16)
        assert np.array_equal(array(initializers(half)[f"{name}.half"]), expected)
    folded = sorted(array(s).tobytes() for s in initializers(back).values() if len(s.dims) == 2)
    assert (
        array(initializers(half)["encoder.layer.0.output.dense.weight.T.half"]).astype(np.float32).tobytes() in folded
    )
    assert np.array_equal(answers(half), answers(back))


def test_no_weight_named_changes_nothing():
    source = graph()
    same = store_half(source, "bfloat16", ())
    assert same.SerializeToString(deterministic=True) == source.SerializeToString(deterministic=True)


def test_some_weights():
    name = "encoder.layer.0.output.dense.weight.T"
    found = store_half(graph(), "bfloat16", [name])
    assert [n for n in initializers(found) if n.endswith(".half")] == [f"{name}.half"]


def test_numbers_beyond_float16_are_refused():
    source = onnx.ModelProto()
    source.CopyFrom(graph())
    name = "encoder.layer.0.output.dense.weight.T"
    stored = initializers(source)[name]
    stored.CopyFrom(onnx.numpy_helper.from_array(array(stored) * np.float32(1e6), name))
    with pytest.raises(CheckFailed, match=f"`{name}` holds numbers up to"):
        store_half(source, "float16")
    assert np.isfinite(answers(store_half(source, "bfloat16"))).all()
