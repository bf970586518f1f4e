"""GPTQ: equal to the plain version that inverts a matrix at every step, and better than nearest rounding."""

import numpy as np
import pytest

from bertshrink.techniques.quantize.numerics.blockwise import dequantize, fit_scales, quantize_blocks
from bertshrink.techniques.quantize.numerics.gptq import gptq_int8, gptq_quantize
from bertshrink.techniques.quantize.numerics.int8 import quantize_matrix

KINDS = [(4, 16, True), (4, 16, False), (8, 16, False), (4, 24, False), (8, 300, True), (4, 300, False)]


def layer(rows, width, seed=0):
    """Weights, and the Gram matrix of correlated inputs, some of them ten times as large."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(width, width)) * np.exp(-np.arange(width) / width * 4)[:, None]
    inputs = random.normal(size=(4 * width, width)) @ mixing * np.where(np.arange(width) % 10 == 3, 10, 1)
    return random.normal(size=(rows, width)).astype(np.float32), inputs.T @ inputs


def output_error(weight, found, gram):
    """tr(D G D^T): the sum of squared differences of the outputs."""
    difference = found.astype(np.float64) - weight
    return float(((difference @ gram) * difference).sum())


def slow_gptq(weight, gram, bits, size, symmetric, damping):
    """Optimal Brain Surgeon as it is in the book: the inverse of what is left, again for every input."""
    rows, width = weight.shape
    rest = weight.astype(np.float64)
    hessian = gram + np.eye(width) * damping * np.diag(gram).mean()
    inverses = [np.linalg.inv(hessian[i:, i:]) for i in range(width)]
    steps, scales, zeros = np.zeros((rows, width)), [], []
    for i in range(width):
        if i % size == 0:
            block = rest[:, i : i + size].astype(np.float32)
            importance = np.array([1 / inverse[0, 0] for inverse in inverses[i : i + size]], np.float32)
            missing = ((0, 0), (0, size - block.shape[1]))
            scale, zero = fit_scales(
                np.pad(block, missing),
                bits,
                symmetric=symmetric,
                search=True,
                importance_NK=np.pad(np.tile(importance, (rows, 1)), missing),
            )
            scales.append(scale)
            zeros.append(zero)
        for row in range(rows):
            lowest = 1 if bits == 8 and symmetric else 0
            step = min(max(round(rest[row, i] / scale[row]) + zero[row], lowest), 2**bits - 1)
            error = (rest[row, i] - (step - zero[row]) * scale[row]) / inverses[i][0, 0]
            rest[row, i:] -= error * inverses[i][0]
            steps[row, i] = step
    return steps, np.stack(scales, 1), np.stack(zeros, 1)


@pytest.mark.parametrize(("bits", "size", "symmetric"), KINDS)
def test_oracle(bits, size, symmetric, monkeypatch):
    weight, gram = layer(3, 40)
    size = min(size, 40)
    steps, scales, zeros = slow_gptq(weight, gram, bits, size, symmetric, 0.01)
    for segment in (128, 32, 7):  # all at once, some blocks at a time, less than a block at a time
        monkeypatch.setattr("bertshrink.techniques.quantize.numerics.gptq._SEGMENT", segment)
        found = gptq_quantize(weight, gram, bits, size, symmetric=symmetric, order=False)
        assert np.array_equal(found.steps_RI, steps)
        assert np.allclose(found.scale_RB, scales, rtol=1e-6)
        assert (found.zero_point_RB is None) if symmetric else np.array_equal(found.zero_point_RB, zeros)


@pytest.mark.parametrize(("bits", "size", "symmetric"), KINDS)
def test_outputs_change_less_than_by_nearest_rounding(bits, size, symmetric):
    weight, gram = layer(30, 300)
    nearest = output_error(weight, dequantize(quantize_blocks(weight, bits, size, symmetric=symmetric)), gram)
    for order in (False, True):
        found = gptq_quantize(weight, gram, bits, size, symmetric=symmetric, order=order)
        assert found.steps_RI.shape == weight.shape and found.scale_RB.shape == (30, -(-300 // size))
        assert output_error(weight, dequantize(found), gram) < nearest * 0.7


def test_order_puts_everything_back():
    weight, _ = layer(5, 40)
    same = np.diag(np.arange(1, 41.0))  # no input makes up for another: the order must not show
    plain, ordered = (gptq_quantize(weight, same, 4, 16, symmetric=False, order=order) for order in (False, True))
    assert np.array_equal(plain.steps_RI, ordered.steps_RI)
    assert np.allclose(plain.scale_RB, ordered.scale_RB, rtol=1e-6)
    assert np.array_equal(plain.zero_point_RB, ordered.zero_point_RB)
    by_importance = quantize_blocks(weight, 4, 16, symmetric=False, importance_I=np.diag(same) + 0.01 * 20.5)
    assert np.array_equal(plain.steps_RI, by_importance.steps_RI)


def test_order_helps_where_inputs_differ():
    weight, gram = layer(50, 128, seed=4)
    errors = [
        output_error(weight, dequantize(gptq_quantize(weight, gram, 4, 32, symmetric=True, order=order)), gram)
        for order in (False, True)
    ]
    assert errors[1] < errors[0]


def test_inputs_that_never_woke_are_rounded_to_the_nearest():
    weight, gram = layer(6, 64)
    dead = [0, 17, 33, 63]
    gram[dead], gram[:, dead] = 0, 0
    found = gptq_quantize(weight, gram, 8, 32, symmetric=False)
    reach = np.repeat(found.scale_RB, 32, axis=1)[:, dead]
    # their errors count little when scales are chosen, so some may be a little outside of the range
    assert np.mean(np.abs(dequantize(found)[:, dead] - weight[:, dead]) <= reach * 0.5001) > 0.9
    nothing = gptq_quantize(weight, np.zeros((64, 64)), 8, 32, symmetric=False)
    assert np.array_equal(nothing.steps_RI, quantize_blocks(weight, 8, 32, symmetric=False).steps_RI)


def test_fewer_tokens_than_inputs():
    weight, _ = layer(4, 64)
    inputs = np.random.default_rng(1).normal(size=(5, 64))
    gram = inputs.T @ inputs
    found = gptq_quantize(weight, gram.astype(np.float32), 4, 32, symmetric=True)
    nearest = output_error(weight, dequantize(quantize_blocks(weight, 4, 32, symmetric=True)), gram)
    assert output_error(weight, dequantize(found), gram) < nearest * 0.1


def test_weights_on_the_grid_stay():
    weight, gram = layer(4, 64)
    grid = dequantize(quantize_blocks(weight, 8, 32, symmetric=True, search=False))
    found = gptq_quantize(grid, gram, 8, 32, symmetric=True, search=False)
    assert np.allclose(dequantize(found), grid, rtol=1e-5, atol=1e-6)


def test_bytes_with_one_scale_an_output():
    weight, gram = layer(20, 150)
    plain, found = quantize_matrix(weight.T, 0), gptq_int8(weight.T, gram)
    assert found.bytes_IO.shape == (150, 20) and found.bytes_IO.dtype == np.int8 and found.scale.shape == (1, 20)
    assert found.bytes_IO.min() >= -127 and np.all(found.scale > 0)
    errors = [output_error(weight, each.dequantize().T, gram) for each in (plain, found)]
    assert errors[1] < errors[0] * 0.7


def test_refusals():
    weight, gram = layer(2, 16)
    for wrong in (gram[:8, :8], np.full((16, 16), np.nan)):
        with pytest.raises(ValueError, match="Gram matrix of 16 inputs"):
            gptq_quantize(weight, wrong, 4, 16, symmetric=True)
    with pytest.raises(ValueError, match="damping above 0"):
        gptq_quantize(weight, gram, 4, 16, symmetric=True, damping=0)
    with pytest.raises(ValueError, match="semi-definite"):
        gptq_quantize(weight, gram - np.eye(16) * gram.max(), 4, 16, symmetric=True)
    with pytest.raises(ValueError, match="only 4 and 8 bits"):
        gptq_quantize(weight, gram, 5, 16, symmetric=True)
