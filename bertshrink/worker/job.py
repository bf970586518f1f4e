"""What a worker is told: which model to run, and on which schedule. It comes as JSON on stdin."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class RunSpec:
    """What a worker must know to run one model.

    Attributes:
        engine: a name in `engines.ENGINES`.
        precision: `float32`, `int8`, ...
        vocab_size: random token ids are drawn below this.
        inputs: the names of the arrays that the model takes.
        max_length: the longest input in tokens; longer texts are cut.
        shape: the (batch, length) that it takes; None, or None in a place: any.
        max_batch: the most rows that it takes at once; None: any number.
        tokenizer: its `tokenizer.json`; needed for texts only.
    """

    engine: str
    path: Path
    options: dict[str, Any]
    precision: str
    vocab_size: int
    inputs: Sequence[str]
    max_length: int
    shape: tuple[int | None, int | None] | None = None
    max_batch: int | None = None
    tokenizer: Path | None = None


@dataclass(frozen=True, kw_only=True)
class WorkerJob(RunSpec):
    """A model and the schedule on which to run it.

    Attributes:
        cases: `{"batch": B, "length": L}`: random tokens; or `{"name", "workload", "batches", "pad_to", "texts"}`: rows
            of token ids by batch, the length that they are padded to (None: each batch's longest row) and, to be
            tokenized within the clock, their texts (a string, or two). Measured in this order.
        seed: of the random token ids.
        seconds: time to sample, per case.
        min_samples: samples to take even when they last longer.
        warmup_seconds: time to warm up, per case.
        warmup_iterations: iterations to warm up even when they last longer.
        do: `time`: phases, latency and memory; `count`: `iterations` inferences of the first case, and their outputs;
            `look`: the machine alone; `devices`: the GPUs that the engine can use; `rates`: how fast the machine
            multiplies and reads.
        iterations: of `count`.
        pad_id: the token that fills short rows.
        cold: files of the model are dropped from the page cache before it is loaded.
        number: of the round, from 0: it decides on which processors workers run that take turns.
        products: of `rates`: what to multiply (see `worker.peak_rates`).
        streams: of `rates`: how many bytes to read and copy, one entry a measurement.
    """

    threads: int = 1
    cases: Sequence[dict[str, Any]] = ()
    seed: int = 0
    seconds: float = 0.5
    min_samples: int = 5
    warmup_seconds: float = 0.5
    warmup_iterations: int = 10
    do: Literal["time", "count", "look", "devices", "rates"] = "time"
    iterations: int = 0
    pad_id: int = 0
    cold: bool = False
    number: int = 0
    products: list[dict[str, Any]] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)

    @classmethod
    def without_model(cls, about: str, engine: str = "", **schedule: Any) -> WorkerJob:
        """A job that asks of the machine; messages name it as `about`."""
        return cls(engine, Path(about), {}, "float32", 1, (), 0, **schedule)

    @classmethod
    def read(cls, text: str) -> WorkerJob:
        """What `to_json` wrote."""
        told = json.loads(text)
        return cls(**told | {"path": Path(told["path"]), "tokenizer": told["tokenizer"] and Path(told["tokenizer"])})

    def to_json(self) -> str:
        """The job as a worker reads it on stdin."""
        return json.dumps(asdict(self), default=str)
