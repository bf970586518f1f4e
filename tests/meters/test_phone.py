"""The checks for phones: what providers take of a graph, what a reduced build needs, what fits into memory."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from bertshrink.errors import MeasurementError, UnsafeModel, UserError
from bertshrink.meters.phone import compatibility
from bertshrink.meters.phone.compatibility import MemoryFootprint, ProviderCoverage, check_mobile
from bertshrink.meters.phone.compatibility_child import TABLES, Xnnpack, product_size, weights_of
from bertshrink.meters.targets.host import LocalRunner
from bertshrink.onnx_graph import ort_format
from tests.meters.test_arm64 import WIDTH, chain, launch_at
from tests.meters.test_size import tiny_onnx

ROW = ProviderCoverage(
    provider="NNAPI",
    shapes="fixed",
    num_nodes=100,
    num_taken=80,
    num_partitions=1,
    num_weights=10,
    num_weights_taken=10,
    not_taken=(),
)
MB = 10**6


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    return launch_at(tmp_path_factory.mktemp("models") / "m", chain(3))


@pytest.fixture(scope="module")
def report(launch):
    return check_mobile(launch)


@pytest.mark.slow
def test_what_providers_take_of_products_in_a_row(report):
    rows = {(row.provider, row.shapes): row for row in report.coverage}
    assert set(rows) == {("XNNPACK", "open"), *((name, shapes) for name in TABLES for shapes in ("open", "fixed"))}
    for row in rows.values():
        assert row.num_nodes == 4
        assert row.num_weights == 3 * WIDTH * WIDTH
    xnnpack = rows["XNNPACK", "open"]
    assert (xnnpack.num_taken, xnnpack.num_partitions, xnnpack.weight_share, xnnpack.verdict) == (3, 1, 1.0, "yes")
    assert rows["NNAPI", "open"].num_taken == 0
    assert rows["NNAPI", "fixed"].num_taken == 4
    assert rows["CoreML MLProgram", "fixed"].not_taken == ("ai.onnx:Gather",)
    assert report.notes[-1].endswith("NNAPI: needs fixed shapes; `bertshrink export --static-shape 1x64` makes them")


@pytest.mark.subprocess
def test_what_a_build_needs_and_what_it_weighs(report, launch):
    assert report.operators == {
        "ai.onnx:Gather": '{"inputs": {"0": ["float"], "1": ["int64_t"]}}',
        "ai.onnx:MatMul": '{"inputs": {"0": ["float"]}}',
    }
    assert [file.format for file in report.footprints] == ["onnx", "ort"]
    assert report.footprints[0].size_bytes == launch.path.stat().st_size
    for file in report.footprints:
        assert set(file.peaks_bytes) == {"import", "load", "first", "steady"}
        assert 20 * MB < file.peak_bytes < 500 * MB
        assert 0 <= file.model_bytes < 50 * MB
    assert report.length == 64
    assert launch.path.parent.joinpath("model.ort").exists() is False


@pytest.mark.subprocess
def test_the_tables_say_it_all(report):
    (heads, providers), (columns, files) = report.tables()
    assert all(len(row) == len(heads) for row in providers)
    assert all(len(row) == len(columns) for row in files)
    assert providers[0] == ("XNNPACK", "open", "3 of 4", "1", "100 %", "yes")
    assert files[0][0] == ".onnx"
    assert files[0][-1].startswith("fits (")


@pytest.mark.slow
def test_dynamic_int8_is_for_the_cpu(tmp_path):
    report = check_mobile(launch_at(tmp_path / "m", tiny_onnx(int8=True)))
    assert {row.verdict for row in report.coverage} == {"no"}
    assert {row.weight_share for row in report.coverage} == {0.0}
    assert "the CPU provider is the best choice" in report.notes[-1]


def test_onnxruntimes_tools_bring_no_torch(monkeypatch):
    for name in [name for name in sys.modules if name == "torch" or name.startswith("onnxruntime.tools")]:
        monkeypatch.delitem(sys.modules, name)
    assert ort_format.import_tools("mobile_helpers.usability_checker").check_partitioning
    assert "torch" not in sys.modules


@pytest.mark.slow
def test_an_ort_file_has_no_providers(launch, tmp_path):
    ort_format.write(launch.path, tmp_path / "model.ort")
    report = check_mobile(replace(launch, path=tmp_path / "model.ort"))
    assert report.coverage == ()
    assert [file.format for file in report.footprints] == ["ort"]
    assert "ai.onnx:MatMul" in report.operators
    assert len(report.tables()) == 1
    assert "no other provider can run parts of it" in report.notes[0]


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "yes"),
        ({"num_taken": 60}, "maybe"),
        ({"num_taken": 50}, "no"),
        ({"num_partitions": 2}, "maybe"),
        ({"num_partitions": 2, "num_taken": 70}, "no"),
        ({"num_partitions": 3, "num_taken": 99}, "no"),
        ({"num_weights_taken": 0, "num_taken": 99}, "no"),
        ({"num_weights": 0, "num_weights_taken": 0}, "no"),
        ({"provider": "XNNPACK", "num_partitions": 40, "num_taken": 30}, "yes"),
        ({"provider": "XNNPACK", "num_weights_taken": 6}, "maybe"),
    ],
)
def test_the_verdict_follows_nodes_pieces_and_weights(change, verdict):
    assert ROW.model_copy(update=change).verdict == verdict


@pytest.mark.parametrize(
    ("engine", "most", "cap", "fit"),
    [(40, 100, 128, "fits"), (40, 128, 128, "fits"), (40, 150, 128, "depends"), (40, 169, 128, "exceeds")],
)
def test_whether_it_fits(engine, most, cap, fit):
    peaks = {"import": engine * MB, "load": most * MB, "first": 50 * MB, "steady": 60 * MB}
    assert MemoryFootprint(format="onnx", size_bytes=1, peaks_bytes=peaks, cap_bytes=cap * MB).fit == fit


def constant(name, *shape, kind=np.float32):
    return numpy_helper.from_array(np.ones(shape, kind), name)


def graph(*nodes, rank=3, dims=(2, 5, 8)):
    return helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", 1, dims[:rank])],
        [helper.make_tensor_value_info("y", 1, None)],
        [constant("w", 8, 3), constant("w8", 8, 3, kind=np.int8), constant("w3", 2, 8, 3), constant("s")],
    )


@pytest.mark.parametrize(
    ("node", "size"),
    [
        (helper.make_node("MatMul", ["x", "w"], ["y"]), 24),
        (helper.make_node("MatMul", ["x", "x"], ["y"]), 0),
        (helper.make_node("MatMul", ["x", "d"], ["y"]), 24),
        (helper.make_node("Add", ["x", "w"], ["y"]), 0),
        (helper.make_node("QLinearMatMul", ["x", "s", "s", "w8", "s", "s", "s", "s"], ["y"]), 24),
        (helper.make_node("MatMulNBits", ["x", "w8"], ["y"], domain="com.microsoft", K=64, N=32), 2048),
    ],
)
def test_the_multiply_adds_of_a_product(node, size):
    found = weights_of(graph(helper.make_node("DequantizeLinear", ["w8", "s"], ["d"]), node))
    assert product_size(node, found) == size


@pytest.mark.parametrize(
    ("node", "rank", "is_taken"),
    [
        (helper.make_node("MatMul", ["x", "w"], ["y"]), 3, True),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), 2, True),
        (helper.make_node("MatMul", ["x", "w3"], ["y"]), 3, False),
        (helper.make_node("MatMul", ["x", "w8"], ["y"]), 3, False),
        (helper.make_node("MatMul", ["x", "x"], ["y"]), 3, False),
        (helper.make_node("MatMul", ["z", "w"], ["y"]), 3, False),
        (helper.make_node("Softmax", ["x"], ["y"], axis=-1), 3, True),
        (helper.make_node("Softmax", ["x"], ["y"], axis=1), 3, False),
        (helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"), 3, False),
    ],
)
def test_what_xnnpack_takes(node, rank, is_taken):
    made = graph(node, rank=rank)
    assert Xnnpack(made, weights_of(made)).is_op_supported(node) is is_taken


def test_xnnpack_needs_the_last_dimension_of_a_softmax():
    node = helper.make_node("Softmax", ["x"], ["y"])
    made = graph(node, dims=(2, 5, None))
    assert not Xnnpack(made, {}).is_op_supported(node)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.subprocess
def test_other_engines_and_other_files(launch, tmp_path):
    with pytest.raises(UserError, match="runs on torch"):
        check_mobile(replace(launch, engine="torch"))
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UnsafeModel, match="cannot be read"):
        check_mobile(replace(launch, path=tmp_path / "model.onnx"))


@pytest.mark.parametrize(
    ("code", "stdout", "hint"),
    [(-11, b"", "a tail"), (1, b"", "a tail"), (0, b"garbage", "a tail"), (0, b"{}", "a tail"), (0, b"", "a tail")],
)
def test_a_check_that_dies_or_lies(launch, monkeypatch, code, stdout, hint):
    done = SimpleNamespace(returncode=code, stdout=stdout, stderr=b"a tail")
    monkeypatch.setattr(compatibility.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(MeasurementError, match=f"status {code} and no result") as caught:
        check_mobile(launch)
    assert hint in caught.value.hint


@pytest.mark.subprocess
def test_a_check_that_hangs(launch, monkeypatch):
    def hang(*_, timeout, **__):
        raise subprocess.TimeoutExpired("x", timeout)

    monkeypatch.setattr(compatibility.subprocess, "run", hang)
    with pytest.raises(MeasurementError, match="did not finish within 600 s"):
        check_mobile(launch)


@pytest.mark.subprocess
def test_a_run_that_dies(launch):
    with pytest.raises(MeasurementError, match="failed with exit status 1"):
        check_mobile(launch, host=LocalRunner(("false",)))


@pytest.mark.slow
def test_a_small_cap_is_told(launch):
    report = check_mobile(launch, cap_bytes=30 * MB)
    assert {file.fit for file in report.footprints} <= {"depends", "exceeds"}
    assert onnx.load(launch.path).graph.name == "chain", "the file itself is not touched"
