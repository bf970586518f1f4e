"""Two processes train as one: the same losses, one of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bertshrink.errors import RequestError
from bertshrink.training.processes import refuse_sharding
from tests.tiny import tiny_project

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("processes")
    tiny_project(place, 96)
    return place


def run(place, runs, *launcher):
    # Judged on the way, so that the first process has to tell the other.
    command = [*launcher, "distill", "m", "--data", "d.tsv", "--layers", "2", "--epochs", "2", "--batch-size", "16"]
    command += ["--no-dropout", "--no-latency", "-q", "--json", "--runs", runs, "--patience", "9", "-o", f"out-{runs}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)  # one document, whoever else ran


@pytest.mark.parametrize("launcher", ["torch.distributed.run", "accelerate.commands.launch"])
def test_two_processes_have_the_losses_of_one(place, launcher):
    two = [sys.executable, "-m", launcher]
    two += ["--nproc-per-node" if "torch" in launcher else "--num_processes", "2"]
    two += [
        "--master-port" if "torch" in launcher else "--main_process_port",
        "29517" if "torch" in launcher else "29518",
    ]
    two += ["--cpu"] if "accelerate" in launcher else []
    one = run(place, "one", sys.executable, "-m", "bertshrink")
    both = run(place, f"two-{launcher[:5]}", *two, "-m", "bertshrink")
    mine, theirs = (next(s for s in report["snapshots"] if s["name"] == "01-distill") for report in (one, both))
    losses = [entry for entry in mine["history"] if "loss" in entry]
    assert len(losses) >= 10
    for a, b in zip(mine["history"], theirs["history"], strict=True):
        assert a["step"] == b["step"] and set(a) == set(b)
        for name in set(a) & {"loss", "soft", "task", "hidden", "judged", "learning_rate"}:
            assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-5), (name, a["step"])
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert (place / f"out-two-{launcher[:5]}" / "model.safetensors").is_file()


def test_sharded_weights_are_refused_by_name(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RequestError, match="`ACCELERATE_USE_FSDP` asks for sharded weights"):
        refuse_sharding()
