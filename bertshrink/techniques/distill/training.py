"""The training of a student, on Hugging Face's Trainer.

What is ours on top of it: length-bucketed batches, the distillation objective under bfloat16 autocast with a teacher
held in bfloat16, denormals flushed (Adam's moments of unused embedding rows decay into them), and checkpoints that
are sealed with a manifest: after a kill, training goes on from the newest one whose bytes are right.
"""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainingArguments

from bertshrink.errors import CheckFailed, ModelRefused, OutputError, RequestError
from bertshrink.model.batches import Row
from bertshrink.model.encoder import Encoder
from bertshrink.model.files import MANIFEST, output_errors, seal, verify
from bertshrink.model.hardware import has_native_bfloat16
from bertshrink.model.labels import map_labels
from bertshrink.model.texts import check_labels
from bertshrink.progress import Task
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.distill import Distill, default_epochs, every_other
from bertshrink.techniques.distill.batching import Collator, LengthBuckets
from bertshrink.techniques.distill.objective import Objective

CHECKPOINTS = "checkpoints"
_LOGS = 100
"""Points on the training curves."""


def train(student: Encoder, settings: Distill, chosen: tuple[int, ...], num_layers: int, bench: Workbench) -> Encoder:
    """Teach `student` in place and return it, in eval mode.

    Args:
        student: its layers are the incoming model's layers `chosen`.
        settings: of the stage.
        chosen: counted from 1; they say which hidden states belong together.
        num_layers: of the incoming model.
        bench: texts, teacher, seed, work folder.

    Raises:
        CheckFailed: the loss became not finite.
        RequestError: teacher and student do not fit, or labels do not match.
    """
    teacher = bench.teacher
    if teacher is None or bench.texts is None:
        raise RequestError("`distill` needs a teacher and texts", hint="name texts with `data:` or `--data`")
    weights = settings.defaults(student.task)
    aligned = align(chosen, num_layers, teacher.shape.num_layers)
    if weights.hidden and student.shape.hidden_size != teacher.shape.hidden_size:
        raise RequestError(
            f"student and teacher have hidden sizes {student.shape.hidden_size} and {teacher.shape.hidden_size}: "
            "their hidden states cannot be compared",
            hint="set `hidden_weight: 0`",
        )
    rows, labels = _training_rows(student, bench)
    dtype = torch.bfloat16 if _use_bfloat16(settings) else torch.float32
    collator = Collator(student.tokenizer, settings.mask_share if student.task == "mlm" else None)
    sampler = LengthBuckets([len(r["input_ids"]) for r in rows], settings.batch_size, settings.batch_tokens, bench.seed)
    epochs = weights.epochs or default_epochs(len(sampler))
    num_steps = max(1, math.ceil(epochs * len(sampler)))
    interval = settings.checkpoint_steps or max(1, math.ceil(num_steps / 10))
    torch.set_flush_denormal(True)
    if not weights.dropout:
        _drop_dropout(student)
    num_tokens = sum(len(r["input_ids"]) for r in rows)
    bench.note(
        f"trained {epochs:g} epochs of {len(rows)} texts ({num_tokens} tokens) in {num_steps} steps, "
        f"{str(dtype).removeprefix('torch.')} arithmetic, learning rate {weights.learning_rate:g}, loss weights "
        f"soft {weights.soft:g}, task {weights.task:g}, hidden {weights.hidden:g} ({weights.states}), "
        f"T {weights.temperature:g}"
    )
    folder = bench.work / CHECKPOINTS
    start = newest_checkpoint(folder)
    done = int(start.name.rpartition("-")[2]) if start is not None else 0
    if start is not None:
        bench.progress.log(f"going on from step {done} of {num_steps}")
        bench.note(f"went on from the checkpoint of step {done}")
    total = epochs * num_tokens
    with (
        output_errors(folder),
        bench.progress.task("distill", total, "tokens", done=total * done / num_steps) as task,
    ):
        trainer = DistillTrainer(
            model=student.model,
            args=_arguments(folder, settings, epochs, weights.learning_rate, num_steps, interval, bench.seed),
            train_dataset=list(zip(rows, labels, strict=True)),
            data_collator=collator,
            teacher=_frozen(teacher, dtype),
            objective=Objective(student.task, weights, aligned, student.pooling),
            sampler=sampler,
            dtype=dtype,
            task=task,
        )
        trainer.remove_callback(PrinterCallback)  # it prints to stdout, which belongs to the result
        with _disk_errors(folder):
            trainer.train(resume_from_checkpoint=str(start) if start is not None else None)
    bench.history += [
        {key: float(value) for key, value in entry.items() if isinstance(value, int | float)}
        for entry in trainer.state.log_history
        if "loss" in entry
    ]
    student.model.to("cpu")
    student.model.eval()
    return student


def align(chosen: tuple[int, ...], num_layers: int, depth: int) -> list[tuple[int, int]]:
    """(student state, teacher state) pairs to be compared.

    A student cut from a model as deep as the teacher follows the layers it was cut from. The layers of a shallower one
    are not the teacher's of the same number, so its student is spread over the teacher's depth by the every-other rule.
    The last states always belong together, since head and pooling read them.

    Args:
        chosen: layers of the incoming model that the student has, counted from 1.
        num_layers: of the incoming model.
        depth: layers of the teacher.

    Raises:
        RequestError: the incoming model has more layers than the teacher.
    """
    if num_layers > depth:
        raise RequestError(f"the model has {num_layers} layers, its teacher {depth}: it cannot be taught")
    origins = chosen if num_layers == depth else every_other(depth, len(chosen))
    return list(enumerate((*origins[:-1], depth), start=1))


class DistillTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """Trainer with a teacher, an objective and batches of like length."""

    def __init__(
        self,
        *,
        teacher: Any,
        objective: Objective,
        sampler: LengthBuckets,
        dtype: torch.dtype,
        task: Task,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.teacher = teacher.to(self.args.device)
        self.objective = objective
        self.sampler = sampler
        self.dtype = dtype
        self.model_accepts_loss_kwargs = False
        self.task = task
        self.shown: dict[str, str] = {}
        self.parts: dict[str, float] = {}
        self.num_summed = 0

    def get_train_dataloader(self) -> Any:
        """Batches as `LengthBuckets` cuts them."""
        loader: Any = DataLoader(
            self.train_dataset,
            batch_sampler=self.sampler,
            collate_fn=self.data_collator,
        )
        return self.accelerator.prepare(loader)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One batch, told to the progress bar."""
        num_tokens = int(inputs["attention_mask"].sum())
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        self.task.advance(num_tokens, **self.shown)
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The objective's loss of one batch."""
        labels = inputs.pop("labels", None)
        with self._arithmetic():
            loss, parts = self.objective(model, self.teacher, inputs, labels)
        if not torch.isfinite(loss):
            raise CheckFailed(
                f"the loss is not finite at step {self.state.global_step + 1}: training diverged",
                hint="lower `learning_rate`, or set `precision: float32`",
            )
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + float(value)
        self.num_summed += 1
        return loss

    def _arithmetic(self) -> AbstractContextManager[Any]:
        if self.dtype == torch.bfloat16:
            return torch.autocast(self.args.device.type, torch.bfloat16)
        return nullcontext()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, averaged since the last entry."""
        if self.num_summed and "loss" in logs:
            parts = {name: value / self.num_summed for name, value in self.parts.items()}
            self.shown = {name: f"{value:.4f}" for name, value in ({"loss": logs["loss"]} | parts).items()}
            logs |= parts
        self.parts, self.num_summed = {}, 0
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint as Trainer does, then seal it: without a right manifest it does not count."""
        super()._save_checkpoint(model, trial)
        seal(Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}")


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """A full disk as `torch.save` tells it: a RuntimeError of its zip writer."""
    try:
        yield
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        raise OutputError(f"cannot write a checkpoint below `{folder}`", hint="free some space, then go on") from error


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose manifest holds; the others after it are deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        try:
            if (path / MANIFEST).is_file() and verify(path):
                return path
        except ModelRefused:
            pass
        shutil.rmtree(path)
    return None


def _training_rows(student: Encoder, bench: Workbench) -> tuple[list[Row], list[int | None]]:
    """Tokenized training texts with class numbers where the task has them."""
    texts = bench.texts
    assert texts is not None
    labels: list[int | None] = [None] * len(texts.train)
    if student.task == "classification":
        check_labels(texts)
        labels = list(map_labels(texts.train.labels or (), student.labels, texts.name, texts.train.label_names))
    return student.tokenize(texts.train.texts, texts.train.pairs, bench.max_length), labels


def _use_bfloat16(settings: Distill) -> bool:
    return settings.precision == "bfloat16" or (settings.precision == "auto" and has_native_bfloat16())


def _frozen(teacher: Encoder, dtype: torch.dtype) -> Any:
    """A copy of the teacher's model for inference in `dtype`."""
    model = copy.deepcopy(teacher.model).to(dtype).eval()
    return model.requires_grad_(False)


def _drop_dropout(student: Encoder) -> None:
    for module in student.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def _arguments(
    folder: Path, settings: Distill, epochs: float, learning_rate: float, num_steps: int, interval: int, seed: int
) -> TrainingArguments:
    found = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        max_steps=num_steps,
        learning_rate=learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(settings.warmup * num_steps),
        weight_decay=settings.weight_decay,
        optim="adamw_torch_fused",
        per_device_train_batch_size=settings.batch_size,
        logging_strategy="steps",
        logging_steps=max(1, num_steps // _LOGS),
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        seed=seed,
        data_seed=seed,
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
    )
    found._n_gpu = min(1, found.n_gpu)  # several would be split by DataParallel, which knows nothing of the teacher
    return found
