"""Help, version, and what flags become."""

import json

import pytest

import bertshrink
from bertshrink.cli import run as work
from bertshrink.cli.app import run
from bertshrink.model.tasks import TASKS
from bertshrink.recipe.commands import COMMANDS
from tests.support.model_folders import model_folder


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"bertshrink {bertshrink.__version__}\n"


@pytest.mark.subprocess
@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_names_every_command(capsys, argv):
    assert run(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name in (*COMMANDS, "run", "bench", "inspect", "doctor", "recipe"):
        assert f" {name} " in out


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_help_of_a_command_names_every_setting_and_its_source(capsys, command):
    assert run([command.name, "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for technique in command.techniques:
        assert technique.paper in out
        for name in command.flag_names(technique).values():
            assert f"--{name.replace('_', '-')}" in out


@pytest.mark.parametrize(
    ("command", "first"), [("distill", "--layers"), ("finetune", "--mask-share"), ("pretrain", "--family")]
)
def test_help_shows_a_techniques_own_settings_before_those_of_all_training(capsys, command, first):
    assert run([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert 0 < out.index(first) < out.index("--epochs") < out.index("--report-to") < out.index("--quiet")


def test_help_of_task_names_every_task(capsys):
    assert run(["finetune", "--help"]) == 0
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
