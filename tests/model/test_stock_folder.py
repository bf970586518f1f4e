"""Repositories with code of their own: read by the stock class, the code never run; or refused by name."""

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bertshrink.command_scope import command_scope
from bertshrink.engines import torch_engine
from bertshrink.errors import CheckFailed, UnsafeModel, UserError
from bertshrink.meters.latency.launch import launch_of
from bertshrink.model.encoder import Encoder
from bertshrink.model.families.remote_code import REMOTE_CODE
from bertshrink.sources.resolve import fetch_weights, find_model
from tests.support.remote_repositories import REPOSITORIES, by_its_own_code, only_config, repository, write_vectors
from tests.support.tiny import outputs, sentences


def read(folder, task="auto"):
    return fetch_weights(find_model(str(folder), task=task))


def states(encoder, ids):
    with torch.no_grad():
        return encoder.model(torch.tensor([ids])).last_hidden_state[0]


@pytest.mark.parametrize("name", REPOSITORIES)
def test_the_stock_class_gives_what_its_weights_give_and_no_code_is_run(name, tmp_path):
    encoder = repository(tmp_path, name)
    model = read(tmp_path, "embedding")
    rows = encoder.tokenize(sentences(4))
    np.testing.assert_array_equal(outputs(model.load(), rows), outputs(encoder, rows))
    assert not [module for module in sys.modules if "transformers_modules" in module]
    assert model.about.notes[0].startswith(f"read by the stock class of {model.about.anatomy.title}: its own code (")
    assert "was not run" in model.about.notes[0]
    assert "no reference vectors" in model.about.notes[1]


@pytest.mark.parametrize("name", ["nomic", "gte", "arctic"])
def test_the_stock_class_computes_what_the_formulas_of_that_code_say(name, tmp_path):
    repository(tmp_path, name)
    ids = list(range(4, 24))
    theirs, mine = by_its_own_code(tmp_path, ids), states(read(tmp_path, "embedding").load(), ids)
    assert (theirs - mine).abs().max() < 1e-4 * theirs.abs().max()


def test_reference_vectors_tell_a_lost_scaling_of_positions_and_let_rounding_pass(tmp_path):
    path, texts = tmp_path / "v.json", sentences(8, shortest=40, longest=60)
    (tmp_path / "m").mkdir()
    encoder = repository(tmp_path / "m", "gte")
    for parameter in encoder.model.parameters():
        parameter.data = parameter.data.half().float()
    write_vectors(path, encoder, texts)
    likeness = find_model(str(tmp_path / "m"), reference=str(path)).compared()
    assert "cosine is 1.00000" in likeness or "cosine is 0.99999" in likeness
    only_config(tmp_path / "m", "gte", rope_theta=160000, rope_scaling=None)
    with pytest.raises(CheckFailed, match=r"is 0\.99[5-8]"):
        find_model(str(tmp_path / "m"), reference=str(path)).compared()


def test_every_row_of_the_table_is_tried():
    families = {(row.model_type, row.family) for row in REMOTE_CODE}
    published = {(make(_Sizes())["model_type"], family) for family, make, _ in REPOSITORIES.values()}
    assert families == published


class _Sizes:
    def __getattr__(self, name):
        return 8


@pytest.mark.parametrize("name", ["nomic", "gte"])
def test_what_is_saved_is_a_stock_checkpoint_without_auto_map(name, tmp_path):
    (tmp_path / "given").mkdir()
    encoder = repository(tmp_path / "given", name)
    read(tmp_path / "given").load().save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["model_type"] == encoder.model.config.model_type
    assert "auto_map" not in config
    rows = encoder.tokenize(sentences(2))
    np.testing.assert_array_equal(outputs(Encoder.load(tmp_path / "saved"), rows), outputs(encoder, rows))


def respell(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_weight_that_is_lost_is_named(tmp_path):
    repository(tmp_path, "nomic")
    respell(tmp_path, lambda weights: weights.pop("encoder.layers.1.mlp.fc12.weight"))
    with pytest.raises(UserError, match=r"lacks 1 weights.*layers\.1\.mlp\.gate_proj") as caught:
        read(tmp_path).load()
    assert caught.value.where == str(tmp_path), "the folder that was given, not a private one"


@pytest.mark.parametrize("extra", ["encoder.layers.0.attn.Wqkv.lora_A", "encoder.layers.1.mlp.router.layer.weight"])
def test_a_weight_without_a_place_is_named(extra, tmp_path):
    repository(tmp_path, "nomic")
    respell(tmp_path, lambda weights: weights.update({extra: torch.ones(2, 2)}))
    with pytest.raises(UnsafeModel, match=r"lora_A|router") as caught:
        read(tmp_path).load()
    assert str(tmp_path) in caught.value.where


MOE = {"num_experts": 8, "moe_every_n_layers": 2, "moe_top_k": 2, "activation_function": "gelu", "qkv_proj_bias": True}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("nomic", {"rotary_emb_interleaved": True}, r"`rotary_emb_interleaved: true`.*computes something else"),
        ("nomic", {"activation_function": "gelu"}, r"`activation_function: \"gelu\"`"),
        ("nomic", {"qkv_proj_bias": ...}, r"`qkv_proj_bias: null`"),
        ("nomic", {"prenorm": True}, r"`prenorm: true`"),
        ("nomic", {"use_rms_norm": True}, r"`use_rms_norm: true`"),
        ("nomic", MOE, r"`num_experts: 8`.*something else"),
        ("nomic", {"moe_every_n_layers": 2}, r"`moe_every_n_layers: 2`"),
        ("nomic", {"a_new_setting": 1}, r"sets `a_new_setting: 1`, of which it is not known"),
        ("nomic", {"n_inner": ...}, r"leaves out `n_inner`"),
        (
            "nomic",
            {"hidden_size": 64},
            r"says `hidden_size: 64`, and by its other settings it is 32 \(`n_embd` is 32\)",
        ),
        ("nomic", {"hidden_act": "relu"}, r"says `hidden_act: \"relu\"`"),
        ("nomic", {"rope_parameters": {"rope_type": "yarn"}}, r"yarn.*not known to be"),
        ("nomic", {"architectures": ["NomicVisionModel"]}, r"class `NomicVisionModel`, which is not of the code"),
        ("gte", {"logn_attention_scale": True}, r"`logn_attention_scale: true`"),
        ("gte", {"pack_qkv": False}, r"`pack_qkv: false`"),
        ("gte", {"layer_norm_type": "rms_norm"}, r"`layer_norm_type: \"rms_norm\"`"),
        ("gte", {"position_embedding_type": "absolute"}, r"`position_embedding_type: \"absolute\"`"),
        ("gte", {"rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.5}}, r"`rope_scaling: .*mixed_b"),
        ("gte", {"rope_scaling": {"type": "yarn", "factor": 8.0}}, r"`rope_scaling: .*yarn"),
        ("gte", {"rope_scaling": {"type": "ntk"}}, r"settings of positions or sizes"),
        ("gte", {"rope_theta": ...}, r"leaves out `rope_theta`"),
        ("gte", {"architectures": ["NewModelForCL"]}, r"class `NewModelForCL`"),
        ("arctic", {"model_type": "bert"}, r"no stock class is known to compute the same"),
        ("eurobert", {"rope_scaling": {"type": "linear", "factor": 2.0}}, r"`rope_scaling: "),
        ("eurobert", {"rope_theta": ...}, r"leaves out `rope_theta`"),
    ],
)
def test_settings_that_the_stock_class_does_not_have_are_refused_by_name(name, changes, message, tmp_path):
    only_config(tmp_path, name, **changes)
    with pytest.raises(UnsafeModel, match=message) as caught:
        find_model(str(tmp_path), task="embedding")
    assert caught.value.where == str(tmp_path / "config.json")
    assert caught.value.hint


JINA = "jinaai/xlm-roberta-flash-implementation"


@pytest.mark.parametrize(
    ("model_type", "auto_map", "message"),
    [
        ("xlm-roberta", {"AutoModel": f"{JINA}--modeling_lora.XLMRobertaLoRA"}, "adapters"),
        ("bert", {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"}, "ALiBi"),
        ("bert", {"AutoModel": "modeling_bert.JinaBertModel"}, "ALiBi"),
        (
            "nomic_bert",
            {"AutoModel": "somebody/else--modeling_hf_nomic_bert.NomicBertModel"},
            "no stock class is known",
        ),
        ("nomic_bert", {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicVisionModel"}, "no stock"),
        ("nomic_bert", {"AutoModel": "modeling_hf_nomic_bert.NomicBertModel", "AutoConfig": "mine.Config"}, "no stock"),
        ("gte", {"AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"}, "no stock class is known"),
        ("new", "modeling.Other", "no stock class is known"),
        ("nomic_bert", {"AutoModel": ["modeling_hf_nomic_bert.NomicBertModel"]}, "no stock class is known"),
    ],
)
def test_every_other_code_is_refused_with_the_reason(model_type, auto_map, message, tmp_path):
    only_config(tmp_path, "nomic", model_type=model_type, auto_map=auto_map)
    with pytest.raises(UnsafeModel, match=rf"never does.*{message}") as caught:
        find_model(str(tmp_path))
    assert caught.value.where == str(tmp_path / "config.json")
    assert caught.value.hint


def test_a_tokenizer_with_code_of_its_own_is_refused_beside_a_model_that_is_taken(tmp_path):
    repository(tmp_path, "gte")
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["mine.T", None]}}))
    with pytest.raises(UnsafeModel, match="asks to run its own code") as caught:
        find_model(str(tmp_path))
    assert caught.value.where == str(path)


def test_positions_that_are_scaled_by_length_end_where_the_scaling_begins(tmp_path):
    repository(tmp_path, "nomic", rotary_scaling_factor=2, max_trained_positions=32)
    assert read(tmp_path).about.shape.max_positions == 32
    assert read(tmp_path).about.max_length == 32


def test_both_spellings_beside_each_other_are_read_where_they_agree(tmp_path):
    both = {"hidden_size": 32, "hidden_act": "silu", "layer_norm_eps": 1e-12, "max_position_embeddings": 2048}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
    repository(tmp_path, "nomic", **both, **rope)
    about = read(tmp_path).about
    assert (about.shape.hidden_size, about.shape.max_positions) == (32, 2048)
    scaled = {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0}
    only_config(tmp_path, "nomic", rope_parameters=scaled, max_trained_positions=48)
    about = find_model(str(tmp_path)).about
    assert about.shape.max_positions == 48, "up to there it is the same rotation"
    assert about.config["rope_parameters"] == {"rope_type": "default", "rope_theta": 500.0}


@pytest.mark.parametrize(("name", "head"), [("nomic", "classifier"), ("gte", "classifier")])
def test_a_classifier_that_was_trained_with_that_code_is_read_with_its_head(name, head, tmp_path):
    prefix = {"nomic": "NomicBert", "gte": "New"}[name]
    labels = {"id2label": {"0": "negative", "1": "positive"}, "label2id": {"negative": 0, "positive": 1}}
    encoder = repository(
        tmp_path, name, "classification", architectures=[f"{prefix}ForSequenceClassification"], **labels
    )
    rows = encoder.tokenize(sentences(4))
    model = read(tmp_path)
    assert model.about.labels == ("negative", "positive")
    np.testing.assert_array_equal(outputs(model.load(), rows), outputs(encoder, rows))


def test_a_sentence_encoder_keeps_its_modules_and_a_head_beside_is_left_out(tmp_path):
    """As gte-multilingual-base is published: with `modules.json`, and the head of sparse weights in the same file."""
    encoder = repository(tmp_path, "gte", architectures=["NewModel", "NewForTokenClassification"])
    assert (tmp_path / "1_Pooling").is_dir()

    def as_published(weights):
        for name in list(weights):
            weights[f"new.{name}"] = weights.pop(name)
        weights |= {"classifier.weight": torch.ones(1, 32), "classifier.bias": torch.ones(1)}

    respell(tmp_path, as_published)
    model = read(tmp_path)
    assert model.about.sentence is not None
    rows = encoder.tokenize(sentences(2))
    np.testing.assert_array_equal(outputs(model.load(), rows), outputs(encoder, rows))


def test_the_engine_of_a_worker_reads_the_same(tmp_path):
    repository(tmp_path, "nomic")
    model = read(tmp_path)
    launch = launch_of(model.load(), model.folder)
    torch_engine.prepare(str(launch.path), launch.options)
    inputs = {name: np.arange(4, 12)[None] if name == "input_ids" else np.ones((1, 8), int) for name in launch.inputs}
    inputs |= {"token_type_ids": np.zeros((1, 8), int)} if "token_type_ids" in launch.inputs else {}
    mine, theirs = (
        model.load().session().run(inputs),
        torch_engine.load(str(launch.path), 1, launch.options).run(inputs),
    )
    np.testing.assert_array_equal(mine["sentence_embedding"], theirs["sentence_embedding"])


def test_nomic_weights_of_a_classifier_have_another_words_in_front(tmp_path):
    """`bert.`, as that code calls its encoder."""
    encoder = repository(tmp_path, "nomic", "classification", architectures=["NomicBertForSequenceClassification"])
    respell(tmp_path, lambda weights: _in_front(weights, "nomic_bert.", "bert."))
    rows = encoder.tokenize(sentences(2))
    np.testing.assert_array_equal(outputs(read(tmp_path).load(), rows), outputs(encoder, rows))


def _in_front(weights, old, new):
    names = [name for name in weights if name.startswith(old)]
    assert names
    for name in names:
        weights[new + name.removeprefix(old)] = weights.pop(name)


def test_weights_in_several_files_are_read_and_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "m").mkdir()
    encoder = repository(tmp_path / "m", "eurobert")
    config = (tmp_path / "m" / "config.json").read_text()
    (tmp_path / "m" / "model.safetensors").unlink()
    encoder.model.save_pretrained(tmp_path / "m", max_shard_size="50KB")
    (tmp_path / "m" / "config.json").write_text(config)
    rows = encoder.tokenize(sentences(2))
    np.testing.assert_array_equal(outputs(read(tmp_path / "m", "embedding").load(), rows), outputs(encoder, rows))
    shard = next((tmp_path / "m").glob("model-*.safetensors"))
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeModel, match="is a link to"):
        find_model(str(tmp_path / "m"), task="embedding")


def test_within_a_command_the_same_folder_is_made_once(tmp_path):
    repository(tmp_path, "gte")
    with command_scope():
        assert read(tmp_path).folder == read(tmp_path).folder
    assert not list(read(tmp_path).folder.glob("*.py"))
