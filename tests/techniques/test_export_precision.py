"""Weights stored in half: half the bytes, numbers within tolerance, and refused where it would do nothing."""

import numpy as np
import pytest

from bertshrink.errors import CheckFailed, UserError
from bertshrink.model.artifact import Artifact
from bertshrink.onnx_graph.encoder_graph import bytes_by_type, read_model
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.quantize import Quantize
from tests.support.tiny import sentences, tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "kind", "bits"), [("float16", "float16", 11), ("bfloat16", "bfloat16", 8)])
@pytest.mark.parametrize("family", ["bert", "albert", "distilbert"])
def test_half_the_bytes_and_nearly_the_numbers(family, precision, kind, bits, tmp_path):
    encoder = tiny_encoder(family, "classification")
    bench = Workbench(None, None, tmp_path / "half")
    made = Artifact.load(Export(precision=precision)(encoder, bench).folder)
    plain = Export()(encoder, Workbench(None, None, tmp_path / "plain"))
    stored, before = bytes_by_type(read_model(made.file)), bytes_by_type(read_model(plain.file))
    weights = before["float32"] - stored["float32"]
    assert weights > 0.8 * before["float32"]
    assert stored[kind] == weights / 2
    assert made.card.precision == kind
    assert made.card.details["tolerance"] == {"float16": 1e-2, "bfloat16": 5e-2}[precision]
    assert any("half the bytes" in note for note in bench.notes)
    rows = encoder.tokenize(sentences(5))
    ours = np.concatenate([row["logits"] for row in made.predict(rows)])
    theirs = np.concatenate([row["logits"] for row in encoder.predict(rows)])
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert 0 < difference < 20 * 2.0**-bits


def test_a_tighter_tolerance_is_kept(tmp_path):
    with pytest.raises(CheckFailed, match="tolerance is 1e-06"):
        Export(precision="bfloat16", tolerance=1e-6)(tiny_encoder(), Workbench(None, None, tmp_path))


@pytest.mark.slow
def test_quantizing_starts_from_the_numbers_that_are_stored(tmp_path):
    encoder = tiny_encoder()
    half = Export(precision="float16")(encoder, Workbench(None, None, tmp_path / "half"))
    made = Quantize(min_cosine=0.9)(half, Workbench(None, None, tmp_path / "int8"))
    assert "float16" not in bytes_by_type(read_model(made.file))
    assert made.card.precision == "int8"


@pytest.mark.parametrize("to", ["ort", "executorch"])
def test_other_formats_store_no_halves(to):
    with pytest.raises(UserError, match=f"`precision: float16` stores the weights of ONNX files, and `to` is {to}"):
        Export(to=to, precision="float16").form(None)
