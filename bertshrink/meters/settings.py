"""What a recipe may say of measuring time and memory; read on the paper side, so nothing that runs is imported here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class RunningSettings(BaseModel):
    """What to run, how often and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: tuple[PositiveInt, ...] = Field((1, 8), min_length=1, description="batch sizes, each with every length")
    length: tuple[PositiveInt, ...] = Field((32, 128), min_length=1, description="input lengths in tokens")
    rounds: int = Field(5, ge=1, description="processes per model; intervals are taken over them")
    seconds: float = Field(0.5, gt=0, le=3600, description="sampling time in seconds, per case and process")
    warmup: float = Field(
        0.5, ge=0, le=3600, description="warm-up in seconds, per case and process; at least 10 iterations"
    )
    threads: PositiveInt | None = Field(None, description="threads of the engine; as many as usable cores if left out")
    timeout: float = Field(600.0, gt=0, le=86400, description="seconds after which a process is given up")

    @property
    def cases(self) -> list[dict[str, int]]:
        """Every batch size with every length, as a worker's job has them."""
        return [{"batch": batch, "length": length} for batch in self.batch for length in self.length]
