"""What a file is, from its header alone; damaged files are refused."""

import os
import struct

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from bertshrink.errors import UnsafeModel
from bertshrink.files.headers import read_onnx, read_safetensors


def model_with_branch():
    """y = x @ w, then one of two branches by a flag; a weight in a branch, one in a Constant, a call of a function."""
    w = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    inner = numpy_helper.from_array(np.ones((3,), np.float16), "inner")
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    yes = helper.make_graph(
        [helper.make_node("Cast", ["inner"], ["wide"], to=1), helper.make_node("Add", ["y", "wide"], ["out"])],
        "yes",
        [],
        [out],
        [inner],
    )
    no = helper.make_graph([helper.make_node("Identity", ["y"], ["out"])], "no", [], [out])
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros((3,), np.int64), "")),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("If", ["flag"], ["z"], then_branch=yes, else_branch=no),
        helper.make_node("Twice", ["z"], ["t"], domain="own"),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)], [w])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, functions=[twice], opset_imports=opsets, ir_version=10)


def test_onnx_with_subgraphs_constants_and_functions(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(model_with_branch(), path)
    facts = read_onnx(path)
    assert facts.num_bytes == path.stat().st_size
    assert {t.name: (t.dtype, t.shape, t.num_bytes) for t in facts.tensors} == {
        "w": ("FLOAT", (4, 3), 48),
        "inner": ("FLOAT16", (3,), 6),
        "c": ("INT64", (3,), 24),
    }
    assert facts.operators == {
        **{":Constant": 1, ":MatMul": 1, ":If": 1, "own:Twice": 1, ":Cast": 1, ":Identity": 1},
        ":Add": 2,  # one in a branch, one in the function
    }
    assert (facts.inputs, facts.outputs, facts.opset) == (("x", "flag"), ("t",), {"": 17, "own": 1})


def test_onnx_external_data_counts(tmp_path):
    path = tmp_path / "m.onnx"
    model = model_with_branch()
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    facts = read_onnx(path)
    assert facts.num_bytes == path.stat().st_size + (tmp_path / "w.bin").stat().st_size
    assert facts.beside == ("w.bin",)


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("../w.bin", "not a file beside it"),
        ("/etc/hostname", "not a file beside it"),
        ("missing.bin", "is missing"),
        ("link.bin", "is a link"),
        ("hard.bin", "hard link elsewhere"),
        ("short.bin", r"of a file of 3\b"),
    ],
)
def test_external_data_stays_in_the_folder(tmp_path, location, why):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(b"x" * 48)
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    os.link(tmp_path / "w.bin", folder / "hard.bin")
    (folder / "short.bin").write_bytes(b"abc")
    model = model_with_branch()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeModel, match=why):
        read_onnx(folder / "m.onnx")


def test_damaged_onnx_is_refused(tmp_path):
    path = tmp_path / "m.onnx"
    whole = model_with_branch().SerializeToString()
    for cut in range(0, len(whole) - 60, 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(UnsafeModel):
            read_onnx(path)
    model = model_with_branch()
    model.graph.initializer[0].dims[0] = 4_000_000
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeModel, match="fewer bytes"):
        read_onnx(path)


def test_safetensors_agrees_with_what_was_saved(tmp_path):
    path = tmp_path / "model.safetensors"
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.ones((5,), np.float16), "s": np.array(1, np.int64)}
    save_file(arrays, path, metadata={"format": "pt"})
    facts = read_safetensors(path)
    assert {t.name: (t.dtype, t.shape, t.num_bytes, t.num_elements) for t in facts.tensors} == {
        "a": ("F32", (2, 3), 24, 6),
        "b": ("F16", (5,), 10, 5),
        "s": ("I64", (), 8, 1),
    }
    assert facts.num_bytes == path.stat().st_size


def test_damaged_safetensors_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": np.ones((2, 3), np.float32)}, path)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(UnsafeModel):
            read_safetensors(path)
    for old, new in ((b"[2,3]", b"[2,4]"), (b"[2,3]", b"[-2,]"), (b'"F32"', b'"F16"'), (b'"shape"', b'"shale"')):
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(UnsafeModel):
            read_safetensors(path)
    path.write_bytes(struct.pack("<Q", 200_000) + b"[" * 200_000)
    with pytest.raises(UnsafeModel):
        read_safetensors(path)
