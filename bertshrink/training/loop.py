"""The training loop of every stage that trains, on Hugging Face's Trainer.

What is ours on top of it: batches of like length, bfloat16 arithmetic where the hardware has it, denormals flushed
(Adam's moments of unused embedding rows decay into them), steps without a finite loss left out, judging on texts kept
for choosing, signals that wait for the end of a step, and checkpoints that are sealed with a manifest: after a kill,
training goes on from the newest one whose bytes are right, with the weights it would have had.

Where several processes train together (`accelerate launch`, torchrun) each computes its share of every batch; the first
one writes, judges and shows progress.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from bertshrink.errors import CheckFailed, UserError
from bertshrink.files.atomic import output_errors, write_text
from bertshrink.hardware import has_native_bfloat16
from bertshrink.model.families import anatomy_of
from bertshrink.progress import Progress
from bertshrink.training.callback import RollBack, TrainingCallback, best_of, is_spent
from bertshrink.training.checkpoint_integrity import CHECKPOINTS, disk_errors, is_whole, newest_checkpoint, step_of
from bertshrink.training.cpu_kernels import with_cpu_kernels
from bertshrink.training.distributed import ranks
from bertshrink.training.rows.batching import Collator, LengthBucketSampler, TokenizedRows
from bertshrink.training.rows.pretraining_rows import PackedRows
from bertshrink.training.settings import TrainingSettings
from bertshrink.training.stop_signals import StopSignals
from bertshrink.training.trainer import WEIGHTS, BucketTrainer, arguments

_CURVES = {"loss", "judged", "skipped"}
"""What makes an entry of Trainer's log a point of the curves."""
_DIVERGED = "lower `learning_rate`, or set `precision: float32`"
_REORDER = 7919
"""Added to the seed where training went back to a checkpoint: the same batches in the same order would fail again."""


@dataclass
class TrainingJob:
    """What is to be trained.

    Attributes:
        objective: called with a batch (see `batching.Collator`), gives the loss (scalar) and its parts by name. Its
            attribute `student` is the model that is kept; other parameters it has (projections) are only trained.
        epochs: passes over the rows.
        learning_rate: peak.
        dropout: whether the model keeps its own.
        judge: the headline metric of the student as it is, higher is better; for early stopping.
        companions: frozen modules that the objective uses and does not own; moved to the device it runs on.
        tables: parameters that learn by rows (`row_adagrad`); where weights are cut among processes they learn as all
            do.
    """

    name: str
    objective: Any
    rows: TokenizedRows | PackedRows
    collate: Collator
    epochs: float
    learning_rate: float
    dropout: bool = True
    judge: Callable[[], float] | None = None
    companions: tuple[nn.Module, ...] = ()
    tables: tuple[nn.Parameter, ...] = ()


@dataclass
class TrainingResult:
    """What training leaves besides the student.

    Attributes:
        history: the training curves, one dict of numbers per entry, with `step`.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def batches_of(rows: TokenizedRows | PackedRows, settings: TrainingSettings, seed: int) -> LengthBucketSampler:
    """The batches of a run, as this process sees them."""
    size = max(1, settings.batch_size // settings.gradient_accumulation_steps)
    tokens = (
        settings.max_tokens_per_batch // settings.gradient_accumulation_steps if settings.max_tokens_per_batch else None
    )
    return LengthBucketSampler(rows.lengths, size, tokens, seed, ranks.rank(), ranks.world_size())


def train(job: TrainingJob, settings: TrainingSettings, *, work: Path, seed: int, progress: Progress) -> TrainingResult:
    """Train `job.objective` in place; afterwards its student is in eval mode on the CPU.

    Args:
        work: a folder for checkpoints; what is there is gone on from.

    Raises:
        CheckFailed: the loss was not finite `max_nonfinite_steps` times in a row, twice.
        Interrupted, Terminated: a signal asked for an end; a checkpoint was written.
        MissingDependency: a tracker is not installed.
        UserError: activations cannot be computed twice.
        OutputError: the disk is full.
    """
    settings.check_trackers()
    torch.set_flush_denormal(True)
    outcome = TrainingResult()
    student: Any = job.objective.student
    if not job.dropout:
        drop_dropout(job.objective)
    elif not keeps_attention_dropout(settings):
        only = anatomy_of(student.config.model_type).attention_dropout
        if drop_dropout(student, only):
            outcome.notes.append("attention dropout is off: it would halve the speed of long texts on a CPU")
    if settings.gradient_checkpointing:
        if not student.supports_gradient_checkpointing:
            missing = f"`gradient_checkpointing` is set, and transformers has none for {type(student).__name__}"
            raise UserError(missing, hint="leave it out; `gradient_accumulation_steps` saves memory as well")
        student.activation_checkpointing_enable()
    folder = work / CHECKPOINTS
    if ranks.is_main():
        newest_checkpoint(folder)  # deletes what does not count, before anyone looks
    ranks.broadcast_from_main(None)
    with StopSignals() as stops, with_cpu_kernels(student, job.companions, compiled=settings.compile):
        _TrainingRun(job, settings, folder, seed, progress, stops, outcome).go()
    if stops.number is not None:  # it came after the last step
        raise stops.error(None)
    return outcome


@dataclass
class _TrainingRun:
    """One call of `train`: what is trained, how and where, and what comes of it."""

    job: TrainingJob
    settings: TrainingSettings
    folder: Path
    seed: int
    progress: Progress
    stops: StopSignals
    outcome: TrainingResult

    def go(self) -> None:
        """Train, and once more from the last checkpoint if the loss stays without a finite value."""
        times = f"{self.settings.max_nonfinite_steps} times in a row"
        for attempt in (0, 1):
            try:
                self._attempt()
                return
            except RollBack as failure:
                start = newest_checkpoint(self.folder, delete=False)
                rollbacks = _rollbacks(self.folder)
                if start is None or rollbacks or attempt:
                    raise CheckFailed(
                        f"the loss is not finite at step {failure.step}, {times}"
                        + (", and was so before: training diverged" if rollbacks else ": training diverged"),
                        hint=_DIVERGED,
                    ) from None
                _write_rollbacks(self.folder, rollbacks + 1)
                ranks.broadcast_from_main(None)
                self.progress.log(f"no finite loss {times}: back to step {step_of(start)}")
        raise AssertionError("two attempts end in an outcome or an error")

    def _attempt(self) -> None:
        """Train from the newest checkpoint, or from the start, to the end."""
        job, settings, folder, outcome = self.job, self.settings, self.folder, self.outcome
        rollbacks = _rollbacks(folder)
        sampler = batches_of(job.rows, settings, self.seed + _REORDER * rollbacks)
        steps_an_epoch = math.ceil(len(sampler) / settings.gradient_accumulation_steps)
        num_steps = max(1, math.ceil(job.epochs * steps_an_epoch))
        tenth = max(1, math.ceil(num_steps / 10))
        num_tokens = job.epochs * sum(job.rows.lengths)
        start = newest_checkpoint(folder, delete=False)
        done = step_of(start) if start is not None else 0
        if start is not None:
            self.progress.log(f"resuming at step {done} of {num_steps}")
            outcome.notes.append(f"resumed from the checkpoint of step {done}")
        watch = TrainingCallback(settings, settings.eval_steps or tenth, job.judge, folder)
        with (
            output_errors(folder),
            self.progress.task(job.name, num_tokens, "tokens", done=num_tokens * done / num_steps) as task,
        ):
            trainer = BucketTrainer(
                model=job.objective,
                args=arguments(
                    folder,
                    settings,
                    name=f"{job.name}-{folder.parent.name[:8]}",
                    learning_rate=job.learning_rate,
                    num_steps=num_steps,
                    save_steps=settings.save_steps or tenth,
                    seed=self.seed,
                ),
                train_dataset=job.rows,
                data_collator=job.collate,
                companions=job.companions,
                tables=job.tables,
                sampler=sampler,
                dtype=arithmetic(settings),
                task=task,
                watch=watch,
                stops=self.stops,
            )
            with disk_errors(folder):
                if start is None or not is_spent(start, settings):
                    trainer.train(resume_from_checkpoint=str(start) if start is not None else None)
                    trainer.gathered()
                else:
                    trainer.restore(start)
        history = trainer.state.log_history
        watch.share_signal()
        if self.stops.number is not None:
            raise self.stops.error(trainer.state.global_step)
        if settings.early_stopping_patience is not None:
            self._restore_best(history, num_steps)
        outcome.history = [_numbers(entry) for entry in history if entry.keys() & _CURVES]
        skipped = int(sum(entry.get("skipped", 0) for entry in outcome.history)) + int(watch.counts().get("skipped", 0))
        if skipped >= num_steps:
            raise CheckFailed("no step had a finite loss: the model was not trained", hint=_DIVERGED)
        if skipped:
            outcome.notes.append(f"{skipped} of {num_steps} steps had a non-finite loss and were skipped")
        if rollbacks:
            outcome.notes.append("the loss was not finite once: training went back to a checkpoint")
        trainer.release()
        job.objective.to("cpu").eval()

    def _restore_best(self, history: list[dict[str, Any]], num_steps: int) -> None:
        """Load the weights that judged best, and say when that was."""
        step, value = best_of(history)
        best = self.folder / f"best-{step}"
        if not is_whole(best):
            raise CheckFailed(
                f"the best weights, of step {step}, are incomplete", hint=f"delete `{self.folder}` and train again"
            )
        safetensors.torch.load_model(self.job.objective, best / WEIGHTS)
        last = max(int(entry["step"]) for entry in history if "judged" in entry)
        stopped = f"; training stopped at step {last} of {num_steps}" if last < num_steps else ""
        self.outcome.notes.append(
            f"the weights of step {step} were best on the texts held out for choosing ({value:.4f}){stopped}"
        )


def arithmetic(settings: TrainingSettings) -> torch.dtype:
    """The type that training multiplies in."""
    wanted = settings.precision == "bfloat16" or (settings.precision == "auto" and has_native_bfloat16())
    return torch.bfloat16 if wanted else torch.float32


def keeps_attention_dropout(settings: TrainingSettings) -> bool:
    """Whether attention's weights are dropped out where the model's own dropout is kept.

    With it PyTorch computes attention on a CPU without its fused kernel, as whole matrices of length by length.
    """
    return torch.cuda.is_available() if settings.attention_dropout is None else settings.attention_dropout


_NUMBER = "attention_dropout"


def drop_dropout(module: nn.Module, only: str = "") -> bool:
    """Set every dropout whose path ends in `only` to 0; returns whether any was more.

    A dropout is a module, or a number that a module of attention keeps for a function.
    """
    was_any = False
    for name, part in module.named_modules():
        if isinstance(part, nn.Dropout) and name.endswith(only):
            was_any, part.p = was_any or part.p > 0, 0.0
        number = getattr(part, _NUMBER, None)
        if isinstance(number, float | int) and f"{name}.{_NUMBER}".endswith(only):
            was_any = was_any or number > 0
            setattr(part, _NUMBER, 0.0)
    return was_any


def _numbers(entry: dict[str, Any]) -> dict[str, float]:
    numbers = {key: float(value) for key, value in entry.items() if isinstance(value, int | float)}
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def _rollbacks(folder: Path) -> int:
    """How often training has gone back to a checkpoint."""
    path = folder / "rollbacks.json"
    return int(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else 0


def _write_rollbacks(folder: Path, number: int) -> None:
    if ranks.is_main():
        write_text(folder / "rollbacks.json", json.dumps(number))
