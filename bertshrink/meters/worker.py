"""The one program that times a model: a job comes in on stdin, a result goes out on stdout, one JSON document each.

    python -m bertshrink.meters.worker < job.json > result.json

It travels, so it needs the standard library, numpy and `bertshrink.engines` only. Each phase of its life has its own
clock (`perf_counter_ns`) and its own memory peak:

    import   the engine's packages come in, no model yet
    load     from the file to a session
    first    the first inference of the first case
    steady   per case: warm-up (at least so many iterations and seconds, then no more: fixed, so that models compare),
             then samples (likewise); one sample is one forward pass

A peak is the kernel's own high-water mark of resident memory (VmHWM), set back to the present between phases: exact,
free, never sampled. Where it cannot be set back, `memory_method` says so and a phase's peak is that of the process so
far. Between `first` and `steady` every case runs once for its outputs to be checked: they must be finite, and their
root mean square goes into the result. Whatever the engine prints goes to stderr.
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink import engines

if TYPE_CHECKING:
    from bertshrink.engines import Arrays, Session

_FIRST_ORDINARY_ID = 1000
"""Ids below are special, unused or single characters in the common vocabularies; ordinary text is above."""

_CHECKED_AT_ONCE = 1 << 16
"""Numbers of an output looked at together: the check of a large output then costs no memory worth mentioning."""


@dataclass(frozen=True)
class Job:
    """What to measure.

    Attributes:
        engine: a name in `engines.ENGINES`.
        path: the model's folder or file.
        options: the engine's options.
        threads: intra-op threads.
        cases: `{"batch": B, "length": L}`, measured in this order.
        vocab_size: token ids are drawn below this.
        inputs: the names of the arrays that the model takes.
        seed: of the token ids.
        seconds: time to sample, per case.
        min_samples: samples to take even when they last longer.
        warmup_seconds: time to warm up, per case.
        warmup_iterations: iterations to warm up even when they last longer.

    """

    engine: str
    path: str
    options: dict[str, Any]
    threads: int
    cases: list[dict[str, int]]
    vocab_size: int
    inputs: list[str]
    seed: int
    seconds: float
    min_samples: int
    warmup_seconds: float
    warmup_iterations: int


def main() -> None:
    """Read the job, measure, write the result."""
    channel = os.dup(1)
    os.dup2(2, 1)
    result = run(Job(**json.load(sys.stdin)))
    with os.fdopen(channel, "w", encoding="utf-8") as out:
        json.dump(result, out)


def run(job: Job) -> dict[str, Any]:
    """Measure; the result in JSON values, or `{"missing": package}` when the engine is not installed here."""
    can_reset = reset_peak()
    clocks_ns, memory_bytes = {}, {}
    start = time.perf_counter_ns()
    try:
        engine = engines.engine(job.engine)
        engine.prepare(job.path, job.options)
    except ModuleNotFoundError as error:
        return {"missing": error.name}
    clocks_ns["import"] = time.perf_counter_ns() - start
    feeds = [feeds_of(job, **case) for case in job.cases]
    memory_bytes["import"] = peak_bytes()  # after the feeds: numpy's random numbers take 7 MiB that are not the model's

    reset_peak()
    start = time.perf_counter_ns()
    session = engine.load(job.path, job.threads, job.options)
    clocks_ns["load"] = time.perf_counter_ns() - start
    memory_bytes["load"] = peak_bytes()

    reset_peak()
    start = time.perf_counter_ns()
    session.run(feeds[0])
    clocks_ns["first"] = time.perf_counter_ns() - start
    memory_bytes["first"] = peak_bytes()

    levels = [root_mean_square(session.run(feed)) for feed in feeds]
    reset_peak()
    cases = [
        case | {"output_rms": level} | _time_case(session, feed, job)
        for case, feed, level in zip(job.cases, feeds, levels, strict=True)
    ]
    memory_bytes["steady"] = peak_bytes()
    return {
        "engine": session.describe(),
        "clocks_ns": clocks_ns,
        "memory_bytes": memory_bytes,
        "memory_method": "VmHWM" if can_reset else "ru_maxrss",
        "cases": cases,
    }


def feeds_of(job: Job, batch: int, length: int) -> Arrays:
    """Arrays of one case, int64 (batch, length): random ids, every token attended to, one segment.

    Raises:
        ValueError: the model takes an array that is none of the three.

    """
    import numpy as np

    low = _FIRST_ORDINARY_ID if job.vocab_size > 2 * _FIRST_ORDINARY_ID else 0
    ids = np.random.default_rng(job.seed).integers(low, job.vocab_size, size=(batch, length), dtype=np.int64)
    known: Arrays = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    strange = [name for name in job.inputs if name not in known]
    if strange:
        raise ValueError(f"the model takes `{strange[0]}`, which is none of {', '.join(known)}")
    return {name: known[name] for name in job.inputs}


def root_mean_square(outputs: Arrays) -> float | None:
    """The root mean square over all outputs, a number to tell outputs apart; None when one is not finite."""
    import numpy as np

    total, count = 0.0, 0
    for array in outputs.values():
        flat = np.asarray(array).reshape(-1)
        for start in range(0, flat.size, _CHECKED_AT_ONCE):
            part = flat[start : start + _CHECKED_AT_ONCE].astype(np.float64)
            total += float(part @ part)
        count += flat.size
    return math.sqrt(total / count) if count and math.isfinite(total) else None


def _time_case(session: Session, feeds: Arrays, job: Job) -> dict[str, list[int]]:
    return {
        "warmup_ns": timed(session, feeds, job.warmup_iterations, job.warmup_seconds),
        "samples_ns": timed(session, feeds, job.min_samples, job.seconds),
    }


def timed(session: Session, feeds: Arrays, at_least: int, seconds: float) -> list[int]:
    """Nanoseconds of each forward pass, until there are `at_least` and `seconds` have gone by."""
    run, clock = session.run, time.perf_counter_ns
    samples: list[int] = []
    end = clock() + int(seconds * 1e9)
    while True:
        start = clock()
        run(feeds)
        stop = clock()
        samples.append(stop - start)
        if stop >= end and len(samples) >= at_least:
            return samples


def reset_peak() -> bool:
    """Set the high-water mark of resident memory back to what is resident now; False where that cannot be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _high_water_bytes() is not None
    except OSError:
        return False


def peak_bytes() -> int:
    """The most memory that was resident since `reset_peak`, or since the process began where that did nothing."""
    found = _high_water_bytes()
    if found is None:
        found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return found


def _high_water_bytes() -> int | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), None)


if __name__ == "__main__":
    main()
