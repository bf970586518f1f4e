"""Checkpoints as older libraries wrote them: read as what they are, or refused by name."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as torch_file
from safetensors.torch import save_file as save_torch

from bertshrink.cli.inspect import facts_of
from bertshrink.engines import torch_engine
from bertshrink.errors import BertshrinkError, UnsafeModel, UserError
from bertshrink.files.shards import INDEX
from bertshrink.gates.figures.file_metrics import look_at
from bertshrink.meters.latency.launch import launch_of
from bertshrink.model.batches import pad
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.encoder import Encoder
from bertshrink.model.model_ref import ModelRef
from bertshrink.model.sizes.parameter_count import converted
from bertshrink.model.sizes.size_estimate import of_encoder
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


# Numbers


def cast(folder, *types):
    """Store the weights in these types, one after another."""
    path = folder / "model.safetensors"
    weights = torch_file(path)
    path.unlink()  # it is mapped into memory
    cast = {name: tensor.to(types[at % len(types)]) for at, (name, tensor) in enumerate(sorted(weights.items()))}
    save_torch(cast, path)


@pytest.mark.parametrize(
    ("types", "named"),
    [
        ([torch.float16], "float16"),
        ([torch.bfloat16], "bfloat16"),
        ([torch.float16, torch.float32, torch.bfloat16], "bfloat16 and float16"),
    ],
)
def test_half_precision_is_read_as_float32_and_told(types, named, tmp_path):
    folder = folder_of(tmp_path / "m")
    whole = facts_of(str(folder), "auto")
    assert whole["notes"] == []
    cast(folder, *types)
    encoder = Encoder.load(folder)
    assert encoder.notes == (f"weights stored as {named} are read, and written again, as float32",)
    stored = torch_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, stored[name].float()) for name, tensor in encoder.model.state_dict().items())
    half = facts_of(str(folder), "auto")
    assert half["notes"] == list(encoder.notes) and half["num_parameters"] == whole["num_parameters"]
    assert half["num_bytes"] == (folder / "model.safetensors").stat().st_size < 0.8 * whole["num_bytes"]
    assert half["could_shrink"] == whole["could_shrink"]


def test_buffers_and_tied_weights_are_no_parameters(tmp_path):
    folder = folder_of(tmp_path / "m", "mlm")
    before = facts_of(str(folder), "auto")
    path = folder / "model.safetensors"
    weights = load_file(path)
    table = weights["bert.embeddings.word_embeddings.weight"]
    again = {"cls.predictions.decoder.weight": table, "cls.predictions.decoder.bias": weights["cls.predictions.bias"]}
    save_file(weights | again | {"bert.embeddings.position_ids": np.arange(64)[None]}, path)
    after = facts_of(str(folder), "auto")
    assert after["num_parameters"] == before["num_parameters"]
    assert after["num_bytes"] == path.stat().st_size > before["num_bytes"] + table.nbytes
    stored = sum(array.size for array in (weights | again).values())
    readings = look_at(folder, "place").readings()
    assert next(reading.value for key, reading in readings.items() if str(key) == "parameters") == stored
    assert Encoder.load(folder).notes == ()


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_decoder_that_is_tied_and_stored_otherwise(part, tmp_path):
    folder = folder_of(tmp_path / "m", "mlm")
    path = folder / "model.safetensors"
    weights = load_file(path)
    tied = {"weight": "bert.embeddings.word_embeddings.weight", "bias": "cls.predictions.bias"}[part]
    save_file(weights | {f"cls.predictions.decoder.{part}": weights[tied] + 1}, path)
    with pytest.raises(UnsafeModel, match=f"decoder.{part}` is not") as caught:
        Encoder.load(folder)
    assert "tie_word_embeddings" in caught.value.hint


def test_a_decoder_counts_where_its_family_does_not_tie_it_and_the_configuration_says_nothing(tmp_path):
    folder = folder_of(tmp_path / "m", "mlm", "eurobert")
    before = facts_of(str(folder), "auto")["num_parameters"]
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("tie_word_embeddings") is False
    (folder / "config.json").write_text(json.dumps(config))
    assert facts_of(str(folder), "auto")["num_parameters"] == before


def assert_logits_of_the_class(folder):
    stock = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    encoder = Encoder.load(folder)
    (row,) = encoder.tokenize(sentences(1))
    with torch.inference_mode():
        wanted = stock(**{name: torch.tensor([ids]) for name, ids in row.items()}).logits[0].numpy()
    assert np.allclose(encoder.predict([row])[0]["logits"], wanted, atol=1e-5)


def test_a_masked_head_whose_decoder_has_no_bias(tmp_path):
    assert_logits_of_the_class(folder_of(tmp_path / "m", "mlm", "modernbert", decoder_bias=False))


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_a_decoder_of_its_own(family, tmp_path):
    folder = folder_of(tmp_path / "m", "mlm", family, tie_word_embeddings=False)
    assert_logits_of_the_class(folder)
    facts = read_facts(folder)
    assert of_encoder(facts).num_bytes == pytest.approx((folder / "model.safetensors").stat().st_size, rel=0.02)
    with pytest.raises(UserError, match="table of its own"):
        converted(facts, family)


def test_sizes_that_transformers_makes_up(tmp_path):
    folder = folder_of(tmp_path / "m", "embedding", "electra", embedding_size=128, hidden_size=64)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "embedding_size"}))
    with pytest.raises(UnsafeModel, match=r"leaves out `embedding_size`, which .* is 128"):
        Encoder.load(folder)


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
