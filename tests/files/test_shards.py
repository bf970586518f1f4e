"""Weights in several files: what the index and the files say must be one thing."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bertshrink.errors import UnsafeModel
from bertshrink.files.shards import INDEX, WEIGHTS, read_weight_facts, read_weights, sha256_weights, weight_files

FIRST, SECOND = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
ARRAYS = {FIRST: {"a": np.ones((2, 3), np.float32)}, SECOND: {"b": np.ones(5, np.float16), "c": np.ones(2, np.int64)}}
TOTAL = 24 + 10 + 16


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    for name, arrays in ARRAYS.items():
        save_file(arrays, folder / name, metadata={"format": "pt"})
    index(folder)
    return folder


def index(folder, places=None, **more):
    places = {tensor: name for name, arrays in ARRAYS.items() for tensor in arrays} | (places or {})
    about = {"metadata": {"total_size": TOTAL}, "weight_map": places} | more
    (folder / INDEX).write_text(json.dumps(about))


def refusal(folder):
    with pytest.raises(UnsafeModel) as caught:
        read_weights(folder)
    assert caught.value.where == str(folder / INDEX) and caught.value.hint
    return caught.value.what


def test_all_files_together(folder):
    shapes = {name: about["shape"] for name, about in read_weights(folder).items()}
    assert shapes == {"a": [2, 3], "b": [5], "c": [2]}
    facts = read_weight_facts(folder)
    assert facts.num_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert sum(tensor.num_bytes for tensor in facts.tensors) == TOTAL


def test_one_file_counts_where_both_are_there(folder):
    save_file({"z": np.ones(1, np.float32)}, folder / WEIGHTS)
    assert list(read_weights(folder)) == ["z"]
    assert weight_files(folder) == (folder / WEIGHTS,)


@pytest.mark.parametrize("name", [FIRST, SECOND, INDEX])
def test_the_sum_is_of_every_file(folder, name):
    before = sha256_weights(weight_files(folder))
    with (folder / name).open("ab") as file:
        file.write(b" ")
    assert sha256_weights(weight_files(folder)) != before


@pytest.mark.parametrize(
    "name", ["../m/x.safetensors", "/x.safetensors", "sub/x.safetensors", "a\\x.safetensors", "x.bin"]
)
def test_files_of_other_folders_are_not_asked_for(folder, name):
    index(folder, {"a": name})
    assert f"names `{name}`, which is not a safetensors file of its own folder" in refusal(folder)


def test_a_link_out_of_the_folder(folder, tmp_path):
    (folder / FIRST).rename(tmp_path / "elsewhere.safetensors")
    (folder / FIRST).symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(UnsafeModel, match="only links of a hub cache"):
        read_weights(folder)


def test_links_of_a_hub_cache_are_followed(folder, tmp_path):
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "1", tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        shutil.move(path, blobs / f"hash-of-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/hash-of-{path.name}")
    assert sorted(read_weights(snapshot)) == ["a", "b", "c"]


def test_a_file_that_is_missing(folder):
    (folder / SECOND).unlink()
    assert f"names `{SECOND}`, and the folder lacks it" in refusal(folder)


def test_a_tensor_in_two_files(folder):
    save_file(ARRAYS[SECOND] | {"a": np.zeros((2, 3), np.float32)}, folder / SECOND)
    assert f"`a` is in two files, `{FIRST}` and `{SECOND}`" in refusal(folder)


def test_a_tensor_that_no_file_holds(folder):
    index(folder, {"d": FIRST})
    assert "names tensors that no file holds: `d`" in refusal(folder)


def test_a_tensor_in_another_file_than_the_index_says(folder):
    index(folder, {"b": FIRST})
    assert f"`b` is in `{SECOND}`, and in `{FIRST}` according to the index" in refusal(folder)


def test_a_tensor_that_the_index_does_not_name(folder):
    save_file(load_file(folder / SECOND) | {"d": np.ones(1, np.float32)}, folder / SECOND)
    assert f"`d` is in `{SECOND}`, and nowhere according to the index" in refusal(folder)


@pytest.mark.parametrize("total", [TOTAL - 1, TOTAL + 1, 0, -1, "50", None, 1e400])
def test_a_total_that_is_wrong(folder, total):
    index(folder, metadata={"total_size": total})
    with pytest.raises(UnsafeModel):
        read_weights(folder)


def test_a_total_may_be_absent(folder):
    index(folder, metadata={})
    assert sorted(read_weights(folder)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"weight_map": {}}, "has no `weight_map`"),
        ({"weight_map": ["a"]}, "has no `weight_map`"),
        ({"weight_map": {"a": 3}}, "has no `weight_map`"),
        ({"metadata": None}, "has no `metadata`"),
    ],
)
def test_an_index_that_says_nothing(folder, more, message):
    index(folder, **more)
    assert message in refusal(folder)


def test_a_damaged_file_is_named(folder):
    (folder / SECOND).write_bytes((folder / SECOND).read_bytes()[:-1])
    with pytest.raises(UnsafeModel, match="truncated") as caught:
        read_weights(folder)
    assert caught.value.where == str(folder / SECOND)
