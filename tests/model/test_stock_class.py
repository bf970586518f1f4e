"""A model folder is taken whole or refused: no weight, value or file that decides its outputs is left out."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bertshrink.cli.app import run
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.encoder import Encoder
from tests.support.model_folders import model_folder
from tests.support.tiny import sentences, tiny_encoder

LAYER = "bert.encoder.layer.0."


def folder_of(place, task="classification", family="bert", **more):
    place.mkdir()
    tiny_encoder(family, task, **more).save(place)
    return place


def edit(folder, change):
    """The weights of a folder, as `change` makes them of what they were."""
    path = folder / "model.safetensors"
    weights = change(load_file(path))
    path.unlink()  # it is mapped into memory
    save_file({name: tensor.clone() for name, tensor in weights.items()}, path, metadata={"format": "pt"})


def configure(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(folder, task="auto", kind=UnsafeModel):
    with pytest.raises(kind) as caught:
        Encoder.load(folder, task)
    assert caught.value.where and caught.value.hint
    return caught.value


# Weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("token-classification", ["crf.transitions", "crf.start_transitions", "crf.end_transitions"]),
        ("classification", ["lstm.weight_ih_l0"]),
        ("classification", [f"{LAYER}output.adapters.x.adapter_down.0.weight", f"{LAYER}output.LayerNorm2.weight"]),
        ("classification", [f"{LAYER}attention.self.distance_embedding.weight"]),
        ("classification", [f"{LAYER}attention.self.query.lora_A.default.weight"]),
        ("classification", ["classifier.dense.weight", "classifier2.weight", "qa_outputs.weight"]),
        ("embedding", ["classifier.weight", "dense.linear.weight"]),
        ("mlm", ["lm_head.dense.weight"]),
    ],
)
def test_weights_that_the_class_has_no_place_for(task, names, tmp_path):
    folder = folder_of(tmp_path / "m", task)
    edit(folder, lambda weights: weights | {name: torch.randn(4, 4) for name in names})
    found = refusal(folder)
    assert "does not use" in found.what
    assert all(f"`{name}`" in found.what for name in names)
    edit(folder, lambda weights: {name: tensor for name, tensor in weights.items() if name not in names})
    assert Encoder.load(folder).task == task, "without them the folder is taken again"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("classification", ["bert.embeddings.position_ids", "bert.embeddings.token_type_ids"]),
        ("embedding", ["embeddings.position_ids", "cls.predictions.bias", "cls.seq_relationship.weight"]),
        ("classification", ["cls.predictions.transform.dense.weight", "loss_fct.pos_weight"]),
        ("token-classification", ["bert.pooler.dense.weight", "bert.pooler.dense.bias"]),
        ("question-answering", ["bert.pooler.dense.weight"]),
        ("mlm", ["cls.seq_relationship.weight", "bert.pooler.dense.weight"]),
    ],
)
def test_leftovers_that_change_nothing(task, names, tmp_path):
    folder = folder_of(tmp_path / "m", task)
    rows = Encoder.load(folder).tokenize(sentences(3))
    before = Encoder.load(folder).predict(rows)
    edit(folder, lambda weights: weights | {name: torch.arange(64)[None] for name in names})
    for mine, theirs in zip(before, Encoder.load(folder).predict(rows), strict=True):
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_a_head_is_left_behind_only_where_another_task_was_asked_for(tmp_path):
    folder = folder_of(tmp_path / "m")
    assert Encoder.load(folder, "embedding").task == "embedding"
    configure(folder, architectures=["BertModel"])
    assert "`classifier.bias`, `classifier.weight`" in refusal(folder).what


def test_weights_that_are_missing(tmp_path):
    folder = folder_of(tmp_path / "m")
    edit(folder, lambda weights: {name: tensor for name, tensor in weights.items() if "pooler" not in name})
    found = refusal(folder, kind=UserError)
    assert "lacks 2 weights" in found.what and "`bert.pooler.dense.weight`" in found.what, "a classifier reads it"
    edit(folder, lambda weights: {name.replace("encoder", "stack"): tensor for name, tensor in weights.items()})
    found = refusal(folder, kind=UserError)
    assert "lacks 66 weights" in found.what and "contains `bert.stack.layer.0." in found.what


@pytest.mark.parametrize("word", ["module.", "_orig_mod.", "model."])
def test_names_with_a_word_in_front_and_weights_without_a_place(word, tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "m")
    edit(folder, lambda weights: {word + name: tensor for name, tensor in (weights | {"crf.x": torch.ones(1)}).items()})
    found = refusal(folder)
    assert f"begin with `{word}`" in found.what
    monkeypatch.chdir(folder)
    exec(found.hint.partition('-c "')[2].rpartition('"')[0])  # what the user is told to run
    assert "`crf.x`, which" in refusal(folder).what


def test_base_weights_without_the_familys_word_and_old_names_of_norms(tmp_path):
    folder = folder_of(tmp_path / "m", "embedding")
    rows = Encoder.load(folder).tokenize(sentences(3))
    before = Encoder.load(folder).predict(rows)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def as_of_old(weights):
        found = {}
        for name, tensor in weights.items():
            for new, ancient in old.items():
                name = name.replace(new, ancient)
            found[f"bert.{name}"] = tensor
        return found

    edit(folder, as_of_old)
    after = Encoder.load(folder).predict(rows)
    assert all(
        np.array_equal(a["sentence_embedding"], b["sentence_embedding"]) for a, b in zip(before, after, strict=True)
    )


def test_half_precision_is_read_as_what_it_is(tmp_path):
    folder = folder_of(tmp_path / "m")
    edit(folder, lambda weights: {name: tensor.half() for name, tensor in weights.items()})
    encoder = Encoder.load(folder)
    rows = encoder.tokenize(sentences(2))
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        wanted = [theirs(**{name: torch.tensor([ids]) for name, ids in row.items()}).logits[0].numpy() for row in rows]
    assert np.allclose([row["logits"] for row in encoder.predict(rows)], wanted, atol=1e-6)


def test_weights_of_another_form(tmp_path):
    folder = folder_of(tmp_path / "m")
    name = f"{LAYER}attention.self.query.weight"
    whole = load_file(folder / "model.safetensors")[name]
    edit(folder, lambda weights: weights | {name: whole[:16]})
    found = refusal(folder)
    assert f"`{name}` is 16x32, and config.json asks for 32x32" in found.what and "heads pruned" in found.hint
    edit(folder, lambda weights: weights | {name: (whole * 10).to(torch.int8)})
    assert f"`{name}` is stored as I8" in refusal(folder).what


# Values of config.json


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"position_embedding_type": "relative_key_query"}, "relative positions"),
        ({"position_embedding_type": "relative_key"}, "relative positions"),
        ({"pruned_heads": {"0": [2, 3]}}, "pruned"),
        ({"is_decoder": True}, "decoder"),
        ({"is_decoder": True, "add_cross_attention": True}, "decoder"),
        ({"add_cross_attention": True}, "cross-attention"),
        ({"inner_group_num": 2}, "several layers each"),
        ({"chunk_size_feed_forward": 4}, "chunks"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "quantized"),
        ({"adapters": {"adapters": {"x": "a1b2"}, "fusions": {}}}, "adapter"),
    ],
)
def test_values_that_would_make_another_network(values, word, tmp_path):
    folder = folder_of(tmp_path / "m")
    configure(folder, **values)
    found = refusal(folder)
    assert word in found.what and f"`{next(iter(values))}: " in found.what


def test_values_that_change_nothing(tmp_path):
    folder = folder_of(tmp_path / "m")
    rows = Encoder.load(folder).tokenize(sentences(2))
    before = Encoder.load(folder).predict(rows)
    configure(
        folder,
        position_embedding_type="absolute",
        pruned_heads={},
        is_decoder=False,
        classifier_dropout=0.3,
        gradient_checkpointing=True,
        adapters={"adapters": {}, "fusions": {}},
    )
    after = Encoder.load(folder).predict(rows)
    assert all(np.array_equal(a["logits"], b["logits"]) for a, b in zip(before, after, strict=True))


def test_the_other_head_of_a_class_on_masked_tokens(tmp_path):
    folder = model_folder(tmp_path / "m", "deberta-v2", "ForMaskedLM", legacy=False)
    with pytest.raises(
        UserError, match=r"`legacy: false` in config.json: DeBERTa-v2 and v3 has another head"
    ) as caught:
        read_facts(folder)
    assert "--task embedding" in caught.value.hint and read_facts(folder, "embedding").task == "embedding"


# Files beside the model


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("adapter_config.json", ("PEFT", "merge_and_unload")),
        ("config_setfit.json", ("SetFit", "finetune")),
        ("model_head.pkl", ("SetFit", "finetune")),
        ("adapter_fusion_config.json", ("adapters", "merge")),
    ],
)
def test_files_that_decide_and_that_nobody_reads(name, words, tmp_path):
    folder = folder_of(tmp_path / "m")
    (folder / name).write_text("{}")
    found = refusal(folder)
    assert f"`{name}`" in found.what and words[0] in found.what and words[1] in found.hint
    (folder / "config.json").unlink()
    assert f"`{name}`" in refusal(folder).what, "named also where nothing else is there, as PEFT saves it"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "1_Pooling/config.json"])
def test_a_pointer_of_git_lfs_is_called_one(name, tmp_path):
    folder = folder_of(tmp_path / "m")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 66213\n")
    found = refusal(folder)
    assert f"`{name}` is a pointer of git LFS" in found.what and "git lfs pull" in found.hint


def test_pointers_of_files_that_are_not_read_do_not_matter(tmp_path):
    folder = folder_of(tmp_path / "m")
    (folder / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert Encoder.load(folder)


@pytest.mark.subprocess
def test_every_command_says_it_with_the_exit_code_of_a_refusal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path / "m")
    edit(folder, lambda weights: weights | {"crf.transitions": torch.randn(3, 3)})
    for command in (["export", "m", "-o", "o"], ["bench", "m", "--quick"]):
        assert run(command) == 5
        assert "`crf.transitions`" in " ".join(capsys.readouterr().err.split())
    configure(folder, pruned_heads={"0": [1]})
    assert run(["inspect", "m"]) == 5
    assert "pruned" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


# Tokens


def add_token(folder, token):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([token])
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def test_a_token_without_a_row_is_named(tmp_path):
    folder = folder_of(tmp_path / "m")
    number = add_token(folder, "<prod>") - 1
    found = refusal(folder)
    assert f"`<prod>` ({number})" in found.what and "resize_token_embeddings" in found.hint
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    model.resize_token_embeddings(number + 1)
    model.save_pretrained(folder)
    encoder = Encoder.load(folder)
    (row,) = encoder.tokenize(["the <prod>"])
    assert number in row["input_ids"] and encoder.predict([row])


@pytest.mark.slow
def test_one_type_of_token_for_both_texts_of_a_pair(tmp_path):
    folder = folder_of(tmp_path / "m", type_vocab_size=1)
    encoder = Encoder.load(folder)
    (note,) = encoder.notes
    assert "only one type" in note
    pair = encoder.tokenize(["the film"], ["a book"])
    (tmp_path / "again").mkdir()
    encoder.save(tmp_path / "again")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "again").eval()
    with torch.inference_mode():
        wanted = model(**tokenizer("the film", "a book", return_tensors="pt")).logits.numpy()
    assert np.allclose(encoder.predict(pair)[0]["logits"], wanted[0], atol=1e-6), "and so does what was written"
    configure(folder, type_vocab_size=2)
    assert "is 1x32, and config.json asks for 2x32" in refusal(folder).what


def test_types_that_the_class_does_not_read_are_left_to_the_tokenizer(tmp_path):
    tiny_encoder("deberta-v2").save(tmp_path)
    encoder = Encoder.load(tmp_path)
    assert encoder.model.config.type_vocab_size == 0 and encoder.notes == ()
    assert "token_type_ids" in encoder.tokenizer.model_input_names


def test_types_beyond_more_than_one_are_refused(tmp_path):
    folder = folder_of(tmp_path / "m")
    path = folder / "tokenizer.json"
    text = path.read_text()
    assert text.count('"type_id": 1') >= 2
    path.write_text(text.replace('"type_id": 1', '"type_id": 2'))
    assert "tokens of type 2, and the model has 2 types" in refusal(folder).what
