"""One count: the instructions of one inference on an emulated core.

The worker runs three inferences and marks where each one ends (`worker.counted_run`); the plugin notes its counter at
each mark. The first inference of a process allocates what the later ones use again, so

    instructions = (counter at mark 3 - counter at mark 1) / 2

It is exact and the same in every run. (Two runs with one and with three inferences, and their difference, are not: the
end of a process costs a small model's tenth of an inference more or less, as addresses fall.) For that, everything that
could differ is held still: one thread (two of them spin while they wait, and spinning counts), no garbage collector, no
hash seeds, no bytecode written; token ids that come with the job, since NumPy's random numbers begin with entropy from
the system; and the same paths wherever the files are, since the hash of a path decides the layout of a table, and that
some thousands of instructions. QEMU sees to the paths: what the program finds at `/` is the folder `guest` (`-L`).

A count is worth nothing when the answers are wrong, and under emulation they can be: QEMU's `max` core with SVE and SME
gave int8 sums of 281.7 for -61.7. So the outputs must be those that this machine computes for the same tokens, within
what rounding explains (`FLOAT`, `QUANTIZED`). This machine computes them as exactly as it can: on x86 without VNNI,
ONNX Runtime's int8 products saturate, unless it is told to take the slower exact way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from bertshrink.errors import MeasurementError
from bertshrink.files.onnx_data_file import files_of
from bertshrink.files.scratch_folder import scratch_folder
from bertshrink.meters.latency.worker_result import CountResult, Output, read_result
from bertshrink.meters.latency.worker_zipapp import NAME, build_worker
from bertshrink.meters.targets.arm64.plugin import Qemu
from bertshrink.meters.targets.host import LocalRunner
from bertshrink.meters.targets.worker_process import WorkerExit, run_side_by_side
from bertshrink.worker.inputs import random_feed
from bertshrink.worker.job import WorkerJob
from bertshrink.worker.machine.identity import usable_cores

ITERATIONS = 3
"""Inferences: one that allocates, and two that count."""


@dataclass(frozen=True)
class OutputTolerance:
    """How far emulated outputs may be from this machine's.

    Attributes:
        distance: 1 - cosine.
        difference: the farthest value, as a share of the largest: one wrong value of many moves the cosine little.
    """

    distance: float
    difference: float


FLOAT = OutputTolerance(1e-4, 0.03)
"""The order of additions leaves 1e-12 in float32, and about 1e-6 in 16 bits."""

QUANTIZED = OutputTolerance(0.03, 0.3)
"""Int8 products are exact: the emulated cores agree with each other to the last bit. But where an activation is rounded
the other way, because a softmax differs in its last bit, all later ones are rounded again. all-MiniLM-L6-v2 at 32 and
64 tokens then differs by 0.0028 in cosine and by 6 % of the largest value in int8, by 0.0020 and 9 % in 4 bits: a part
of what int8 itself costs it (0.010 to 0.018). The wrong kernel under QEMU's `max` core gave 0.92 and 112 %."""

EXACT_ON_X86 = ("session.x64quantprecision", "1")
"""ONNX Runtime's session setting for int8 products without saturation on AVX2; no other processor reads it."""

MAX_AT_ONCE = 4
"""Emulated processes side by side: each holds the model, and some 200 MB besides."""

_COUNT = "count"
_MAX_COUNT_BYTES = 10_000
_GUEST = "guest"
_PYTHON = "/usr/bin/python3.11"


@dataclass(frozen=True)
class EmulatedRunner:
    """What a count runs on."""

    qemu: Qemu
    cpu: str
    root: Path
    plugin: Path


def count(
    emulated: EmulatedRunner, jobs: Sequence[WorkerJob], precisions: Sequence[str], host: LocalRunner, timeout_s: float
) -> list[float]:
    """Instructions of one inference of each job's first case, {"batch": B, "length": L}.

    The jobs run side by side where there are cores for it: what else runs does not change a count.

    Args:
        host: computes what the outputs must be.

    Raises:
        MeasurementError: a run died, hung or lied, or the outputs are not this machine's.
        MissingDependency: ONNX Runtime is not installed on this machine.
    """
    instructions = []
    jobs = [counting_job(job) for job in jobs]
    for job, precision, (marks, counted) in zip(jobs, precisions, _run(emulated, jobs, timeout_s), strict=True):
        own = read_result(host.answer(replace(job, options=_exactly(job.options)), timeout_s), CountResult, job)
        limits = FLOAT if precision in ("float32", "float16", "bfloat16") else QUANTIZED
        check_outputs(counted.outputs, own.outputs, limits, str(job.path))
        instructions.append((marks[-1] - marks[1]) / (ITERATIONS - 1))
    return instructions


def counting_job(job: WorkerJob) -> WorkerJob:
    """The job `count` on one thread, its tokens within it."""
    case = job.cases[0]
    rows = random_feed(replace(job, inputs=("input_ids",)), case["batch"], case["length"])["input_ids"]
    told = {"name": f"{case['batch']}x{case['length']}", "batches": [rows.tolist()], "pad_to": None}
    return replace(job, do="count", threads=1, cases=[told], iterations=ITERATIONS)


def _exactly(options: Mapping[str, object]) -> dict[str, object]:
    """The engine's options with int8 products that do not saturate."""
    config = options.get("config")
    key, value = EXACT_ON_X86
    return dict(options) | {"config": (config if isinstance(config, dict) else {}) | {key: value}}


def _run(emulated: EmulatedRunner, jobs: Sequence[WorkerJob], timeout_s: float) -> list[tuple[list[int], CountResult]]:
    with scratch_folder() as name:
        folders = [name / str(number) for number in range(len(jobs))]
        for folder, job in zip(folders, jobs, strict=True):
            guest = prepare_guest(folder, emulated)
            (guest / NAME).write_bytes(build_worker())
            (folder / "job").write_text(replace(job, path=linked(job.path, guest)).to_json(), encoding="utf-8")
        at_once = min(usable_cores(), MAX_AT_ONCE)
        codes = run_side_by_side(folders, command(emulated, f"/{NAME}"), variables(), timeout_s, at_once)
        counts = []
        for folder, job, code in zip(folders, jobs, codes, strict=True):
            counted = read_result(WorkerExit.of(code, folder).answer(job, timeout_s), CountResult, job)
            counts.append((read_marks(folder, 1 + job.iterations), counted))
        return counts


def linked(path: Path, guest: Path) -> Path:
    """Where the emulated program finds a model; the weights beside it have the name that its graph gives them."""
    model, *beside = files_of(path)
    name = f"model{model.suffix}"
    (guest / name).symlink_to(model)
    for file in beside:
        (guest / file.name).symlink_to(file)
    return Path(f"/{name}")


def prepare_guest(folder: Path, emulated: EmulatedRunner) -> Path:
    """Make a folder to run in, with the plugin and all that the emulated program finds at `/`; returns the latter."""
    guest = folder / _GUEST
    guest.mkdir(parents=True)
    for name in ("lib", "usr", "site"):
        (guest / name).symlink_to(emulated.root / name)
    (folder / "count.so").symlink_to(emulated.plugin)
    return guest


def command(emulated: EmulatedRunner, program: str, *, writes_bytecode: bool = False) -> list[str]:
    """What runs a Python program emulated and counted, in a furnished folder."""
    counted = ["-plugin", f"./count.so,out={_COUNT}", "-seed", "1"]
    emulator = [emulated.qemu.path, "-cpu", emulated.cpu, "-L", _GUEST, "-0", _PYTHON, *counted, f"{_GUEST}{_PYTHON}"]
    return [*emulator, "-S", "-P", *([] if writes_bytecode else ["-B"]), program]


def variables(at: str = "") -> dict[str, str]:
    """All environment variables of an emulated program.

    Args:
        at: the folder `guest` as this machine sees it: for a program that writes into it, since QEMU finds only what is
            there already.
    """
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS")}
    return {"PYTHONHOME": f"{at}/usr", "PYTHONPATH": f"{at}/site", "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"} | threads


def read_marks(folder: Path, num_marks: int) -> list[int]:
    """The counter at each mark that the program made, as the plugin wrote it.

    Raises:
        MeasurementError: nothing, no numbers, another number of marks, or a counter that does not grow.
    """
    try:
        with (folder / _COUNT).open("rb") as file:
            *marks, total = (int(line) for line in file.read(_MAX_COUNT_BYTES).split())
    except (OSError, ValueError):
        raise MeasurementError(
            "the emulator ran to its end and counted nothing", hint="was QEMU built without plugins?"
        ) from None
    if len(marks) != num_marks or not all(a < b for a, b in pairwise([0, *marks, total])):
        raise MeasurementError(f"the emulator's counts are wrong: {num_marks} growing ones were expected, not {marks}")
    return marks


def check_outputs(
    emulated: Mapping[str, Output], own: Mapping[str, Output], limits: OutputTolerance, path: str
) -> None:
    """Refuse a count whose outputs are not those that this machine computes for the same tokens.

    Raises:
        MeasurementError: other outputs, other shapes, or values farther apart than rounding explains.
    """
    if {name: o.shape for name, o in emulated.items()} != {name: o.shape for name, o in own.items()}:
        raise MeasurementError("emulated, the model gives outputs of other names or shapes than here", where=path)
    for name, output in own.items():
        distance, difference = output_distance(emulated[name].values, output.values)
        if not (distance <= limits.distance and difference <= limits.difference):
            raise MeasurementError(
                f"emulated, the model gives another `{name}` than here: 1 - cosine is {distance:.2g} "
                f"({limits.distance:g} at most), the farthest value is off by {100 * difference:.2g} % of the largest "
                f"({100 * limits.difference:g} % at most)",
                where=path,
                hint="the emulator, or a kernel on one of the two, computes wrongly; the count is discarded",
            )


def output_distance(values: tuple[float, ...], own: tuple[float, ...]) -> tuple[float, float]:
    """1 - cosine of two lists of values, and their largest difference as a share of the largest of `own`."""
    if len(values) != len(own):
        return math.inf, math.inf
    a, b = np.asarray(values), np.asarray(own)
    norms, largest = float(np.linalg.norm(a) * np.linalg.norm(b)), float(np.abs(b).max(initial=0.0))
    difference = float(np.abs(a - b).max(initial=0.0))
    if norms == 0 or largest == 0:
        return (0.0, 0.0) if difference == 0 else (math.inf, math.inf)
    return max(0.0, 1 - float(a @ b) / norms), difference / largest
