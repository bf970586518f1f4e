"""Bare .ort files and .pte programs, of bertshrink and of others: looked at and given a card, or refused."""

import json
import shutil

import numpy as np
import pytest
from onnx import TensorProto

from bertshrink.command_scope import command_scope
from bertshrink.engines import engine, is_installed
from bertshrink.errors import MissingDependency, UnsafeModel, UserError
from bertshrink.files.atomic import MANIFEST
from bertshrink.model.artifact import Artifact
from bertshrink.model.checkpoint_info import ARTIFACT_CARD
from bertshrink.onnx_graph import ort_format
from bertshrink.sources import probe_child, resolve
from bertshrink.techniques.export import Export, executorch
from bertshrink.techniques.quantize import Quantize
from tests.support.onnx_files import ROWS, encoder_model, encoder_parts, onnx_folder
from tests.support.tiny import bench_of, sentences, tiny_encoder

pytestmark = [pytest.mark.subprocess, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(autouse=True)
def no_limits_here(monkeypatch, capsys):
    monkeypatch.setattr(probe_child, "limit", lambda num_bytes: None)


def ort_folder(folder, model=None, **more):
    """A folder with a foreign model.ort, config.json and a tokenizer."""
    onnx_folder(folder, model, **more)
    ort_format.write(folder / "model.onnx", folder / "model.ort")
    (folder / "model.onnx").unlink()
    (folder / "model.safetensors").unlink(missing_ok=True)
    return folder


def bare(made, folder):
    """An artifact's files without what bertshrink says of them."""
    shutil.copytree(made.folder, folder)
    (folder / ARTIFACT_CARD).unlink()
    (folder / MANIFEST).unlink(missing_ok=True)
    return folder / made.card.file


def look_here(path, target):
    """What the child would say, without its start."""
    with pytest.raises(UnsafeModel) as caught:
        probe_child.look(path, target)
    assert caught.value.hint
    return caught.value.what


def same(first, second):
    """Whether two artifacts answer the same, bit for bit."""
    rows = first.tokenize(sentences(4))
    pairs = zip(first.predict(rows), second.predict(rows), strict=True)
    return all(np.array_equal(old[name], new[name]) for old, new in pairs for name in old)


# .ort -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "task", "int8"),
    [("bert", "classification", True), ("albert", "embedding", False), ("distilbert", "question-answering", False)],
)
def test_an_ort_file_of_ours_says_itself_what_it_is(family, task, int8, tmp_path):
    encoder = tiny_encoder(family, task, num_hidden_layers=1)
    made = Export()(encoder, bench_of(encoder, tmp_path))
    if int8:
        made = Quantize(min_cosine=0.5)(made, bench_of(encoder, tmp_path))
    made = Export(to="ort")(made, bench_of(encoder, tmp_path))
    path = bare(made, tmp_path / "bare")
    with command_scope():  # within one command a file is taken in once, by whichever of its names
        taken_in = Artifact.load(resolve.locate_model(str(path)))
        assert resolve.locate_model(str(path.parent)) == taken_in.folder, "the folder stands for its file"
    ours, theirs = made.card, taken_in.card
    for name in ("format", "engine", "task", "family", "labels", "pooling", "inputs", "outputs", "max_length"):
        assert getattr(theirs, name) == getattr(ours, name), name
    assert theirs.vocab_size == ours.vocab_size
    assert theirs.precision.split("+")[0] == ours.precision.split("+")[0] == ("int8" if int8 else "float32")
    assert same(made, taken_in)


def test_an_ort_file_of_others_is_told_by_its_config(tmp_path):
    folder = ort_folder(tmp_path / "m")
    found = Artifact.load(resolve.locate_model(str(folder / "model.ort")))
    assert (found.card.format, found.card.engine, found.file.name) == ("ort", "onnxruntime", "model.ort")
    assert (found.task, found.card.vocab_size, found.card.precision) == ("classification", ROWS, "float32")
    assert found.file.read_bytes() == (folder / "model.ort").read_bytes()
    feeds = {name: np.ones((2, 5), np.int64) for name in found.card.inputs}
    table = encoder_parts()[1]
    hidden = np.tanh(table["table"][1] @ table["weight"]) * 5
    np.testing.assert_allclose(
        found.session().run(feeds)["logits"], [hidden @ table["head"].T + table["bias"]] * 2, rtol=1e-4
    )


def test_the_message_of_an_ort_file_has_the_files_own_graph(tmp_path):
    folder = ort_folder(tmp_path / "m", encoder_model(shape=[2, 7]))
    found = ort_format.graph_of((folder / "model.ort").read_bytes())
    assert [value.name for value in found.graph.input] == ["input_ids", "attention_mask"]
    for value in found.graph.input:
        assert probe_child.declared(value) == {"type": "int64", "shape": [2, 7]}
    (output,) = found.graph.output
    assert probe_child.declared(output)["type"] == "float"
    stored = {tensor.name: tensor for tensor in found.graph.initializer}
    assert list(stored["table"].dims) == [ROWS, 8]
    assert stored["table"].raw_data == encoder_parts()[1]["table"].tobytes()
    assert {"Gather", "Tanh"} <= {node.op_type for node in found.graph.node}


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (encoder_model(kind=TensorProto.INT32), "int32 `input_ids`.* int64 `input_ids`"),
        (encoder_model(inputs=("input_ids", "input_mask")), "`input_mask`"),
    ],
    ids=["int32", "names"],
)
def test_what_would_have_to_be_changed_is_refused(model, match, tmp_path):
    if "input_mask" in match:
        model.graph.node[1].input[0] = "input_mask"
    folder = ort_folder(tmp_path / "m", model)
    with pytest.raises(UserError, match=match) as caught:
        resolve.locate_model(str(folder / "model.ort"))
    assert "the .onnx file that it was made from" in caught.value.hint


def test_token_vectors_cannot_be_pooled_in_an_ort_file(tmp_path):
    nodes, weights = encoder_parts()
    model = encoder_model(nodes[:-2], weights, outputs=("hidden",))
    folder = ort_folder(tmp_path / "m", model, architectures=["BertModel"])
    with pytest.raises(UserError, match=r"gives `hidden`, .* `sentence_embedding` are needed"):
        resolve.locate_model(str(folder / "model.ort"))


def test_a_cut_ort_file_is_refused(tmp_path):
    data = (ort_folder(tmp_path / "m") / "model.ort").read_bytes()
    for keep in (0, 3, 8, 100, len(data) // 3, len(data) // 2, len(data) - 500):
        (tmp_path / "cut.ort").write_bytes(data[:keep])
        look_here(tmp_path / "cut.ort", tmp_path / "looked.ort")


def test_flipped_bits_of_an_ort_file_are_refused_or_it_still_runs(tmp_path):
    from bertshrink.sources.probe_process import probe_in_subprocess

    data = bytearray((ort_folder(tmp_path / "m") / "model.ort").read_bytes())
    rng = np.random.default_rng(0)
    for number in range(4):
        spoilt = bytearray(data)
        for at in rng.integers(8, len(data), size=20):
            spoilt[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "spoilt.ort").write_bytes(spoilt)
        try:
            assert probe_in_subprocess(tmp_path / "spoilt.ort", tmp_path / f"{number}.ort").vocab_size
        except UnsafeModel as refusal:
            assert refusal.where


def test_another_kind_of_file_under_the_name_is_refused(tmp_path):
    (tmp_path / "m.ort").write_bytes(encoder_model().SerializeToString())
    assert "is not an .ort file" in look_here(tmp_path / "m.ort", tmp_path / "looked.ort")


def test_a_file_that_the_card_beside_it_is_not_of_is_refused(tmp_path):
    encoder = tiny_encoder(num_hidden_layers=1)
    made = Export(to="ort")(Export()(encoder, bench_of(encoder, tmp_path)), bench_of(encoder, tmp_path))
    ours = tmp_path / "ours"
    shutil.copytree(made.folder, ours)
    (ours / MANIFEST).unlink(missing_ok=True)
    assert Artifact.load(resolve.locate_model(str(ours / "onnx/model.ort"))).card == made.card
    shutil.copyfile(ours / "onnx/model.ort", ours / "onnx/other.ort")
    with pytest.raises(UnsafeModel, match=r"is that of `onnx/model.ort`, not of `onnx/other.ort`"):
        resolve.locate_model(str(ours / "onnx/other.ort"))


# .pte -----------------------------------------------------------------------------------------------------------------

needs_executorch = pytest.mark.skipif(
    not is_installed("executorch"), reason="needs pip install 'bertshrink[executorch]', a heavy one: run these by hand"
)


@pytest.mark.skipif(is_installed("executorch"), reason="it is installed")
def test_without_executorch_a_program_says_what_is_missing(tmp_path):
    folder = onnx_folder(tmp_path / "m", b"", name="model.pte")
    (folder / "model.pte").write_bytes(b"\0\0\0\0ET12")
    with pytest.raises(MissingDependency, match="needs ExecuTorch") as caught:
        resolve.locate_model(str(folder / "model.pte"))
    assert "bertshrink[executorch]" in caught.value.hint


@needs_executorch
@pytest.mark.parametrize("form", [{"static_shape": "2x16"}, {"max_batch": 4}])
def test_a_program_of_ours_is_run_to_see_what_it_takes(form, tmp_path):
    encoder = tiny_encoder("bert", "classification", num_hidden_layers=1)
    made = Export(to="executorch", **form)(encoder, bench_of(encoder, tmp_path))
    path = bare(made, tmp_path / "bare")
    (path.parent / "config.json").write_text(json.dumps(encoder.model.config.to_dict(), default=str))
    found = Artifact.load(resolve.locate_model(str(path)))
    for name in ("format", "engine", "task", "labels", "inputs", "outputs", "shape", "max_batch", "max_length"):
        assert getattr(found.card, name) == getattr(made.card, name), name
    assert same(made, found)


@needs_executorch
def test_a_program_of_others_has_its_arguments_named_by_place(tmp_path):
    import torch

    encoder = tiny_encoder("distilbert", "classification", num_hidden_layers=1)
    encoder.model.set_attn_implementation("eager")

    class Plain(torch.nn.Module):
        def forward(self, ids, mask):
            return (encoder.model(input_ids=ids, attention_mask=mask).logits,)

    plain = Plain().eval()
    plain.model = encoder.model
    ids = torch.ones(1, 8, dtype=torch.int64)
    with executorch.quiet():
        from executorch.exir import to_edge_transform_and_lower

        program = to_edge_transform_and_lower(
            torch.export.export(plain, (ids, ids.clone()), strict=False)
        ).to_executorch()
    folder = tmp_path / "m"
    encoder.save(folder)
    (folder / "model.safetensors").unlink()
    with (folder / "model.pte").open("wb") as file:
        program.write_to_file(file)
    found = Artifact.load(resolve.locate_model(str(folder / "model.pte")))
    assert (found.card.inputs, found.card.outputs) == (("input_ids", "attention_mask"), ("logits",))
    assert found.card.shape == (1, 8)
    feeds = {"input_ids": ids.numpy() * 3, "attention_mask": ids.numpy()}
    expected = encoder.session().run(feeds)["logits"]
    np.testing.assert_allclose(engine("executorch").load(str(found.file)).run(feeds)["0"], expected, atol=1e-4)
    np.testing.assert_allclose(found.session().run(feeds)["logits"], expected, atol=1e-4)
