"""Help, version, and what flags become."""

import json
import re

import pytest

import bertshrink
from bertshrink.cli import run as work
from bertshrink.cli.app import run
from bertshrink.cli.commands import ENTRIES, made
from bertshrink.cli.help import DOCS
from bertshrink.model.tasks import TASKS
from bertshrink.recipe.command_table import COMMANDS
from tests.support.model_folders import model_folder


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"bertshrink {bertshrink.__version__}\n"


@pytest.mark.subprocess
@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["--help-all"]])
def test_help_names_every_command(capsys, argv):
    assert run(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name in (*COMMANDS, "run", "bench", "inspect", "doctor", "gate", "recipe", "targets"):
        assert f" {name} " in out
    assert out.rstrip().endswith(DOCS)


def test_the_table_says_of_each_command_what_the_command_says():
    for name, entry in ENTRIES.items():
        assert made(name).help.splitlines()[0] == entry.summary, name


def pages():
    """Every command by its words, with what Typer made of it."""
    for name in ENTRIES:
        below = getattr(made(name), "commands", None)
        yield from [((name,), made(name))] if below is None else (((name, sub), below[sub]) for sub in below)


PAGES = list(pages())


@pytest.mark.parametrize(("words", "command"), PAGES, ids=[" ".join(words) for words, _ in PAGES])
def test_help_shows_at_most_five_options_and_counts_the_others(capsys, words, command):
    every = {parameter.name: parameter for parameter in command.params if parameter.param_type_name == "option"}
    assert set(command.primary) <= set(every), "what the table marks exists"
    assert run([*words, "--help"]) == 0
    short = capsys.readouterr().out
    assert run([*words, "--help-all"]) == 0
    whole = capsys.readouterr().out
    first = set(command.primary) or set(every)
    assert len(first) <= 5
    for name, parameter in every.items():
        flag = max(parameter.opts, key=len)
        row = rf"^  (-\w, )?{flag}( |$)"
        assert re.search(row, whole, re.M), flag
        assert bool(re.search(row, short, re.M)) == (name in first), flag
    more = len(every) - len(first)
    told = f"{more} more options: `bertshrink {' '.join(words)} --help-all`."
    assert (told in " ".join(short.split())) == bool(more)
    assert short.rstrip().endswith(DOCS)
    assert whole.rstrip().endswith(DOCS)


@pytest.mark.parametrize(
    ("command", "panels"),
    [
        ("distill", ["Model and data", "Distill", "Losses", "Training", "Measuring", "Output"]),
        ("quantize", ["Model and data", "Quantize", "Export", "Measuring", "Output"]),
    ],
)
def test_panels_come_from_the_techniques_fields(capsys, command, panels):
    assert run([command, "--help-all"]) == 0
    assert re.findall(r"^([A-Z][^:\n]*):$", capsys.readouterr().out, re.M) == ["Arguments", *panels]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_fits_the_window_without_escapes(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    for words, _ in PAGES:
        assert run([*words, "--help-all"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    wide = [line.strip() for line in out.splitlines() if len(line) > min(columns, 100)]
    assert all(" " not in line or line.startswith("-") for line in wide), "addresses and options are not broken"


def test_choices_numbers_and_switches_say_what_they_take(capsys):
    assert run(["export", "--help-all"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "--to onnx|ort|executorch file format" in out
    assert "--opset N version" in out
    assert "--tolerance X largest" in out
    assert re.search(r"--int8 / --no-int8 [^\[]*\[default: --no-int8\]", out)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_help_of_a_command_names_every_setting_and_its_source(capsys, command):
    assert run([command.name, "--help-all"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for technique in command.techniques:
        assert technique.paper in out
        for name in command.flag_names(technique).values():
            assert f"--{name.replace('_', '-')}" in out


@pytest.mark.parametrize(
    ("command", "first"), [("distill", "--layers"), ("finetune", "--mask-share"), ("pretrain", "--family")]
)
def test_help_shows_a_techniques_own_settings_before_those_of_all_training(capsys, command, first):
    assert run([command, "--help-all"]) == 0
    out = capsys.readouterr().out
    assert 0 < out.index(first) < out.index("--epochs") < out.index("--report-to") < out.index("--quiet")


def test_help_of_task_names_every_task(capsys):
    assert run(["finetune", "--help-all"]) == 0
    out = "".join(capsys.readouterr().out.split())
    assert f"auto,{','.join(TASKS)}" in out


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (["--report-to", "wandb,mlflow"], {"report_to": ("wandb", "mlflow")}),
        (["--no-dropout"], {"dropout": False}),
        (
            ["--gradient-checkpointing", "--gradient-accumulation-steps", "2"],
            {"gradient_checkpointing": True, "gradient_accumulation_steps": 2},
        ),
        (
            ["--precision", "float32", "--early-stopping-patience", "3"],
            {"precision": "float32", "early_stopping_patience": 3},
        ),
    ],
)
def test_flags_of_training_become_settings(tmp_path, monkeypatch, flags, settings):
    monkeypatch.chdir(tmp_path)
    model_folder(tmp_path / "m")
    seen = []
    monkeypatch.setattr(work, "carry_out", lambda recipe, **more: seen.append(recipe) or 0)
    assert run(["finetune", "./m", "--data", "./d", *flags]) == 0
    (stage,) = seen[0].stages
    assert stage.technique.model_dump(exclude_unset=True) == settings


def test_shipped_recipes(capsys):
    assert run(["recipe", "list"]) == 0
    assert "quickstart  Halve a sentence encoder" in capsys.readouterr().out
    assert run(["recipe", "schema"]) == 0
    assert "model" in json.loads(capsys.readouterr().out)["properties"]
