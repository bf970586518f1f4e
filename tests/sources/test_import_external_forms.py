"""ONNX files as others write them, each through `inspect`, `bench`, `gate` and `quantize`."""

import json

import numpy as np
import onnx
import pytest

from bertshrink.cli.inspect import facts_of
from bertshrink.command_scope import command_scope
from bertshrink.engines import engine
from bertshrink.errors import UnsafeModel, UserError, UserErrors
from bertshrink.files.headers import read_onnx
from bertshrink.gates.figures import file_metrics
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.latency.measure import job_of
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.model.artifact import Artifact
from bertshrink.recipe.from_command_line import recipe_of_bench, recipe_of_command
from bertshrink.recipe.plan import make_plan
from bertshrink.sources import external_card, probe_child, probe_process, resolve
from bertshrink.sources import import_external as external
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.quantize import Quantize
from bertshrink.worker.inputs import feeds_of
from tests.support.foreign_onnx import FORMS, POSITIONS, extra_outputs, open_shape, positions_and_types
from tests.support.model_folders import model_folder
from tests.support.onnx_files import ROWS, encoder_model, files_of, hub_cache, onnx_folder, outside
from tests.support.tiny import tiny_encoder, tiny_tokenizer

TEXTS = ["the film is good", "a book", "we see no way out of it"]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch, capsys):
    """The same looks without a child's start; `test_onnx_checks` has the child itself."""
    monkeypatch.setattr(probe_child, "limit", lambda num_bytes: None)
    monkeypatch.setattr(
        external, "probe_in_subprocess", lambda *paths: probe_process.ProbeResult.read(probe_child.look(*paths))
    )
    monkeypatch.setattr(
        external_card, "longest_in_subprocess", lambda file, where: probe_child.look_for_length(file)["longest"]
    )
    monkeypatch.setattr(probe_process, "read_header_in_subprocess", read_onnx)
    monkeypatch.setitem(file_metrics._READERS, ".onnx", read_onnx)


def folder_of(form, folder, **more):
    about = {"head": form.head, "id2label": {str(i): f"L{i}" for i in range(3)}, "max_position_embeddings": POSITIONS}
    return onnx_folder(folder, form.make().model(), **(about | more))


def answer(form, path, row):
    """What ONNX Runtime itself gives for one text, the file's size kept."""
    model = onnx.load(path)
    length = (form.shape or (None, None))[1]
    num_tokens = len(row["input_ids"])
    pad = (0, (length or num_tokens) - num_tokens)
    ids, mask = (np.pad(np.array([row[name]]), ((0, 0), pad)) for name in ("input_ids", "attention_mask"))
    known = {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(ids),
        "position_ids": np.arange(ids.shape[1])[None],
    }
    options = engine("onnxruntime")
    copy = path.with_name("truth.onnx")
    onnx.save(open_shape(model), copy)
    session = options.load(str(copy))
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    feeds = {name: known[name].astype(onnx.helper.tensor_dtype_to_np_dtype(kind)) for name, kind in kinds.items()}
    found = session.run(feeds)[form.source][0].astype(np.float32)
    copy.unlink()
    if form.is_vectors:
        mean = found[:num_tokens].sum(0) / num_tokens
        return mean / np.linalg.norm(mean)
    return found


@pytest.mark.parametrize("name", FORMS)
def test_a_form_answers_as_it_does_itself_and_is_quantized_or_refused_by_name(name, tmp_path):
    form = FORMS[name]
    folder = folder_of(form, tmp_path / "m")
    artifact = Artifact.load(external.import_external(folder / "model.onnx"))
    card = artifact.card
    assert (card.vocab_size, card.precision, card.shape) == (ROWS, form.precision, form.shape)
    assert card.task == ("embedding" if form.head == "Model" else "classification") and card.is_task_known
    rows = artifact.tokenize(TEXTS)
    (output,) = artifact.options["outputs"]
    for row, beside in zip(rows, artifact.predict(rows), strict=True):
        (alone,) = artifact.predict([row])
        assert alone[output].dtype == np.float32
        np.testing.assert_allclose(alone[output], answer(form, folder / "model.onnx", row), rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(alone[output], beside[output], atol=0.05)  # whole batches have one scale
    work = Workbench(None, None, tmp_path / "work", task=artifact.task)
    if form.refusal is not None:
        with pytest.raises(UnsafeModel, match=form.refusal) as caught:
            Quantize(min_cosine=0.5)(artifact, work)
        assert "float32" in caught.value.hint
        return
    made = Quantize(min_cosine=0.9)(artifact, work)
    assert made.card.shape == form.shape
    assert made.file.stat().st_size < 0.7 * artifact.file.stat().st_size
    assert made.predict(rows)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_without_tokenizer_is_inspected_gated_and_runs_as_bench_runs_it(name, tmp_path, monkeypatch):
    form = FORMS[name]
    folder = folder_of(form, tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    with command_scope():  # so that the file is looked at once
        facts = facts_of(str(folder / "model.onnx"), "auto")
        model = resolve.fetch_weights(resolve.find_model(str(folder / "model.onnx")))
    assert facts["shape"]["vocabulary"] == ROWS and facts["num_bytes"] and facts["operators"]
    readings = {key.metric: one for key, one in file_metrics.look_at(folder / "model.onnx", "x").readings().items()}
    assert readings["size"].value == (folder / "model.onnx").stat().st_size
    assert readings["parameters"].value >= ROWS * 32
    launch = launch_of(model.load(), model.folder)
    batch, length = form.shape or (None, None)
    settings = LatencySettings(batch=(batch or 3,), length=(length or 9,))
    job = job_of(launch, settings, 1)
    (feeds,) = feeds_of(job, job.cases[0])
    outputs = engine(launch.engine).load(str(launch.path), 1, launch.options).run(feeds)
    assert all(len(value) == (batch or 3) and np.isfinite(value).all() for value in outputs.values())


# What cannot be known


def test_positions_are_counted_as_the_family_counts_them(tmp_path):
    form = FORMS["positions and types"]
    pad = 1
    folder = folder_of(form, tmp_path / "m", family="roberta", pad_token_id=pad, max_position_embeddings=POSITIONS)
    artifact = Artifact.load(external.import_external(folder / "model.onnx"))
    assert artifact.card.inputs == ("input_ids", "attention_mask", "token_type_ids")
    ids = np.array([[5, 6, 7], [8, pad, pad]])
    mask = np.array([[1, 1, 1], [1, 0, 0]])
    found = artifact.session().run({"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0})["logits"]
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
    plain = engine("onnxruntime").load(str(folder / "model.onnx"))
    wanted = plain.run(feeds | {"position_ids": np.array([[2, 3, 4], [2, 1, 1]])})["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("more", "match"),
    [({"family": "new_one"}, "how the family `new_one` counts"), ({"config": False}, "nothing says its family")],
)
def test_positions_of_a_family_that_is_not_known_are_refused_by_name(more, match, tmp_path):
    labels = {str(i): f"L{i}" for i in range(3)}
    folder = onnx_folder(tmp_path / "m", positions_and_types().model(), id2label=labels, **more)
    with pytest.raises(UserError, match=f"takes `position_ids`, and {match}") as caught:
        external.import_external(folder / "model.onnx")
    assert "config.json" in caught.value.hint


def test_several_token_vectors_of_which_none_is_the_last_are_refused(tmp_path):
    parts = extra_outputs()
    parts.outputs = {name: kind for name, kind in parts.outputs.items() if name != "hidden_states.2"}
    parts.nodes.append(parts.nodes[3].__class__(op_type="Relu", input=["rows"], output=["hidden_states.3"]))
    parts.outputs["hidden_states.3"] = 1
    folder = onnx_folder(tmp_path / "m", parts.model(), head="Model")
    with pytest.raises(UserError, match=r"several of the file's outputs are vectors of tokens: `hidden_states\.0`"):
        external.import_external(folder / "model.onnx")


def test_a_bare_file_is_measured_and_what_texts_need_is_asked_for(tmp_path):
    """Neither tokenizer nor config.json: sizes and times need neither, quantize and quality say what they need."""
    folder = onnx_folder(tmp_path / "m", FORMS["pooled"].make().model(), config=False)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    name = str(folder / "model.onnx")
    plan = make_plan(recipe_of_bench([name], {"measure": {"latency": {"rounds": 1}}}))
    assert (plan.task, plan.about.is_task_known, plan.about.max_length) == ("embedding", False, 512)
    assert any("`--task` names it" in note for note in plan.notes)
    (tmp_path / "texts.txt").write_text("a text\nanother\n")
    with pytest.raises(UserErrors) as caught:
        make_plan(recipe_of_command("quantize", name, {}, {}))
    assert "no tokenizer" in str(caught.value) and "which task" in str(caught.value)
    with pytest.raises(UserError, match="no tokenizer beside the model file"):
        latency = {"texts": str(tmp_path / "texts.txt"), "rounds": 1}
        make_plan(recipe_of_bench([name], {"measure": {"latency": latency}}))
    with pytest.raises(UserError, match="no tokenizer beside the model file"):
        make_plan(recipe_of_command("quantize", name, {}, {"task": "embedding"}))


@pytest.mark.parametrize(("task", "labels"), [("classification", ("LABEL_0", "LABEL_1")), ("multi-label", 2)])
def test_a_task_that_only_the_user_knows(task, labels, tmp_path):
    folder = onnx_folder(tmp_path / "m", config=False)
    card = resolve.find_model(str(folder), task=task).about
    assert (card.task, card.is_task_known, len(card.labels)) == (task, True, 2)
    guessed = resolve.find_model(str(folder)).about
    assert (guessed.task, guessed.is_task_known) == ("classification", False)
    with pytest.raises(UserError, match="nothing says which task"):
        make_plan(recipe_of_command("quantize", str(folder), {}, {}))


def test_the_longest_input_is_tried_where_nothing_tells_it(tmp_path):
    form = FORMS["positions and types"]
    parts = form.make()
    at = [one.input[1] if len(one.input) > 1 else "" for one in parts.nodes].index("position_ids")
    parts.nodes[at].input[1] = "row"  # counted inside, by a slice of the table's own numbers
    parts.nodes[:0] = [
        parts.nodes[0].__class__(op_type="Shape", input=["input_ids"], output=["size"]),
        parts.nodes[0].__class__(op_type="Gather", input=["size", "one"], output=["number"]),
        parts.nodes[0].__class__(op_type="Range", input=["zero", "number", "one"], output=["row"]),
    ]
    parts.weights |= {"zero": np.array(0), "one": np.array(1)}
    del parts.inputs["position_ids"]
    folder = onnx_folder(tmp_path / "m", parts.model(), config=False)
    about = json.loads((folder / "tokenizer_config.json").read_text())
    about.pop("model_max_length", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    card = resolve.find_model(str(folder)).about
    assert card.max_length == POSITIONS
    assert any(f"{POSITIONS} tokens is the most" in note for note in card.details["notes"])


def test_a_mask_that_the_file_does_not_read_is_noted(tmp_path):
    parts = FORMS["pooled"].make()
    parts.nodes = [one for one in parts.nodes if one.output[0] not in ("mask", "mask_BL1")]
    next(one for one in parts.nodes if one.output[0] == "hidden").CopyFrom(
        onnx.helper.make_node("Identity", ["bent"], ["hidden"])
    )
    folder = onnx_folder(tmp_path / "m", parts.model(), head="Model")
    assert any("does not read its mask" in note for note in resolve.find_model(str(folder)).about.details["notes"])
    other = folder_of(FORMS["pooled"], tmp_path / "other")
    assert not resolve.find_model(str(other)).about.details["notes"]


# Folders


def test_several_files_in_a_folder_are_listed_and_the_named_one_is_taken(tmp_path):
    folder = onnx_folder(tmp_path / "m")
    data = (folder / "model.onnx").read_bytes()
    (folder / "model_quantized.onnx").write_bytes(data)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model_O3.onnx").write_bytes(data)
    listed = "`model.onnx`, `model_quantized.onnx`, `onnx/model_O3.onnx`"
    with pytest.raises(UserError, match=f"holds several model files: {listed}") as caught:
        resolve.find_model(str(folder))
    assert str(folder / "model.onnx") in caught.value.hint
    with pytest.raises(UserError, match="holds several model files"):
        file_metrics.look_at(folder, "x")
    found = resolve.find_model(str(folder / "onnx" / "model_O3.onnx"))
    assert found.about.task == "classification" and found.about.vocab_size == ROWS
    for name in ("model.onnx", "model_quantized.onnx"):
        (folder / name).unlink()
    assert resolve.find_model(str(folder)).about.vocab_size == ROWS, "one alone stands for its folder"
    assert file_metrics.look_at(folder, "x").file == folder / "onnx" / "model_O3.onnx"


@pytest.mark.parametrize("location", ["model.onnx.data", "model.onnx_data", "encoder.layer.0.weight", "Data 1:x"])
def test_weights_in_a_file_of_any_name(location, tmp_path):
    model, data = outside(encoder_model(), location)
    folder = onnx_folder(tmp_path / "m", model)
    (folder / location).write_bytes(data)
    artifact = Artifact.load(external.import_external(folder / "model.onnx"))
    assert artifact.predict(artifact.tokenize(TEXTS))
    assert file_metrics.look_at(folder, "x").num_bytes == (folder / "model.onnx").stat().st_size + len(data)


def test_a_hub_cache_is_read_through_its_own_links_only(tmp_path):
    model, data = outside(encoder_model(), "model.onnx_data")
    given = onnx_folder(tmp_path / "given", model)
    (given / "model.onnx_data").write_bytes(data)
    snapshot = hub_cache(tmp_path / "hub", files_of(given))
    repository = snapshot.parent.parent
    for place in (repository, snapshot, snapshot / "model.onnx"):
        assert resolve.find_model(str(place)).about.vocab_size == ROWS
    whole = (snapshot / "model.onnx").stat().st_size + len(data)
    assert file_metrics.look_at(snapshot, "x").num_bytes == file_metrics.look_at(given, "x").num_bytes == whole
    link = snapshot / "model.onnx_data"
    (tmp_path / "elsewhere").write_bytes(data)
    for target in (tmp_path / "elsewhere", "../../../other/blobs/" + "0" * 64, "../../blobs/../../../elsewhere"):
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(UnsafeModel, match="only links of a hub cache to its own blobs"):
            resolve.find_model(str(snapshot))
        with pytest.raises(UnsafeModel, match="only links of a hub cache to its own blobs"):
            file_metrics.look_at(snapshot, "x")


def test_a_hub_cache_of_several_snapshots(tmp_path):
    snapshot = hub_cache(tmp_path / "hub", files_of(onnx_folder(tmp_path / "given")))
    (snapshot.parent / "other").mkdir()
    repository = snapshot.parent.parent
    with pytest.raises(UserError, match="holds the snapshots `abc123`, `other`"):
        resolve.find_model(str(repository))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    assert resolve.find_model(str(repository)).about.vocab_size == ROWS
    (repository / "refs" / "main").write_text("../../given")
    with pytest.raises(UserError, match="holds the snapshots"):
        resolve.find_model(str(repository))


# Bad files in these forms


def test_int8_tables_of_hostile_shapes(tmp_path):
    model = FORMS["int8 by hand"].make().model()
    for rows in (2**60, ROWS + 1, ROWS - 1):
        table = next(one for one in model.graph.initializer if one.name == "table")
        table.dims[0] = rows
        folder = onnx_folder(tmp_path / str(rows), model)
        with pytest.raises(UnsafeModel, match="a size that does not match its type and shape"):
            external.import_external(folder / "model.onnx")


@pytest.mark.parametrize("location", ["../x", "/etc/hostname", "blobs/x"])
def test_weights_of_a_table_elsewhere(location, tmp_path):
    model, data = outside(FORMS["int8 by hand"].make().model(), location)
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UnsafeModel, match="is not a file beside it"):
        external.import_external(onnx_folder(tmp_path / "m", model) / "model.onnx")


def test_inputs_that_are_no_numbers_or_no_rows_of_tokens(tmp_path):
    parts = FORMS["pooled"].make()
    parts.inputs = {"input_ids": onnx.TensorProto.INT64, "attention_mask": onnx.TensorProto.STRING}
    with pytest.raises(UnsafeModel, match="`attention_mask` does not take numbers"):
        external.import_external(onnx_folder(tmp_path / "s", parts.model()) / "model.onnx")
    parts = FORMS["pooled"].make()
    parts.shape = ("batch", "length", 1)
    with pytest.raises(UnsafeModel, match="the input `input_ids` has 3 axes"):
        external.import_external(onnx_folder(tmp_path / "a", parts.model()) / "model.onnx")


def test_outputs_that_ignore_the_batch_are_not_taken_for_rows(tmp_path):
    parts = FORMS["pooled"].make()
    parts.nodes[-1].output[0] = "own"
    parts.nodes.append(parts.nodes[0].__class__(op_type="Slice", input=["own", "zero", "one"], output=["vector"]))
    parts.weights |= {"zero": np.array([0]), "one": np.array([1])}
    folder = onnx_folder(tmp_path / "m", parts.model(), head="Model")
    with pytest.raises(UserError, match="`vector`"):
        external.import_external(folder / "model.onnx")


# transformers.exporters


def exported_folder(folder, parts, architecture):
    """The folder of `ExportedModel.save_pretrained`: weights beside the graph, a manifest, no tokenizer, no class."""
    folder.mkdir()
    onnx.save(
        parts.model(),
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    model_folder(folder, architectures=None, id2label={str(i): f"L{i}" for i in range(3)}, vocab_size=ROWS)
    component = {"file": "model.onnx", "metadata": {"architecture": architecture, "export_dtype": "float32"}}
    manifest = {"schema_version": 1, "export_format": "onnx", "components": {"model": component}}
    (folder / "export.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("name", "architecture", "task"),
    [
        ("another order", "BertForSequenceClassification", "classification"),
        ("extra outputs", "BertModel", "embedding"),
    ],
)
def test_a_folder_of_transformers_exporters(name, architecture, task, tmp_path):
    folder = exported_folder(tmp_path / "m", FORMS[name].make(), architecture)
    card = resolve.find_model(str(folder)).about
    assert (card.task, card.is_task_known, card.vocab_size) == (task, True, ROWS)
    num_bytes = sum((folder / one).stat().st_size for one in ("model.onnx", "model.onnx.data"))
    assert file_metrics.look_at(folder, "x").num_bytes == num_bytes
    with pytest.raises(UserError, match="no tokenizer beside the model file"):
        make_plan(recipe_of_command("quantize", str(folder), {}, {}))
    tiny_tokenizer().save_pretrained(folder)
    artifact = Artifact.load(external.import_external(folder / "model.onnx"))
    made = Quantize(min_cosine=0.9)(artifact, Workbench(None, None, tmp_path / "work", task=task))
    assert made.card.precision == "int8"
    for manifest in ('{"components": []}', '{"components": {"model": 3}}', '{"components": {"model": {"file": "o"}}}'):
        (folder / "export.json").write_text(manifest)
        assert not resolve.find_model(str(folder)).about.is_task_known


@pytest.mark.matrix
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_dynamic", [True, False])
def test_what_transformers_exporters_really_write(is_dynamic, tmp_path):
    import torch
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    encoder = tiny_encoder("bert", "embedding", num_hidden_layers=2)
    ids = torch.ones(2, 16, dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": ids.clone(), "token_type_ids": 0 * ids}
    asked = {"output_hidden_states": True, "output_attentions": True}
    encoder.model.set_attn_implementation("eager")
    folder = tmp_path / "m"
    OnnxExporter().export(encoder.model, inputs | asked, OnnxConfig(dynamic=is_dynamic)).save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("config.json", "export.json", "model.onnx", "model.onnx.data"),
    ]
    assert file_metrics.look_at(folder, "x").num_bytes > (folder / "model.onnx.data").stat().st_size
    about = resolve.find_model(str(folder)).about
    assert (about.task, about.is_task_known, about.shape) == ("embedding", True, None if is_dynamic else (2, 16))
    encoder.tokenizer.save_pretrained(folder)
    artifact = Artifact.load(external.import_external(folder / "model.onnx"))
    rows = encoder.tokenize(TEXTS)
    for ours, theirs in zip(artifact.predict(rows), encoder.predict(rows), strict=True):
        np.testing.assert_allclose(ours["sentence_embedding"], theirs["sentence_embedding"], atol=1e-5)
    made = Quantize(min_cosine=0.9)(artifact, Workbench(None, None, tmp_path / "work", task=artifact.task))
    assert made.predict(rows)
