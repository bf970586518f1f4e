"""What one ONNX file cannot hold: two files, and everything that is made of an artifact is made of both.

The limit is set to a few kilobytes, so that tiny models are large.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from bertshrink.engines import engine
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files import atomic
from bertshrink.files.headers import read_onnx
from bertshrink.files.onnx_data_file import data_file, files_of, size_of
from bertshrink.files.shards import sha256_weights
from bertshrink.meters import size
from bertshrink.model.artifact import Artifact
from bertshrink.model.checkpoint_info import ARTIFACT_CARD, read_facts
from bertshrink.model.model_ref import ModelRef
from bertshrink.onnx_graph import external_data, ort_format
from bertshrink.onnx_graph.encoder_graph import array, initializers, read_model
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export, settings
from tests.support.tiny import sentences, tiny_encoder

pytestmark = pytest.mark.slow

LIMIT = 60_000
"""Below the float file of a tiny encoder of two layers, above its int8 file."""


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(external_data, "MAX_FILE_BYTES", LIMIT)


def encoder_of(task="embedding"):
    return tiny_encoder("bert", task, num_hidden_layers=2)


def bench_in(folder):
    return Workbench(None, None, folder)


def export(folder, task="embedding", **more):
    return Export(**more)(encoder_of(task), bench_in(folder))


def answers(artifact, key="sentence_embedding"):
    return np.stack([row[key] for row in artifact.predict(artifact.tokenize(sentences(5)))])


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """One file and two files of the same encoder."""
    folder = tmp_path_factory.mktemp("exported")
    plain = export(folder / "plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_data, "MAX_FILE_BYTES", LIMIT)
        return plain, export(folder / "large")


@pytest.fixture
def plain(exported):
    return exported[0]


@pytest.fixture
def large(exported, tmp_path, small_limit):
    """An artifact of two files, to be spoilt."""
    shutil.copytree(exported[1].folder, tmp_path / "large")
    return Artifact.load(tmp_path / "large")


def test_the_weights_are_beside_the_graph_and_the_numbers_are_the_same(plain, tmp_path, small_limit):
    assert (plain.card.data, plain.files) == (None, (plain.file,))
    assert "data" not in json.loads((plain.folder / ARTIFACT_CARD).read_text())
    bench = bench_in(tmp_path / "large")
    made = Export()(encoder_of(), bench)
    assert (made.card.file, made.card.data) == ("onnx/model.onnx", "onnx/model.onnx_data")
    assert json.loads((made.folder / ARTIFACT_CARD).read_text())["data"] == "onnx/model.onnx_data"
    assert [path.name for path in sorted(made.file.parent.iterdir())] == ["model.onnx", "model.onnx_data"]
    assert any("onnx/model.onnx_data, which must stay beside onnx/model.onnx" in note for note in bench.notes)
    np.testing.assert_array_equal(answers(made), answers(plain))
    graph = onnx.load_model(made.file, load_external_data=False)
    assert {
        entry.value for one in graph.graph.initializer for entry in one.external_data if entry.key == "location"
    } == {"model.onnx_data"}
    ours, theirs = (initializers(read_model(one.file, numbers=False)) for one in (made, plain))
    assert list(ours) == list(theirs)
    for name, stored in theirs.items():
        np.testing.assert_array_equal(array(ours[name]), array(stored))
    onnx.checker.check_model(str(made.file))  # as others read it


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_engine_opens_it(large, runtime):
    feeds = {name: np.ones((1, 4), np.int64) for name in large.card.inputs}
    vector = engine(runtime).load(str(large.file), options={"precision": "float32"}).run(feeds)["sentence_embedding"]
    theirs = encoder_of().session(["sentence_embedding"]).run(feeds)["sentence_embedding"]
    np.testing.assert_allclose(vector, theirs, atol=1e-4)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_and_fused_attention(tmp_path, monkeypatch, precision):
    plain = export(tmp_path / "plain", precision=precision, attention="fused")
    monkeypatch.setattr(external_data, "MAX_FILE_BYTES", LIMIT // 2)
    made = export(tmp_path / "large", precision=precision, attention="fused")
    assert made.card.data is not None
    np.testing.assert_array_equal(answers(made), answers(plain))


def test_one_shape_and_the_ort_format(large, tmp_path):
    fixed = Export(static_shape="2x16")(large, bench_in(tmp_path / "fixed"))
    assert (fixed.card.data, fixed.card.shape) == ("onnx/model.onnx_data", (2, 16))
    rows = large.tokenize(sentences(2), max_length=16)
    for mine, theirs in zip(fixed.predict(rows), large.predict(rows), strict=True):
        np.testing.assert_allclose(mine["sentence_embedding"], theirs["sentence_embedding"], atol=1e-5)
    ort = Export(to="ort")(large, bench_in(tmp_path / "ort"))
    assert (ort.card.file, ort.card.data) == ("onnx/model.ort", None)
    assert not (ort.folder / "onnx/model.onnx_data").exists()
    np.testing.assert_allclose(answers(ort), answers(large), atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_an_ort_file_that_cannot_hold_it_is_refused(tmp_path, monkeypatch, precision):
    artifact = export(tmp_path / "plain", precision=precision)
    monkeypatch.setattr(ort_format, "MAX_FILE_BYTES", 80_000)  # of halves it would hold float32
    with pytest.raises(UserError, match=r"the .ort file would take .* kB, and one holds 80"):
        Export(to="ort")(artifact, bench_in(tmp_path))


@pytest.mark.parametrize("more", [{"to": "ort"}, {"to": "executorch"}, {"to": "executorch", "int8": True}])
def test_what_a_flatbuffer_cannot_hold_is_refused_before_weights_are_loaded(tmp_path, monkeypatch, more):
    encoder_of().save(tmp_path)
    facts = read_facts(tmp_path)
    Export(**more).fit(facts)
    monkeypatch.setattr(settings, "MAX_FILE_BYTES", 20_000)
    with pytest.raises(UserError, match=r"weights take .* kB( in bytes)?, and an? \.") as caught:
        Export(**more).fit(facts)
    assert caught.value.setting == "to"
    assert Export().fit(facts) == facts


def test_both_files_are_copied_measured_and_sealed(large, tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    large.save(folder)
    atomic.seal(folder)
    loaded, told = Artifact.load(folder), ModelRef.read(folder)
    assert loaded.num_bytes == size_of(loaded.file) == read_onnx(loaded.file).num_bytes
    measured = size.measure(loaded, folder).measurements
    assert next(one.value for one in measured if one.metric == "size") == loaded.num_bytes > LIMIT
    assert told.files == loaded.files == tuple(files_of(loaded.file))
    before = told.content_key("embedding"), sha256_weights(told.files)
    flip(loaded.files[1])
    assert told.content_key("embedding") != before[0]
    assert sha256_weights(told.files) != before[1]
    with pytest.raises(UnsafeModel, match=r"`onnx/model\.onnx_data` has changed"):
        Artifact.load(folder)


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def harm(files: tuple[Path, ...], how: str) -> None:
    """Do something to a file of weights that nobody should follow."""
    graph, data = files
    match how:
        case "missing":
            data.unlink()
        case "cut":
            data.write_bytes(data.read_bytes()[:-1])
        case "link":
            elsewhere = data.parent.parent.parent / "elsewhere"
            data.rename(elsewhere)
            data.symlink_to(elsewhere)
        case "hard link":
            os.link(data, data.parent.parent.parent / "twin")
        case _:
            model = onnx.load_model(graph, load_external_data=False)
            for stored in model.graph.initializer:
                for entry in stored.external_data:
                    if entry.key == "location":
                        entry.value = how
            graph.write_bytes(model.SerializeToString())


HARM = {
    "missing": "is missing",
    "cut": "needs .* bytes",
    "link": "is a link",
    "hard link": "hard link elsewhere",
    "../model.onnx_data": "not a file beside it",
    "/etc/passwd": "not a file beside it",
}


@pytest.mark.parametrize("how", HARM)
def test_weights_that_are_not_what_they_must_be_are_refused(large, how):
    harm(large.files, how)
    for read in (lambda path: read_model(path, numbers=False), read_model, read_onnx):
        with pytest.raises(UnsafeModel, match=HARM[how]):
            read(large.file)


@pytest.mark.parametrize("name", ["onnx/other.onnx_data", "../model.onnx_data", "/etc/passwd"])
def test_a_card_names_no_other_file(large, name):
    (large.folder / "onnx/other.onnx_data").write_bytes(b"x")
    card = json.loads((large.folder / ARTIFACT_CARD).read_text()) | {"data": name}
    (large.folder / ARTIFACT_CARD).write_text(json.dumps(card))
    with pytest.raises(UnsafeModel, match="names"):
        Artifact.load(large.folder)


def test_a_file_that_fits_again_leaves_no_weights_beside_it(large):
    model = read_model(large.file, numbers=False)
    assert data_file(large.file).is_file()
    external_data.MAX_FILE_BYTES = 2**31 - 1  # which the fixture sets back
    external_data.stream(model, large.file)
    assert [path.name for path in large.file.parent.iterdir()] == ["model.onnx"]
    np.testing.assert_array_equal(
        answers(Artifact(large.folder, large.card.of_file(large.folder, large.card.file))), answers(large)
    )
