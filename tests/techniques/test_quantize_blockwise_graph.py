"""Weights in blocks in a graph: what ONNX Runtime's operators make of them is what the blocks stand for."""

import numpy as np
import pytest
from onnx import TensorProto
from pydantic import ValidationError

from bertshrink.data.texts import Split, TextDataset
from bertshrink.errors import UserError
from bertshrink.onnx_graph.encoder_graph import array, initializers, read_model
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.quantize import Quantize
from bertshrink.techniques.quantize.numerics.blockwise import dequantize
from bertshrink.techniques.quantize.rewrite import rewrite
from bertshrink.techniques.quantize.size_estimate import block_size_for
from bertshrink.techniques.quantize.writers.blockwise import round_nearest
from bertshrink.techniques.quantize.writers.builder import RewriteOptions
from tests.support.quantizing import dense_graph, session
from tests.support.tiny import sentences, tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")


def made(width=48, outputs=5, seed=0):
    rng = np.random.default_rng(seed)
    shapes = ((width, outputs), (outputs,), (20, width))
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def run(model, ids):
    return session(model).run(None, {"input_ids": ids})[0]


@pytest.mark.parametrize("num_bits", [4, 8])
@pytest.mark.parametrize(("width", "block_size"), [(48, 16), (64, 32), (40, 32), (20, 128)])
def test_oracle(num_bits, width, block_size):
    weight, bias, table = made(width)
    kind = f"int{num_bits}-block"
    options = RewriteOptions(block_size=block_size, accuracy_level=0)
    found = rewrite(dense_graph(weight, bias, table), {"weight": kind, "table": kind}, options)
    ids = np.arange(20)[None]
    halved = [round_nearest(matrix, num_bits, block_size) for matrix in (table, weight.T)]
    table_as_it_is, weight_as_it_is = (dequantize(blocks) for blocks in halved)
    expected = table_as_it_is[ids] @ weight_as_it_is.T + bias
    # scales are stored with 11 bits
    np.testing.assert_allclose(run(found.model, ids), expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    assert found.accounting.matmuls == found.accounting.gathers == {kind: 1}


@pytest.mark.parametrize("num_bits", [4, 8])
def test_oracle_of_a_tied_table(num_bits):
    _, _, table = made(48)
    bias = np.arange(20, dtype=np.float32)
    found = rewrite(
        dense_graph(None, bias, table, tied=True), {"table": f"int{num_bits}-block"}, RewriteOptions(accuracy_level=0)
    )
    ids = np.array([[3, 1, 19], [0, 7, 7]])
    as_it_is = dequantize(round_nearest(table, num_bits, 32))
    expected = as_it_is[ids] @ as_it_is.T + bias
    np.testing.assert_allclose(run(found.model, ids), expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    packed = [s for s in initializers(found.model).values() if s.data_type == TensorProto.UINT8]
    assert [len(s.raw_data) for s in packed] == [20 * 48 * num_bits // 8]


def test_activations_in_bytes_stay_near():
    weight, bias, table = made(64, 24)
    ids = np.arange(20)[None]
    kinds = dict.fromkeys(("weight", "table"), "int8-block")
    exact, fast = (
        run(rewrite(dense_graph(weight, bias, table), kinds, RewriteOptions(accuracy_level=level)).model, ids)
        for level in (0, 4)
    )
    assert 0 < np.linalg.norm(exact - fast) < 0.02 * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("width", "asked", "expected"),
    [(384, 128, 128), (384, 64, 64), (768, 32, 32), (48, 128, 16), (40, 32, 32), (20, 128, 32), (8, 128, 16)],
)
def test_block_sizes(width, asked, expected):
    assert block_size_for(width, asked) == expected


def test_block_sizes_that_are_refused():
    with pytest.raises(ValidationError, match="48 is not a power of two"):
        Quantize(block_size=48)
    with pytest.raises(ValidationError, match="greater than or equal to 16"):
        Quantize(block_size=8)


def test_a_tied_table_that_blocks_do_not_divide_is_refused():
    _, _, table = made(40)
    bias = np.zeros(20, dtype=np.float32)
    with pytest.raises(UserError, match="`table` is 40 wide"):
        rewrite(dense_graph(None, bias, table, tied=True), {"table": "int4-block"})


def test_scales_outside_float16_stay_float32():
    weight, bias, table = made()
    for factor, expected in ((1, TensorProto.FLOAT16), (1e-6, TensorProto.FLOAT), (1e8, TensorProto.FLOAT)):
        found = rewrite(dense_graph(weight * np.float32(factor), bias, table), {"weight": "int8-block"})
        (scale,) = [s for name, s in initializers(found.model).items() if name.startswith("weight.scale")]
        assert scale.data_type == expected
        ids = np.arange(20)[None]
        np.testing.assert_allclose(
            run(found.model, ids) - bias, table[ids] @ weight * factor, atol=0.2 * factor, err_msg=str(factor)
        )


@pytest.fixture(scope="module")
def bench_and_artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    texts = TextDataset("salad", Split(tuple(sentences(60))), Split(tuple(sentences(30, 1))))
    bench = Workbench(texts, None, folder)
    return bench, Export()(tiny_encoder("bert", "embedding", num_hidden_layers=2), bench)


def test_rounding_against_texts(bench_and_artifact, tmp_path):
    bench, artifact = bench_and_artifact
    found = {}
    for rounding in ("nearest", "auto"):
        settings = Quantize(scheme="block-int4", embeddings="float32", rounding=rounding, min_cosine=-1)
        found[rounding] = settings(artifact, Workbench(bench.texts, None, tmp_path / rounding)).card.details
    assert found["nearest"]["calibration"] == {}
    assert found["auto"]["calibration"]["num_gptq"] == 2 * 6
    lost = {rounding: 1 - details["agreement"]["cosine"] for rounding, details in found.items()}
    assert lost["auto"] < 0.8 * lost["nearest"]


def test_without_texts_nothing_is_rounded_against_them(bench_and_artifact, tmp_path):
    _, artifact = bench_and_artifact
    bench = Workbench(None, None, tmp_path)
    found = Quantize(scheme="block-int4", rounding="gptq", min_cosine=-1)(artifact, bench)
    assert found.card.details["calibration"] == {}
    assert found.card.precision == "int4"


def test_the_rounded_weight_is_the_one_stored(bench_and_artifact, tmp_path):
    _, artifact = bench_and_artifact
    source = read_model(artifact.file)
    name = "encoder.layer.0.output.dense.weight.T"
    rounded = round_nearest(array(initializers(source)[name]).T + 0.5, 4, 16)
    found = rewrite(source, {name: "int4-block"}, RewriteOptions(blocks={(name, 4): rounded}))
    assert initializers(found.model)[f"{name}.blocks"].dims[1] == 64 // 16
    same = rewrite(source, {name: "int8-block"}, RewriteOptions(blocks={(name, 4): rounded}))
    assert initializers(same.model)[f"{name}.blocks"].dims[1] == 64 // 32, "eight bits are not what was rounded"
