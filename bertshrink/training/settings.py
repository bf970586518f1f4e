"""What every stage that trains can be told: the settings that `distill` and `finetune` share."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from bertshrink.errors import MissingDependency

_TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""Name as Trainer knows it -> package."""


class TrainingSettings(BaseModel):
    """Settings of a training run. What is None is decided by the technique, from the task and the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)
    other_names: ClassVar[Mapping[str, str]] = {
        "accumulate": "gradient_accumulation_steps",
        "batch_tokens": "max_tokens_per_batch",
        "checkpoint_steps": "save_steps",
        "judge_steps": "eval_steps",
        "max_bad_steps": "max_nonfinite_steps",
        "num_train_epochs": "epochs",
        "patience": "early_stopping_patience",
        "per_device_train_batch_size": "batch_size",
        "trackers": "report_to",
        "warmup": "warmup_ratio",
        "warmup_steps": "warmup_ratio",
    }
    """What a setting is called elsewhere -> its name here, for hints."""
    panels: ClassVar[Mapping[str, str]] = {}
    """A setting -> its panel of the help page."""

    epochs: float | None = Field(
        None, gt=0, le=1000, description="passes over the training texts; default: by task, fewer the more texts"
    )
    learning_rate: float | None = Field(None, gt=0, lt=1, description="peak of the linear schedule")
    batch_size: int = Field(32, ge=1, description="maximum texts per step; batches hold texts of similar length")
    max_tokens_per_batch: int | None = Field(None, ge=16, description="maximum tokens per step, padding included")
    gradient_accumulation_steps: int = Field(1, ge=1, description="gradient accumulation steps")
    warmup_ratio: float = Field(0.06, ge=0, lt=1, description="fraction of the steps in which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay of AdamW")
    dropout: bool | None = Field(None, description="keep the model's dropout in training")
    attention_dropout: bool | None = Field(
        None, description="also keep attention dropout; default: only on a GPU, since it can halve a CPU's speed"
    )
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="training precision; auto: bfloat16 where the hardware supports it natively"
    )
    early_stopping_patience: int | None = Field(
        None,
        ge=1,
        description="early stopping: evaluations without improvement before stopping; keeps the best checkpoint",
    )
    eval_steps: int | None = Field(None, ge=1, description="steps between evaluations; default: a tenth of the run")
    save_steps: int | None = Field(None, ge=1, description="steps between checkpoints; default: a tenth of the run")
    max_nonfinite_steps: int = Field(
        5, ge=1, description="consecutive non-finite losses before training restarts from a checkpoint, once"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass to save memory")
    compile: bool = Field(False, description="compile the training step with torch.compile")
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        (), description="trackers for the training curves: tensorboard, wandb, mlflow"
    )

    def check_trackers(self) -> None:
        """Prove that the trackers asked for are installed; raises MissingDependency."""
        for name in self.report_to:
            spec = importlib.util.find_spec(_TRACKERS[name])
            if spec is None or spec.origin is None:  # a tracker's folder of curves is not a package
                raise MissingDependency(
                    f"`report_to` names {name}, which is not installed", hint=f"pip install {_TRACKERS[name]}"
                )


TrainingSettings.panels = dict.fromkeys(TrainingSettings.model_fields, "Training")
