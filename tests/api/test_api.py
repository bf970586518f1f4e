"""`import bertshrink`: every command as a function, over models and data in memory, with the same results."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest
import torch
import transformers

import bertshrink
from bertshrink.cli.app import run
from bertshrink.errors import UserError, UserErrors
from bertshrink.recipe.command_table import COMMANDS
from bertshrink.report.report import Report
from tests.support.tiny import sentences, tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = [(f"{'good' if at % 2 else 'bad'} film number {at}", ("negative", "positive")[at % 2]) for at in range(60)]
QUIET = {"progress": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A teacher `m` and its data as files."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "m").mkdir()
    tiny_encoder().save(folder / "m")
    (folder / "d.jsonl").write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS))
    return folder


@pytest.fixture
def here(world, monkeypatch):
    monkeypatch.chdir(world)
    return world


def stock(folder):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.training
def test_a_call_makes_what_the_command_makes(here):
    made = bertshrink.distill("./m", data="d.jsonl", layers=2, epochs=1, output=here / "by-call", **QUIET)
    assert run(["distill", "./m", "--data", "d.jsonl", "--layers", "2", "--epochs", "1", "-q", "-o", "by-cli"]) == 0
    assert made.path == here / "by-call"
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (here / "by-call" / name).read_bytes() == (here / "by-cli" / name).read_bytes(), name
    assert type(made.model) is transformers.BertForSequenceClassification
    assert made.model.config.num_hidden_layers == 2
    assert isinstance(made.report, Report) and (made.run_folder / "report.html").is_file()
    assert made.tokenizer("a good film")["input_ids"]


def labelled():
    """The same rows in every form that data in memory may have."""
    texts, labels = zip(*ROWS, strict=True)
    classes = datasets.ClassLabel(names=["negative", "positive"])
    features = datasets.Features({"text": datasets.Value("string"), "label": classes})
    numbers = [classes.str2int(label) for label in labels]
    table = datasets.Dataset.from_dict({"text": list(texts), "label": numbers}, features=features)
    frame = pandas.DataFrame({"text": texts, "label": labels})
    return {
        "pairs": ROWS,
        "dictionaries": [{"text": text, "label": label} for text, label in ROWS],
        "Dataset": table,
        "DataFrame": frame,
        "DatasetDict": datasets.DatasetDict(
            {"train": table.select(range(40)), "validation": table.select(range(40, 60))}
        ),
        "splits": {"train": ROWS[:40], "dev": frame[40:]},
        "settings": {"path": "d.jsonl", "max_train": 40},
    }


@pytest.mark.training
@pytest.mark.parametrize("form", labelled())
def test_data_in_memory(here, form):
    model, tokenizer = stock(here / "m")
    made = bertshrink.distill((model, tokenizer), data=labelled()[form], layers=1, epochs=0.1, **QUIET)
    notes = " ".join(made.report.notes)
    assert "labels: train: negative" in notes
    assert made.model.config.id2label == {0: "negative", 1: "positive"}
    rows = {"DatasetDict": (40, 20), "splits": (40, 20)}.get(form)
    if rows is not None:
        assert f"train {rows[0]}, dev {rows[1]} rows" in notes


@pytest.mark.slow
def test_models_in_memory_give_the_same_as_their_folders(here):
    model, tokenizer = stock(here / "m")
    forms = {
        "pair": (model, tokenizer),
        "model": model,  # which says where it was loaded from
        "pipeline": transformers.pipeline("text-classification", model=model, tokenizer=tokenizer),
    }
    texts = ["a good film", "no"]
    with torch.inference_mode():
        wanted = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.numpy()
    folders = set()
    for name, form in forms.items():
        made = bertshrink.export(form, **QUIET)
        assert np.allclose(made.model(texts)["logits"], wanted, atol=1e-5), name
        folders.add(made.path)
    assert len(folders) == 1, "the same model is written and exported once"
    again = bertshrink.quantize(made, min_cosine=-1, **QUIET)
    assert again.model.artifact.card.precision == "int8" and "Session(onnx, int8" in repr(again.model)


@pytest.mark.slow
def test_a_sentence_transformer(here):
    library = pytest.importorskip("sentence_transformers")
    (here / "raw").mkdir()
    tiny_encoder("bert", "embedding").save(here / "raw")
    model = library.SentenceTransformer(str(here / "raw"), device="cpu")
    made = bertshrink.export(model, **QUIET)
    texts = ["one text", "and another one of more words"]
    assert np.allclose(made.model(texts)["sentence_embedding"], model.encode(texts), atol=1e-5)


@pytest.mark.slow
def test_what_was_measured_as_a_table(here):
    bertshrink.export("./m", output=here / "timed", **QUIET)  # its worker imports no torch
    made = bertshrink.bench(["./timed"], batch=[1], length=[8], rounds=2, seconds=0.01, warmup=0, **QUIET)
    table = made.to_dataframe()
    assert {"size", "latency", "memory"} <= set(table["metric"])
    assert set(table.columns) >= {"model", "role", "metric", "unit", "value", "low", "high", "samples", "evidence"}
    (latency,) = table[table.metric == "latency"].to_dict("records")
    assert latency["low"] <= latency["value"] <= latency["high"] and latency["batch"] == 1
    assert latency["evidence"] == "measured-host" and latency["samples"] > 1
    assert made.path is None
    with pytest.raises(UserError, match="made no model"):
        made.model  # noqa: B018
    page = made._repr_html_()
    assert "<pre" in page and re.search(r"\d [mµ]s", page) and "<script" not in page


@pytest.mark.slow
def test_a_notebook_shows_a_report_once(here, monkeypatch):
    made = bertshrink.export("./m", **QUIET)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *_: pytest.fail("shown besides what is returned"))
    assert "export to ONNX" in made._repr_html_()
    assert len(repr(made)) < 500


@pytest.mark.slow
def test_it_is_shown_on_request(here, capsys):
    made = bertshrink.export("./m", **QUIET)
    assert capsys.readouterr().out == ""
    made.show()
    assert "export" in capsys.readouterr().out


@pytest.mark.subprocess
def test_a_recipe_as_a_file_and_as_its_keys(here):
    (here / "r.yaml").write_text("model: ./m\nstages: [export]\nmeasure: {latency: false}\n")
    by_file = bertshrink.run("r.yaml", **QUIET)
    by_keys = bertshrink.run({"model": "./m", "stages": ["export"], "measure": {"latency": False}}, **QUIET)
    model = "onnx/model.onnx"
    assert (by_file.path / model).read_bytes() == (by_keys.path / model).read_bytes()
    with pytest.raises(UserErrors) as found:
        bertshrink.run({"model": "./m", "stage": ["export"], "stages": [3]}, **QUIET)
    assert "did you mean `stages`?" in str(found.value) and "`3` is not a stage" in str(found.value)


def test_inspect(here):
    found = bertshrink.inspect("./m")
    assert found["kind"] == "encoder" and found["shape"]["layers"] == 4
    assert bertshrink.inspect(stock(here / "m"))["shape"] == found["shape"]


def test_inspect_of_heads(here):
    encoder = tiny_encoder(num_hidden_layers=2, num_attention_heads=2)
    encoder.save(here / "two")
    found = bertshrink.inspect(
        "two", attention=True, data=[(text, "positive") for text in sentences(12)], output="p.html", progress=False
    )
    assert found["schema"] == "bertshrink.attention/1"
    assert len(found["heads"]) == 4
    assert (here / "p.html").is_file()
    with pytest.raises(UserError, match="belongs to heads"):
        bertshrink.inspect("two", base="two")
    with pytest.raises(UserError, match="two questions"):
        bertshrink.inspect("two", attention=True, data=["a"], reference="v.json")


@pytest.mark.slow
def test_gate(here, tmp_path, monkeypatch):
    made = bertshrink.export("./m", output=tmp_path / "model", **QUIET)
    monkeypatch.chdir(tmp_path)
    size = (made.path / "onnx/model.onnx").stat().st_size
    for limit, code in ((size + 10**6, 0), (10, 1)):
        Path("bertshrink.toml").write_text(f'[gate]\nartifact = "model"\nsize = "<= {limit} B"\n')
        judgement = bertshrink.gate(**QUIET)
        assert judgement.exit_code == code
        assert [finding.rule.key.metric for finding in judgement.findings] == ["size"]


MODEL = torch.nn.Linear(2, 2)


@pytest.mark.training
@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: bertshrink.distill("./m", layer=3), ("`distill` has no argument `layer`", "did you mean `layers`?")),
        (lambda: bertshrink.run("r.yaml", lable="x"), ("`run` has no argument `lable`", "did you mean `label`?")),
        (lambda: bertshrink.bench("./m", batchs=[1]), ("`bench` has no argument `batchs`", "did you mean `batch`?")),
        (lambda: bertshrink.export(MODEL), ("a `Linear` is not a model that can be read", "SentenceTransformer")),
        (lambda: bertshrink.distill("./m", data=[]), ("`data` is empty", "one text")),
        (lambda: bertshrink.distill("./m", data=3), ("a `int` is not data", "datasets.Dataset")),
        (lambda: bertshrink.distill("./m", data=[1, 2]), ("row 0 of `data` is a `int`", "(text, label)")),
        (lambda: bertshrink.distill("./m", data={"trian": ROWS}), ("no split `trian`", "did you mean `train`?")),
        (
            lambda: bertshrink.distill("./m", data={"dev": ROWS, "validation": ROWS}),
            ("two splits of `data` are `dev`", "leave one"),
        ),
        (lambda: bertshrink.distill("./m", data=ROWS, layers=9, **QUIET), ("`layers` is 9", "give 1 to 4")),
        (lambda: bertshrink.distill("./m", layers=2, text="x", **QUIET), ("`--text` applies to texts", "`--data`")),
    ],
)
def test_bad_input_says_what_where_and_how(here, call, told):
    with pytest.raises(UserError) as found:
        call()
    what, hint = told
    assert what in found.value.what and hint in (found.value.hint or "")
    assert found.value.where


def test_a_model_without_a_tokenizer_is_refused(here):
    model, _ = stock(here / "m")
    fresh = transformers.AutoModelForSequenceClassification.from_config(model.config)
    fresh.config._name_or_path = fresh.name_or_path = ""
    with pytest.raises(UserError, match="has no tokenizer") as found:
        bertshrink.export(fresh)
    assert "(model, tokenizer)" in found.value.hint


def test_a_missing_model_names_the_function():
    with pytest.raises(TypeError, match=r"distill\(\): missing a required argument: 'model'"):
        bertshrink.distill()


def test_every_command_that_makes_a_model_is_a_function_and_tells_its_settings():
    for name, command in COMMANDS.items():
        function = getattr(bertshrink, name)
        assert name in dir(bertshrink) and name in bertshrink.__all__
        parameters = inspect.signature(function).parameters
        for technique in command.techniques:
            for key in command.flag_names(technique).values():
                assert key in parameters and f"    {key}: " in function.__doc__
    with pytest.raises(AttributeError, match="no attribute `nonsense`"):
        bertshrink.nonsense  # noqa: B018


@pytest.mark.subprocess
def test_importing_the_package_imports_next_to_nothing():
    code = "import bertshrink, sys; print(len([m for m in sys.modules if 'bertshrink' in m]), 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"], "itself and its version"
    code = "import bertshrink, sys; bertshrink.distill, bertshrink.gate; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


UNTOUCHED = """
import logging, os, signal, sys, warnings
import bertshrink
import datasets, transformers
from huggingface_hub.utils import are_progress_bars_disabled
from pathlib import Path
from tests.support.tiny import sentences, tiny_encoder

def state():
    root = logging.getLogger()
    return {
        "environ": dict(os.environ),
        "signals": {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)},
        "root": (root.level, list(root.handlers), root.disabled),
        "warnings": list(warnings.filters),
        "transformers": (transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()),
        "datasets": (datasets.logging.get_verbosity(), datasets.is_progress_bar_enabled()),
        "hub": are_progress_bars_disabled(),
    }

tiny_encoder(num_hidden_layers=1).save(Path("m"))
before = state()
bertshrink.inspect("m")
bertshrink.quantize("m", progress=False)
after = state()
for key in before:
    print("CHANGED", key, before[key], after[key]) if before[key] != after[key] else print("SAME", key)
"""


@pytest.mark.subprocess
def test_the_callers_process_is_as_it_was(tmp_path):
    names = (
        "ORT_DISABLE_TELEMETRY",
        "TOKENIZERS_PARALLELISM",
        "TRANSFORMERS_VERBOSITY",
        "HF_HUB_DISABLE_PROGRESS_BARS",
    )
    environ = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", UNTOUCHED],
        cwd=tmp_path,
        env=environ | {"PYTHONPATH": str(Path(bertshrink.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith(("SAME", "CHANGED"))]
    assert told == [
        f"SAME {key}" for key in ("environ", "signals", "root", "warnings", "transformers", "datasets", "hub")
    ]
