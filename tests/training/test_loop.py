"""The training loop: signals, steps without a finite loss, early stopping, accumulation; on tiny models."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bertshrink.cli.app import run
from bertshrink.errors import CheckFailed, MissingDependency, Terminated, UserError
from bertshrink.meters.quality.evaluators import chooser
from bertshrink.model.families import FAMILIES
from bertshrink.progress import Silent
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.finetune import Finetune
from bertshrink.training import cpu_kernels
from bertshrink.training.callback import best_of
from bertshrink.training.checkpoint_integrity import CHECKPOINTS
from bertshrink.training.loop import TrainingJob, train
from bertshrink.training.rows.batching import Collator, TokenizedRows
from bertshrink.training.settings import TrainingSettings
from tests.support.pairwise import matrix
from tests.support.tiny import tiny_encoder, tiny_project, tiny_texts

pytestmark = pytest.mark.training

ROOT = Path(__file__).parents[2]


class Line(torch.nn.Module):
    """y = w x on one number per row; some rows cost infinity."""

    def __init__(self, bad=(), seen=None):
        super().__init__()
        torch.manual_seed(0)
        self.student = torch.nn.Linear(1, 1)
        self.student.config = SimpleNamespace(model_type="bert")
        self.bad, self.calls, self.seen = set(bad), 0, seen if seen is not None else []

    def forward(self, **batch):
        self.calls += 1
        self.seen.append(batch["rows"].tolist())
        x = batch["input_ids"].float()[:, :1]
        loss = ((self.student(x) - 3 * x) ** 2).mean()
        if self.calls in self.bad:
            loss = loss * float("nan")
        return loss, {"part": loss}


def job_of(objective, num_rows=40, epochs=2.0, rate=1e-2, **more):
    rows = TokenizedRows(
        [{"input_ids": [1 + i % 5], "attention_mask": [1]} for i in range(num_rows)], [None] * num_rows
    )
    return TrainingJob("test", objective, rows, Collator("embedding", 0), epochs, rate, **more)


def settings(**more):
    return TrainingSettings(**({"batch_size": 4, "precision": "float32"} | more))


def go(job, folder, **more):
    return train(job, settings(**more), work=folder, seed=0, progress=Silent())


@matrix(("family", "asked"), FAMILIES, (False, True), strength=1)
def test_attention_drops_out_where_that_is_fast_or_asked_for(family, asked, tmp_path, monkeypatch):
    kept, attention = ({"attention_dropout": True}, 0.1) if asked else ({}, 0.0)
    seen, hidden = set(), set()
    attend, drop = cpu_kernels.attention, cpu_kernels.FastDropout.forward

    def attending(*given, dropout=0.0, **more):
        seen.add(dropout)
        return attend(*given, dropout=dropout, **more)

    def dropping(module, given):
        hidden.add(module.p)
        return drop(module, given)

    monkeypatch.setattr(cpu_kernels, "attention", attending)
    monkeypatch.setattr(cpu_kernels.FastDropout, "forward", dropping)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    row = FAMILIES[family]
    fields = {row.field(f"{part}_dropout_prob") for part in ("attention_probs", "hidden")} | {row.text_head.dropout}
    model = tiny_encoder(family, **dict.fromkeys(fields, 0.1))
    has_dropout = any(isinstance(module, torch.nn.Dropout) for module in model.model.modules())
    bench = Workbench(tiny_texts("classification"), model, tmp_path, task="classification")
    Finetune(epochs=1, batch_size=16, **kept)(model, bench)
    assert seen == ({attention} if model.model._supports_sdpa else set())
    assert 0.1 in hidden or not has_dropout
    assert any("attention dropout is off" in note for note in bench.notes) == (not kept)


def test_a_step_without_a_finite_loss_is_left_out_and_counted(tmp_path):
    objective = Line(bad={3, 8})
    found = go(job_of(objective), tmp_path)
    assert all(torch.isfinite(p).all() for p in objective.parameters())
    assert sum(entry.get("skipped", 0) for entry in found.history) == 2
    assert any("2 of 20 steps had a non-finite loss" in note for note in found.notes)
    left_out = [entry for entry in found.history if "skipped" in entry]
    assert [entry["step"] for entry in left_out] == [3, 8]
    assert not any("loss" in entry or "part" in entry for entry in left_out), "a curve has no point without a loss"
    assert all(entry["loss"] > 0 for entry in found.history if entry not in left_out)


def test_a_point_of_the_curve_is_the_mean_of_the_steps_that_were_not_left_out(tmp_path):
    class Known(Line):
        def forward(self, **batch):
            loss, parts = super().forward(**batch)
            costs.append(float(loss.detach()))
            return loss, parts

    costs = []
    found = go(job_of(Known(bad={3}), num_rows=400, epochs=2.0), tmp_path)
    for at, entry in enumerate(found.history):
        finite = [cost for cost in costs[2 * at : 2 * at + 2] if cost == cost]
        assert entry["loss"] == entry["part"] == pytest.approx(sum(finite) / len(finite))
    assert len(found.history) == 100 and found.history[1]["skipped"] == 1


def test_a_step_left_out_moves_nothing(tmp_path):
    class Spy(Line):
        def forward(self, **batch):
            weights.append(float(self.student.weight.detach()))
            return super().forward(**batch)

    weights = []
    go(job_of(Spy(bad={3})), tmp_path)
    assert weights[2] == weights[3] != weights[4]


def test_training_goes_back_once_and_then_goes_on(tmp_path):
    objective = Line(bad={11, 12, 13})
    found = go(job_of(objective), tmp_path, max_nonfinite_steps=3, save_steps=5)
    assert any("went back to a checkpoint" in note for note in found.notes)
    assert any("checkpoint of step 10" in note for note in found.notes)
    assert found.history[-1]["step"] == 20
    assert objective.seen[10:13] != objective.seen[13:16], "the same batches would fail again"


def test_a_signal_is_heard_although_training_goes_back(tmp_path):
    class Told(Line):
        def forward(self, **batch):
            if self.calls == 12:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(**batch)

    objective = Told(bad={11, 12, 13})
    with pytest.raises(Terminated, match="stopped by SIGTERM after step 11"):
        go(job_of(objective), tmp_path, max_nonfinite_steps=3, save_steps=5)
    assert (tmp_path / CHECKPOINTS / "checkpoint-11" / "MANIFEST.json").is_file()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_time_is_the_end(tmp_path):
    objective = Line(bad=range(11, 100))
    with pytest.raises(CheckFailed, match="3 times in a row, and was so before"):
        go(job_of(objective), tmp_path, max_nonfinite_steps=3, save_steps=5)


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tmp_path):
    with pytest.raises(CheckFailed, match="not finite at step 3"):
        go(job_of(Line(bad=range(100))), tmp_path, max_nonfinite_steps=3, save_steps=50)


def test_early_stopping_keeps_the_best(tmp_path):
    objective, values, weights = Line(), iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.9]), []

    def judge():
        weights.append(float(objective.student.weight.detach()))
        return next(values)

    found = go(job_of(objective, epochs=8, judge=judge), tmp_path, early_stopping_patience=3, eval_steps=5)
    assert len(weights) == 5, "three without gain after the second"
    assert float(objective.student.weight.detach()) == weights[1]
    assert [entry["judged"] for entry in found.history if "judged" in entry] == [0.1, 0.5, 0.4, 0.3, 0.2]
    assert any("step 10 were best" in note and "stopped at step 25 of 80" in note for note in found.notes)
    again = Line()
    second = go(job_of(again, epochs=8, judge=lambda: 1.0), tmp_path, early_stopping_patience=3, eval_steps=5)
    assert float(again.student.weight.detach()) == weights[1], "nothing is trained on after the end"
    assert second.history[-1] == found.history[-1]


def test_going_back_keeps_the_best_that_was_known_there(tmp_path):
    """Judged every step, better every time until training goes back to a step long before, and worse from then on."""
    objective, weights = Line(bad={17, 18, 19}), []

    def judge():
        weights.append(float(objective.student.weight.detach()))
        return 0.01 * len(weights) if len(weights) <= 16 else -1.0

    found = go(
        job_of(objective, judge=judge),
        tmp_path,
        early_stopping_patience=99,
        eval_steps=1,
        save_steps=10,
        max_nonfinite_steps=3,
    )
    assert any("went back to a checkpoint" in note for note in found.notes)
    assert any("step 10 were best" in note for note in found.notes)
    assert float(objective.student.weight.detach()) == weights[9]


def test_a_judgement_that_is_no_number_is_the_worst():
    def history(*values):
        return [{"step": i, "judged": value} for i, value in enumerate(values)]

    nan = float("nan")
    assert best_of(history(nan, 0.1, nan)) == (1, 0.1)
    assert best_of(history(0.2, nan, 0.2))[0] == 0
    assert best_of(history(nan, nan))[0] == 0


def test_best_weights_that_are_damaged_are_no_result(tmp_path):
    def judge():
        (tmp_path / CHECKPOINTS / "best-5" / "model.safetensors").unlink(missing_ok=True)
        return 1.0

    with pytest.raises(CheckFailed, match="the best weights, of step 5, are incomplete"):
        go(job_of(Line(), judge=judge), tmp_path, early_stopping_patience=2, eval_steps=5)


def test_albert_has_no_gradient_checkpointing(tmp_path):
    teacher = tiny_encoder("albert")
    bench = Workbench(tiny_texts("classification"), teacher, tmp_path)
    with pytest.raises(UserError, match="transformers has none for AlbertForSequenceClassification"):
        Distill(layers=2, epochs=1, gradient_checkpointing=True)(teacher.copy(), bench)


def test_without_patience_nothing_is_judged(tmp_path):
    go(job_of(Line(), judge=lambda: 1 / 0), tmp_path)


@pytest.mark.parametrize("more", [{"gradient_checkpointing": True}, {"gradient_accumulation_steps": 2}])
def test_saving_memory_changes_no_weight(more, tmp_path):
    """Rows of one length: a step in two parts has the gradient of the whole."""
    teacher = tiny_encoder()
    texts = tiny_texts("classification", 1, 8)
    twice = Workbench(tiny_texts("classification", 64, 8), teacher, tmp_path / "1"), None
    made = []
    for number, own in enumerate(({}, more)):
        bench = Workbench(twice[0].texts, teacher, tmp_path / str(number))
        given = {"layers": 2, "epochs": 1, "dropout": False, "batch_size": 64, "soft_weight": 1, "hidden_weight": 0}
        made.append(Distill(**given, **own)(teacher.copy(), bench).model.state_dict())
    assert texts is not None
    for name, value in made[0].items():
        assert torch.allclose(value, made[1][name], atol=2e-4), name


def test_a_tracker_that_is_not_there_is_told_with_its_install_line(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="`report_to` names mlflow"):
        go(job_of(Line()), tmp_path, report_to=("mlflow",))


def test_a_folder_of_curves_is_no_tracker(tmp_path, monkeypatch):
    (tmp_path / "mlflow").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(MissingDependency, match="`report_to` names mlflow"):
        go(job_of(Line()), tmp_path, report_to=("mlflow",))


def test_curves_for_tensorboard_stay_when_the_checkpoints_are_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    go(job_of(Line()), tmp_path / "work", report_to=("tensorboard",))
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert folder.name == "test-work" and list(folder.glob("events.*"))


def test_a_real_student_stops_early_and_resumes(tmp_path):
    teacher, texts = tiny_encoder(), tiny_texts("classification", 80, 8)
    bench = Workbench(texts, teacher, tmp_path, choose=chooser(lambda: teacher, texts, None, 0))
    Distill(layers=2, epochs=4, batch_size=8, early_stopping_patience=2, eval_steps=3)(teacher.copy(), bench)
    judged = [entry for entry in bench.history if "judged" in entry]
    assert judged and any("were best" in note for note in bench.notes)
    assert any("loss" in entry for entry in bench.history), "judging swallows no point of the curve"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("signals")
    tiny_project(place, 160)
    return place


def words_of(runs):
    words = ["distill", "m", "--data", "d.tsv", "--layers", "2", "--no-latency"]
    return [*words, "--epochs", "3", "--batch-size", "4", "--save-steps", "10", "--runs", runs, "-o", f"out-{runs}"]


def start(place, runs):
    command = [sys.executable, "-m", "bertshrink", *words_of(runs)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.matrix)]
)
def test_a_signal_ends_training_after_its_step_and_the_same_command_goes_on(
    place, number, code, monkeypatch, capsys, one_thread
):
    monkeypatch.chdir(place)
    undisturbed = place / "out-whole" / "model.safetensors"
    if not undisturbed.is_file():
        assert run(words_of("whole")) == 0
    process = start(place, f"cut-{code}")
    end = time.monotonic() + 120
    while not list((place / f"cut-{code}").glob("*/.work/*/*/checkpoints/checkpoint-*/MANIFEST.json")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == code, told
    assert "run the same command to resume" in told and "Traceback" not in told
    (folder,) = (place / f"cut-{code}").glob(f"*/.work/*/*/{CHECKPOINTS}")
    stopped = int(told.rpartition("after step ")[2].partition(";")[0])
    assert (folder / f"checkpoint-{stopped}" / "MANIFEST.json").is_file()
    capsys.readouterr()
    assert run(words_of(f"cut-{code}")) == 0
    assert f"resuming at step {stopped}" in capsys.readouterr().err
    assert (place / f"out-cut-{code}" / "model.safetensors").read_bytes() == undisturbed.read_bytes()
