"""Starting from an ONNX file of another exporter: an artifact of it, and each known trap of their graphs."""

import contextlib
import json
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from bertshrink.command_scope import command_scope
from bertshrink.engines import engine
from bertshrink.engines.torch_session import pool
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.model.artifact import Artifact
from bertshrink.model.model_ref import ModelRef
from bertshrink.model.tasks import TASKS
from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import (
    array,
    bytes_by_type,
    initializers,
    operators,
    read_model,
    tensor,
    unstored_weights,
    weight_matmuls,
)
from bertshrink.recipe.from_command_line import recipe_of_command
from bertshrink.recipe.plan import make_plan
from bertshrink.sources import resolve
from bertshrink.sources.onnx_interface import with_interface
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.quantize import Quantize
from bertshrink.techniques.quantize.float_graph import read_float_graph, remove_nan_guards
from tests.support.onnx_files import WIDTH, encoder_model, encoder_parts, onnx_folder
from tests.support.tiny import sentences, tiny_encoder

ANY = -1.0
pytestmark = [pytest.mark.subprocess, pytest.mark.usefixtures("one_thread")]


def exported(encoder, path, *, outputs=None, **how):
    """A file as another exporter writes it: PyTorch's SDPA, as it comes."""
    outputs = outputs or list(TASKS[encoder.task].outputs)
    ids = torch.randint(5, 50, (2, 16))
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    given = {"input_ids": ids, "attention_mask": mask}
    if "token_type_ids" in encoder.tokenizer.model_input_names:
        given["token_type_ids"] = torch.zeros_like(ids)
    model = encoder.model.eval()
    model.config.return_dict = outputs != ["last_hidden_state"]
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("ignore")
        stack.enter_context(torch.no_grad())
        if how.get("dynamo"):
            open_axes = {name: dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC) for name in given}
            how |= {"kwargs": given, "dynamic_shapes": open_axes, "external_data": False, "verbose": False}
            torch.onnx.export(model, (), str(path), input_names=list(given), output_names=outputs, **how)
        else:
            axes = {name: {0: "b", 1: "l"} for name in (*given, *(outputs if "last" in outputs[0] else ()))}
            axes |= {name: {0: "b"} for name in outputs if name not in axes}
            how |= {"dynamic_axes": axes, "dynamo": False, "input_names": list(given), "output_names": outputs}
            torch.onnx.export(model, (given,), str(path), **({"opset_version": 17} | how))
    model.config.return_dict = True


def optimum_folder(encoder, folder, **how):
    """The encoder as optimum leaves it: `model.onnx`, config.json, tokenizer."""
    folder.mkdir(parents=True)
    encoder.save(folder)
    (folder / "model.safetensors").unlink()
    exported(encoder, folder / "model.onnx", **how)
    return folder


@pytest.fixture(scope="module")
def torchscript(tmp_path_factory):
    encoder = tiny_encoder("bert", num_hidden_layers=2)
    return encoder, optimum_folder(encoder, tmp_path_factory.mktemp("ts") / "m")


@pytest.fixture(scope="module")
def dynamo(tmp_path_factory):
    encoder = tiny_encoder("bert", num_hidden_layers=1)
    return encoder, optimum_folder(encoder, tmp_path_factory.mktemp("dynamo") / "m", dynamo=True)


def artifact_of(folder):
    return ModelRef.read(resolve.locate_model(str(folder)), source=str(folder)).load()


def largest_difference(first, second, rows):
    pairs = zip(first.predict(rows), second.predict(rows), strict=True)
    return max(float(np.abs(a[name] - b[name]).max()) for a, b in pairs for name in b)


def quantized(artifact, place, **settings):
    return Quantize(min_cosine=ANY, **settings)(artifact, Workbench(None, None, place))


# an artifact of it


def test_optimums_folder_is_an_artifact_with_everything_told(torchscript):
    encoder, folder = torchscript
    with command_scope():  # within one command a file is taken in once, by whichever of its names
        artifact = artifact_of(folder)
        assert artifact_of(folder / "model.onnx").folder == artifact.folder
    card = artifact.card
    assert (card.task, card.family, card.labels) == ("classification", "bert", ("negative", "positive"))
    assert (card.precision, card.max_length, card.vocab_size) == ("float32", 64, encoder.shape.vocab_size)
    assert (card.inputs, card.outputs) == (("input_ids", "attention_mask", "token_type_ids"), ("logits",))
    assert artifact.source == str(folder)
    assert artifact.file.read_bytes() == (folder / "model.onnx").read_bytes()
    assert largest_difference(artifact, encoder, encoder.tokenize(sentences(5))) < 1e-5


def test_our_own_file_without_its_card_tells_all_itself(tmp_path):
    encoder = tiny_encoder("distilbert", "embedding", num_hidden_layers=1)
    ours = Export()(encoder, Workbench(None, None, tmp_path))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "any.onnx").write_bytes(ours.file.read_bytes())
    encoder.tokenizer.save_pretrained(bare)
    card = artifact_of(bare / "any.onnx").card
    same = ("task", "family", "labels", "pooling", "max_length", "vocab_size", "inputs", "outputs", "precision")
    assert [name for name in same if getattr(card, name) != getattr(ours.card, name)] == []
    model = read_model(ours.file)
    next(entry for entry in model.metadata_props if entry.key == "labels").value = "["
    (bare / "any.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UnsafeModel, match="the file's metadata"):
        resolve.locate_model(str(bare / "any.onnx"))


def test_a_plan_starts_from_it(torchscript):
    _, folder = torchscript
    plan = make_plan(recipe_of_command("quantize", str(folder / "model.onnx"), {}, {}))
    assert [stage.name for stage in plan.stages] == ["01-quantize"]
    assert (plan.model.kind, plan.task) == ("artifact", "classification")


@pytest.mark.parametrize(("mode", "normalize"), [("mean", True), ("cls", True), ("max", False), ("mean", False)])
def test_token_vectors_are_pooled_as_the_folder_says(mode, normalize, tmp_path):
    from bertshrink.model.folder.pooling import Pooling

    encoder = tiny_encoder("distilbert", "embedding", num_hidden_layers=1)
    encoder.pooling = Pooling(mode, normalize)
    folder = optimum_folder(encoder, tmp_path / "m", outputs=["last_hidden_state"])
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    own = "sentence_transformers.models"
    modules = [{"type": f"{own}.{kind}", "path": f"{i}_{kind}" if i else ""} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": mode}))
    artifact = artifact_of(folder)
    assert artifact.card.pooling == (mode, normalize)
    assert artifact.card.outputs == ("last_hidden_state", "sentence_embedding")
    assert "was appended" in artifact.card.details["notes"][0]
    assert artifact.card.details["notes"][0] in make_plan(recipe_of_command("quantize", str(folder), {}, {})).notes
    assert largest_difference(artifact, encoder, encoder.tokenize(sentences(5))) < 1e-5


@pytest.mark.parametrize("opset", [11, 13, 18, 20])
@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_oracle_of_appended_pooling(mode, opset, tmp_path):
    hidden = helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["b", "l", 4])
    mask = helper.make_tensor_value_info("input_mask", TensorProto.INT32, ["b", "l"])
    nodes = [
        helper.make_node("Gather", ["table", "input_mask"], ["rows"]),
        helper.make_node("Mul", ["rows", "rows"], ["hidden"]),
    ]
    table = np.float32([[-1, 2, 0.5, -3], [2, -0.1, 0.3, 1]])
    graph = helper.make_graph(nodes, "g", [mask], [hidden], [tensor(table, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    found = with_interface(model, {"input_mask": "attention_mask"}, {"hidden": "last_hidden_state"}, (mode, True))
    onnx.checker.check_model(found)
    onnx.save(found, tmp_path / "m.onnx")
    feeds = np.array([[1, 1, 1], [1, 0, 0]])
    ours = engine("onnxruntime").load(str(tmp_path / "m.onnx")).run({"attention_mask": feeds})
    assert list(ours) == ["last_hidden_state", "sentence_embedding"]
    expected = pool(torch.from_numpy(table[feeds] ** 2), torch.from_numpy(feeds), mode, True)
    np.testing.assert_allclose(ours["sentence_embedding"], expected.numpy(), rtol=1e-5)
    np.testing.assert_array_equal(ours["last_hidden_state"], table[feeds] ** 2)


def test_names_types_and_further_outputs_of_others(tmp_path):
    nodes, weights = encoder_parts()
    nodes[0].input[1] = "input_ids"
    nodes[1].input[0] = "input_mask"
    nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"]))
    model = encoder_model(
        nodes, weights, inputs=("input_ids", "input_mask"), outputs=("probabilities", "logits"), kind=TensorProto.INT32
    )
    artifact = artifact_of(onnx_folder(tmp_path / "m", model))
    assert artifact.card.inputs == ("input_ids", "attention_mask")
    plain = artifact_of(onnx_folder(tmp_path / "plain"))
    rows = artifact.tokenize(sentences(3))
    rows = [{name: row[name] for name in artifact.card.inputs} for row in rows]
    assert [set(row) for row in artifact.predict(rows)] == [{"logits"}] * 3
    assert largest_difference(artifact, plain, rows) < 1e-6
    only = encoder_model(*renamed(nodes[:-1], "output_0"), inputs=("input_ids", "input_mask"), outputs=("output_0",))
    assert artifact_of(onnx_folder(tmp_path / "only", only)).card.outputs == ("logits",)


def renamed(nodes, name):
    """The parts with another name for the last output."""
    nodes[-1].output[0] = name
    return nodes, encoder_parts()[1]


def test_hidden_states_without_a_configuration_are_a_sentence_encoder(tmp_path):
    nodes, weights = encoder_parts()
    nodes = [*nodes[:-2], helper.make_node("Identity", ["hidden"], ["last_hidden_state"])]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["b", "l", WIDTH])
    model = encoder_model(nodes, weights)
    del model.graph.output[:]
    model.graph.output.append(output)
    card = artifact_of(onnx_folder(tmp_path / "m", model, config=False)).card
    assert (card.task, card.family, card.pooling, card.max_length) == ("embedding", "unknown", ("mean", True), 64)


@pytest.mark.parametrize(
    ("more", "match", "hint"),
    [
        ({"id2label": {str(i): str(i) for i in range(3)}}, "the last of 3", "id2label"),
        ({"head": "ForTokenClassification"}, "has the shape anyx2", "architectures"),
        ({"head": "ForQuestionAnswering"}, "gives `logits`", "output_names"),
        ({"id2label": {"0": "a"}}, "the last of 1", "config.json"),
        ({"problem_type": "nonsense"}, "problem_type: nonsense", "config.json"),
    ],
)
def test_what_cannot_be_told_is_asked_for(more, match, hint, tmp_path):
    folder = onnx_folder(tmp_path / "m", **more)
    with pytest.raises(UserError, match=match) as caught:
        resolve.locate_model(str(folder))
    assert hint in caught.value.hint
    assert caught.value.where


@pytest.mark.parametrize("shape", [[1, 16], [3, 8]])
def test_a_file_of_one_shape_is_run_and_quantized_at_that_shape(tmp_path, shape):
    folder = onnx_folder(tmp_path / "m", encoder_model(shape=shape))
    artifact, plain = artifact_of(folder), artifact_of(onnx_folder(tmp_path / "any"))
    assert (artifact.card.shape, artifact.max_length) == (tuple(shape), shape[1])
    rows = artifact.tokenize(["one", "two words", "a text that is much longer than sixteen words " * 3] * 2)
    for ours, theirs in zip(artifact.predict(rows), plain.predict(rows), strict=True):
        np.testing.assert_allclose(ours["logits"], theirs["logits"], rtol=1e-5, atol=1e-6)
    found = quantized(artifact, tmp_path / "q")
    assert found.card.shape == tuple(shape)
    assert operators(read_model(found.file))["MatMulInteger"] > 0


@pytest.mark.parametrize(("shape", "form"), [([2, "length"], (2, None)), (["batch", 16], (None, 16))])
def test_a_file_with_one_open_size_is_run_and_quantized_at_the_other(tmp_path, shape, form):
    folder = onnx_folder(tmp_path / "m", encoder_model(shape=shape))
    artifact, plain = artifact_of(folder), artifact_of(onnx_folder(tmp_path / "any"))
    assert (artifact.card.shape, artifact.max_length) == (form, form[1] or plain.max_length)
    rows = artifact.tokenize(["one", "two words", "a text that is longer than both of them"])
    for ours, theirs in zip(artifact.predict(rows), plain.predict(rows), strict=True):
        np.testing.assert_allclose(ours["logits"], theirs["logits"], rtol=1e-5, atol=1e-6)
    assert quantized(artifact, tmp_path / "q").card.shape == form


def test_a_tokenizer_of_another_model(tmp_path):
    folder = onnx_folder(tmp_path / "t")
    words = json.loads((folder / "tokenizer.json").read_text())
    words["model"]["vocab"]["another"] = 10_000
    (folder / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(UserError, match="it belongs to another model"):
        resolve.locate_model(str(folder))


def test_an_unknown_family_serves(tmp_path):
    card = artifact_of(onnx_folder(tmp_path / "m", family="mpnet")).card
    assert card.family == "mpnet"


# the traps


def check_quantized(encoder, folder, place, num_matmuls, num_attention_products):
    artifact = artifact_of(folder)
    found = quantized(artifact, place)
    kinds = operators(read_model(found.file))
    assert kinds["MatMulInteger"] == num_matmuls
    assert kinds.get("MatMul", 0) == num_attention_products
    rows = encoder.tokenize(sentences(8))
    ours, theirs = (np.concatenate([row["logits"] for row in m.predict(rows)]) for m in (found, encoder))
    assert np.linalg.norm(ours - theirs) < 0.4 * np.linalg.norm(theirs)
    return read_model(found.file)


def test_torchscript_with_guards(torchscript, tmp_path):
    encoder, folder = torchscript
    assert operators(read_model(folder / "model.onnx"))["IsNaN"] == 2
    model = check_quantized(encoder, folder, tmp_path, 14, 4)
    assert "IsNaN" not in operators(model)


def test_dynamo_with_stale_shape_notes_and_gemm(dynamo, tmp_path):
    encoder, folder = dynamo
    given = read_model(folder / "model.onnx")
    assert {value.name for value in given.graph.value_info} & set(initializers(given))
    model = check_quantized(encoder, folder, tmp_path, 8, 2)
    assert not model.graph.value_info
    assert not {"IsNaN", "Gemm"} & set(operators(model))


@pytest.mark.slow
def test_opset_23_keeps_its_native_attention(tmp_path):
    encoder = tiny_encoder("bert", num_hidden_layers=1)
    folder = optimum_folder(encoder, tmp_path / "m", dynamo=True, opset_version=23)
    model = check_quantized(encoder, folder, tmp_path, 8, 0)
    attention = [node for node in model.graph.node if node.op_type == "Attention"]
    assert [node.domain for node in attention] == [""]


def test_embedding_tables_have_a_scale_a_row(torchscript, tmp_path):
    encoder, folder = torchscript
    model = read_model(quantized(artifact_of(folder), tmp_path).file)
    name = next(name for name in initializers(model) if "word_embeddings" in name and name.endswith("scale"))
    assert list(initializers(model)[name].dims) == [encoder.shape.vocab_size, 1]


def shared_graph(how, num_layers=12):
    """Layers that share one weight, left as exporters leave it."""
    nodes, weights = encoder_parts()
    layers, last = [], "rows"
    for i in range(num_layers):
        dressed = "weight"
        if how == "duplicated":
            dressed = f"weight_{i}"
            weights[dressed] = weights["weight"].T.copy()
        elif how != "plain":
            dressed = f"weight_{i}"
            more = {"perm": [1, 0]} if how == "Transpose" else {"to": TensorProto.FLOAT} if how == "Cast" else {}
            layers.append(helper.make_node(how, ["weight"], [dressed], **more))
        layers.append(helper.make_node("MatMul", [last, dressed], [f"y{i}"], f"layer{i}"))
        layers.append(helper.make_node("Tanh", [f"y{i}"], [f"t{i}"]))
        last = f"t{i}"
    if how == "Cast":
        weights["weight"] = weights["weight"].astype(np.float16)
    nodes[3:5] = [*layers, helper.make_node("Identity", [last], ["bent"])]
    if how == "duplicated":
        del weights["weight"]
    return encoder_model(nodes, weights)


@pytest.mark.parametrize("how", ["plain", "Transpose", "Identity", "Cast", "duplicated"])
def test_shared_weights_are_one_and_quantized_however_they_are_dressed(how, tmp_path):
    folder = onnx_folder(tmp_path / "m", shared_graph(how))
    artifact = artifact_of(folder)
    start = read_float_graph(artifact.file, artifact.max_length)
    assert len(weight_matmuls(start)) == 13
    assert len({found.weight for found in weight_matmuls(start)}) == 2
    found = quantized(artifact, tmp_path)
    assert operators(read_model(found.file))["MatMulInteger"] == 13
    assert bytes_by_type(read_model(found.file))["int8"] == 146 * 8 + 8 * 8 + 2 * 8


def test_weights_in_other_forms_are_counted_and_named(tmp_path):
    nodes, weights = encoder_parts()
    weights |= {"wide": np.ones((1, 8), np.float32), "size": np.array([8, 8]), "alpha": weights["weight"]}
    nodes[3:5] = [
        helper.make_node("Pad", ["weight", "none"], ["padded"]),
        helper.make_node("MatMul", ["rows", "padded"], ["dense"], "padded_layer"),
        helper.make_node("Einsum", ["dense", "weight"], ["more"], "einsum_layer", equation="bli,io->blo"),
        helper.make_node("Tanh", ["more"], ["bent"]),
    ]
    weights["none"] = np.zeros(4, np.int64)
    nodes[-1].attribute.append(helper.make_attribute("alpha", 2.0))
    model = canonicalise(encoder_model(nodes, weights))
    assert [node.name for node in unstored_weights(model)] == ["padded_layer", "einsum_layer", "head"]
    folder = onnx_folder(tmp_path / "m", encoder_model(nodes, weights))
    with pytest.raises(UnsafeModel, match=r"3 dense layer.*`padded_layer` \(MatMul\), `einsum_layer` \(Einsum\)"):
        quantized(artifact_of(folder), tmp_path)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_weights_that_are_only_stored_in_half_the_bytes_are_quantized(precision, tmp_path):
    encoder = tiny_encoder("bert", num_hidden_layers=1)
    artifact = Export(precision=precision)(encoder, Workbench(None, None, tmp_path / "half"))
    found = quantized(artifact, tmp_path / "int8")
    assert largest_difference(found, artifact, encoder.tokenize(sentences(3))) < 0.2


def test_branches_are_not_rewritten_and_half_precision_is_widened(tmp_path):
    nodes, weights = encoder_parts()
    out = helper.make_tensor_value_info("bent", TensorProto.FLOAT, ["b", "l", 8])
    sides = [helper.make_graph([helper.make_node(k, ["dense"], ["bent"])], "g", [], [out]) for k in ("Tanh", "Relu")]
    nodes[4] = helper.make_node("If", ["flag"], ["bent"], then_branch=sides[0], else_branch=sides[1])
    artifact = artifact_of(onnx_folder(tmp_path / "m", encoder_model(nodes, weights | {"flag": np.array(True)})))
    assert len(artifact.predict(artifact.tokenize(["a good movie"]))) == 1
    with pytest.raises(UnsafeModel, match="the graph branches"):
        quantized(artifact, tmp_path)
    nodes, weights = encoder_parts()
    halves = {name: v.astype(np.float16) if v.dtype == np.float32 else v for name, v in weights.items()}
    nodes[1].attribute[0].i = TensorProto.FLOAT16
    nodes[-1].output[0] = "half"
    nodes.append(helper.make_node("Cast", ["half"], ["logits"], to=TensorProto.FLOAT))
    artifact = artifact_of(onnx_folder(tmp_path / "h", encoder_model(nodes, halves)))
    assert artifact.card.precision == "float16"
    wide = read_float_graph(artifact.file, artifact.max_length)
    assert {str(array(one).dtype) for one in wide.graph.initializer} == {"float32", "int64"}
    assert quantized(artifact, tmp_path / "q").card.precision == "int8"
    doubles = {name: v.astype(np.float64) if v.dtype == np.float32 else v for name, v in weights.items()}
    nodes[1].attribute[0].i = TensorProto.DOUBLE
    artifact = artifact_of(onnx_folder(tmp_path / "d", encoder_model(nodes, doubles)))
    with pytest.raises(UnsafeModel, match="computes in double"):
        quantized(artifact, tmp_path)


# guards


def guarded(mask_of="keys", rows=None):
    """Attention with a guard; the mask hides padded keys, and maybe the padded queries' whole rows, or a window."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("Cast", ["attention_mask"], ["is_token"], to=TensorProto.BOOL),
        helper.make_node("Unsqueeze", ["is_token", "one"], ["keys"]),
        helper.make_node("Unsqueeze", ["is_token", "two"], ["queries"]),
        helper.make_node("And", ["keys", "queries"], ["both"]),
        helper.make_node("Shape", ["attention_mask"], ["size"]),
        helper.make_node("Gather", ["size", "second"], ["length"]),
        helper.make_node("Range", ["zero", "length", "step"], ["at"]),
        helper.make_node("Unsqueeze", ["at", "one"], ["at_column"]),
        helper.make_node("Sub", ["at", "at_column"], ["distance"]),
        helper.make_node("Abs", ["distance"], ["far"]),
        helper.make_node("Less", ["far", "near"], ["near_by"]),
        helper.make_node("And", ["keys", "near_by"], ["window"]),
        helper.make_node("Where", [mask_of, "nothing", "lowest"], ["bias"]),
        helper.make_node("MatMul", ["x", "w"], ["q"], "query"),
        helper.make_node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Add", ["scores", "bias"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["p"], axis=-1),
        helper.make_node("IsNaN", ["p"], ["is_nan"]),
        helper.make_node("Where", ["is_nan", "nothing", "p"], ["safe"]),
        helper.make_node("MatMul", ["safe", "x"], ["logits"]),
    ]
    rng = np.random.default_rng(0)
    weights = {
        "table": rng.normal(size=(146, 8)).astype(np.float32),
        "w": rng.normal(size=(8, 8)).astype(np.float32),
        "nothing": np.float32(0),
        "lowest": np.float32(-np.inf),
        "near": np.array(20),
        **{"one": np.array([1]), "two": np.array([2]), "second": np.array(1), "zero": np.array(0), "step": np.array(1)},
    }
    model = encoder_model(nodes, weights)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", "l", 8]))
    return canonicalise(model)


def session_of(model, place):
    onnx.checker.check_model(model)
    onnx.save(model, place)
    return engine("onnxruntime").load(str(place))


def test_a_guard_that_never_acts_goes_and_the_numbers_stay(tmp_path):
    model = guarded()
    found = remove_nan_guards(model, 64)
    assert not {"IsNaN"} & set(operators(found))
    before, after = session_of(model, tmp_path / "a.onnx"), session_of(found, tmp_path / "b.onnx")
    rng = np.random.default_rng(1)
    for batch, length in ((1, 1), (3, 7), (4, 64)):
        mask = (np.arange(length)[None] < rng.integers(1, length + 1, size=(batch, 1))).astype(np.int64)
        mask[0, 1:] = 0
        feeds = {"input_ids": rng.integers(0, 146, size=mask.shape), "attention_mask": mask}
        assert np.array_equal(before.run(feeds)["logits"], after.run(feeds)["logits"])


@pytest.mark.parametrize("mask_of", ["both", "window"])
def test_a_guard_that_acts_stays(mask_of):
    model = guarded(mask_of)
    assert remove_nan_guards(model, 64) is model
    assert "IsNaN" in operators(model)


def test_a_guard_of_very_long_inputs_stays():
    model = guarded()
    assert remove_nan_guards(model, 8192) is model


def test_other_wheres_stay():
    model = guarded()
    where = next(node for node in model.graph.node if node.op_type == "Where" and node.input[2] == "p")
    where.input[1] = "lowest"
    assert remove_nan_guards(model, 64) is model
    assert array(initializers(model)["lowest"]) == -np.inf


def test_artifact_load_names_the_folder_by_default(tmp_path):
    folder = resolve.locate_model(str(onnx_folder(tmp_path / "m")))
    assert Artifact.load(folder).source == str(folder)
