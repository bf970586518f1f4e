"""The program as its users meet it: what it prints, where, which exit code, and what it leaves on the disk."""

import json
import re
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import bertshrink
from bertshrink.cli import app
from bertshrink.cli import run as work
from bertshrink.cli.app import run
from bertshrink.errors import MissingDependency, UserError, UserErrors
from bertshrink.files.atomic import new_folder
from bertshrink.pipeline.run import NOT_TIMED
from bertshrink.recipe.command_table import COMMANDS
from tests.support.tiny import sentences, tiny_encoder

pytestmark = pytest.mark.subprocess

THREE_PARTS = re.compile(r"(error: .+\n  --> .+\nhint: .+\n)+")
TINY = ["--layers", "2", "--epochs", "1", "--no-latency", "-q"]


def write_data(path, labels=("negative", "positive"), num=24):
    rows = [f"{text}\t{labels[i % len(labels)]}" for i, text in enumerate(sentences(num, seed=3))]
    path.write_text("\n".join(["sentence\tlabel", *rows]) + "\n")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model `m`, the same sealed by bertshrink `sealed`, and data `d` with two sides."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "d").mkdir()
    write_data(folder / "d" / "train.tsv")
    write_data(folder / "d" / "dev.tsv", num=12)
    (folder / "m").mkdir()
    tiny_encoder().save(folder / "m")
    with new_folder(folder / "sealed") as scratch:
        shutil.copytree(folder / "m", scratch, dirs_exist_ok=True)
    return folder


@pytest.fixture
def here(world, tmp_path, monkeypatch, tmp_path_factory):
    """A copy of the world to be in, without a network."""
    import datasets

    def fail(*arguments, **more):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", fail)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    folder = shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder


def listing(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


# Usage


@pytest.mark.training
@pytest.mark.parametrize(
    ("argv", "what", "where"),
    [
        (["nonsense"], "no such command 'nonsense'", "`bertshrink`"),
        (["--nonsense"], "no such option", "`bertshrink`"),
        (["distill"], "missing argument", "`bertshrink distill`"),
        (["distill", "m", "--nonsense"], "no such option", "`bertshrink distill`"),
        (["factorize", "m", "--explain"], "no such option: --explain", "`bertshrink factorize`"),
        (["distill", "m", "--layers", "many"], "invalid value for '--layers'", "`bertshrink distill`"),
        (["distill", "m", "--max-length", "1"], "invalid value for '--max-length'", "`bertshrink distill`"),
        (["run"], "missing argument", "`bertshrink run`"),
        (["run", "nonsense"], "there is no recipe `nonsense`", None),
        (["run", "quickstar"], "there is no recipe `quickstar`", None),
        (["run", "no/such.yaml"], "there is no recipe file `no/such.yaml`", None),
        (["bench", "m", "--batch", "one"], "`one` is not a list of whole numbers", "--batch"),
        (["bench", "m", "--batch", "0"], "`batch` is `0`", "--batch"),
        (["bench", "m", "--dimensions", "4,x"], "`dimensions`", "--dimensions"),
        (["export", "m", "--dimensions", "4"], "`dimensions` truncates sentence vectors", "--dimensions"),
        (["export", "m", "--max-length", "8"], "`--max-length` applies to texts, and none are given", "--max-length"),
    ],
)
def test_wrong_usage(here, capsys, argv, what, where):
    before = listing(here)
    assert run(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {what}"), err
    assert where is None or f"  --> {where}\n" in err
    assert "hint: " in err
    assert listing(here) == before


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["factorize", "m", "--explain"], "--dry-run"),
        (["distill", "m", "--layer", "3"], "--layers"),
        (["export", "m", "--precision", "fp16"], "float16"),
        (["export", "m", "--precision", "half"], "float16"),
        (["quantize", "m", "--scheme", "bf16"], "bfloat16"),
        (["finetune", "m", "--data", "d", "--precision", "fp32"], "float32"),
        (["bench", "m", "--engine", "torch:fp16"], "float16"),
    ],
)
def test_another_spelling_is_answered_with_the_word_that_is_meant(here, capsys, argv, meant):
    assert run(argv) == 2
    assert f"hint: did you mean `{meant}`?" in capsys.readouterr().err


def test_a_group_without_a_command_shows_its_help(capsys):
    assert run(["recipe"]) == 2
    assert "schema" in capsys.readouterr().err


# What is refused, before anything is written


def recipe(text):
    return lambda here: (here / "r.yaml").write_text(f"model: ./m\ndata: ./d\n{text}\n")


def config(**values):
    def change(here):
        path = here / "m" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def dev(content):
    return lambda here: (here / "d" / "dev.tsv").write_text(content)


def train(*labels):
    return lambda here: write_data(here / "d" / "train.tsv", labels)


def truncate(here):
    path = here / "m" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-64])


def spoil(here):
    path = here / "m" / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-4] + struct.pack("<f", float("nan")))


def pickled(here):
    (here / "m" / "model.safetensors").unlink()
    (here / "m" / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")


def remote_tokenizer(here):
    path = here / "m" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.T", None]}}))


def flip(here):
    path = here / "sealed" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def nothing(here):
    pass


FINETUNE = ["finetune", "./m", "--data", "./d", "--epochs", "1", "-q"]
DISTILL = ["distill", "./m", "--data", "./d", *TINY]
RUN = ["run", "r.yaml", "-q"]
REFUSED = {
    # name: (what is wrong, the command, exit code, a piece of the message, its place)
    "misspelt key": (recipe("stages: [{distill: {layer: 2}}]"), RUN, 2, "has no setting `layer`", "r.yaml:3:21"),
    "stage order": (recipe("stages: [quantize, distill]"), RUN, 2, "takes an artifact, and gets", "r.yaml:3:10"),
    "unknown family": (config(model_type="gpt2"), DISTILL, 2, "`gpt2`, which bertshrink does not", "m/config.json"),
    "missing model": (nothing, ["distill", "./none", "--data", "./d"], 2, "no model folder `./none`", "`MODEL`"),
    "missing data": (nothing, ["distill", "./m", "--data", "./none"], 2, "no file or folder", "--data"),
    "empty data": (dev(""), DISTILL, 2, "is empty", "dev.tsv"),
    "no text": (dev("sentence\tlabel\n \t0\n"), DISTILL, 2, "holds no text", "--data"),
    "one class": (train("positive"), FINETUNE, 2, "there is nothing to learn from them", "--data"),
    "other labels": (train("good", "bad"), DISTILL, 2, "do not match the teacher's: `bad`, `good`", "d"),
    "other label in dev": (dev("sentence\tlabel\na\tpositive\nb\tmeh\n"), DISTILL, 2, "do not match", "d"),
    "no labels": (dev("sentence\na\n"), FINETUNE, 2, "the dev split of `./d` has no labels", "--data"),
    "no layers": (nothing, [*DISTILL, "--layers", "0"], 2, "`layers` is 0; the model has 4", "--layers"),
    "many layers": (nothing, [*DISTILL, "--layers", "5"], 2, "`layers` is 5; the model has 4", "--layers"),
    "other task": (nothing, [*DISTILL, "--task", "mlm"], 2, "weights that the task `mlm` needs", "m"),
    "no weights": (lambda h: (h / "m/model.safetensors").unlink(), DISTILL, 2, "has no weights", "m"),
    "no tokenizer": (lambda h: (h / "m/tokenizer.json").unlink(), DISTILL, 2, "has no tokenizer files", "m"),
    "truncated": (truncate, DISTILL, 5, "the safetensors file is truncated", "m/model.safetensors"),
    "not finite": (spoil, DISTILL, 5, "holds values that are not finite", "m"),
    "pickle": (pickled, DISTILL, 5, "are a pickle (`pytorch_model.bin`)", "m/pytorch_model.bin"),
    "remote code": (config(auto_map={"AutoModel": "e.M"}), DISTILL, 5, "asks to run its own code", "m/config.json"),
    "remote tokenizer": (remote_tokenizer, DISTILL, 5, "asks to run its own code", "m/tokenizer_config.json"),
    "flipped bit": (flip, ["distill", "./sealed", *DISTILL[2:]], 5, "has changed since", "sealed/model.safetensors"),
    "damaged to compare": (
        lambda h: (flip(h), recipe("compare: [./sealed]")(h)),
        RUN,
        5,
        "has changed since",
        "sealed/model.safetensors",
    ),
    "output is there": (nothing, [*DISTILL, "-o", "d"], 2, "`d` already exists", "-o"),
    "output is precious": (nothing, [*DISTILL, "-o", "d", "--force"], 2, "not a folder that bertshrink wrote", "-o"),
    "output is here": (nothing, [*DISTILL, "-o", ".", "--force"], 2, "contain each other", "-o"),
    "output in no folder": (nothing, [*DISTILL, "-o", "no/out"], 2, "there is no folder `no`", "-o"),
    "nothing to write": (recipe(""), [*RUN, "-o", "out"], 2, "has no stages", "-o"),
}


@pytest.mark.training
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_told_in_three_parts_and_nothing_is_written(here, capsys, name):
    spoil_it, argv, code, what, where = REFUSED[name]
    spoil_it(here)
    before = listing(here)
    assert run(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert THREE_PARTS.fullmatch(err), err
    assert what in err
    assert re.search(rf"  --> \S*{re.escape(where)}\n", err), err
    assert listing(here) == before


@pytest.mark.training
def test_the_whole_program_in_its_own_process(here):
    def program(*argv):
        command = [sys.executable, "-m", "bertshrink", *argv]
        environment = {"PYTHONPATH": str(Path(bertshrink.__file__).parents[1]), "PATH": "/usr/bin:/bin"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = program("--version")
    assert (done.returncode, done.stderr) == (0, "")
    done = program("distill", "./m", "--layers", "9")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("error: ") == 2, "no texts, and too many layers"
    assert "Traceback" not in done.stderr


# Failures of its own


@pytest.mark.training
def test_a_bug_leaves_a_log_and_no_traceback(here, capsys, monkeypatch):
    def fail(*arguments, **more):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(work, "carry_out", fail)
    monkeypatch.setattr("tempfile.tempdir", str(here))
    assert run(DISTILL) == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert THREE_PARTS.fullmatch(err)
    assert "this is a bug in bertshrink: ZeroDivisionError: oops" in err
    log = Path(re.search(r"--> (\S+)", err)[1])
    assert "Traceback" in log.read_text()
    assert "--layers" in log.read_text()


@pytest.mark.training
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MissingDependency("no torch", hint="install it"), 6, "error: no torch\nhint: install it\n"),
        (
            UserErrors([UserError("a", where="1"), UserError("b", hint="c")]),
            2,
            "error: a\n  --> 1\nerror: b\nhint: c\n",
        ),
        (KeyboardInterrupt(), 130, "stopped; run the same command to resume\n"),
        (
            OSError(28, "No space left on device", "x"),
            7,
            "error: cannot write: No space left on device\n  --> x\nhint: free some space, or choose another place\n",
        ),
    ],
)
def test_one_place_catches(here, capsys, monkeypatch, error, code, message):
    def fail(*arguments, **more):
        raise error

    monkeypatch.setattr(work, "carry_out", fail)
    assert app.run(DISTILL) == code
    assert capsys.readouterr() == ("", message)


@pytest.mark.training
def test_without_the_parts_that_run_models(here, capsys, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else real(name, *a))
    before = listing(here)
    assert run(DISTILL) == 6
    assert "hint: pip install 'bertshrink[ml]'" in capsys.readouterr().err
    assert listing(here) == before


# The whole way


def stock_accuracy(folder, data):
    """Accuracy of a folder on a side of the data by transformers alone."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = [line.split("\t") for line in data.read_text().splitlines()[1:]]
    with torch.no_grad():
        logits = model(**tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")).logits
    chosen = [model.config.id2label[i] for i in logits.argmax(dim=1).tolist()]
    assert model.config.num_hidden_layers == 2
    return sum(mine == truth for mine, (_, truth) in zip(chosen, rows, strict=True)) / len(rows)


@pytest.mark.training
def test_distill_from_end_to_end(here, capsys):
    command = ["distill", "./m", "--data", "./d", "--layers", "2", "--epochs", "1", "-o", "out"]
    assert run([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert "01-distill: distill to 2 layers" in err
    assert NOT_TIMED in report["notes"]
    assert "latency" not in {m["metric"] for s in report["snapshots"] for m in s["measurements"]}
    stage = next(s for s in report["snapshots"] if s["role"] == "stage")
    assert [s["role"] for s in report["snapshots"]] == ["reference", "stage", "baseline"]
    accuracy = next(m for m in stage["measurements"] if m["metric"] == "accuracy")["samples"][0][0]
    assert stock_accuracy(here / "out", here / "d" / "dev.tsv") == pytest.approx(accuracy)
    assert json.loads((here / "out" / "report.json").read_text()) == report
    (folder,) = (here / "runs").iterdir()
    assert {"recipe.yaml", "report.json", "report.md", "report.html", "01-distill"} <= {
        path.name for path in folder.iterdir()
    }
    assert not list(folder.glob(".work/*/*/*")), "checkpoints go when the stage is stored"

    before = listing(here / "out")
    made = listing(folder / "01-distill")
    assert run(command) == 0, "the same command again finds everything there"
    out, err = capsys.readouterr()
    assert "01-distill: already finished" in err
    assert "distill to 2 layers" in out
    assert "report: " in out
    assert listing(here / "out") == before
    assert listing(folder / "01-distill") == made

    assert run([*command, "--seed", "1"]) == 2, "another result does not replace it unasked"
    assert "`out` already exists" in capsys.readouterr().err
    assert run([*command, "--seed", "1", "--force", "-q"]) == 0
    assert capsys.readouterr().err == ""
    assert listing(here / "out") != before
    assert run(["inspect", "out", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["shape"]["layers"], found["task"], found["labels"]) == (2, "classification", ["negative", "positive"])


@pytest.mark.training
@pytest.mark.parametrize(
    ("flags", "timed"), [([], False), (["--no-latency"], False), (["--measure"], True)], ids=["", "no", "yes"]
)
def test_a_command_times_only_when_asked(here, monkeypatch, flags, timed):
    asked = []
    monkeypatch.setattr(work, "carry_out", lambda recipe, **how: asked.append(how["with_latency"]) or 0)
    for command in COMMANDS.values():
        model = ["./m"] if command.techniques[0].takes else []
        assert run([command.name, *model, *flags]) == 0
    assert asked == [timed] * len(COMMANDS)
    asked.clear()
    assert run(["bench", "./m"]) == run(["run", "quickstart"]) == 0
    assert asked == [True, True]


def test_bench_uses_every_model_for_the_task_that_was_named(here, capsys, monkeypatch):
    """Masked language models compared as sentence encoders; the texts are pairs, of which each side is one."""
    from bertshrink.meters.quality.evaluators import EmbeddingEvaluator
    from bertshrink.pipeline.run import Run

    for name, seed in (("a", 1), ("b", 2)):
        (here / name).mkdir()
        tiny_encoder("bert", "mlm", seed=seed).save(here / name)
    lines = [f"{one}\t{two}" for one, two in zip(sentences(12), sentences(12, seed=5), strict=True)]
    (here / "pairs.tsv").write_text("\n".join(["sentence1\tsentence2", *lines]) + "\n")
    sat = []
    original = EmbeddingEvaluator.answer
    monkeypatch.setattr(
        EmbeddingEvaluator, "answer", lambda exam, model: sat.append(model.source) or original(exam, model)
    )
    monkeypatch.setattr(Run, "_running", lambda run: None)
    command = ["bench", "./a", "./b", "--data", "pairs.tsv", "--task", "embedding", "--length", "8", "--json"]
    assert run([*command, "--dimensions", "16,8"]) == 0, capsys.readouterr().err
    report = json.loads(capsys.readouterr().out)
    assert all(f'"{figure}"' in json.dumps(report) for figure in ("spearman@16d", "recall@10@8d"))
    assert report["schema"] == "bertshrink.bench/2"
    assert [model["facts"]["task"] for model in report["models"]] == ["embedding", "embedding"]
    assert report["data"]["train"] + report["data"]["dev"] >= 23
    assert sat == ["./a", "./b"], "each is judged once"


@pytest.mark.training
def test_a_damaged_stage_is_refused_not_used(here, capsys):
    assert run(DISTILL) == 0
    (stage,) = (here / "runs").glob("*/01-distill")
    path = stage / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert run(DISTILL) == 5
    assert "has changed since bertshrink wrote it" in capsys.readouterr().err


def test_inspect_of_a_model_saved_for_another_task(here, capsys):
    config(architectures=["BertForNextSentencePrediction"])(here)
    assert run(["inspect", "m"]) == 2
    assert "choose one with `task:` in the recipe or `--task`" in capsys.readouterr().err
    assert run(["inspect", "m", "--task", "mlm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == "mlm"
    assert run(["inspect", "m", "--task", "x"]) == 2
    assert THREE_PARTS.fullmatch(capsys.readouterr().err)


def test_one_json_document_each(here, capsys):
    for argv in (["inspect", "m", "--json"], ["doctor", "--json"], ["recipe", "schema"]):
        assert run(argv) == 0
        json.loads(capsys.readouterr().out)
    for argv in (["inspect", "m"], ["doctor"]):
        assert run(argv) == 0
        out, err = capsys.readouterr()
        assert out
        assert err == ""
