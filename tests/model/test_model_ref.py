"""ModelRef: one look at a folder says what lies there; weights come and go, the model stays the same."""

import json
import shutil

import numpy as np
import pytest
import torch

from bertshrink.errors import UnsafeModel, UserError
from bertshrink.model import model_ref
from bertshrink.model.artifact import Artifact
from bertshrink.model.checkpoint_info import ARTIFACT_CARD
from bertshrink.model.encoder import Encoder
from bertshrink.model.model_ref import ModelRef
from bertshrink.techniques import TECHNIQUES
from tests.support.tiny import bench_of, tiny_encoder

TEXTS = ["one text", "another, longer text"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an encoder in `m` and its ONNX file in `a`."""
    folder = tmp_path_factory.mktemp("made")
    encoder = tiny_encoder()
    (folder / "m").mkdir()
    encoder.save(folder / "m")
    artifact = TECHNIQUES["export"]()(encoder, bench_of(encoder, folder / "work", texts=None))
    (folder / "a").mkdir()
    artifact.save(folder / "a")
    return folder


def answers(model):
    return [row["logits"] for row in model.predict(model.tokenize(TEXTS))]


def test_each_kind_is_told_from_its_small_files_alone(made, monkeypatch):
    monkeypatch.setattr(Encoder, "from_facts", lambda *_: pytest.fail("weights were read"))
    monkeypatch.setattr(Artifact, "load", lambda *_: pytest.fail("the file was opened"))
    encoder, artifact = ModelRef.read(made / "m"), ModelRef.read(made / "a", source="./there/a")
    assert (encoder.kind, artifact.kind) == ("encoder", "artifact")
    assert encoder.about.task == artifact.about.task == "classification"
    assert (encoder.name, artifact.name) == ("m", "./there/a")
    assert (encoder.label, artifact.label) == ("m", "a")
    assert encoder.file == made / "m/model.safetensors"
    assert artifact.file == made / "a/onnx/model.onnx"
    assert encoder.loaded is artifact.loaded is None


def test_a_name_and_a_task_are_taken_where_they_are_given(made):
    found = ModelRef.read(made / "m", "embedding", "org/m", name="reference", where="r.yaml:1:1", key="k")
    assert (found.name, found.source, found.where, found.key) == ("reference", "org/m", "r.yaml:1:1", "k")
    assert found.about.task == found.load().task == "embedding"
    assert found.load().source == "org/m"
    assert found.label == "m"


@pytest.mark.parametrize("name", ["m", "a"])
def test_everyone_who_asks_gets_the_same_model(made, name):
    found = ModelRef.read(made / name)
    assert found.load() is found.load() is found.loaded


@pytest.mark.parametrize("name", ["m", "a"])
def test_a_model_that_was_let_go_is_read_again_and_the_same(made, name):
    found = ModelRef.read(made / name)
    first = found.load()
    before = answers(first)
    found.unload()
    assert found.loaded is None
    assert found.load() is not first
    for old, new in zip(before, answers(found.load()), strict=True):
        np.testing.assert_array_equal(old, new)
    found.unload()
    found.unload()


def test_whoever_still_holds_an_encoder_keeps_what_is_beside_its_weights(made, tmp_path):
    found = ModelRef.read(made / "m")
    held, copy = found.load(), found.load().copy()
    found.unload()
    assert {parameter.device for parameter in held.model.parameters()} == {torch.device("meta")}
    held.write_papers(tmp_path)
    assert (tmp_path / "config.json").is_file()
    assert held.tokenize(TEXTS) == copy.tokenize(TEXTS)
    assert len(answers(copy)) == len(TEXTS), "a copy has weights of its own"


def test_a_file_is_compared_after_pytorch_has_answered_and_its_weights_are_gone(made, tmp_path, monkeypatch):
    from bertshrink.techniques.export import parity

    found = ModelRef.read(made / "m")
    bench = bench_of(found.load(), tmp_path / "work", texts=None)
    bench.unload = found.unload
    seen = []
    original = parity.engine
    monkeypatch.setattr(parity, "engine", lambda name: seen.append(found.loaded) or original(name))
    artifact = TECHNIQUES["export"]()(found.load(), bench)
    assert seen == [None]
    assert found.loaded is None, "nothing of the export read it again"
    for old, new in zip(answers(found.load()), answers(artifact), strict=True):
        np.testing.assert_allclose(old, new, atol=1e-4)


def test_a_folder_that_was_renamed_holds_the_same_model(tmp_path):
    (tmp_path / "before").mkdir()
    tiny_encoder("bert", "embedding").save(tmp_path / "before")
    (tmp_path / "before/config_sentence_transformers.json").write_text('{"prompts": {}, "default_prompt_name": null}')
    found = ModelRef.read(tmp_path / "before", key="k")
    model = found.load()
    (tmp_path / "before").rename(tmp_path / "after")
    moved = found.moved(tmp_path / "after")
    assert (moved.folder, moved.about.folder, moved.key) == (tmp_path / "after", tmp_path / "after", "k")
    assert moved.load().model is model.model
    moved.load().save(tmp_path / "saved")
    assert (tmp_path / "saved/config_sentence_transformers.json").is_file()
    moved.unload()
    assert moved.load().task == "embedding"


def test_a_renamed_artifact_is_opened_at_its_new_place(made, tmp_path):
    shutil.copytree(made / "a", tmp_path / "before")
    found = ModelRef.read(tmp_path / "before")
    before = answers(found.load())
    (tmp_path / "before").rename(tmp_path / "after")
    np.testing.assert_array_equal(answers(found.moved(tmp_path / "after").load())[0], before[0])


def test_a_given_models_key_is_its_content(made, tmp_path):
    def make(name):
        shutil.copytree(made / "m", tmp_path / name)
        return ModelRef.read(tmp_path / name)

    one, two = make("one"), make("two")
    assert one.content_key("mlm") == two.content_key("mlm"), "a moved model is the same"
    assert one.content_key("mlm") != one.content_key("embedding")
    (two.folder / "README.md").write_text("words")
    (two.folder / ".cache").write_text("")
    assert one.content_key("mlm") == two.content_key("mlm")
    two.file.write_text("v")
    assert one.content_key("mlm") != two.content_key("mlm")


def test_an_artifacts_key_covers_the_file_that_its_card_names(made, tmp_path):
    shutil.copytree(made / "a", tmp_path / "a")
    found = ModelRef.read(tmp_path / "a")
    before = found.content_key("classification")
    found.file.write_bytes(found.file.read_bytes() + b"x")
    assert found.content_key("classification") != before


def test_what_is_no_model_is_refused(made, tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        ModelRef.read(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "auto_map": {"AutoModel": "x.Y"}}')
    with pytest.raises(UnsafeModel, match="run its own code"):
        ModelRef.read(tmp_path)
    shutil.copytree(made / "a", tmp_path / "a")
    (tmp_path / "a" / ARTIFACT_CARD).write_text("{}")
    with pytest.raises(UnsafeModel, match="is damaged"):
        ModelRef.read(tmp_path / "a")


def test_a_head_does_not_matter_where_a_model_is_to_be_fine_tuned(made, tmp_path):
    shutil.copytree(made / "m", tmp_path / "m")
    config = json.loads((made / "m/config.json").read_text())
    (tmp_path / "m/config.json").write_text(json.dumps(config | {"architectures": ["BertForNextSentencePrediction"]}))
    with pytest.raises(UserError, match="belongs to no task"):
        ModelRef.read(tmp_path / "m")
    assert ModelRef.read(tmp_path / "m", is_base=True).about.task == "embedding"


def test_a_description_says_what_a_table_shows(made):
    about = {name: model_ref.describe(ModelRef.read(made / name).load()) for name in ("m", "a")}
    assert about["m"]["family"] == about["a"]["family"] == "bert"
    assert (about["m"]["precision"], about["a"]["format"]) == ("float32", "onnx")
