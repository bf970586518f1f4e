"""Encoders: every family and task goes to disk and back through stock transformers; bad checkpoints are refused."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bertshrink.errors import OutputError, UnsafeModel, UserError
from bertshrink.model.batches import pad
from bertshrink.model.encoder import Encoder
from bertshrink.model.families import FAMILIES
from bertshrink.model.sizes.components import component_of
from bertshrink.model.tasks import TASKS
from tests.support.families import SERVED
from tests.support.tiny import sentences, tiny_encoder


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), SERVED)
def test_stock_transformers_reads_what_is_written_and_gives_the_same_numbers(family, task, tmp_path):
    encoder = tiny_encoder(family, task, num_hidden_layers=2)
    encoder.save(tmp_path)
    stock = getattr(transformers, TASKS[task].auto_class).from_pretrained(tmp_path, local_files_only=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    texts = sentences(6)
    name = TASKS[task].outputs[-1]
    mine = [row[name] for row in encoder.predict(encoder.tokenize(texts))]
    with torch.no_grad():
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        out = stock(**batch)
    if task == "embedding":
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (out.last_hidden_state * mask).sum(1) / mask.sum(1)
        theirs = torch.nn.functional.normalize(mean, dim=-1)
    elif TASKS[task].is_vector:
        logits = out.logits.masked_fill(batch["attention_mask"].unsqueeze(-1) == 0, 0.0)
        theirs = logits.relu().log1p().amax(dim=1)
    else:
        theirs = out[name]
    for a, b, length in zip(mine, theirs.numpy(), batch["attention_mask"].sum(1).tolist(), strict=True):
        assert np.allclose(a, b[:length] if TASKS[task].per_token else b, atol=1e-5)
    again = Encoder.load(tmp_path, task)
    assert (again.shape, again.labels, again.max_length) == (encoder.shape, encoder.labels, encoder.max_length)
    for name, tensor in encoder.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_has_its_component(family):
    encoder = tiny_encoder(family)
    found = {component_of(encoder.anatomy, name) for name, _ in encoder.model.named_parameters()}
    assert {"embeddings", "attention", "feed-forward", "head"} <= found
    heads = [n for n, _ in encoder.model.named_parameters() if component_of(encoder.anatomy, n) == "head"]
    assert not [name for name in heads if name.startswith(encoder.anatomy.base)]


def test_a_copy_has_weights_of_its_own():
    encoder = tiny_encoder()
    other = encoder.copy()
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    assert not torch.equal(next(other.model.parameters()), next(encoder.model.parameters()))
    assert other.tokenizer is encoder.tokenizer


def test_weights_come_as_float32_whatever_they_were_stored_in(tmp_path):
    encoder = tiny_encoder()
    encoder.save(tmp_path)
    halves = {name: tensor.half() for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(halves, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = Encoder.load(tmp_path)
    assert {p.dtype for p in again.model.parameters()} == {torch.float32}


def test_texts_are_cut_and_batches_padded():
    encoder = tiny_encoder()
    rows = encoder.tokenize(["good " * 500, "bad"], max_length=9)
    assert [len(row["input_ids"]) for row in rows] == [9, 3]
    assert len(encoder.tokenize(["good " * 500])[0]["input_ids"]) == encoder.max_length
    pairs = encoder.tokenize(["good"], ["bad"])
    assert pairs[0]["token_type_ids"][-1] == 1
    block = pad(rows, encoder.tokenizer.pad_token_id)
    assert block["input_ids"].shape == (2, 9)
    assert block["attention_mask"][1].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0]


# Refusals


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    tiny_encoder().save(folder)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "m")


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit(folder, how):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    how(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def refused(folder, kind, message, task="auto"):
    with pytest.raises(kind, match=message) as caught:
        Encoder.load(folder, task)
    assert caught.value.where
    assert caught.value.hint


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(folder, value):
    def spoil(tensors):
        tensors["bert.encoder.layer.3.output.dense.weight"][5, 7] = value

    edit(folder, spoil)
    refused(folder, UnsafeModel, r"the weight `bert\.encoder\.layer\.3\.output\.dense\.weight` holds values")


def test_truncated_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, UnsafeModel, "truncated")


def test_a_pickle_never_runs(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "owned"
    (folder / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    refused(folder, UnsafeModel, "are a pickle")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_never_runs(folder, tmp_path, name):
    marker = tmp_path / "owned"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass Model: pass\nclass Config: pass\n")
    auto = {"AutoConfig": "evil.Config", "AutoModelForSequenceClassification": "evil.Model", "AutoTokenizer": "evil.M"}
    change(folder, name, auto_map=auto)
    refused(folder, UnsafeModel, "asks to run its own code")
    assert not marker.exists()


def test_a_head_that_is_not_there(folder):
    refused(folder, UserError, r"lacks \d+ weights that the task `mlm` needs", "mlm")

    def behead(tensors):
        del tensors["classifier.weight"]

    edit(folder, behead)
    refused(folder, UserError, "lacks 1 weights that the task `classification` needs: `classifier.weight`")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer.json": None, "tokenizer_config.json": None}, "has no tokenizer files"),
        ({"tokenizer.json": None}, "has no tokenizer files"),
        ({"tokenizer.json": "{"}, "the tokenizer in .* cannot be loaded"),
        ({"tokenizer.json": "{}"}, "the tokenizer in .* cannot be loaded"),
        ({"tokenizer.json": '{"version": "1.0", "added_tokens": [], "model": {"type": "X"}}'}, "cannot be loaded"),
    ],
)
def test_a_tokenizer_that_is_missing_or_damaged(folder, files, message):
    for name, content in files.items():
        (folder / name).unlink() if content is None else (folder / name).write_text(content)
    refused(folder, UserError if None in files.values() else UnsafeModel, message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vocab_size": 7}, r"`bert\.embeddings\.word_embeddings\.weight` is 146x32, and config\.json asks for 7x32"),
        ({"num_attention_heads": 5}, "transformers cannot build a model from config.json: .*attention heads"),
        ({"hidden_act": "nonsense"}, "transformers cannot build a model from config.json: .*nonsense"),
        (
            {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}},
            r"`classifier\.bias` is 2, and config\.json asks for 3",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_its_weights(folder, values, message):
    change(folder, "config.json", **values)
    refused(folder, UnsafeModel, message)


@pytest.mark.parametrize(
    ("family", "values"),
    [
        ("deberta-v2", {"attention_head_size": 16}),
        ("mpnet", {"relative_attention_num_buckets": 8}),
        ("mobilebert", {"key_query_shared_bottleneck": False}),
    ],
)
def test_settings_with_which_the_class_itself_cannot_run(family, values, tmp_path):
    encoder = tiny_encoder(family)
    config = type(encoder.model.config).from_dict(encoder.model.config.to_dict() | values)
    encoder.with_model(type(encoder.model)(config)).save(tmp_path)
    with pytest.raises(UnsafeModel, match="cannot run with these settings: ") as caught:
        Encoder.load(tmp_path)
    assert caught.value.where == str(tmp_path / "config.json")


def test_a_full_disk(tmp_path, monkeypatch):
    encoder = tiny_encoder()

    def full(*arguments, **more):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(encoder.model, "save_pretrained", full)
    with pytest.raises(OutputError, match="No space left on device"):
        encoder.save(tmp_path)


def test_sentence_transformers_files_travel_along(tmp_path):
    encoder = tiny_encoder("bert", "embedding")
    first, second = tmp_path / "first", tmp_path / "second"
    encoder.save(first)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (first / "modules.json").write_text(json.dumps(modules))
    (first / "sentence_bert_config.json").write_text('{"max_seq_length": 24}')
    (first / "1_Pooling").mkdir(exist_ok=True)
    (first / "1_Pooling/config.json").write_text('{"pooling_mode_cls_token": true}')
    loaded = Encoder.load(first)
    second.mkdir()
    loaded.save(second)
    again = Encoder.load(second)
    assert (again.pooling, again.max_length, again.task) == (loaded.pooling, 24, "embedding")
    assert (again.pooling.mode, again.pooling.normalize) == ("cls", False)


@pytest.mark.parametrize("family", ["bert", "roberta", "albert"])
def test_a_base_model_without_a_pooler_gets_one_that_is_always_the_same(family, tmp_path):
    encoder = tiny_encoder(family, "embedding")
    encoder.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    without = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    assert len(without) == len(weights) - 2
    save_file(without, tmp_path / "model.safetensors", metadata={"format": "pt"})
    torch.manual_seed(1)
    first = Encoder.load(tmp_path, "embedding").model.state_dict()
    torch.manual_seed(2)
    second = Encoder.load(tmp_path, "embedding").model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(first[name], tensor) for name, tensor in without.items())
