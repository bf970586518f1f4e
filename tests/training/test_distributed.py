"""Two processes train as one: the same losses, one of them writes."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bertshrink.cli.app import run as command
from bertshrink.errors import UserError
from bertshrink.training.distributed.ranks import check_launcher
from tests.support.tiny import tiny_project

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.subprocess


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("processes")
    tiny_project(place, 96)
    return place


HALVED = ["distill", "m", "--data", "d.tsv", "--layers", "2", "--epochs", "2", "--batch-size", "16"]
HALVED += [
    "--no-dropout",
    "--early-stopping-patience",
    "9",
]  # judged on the way, so that the first process has to tell the other
HALVED += [
    "--precision",
    "float32",
]  # whatever is native here: in bfloat16 halves of a batch do not add up to the whole
RECOVERED = """
name: recovered
model: m
data: d.tsv
stages:
  - factorize: {rank: 8}
  - distill: {trainable: embeddings, match_layers: 2, epochs: 2, precision: float32}
"""


def words_of(runs, words):
    return [*words, "--no-latency", "-q", "--json", "--runs", runs, "-o", f"out-{runs}"]


def run_alone(place, runs, words=HALVED):
    """The report of one process, this one."""
    with contextlib.chdir(place):
        assert command(words_of(runs, words)) == 0
    return json.loads((place / f"out-{runs}" / "report.json").read_text())


def run(place, runs, *launcher, words=HALVED):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [*launcher, *words_of(runs, words)], cwd=place, env=environment, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout), found.stderr  # one document, whoever else ran


FSDP = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
num_processes: 2
use_cpu: true
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_cpu_ram_efficient_loading: true
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port"]
LAUNCHERS = {
    "torchrun": [*TORCHRUN, "29517", "-m", "bertshrink"],
    "accelerate": [*ACCELERATE, "29518", "--cpu", "-m", "bertshrink"],
    "fsdp": [*ACCELERATE, "29519", "--config_file", "fsdp.yaml", str(ROOT / "tests" / "support" / "fsdp_on_cpu.py")],
}


def same_losses(one, both, stage):
    """The points of the first one's curve, which the other has, too."""
    mine, theirs = (next(s for s in report["snapshots"] if s["name"] == stage) for report in (one, both))
    losses = [entry for entry in mine["history"] if "loss" in entry]
    assert len(losses) >= 10
    for a, b in zip(mine["history"], theirs["history"], strict=True):
        assert a["step"] == b["step"] and set(a) == set(b)
        for part in set(a) & {"loss", "soft", "task", "hidden", "judged", "learning_rate"}:
            assert a[part] == pytest.approx(b[part], rel=1e-4, abs=1e-5), (part, a["step"])
    return losses


@pytest.fixture(scope="module")
def halved(place):
    """The report of one process, which every launcher is held against."""
    return run_alone(place, "one")


@pytest.mark.training
@pytest.mark.parametrize(
    "name", ["torchrun", *(pytest.param(n, marks=pytest.mark.matrix) for n in ("accelerate", "fsdp"))]
)
def test_two_processes_have_the_losses_of_one(place, halved, name):
    """`accelerate` alone makes the processes that torchrun makes."""
    (place / "fsdp.yaml").write_text(FSDP)
    both, log = run(place, name, *LAUNCHERS[name])
    losses = same_losses(halved, both, "01-distill")
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert (place / f"out-{name}" / "model.safetensors").is_file()
    if name == "fsdp":  # half of the weights in each, two layers and the rest
        assert log.count("holds 12529 of 25058 weights in 3 units") == 2


@pytest.mark.training
@pytest.mark.matrix
def test_two_processes_recover_embeddings_as_one(place):
    (place / "r.yaml").write_text(RECOVERED)
    words = ["run", "r.yaml"]
    one = run_alone(place, "rows-one", words)
    both, _ = run(place, "rows-two", *TORCHRUN, "29520", "-m", "bertshrink", words=words)
    losses = same_losses(one, both, "02-distill")
    assert losses[-1]["hidden"] < losses[0]["hidden"]


@pytest.mark.training
@pytest.mark.matrix
def test_two_processes_round_weights_as_one(place):
    """In int8 they would not: each measures the range of its own share's activations."""
    words = [*HALVED, "--fake-quant", "int4"]
    one = run_alone(place, "rounded-one", words)
    both, _ = run(place, "rounded-two", *TORCHRUN, "29521", "-m", "bertshrink", words=words)
    same_losses(one, both, "01-distill")


@pytest.mark.parametrize(("name", "says"), [("FSDP", "FSDP is configured in its first"), ("DEEPSPEED", "DeepSpeed is")])
def test_other_sharding_is_refused_by_name(monkeypatch, name, says):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(UserError, match=says):
        check_launcher()


def test_second_version_of_fsdp_loads_models_whole(monkeypatch):
    for name, value in (
        ("ACCELERATE_USE_FSDP", "1"),
        ("FSDP_VERSION", "2"),
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true"),
    ):
        monkeypatch.setenv(name, value)
    check_launcher()
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"
