"""What a recipe may say of measuring time and memory; read on the paper side, so nothing that runs is imported here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt

Padding = Literal["longest"] | PositiveInt
MIN_SAMPLES = 5
"""Per case and process, even of a model so slow that the time is up before: a median wants a few."""


def _as_tuple(value: Any) -> Any:
    """One word where several may be."""
    return (value,) if isinstance(value, str) else value


class LatencySettings(BaseModel):
    """What to run, where, how often and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: tuple[PositiveInt, ...] = Field(
        (1, 8), min_length=1, description="batch sizes, each combined with every length"
    )
    length: tuple[PositiveInt, ...] = Field((32, 128), min_length=1, description="input lengths of random tokens")
    texts: str | None = Field(
        None, min_length=1, description="file of real texts to run instead, with their own lengths"
    )
    padding: Padding = Field(
        "longest", description="length that texts are padded to: `longest` of each batch, or a number of tokens"
    )
    target: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        ("cpu",), min_length=1, description="targets: `cpu`, and those of `bertshrink targets list`"
    )
    engine: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="engines with options, as `torch:bfloat16,compiled`; default: each model's own engine"
    )
    roofline: bool = Field(
        False, description="also measure the machine's peak rates and the fraction reached (roofline)"
    )
    mobile: bool = Field(False, description="also check each ONNX Runtime file for use on phones")
    rounds: int = Field(5, ge=1, description="processes per model; intervals are computed over them")
    seconds: float = Field(0.5, gt=0, le=3600, description="sampling time in seconds, per case and process")
    warmup: float = Field(0.5, ge=0, le=3600, description="warm-up in seconds, per case and process")
    min_samples: PositiveInt = Field(MIN_SAMPLES, description="minimum samples per case and process")
    min_warmup: PositiveInt = Field(10, description="minimum warm-up iterations")
    budget: float | None = Field(
        None,
        gt=0,
        description="time budget in seconds for a target's rounds; rounds that do not fit are skipped and reported",
    )
    margin: float = Field(0.05, gt=0, lt=1, description="margin within which speeds count as equivalent, as a fraction")
    across_machines: bool = Field(False, description="also compare times between targets")
    cold: bool = Field(False, description="load each model from disk instead of the page cache")
    threads: PositiveInt | None = Field(None, description="engine threads; default: usable cores")
    timeout: float = Field(600.0, gt=0, le=86400, description="timeout of a process in seconds")

    @property
    def cases(self) -> list[dict[str, int]]:
        """Every batch size with every length, as a worker's job has them."""
        return [{"batch": batch, "length": length} for batch in self.batch for length in self.length]
