"""Checkpoints as older libraries wrote them: read as what they are, or refused by name."""

import numpy as np
import pytest

from bertshrink.cli.inspect import facts_of
from bertshrink.errors import UnsafeModel
from bertshrink.files.shards import INDEX
from bertshrink.gates.figures.file_metrics import look_at
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
