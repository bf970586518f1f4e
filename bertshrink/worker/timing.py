"""The job `time`: the phases of a model's life, each with its own clock (`perf_counter_ns`) and its own memory.

    import   the engine's packages come in, no model yet
    load     from the file to a session
    first    the first inference of the first case
    steady   per case: warm-up (at least so many iterations and seconds, then no more: fixed, so that models compare),
             then samples (likewise); one sample is one forward pass of one batch

Between `first` and `steady` every case runs once for its outputs to be checked: they must be finite, and their root
mean square goes into the result. A case of several batches is sampled in whole passes: every batch counts alike.
Where its texts are given and `tokenizers` is installed, a second series has the tokenizing within the clock.

Beside other workers (`turns`) all of this is done in turns, on the same processors (`affinity`): up to `first` one
worker after the other, then each case by all, the samples in short turns. A turn begins with an inference that is told
apart, since the others have had the caches meanwhile.

A sample is taken by the clock of the host, from arrays of the host to arrays of the host. Where a device has a clock of
its own (`engines.DeviceSession`), another series of forward passes is taken by that one, and the device's memory is
distinguished from the host's.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink import engines
from bertshrink.worker.inputs import Tokenizer, feeds_of, num_tokens
from bertshrink.worker.machine import nvidia
from bertshrink.worker.machine.affinity import bind
from bertshrink.worker.machine.interference import Interference
from bertshrink.worker.machine.memory import peak_bytes, pss_bytes, reset_peak
from bertshrink.worker.turns import MIN_SAMPLES, TURN_NS, TurnRing

if TYPE_CHECKING:
    from bertshrink.engines import Arrays, Session
    from bertshrink.worker.job import WorkerJob

_CHECKED_AT_ONCE = 1 << 16
"""Numbers of an output looked at together: the check of a large output then costs no memory worth mentioning."""


def measure(job: WorkerJob) -> dict[str, Any]:
    """Measure; the result in JSON values.

    Raises:
        ModuleNotFoundError: the engine is not installed here.
        SystemExit: a worker that took turns with this one is gone.
    """
    relay = TurnRing.of(os.environ)
    relay.begin()
    if not relay.is_alone:
        bind(job.threads, job.number)
    can_reset = reset_peak()
    phases = _Phases(relay.is_alone)
    engine = engines.engine(job.engine)
    engine.prepare(str(job.path), job.options)
    phases.clock("import")
    feeds = [feeds_of(job, case) for case in job.cases]
    phases.memory("import")  # after the feeds: numpy's random numbers take 7 MiB that are not the model's

    if job.cold:
        forget_files([str(job.path), f"{job.path}_data"])  # a large ONNX file's weights are beside it
    phases.begin()
    session = engine.load(str(job.path), job.threads, job.options)
    phases.clock("load")
    phases.memory("load")
    phases.device("load", session)

    phases.begin()
    session.run(feeds[0][0])
    phases.clock("first")
    phases.memory("first")
    phases.device("first", session)

    levels = [root_mean_square(session.run(batches[0])) for batches in feeds]
    relay.finish_stage()
    reset_peak()
    on_gpu = session.describe().get("device") == "cuda"
    strain = Interference(on_gpu, relay.others_seconds)
    cases = [
        _shape(case, batches)
        | {"output_rms": level, "tokens": num_tokens(case)}
        | _time_case(session, batches, job, relay)
        for case, batches, level in zip(job.cases, feeds, levels, strict=True)
    ]
    moved = strain.end()
    phases.memory("steady")
    phases.device("steady", session, nvidia.driver_bytes() if on_gpu else None)
    texts = [_with_tokenizing(session, case, job, relay) if case.get("texts") else {} for case in job.cases]
    relay.finish_stage()
    relay.end()
    return {
        "engine": session.describe(),
        "clocks_ns": phases.clocks_ns,
        "memory_bytes": phases.memory_bytes,
        "pss_bytes": phases.pss_bytes,
        "device_bytes": phases.device_bytes,
        "memory_method": "VmHWM" if can_reset else "ru_maxrss",
        "strain": moved,
        "cases": [case | more for case, more in zip(cases, texts, strict=True)],
    }


class _Phases:
    """The clocks and the memory of each phase. What is shared with other processes is told by a worker alone: others
    that have the same libraries open would take a part of it.
    """

    def __init__(self, is_alone: bool) -> None:
        self.is_alone = is_alone
        self.clocks_ns: dict[str, int] = {}
        self.memory_bytes: dict[str, int] = {}
        self.pss_bytes: dict[str, int | None] = {}
        self.device_bytes: dict[str, dict[str, int]] = {}
        self.began = time.perf_counter_ns()

    def begin(self) -> None:
        reset_peak()
        self.began = time.perf_counter_ns()

    def clock(self, phase: str) -> None:
        self.clocks_ns[phase] = time.perf_counter_ns() - self.began

    def memory(self, phase: str) -> None:
        self.memory_bytes[phase] = peak_bytes()
        self.pss_bytes[phase] = pss_bytes() if self.is_alone else None

    def device(self, phase: str, session: Session, by_driver: int | None = None) -> None:
        """The device's memory, by each who counts it: the session's allocator, and the driver."""
        peaks = session.device_peaks() if isinstance(session, engines.DeviceSession) else {}
        if by_driver is not None:
            peaks = peaks | {"driver": by_driver}
        if peaks:
            self.device_bytes[phase] = peaks


def forget_files(paths: Sequence[str]) -> None:
    """Drop files, or all files of folders, from the page cache, so that the next reading comes from the disk."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in (Path(name) for name in paths):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb") as opened:
                    os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


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


def _shape(case: dict[str, Any], batches: Sequence[Arrays]) -> dict[str, Any]:
    """What tells a case apart: the shape of its largest batch, and its name where it has one."""
    shapes = [next(iter(feeds.values())).shape for feeds in batches]
    named = {"name": case["name"]} if "name" in case else {}
    return {"batch": max(s[0] for s in shapes), "length": max(s[1] for s in shapes)} | named


def _time_case(session: Session, batches: Sequence[Arrays], job: WorkerJob, relay: TurnRing) -> dict[str, list[int]]:
    calls = [lambda feeds=feeds: session.run(feeds) for feeds in batches]
    warmup = timed(calls, job.warmup_iterations, job.warmup_seconds)
    relay.finish_stage()
    samples, resumed = timed_in_turns(calls, job.min_samples, job.seconds, relay)
    times = {"warmup_ns": warmup, "samples_ns": samples, "resumed_ns": resumed}
    if isinstance(session, engines.DeviceSession):
        told: list[int] = []
        on_device = [lambda feeds=feeds: told.append(session.device_ns(feeds)) for feeds in batches]
        timed(on_device, job.min_samples, job.seconds)
        times["device_ns"] = told
    relay.finish_stage()
    return times


def _with_tokenizing(session: Session, case: dict[str, Any], job: WorkerJob, relay: TurnRing) -> dict[str, Any]:
    """Samples from the text to the answer; or why there are none."""
    try:
        tokenizer = Tokenizer(job)
    except ModuleNotFoundError as error:
        return {"whole_missing": f"the package `{error.name}` is not installed"}

    def whole(texts: Sequence[Any]) -> None:
        session.run(tokenizer(texts, case["pad_to"]))

    calls = [lambda texts=texts: whole(texts) for texts in case["texts"]]
    timed(calls, len(calls), 0)
    samples, _ = timed_in_turns(calls, job.min_samples, job.seconds, relay)
    return {"whole_ns": samples}


def timed(calls: Sequence[Callable[[], object]], at_least: int, seconds: float) -> list[int]:
    """Nanoseconds of each call, all calls in turn, until there are `at_least` and `seconds` have gone by."""
    return timed_in_turns(calls, at_least, seconds, TurnRing(None))[0]


def timed_in_turns(
    calls: Sequence[Callable[[], object]], at_least: int, seconds: float, relay: TurnRing
) -> tuple[list[int], list[int]]:
    """As `timed`, in turns with other workers; the second list is of the calls that each turn began with."""
    clock = time.perf_counter_ns
    samples: list[int] = []
    resumed: list[int] = []
    left_ns = int(seconds * 1e9)
    while True:
        if not relay.is_alone:
            start = clock()
            calls[len(samples) % len(calls)]()
            resumed.append(clock() - start)
        before, began = len(samples), clock()
        while True:
            start = clock()
            calls[len(samples) % len(calls)]()
            stop = clock()
            samples.append(stop - start)
            used_ns = stop - began
            if used_ns >= left_ns and len(samples) >= at_least and len(samples) % len(calls) == 0:
                return samples, resumed
            if not relay.is_alone and used_ns >= TURN_NS and len(samples) - before >= MIN_SAMPLES:
                break
        left_ns -= used_ns
        relay.hand_over()
