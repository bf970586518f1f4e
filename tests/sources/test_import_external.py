"""What is beside an ONNX file of others decides its outputs, too: kept, or refused by name."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import TensorProto, helper

from bertshrink.cli.app import run
from bertshrink.engines import engine, given
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.onnx_data_file import beside
from bertshrink.model.artifact import Artifact
from bertshrink.model.folder.dropped_files import left_behind
from bertshrink.model.folder.pooling import ACTIVATIONS
from bertshrink.onnx_graph import external_data
from bertshrink.sources import import_external as external
from bertshrink.sources import probe_child
from tests.support.onnx_files import encoder_model, encoder_parts, onnx_folder, outside
from tests.support.tiny import tiny_tokenizer

pytestmark = pytest.mark.subprocess

TEXTS = ["The Film is good", "a book", "we see no way out of it"]


@pytest.fixture(autouse=True)
def no_limits_here(monkeypatch):
    monkeypatch.setattr(probe_child, "limit", lambda num_bytes: None)
    monkeypatch.setattr(external, "probe_in_subprocess", lambda source, target: _look_here(source, target))


def _look_here(source, target):
    """The same look in this process, without a child's start."""
    from bertshrink.sources.probe_process import ProbeResult, TensorSpec

    found = probe_child.look(source, target)
    for side in ("inputs", "outputs"):
        found[side] = {name: TensorSpec(v["type"], tuple(v["shape"])) for name, v in found[side].items()}
    return ProbeResult(**found)


def taken(folder, name="model.onnx"):
    return Artifact.load(external.import_external(folder / name))


def wants_types():
    """A model that adds an embedding of token types; without zeros it cannot run."""
    nodes, weights = encoder_parts()
    nodes[0] = helper.make_node("Gather", ["table", "input_ids"], ["words"])
    nodes[1:1] = [
        helper.make_node("Gather", ["types", "token_type_ids"], ["typed"]),
        helper.make_node("Add", ["words", "typed"], ["rows"]),
    ]
    weights["types"] = np.random.default_rng(3).normal(size=(2, 8)).astype(np.float32)
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    return encoder_model(nodes, weights, inputs=inputs)


def without_types(folder):
    path = folder / "tokenizer_config.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"model_input_names": ["input_ids", "attention_mask"]}))


@pytest.mark.parametrize("pairs", [None, ["or not", "and water", "now"]])
def test_token_types_that_the_tokenizer_does_not_give_are_zeros(pairs, tmp_path):
    folder = onnx_folder(tmp_path / "m", wants_types())
    without_types(folder)
    artifact = taken(folder)
    rows = artifact.tokenize(TEXTS, pairs)
    assert "token_type_ids" in artifact.card.inputs and "token_type_ids" not in rows[0]
    session = engine("onnxruntime").load(str(folder / "model.onnx"))
    for row, found in zip(rows, artifact.predict(rows), strict=True):
        feeds = {name: np.array([ids]) for name, ids in row.items()}
        wanted = session.run(feeds | {"token_type_ids": np.zeros_like(feeds["input_ids"])})
        assert np.allclose(found["logits"], wanted["logits"][0], atol=1e-6)
        other = session.run(feeds | {"token_type_ids": np.ones_like(feeds["input_ids"])})
        assert not np.allclose(found["logits"], other["logits"][0], atol=1e-3), "types matter to this file"


def test_inputs_as_engines_give_them():
    ids = np.array([[3, 4]])
    found = given({"input_ids": ids, "other": ids}, ["input_ids", "token_type_ids"])
    assert list(found) == ["input_ids", "token_type_ids"] and not found["token_type_ids"].any()
    assert given({"input_ids": ids, "token_type_ids": ids}, ["token_type_ids"])["token_type_ids"] is ids


def test_quantize_takes_such_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    without_types(onnx_folder(tmp_path / "m", wants_types()))
    assert run(["quantize", "m", "-q", "-o", "out"]) == 0
    made = Artifact.load(tmp_path / "out")
    assert made.predict(made.tokenize(TEXTS))


@pytest.mark.parametrize("location", ["./weights.bin", ".//weights.bin", "././weights.bin"])
def test_weights_beside_the_file_behind_a_dot(location, tmp_path):
    plain = onnx_folder(tmp_path / "plain")
    model, data = outside(encoder_model(), location=location)
    folder = onnx_folder(tmp_path / "m", model)
    (folder / "weights.bin").write_bytes(data)
    onnx.load(folder / "model.onnx")  # onnx itself takes it
    wanted, found = (artifact.predict(artifact.tokenize(TEXTS)) for artifact in (taken(plain), taken(folder)))
    assert all(np.array_equal(a["logits"], b["logits"]) for a, b in zip(wanted, found, strict=True))


@pytest.mark.parametrize("name", ["../w", "/w", "a/w", "./../w", ".", "..", "", "w/", "a\\w", "./a/w", "//w", "w\0"])
def test_weights_anywhere_else_are_refused(name, tmp_path):
    with pytest.raises(UnsafeModel, match="is not a file beside it"):
        beside(tmp_path / "model.onnx", name)


@pytest.mark.parametrize("outputs", [("logits",), ("hidden",)])
def test_weights_that_one_file_cannot_hold_stay_beside_the_copy(outputs, tmp_path, monkeypatch):
    nodes, weights = encoder_parts()
    weights["table"] = np.concatenate([weights["table"]] * 9)
    given = encoder_model(nodes, weights, outputs=outputs)
    more = {} if outputs == ("logits",) else {"architectures": ["BertModel"]}
    plain = onnx_folder(tmp_path / "plain", given, **more)
    folder = onnx_folder(tmp_path / "m", **more)
    onnx.save(given, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=100)
    with monkeypatch.context() as patch:
        patch.setattr(external_data, "MAX_FILE_BYTES", 4_000)
        made = taken(folder)
    assert (made.card.file, made.card.data) == ("onnx/model.onnx", "onnx/model.onnx_data")
    assert sorted(path.name for path in made.file.parent.iterdir()) == ["model.onnx", "model.onnx_data"]
    name = "logits" if outputs == ("logits",) else "sentence_embedding"
    wanted, found = (artifact.predict(artifact.tokenize(TEXTS)) for artifact in (taken(plain), made))
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(wanted, found, strict=True))


def test_one_quantized_file_alone_stands_for_its_folder(tmp_path):
    folder = onnx_folder(tmp_path / "m", name="model_quantized.onnx")
    assert external.file_of(folder) == folder / "model_quantized.onnx"
    assert taken(folder, "model_quantized.onnx").task == "classification"


def test_an_added_token_without_a_row_is_named(tmp_path):
    folder = onnx_folder(tmp_path / "m")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<prod>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=rf"ids up to {len(tokenizer) - 1} \(`<prod>`\)"):
        taken(folder)


def test_a_pointer_of_git_lfs_beside_a_file(tmp_path):
    folder = onnx_folder(tmp_path / "m")
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UnsafeModel, match=r"`tokenizer\.json` is a pointer of git LFS"):
        taken(folder)
    shutil.copy(folder / "tokenizer.json", folder / "model.onnx")
    with pytest.raises(UnsafeModel, match=r"`model\.onnx`, `tokenizer\.json` are pointers of git LFS"):
        taken(folder)


def test_pointers_in_place_of_weights_beside_a_file_and_of_files_that_are_not_read(tmp_path):
    model, _ = outside(encoder_model())
    folder = onnx_folder(tmp_path / "m", model)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (folder / "weights.bin").write_text(pointer)
    with pytest.raises(UnsafeModel, match=r"`weights\.bin` is a pointer of git LFS"):
        taken(folder)
    other = onnx_folder(tmp_path / "other")
    for name in ("pytorch_model.bin", "tf_model.h5", "model_fp16.onnx"):
        (other / name).write_text(pointer)
    assert taken(other).task == "classification"


# Settings of sentence-transformers beside the file


def sentence_folder(folder, transformer=None, settings=None, output="hidden"):
    onnx_folder(folder, encoder_model(outputs=(output,)), head="Model")
    kinds = ["Transformer", "Pooling"]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "sentence_bert_config.json").write_text(json.dumps(transformer or {}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings or {}))
    return folder


def vectors(artifact, texts=TEXTS):
    return np.stack([row["sentence_embedding"] for row in artifact.predict(artifact.tokenize(texts))])


def test_cut_vectors(tmp_path):
    whole = vectors(taken(sentence_folder(tmp_path / "whole")))
    cut = taken(sentence_folder(tmp_path / "cut", settings={"truncate_dim": 3}))
    assert np.allclose(vectors(cut), whole[:, :3], atol=1e-6)
    assert any("first 3 numbers" in note for note in cut.card.details["notes"])
    assert cut.card.pooling == ("mean", False, 3)


def pooled(hidden, mode):
    """A row's token vectors (L, H), all of them tokens, by one mode."""
    weights = np.arange(1, len(hidden) + 1)[:, None]
    return {
        "cls": hidden[0],
        "max": hidden.max(axis=0),
        "mean": hidden.mean(axis=0),
        "mean_sqrt_len_tokens": hidden.sum(axis=0) / np.sqrt(len(hidden)),
        "weightedmean": (hidden * weights).sum(axis=0) / weights.sum(),
        "lasttoken": hidden[-1],
    }[mode]


def test_every_pooling_is_appended_alone_and_joined(tmp_path):
    names = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
    for modes in (*([name] for name in names), names[::-1]):
        folder = sentence_folder(tmp_path / "-".join(modes))
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": modes}))
        artifact = taken(folder)
        session = engine("onnxruntime").load(str(artifact.file), options={"outputs": ["last_hidden_state"]})
        wanted = []
        for row in artifact.tokenize(TEXTS):
            feeds = {name: np.asarray([row[name]]) for name in ("input_ids", "attention_mask")}
            hidden = session.run(feeds)["last_hidden_state"][0]
            wanted.append(np.concatenate([pooled(hidden, mode) for mode in modes]))
        assert np.allclose(vectors(artifact), wanted, atol=1e-5), modes


def test_vectors_that_the_file_gives_whole_and_the_settings_cut(tmp_path):
    folder = sentence_folder(tmp_path / "m", settings={"truncate_dim": 1})
    model = encoder_model(outputs=("logits",))
    model.graph.output[0].name = "sentence_embedding"
    next(node for node in model.graph.node if node.name == "head").output[0] = "sentence_embedding"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(
        UserError, match=r"has 2 numbers, and sentence-transformers truncates them to 1 \(`truncate_dim`"
    ):
        taken(folder)
    (folder / "config_sentence_transformers.json").write_text('{"truncate_dim": 2}')
    assert vectors(taken(folder)).shape == (3, 2)


def test_how_vectors_of_a_file_are_compared(tmp_path):
    named = taken(sentence_folder(tmp_path / "dot", settings={"similarity_fn_name": "dot"}))
    assert named.similarity == "dot"
    assert taken(sentence_folder(tmp_path / "plain")).similarity is None


def test_numbers_of_sparse_vectors_that_the_settings_cut(tmp_path):
    folder = sentence_folder(tmp_path / "m", settings={"model_type": "SparseEncoder", "max_active_dims": 1})
    model = encoder_model(outputs=("logits",))
    model.graph.output[0].name = "sentence_embedding"
    next(node for node in model.graph.node if node.name == "head").output[0] = "sentence_embedding"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"leaves 1 numbers of a vector \(`max_active_dims`"):
        taken(folder)


def test_a_default_prompt(tmp_path):
    plain = taken(sentence_folder(tmp_path / "plain"))
    settings = {"prompts": {"query": "see the "}, "default_prompt_name": "query"}
    prompted = taken(sentence_folder(tmp_path / "prompted", settings=settings))
    assert np.allclose(vectors(prompted), vectors(plain, [f"see the {text}" for text in TEXTS]), atol=1e-6)
    assert any("`see the `" in note for note in prompted.card.details["notes"])


def test_small_letters(tmp_path):
    wanted = vectors(taken(sentence_folder(tmp_path / "plain")))  # its tokenizer writes small letters itself
    found = {}
    for name, transformer in (("small", {"do_lower_case": True}), ("as they are", {})):
        folder = sentence_folder(tmp_path / name, transformer)
        about = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(about | {"normalizer": None}))
        found[name] = vectors(taken(folder))
    assert np.allclose(found["small"], wanted, atol=1e-6)
    assert not np.allclose(found["as they are"], wanted, atol=1e-3)


def test_modules_that_a_file_with_sentence_vectors_has_inside(tmp_path):
    folder = sentence_folder(tmp_path / "m")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text('{"in_features": 8, "out_features": 4}')
    with pytest.raises(UserError, match="have 1 more layers behind the pooling"):
        taken(folder)
    model = encoder_model(outputs=("logits",))
    model.graph.output[0].name = "sentence_embedding"
    next(node for node in model.graph.node if node.name == "head").output[0] = "sentence_embedding"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    assert vectors(taken(folder)).shape == (3, 2)


def test_a_cross_encoders_file(tmp_path):
    nodes, weights = encoder_parts(num_labels=1)
    folder = onnx_folder(tmp_path / "m", encoder_model(nodes, weights), id2label={"0": "LABEL_0"})
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    settings = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Sigmoid"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    card = taken(folder).card
    assert (card.task, card.activation, card.outputs) == ("regression", "sigmoid", ("logits",))
    assert any("sigmoid" in note for note in card.details["notes"])


# What is left


def test_what_is_left_in_the_folder_is_named(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    for name in (
        "config.json",
        "model.safetensors",
        "README.md",
        "training_args.bin",
        "modules.json",
        ".gitattributes",
    ):
        (tmp_path / name).write_text("")
    for name in ("1_Pooling", "onnx", "runs"):
        (tmp_path / name).mkdir()
    assert left_behind(tmp_path, is_sentence=True) == []
    (note,) = left_behind(tmp_path, is_sentence=False)
    assert "`1_Pooling`, `modules.json`" in note
    (tmp_path / "thresholds.json").write_text("{}")
    (note,) = left_behind(tmp_path, is_sentence=True)
    assert note.endswith(": `thresholds.json`")


def test_types_of_arrays(tmp_path):
    """int32 inputs are cast, the zeros as well."""
    folder = onnx_folder(tmp_path / "m", wants_types())
    model = onnx.load(folder / "model.onnx")
    for value in model.graph.input:
        value.type.tensor_type.elem_type = TensorProto.INT32
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    without_types(folder)
    artifact = taken(folder)
    assert artifact.predict(artifact.tokenize(TEXTS))


LAYERS = {
    "all activations": lambda of: [
        *(of.Dense(8, 8, activation_function=getattr(torch.nn, name)()) for name in ACTIVATIONS),
        of.Normalize(),
    ],
    "residual": lambda of: [of.Dense(8, 6, use_residual=True), of.LayerNorm(6), of.Normalize(), of.Dense(6, 6)],
    "no bias": lambda of: [of.Dense(8, 8, bias=False, use_residual=True), of.LayerNorm(8)],
}


@pytest.mark.parametrize("opset", [14, 21])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_whose_weights_are_beside_the_file(name, opset, tmp_path):
    """As sentence-transformers leaves `onnx/model.onnx`: the transformer in it, the other modules in their folders."""
    modules = LAYERS[name](pytest.importorskip("sentence_transformers.sentence_transformer.modules"))
    folder = sentence_folder(tmp_path / "m")
    model = encoder_model(outputs=("hidden",), opsets=(helper.make_opsetid("", opset),))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    features = {"sentence_embedding": torch.from_numpy(vectors(taken(folder)))}
    listed = json.loads((folder / "modules.json").read_text())
    for at, module in enumerate(modules, 2):
        kind = type(module).__name__
        place = f"{at}_{kind}"
        listed.append({"idx": at, "name": str(at), "path": place, "type": f"sentence_transformers.models.{kind}"})
        (folder / place).mkdir()
        module.save(str(folder / place))
        with torch.no_grad():
            features = module(features)
    (folder / "modules.json").write_text(json.dumps(listed))
    made = taken(folder)
    assert np.allclose(vectors(made), features["sentence_embedding"].numpy(), atol=1e-5)
    number = len(modules) - made.card.pooling[1]
    assert any(f"with the {number} layer(s) behind it" in note for note in made.card.details["notes"])


def test_a_vector_beside_token_vectors_is_told(tmp_path):
    folder = sentence_folder(tmp_path / "m")
    model = encoder_model(outputs=("hidden", "logits"))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    assert any("output `logits` is left out" in note for note in taken(folder).card.details["notes"])
