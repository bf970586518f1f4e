"""What is looked at after every step: is the loss finite, is it time to judge, did a signal come?"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor
from transformers import TrainerCallback

from bertshrink.files.atomic import MANIFEST, seal
from bertshrink.training.distributed import ranks
from bertshrink.training.settings import TrainingSettings

if TYPE_CHECKING:
    from bertshrink.training.stop_signals import StopSignals


class RollBack(Exception):
    """The loss was not finite too often in a row.

    Attributes:
        step: at which it was so.
    """

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class TrainingCallback(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Leaves out steps without a finite loss, judges, and hears signals.

    Args:
        eval_steps: steps between judgings.
        judge: the metric; None: nothing is judged.
        folder: of the checkpoints, where the best weights are kept as well.
    """

    def __init__(
        self, settings: TrainingSettings, eval_steps: int, judge: Callable[[], float] | None, folder: Path
    ) -> None:
        self.settings = settings
        self.eval_steps = eval_steps
        self.judge = judge if settings.early_stopping_patience is not None else None
        self.folder = folder
        self.is_finite: Tensor | None = None
        self.num_in_a_row = 0
        self.num_skipped = 0
        self.heard = 0.0
        self._num_told = 0

    def attach(self, trainer: Any, stops: StopSignals) -> None:
        """Meet the trainer and the signals."""
        self.trainer, self.stops = trainer, stops

    def saw(self, value: Tensor) -> None:
        """Note the loss of a part of a step, or the norm of all gradients, without waiting for the device."""
        is_finite = torch.isfinite(value.detach())
        self.is_finite = is_finite if self.is_finite is None else self.is_finite & is_finite

    def counts(self) -> dict[str, float]:
        """Steps left out since the last time that they were asked for."""
        new, self._num_told = self.num_skipped - self._num_told, self.num_skipped
        return {"skipped": float(new)} if new else {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Keep a step without finite gradients away from weights and moments."""
        assert self.is_finite is not None
        heard = torch.full_like(self.is_finite, self.stops.number or 0, dtype=torch.float32)
        bad, self.heard = ranks.all_reduce_max(torch.stack([(~self.is_finite).float(), heard]))
        self.is_finite = None
        if not bad:
            self.num_in_a_row = 0
            return
        for group in self.trainer.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        self.num_in_a_row += 1
        self.num_skipped += 1
        if self.num_in_a_row >= self.settings.max_nonfinite_steps:
            raise RollBack(state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Judge when it is time, and end when a signal came or nothing is gained any more."""
        step = state.global_step
        if self.judge is not None and (step % self.eval_steps == 0 or step == state.max_steps):
            wants_log = control.should_log
            self._judge(step)
            control.should_log = wants_log  # Trainer takes the judgement for the entry that was due
            if is_hopeless(state.log_history, self.settings):
                control.should_training_stop = control.should_save = True
        if ranks.world_size() == 1:
            self.heard = self.stops.number or 0
        if self.heard:
            self.stops.number = int(self.heard)  # maybe another process heard it
            control.should_training_stop = control.should_save = True

    def share_signal(self) -> None:
        """Let a signal that any process heard be one that all heard."""
        (heard,) = ranks.all_reduce_max(torch.tensor([float(self.stops.number or 0)]))
        self.stops.number = int(heard) or None

    def _judge(self, step: int) -> None:
        """Judge the student as it is, and keep its weights where it is the best so far."""
        assert self.judge is not None
        objective = self.trainer.gathered()
        objective.eval()
        value = ranks.broadcast_from_main(self.judge() if ranks.is_main() else 0.0)
        objective.train()
        self.trainer.log({"judged": value})
        if ranks.is_main() and best_of(self.trainer.state.log_history)[0] == step:
            best = self.folder / f"best-{step}"
            shutil.rmtree(best, ignore_errors=True)
            best.mkdir(parents=True)
            safetensors.torch.save_model(objective, str(best / "model.safetensors"))
            seal(best)
            # A run that goes on from a checkpoint may still need the best weights that were known there.
            needed = {step} | {best_of(known)[0] for known in map(_history, self.folder.glob("checkpoint-*")) if known}
            for old in self.folder.glob("best-*"):
                if int(old.name.rpartition("-")[2]) not in needed:
                    shutil.rmtree(old)


def best_of(history: Sequence[dict[str, Any]]) -> tuple[int, float]:
    """(step, value) of the best judging, the first of equal ones; one that is not a number is the worst."""
    judged = [(int(entry["step"]), float(entry["judged"])) for entry in history if "judged" in entry]
    return max(judged, key=lambda pair: (-math.inf if math.isnan(pair[1]) else pair[1], -pair[0]))


def is_hopeless(history: Sequence[dict[str, Any]], settings: TrainingSettings) -> bool:
    """Whether `early_stopping_patience` judgings have passed since the best."""
    judged = [int(entry["step"]) for entry in history if "judged" in entry]
    if settings.early_stopping_patience is None or not judged:
        return False
    best = best_of(history)[0]
    return sum(step > best for step in judged) >= settings.early_stopping_patience


def is_spent(checkpoint: Path, settings: TrainingSettings) -> bool:
    """Whether a run was at its end when the checkpoint was written, so that nothing is left to train."""
    return is_hopeless(_history(checkpoint), settings)


def _history(checkpoint: Path) -> list[dict[str, Any]]:
    """The judgings up to a checkpoint; none of one that is not whole."""
    path = checkpoint / "trainer_state.json"
    if not (checkpoint / MANIFEST).is_file() or not path.is_file():
        return []
    history = json.loads(path.read_text(encoding="utf-8"))["log_history"]
    return [entry for entry in history if "judged" in entry]
