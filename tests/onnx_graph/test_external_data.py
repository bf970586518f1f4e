"""Graphs whose large tensors are elsewhere: read, lent, written; byte for byte the whole ones."""

import copy

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bertshrink.errors import CheckFailed, UnsafeModel
from bertshrink.files.headers import read_onnx
from bertshrink.files.onnx_without_tensors import LARGE_BYTES, load_structure
from bertshrink.onnx_graph import external_data
from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import array, read_model, tensor, write_model
from bertshrink.onnx_graph.external_data import BorrowedTensors, digest, is_external, stream

SIDE = 160
assert SIDE * SIDE * 4 > LARGE_BYTES > SIDE * SIDE


def a_model(**more):
    """Two large weights of different types, one transposed on the way, and a small one; nothing of it is empty."""
    numbers = np.random.default_rng(0).normal(size=(SIDE, SIDE))
    stored = {
        "weight": numbers.astype(np.float32),
        "turned": numbers.T.astype(np.float32) * 2,
        "half": numbers.repeat(2, axis=0).astype(np.float16),
        "bias": np.ones(SIDE, np.float32),
        "one": np.array(1.5, np.float32),
    } | more
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["a"]),
        helper.make_node("Transpose", ["turned"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["a", "t"], ["b"]),
        helper.make_node("Cast", ["half"], ["h"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["h"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("Add", ["d", "bias"], ["e"]),
        helper.make_node("Mul", ["e", "one"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", SIDE])],
        [tensor(value, name) for name, value in stored.items()],
        value_info=[helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", SIDE])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9, producer_name="tests")
    helper.set_model_props(model, {"task": "none", "labels": "[]"})
    return model


def whole(model):
    return model.SerializeToString(deterministic=True)


def test_a_streamed_file_has_the_bytes_of_the_whole_message(tmp_path):
    model = a_model()
    stream(model, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == whole(model)


def test_what_stays_in_the_file_reads_and_writes_the_same(tmp_path):
    model = a_model()
    (tmp_path / "m.onnx").write_bytes(whole(model))
    found = read_model(tmp_path / "m.onnx", numbers=False)
    assert [is_external(stored) for stored in found.graph.initializer] == [True, True, True, False, False]
    assert found.ByteSize() < 3000
    for ours, theirs in zip(found.graph.initializer, model.graph.initializer, strict=True):
        assert array(ours).dtype == array(theirs).dtype
        np.testing.assert_array_equal(array(ours), array(theirs))
    write_model(found, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == whole(model)


def test_a_canonical_graph_is_the_same_wherever_its_numbers_lie(tmp_path):
    model = a_model(twin=np.ones(SIDE, np.float32))
    expected = whole(canonicalise(model))
    (tmp_path / "m.onnx").write_bytes(whole(model))
    write_model(canonicalise(read_model(tmp_path / "m.onnx", numbers=False)), tmp_path / "file.onnx")
    assert (tmp_path / "file.onnx").read_bytes() == expected
    with BorrowedTensors() as lender:
        lent = copy.deepcopy(model)
        del lent.graph.initializer[:]
        lent.graph.initializer.extend(lender.tensor(array(stored), stored.name) for stored in model.graph.initializer)
        found = canonicalise(lent, lender.tensor)
        assert max(stored.ByteSize() for stored in found.graph.initializer) < 1000, "the transposed one is lent, too"
        write_model(found, tmp_path / "lent.onnx")
    assert (tmp_path / "lent.onnx").read_bytes() == expected


def test_what_was_lent_is_gone_when_the_block_ends():
    with BorrowedTensors() as lender:
        stored = lender.tensor(np.zeros((SIDE, SIDE), np.float32), "weight")
    with pytest.raises(KeyError):
        array(stored)


def test_a_digest_is_that_of_the_numbers_and_is_not_believed_from_a_file(tmp_path):
    model = a_model()
    model.graph.initializer[0].external_data.add(key="checksum", value="00" * 32)
    (tmp_path / "m.onnx").write_bytes(whole(model))
    found = read_model(tmp_path / "m.onnx", numbers=False)
    right = [digest(stored) for stored in a_model().graph.initializer]
    for _ in range(2):
        assert [digest(stored) for stored in found.graph.initializer] == right
    assert digest(model.graph.initializer[0]) == right[0]


@pytest.mark.parametrize("keep", [0, 1, 40, LARGE_BYTES, -1])
def test_a_cut_file_is_refused(tmp_path, keep):
    data = whole(a_model())
    (tmp_path / "m.onnx").write_bytes(data[:keep])
    with pytest.raises(UnsafeModel):
        read_model(tmp_path / "m.onnx", numbers=False)
    with pytest.raises(UnsafeModel):
        read_onnx(tmp_path / "m.onnx")


def test_tensors_of_other_lengths_than_their_shape_and_of_half_bytes_stay_in_the_message(tmp_path):
    model = a_model()
    short = model.graph.initializer.add(name="short", data_type=TensorProto.FLOAT, dims=[SIDE, SIDE])
    short.raw_data = bytes(LARGE_BYTES)
    model.graph.initializer.append(
        helper.make_tensor("four", TensorProto.INT4, [4 * LARGE_BYTES], bytes(2 * LARGE_BYTES), raw=True)
    )
    (tmp_path / "m.onnx").write_bytes(whole(model))
    assert load_structure(tmp_path / "m.onnx")[1] == {0, 1, 2}


def test_a_tensor_that_says_that_it_lies_in_the_file_itself_is_still_refused(tmp_path):
    model = a_model()
    first = model.graph.initializer[0]
    first.data_location = TensorProto.EXTERNAL
    first.external_data.add(key="location", value=str(tmp_path / "m.onnx"))
    for why in ("is in the model, and", "is not a file beside it"):
        (tmp_path / "m.onnx").write_bytes(whole(model))
        with pytest.raises(UnsafeModel, match=why):
            read_model(tmp_path / "m.onnx", numbers=False)
        first.ClearField("raw_data")


def test_the_report_reads_the_same_facts(tmp_path):
    model = a_model()
    write_model(model, tmp_path / "m.onnx")
    found = read_onnx(tmp_path / "m.onnx")
    sizes = {tensor.name: tensor.num_bytes for tensor in found.tensors}
    assert sizes == {stored.name: numpy_helper.to_array(stored).nbytes for stored in model.graph.initializer}
    assert found.num_bytes == (tmp_path / "m.onnx").stat().st_size


def test_an_invalid_graph_leaves_no_file(tmp_path):
    model = a_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(CheckFailed):
        write_model(model, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    onnx.checker.check_model(a_model())


def test_a_large_tensor_is_copied_in_parts_and_a_cut_file_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(external_data, "_COPIED_BYTES", 1000)
    model = a_model()
    (tmp_path / "m.onnx").write_bytes(whole(model))
    found = read_model(tmp_path / "m.onnx", numbers=False)
    stream(found, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == whole(model)
    (tmp_path / "m.onnx").write_bytes(whole(model)[:5000])
    with pytest.raises(OSError, match="was cut while it was read"):
        stream(found, tmp_path / "again.onnx")
