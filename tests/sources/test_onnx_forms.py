"""ONNX files as others write them, each through `inspect`, `bench`, `gate` and `quantize`."""

import numpy as np
import onnx
import pytest

from bertshrink.cli.inspect import facts_of
from bertshrink.engines import engine
from bertshrink.errors import UnsafeModel
from bertshrink.files.headers import read_onnx
from bertshrink.gates.figures import file_metrics
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.latency.measure import job_of
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.model.artifact import Artifact
from bertshrink.sources import external_card, probe_child, probe_process, resolve
from bertshrink.sources import import_external as external
from bertshrink.techniques.quantize import Quantize
from bertshrink.worker.inputs import feeds_of
from tests.support.foreign_onnx import FORMS, POSITIONS, open_shape
from tests.support.onnx_files import ROWS, onnx_folder
from tests.support.tiny import Workbench

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
def test_a_form_is_taken_in_and_answers_as_it_does_itself(name, tmp_path):
    form = FORMS[name]
    folder = folder_of(form, tmp_path / "m")
    artifact = Artifact.load(external.import_external(folder / "model.onnx"))
    card = artifact.card
    assert (card.vocab_size, card.precision, card.shape) == (ROWS, form.precision, form.shape)
    assert card.task == ("embedding" if form.head == "Model" else "classification") and card.is_task_known
    rows = artifact.tokenize(TEXTS)
    (output,) = artifact.options["outputs"]
    together = artifact.predict(rows)
    for row, beside in zip(rows, together, strict=True):
        (alone,) = artifact.predict([row])
        assert alone[output].dtype == np.float32
        np.testing.assert_allclose(alone[output], answer(form, folder / "model.onnx", row), rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(alone[output], beside[output], atol=0.05)  # whole batches have one scale


@pytest.mark.parametrize("name", FORMS)
def test_a_form_without_tokenizer_is_inspected_gated_and_runs_as_bench_runs_it(name, tmp_path, monkeypatch):
    form = FORMS[name]
    folder = folder_of(form, tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    facts = facts_of(str(folder / "model.onnx"), "auto")
    assert facts["shape"]["vocabulary"] == ROWS and facts["num_bytes"] and facts["operators"]
    readings = {key.metric: one for key, one in file_metrics.look_at(folder / "model.onnx", "x").readings().items()}
    assert readings["size"].value == (folder / "model.onnx").stat().st_size
    assert readings["parameters"].value >= ROWS * 32
    model = resolve.fetch_weights(resolve.find_model(str(folder / "model.onnx")))
    launch = launch_of(model.load(), model.folder)
    batch, length = form.shape or (None, None)
    settings = LatencySettings(batch=(batch or 3,), length=(length or 9,))
    job = job_of(launch, settings, 1)
    (feeds,) = feeds_of(job, job.cases[0])
    outputs = engine(launch.engine).load(str(launch.path), 1, launch.options).run(feeds)
    assert all(len(value) == (batch or 3) and np.isfinite(value).all() for value in outputs.values())


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_quantized_or_refused_by_name(name, tmp_path):
    form = FORMS[name]
    folder = folder_of(form, tmp_path / "m")
    artifact = Artifact.load(external.import_external(folder / "model.onnx"))
    work = Workbench(None, None, tmp_path / "work", task=artifact.task)
    (tmp_path / "work").mkdir()
    if form.refusal is not None:
        with pytest.raises(UnsafeModel, match=form.refusal) as caught:
            Quantize(min_cosine=0.5)(artifact, work)
        assert "float32" in caught.value.hint
        return
    made = Quantize(min_cosine=0.9)(artifact, work)
    assert made.card.shape == form.shape
    assert made.file.stat().st_size < 0.7 * artifact.file.stat().st_size
    assert made.predict(made.tokenize(TEXTS))
