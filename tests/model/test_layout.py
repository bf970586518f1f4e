"""What `export` and `quantize` write, read as others read it: ONNX Runtime with `tokenizers` alone, transformers' own
classes, and the lines that are printed beside the path. Other libraries: `benchmarks/loaders.py`."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tokenizers
import transformers

from bertshrink.engines import is_installed
from bertshrink.errors import UserError
from bertshrink.files.atomic import seal
from bertshrink.model.artifact import Artifact
from bertshrink.model.batches import pad
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.folder.layout import named_file, root_of, sealed_root
from bertshrink.model.folder.usage_snippet import usage
from bertshrink.model.model_ref import ModelRef
from bertshrink.sources import resolve
from bertshrink.techniques.export import Export
from bertshrink.techniques.quantize import Quantize
from tests.support.tiny import bench_of, sentences, tiny_encoder

ROOT = Path(__file__).parents[2]
LONG = "a good film and a bad one " * 40
TEXTS = [*sentences(3), "", LONG]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Artifacts by (task, kind), each made once and saved as a stage saves them."""
    kept = {}

    def make(task, kind="float", family="bert", **settings):
        key = (task, kind, family, tuple(settings.items()))
        if key not in kept:
            place = tmp_path_factory.mktemp("made")
            encoder = tiny_encoder(family, task, num_hidden_layers=1)
            artifact = Export(**settings)(encoder, bench_of(encoder, place))
            if kind == "int8":
                artifact = Quantize(min_cosine=0.5)(artifact, bench_of(encoder, place))
            if kind == "ort":
                artifact = Export(to="ort")(artifact, bench_of(encoder, place))
            folder = place / "out"
            folder.mkdir()
            artifact.save(folder)
            kept[key] = encoder, Artifact.load(folder)
        return kept[key]

    return make


def names_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def plainly(folder, texts, output):
    """An output as someone with ONNX Runtime and `tokenizers` alone computes it."""
    (file,) = folder.glob("onnx/*.o*")
    session = onnxruntime.InferenceSession(str(file))
    tokens = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(texts)
    given = {
        "input_ids": np.array([one.ids for one in tokens]),
        "attention_mask": np.array([one.attention_mask for one in tokens]),
        "token_type_ids": np.array([one.type_ids for one in tokens]),
    }
    (found,) = session.run([output], {one.name: given[one.name] for one in session.get_inputs()})
    return found, given["attention_mask"]


def test_a_sentence_encoders_folder_has_what_others_look_for(made):
    encoder, artifact = made("embedding")
    assert names_of(artifact.folder) == [
        "1_Pooling/config.json",
        "artifact.json",
        "config.json",
        "config_sentence_transformers.json",
        "modules.json",
        "onnx/model.onnx",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    modules = json.loads((artifact.folder / "modules.json").read_text())
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    assert (kinds, [module["path"] for module in modules][:2]) == (
        ["Transformer", "Pooling", "Normalize"],
        ["", "1_Pooling"],
    )
    assert json.loads((artifact.folder / "sentence_bert_config.json").read_text())["max_seq_length"] == 64
    assert transformers.AutoConfig.from_pretrained(artifact.folder).hidden_size == encoder.shape.hidden_size


def test_what_is_quantized_has_the_name_by_which_transformers_js_asks_for_it(made):
    _, artifact = made("embedding", "int8")
    assert (artifact.card.file, artifact.file.is_file()) == ("onnx/model_quantized.onnx", True)
    assert "modules.json" in names_of(artifact.folder)
    names = [one.name for one in onnxruntime.InferenceSession(str(artifact.file)).get_outputs()]
    assert names == ["last_hidden_state", "sentence_embedding"] == list(artifact.card.outputs)


@pytest.mark.parametrize("task", ["classification", "multi-label", "regression", "token-classification"])
def test_the_configuration_names_class_and_labels(task, made):
    encoder, artifact = made(task)
    config = transformers.AutoConfig.from_pretrained(artifact.folder)
    assert config.architectures == [type(encoder.model).__name__]
    if artifact.labels:
        assert tuple(config.id2label[at] for at in range(len(artifact.labels))) == artifact.labels
    assert config.problem_type == encoder.model.config.problem_type


@pytest.mark.parametrize("kind", ["float", "int8", "ort"])
@pytest.mark.parametrize(("task", "output"), [("embedding", "sentence_embedding"), ("classification", "logits")])
def test_tokenizers_alone_give_the_same_numbers_of_texts_of_any_length(task, output, kind, made):
    _, artifact = made(task, kind)
    session, pad_id = artifact.session(), artifact.tokenizer.pad_token_id
    ours = session.run(pad(artifact.tokenize(TEXTS), pad_id))
    assert list(ours) == [output], "only what the task asks for is fetched"
    theirs, mask = plainly(artifact.folder, TEXTS, output)
    assert mask.shape == (5, 64), "the long text is cut at the model's length, the others padded to it"
    np.testing.assert_allclose(theirs, ours[output], atol=1e-5)


def test_token_vectors_are_those_of_the_encoder(made):
    encoder, artifact = made("embedding")
    theirs, mask = plainly(artifact.folder, TEXTS, "last_hidden_state")
    feeds = pad(encoder.tokenize(TEXTS), encoder.tokenizer.pad_token_id)
    ours = encoder.session(("last_hidden_state",)).run(feeds)["last_hidden_state"]
    np.testing.assert_allclose(theirs[mask == 1], ours[mask == 1], atol=1e-4)


def test_one_output_alone_where_it_is_asked_for(made, tmp_path):
    _, artifact = made("embedding", outputs="sentence_embedding")
    (only,) = onnxruntime.InferenceSession(str(artifact.file)).get_outputs()
    assert only.name == "sentence_embedding"
    tiny_encoder().save(tmp_path)
    with pytest.raises(UserError, match="for sentence encoders"):
        Export(outputs="both").fit(read_facts(tmp_path))


def test_a_fixed_shape_pads_by_itself(made):
    _, artifact = made("classification", static_shape="2x16")
    theirs, mask = plainly(artifact.folder, ["a good film", LONG], "logits")
    assert (mask.shape, mask.sum(axis=1).tolist()) == ((2, 16), [5, 16])
    assert theirs.shape == (2, 2)
    again = transformers.AutoTokenizer.from_pretrained(artifact.folder)
    assert again.model_max_length == 16


def test_transformers_still_decides_at_every_call(made):
    _, artifact = made("classification")
    tokenizer = transformers.AutoTokenizer.from_pretrained(artifact.folder)
    assert tokenizer.model_max_length == 64
    lengths = [len(ids) for ids in tokenizer([LONG, "a film"])["input_ids"]]
    assert lengths[0] > 64 and lengths[1] == 4, "neither cut nor padded where nobody asks"
    assert len(tokenizer(LONG, truncation=True)["input_ids"]) == 64


def test_what_a_tokenizer_was_called_with_last_is_not_written(made):
    _, artifact = made("classification")
    about = json.loads((artifact.folder / "tokenizer_config.json").read_text())
    assert not {"max_length", "stride", "local_files_only"} & set(about), "fastembed cuts at `max_length`"
    assert about["tokenizer_class"] == "PreTrainedTokenizerFast", "transformers 4 knows no TokenizersBackend"


# One layout ----------------------------------------------------------------------------------------------------------


@pytest.mark.subprocess
def test_a_file_in_its_place_belongs_to_the_folder_above(tmp_path, made):
    _, artifact = made("classification", "int8")
    ours = shutil.copytree(artifact.folder, tmp_path / "ours")
    file = ours / "onnx/model_quantized.onnx"
    assert (root_of(file), sealed_root(file)) == (ours, None)
    seal(ours)
    assert sealed_root(file) == ours == resolve.locate_model(str(file)) == resolve.locate_model(str(ours))
    before = ModelRef.read(ours).content_key("classification")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert ModelRef.read(ours).content_key("classification") != before, "what is made of it is not made of the other"


@pytest.mark.parametrize("name", ["../m.onnx", "/m.onnx", "onnx/../../m.onnx", "", None, 3, "onnx\\m.onnx", "onnx"])
def test_a_card_names_no_file_outside_of_its_folder(name, tmp_path):
    (tmp_path / "m/onnx").mkdir(parents=True)
    (tmp_path / "m.onnx").write_bytes(b"x")
    assert named_file(tmp_path / "m", name) is None


@pytest.mark.subprocess
@pytest.mark.parametrize("place", ["onnx/model_quantized.onnx", "model_quantized.onnx", "onnx/model.onnx"])
def test_others_folders_are_read_wherever_their_file_lies(place, tmp_path, made):
    _, artifact = made("embedding")
    given = shutil.copytree(artifact.folder, tmp_path / "given")
    (given / "artifact.json").unlink()
    (given / place).parent.mkdir(exist_ok=True)
    (given / "onnx/model.onnx").rename(given / place)
    found = Artifact.load(resolve.locate_model(str(given)))
    assert (found.card.file, found.card.outputs) == ("onnx/model.onnx", artifact.card.outputs)
    assert found.file.read_bytes() == artifact.file.read_bytes()


# Lines to copy -------------------------------------------------------------------------------------------------------


def run_lines(lines, monkeypatch, folder):
    """What the lines leave, once as they are and once with a text longer than the model takes."""
    monkeypatch.chdir(folder)
    assert "one text" in lines or "a text that" in lines
    found = []
    for code in (lines, lines.replace("one text", LONG).replace("a text that answers it", LONG)):
        names: dict = {}
        exec(code, names)
        found.append(names)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float", "int8", "ort"])
@pytest.mark.parametrize("task", ["embedding", "classification", "question-answering", "token-classification"])
def test_the_lines_for_an_artifact_run(task, kind, made, monkeypatch):
    _, artifact = made(task, kind)
    lines = usage(ModelRef.read(artifact.folder), "out")
    assert len(lines.strip().splitlines()) <= 10
    names, _ = run_lines(lines, monkeypatch, artifact.folder.parent)
    if task == "classification":
        assert set(names["labels"]) <= set(artifact.card.labels) and len(names["labels"]) == 2
    if task == "embedding":
        assert names["vectors"].shape == (2, 32)


def test_the_lines_for_a_fixed_shape_run(made, monkeypatch):
    _, artifact = made("classification", static_shape="3x16")
    names, _ = run_lines(usage(ModelRef.read(artifact.folder), "out"), monkeypatch, artifact.folder.parent)
    assert names["logits"].shape == (3, 2)


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("openvino"), reason="needs pip install 'bertshrink[openvino]'")
def test_the_lines_for_openvino_run(made, monkeypatch):
    _, artifact = made("embedding", engine="openvino")
    lines = usage(ModelRef.read(artifact.folder), "out")
    assert "import openvino" in lines
    names, _ = run_lines(lines, monkeypatch, artifact.folder.parent)
    assert names["vectors"].shape == (2, 32)


@pytest.mark.parametrize("task", ["embedding", "classification", "regression", "question-answering", "mlm"])
def test_the_lines_for_a_checkpoint_run(task, tmp_path, monkeypatch):
    (tmp_path / "student").mkdir()
    tiny_encoder("bert", task).save(tmp_path / "student")
    names, _ = run_lines(usage(ModelRef.read(tmp_path / "student"), "student"), monkeypatch, tmp_path)
    assert "vectors" in names or names["outputs"] is not None


def test_the_lines_for_a_cross_encoder_give_its_scores(made, tmp_path, monkeypatch):
    encoder, artifact = made("regression")
    bent = dataclasses.replace(encoder, activation="sigmoid")
    bent.model.config.sentence_transformers = {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    for folder in (tmp_path / "student", tmp_path / "out"):
        folder.mkdir()
    bent.save(tmp_path / "student")
    card = artifact.card.model_copy(update={"activation": "sigmoid"})
    Artifact(artifact.folder, card).save(tmp_path / "out")
    names, _ = run_lines(usage(ModelRef.read(tmp_path / "student"), "student"), monkeypatch, tmp_path)
    wanted = names["scores"].detach().numpy()
    assert np.all((wanted > 0) & (wanted < 1))
    names, _ = run_lines(usage(ModelRef.read(tmp_path / "out"), "out"), monkeypatch, tmp_path)
    assert np.allclose(names["scores"], wanted, atol=1e-5)


def test_the_pages_lines_are_those_that_are_printed_and_run(tmp_path, made, monkeypatch):
    part = (ROOT / "docs/use.md").read_text(encoding="utf-8")
    student, sentence = tmp_path / "student", tmp_path / "runs/quickstart/01-distill"
    for folder, task in ((student, "classification"), (sentence, "embedding")):
        folder.mkdir(parents=True)
        tiny_encoder("bert", task).save(folder)
    shutil.copytree(made("embedding", "int8")[1].folder, tmp_path / "bge-int8")
    blocks = re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    names = ["student", "runs/quickstart/01-distill", "bge-int8"]
    assert blocks == [usage(ModelRef.read(tmp_path / name), name) for name in names]
    for block in blocks:
        run_lines(block, monkeypatch, tmp_path)
