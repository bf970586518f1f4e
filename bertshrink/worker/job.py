"""What a worker is told to do. A job is JSON on stdin; every field has the form it has there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class WorkerJob:
    """What to run and how.

    Attributes:
        engine: a name in `engines.ENGINES`.
        path: the model's folder or file.
        options: the engine's options.
        threads: intra-op threads.
        cases: `{"batch": B, "length": L}`: random tokens; or `{"name", "batches", "pad_to", "texts"}`: rows of token
            ids by batch, the length that they are padded to (None: each batch's longest row) and, to be tokenized
            within the clock, their texts (a string, or two). Measured in this order.
        vocab_size: random token ids are drawn below this.
        inputs: the names of the arrays that the model takes.
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
        tokenizer: the `tokenizer.json` for texts; None: nothing is tokenized here.
        max_length: texts are cut to so many tokens.
        cold: files of the model are dropped from the page cache before it is loaded.
        number: of the round, from 0: it decides on which processors workers run that take turns.
        products: of `rates`: what to multiply (see `worker.peak_rates`).
        streams: of `rates`: how many bytes to read and copy, one entry a measurement.

    """

    engine: str
    path: str
    options: dict[str, Any]
    threads: int
    cases: list[dict[str, Any]]
    vocab_size: int
    inputs: list[str]
    seed: int = 0
    seconds: float = 0.5
    min_samples: int = 5
    warmup_seconds: float = 0.5
    warmup_iterations: int = 10
    do: Literal["time", "count", "look", "devices", "rates"] = "time"
    iterations: int = 0
    pad_id: int = 0
    tokenizer: str | None = None
    max_length: int | None = None
    cold: bool = False
    number: int = 0
    products: list[dict[str, Any]] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
