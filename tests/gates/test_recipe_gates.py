"""Gates where models run: a recipe's own, a report's figures of the very file, and two artifacts timed in turn."""

import json
import shutil

import pytest

from bertshrink.cli.app import run
from bertshrink.files.atomic import sha256_file
from bertshrink.gates.paired_timing import race
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.progress import Silent
from bertshrink.report.report import Report
from tests.support.tiny import sentences, tiny_encoder

pytestmark = [pytest.mark.subprocess, pytest.mark.usefixtures("one_thread")]
RECIPE = """model: ./m
data: {dev: d.tsv, train: d.tsv}
stages:
  - export
  - quantize: {min_cosine: 0}
measure: {latency: false}
gates:
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model `m`, texts, and what a recipe without gates makes of them."""
    folder = tmp_path_factory.mktemp("world")
    rows = [f"{text}\t{('negative', 'positive')[i % 2]}" for i, text in enumerate(sentences(40, seed=3))]
    (folder / "d.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    (folder / "m").mkdir()
    tiny_encoder().save(folder / "m")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "r.yaml").write_text(RECIPE.replace("gates:\n", ""))
        assert run(["run", "r.yaml", "-q"]) == 0
    return folder


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    folder = shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder


def test_a_recipes_gates_are_judged_against_its_reference(here, capsys):
    (here / "r.yaml").write_text(RECIPE + '  size: "<= 1 MB"\n  accuracy_drop: "<= 100 pt"\n  nodes: "<= 1000"\n')
    assert run(["run", "r.yaml", "-q", "--json", "-o", "out"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["name"] == "r", "stdout is the report alone"
    assert "every rule holds" in printed.err
    assert "answers lost" in printed.err
    assert (here / "out" / "onnx" / "model_quantized.onnx").is_file()


def test_a_broken_gate_publishes_nothing(here, capsys):
    (here / "r.yaml").write_text(RECIPE + '  size: "<= 1 kB"\n')
    assert run(["run", "r.yaml", "-q", "-o", "out"]) == 1
    told = capsys.readouterr().err
    assert "r.yaml:8:3" in told
    assert "nothing is written at out" in told
    assert not (here / "out").exists()


def test_what_was_not_measured_is_no_pass(here, capsys):
    (here / "r.yaml").write_text(RECIPE + '  memory: "<= 1 GB"\n')
    assert run(["run", "r.yaml", "-q"]) == 3
    assert "does not contain it" in capsys.readouterr().err


def test_a_misspelt_gate_is_told_before_anything_runs(here, capsys):
    (here / "r.yaml").write_text(RECIPE + '  sise: "<= 1 kB"\n')
    assert run(["run", "r.yaml", "-q"]) == 2
    assert "r.yaml:8:3\nhint: did you mean `size`?" in capsys.readouterr().err


def test_the_report_of_a_run_is_of_the_artifact_that_it_made(here, capsys):
    """From a real run to a real gate: hashes, outcomes and questions fit together."""
    report = Report.read(here / "runs/r/report.json")
    assert report.snapshots[-1].facts["sha256"] == sha256_file(here / "runs/r/02-quantize/onnx/model_quantized.onnx")
    assert report.snapshots[0].facts["sha256"] == sha256_file(here / "m/model.safetensors")
    text = '[gate]\nartifact = "runs/r/02-quantize"\nreport = "runs/r/report.json"\n'
    text += 'accuracy_drop = "<= 0 pt"\nsize_growth = "<= 0%"\n'
    (here / "bertshrink.toml").write_text(text)
    assert run(["gate", "--update"]) == 0
    assert run(["gate", "--strict"]) == 0
    assert "(0 answers lost, 0 won, of 40)" in " ".join(capsys.readouterr().out.split())
    assert run(["gate", "runs/r/01-export"]) == 1, "the float file is larger"


def test_two_artifacts_are_timed_in_turn(here, capsys):
    settings = LatencySettings(batch=(1,), length=(8,), rounds=2, seconds=0.01, warmup=0, threads=1)
    ratios = race(here / "runs/r/01-export", here / "runs/r/02-quantize", settings, Silent())
    assert list(ratios) == [(1, 8)]
    ratio = ratios[1, 8]
    assert 0 < ratio.low <= ratio.value <= ratio.high
