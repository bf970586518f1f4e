"""Too little memory or disk is told with both figures before anything is made."""

from collections import namedtuple
from pathlib import Path

import pytest

from bertshrink.cli.app import run
from bertshrink.errors import OutputError, UserError
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.sizes.size_estimate import of_encoder
from bertshrink.pipeline import needs
from bertshrink.recipe.from_command_line import recipe_of_command
from bertshrink.recipe.plan import make_plan
from tests.support.tiny import tiny_encoder

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("m").mkdir()
    tiny_encoder("bert", "embedding", num_hidden_layers=2).save(Path("m"))
    return tmp_path


def plan_of(command, **settings):
    return make_plan(recipe_of_command(command, "m", settings, {}, {}))


def test_memory_is_twice_the_weights_and_disk_what_is_written(here):
    weights = of_encoder(read_facts(here / "m")).num_bytes
    found = needs.needs_of(plan_of("export"))
    assert found.memory == round(needs.TIMES_WEIGHTS * weights)
    assert weights < found.output < 1.5 * weights, "an ONNX file"
    assert found.run_folder == 2 * found.output, "where it is made, and where it stays"
    both = needs.needs_of(plan_of("quantize", outlier_features="round"))
    assert both.output < found.output < both.run_folder < found.run_folder + 2 * both.output
    for settings in ({}, {"scheme": "static-int8"}):
        looked_at = needs.needs_of(plan_of("quantize", **settings))
        assert looked_at.run_folder > both.run_folder + 0.5 * found.output, "a float file whose activations are seen"
    assert needs.needs_of(plan_of("quantize"), finished=["01-export", "02-quantize"]) == needs.Needs()
    assert needs.needs_of(plan_of("factorize", rank=8)) == needs.Needs(), "its needs are not known"


def test_too_little_memory_or_disk(here, monkeypatch):
    wanted = needs.Needs(memory=3_000_000_000, run_folder=2_000_000_000, output=1_000_000_000)
    monkeypatch.setattr(needs, "available_memory", lambda: 2_500_000_000)
    with pytest.raises(UserError, match=r"needs about 3.00 GB of memory, and 2.50 GB are available"):
        needs.check_needs(wanted, here / "runs/r", None)
    for free in (None, 3_000_000_000):
        monkeypatch.setattr(needs, "available_memory", lambda free=free: free)
        monkeypatch.setattr(needs.shutil, "disk_usage", lambda place: Usage(0, 0, 2_500_000_000))
        needs.check_needs(wanted, here / "runs/r", None)
        with pytest.raises(OutputError, match=r"needs about 3.00 GB on the disk of `.*runs/r`, and 2.50 GB are free"):
            needs.check_needs(wanted, here / "runs/r", here / "out")  # on the same disk


def test_a_command_ends_before_it_writes_anything(here, monkeypatch, capsys):
    monkeypatch.setattr(needs, "available_memory", lambda: 1000)
    before = sorted(here.rglob("*"))
    for command in (["export", "m", "-o", "out", "-q"], ["quantize", "m", "--dry-run"]):
        assert run(command) == UserError.exit_code
        assert "of memory, and 1.00 kB are available" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda place: Usage(0, 0, 1000))
    assert run(["export", "m", "-o", "out", "-q"]) == OutputError.exit_code
    assert "and 1.00 kB are free" in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


def test_a_dry_run_tells(here, capsys):
    assert run(["quantize", "m", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "export to ONNX" in said
    assert "of memory and" in said
    assert not (here / "runs").exists()
