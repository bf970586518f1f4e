"""The job `rates`: how fast this machine multiplies matrices and reads memory, with as many threads as the models have.

    products   M x K by K x N in one precision, 2 M K N operations: by numpy's BLAS, by PyTorch itself, or by an engine
               that runs a graph of one product which came with the job; left out where the CPU has none of the
               features that it needs
    streams    reading and copying an array over and over. Of size 0, which means far above the last-level cache, it is
               the memory's rate; at the size of a model's weights it is the rate at which those can come, wherever they
               are between two inferences

A copy moves two bytes for each byte of the array; what a cache reads besides before it writes is not counted. A stream
on a GPU runs over its own memory.
"""

from __future__ import annotations

import base64
import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink import engines
from bertshrink.worker.machine.identity import last_level_cache_bytes, machine
from bertshrink.worker.timing import timed

if TYPE_CHECKING:
    from bertshrink.worker.job import WorkerJob

Run = Callable[[], object]

_FILE = "product.onnx"
_TIMES_THE_CACHE = 4
"""Of an array four times as large as the cache, a quarter at most can be there still when it is read again."""

_UNKNOWN_CACHE_BYTES = 32 << 20
_GPU_BYTES = 1 << 30
"""Above the last cache of any GPU (an H100 has 50 MB), and read in a time (0.3 ms) beside which a wait is nothing."""

_MOST_BYTES = 1 << 30
_SHORTEST_BYTES = 64 << 20
"""A smaller array is read several times in one sample: that takes a millisecond, beside which a call is nothing."""


def rates(job: WorkerJob) -> dict[str, Any]:
    """Measure all products and streams of the job; the result in JSON values.

    Raises:
        ModuleNotFoundError: the engine is not installed here.
        EngineUnavailable: the device is not here.
    """
    on_gpu = job.options.get("device") == "cuda"
    products = []
    isa = set(machine()["isa"])
    for asked in job.products:
        if asked["needs"] and not isa & set(asked["needs"]):
            continue
        run, precision = _product(asked, job)
        products.append(
            {
                "by": asked["by"],
                "precision": precision,
                "shape": asked["shape"],
                "samples_ns": _samples(run, job),
            }
        )
    streams = []
    for asked_bytes in job.streams:
        num_bytes = asked_bytes or (_GPU_BYTES if on_gpu else beyond_the_caches())
        passes = max(1, -(-(_GPU_BYTES if on_gpu else _SHORTEST_BYTES) // num_bytes))
        runs = _streams_of_torch(num_bytes, passes) if on_gpu else _streams(num_bytes, passes, job.threads)
        for kind, run in runs.items():
            about = {"kind": kind, "num_bytes": num_bytes, "passes": passes, "is_memory": not asked_bytes}
            streams.append(about | {"samples_ns": _samples(run, job)})
    return {"products": products, "streams": streams, "cache_bytes": last_level_cache_bytes()}


def beyond_the_caches() -> int:
    """Bytes of an array that the caches cannot hold, a sixteenth of the machine's memory at most."""
    wanted = _TIMES_THE_CACHE * (last_level_cache_bytes() or _UNKNOWN_CACHE_BYTES)
    return int(min(wanted, _MOST_BYTES, machine()["memory_bytes"] // 16))


def _samples(run: Run, job: WorkerJob) -> list[int]:
    timed([run], job.warmup_iterations, job.warmup_seconds)
    return timed([run], job.min_samples, job.seconds)


def _product(asked: dict[str, Any], job: WorkerJob) -> tuple[Run, str]:
    """What to time, and the precision that it multiplies in: an engine may take another one than was asked for."""
    import numpy as np

    m, k, n = asked["shape"]
    if asked["by"] == "torch":
        product: Run = importlib.import_module("bertshrink.engines.torch_rates").product(
            asked["precision"], (m, k, n), job.threads, job.options
        )
        return product, asked["precision"]
    draw = np.random.default_rng(job.seed)
    left_MK = draw.random((m, k), np.float32)
    if asked["by"] == "numpy":
        right_KN = draw.random((k, n), np.float32)
        return lambda: left_MK @ right_KN, asked["precision"]
    Path(_FILE).write_bytes(base64.b64decode(asked["graph"]))
    session = engines.engine(asked["by"]).load(_FILE, job.threads, job.options)
    told = str(session.describe().get("precision", "float32"))
    precision = told if asked["precision"] == "float32" else asked["precision"]
    return lambda: session.run({"x": left_MK}), precision


def _streams(num_bytes: int, passes: int, threads: int) -> dict[str, Run]:
    """Reading and copying an array, each thread its own part; numpy lets go of the interpreter while it does."""
    import numpy as np

    source, target = np.ones(num_bytes // 8, np.uint64), np.zeros(num_bytes // 8, np.uint64)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    spread = map if threads == 1 else ThreadPoolExecutor(threads).map

    def read(part: Any) -> None:
        for _ in range(passes):
            np.bitwise_or.reduce(part[0])

    def copy(part: Any) -> None:
        for _ in range(passes):
            np.copyto(part[1], part[0])

    return {"read": lambda: list(spread(read, parts)), "copy": lambda: list(spread(copy, parts))}


def _streams_of_torch(num_bytes: int, passes: int) -> dict[str, Run]:
    streams: dict[str, Run] = importlib.import_module("bertshrink.engines.torch_rates").streams(num_bytes, passes)
    return streams
