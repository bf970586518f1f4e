"""kill -9 in the middle, then the same command again: it finishes, and does nothing twice.

Only what is killed needs a process of its own.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertshrink.cli.app import run as command
from bertshrink.files.atomic import MANIFEST
from tests.support.tiny import sentences, tiny_encoder

pytestmark = [pytest.mark.subprocess, pytest.mark.training, pytest.mark.usefixtures("one_thread")]

WORDS = ["run", "recipe.yaml", "--json"]
RECIPE = """
model: teacher
data: data
stages:
  - distill: {layers: 3, epochs: 1}
  - distill: {layers: 2, epochs: 3, batch_size: 4, save_steps: 5}
measure: {latency: false}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_encoder().save(tmp_path / "teacher")
    (tmp_path / "data").mkdir()
    for side, number in (("train", 160), ("dev", 20)):
        rows = [f"{text}\t{i % 2}" for i, text in enumerate(sentences(number, seed=number))]
        (tmp_path / "data" / f"{side}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def start(place: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "bertshrink", *WORDS],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(found, process, seconds=120):
    end = time.monotonic() + seconds
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing to kill appeared in time"
        time.sleep(0.01)


def test_a_killed_run_goes_on_from_its_last_checkpoint(place, capsys):
    run = place / "runs" / "recipe"
    process = start(place)
    wait_for(lambda: list(run.glob(".work/02-distill/*/checkpoints/checkpoint-10/" + MANIFEST)), process)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    first = (run / "01-distill" / MANIFEST).stat()
    assert not (run / "02-distill").exists()

    code = command(WORDS)
    out, err = capsys.readouterr()
    assert code == 0, err
    report = json.loads(out)
    assert (run / "01-distill" / MANIFEST).stat().st_mtime_ns == first.st_mtime_ns  # not made twice
    assert "01-distill: already finished" in err
    notes = next(s["notes"] for s in report["snapshots"] if s["name"] == "02-distill")
    assert any("resumed from the checkpoint of step" in note for note in notes)
    assert not list(run.glob(".work/*/*"))  # nothing left of the unfinished try

    code = command(WORDS)
    out, err = capsys.readouterr()
    assert code == 0 and err.count("already finished") == 2
    kept = ("name", "measurements", "history")
    assert [{k: s[k] for k in kept} for s in json.loads(out)["snapshots"]] == [
        {k: s[k] for k in kept} for s in report["snapshots"]
    ]


@pytest.mark.matrix
def test_a_run_killed_three_times_ends_with_the_weights_of_one_that_was_not(place, capsys):
    """Killed while its first checkpoint is written, in the middle, and when nothing but the storing is left."""
    (place / "recipe.yaml").write_text(
        "model: teacher\ndata: data\nmeasure: {latency: false}\n"
        "stages:\n  - distill: {layers: 2, epochs: 4, batch_size: 4, save_steps: 20}\n"
    )
    run = place / "runs" / "recipe"
    assert command(WORDS) == 0, capsys.readouterr().err
    weights = (run / "01-distill" / "model.safetensors").read_bytes()
    shutil.rmtree(place / "runs")
    for point in ("checkpoint-20", "checkpoint-100/" + MANIFEST, "checkpoint-160/" + MANIFEST):
        process = start(place)
        wait_for(lambda point=point: list(run.glob(f".work/01-distill/*/checkpoints/{point}")), process)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.communicate()
        assert not (run / "01-distill").exists()
    assert command(WORDS) == 0, capsys.readouterr().err
    assert hashlib.sha256((run / "01-distill" / "model.safetensors").read_bytes()).hexdigest() == (
        hashlib.sha256(weights).hexdigest()
    )
