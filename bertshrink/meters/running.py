"""How fast a model answers and how much memory it takes, measured in fresh processes, all models side by side.

In every round each model gets one process of its own (`meters.worker`), in the order A B C, then C B A, and so on: what
the machine does meanwhile falls on all alike, and a slow drift cancels in the ratios round by round. Every sample is
kept. While a worker runs this process sleeps. A file read in the first round is in the page cache in the later ones, so
the median load time is that of a cached file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.errors import RequestError
from bertshrink.meters.settings import RunningSettings
from bertshrink.meters.targets import PHASES, CaseResult, Result, Target
from bertshrink.meters.targets.host import Host
from bertshrink.meters.validity import crowding, warnings
from bertshrink.meters.worker import Job
from bertshrink.model.artifact import Artifact
from bertshrink.model.task import TASKS
from bertshrink.progress import Progress
from bertshrink.report.measurement import Conditions, Environment, Measurement

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder

MIN_SAMPLES = 5
"""Per case and process, even of a model so slow that the time is up before: a median wants a few."""

WARMUP_ITERATIONS = 10
_SEED = 0


@dataclass(frozen=True)
class Launch:
    """What a worker must know to run one model.

    Attributes:
        engine: a name in `engines.ENGINES`.
        path: the model's folder or file.
        options: the engine's options.
        precision: `float32`, `int8`, ...
        vocab_size: token ids lie below this.
        inputs: the names of the arrays that the model takes.
        max_length: the longest input in tokens.
        shape: the one (batch, length) that it takes; None: any.
        max_batch: the most rows that it takes at once; None: any number.

    """

    engine: str
    path: Path
    options: Mapping[str, Any]
    precision: str
    vocab_size: int
    inputs: tuple[str, ...]
    max_length: int
    shape: tuple[int, int] | None = None
    max_batch: int | None = None


def launch_of(model: Encoder | Artifact, folder: Path) -> Launch:
    """How to run a model that lies in `folder`: an encoder by torch, an artifact by its own engine."""
    if isinstance(model, Artifact):
        card = model.card
        path = folder.resolve() / card.file
        return Launch(
            engine=card.engine,
            path=path,
            options=card.options,
            precision=card.precision,
            vocab_size=card.vocab_size,
            inputs=card.inputs,
            max_length=card.max_length,
            shape=card.shape,
            max_batch=card.max_batch,
        )
    task = TASKS[model.task]
    pooling = [model.pooling.mode, model.pooling.normalize] if model.pooling else None
    session = model.session().describe()
    return Launch(
        engine="torch",
        path=folder.resolve(),
        options={"auto_class": task.auto_class, "outputs": list(task.outputs), "pooling": pooling},
        precision=session["precision"],
        vocab_size=model.shape.vocab_size,
        inputs=tuple(session["inputs"]),
        max_length=model.max_length,
    )


def measure(
    launches: Mapping[str, Launch],
    settings: RunningSettings,
    progress: Progress,
    environment: Environment,
    target: Target | None = None,
) -> dict[str, list[Measurement]]:
    """Measure latency and memory of all models, interleaved.

    Args:
        launches: the models by name.
        settings: what to run.
        progress: advanced by one per process.
        environment: of the machine that runs them.
        target: where they run; None: this machine.

    Returns:
        For every model: `latency` per case, `load_time` and `first_inference` in s; `memory` per phase (the peak of the
        process while in it) and `memory_over_engine` (the steady peak less the peak of importing the engine) in B.

    Raises:
        RequestError: a model does not take a case; nothing has run then.
        MeasurementError: a worker died, hung, or gave no result that can be believed.
        MissingPart: an engine is not installed.

    """
    target = target or Host()
    check_cases(launches, settings)
    threads = settings.threads or environment.num_cores
    at_start = crowding(environment.num_cores)
    found: dict[str, list[Result]] = {name: [] for name in launches}
    with progress.task("latency and memory", total=settings.rounds * len(launches), unit="processes") as task:
        for number in range(settings.rounds):
            for name in in_turn(list(launches), number):
                job = job_of(launches[name], settings, threads)
                found[name].append(target.run(job, settings.timeout))
                task.advance(1, model=name)
    base = Conditions(target=target.name, threads=threads)
    common = {"environment": environment.id, "evidence": target.evidence}
    return {
        name: _measurements(found[name], base.model_copy(update=_how(launch, found[name])), at_start, common)
        for name, launch in launches.items()
    }


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """The order of round `number` (from 0): as given, then backwards, and so on."""
    return list(names) if number % 2 == 0 else list(reversed(names))


def check_cases(launches: Mapping[str, Launch], settings: RunningSettings) -> None:
    """Refuse cases that a model cannot take.

    Raises:
        RequestError: one is longer than a model's longest input, has more rows than it takes, or another shape.

    """
    for name, launch in launches.items():
        if max(settings.length) > launch.max_length:
            raise RequestError(
                f"length {max(settings.length)} is more than `{name}` takes: {launch.max_length} tokens at most",
                hint=f"leave it out, or ask for `length: [{launch.max_length}]`",
            )
        if launch.max_batch is not None and max(settings.batch) > launch.max_batch:
            raise RequestError(
                f"batch {max(settings.batch)} is more than `{name}` takes: {launch.max_batch} rows at most",
                hint=f"leave it out, or ask for `batch: [{launch.max_batch}]`",
            )
        if launch.shape is not None and (settings.batch, settings.length) != tuple((size,) for size in launch.shape):
            batch, length = launch.shape
            raise RequestError(
                f"`{name}` takes {batch}x{length} (batch x length) only",
                hint=f"ask for `batch: [{batch}]` and `length: [{length}]`",
            )


def job_of(launch: Launch, settings: RunningSettings, threads: int) -> Job:
    """The job of one process."""
    return Job(
        engine=launch.engine,
        path=str(launch.path),
        options=dict(launch.options),
        threads=threads,
        cases=settings.cases,
        vocab_size=launch.vocab_size,
        inputs=list(launch.inputs),
        seed=_SEED,
        seconds=settings.seconds,
        min_samples=MIN_SAMPLES,
        warmup_seconds=settings.warmup,
        warmup_iterations=WARMUP_ITERATIONS,
    )


def _how(launch: Launch, results: Sequence[Result]) -> dict[str, str]:
    """Engine and precision: the file's, unless the engine says that it multiplies in another one."""
    precision, told = launch.precision, str(results[0].engine.get("precision", "float32"))
    if told not in ("float32", precision):
        precision = told if precision == "float32" else f"{precision} with {told}"
    return {"engine": launch.engine, "precision": precision}


def _measurements(
    results: list[Result], base: Conditions, at_start: tuple[str, ...], common: dict[str, Any]
) -> list[Measurement]:
    """Everything measured of one model: `results` holds one process per round."""

    def figure(metric: str, unit: str, values: list[list[float]], notes: tuple[str, ...], **more: Any) -> Measurement:
        return Measurement(
            metric=metric,
            unit=unit,
            better="lower",
            samples=tuple(tuple(row) for row in values),
            conditions=base.model_copy(update=more),
            warnings=notes,
            **common,
        )

    found = []
    for cases in zip(*(result.cases for result in results), strict=True):
        shape = {"batch": cases[0].batch, "length": cases[0].length}
        samples = [[ns * 1e-9 for ns in case.samples_ns] for case in cases]
        found.append(figure("latency", "s", samples, _doubts(cases) + at_start, phase="steady", **shape))
    first = {"batch": results[0].cases[0].batch, "length": results[0].cases[0].length}
    load_s = [[result.clocks_ns["load"] * 1e-9] for result in results]
    first_s = [[result.clocks_ns["first"] * 1e-9] for result in results]
    found.append(figure("load_time", "s", load_s, at_start, phase="load"))
    found.append(figure("first_inference", "s", first_s, at_start, phase="first", **first))
    notes = _memory_notes(results)
    for phase in PHASES:
        peaks = [[float(result.memory_bytes[phase])] for result in results]
        found.append(figure("memory", "B", peaks, notes, phase=phase))
    over = [[float(memory_over_engine(result))] for result in results]
    found.append(figure("memory_over_engine", "B", over, notes, phase="steady"))
    return found


def memory_over_engine(result: Result) -> int:
    """What the model costs: the steady peak less what the same process had needed to import the engine."""
    return result.memory_bytes["steady"] - result.memory_bytes["import"]


def _doubts(cases: Sequence[CaseResult]) -> tuple[str, ...]:
    name = f"{cases[0].batch}x{cases[0].length}"
    levels = [case.output_rms for case in cases if case.output_rms is not None]
    return warnings(name, [case.samples_ns for case in cases], [case.warmup_ns for case in cases], levels)


def _memory_notes(results: list[Result]) -> tuple[str, ...]:
    if all(result.memory_method == "VmHWM" for result in results):
        return ()
    return ("memory peaks are those since the process began: this system cannot set them back between phases",)
