"""Checkpoints as older libraries wrote them: read as what they are, or refused by name."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bertshrink.cli.inspect import facts_of
from bertshrink.engines import torch_engine
from bertshrink.errors import BertshrinkError, UnsafeModel
from bertshrink.files.shards import INDEX
from bertshrink.gates.figures.file_metrics import look_at
from bertshrink.meters.latency.launch import launch_of
from bertshrink.model.batches import pad
from bertshrink.model.encoder import Encoder
from bertshrink.model.model_ref import ModelRef
from tests.support.tiny import outputs, sentences, tiny_encoder


def folder_of(place, task="classification", family="bert", **more):
    place.mkdir()
    tiny_encoder(family, task, **more).save(place)
    return place


def answers(folder, task="auto"):
    encoder = Encoder.load(folder, task)
    return outputs(encoder, encoder.tokenize(sentences(3)))


# Names


def rename(folder, change):
    """The same weights by other names; `change` gives those that a name becomes, as text or list."""
    path = folder / "model.safetensors"
    renamed = {}
    for name, tensor in load_file(path).items():
        made = change(name)
        renamed |= {one: tensor for one in ([made] if isinstance(made, str) else made)}
    save_file(renamed, path)  # and without `format: pt`, as other tools write it


@pytest.mark.parametrize(
    ("task", "change", "words"),
    [
        ("classification", lambda name: f"module.{name}", "module."),
        ("classification", lambda name: f"module._orig_mod.model.{name}", "module._orig_mod.model."),
        ("classification", lambda name: f"bert.{name}", ""),
        ("classification", lambda name: name.replace("bert.", "model."), "model."),
        ("classification", lambda name: name.removeprefix("bert."), ""),
        ("embedding", lambda name: f"bert.bert.{name}", "bert."),
        ("embedding", lambda name: f"0.auto_model.{name}", "0.auto_model."),
        ("embedding", lambda name: f"encoder.{name}", "encoder."),
        ("embedding", lambda name: f"bert.{name}", ""),
        ("mlm", lambda name: f"model.{name}", "model."),
        ("token-classification", lambda name: [f"module.{name}", "module.bert.embeddings.position_ids"], "module."),
    ],
)
def test_names_that_can_be_read_in_one_way(task, change, words, tmp_path):
    folder = folder_of(tmp_path / "m", task)
    before = answers(folder)
    rename(folder, change)
    encoder = Encoder.load(folder)
    rows = encoder.tokenize(sentences(3))
    assert np.array_equal(outputs(encoder, rows), before)
    assert [note for note in encoder.notes if words and f"begin with `{words}`" in note] == list(encoder.notes)
    launched = launch_of(encoder, folder)
    session = torch_engine.load(str(launched.path), options=launched.options)
    alone = [session.run(pad([row], 0)) for row in rows]
    assert np.allclose(before, np.concatenate([np.ravel(value) for one in alone for value in one.values()]), atol=1e-5)
    (tmp_path / "out").mkdir()
    encoder.save(tmp_path / "out")
    stock = set(tiny_encoder("bert", task).model.state_dict())
    assert set(load_file(tmp_path / "out" / "model.safetensors")) <= stock, "what is written has the stock names"
    assert "words" not in launch_of(encoder, tmp_path / "out").options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name: [name, f"bert.{name}"], "2 weights that both mean"),
        (lambda name: [name, name.replace("LayerNorm.weight", "LayerNorm.gamma")], "2 weights that both mean"),
        (lambda name: [f"student.{name}", f"teacher.{name}"], "lacks"),
        (lambda name: [name, f"module.{name}"], "2 weights that both mean"),
    ],
)
def test_names_that_can_be_read_in_two_ways(change, message, tmp_path):
    folder = folder_of(tmp_path / "m")
    rename(folder, change)
    with pytest.raises(BertshrinkError, match=message) as caught:
        Encoder.load(folder)
    assert caught.value.where and caught.value.hint


# Several files


@pytest.fixture
def sharded(tmp_path):
    """The same model in one file and in several."""
    whole, parts = folder_of(tmp_path / "whole"), folder_of(tmp_path / "parts")
    (parts / "model.safetensors").unlink()
    tiny_encoder().model.save_pretrained(parts, max_shard_size="100KB")
    assert (parts / INDEX).is_file() and len(list(parts.glob("model-*.safetensors"))) > 1
    return whole, parts


def test_weights_in_several_files_give_the_same_numbers_and_are_written_as_one(sharded, tmp_path):
    whole, parts = sharded
    assert np.array_equal(answers(parts), answers(whole))
    (tmp_path / "out").mkdir()
    Encoder.load(parts).save(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*model*")] == ["model.safetensors"]


def test_sizes_and_sums_are_of_all_files(sharded):
    whole, parts = sharded
    one, many = facts_of(str(whole), "auto"), facts_of(str(parts), "auto")
    files = [parts / INDEX, *parts.glob("model-*.safetensors")]
    assert many["num_parameters"] == one["num_parameters"]
    assert many["num_bytes"] == sum(path.stat().st_size for path in files)
    judged = look_at(parts, "place")
    assert (judged.num_bytes, judged.sha256) == (many["num_bytes"], ModelRef.read(parts).sha256)
    assert 0.8 * judged.num_bytes < judged.compressed().value < judged.num_bytes
    before = judged.sha256, ModelRef.read(parts).content_key("auto")
    shard = max(parts.glob("model-*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    after = look_at(parts, "place").sha256, ModelRef.read(parts).content_key("auto")
    assert all(a != b for a, b in zip(before, after, strict=True))


def test_a_shard_that_git_lfs_has_not_fetched(sharded):
    shard = max(sharded[1].glob("model-*.safetensors"))
    shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(UnsafeModel, match=f"`{shard.name}` is a pointer of git LFS"):
        Encoder.load(sharded[1])
