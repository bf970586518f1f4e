"""Files of other formats and of one shape: .ort equals .onnx, a fixed shape changes no number."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from bertshrink.engines import engine
from bertshrink.errors import CheckFailed, OutputError, UnsafeModel, UserError
from bertshrink.meters import size
from bertshrink.meters.environment import environment
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.latency.measure import measure
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.targets.host import LocalRunner
from bertshrink.model.artifact import Artifact
from bertshrink.model.fixed_shape_session import FixedShapeSession
from bertshrink.model.model_ref import ModelRef, describe
from bertshrink.model.round_trip import proof_answers, prove
from bertshrink.model.tasks import TASKS
from bertshrink.onnx_graph import ort_format, runtime_ops
from bertshrink.onnx_graph.encoder_graph import read_model
from bertshrink.progress import Silent
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export, ort
from bertshrink.techniques.export.parity import padded_text
from bertshrink.techniques.output_cosine import agreement, cosine
from bertshrink.techniques.quantize import Quantize
from tests.support.onnx_files import encoder_model
from tests.support.tiny import bench_of, sentences, tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")
PAIRS = [("bert", "classification"), ("roberta", "mlm"), ("albert", "embedding"), ("distilbert", "question-answering")]


def bench(folder):
    return Workbench(None, None, folder)


def answers(artifact, rows):
    return np.concatenate([np.ravel(value) for row in artifact.predict(rows) for value in row.values()])


# .ort -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("family", "task"), PAIRS)
def test_ort_gives_the_onnx_files_numbers_bit_for_bit(family, task, int8, tmp_path):
    encoder = tiny_encoder(family, task, num_hidden_layers=2)
    before = Export()(encoder, bench(tmp_path))
    if int8:
        before = Quantize(min_cosine=0.5)(before, bench_of(encoder, tmp_path))
    made = Export(to="ort")(before, bench(tmp_path))
    again = Artifact.load(made.folder)
    assert (again.card.format, again.card.engine, again.file.name) == ("ort", "onnxruntime", "model.ort")
    assert again.card.precision == before.card.precision
    assert again.card.lineage == (("export", "quantize", "export") if int8 else ("export",))
    old, new = (engine("onnxruntime").load(str(artifact.file)) for artifact in (before, again))
    for batch, length in ((1, 1), (3, 17)):
        feeds = padded_text(encoder, batch, length)
        for name, value in old.run(feeds).items():
            assert np.array_equal(value, new.run(feeds)[name])
    prove(made, ModelRef.read(made.folder), "artifact", proof_answers(before))


def test_an_encoder_becomes_ort_in_one_stage(tmp_path):
    encoder = tiny_encoder()
    made = Export(to="ort")(encoder, bench(tmp_path))
    rows = encoder.tokenize(sentences(5))
    wanted = np.concatenate([row["logits"] for row in encoder.predict(rows)])
    np.testing.assert_allclose(answers(made, rows), wanted, atol=1e-5)
    assert made.card.details["parity"]
    assert describe(made)["format"] == "ort"
    (found,) = size.measure(made, made.folder).measurements
    assert (found.metric, found.value) == ("size", made.file.stat().st_size)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["float16", "bfloat16"])
def test_half_weights_are_float32_in_ort_and_that_is_said(scheme, tmp_path):
    half = Quantize(scheme=scheme, min_cosine=0.9)(Export()(tiny_encoder(), bench(tmp_path)), bench(tmp_path))
    told = bench(tmp_path)
    made = Export(to="ort")(half, told)
    assert (half.card.precision, made.card.precision) == (scheme, "float32")
    assert made.file.stat().st_size > 1.3 * half.file.stat().st_size
    assert any("are float32 in the .ort file" in note for note in told.notes)
    assert ort.without_half("int8+float16+float32") == "int8+float32"


def test_the_operators_that_a_small_build_needs_are_beside_it(tmp_path):
    made = Export(to="ort")(tiny_encoder(), bench(tmp_path))
    new = tmp_path / "copy"
    new.mkdir()
    made.save(new)
    lines = (new / "onnx/required_operators.config").read_text().splitlines()
    assert lines[0] == "# what model.ort needs"
    assert not any(str(tmp_path) in line for line in lines)
    by_domain = {tuple(line.split(";")[:2]): line.split(";")[2].split(",") for line in lines[1:]}
    assert "LayerNormalization" in by_domain["ai.onnx", "17"]
    assert "BiasGelu" in by_domain["com.microsoft", "1"], "optimised as far as ONNX Runtime would when it loads"
    assert sorted(name for names in by_domain.values() for name in names) == made.card.details["required_operators"]


@pytest.mark.slow
def test_an_ort_file_that_differs_is_found(tmp_path, monkeypatch):
    other = Export()(tiny_encoder(seed=1), bench(tmp_path / "other"))
    honest = ort.write
    monkeypatch.setattr(ort, "write", lambda source, to: honest(other.file, to))
    with pytest.raises(CheckFailed, match=r"`logits` of the .ort file has other numbers"):
        Export(to="ort")(tiny_encoder(), bench(tmp_path))


def test_what_onnx_runtime_cannot_open_is_refused(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(UnsafeModel):
        ort.write(tmp_path / "bad.onnx", tmp_path / "bad.ort")


@pytest.mark.slow
def test_only_onnx_becomes_ort(tmp_path):
    made = Export(to="ort")(tiny_encoder(), bench(tmp_path))
    with pytest.raises(UserError, match=r"gets an .ort file"):
        Export(to="ort")(made, bench(tmp_path / "again"))
    with pytest.raises(UserError, match="cannot be quantized"):
        Quantize()(made, bench(tmp_path))


# One shape ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_fixed_shape_changes_no_number(task, tmp_path):
    encoder = tiny_encoder("roberta" if task == "mlm" else "bert", task, num_hidden_layers=2)
    made = Export(static_shape="2x16")(encoder, bench(tmp_path))
    assert (made.card.shape, made.max_length) == ((2, 16), 16)
    assert list(made.card.details["parity"]) == ["2x16"]
    model = read_model(made.file)
    assert not {"Shape", "Slice", "Concat", "Range"} & {node.op_type for node in model.graph.node}
    for value in model.graph.input:
        assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [2, 16]
    for value in model.graph.output:
        assert value.type.tensor_type.shape.dim[0].dim_value == 2
    rows = made.tokenize(sentences(5, longest=30))  # an odd number of rows, shorter ones, and ones that must be cut
    assert max(len(row["input_ids"]) for row in rows) == 16
    for ours, theirs in zip(made.predict(rows), encoder.predict(rows), strict=True):
        for name in theirs:
            assert ours[name].shape == theirs[name].shape
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4)
    prove(made, ModelRef.read(made.folder), "artifact", proof_answers(encoder))
    with pytest.raises(ValueError, match="17 tokens"):
        made.session().run(padded_text(encoder, 1, 17))


@pytest.mark.slow
def test_a_quantized_artifact_gets_a_fixed_shape(tmp_path):
    encoder = tiny_encoder("bert", "embedding")
    free = Quantize(min_cosine=0.5)(Export()(encoder, bench(tmp_path)), bench_of(encoder, tmp_path))
    made = Export(to="ort", static_shape="1x16")(free, bench(tmp_path))
    assert (made.card.format, made.card.shape, made.card.precision) == ("ort", (1, 16), "int8")
    feeds = padded_text(encoder, 1, 16)
    old, new = (artifact.session().run(feeds)["sentence_embedding"] for artifact in (free, made))
    np.testing.assert_allclose(old, new, atol=1e-6)
    assert len(made.predict(made.tokenize(["a good movie", "the worst"]))) == 2
    same = Export(static_shape="1x16")(free, bench(tmp_path / "same"))
    assert same.card.format == "onnx"
    with pytest.raises(UserError, match="another fixed shape"):
        Export(static_shape="1x8")(same, bench(tmp_path / "other"))


def test_what_has_a_fixed_shape_can_be_quantized(tmp_path):
    encoder = tiny_encoder()
    made = Quantize(min_cosine=0.5)(Export(static_shape="3x16")(encoder, bench(tmp_path)), bench_of(encoder, tmp_path))
    assert made.card.shape == (3, 16)
    assert len(made.predict(encoder.tokenize(["a"] * 4))) == 4


@pytest.mark.subprocess
def test_a_fixed_shape_is_timed_at_that_shape_only(tmp_path):
    made = Export(static_shape="2x16")(tiny_encoder(), bench(tmp_path))
    launches = {"it": launch_of(made, made.folder)}
    settings = LatencySettings(batch=(2,), length=(16,), rounds=1, seconds=0.01, warmup=0, threads=1)
    found = measure(launches, settings, Silent(), environment(), LocalRunner())["it"]
    assert (found[0].conditions.batch, found[0].conditions.length) == (2, 16)
    for other in ({"batch": (1,)}, {"length": (8,)}, {"batch": (2, 4)}):
        with pytest.raises(UserError, match="2x16"):
            measure(launches, settings.model_copy(update=other), Silent(), environment(), LocalRunner())
    bounded = {"it": launches["it"].__class__("executorch", made.file, {}, "float32", 20, (), 64, None, 4)}
    with pytest.raises(UserError, match="4 rows"):
        measure(bounded, settings.model_copy(update={"batch": (8,)}), Silent(), environment(), LocalRunner())


class Echo:
    """Takes (2, 4) only; gives the ids per token, or their sums."""

    def __init__(self, per_token, batch=2, length=4):
        self.per_token = per_token
        self.shape = batch, length
        self.seen = []

    def run(self, feeds):
        ids = feeds["input_ids"]
        self.seen.append(ids.shape)
        assert (ids * (1 - feeds["attention_mask"]) == 9 * (1 - feeds["attention_mask"])).all(), "padding is the pad id"
        return {"out": ids if self.per_token else ids.sum(axis=1)}

    def describe(self):
        return {"engine": "echo"}


@pytest.mark.parametrize("per_token", [False, True])
def test_rows_are_padded_repeated_and_cut(per_token):
    ids = np.array([[1, 2, 3], [4, 5, 9], [6, 9, 9]])
    echo = Echo(per_token)
    session = FixedShapeSession(echo, (2, 4), 9, per_token=per_token)
    found = session.run({"input_ids": ids, "attention_mask": (ids != 9).astype(np.int64)})["out"]
    assert echo.seen == [(2, 4), (2, 4)]
    assert np.array_equal(found, ids if per_token else ids.sum(axis=1) + 9)
    assert session.describe() == {"engine": "echo", "batch": 2, "length": 4}
    bounded = FixedShapeSession(echo, None, 9, per_token=per_token, max_batch=2)
    found = bounded.run({"input_ids": ids, "attention_mask": (ids != 9).astype(np.int64)})["out"]
    assert echo.seen[2:] == [(2, 3), (1, 3)]
    assert np.array_equal(found, ids if per_token else ids.sum(axis=1))


def test_agreement_is_a_mean_for_vectors_and_one_cosine_for_logits():
    one = [{"logits": np.array([3.0, 0.0])}, {"logits": np.array([0.0, 0.1])}]
    other = [{"logits": np.array([3.0, 0.0])}, {"logits": np.array([0.1, 0.0])}]
    assert agreement("embedding", one, other) == 0.5
    assert agreement("classification", one, other) == pytest.approx(9 / 9.01)
    assert agreement("embedding", one, one) == 1
    assert cosine(np.zeros(3), np.zeros(3)) == 1


def test_what_onnx_runtime_could_not_write_is_the_disk_s_fault_and_not_the_model_s(tmp_path):
    onnx.save(encoder_model(), tmp_path / "model.onnx")
    for cut in ('[{"cat": "Node", "na', ""):
        (tmp_path / "run_now.json").write_text(cut)
        with pytest.raises(OutputError, match="the disk of temporary files is full"):
            runtime_ops._events(tmp_path)
    if not Path("/dev/full").exists():
        pytest.skip("a device of Linux")
    with pytest.raises(OutputError, match=re.escape("cannot write `full`")):
        ort_format.write(tmp_path / "model.onnx", Path("/dev/full"))
