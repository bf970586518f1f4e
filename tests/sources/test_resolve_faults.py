"""What is odd in a model's small files is a refusal of the file, before anything large is built of it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bertshrink.cli.app import run
from bertshrink.errors import Stopped, UnsafeModel, UserError
from bertshrink.files import scratch_folder
from bertshrink.model.checks.tokenizer import read_tokenizer
from bertshrink.model.encoder import Encoder
from bertshrink.sources import probe_process as probe
from tests.support.tiny import tiny_encoder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m") / "bert"
    tiny_encoder().save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def answers(folder):
    encoder = Encoder.load(folder)
    return torch.tensor([out["logits"].tolist() for out in encoder.predict(encoder.tokenize(["a good film", "no"]))])


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("num_labels", 10**9),
        ("vocab_size", 10**9),
        ("max_position_embeddings", 10**9),
        ("type_vocab_size", 10**9),
        ("intermediate_size", 10**12),
    ],
)
@pytest.mark.parametrize("command", ["load", "inspect"])
def test_sizes_that_the_weights_contradict(folder, key, value, command, capsys):
    change(folder / "config.json", **({key: value, "id2label": None} if key == "num_labels" else {key: value}))
    start = time.monotonic()
    if command == "inspect":
        assert run(["inspect", str(folder)]) == 5
        assert f"`{key}` of config.json is {value}" in capsys.readouterr().err
    else:
        with pytest.raises(UnsafeModel, match=f"`{key}` of config.json is {value}"):
            Encoder.load(folder)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "values",
    [
        {"return_dict": False},
        {"output_attentions": True, "output_hidden_states": True},
        {"hidden_dropout_prob": 0.9},
    ],
)
def test_what_changes_how_a_model_answers_and_not_what(saved, folder, values):
    change(folder / "config.json", **values)
    assert torch.equal(answers(folder), answers(saved))


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_dropout_prob": "x"},
        {"num_attention_heads": True},
        {"architectures": 3},
        {"id2label": None, "num_labels": "x"},
    ],
)
def test_values_of_another_type(folder, values):
    change(folder / "config.json", **values)
    with pytest.raises((UnsafeModel, UserError)) as found:
        Encoder.load(folder)
    assert found.value.hint


def test_a_number_that_is_none(folder):
    text = (folder / "config.json").read_text().replace('"hidden_dropout_prob": 0.1', '"hidden_dropout_prob": NaN')
    (folder / "config.json").write_text(text)
    with pytest.raises(UnsafeModel, match="not a number"):
        Encoder.load(folder)


def test_a_panic_of_the_tokenizers_library(folder, capfd):
    path = folder / "tokenizer.json"
    change(path, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})
    with pytest.raises(UnsafeModel, match=r"tokenizer in .* cannot be loaded"):
        read_tokenizer(folder)
    assert run(["export", str(folder), "--runs", str(folder / "runs"), "-o", str(folder / "out"), "-q"]) == 5


def test_an_empty_vocabulary(folder):
    path = folder / "tokenizer.json"
    found = json.loads(path.read_text())
    found["model"]["vocab"] = {}
    found["added_tokens"] = []
    path.write_text(json.dumps(found))
    with pytest.raises(UnsafeModel):
        read_tokenizer(folder)


@pytest.mark.subprocess
@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Stopped)])
def test_a_child_that_somebody_ended_ends_its_parent_alike(tmp_path, number, kind):
    code = f"import os, signal; signal.signal({int(number)}, signal.SIG_DFL); os.kill(os.getpid(), {int(number)})"
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(kind):
        probe.probe_in_subprocess(tmp_path / "a.onnx", tmp_path / "b.onnx", (sys.executable, "-c", code))


def test_a_signal_is_no_fault_of_the_model(folder, monkeypatch, capsys):
    """It comes while a library is at work that makes one of its own errors of every exception."""
    import transformers

    def load(*arguments, **more):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

    monkeypatch.setattr(transformers.AutoModelForSequenceClassification, "from_pretrained", load)
    assert run(["export", str(folder), "--runs", str(folder / "runs"), "-o", str(folder / "out"), "-q"]) == 143
    assert "stopped by SIGTERM" in capsys.readouterr().err


@pytest.mark.subprocess
def test_what_a_killed_process_leaves_is_cleared_and_what_a_living_one_holds_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = "import time; from bertshrink.files.scratch_folder import make_scratch; a = make_scratch(); "
    code += "print(a[0], flush=True); "
    living, dead = (
        subprocess.Popen([sys.executable, "-c", code + "time.sleep(60)"], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    try:
        held, left = (Path(process.stdout.readline().strip()) for process in (living, dead))
        held, left = held.parent, left.parent
        dead.kill()
        dead.wait()
        assert held.is_dir()
        assert left.is_dir()
        scratch_folder._sweep.cache_clear()
        with scratch_folder.scratch_folder() as own:
            assert sorted(tmp_path.iterdir()) == sorted([held, own.parent])
            assert not list(own.iterdir())
        assert list(tmp_path.iterdir()) == [held]
    finally:
        for process in (living, dead):
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_tokenizer_that_gives_no_mask_is_asked_for_one(saved, folder):
    """Texts are padded to batches: without a mask their padding would be read."""
    change(folder / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids"])
    assert torch.equal(answers(folder), answers(saved))


@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling"])
def test_a_file_that_a_loader_would_wait_for(folder, kind):
    path = folder / "special_tokens_map.json"
    path.unlink(missing_ok=True)
    {"fifo": lambda: os.mkfifo(path), "folder": path.mkdir, "dangling": lambda: path.symlink_to("nowhere")}[kind]()
    with pytest.raises(UnsafeModel, match="is not a file"):
        Encoder.load(folder)
