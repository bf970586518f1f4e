"""Trainer as `loop` uses it: an objective instead of a model, our own batches, and someone who watches over it.

On a GPU a step waits for the device once, when it asks whether the step was finite; whatever else is looked at (the
loss, its parts) is summed up there and read when a point of the curves is due. Tables that learn by rows
(`row_adagrad`) wait for the numbers of their rows, too.
"""

from __future__ import annotations

import math
import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from bertshrink.files.atomic import seal
from bertshrink.progress import Task
from bertshrink.training.callback import TrainingCallback
from bertshrink.training.distributed import fsdp, ranks
from bertshrink.training.optim import sparse_adamw as tables
from bertshrink.training.optim.row_adagrad import WhitenedRowAdagrad
from bertshrink.training.rows.batching import LengthBucketSampler
from bertshrink.training.settings import TrainingSettings
from bertshrink.training.stop_signals import StopSignals

WEIGHTS = "model.safetensors"
_LOGS = 100
"""Points on the training curves."""
_COUNT = "batches with a finite loss"


class _Loader(DataLoader[Any]):
    """Batches as `LengthBucketSampler` cuts them; not prepared by Accelerate, which would share them out once more and
    read one batch ahead.
    """

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        self.dataset.epoch = epoch  # type: ignore[attr-defined]


class BucketTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """Trainer with an objective, batches of like length, and someone who watches over it."""

    def __init__(
        self,
        *,
        model: nn.Module,
        companions: tuple[nn.Module, ...],
        tables: tuple[nn.Parameter, ...],
        sampler: LengthBucketSampler,
        dtype: torch.dtype,
        task: Task,
        watch: TrainingCallback,
        stops: StopSignals,
        **more: Any,
    ) -> None:
        super().__init__(model=fsdp.copy_for_fsdp(model) if ranks.is_sharded() else model, **more)
        self.whole = model
        for module in companions:
            module.to(self.args.device)
        self.tables = tables
        self.optimizer: Any
        self.sampler = sampler
        self.dtype = dtype
        self.model_accepts_loss_kwargs = False
        self.task = task
        self.shown: dict[str, str] = {}
        self.sums: dict[str, Tensor] = {}
        self.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to the result
        self.watch = watch
        watch.attach(self, stops)
        self.add_callback(watch)
        if "tensorboard" in watch.settings.report_to and ranks.is_main():
            self.add_callback(_tensorboard(str(self.args.run_name)))

    def get_train_dataloader(self) -> Any:
        """Batches as `LengthBucketSampler` cuts them."""
        return _Loader(self.train_dataset, batch_sampler=self.sampler, collate_fn=self.data_collator)

    def create_optimizer(self, *args: Any, **more: Any) -> Any:
        """AdamW; tables that learn by rows have their own rule."""
        if self.optimizer is None and self.tables and not ranks.is_sharded():
            by_rows = {id(table) for table in self.tables}
            decayed = set(self.get_decay_parameter_names(self.model))
            rest = [
                (n, one) for n, one in self.model.named_parameters() if one.requires_grad and id(one) not in by_rows
            ]
            self.optimizer = WhitenedRowAdagrad(
                self.tables,
                [one for name, one in rest if name in decayed],
                [one for name, one in rest if name not in decayed],
                self.args.learning_rate,
                self.args.weight_decay,
            )
            return self.optimizer
        return super().create_optimizer(*args, **more)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One batch, told to the progress bar."""
        num_tokens = int(inputs["attention_mask"].sum()) * ranks.world_size()
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.watch.saw(loss)
        self.task.advance(num_tokens, **self.shown)
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The objective's loss of one batch."""
        with self._arithmetic():
            loss, parts = model(**inputs)
        is_finite = torch.isfinite(loss.detach())
        for name, value in ({_COUNT: is_finite, "loss": loss} | parts).items():
            # A batch without a finite loss is left out of the curves as it is of training.
            finite = torch.nan_to_num(value.detach().float(), nan=0.0, posinf=0.0, neginf=0.0) * is_finite
            self.sums[name] = self.sums[name] + finite if name in self.sums else finite
        return loss

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.bfloat16:
            return torch.autocast(self.args.device.type, torch.bfloat16)
        return nullcontext()

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: TrainingArguments, model: Any = None) -> tuple[Any, dict[str, Any]]:
        """AdamW as Trainer sets it up; it takes gradients that are kept by rows as well."""
        _, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        return tables.RowSparseAdamW, options

    def _clip_grad_norm(self, model: Any) -> Any:
        if tables.has_rows(model.parameters()):
            norm = tables.clip(model.parameters(), self.args.max_grad_norm)
        else:
            norm = super()._clip_grad_norm(model)
        norm = fsdp.full_tensor(torch.as_tensor(norm))
        self.watch.saw(norm)
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Put in place of Trainer's loss ours and its parts, averaged over processes since the last entry."""
        if "loss" in logs:
            means = self._means()
            self.shown = {name: f"{value:.4f}" for name, value in means.items()}
            if self.watch.num_skipped:
                self.shown["skipped"] = str(self.watch.num_skipped)
            rest = {name: value for name, value in logs.items() if name != "loss"}
            logs = means | rest | self.watch.counts()
        super().log(logs, start_time)

    def _means(self) -> dict[str, float]:
        """The loss and its parts since the last call; nothing where no batch had a finite loss."""
        if not self.sums:
            return {}
        names, sums = list(self.sums), torch.stack(list(self.sums.values()))
        self.sums = {}
        if ranks.world_size() > 1:
            sums = self.accelerator.reduce(sums, reduction="sum")
        totals = dict(zip(names, sums.tolist(), strict=True))
        count = totals.pop(_COUNT)
        return {name: total / count for name, total in totals.items()} if count else {}

    def gathered(self) -> nn.Module:
        """The objective with its weights of now in one piece, in the first process; all of them must ask."""
        if self.model is not self.whole:
            fsdp.gather(self.model, self.whole)
        return self.whole

    def restore(self, checkpoint: Path) -> None:
        """Take a checkpoint's weights and curves without training on."""
        safetensors.torch.load_model(self.whole, checkpoint / WEIGHTS)
        self.state: Any = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))

    def release(self) -> None:
        """Let go of what wraps the model."""
        self.accelerator.free_memory()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The objective's weights in one piece, however it is trained."""
        self.gathered()
        self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """The objective's weights; weights that are tied are written once."""
        folder = Path(str(output_dir or self.args.output_dir))
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            safetensors.torch.save_model(self.whole, str(folder / WEIGHTS))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        safetensors.torch.load_model(self.whole, Path(resume_from_checkpoint) / WEIGHTS)
        if self.model is not self.whole:
            fsdp.scatter(self.whole, self.model)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint as Trainer does, then seal it: without a right manifest it does not count."""
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        if folder.is_dir() and self.args.should_save:
            shutil.rmtree(folder)  # what a killed run left
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal(folder)


def _tensorboard(name: str) -> TensorBoardCallback:
    """Trainer's own callback, with curves that stay: it would put them beside the checkpoints, which are deleted."""
    from torch.utils.tensorboard import SummaryWriter

    return TensorBoardCallback(SummaryWriter(os.environ.get("TENSORBOARD_LOGGING_DIR") or f"tensorboard/{name}"))


def arguments(
    folder: Path,
    settings: TrainingSettings,
    *,
    name: str,
    learning_rate: float,
    num_steps: int,
    save_steps: int,
    seed: int,
) -> TrainingArguments:
    """Trainer's arguments for a run.

    Args:
        name: of the run, for trackers.
        num_steps: optimizer steps in all.
        save_steps: between checkpoints.
    """
    trackers = [one for one in settings.report_to if one != "tensorboard"] if ranks.is_main() else []
    trainer_args = TrainingArguments(
        output_dir=str(folder),
        max_steps=num_steps,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(settings.warmup_ratio * num_steps),
        weight_decay=settings.weight_decay,
        optim="adamw_torch_fused",
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        logging_strategy="steps",
        logging_steps=max(1, num_steps // _LOGS),
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=2,
        seed=seed,
        data_seed=seed,
        ddp_broadcast_buffers=False,  # none changes in training, and a teacher's table is one
        use_cpu=not torch.cuda.is_available(),
        torch_compile=settings.compile,
        report_to=trackers or "none",
        run_name=name,
        logging_nan_inf_filter=False,  # `TrainingCallback` does it, without asking the device after every batch
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
    )
    trainer_args._n_gpu = min(1, trainer_args.n_gpu)  # DataParallel would split over several, without the teacher
    return trainer_args
