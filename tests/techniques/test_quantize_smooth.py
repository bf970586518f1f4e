"""SmoothQuant: nothing changes in float, and outlier channels cost less in bytes."""

import numpy as np
import pytest

from bertshrink.onnx_graph.encoder_graph import read_model
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.quantize.calibration.observe import calibration
from bertshrink.techniques.quantize.calibration.smooth_graph import migrate
from bertshrink.techniques.quantize.numerics.int8 import quantize_matrix
from bertshrink.techniques.quantize.numerics.ranges import activation_scale
from bertshrink.techniques.quantize.numerics.smoothquant import smoothing_scales
from tests.support.tiny import tiny_encoder


def layer_with_outliers(num_tokens=400, width=64, outputs=48):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(num_tokens, width)).astype(np.float32)
    inputs[:, [5, 40]] *= 60
    return inputs, random.normal(size=(width, outputs)).astype(np.float32) * 0.05


def scales_of(inputs, weight, alpha=0.5):
    return smoothing_scales(np.abs(inputs).max(0), np.abs(weight).max(1), alpha)


def in_bytes(inputs, weight):
    """The layer's outputs with 8-bit activations (one scale) and 8-bit weights (one scale an output)."""
    scale, zero = activation_scale(float(inputs.min()), float(inputs.max()))
    steps = np.clip(np.rint(inputs / scale) + zero, 0, 255) - zero
    return (steps * scale) @ quantize_matrix(weight, 0).dequantize()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_nothing_changes_in_float(alpha):
    inputs, weight = layer_with_outliers()
    scale = scales_of(inputs, weight, alpha)
    assert scale.dtype == np.float32 and not np.allclose(scale, 1, atol=0.01)
    assert np.allclose((inputs / scale) @ (scale[:, None] * weight), inputs @ weight, rtol=1e-4, atol=1e-4)


def test_by_hand():
    # 4^.5 / 1^.5 = 2 and 1^.5 / 4^.5 = 1/2, whose geometric mean is 1
    assert smoothing_scales(np.array([4.0, 1.0]), np.array([1.0, 4.0])).tolist() == [2, 0.5]
    # with alpha 1 the activations become even, with 0 the weights
    assert smoothing_scales(np.array([8.0, 2.0]), np.array([5.0, 7.0]), 1.0).tolist() == pytest.approx([2, 0.5])
    assert smoothing_scales(np.array([5.0, 7.0]), np.array([8.0, 2.0]), 0.0).tolist() == pytest.approx([0.5, 2])


def test_half_makes_both_sides_alike():
    inputs, weight = layer_with_outliers()
    scale = scales_of(inputs, weight)
    ratio = np.abs(inputs / scale).max(0) / np.abs(weight * scale[:, None]).max(1)
    assert np.allclose(ratio, ratio[0], rtol=1e-4)
    assert np.exp(np.log(scale).mean()) == pytest.approx(1, rel=1e-5)


def test_outlier_channels_cost_less():
    inputs, weight = layer_with_outliers()
    scale = scales_of(inputs, weight)
    plain = ((in_bytes(inputs, weight) - inputs @ weight) ** 2).mean()
    smooth = ((in_bytes(inputs / scale, weight * scale[:, None]) - inputs @ weight) ** 2).mean()
    assert smooth < plain / 5


def test_sleeping_inputs_and_extremes():
    scale = smoothing_scales(np.array([0, 1.0, 1.0, 0]), np.array([1.0, 0, 1.0, 0]))
    assert scale.tolist() == [1, 1, 1, 1]
    assert smoothing_scales(np.zeros(3), np.ones(3)).tolist() == [1, 1, 1]
    scale = smoothing_scales(np.array([1e-30, 1.0, 1.0, 1e30]), np.ones(4))
    assert scale[0] == np.float32(0.01) and scale[3] == 100 and np.allclose(scale[1:3], 1)


def test_refusals():
    one = np.ones(2)
    for wrong in (np.ones(3), np.array([1.0, -1.0]), np.array([1.0, np.nan]), np.array([1.0, np.inf])):
        with pytest.raises(ValueError, match="largest magnitudes"):
            smoothing_scales(wrong, one)
    for alpha in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="alpha"):
            smoothing_scales(one, one, alpha)


def test_a_graph_in_which_nothing_can_be_divided_stays_as_it_is(tmp_path):
    made = Export()(tiny_encoder("eurobert", num_key_value_heads=2), Workbench(None, None, tmp_path / "export"))
    model = read_model(made.file)
    moved = migrate(model, calibration(made, Workbench(None, None, tmp_path / "work"), 4), 0.5)
    assert (moved.num_smoothed, moved.num_muls) == (0, 0) and moved.num_activations > 0
    assert len(moved.model.graph.node) == len(model.graph.node)
