"""What a recipe may say of measuring time and memory; read on the paper side, so nothing that runs is imported here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt

Padding = Literal["longest"] | PositiveInt
MIN_SAMPLES = 5
"""Per case and process, even of a model so slow that the time is up before: a median wants a few."""


def _as_tuple(value: Any) -> Any:
    """One word where several may stand."""
    return (value,) if isinstance(value, str) else value


class LatencySettings(BaseModel):
    """What to run, where, how often and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: tuple[PositiveInt, ...] = Field((1, 8), min_length=1, description="batch sizes, each with every length")
    length: tuple[PositiveInt, ...] = Field(
        (32, 128), min_length=1, description="input lengths in tokens, of random tokens"
    )
    texts: str | None = Field(
        None, min_length=1, description="a file of real texts to run instead, with the lengths that they have"
    )
    padding: Padding = Field(
        "longest", description="what texts are padded to: `longest` of each batch, or a number of tokens"
    )
    target: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        ("cpu",), min_length=1, description="where to run: `cpu`, and what `bertshrink targets list` shows"
    )
    engine: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="ways to run the models, as `torch:bf16,compiled`; left out: each by its own engine"
    )
    roofline: bool = Field(False, description="also measure what the machine can do, and what share of it is reached")
    mobile: bool = Field(False, description="also check whether each file for ONNX Runtime suits a phone")
    rounds: int = Field(5, ge=1, description="processes per model; intervals are taken over them")
    seconds: float = Field(0.5, gt=0, le=3600, description="sampling time in seconds, per case and process")
    warmup: float = Field(0.5, ge=0, le=3600, description="warm-up in seconds, per case and process")
    min_samples: PositiveInt = Field(MIN_SAMPLES, description="samples per case and process, however long they take")
    min_warmup: PositiveInt = Field(10, description="iterations of warm-up, however long they take")
    budget: float | None = Field(
        None,
        gt=0,
        description="seconds for a target's rounds: those that do not fit are left out, and told",
    )
    margin: float = Field(0.05, gt=0, lt=1, description="what counts as the same speed, as a share of the reference's")
    across_machines: bool = Field(False, description="also say how times on different targets compare")
    cold: bool = Field(False, description="load each model from the disk, not from the page cache")
    threads: PositiveInt | None = Field(None, description="threads of the engine; as many as usable cores if left out")
    timeout: float = Field(600.0, gt=0, le=86400, description="seconds after which a process is given up")

    @property
    def cases(self) -> list[dict[str, int]]:
        """Every batch size with every length, as a worker's job has them."""
        return [{"batch": batch, "length": length} for batch in self.batch for length in self.length]
