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

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
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

    epochs: float | None = Field(
        None, gt=0, le=1000, description="passes over the training texts; default: by task, fewer the more texts"
    )
    learning_rate: float | None = Field(None, gt=0, lt=1, description="peak of the linear schedule")
    batch_size: int = Field(32, ge=1, description="texts per step, at most; batches hold texts of like length")
    max_tokens_per_batch: int | None = Field(None, ge=16, description="tokens per step, padding included, at most")
    gradient_accumulation_steps: int = Field(
        1, ge=1, description="parts in which a step is computed, one after another: saves memory"
    )
    warmup_ratio: float = Field(0.06, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay of AdamW")
    dropout: bool | None = Field(None, description="keep the model's own dropout while training")
    attention_dropout: bool | None = Field(
        None, description="that of attention's weights as well; default: on a GPU alone, as it can halve a CPU's speed"
    )
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="of the arithmetic in training; auto: bfloat16 where the hardware multiplies it natively"
    )
    early_stopping_patience: int | None = Field(
        None, ge=1, description="stop after so many judgings without gain, and keep the best; default: train to the end"
    )
    eval_steps: int | None = Field(None, ge=1, description="steps between judgings; default: a tenth of the run")
    save_steps: int | None = Field(None, ge=1, description="steps between checkpoints; default: a tenth of the run")
    max_nonfinite_steps: int = Field(
        5, ge=1, description="steps in a row without a finite loss after which training goes back to a checkpoint, once"
    )
    gradient_checkpointing: bool = Field(False, description="compute activations twice instead of keeping them")
    compile: bool = Field(False, description="compile the training step with torch.compile")
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        (), description="where training curves go as well: tensorboard, wandb, mlflow"
    )

    def check_trackers(self) -> None:
        """Prove that the trackers asked for are installed.

        Raises:
            MissingDependency: one is not.
        """
        for name in self.report_to:
            found = importlib.util.find_spec(_TRACKERS[name])
            if found is None or found.origin is None:  # a tracker's folder of curves is no package
                raise MissingDependency(
                    f"`report_to` names {name}, which is not installed", hint=f"pip install {_TRACKERS[name]}"
                )
