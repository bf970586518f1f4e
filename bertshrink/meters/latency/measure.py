"""How fast a model answers and how much memory it takes, measured in fresh processes, all models side by side.

In every round each model gets one process of its own (`bertshrink.worker`). All of a round live at once and take turns
of some 50 ms (`worker.turns`), in the order A B C, then C B A, and so on: what the machine does meanwhile falls on all
alike, so that it cancels in the ratios round by round. Every sample is kept. While the workers run this process sleeps.
Before the rounds each model is run once alone: for the memory that it would share, and to see that all fit into memory
together. Where they do not, or where too few rounds are asked for to compare anything, the processes of a round run one
after the other. A file is in the page cache in all rounds, so the load time is that of a cached file, unless `cold` has
it dropped first.

With a budget of time, rounds go on while another one like the longest so far still fits; the first is always run. What
went before the rounds counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bertshrink.errors import UserError
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.latency.to_measurements import MeasurementBuilder
from bertshrink.meters.latency.validity import initial_load_warning, of_machine, of_rounds
from bertshrink.meters.latency.worker_result import WorkerResult
from bertshrink.model.fixed_shape_session import shape_words
from bertshrink.progress import Progress
from bertshrink.report.measurement import Conditions, Environment, Evidence, Measurement
from bertshrink.report.statistics import MIN_VERDICT
from bertshrink.worker.job import RunSpec, WorkerJob

if TYPE_CHECKING:
    from bertshrink.meters.latency.runner import Runner

_MOST_OF_MEMORY = 0.7
"""Of a machine's memory, which the models of a round may take together."""

_SEED = 0


def measure(
    launches: Mapping[str, RunSpec],
    settings: LatencySettings,
    progress: Progress,
    environment: Environment,
    runner: Runner,
) -> dict[str, list[Measurement]]:
    """Measure latency and memory of all models, interleaved.

    Returns:
        For every model: `latency` per case, `load_time` and `first_inference` in s; `memory` per phase (the peak of the
        process while in it), `memory_shared` (its proportional set size at the end) and `memory_over_engine` (the
        steady peak less the peak of importing the engine) in B. Of texts also `throughput` in tokens without padding
        per s, `text_rate` in texts per s, and `latency_whole`, with the tokenizing within the clock.

    Raises:
        UserError: a model does not take a case; nothing has run then.
        MeasurementError: a worker died, hung, or gave no result that can be believed.
        MissingDependency: an engine is not installed.
    """
    threads = settings.threads or environment.num_cores
    jobs = jobs_of(launches, settings, threads)
    # Another machine's load is not to be seen from here; what went on there is in the workers' results.
    at_start = initial_load_warning(environment.num_cores) if runner.evidence == Evidence.MEASURED_HOST else ()
    began = time.monotonic()
    alone = _alone(jobs, settings, progress, runner)
    worker_results = _rounds(jobs, settings, progress, runner, began, bool(alone) and _fit(alone, environment))
    base = Conditions(target=runner.name, threads=threads)
    common = {"environment": environment.id, "evidence": runner.evidence}
    done = len(next(iter(worker_results.values()), []))
    measurements = {}
    for name, results in worker_results.items():
        doubts = [
            *of_machine([result.strain for result in results], threads, environment.num_cores),
            *of_rounds(done, settings.rounds, settings.budget),
            *at_start,
        ]
        how = base.model_copy(update=_how(launches[name], results))
        writing = MeasurementBuilder(results, how, doubts, common, alone.get(name))
        measurements[name] = writing.all(jobs[name])
    return measurements


def _rounds(
    jobs: Mapping[str, WorkerJob],
    settings: LatencySettings,
    progress: Progress,
    runner: Runner,
    began: float,
    are_together: bool,
) -> dict[str, list[WorkerResult]]:
    """The results of each model, one per round."""
    results_by_model: dict[str, list[WorkerResult]] = {name: [] for name in jobs}
    longest_s = 0.0
    total = settings.rounds * len(jobs)
    with progress.task("latency and memory", total=total, unit="processes", is_timed=True) as task:
        for number in range(settings.rounds):
            start = time.monotonic()
            if settings.budget and number and start - began + longest_s > settings.budget:
                break
            names = alternating_order(list(jobs), number)
            for group in [names] if are_together else [[name] for name in names]:
                own = [replace(jobs[name], number=number) for name in group]
                results = runner.run(own, settings.timeout * len(group))
                for name, result in zip(group, results, strict=True):
                    results_by_model[name].append(result)
                task.advance(len(group), model=", ".join(group))
            longest_s = max(longest_s, time.monotonic() - start)
    return results_by_model


def _alone(
    jobs: Mapping[str, WorkerJob], settings: LatencySettings, progress: Progress, runner: Runner
) -> dict[str, WorkerResult]:
    """Each model run once with nothing of ours beside it, for its memory; empty where none has others beside it."""
    if len(jobs) == 1 or settings.rounds < MIN_VERDICT:
        return {}
    results_by_model = {}
    with progress.task("memory of each alone", total=len(jobs), unit="processes") as task:
        for name, job in jobs.items():
            once = replace(job, seconds=0.0, min_samples=1, warmup_seconds=0.0, warmup_iterations=1)
            (results_by_model[name],) = runner.run([once], settings.timeout)
            task.advance(1, model=name)
    return results_by_model


def _fit(alone: Mapping[str, WorkerResult], environment: Environment) -> bool:
    """Whether all models can be in memory at once; a machine that does not tell its memory is trusted."""
    needed = sum(result.memory_bytes["steady"] for result in alone.values())
    return not environment.memory_bytes or needed <= _MOST_OF_MEMORY * environment.memory_bytes


def alternating_order(names: Sequence[str], number: int) -> list[str]:
    """The order of round `number` (from 0): as given, then backwards, and so on."""
    return list(names) if number % 2 == 0 else list(reversed(names))


def check_cases(launches: Mapping[str, RunSpec], settings: LatencySettings) -> None:
    """Refuse cases that a model cannot take.

    Raises:
        UserError: one is longer than a model's longest input, has more rows than it takes, or another shape.
    """
    for name, launch in launches.items():
        if max(settings.length) > launch.max_length:
            raise UserError(
                f"length {max(settings.length)} exceeds the limit of `{name}`: {launch.max_length} tokens",
                hint=f"leave it out, or ask for `length: [{launch.max_length}]`",
            )
        if launch.max_batch is not None and max(settings.batch) > launch.max_batch:
            raise UserError(
                f"batch {max(settings.batch)} exceeds the limit of `{name}`: {launch.max_batch} rows",
                hint=f"leave it out, or ask for `batch: [{launch.max_batch}]`",
            )
        for key, only in zip(("batch", "length"), launch.shape or (), strict=False):
            if only is not None and getattr(settings, key) != (only,):
                raise UserError(
                    f"`{name}` takes only {shape_words(launch.shape or (None, None))} (batch x length)",
                    hint=f"ask for `{key}: [{only}]`",
                )


def jobs_of(launches: Mapping[str, RunSpec], settings: LatencySettings, threads: int) -> dict[str, WorkerJob]:
    """The job of each model's processes. Raises UserError: a model does not take a case, or there are no texts."""
    if settings.texts is None:
        check_cases(launches, settings)
        return {name: job_of(launch, settings, threads) for name, launch in launches.items()}
    from bertshrink.meters.latency.text_workload import read_workload, text_cases
    from bertshrink.model.checks.tokenizer_files import load_tokenizer

    texts = read_workload(settings.texts)
    jobs = {}
    for name, launch in launches.items():
        assert launch.tokenizer is not None
        tokenizer, _ = load_tokenizer(launch.tokenizer.parent)
        cases = text_cases(texts, tokenizer, settings, launch.max_length, launch.shape)
        jobs[name] = replace(job_of(launch, settings, threads), cases=cases, pad_id=tokenizer.pad_token_id or 0)
    return jobs


def job_of(launch: RunSpec, settings: LatencySettings, threads: int) -> WorkerJob:
    """The job of one process, on random tokens."""
    return WorkerJob(
        **vars(launch),
        threads=threads,
        cases=settings.cases,
        seed=_SEED,
        seconds=settings.seconds,
        min_samples=settings.min_samples,
        warmup_seconds=settings.warmup,
        warmup_iterations=settings.min_warmup,
        cold=settings.cold,
    )


def _how(launch: RunSpec, results: Sequence[WorkerResult]) -> dict[str, str]:
    """Engine and precision: the file's, unless the engine says that it multiplies in another one."""
    precision, told = launch.precision, str(results[0].engine.get("precision", "float32"))
    if told not in ("float32", precision):
        precision = told if precision == "float32" else f"{precision} with {told}"
    return {"engine": launch.engine, "precision": precision}
