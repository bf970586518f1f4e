"""Blocks of 4 and 8 bits: the numbers those of a slow plain search, the bytes those that ONNX Runtime reads."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bertshrink.techniques.quantize.numerics.blockwise import (
    Blocks,
    dequantize,
    pack_gather,
    pack_matmul_nbits,
    quantize_blocks,
)

KINDS = [(bits, symmetric) for bits in (4, 8) for symmetric in (True, False)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run_node(kind, feed, tensors, **attributes):
    """The output of a model of one node, on one thread."""
    ((name, value),) = feed.items()
    kept = {key: array for key, array in tensors.items() if array is not None}
    node = helper.make_node(kind, [name if key == name else key for key in (*feed, *kept)], ["y"], **attributes)
    if kind == "GatherBlockQuantized":  # the table is before the ids
        node.input[:2] = ["data", name]
    node.domain = "com.microsoft"
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, key) for key, array in kept.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


# the numbers


def test_by_hand():
    weight = np.array([[-8, 1, 2, 7, 0, 0, 0, 0], [8, -7, 4, 0, 15, 0, 3, 1]], np.float32)
    found = quantize_blocks(weight, 4, 4, symmetric=True)
    assert found.steps_RI[0].tolist() == [0, 9, 10, 15, 8, 8, 8, 8]
    assert found.scale_RB[0, 0] == 1 and found.scale_RB[1, 0] == -1  # the sign that lays the extreme on -8
    assert found.steps_RI[1, :4].tolist() == [0, 15, 4, 8]
    assert np.array_equal(dequantize(found)[:, :4], weight[:, :4])
    found = quantize_blocks(weight, 4, 4, symmetric=False)
    assert found.zero_point_RB is not None
    assert found.steps_RI[0, :4].tolist() == [0, 9, 10, 15] and found.zero_point_RB[0, 0] == 8
    assert found.steps_RI[1, 4:].tolist() == [15, 0, 3, 1] and found.zero_point_RB[1, 1] == 0
    assert np.array_equal(dequantize(found), weight)


def test_eight_bits_keep_to_127_either_side():
    found = quantize_blocks(normal(7, 64), 8, 32, symmetric=True, search=False)
    assert found.steps_RI.min() == 1 and found.steps_RI.max() == 255
    assert np.all(found.scale_RB > 0)


@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
def test_weights_on_the_grid_come_back(bits, symmetric):
    random = np.random.default_rng(1)
    steps = random.integers(1, 2**bits, (6, 40)).astype(np.uint8)
    steps[:, ::8] = (1, 2**bits - 1, 1, 2**bits - 1, 1)  # each block of 16, and the short one, spans the range
    steps[:, 4::8] = (2**bits - 1, 1, 2**bits - 1, 1, 2**bits - 1)
    if bits == 4 or not symmetric:  # all but -127..127 use the lowest step
        steps[:, [0, 16, 32]] = 0
    zero = None if symmetric else random.integers(0, 2**bits, (6, 3)).astype(np.uint8)
    blocks = Blocks(steps, random.uniform(0.1, 1, (6, 3)).astype(np.float32), zero, bits, 16)
    found = quantize_blocks(dequantize(blocks), bits, 16, symmetric=symmetric)
    assert np.allclose(dequantize(found), dequantize(blocks), rtol=1e-6, atol=0)
    assert np.array_equal(found.steps_RI, steps)


def slow_search(block, bits, symmetric, importance):
    """The least weighted squared error over a block, all loops in the open, in float64."""
    half, top = 2 ** (bits - 1), 2**bits - 1
    low, high = min(block.min(), 0), max(block.max(), 0)
    factors = np.linspace(8 / 7 if symmetric else 1, 0.7, 12) if bits == 4 else np.linspace(1, 0.97, 8)
    least = np.inf
    for factor in factors:
        if not symmetric:
            scale = (high - low) * factor / top
            zero = min(max(round(-low * factor / scale), 0), top)
            bounds = -zero, top - zero
        elif bits == 8:
            scale, bounds = max(-low, high) * factor / 127, (-127, 127)
        else:
            scale, bounds = (-low if -low >= high else -high) * factor / half, (-8, 7)
        steps = [min(max(round(w / scale), bounds[0]), bounds[1]) for w in block]
        fitted = sum(a * w * n for a, w, n in zip(importance, block, steps, strict=True)) / sum(
            a * n * n for a, n in zip(importance, steps, strict=True)
        )
        steps = [min(max(round(w / fitted), bounds[0]), bounds[1]) for w in block]
        least = min(least, sum(a * (w - fitted * n) ** 2 for a, w, n in zip(importance, block, steps, strict=True)))
    return least


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
def test_oracle_of_the_search(bits, symmetric, weighted):
    weight, size = normal(5, 40), 16
    importance = np.random.default_rng(3).uniform(0.1, 10, 40) if weighted else np.ones(40)
    found = dequantize(
        quantize_blocks(weight, bits, size, symmetric=symmetric, importance_I=importance if weighted else None)
    )
    for row in range(5):
        for start in range(0, 40, size):
            part = slice(start, start + size)
            least = slow_search(weight[row, part].astype(np.float64), bits, symmetric, importance[part])
            error = (importance[part] * (weight[row, part] - found[row, part]) ** 2).sum()
            # the range is chosen before the last rounding, the plain version after it: that costs little
            assert least * 0.999 <= error <= least * 1.05


@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
def test_nearest_and_better_by_search(bits, symmetric):
    weight = normal(300, 100, seed=2)
    plain = quantize_blocks(weight, bits, 32, symmetric=symmetric, search=False)
    found = quantize_blocks(weight, bits, 32, symmetric=symmetric)
    reach = np.repeat(np.abs(plain.scale_RB), 32, axis=1)[:, :100]
    # a zero point is a whole number, which moves the range by up to half a step; -8..7 lacks the other side's last one
    slack = 1.0 if bits == 4 or not symmetric else 0.5
    assert np.all(np.abs(dequantize(plain) - weight) <= reach * slack * 1.0001)
    errors = [((dequantize(each) - weight) ** 2).sum(axis=1) for each in (plain, found)]
    assert errors[1].sum() < errors[0].sum() * 0.99
    assert found.size_bytes < weight.nbytes


def test_importance_moves_the_error():
    weight = normal(50, 64)
    importance = np.where(np.arange(64) % 4 == 0, 100.0, 1.0)
    plain, found = (quantize_blocks(weight, 4, 32, symmetric=True, importance_I=a) for a in (None, importance))
    errors = [((dequantize(each) - weight) ** 2 * importance).sum() for each in (plain, found)]
    assert errors[1] < errors[0] * 0.9
    same = quantize_blocks(weight, 4, 32, symmetric=True, importance_I=np.full(64, 2.0))
    assert np.array_equal(same.steps_RI, plain.steps_RI)


@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
def test_one_sided_constant_and_empty_blocks(bits, symmetric):
    weight = np.zeros((4, 32), np.float32)
    weight[0], weight[1], weight[2, :16] = 3.0, -0.5, 1e-42  # a constant, a negative one, next to nothing
    found = quantize_blocks(weight, bits, 16, symmetric=symmetric)
    assert np.allclose(dequantize(found), weight, rtol=1e-6, atol=1e-37)
    assert np.all(dequantize(found)[3] == 0)
    assert np.all(np.isfinite(found.scale_RB)) and np.all(found.scale_RB != 0)


def test_many_chunks_equal_one(monkeypatch):
    weight = normal(40, 100)
    found = quantize_blocks(weight, 4, 32, symmetric=False)
    monkeypatch.setattr("bertshrink.techniques.quantize.numerics.blockwise._CHUNK_ELEMENTS", 96)
    again = quantize_blocks(weight, 4, 32, symmetric=False)
    assert np.array_equal(again.steps_RI, found.steps_RI) and np.array_equal(again.scale_RB, found.scale_RB)


def test_refusals():
    weight = normal(2, 32)
    for wrong in (weight[0], weight[:0], np.where(weight > 1, np.nan, weight)):
        with pytest.raises(ValueError, match="finite"):
            quantize_blocks(wrong, 4, 32, symmetric=True)
    for bits, size in ((3, 32), (4, 0)):
        with pytest.raises(ValueError, match="only 4 and 8 bits"):
            quantize_blocks(weight, bits, size, symmetric=True)
    for size in (8, 24):
        blocks = quantize_blocks(weight, 4, size, symmetric=True)
        for pack in (pack_matmul_nbits, pack_gather):
            with pytest.raises(ValueError, match="power of two"):
                pack(blocks)
    with pytest.raises(ValueError, match="odd width"):
        pack_gather(quantize_blocks(weight[:, :31], 4, 16, symmetric=True))


# the bytes


@pytest.mark.parametrize(("width", "size"), [(64, 16), (40, 16), (39, 16), (96, 32), (200, 128), (33, 64)])
@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
def test_matmul_nbits_reads_the_layout(bits, symmetric, width, size):
    weight = normal(7, width, seed=width)
    blocks = quantize_blocks(weight, bits, size, symmetric=symmetric)
    packed, scales, zero_points = pack_matmul_nbits(blocks)
    num_blocks = -(-width // size)
    assert packed.shape == (7, num_blocks, size * bits // 8) and scales.shape == (7, num_blocks)
    assert (zero_points is None) == symmetric
    found = run_node(
        "MatMulNBits",
        {"x": np.eye(width, dtype=np.float32)},
        {"B": packed, "scales": scales, "zero_points": zero_points},
        K=width,
        N=7,
        bits=bits,
        block_size=size,
        accuracy_level=0,
    )
    assert np.allclose(found.T, dequantize(blocks), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("width", "size"), [(64, 16), (40, 16), (48, 16), (96, 32), (200, 128)])
@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
def test_gather_reads_the_layout(bits, symmetric, width, size):
    blocks = quantize_blocks(normal(9, width, seed=width), bits, size, symmetric=symmetric)
    packed, scales, zero_points = pack_gather(blocks)
    ids = np.array([[3, 0, 8], [1, 1, 5]])
    found = run_node(
        "GatherBlockQuantized",
        {"ids": ids},
        {"data": packed, "scales": scales, "zero_points": zero_points},
        bits=bits,
        block_size=size,
        gather_axis=0,
        quantize_axis=1,
    )
    assert np.array_equal(found, dequantize(blocks)[ids])


@pytest.mark.parametrize(("bits", "symmetric"), KINDS)
def test_a_table_and_a_head_read_the_same_bytes(bits, symmetric):
    blocks = quantize_blocks(normal(9, 96), bits, 32, symmetric=symmetric)
    head, table = pack_matmul_nbits(blocks), pack_gather(blocks)
    assert head[0].tobytes() == table[0].tobytes() and head[1].tobytes() == table[1].tobytes()
    if head[2] is not None and table[2] is not None:
        assert head[2].shape == table[2].shape and np.array_equal(head[2], table[2])
