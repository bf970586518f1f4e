"""From the results of a model's processes to its measurements: every sample, with what speaks against it.

Of a device with a clock and a memory of its own, beside the host's figures:

    device_latency            s   a forward pass by the device's clock: no copies, no wait of the host
    device_memory_allocated   B   peak of what tensors took, by PyTorch's allocator, in each phase
    device_memory_reserved    B   peak of what that allocator held for them
    device_memory_driver      B   all that the process held at the end, by the driver: context and libraries too
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bertshrink.meters.latency.validity import of_case, validity_of
from bertshrink.meters.latency.worker_result import DEVICE_METHODS, PHASES, CaseResult, WorkerResult
from bertshrink.report.measurement import Better, Conditions, Measurement, MeasurementWarning
from bertshrink.worker.job import WorkerJob

_NS = 1e-9


class MeasurementBuilder:
    """Writes the measurements of one model.

    Args:
        results: one process per round, at least one.
        base: the conditions that all have in common.
        doubts: what speaks against all of them.
        common: further fields of every measurement.
        alone: a process with no others of ours beside it, where `results` had them: the memory that it shares is told
            of this one.
    """

    def __init__(
        self,
        results: Sequence[WorkerResult],
        base: Conditions,
        doubts: Sequence[MeasurementWarning],
        common: dict[str, Any],
        alone: WorkerResult | None = None,
    ) -> None:
        self.results = results
        self.undivided = results if alone is None else (alone,)
        self.base = base
        self.doubts = tuple(doubts)
        self.common = common

    def all(self, job: WorkerJob) -> list[Measurement]:
        """Everything that was measured; `job` is what all processes were told."""
        cases = [[result.cases[at] for result in self.results] for at in range(len(job.cases))]
        times = [m for own, asked in zip(cases, job.cases, strict=True) for m in self._case(own, asked)]
        return [*times, *self._phases(cases[0][0], job.cases[0]), *self._memory()]

    def _case(self, cases: Sequence[CaseResult], asked: dict[str, Any]) -> Iterable[Measurement]:
        where: dict[str, Any] = {"phase": "steady", **_shape(cases[0], asked)}
        title = self.base.model_copy(update=where).case or ""
        doubts = [*_of_samples(title, cases), *self.doubts]
        yield self._figure("latency", "s", [_seconds(case.samples_ns) for case in cases], doubts, **where)
        told = [_seconds(case.device_ns) for case in cases if case.device_ns]
        if len(told) == len(cases):
            yield self._figure("device_latency", "s", told, self.doubts, **where)
        if "batches" not in asked:
            return
        texts = [len(rows) for rows in asked["batches"]]
        rates = ((("throughput", "token/s", cases[0].tokens)), ("text_rate", "text/s", texts))
        for metric, unit, amounts in rates:
            values = [[_per_second(case.samples_ns, amounts)] for case in cases]
            yield self._figure(metric, unit, values, doubts, "higher", **where)
        whole = [_seconds(case.whole_ns) for case in cases if case.whole_ns]
        if len(whole) == len(cases):
            yield self._figure("latency_whole", "s", whole, doubts, **where)

    def _phases(self, case: CaseResult, asked: dict[str, Any]) -> Iterable[Measurement]:
        load_s = [[result.clocks_ns["load"] * _NS] for result in self.results]
        first_s = [[result.clocks_ns["first"] * _NS] for result in self.results]
        yield self._figure("load_time", "s", load_s, self.doubts, phase="load")
        yield self._figure("first_inference", "s", first_s, self.doubts, phase="first", **_shape(case, asked))

    def _memory(self) -> Iterable[Measurement]:
        results = self.results
        doubts = _of_memory(results)
        for phase in PHASES:
            peaks = [[float(result.memory_bytes[phase])] for result in results]
            yield self._figure("memory", "B", peaks, doubts, phase=phase)
        for phase in PHASES:
            shares = [[float(size)] for result in self.undivided if (size := result.pss_bytes.get(phase)) is not None]
            if len(shares) == len(self.undivided):
                yield self._figure("memory_shared", "B", shares, (), phase=phase)
        over = [[float(memory_over_engine(result))] for result in results]
        yield self._figure("memory_over_engine", "B", over, doubts, phase="steady")
        for phase in PHASES:
            for method in DEVICE_METHODS:
                reported = [r.device_bytes.get(phase, {}).get(method) for r in results]
                sizes = [[float(size)] for size in reported if size is not None]
                if len(sizes) == len(results):
                    yield self._figure(f"device_memory_{method}", "B", sizes, (), phase=phase)

    def _figure(
        self,
        metric: str,
        unit: str,
        values: Sequence[Sequence[float]],
        doubts: Sequence[MeasurementWarning],
        better: Better = "lower",
        **more: Any,
    ) -> Measurement:
        return Measurement(
            metric=metric,
            unit=unit,
            better=better,
            samples=tuple(tuple(row) for row in values),
            conditions=self.base.model_copy(update=more),
            warnings=tuple(doubts),
            validity=validity_of(doubts),
            **self.common,
        )


def memory_over_engine(result: WorkerResult) -> int:
    """What the model costs: the steady peak less what the same process had needed to import the engine."""
    return result.memory_bytes["steady"] - result.memory_bytes["import"]


def _shape(case: CaseResult, asked: dict[str, Any]) -> dict[str, Any]:
    """The conditions of one case: texts have their own lengths."""
    if "batches" not in asked:
        return {"batch": case.batch, "length": case.length}
    pad_to = asked["pad_to"]
    return {"batch": case.batch, "workload": asked["workload"], "padding": "longest" if pad_to is None else str(pad_to)}


def _seconds(samples_ns: Sequence[int]) -> list[float]:
    return [ns * _NS for ns in samples_ns]


def _per_second(samples_ns: Sequence[int], amounts: Sequence[int]) -> float:
    """What was done per second, `amounts` by batch; samples go through the batches in turn, in whole passes."""
    return sum(amounts) * (len(samples_ns) // len(amounts)) / (sum(samples_ns) * _NS)


def _of_samples(title: str, cases: Sequence[CaseResult]) -> tuple[MeasurementWarning, ...]:
    """Of one shape each sample can be told from its like; of texts of all lengths only whole passes can."""
    levels = [case.output_rms for case in cases if case.output_rms is not None]
    batches = len(cases[0].tokens)
    samples = [_passes(case.samples_ns, batches) for case in cases]
    return of_case(title, samples, [_passes(case.warmup_ns, batches) for case in cases], levels)


def _passes(samples_ns: Sequence[int], batches: int) -> list[float]:
    """The time of each pass over all batches."""
    return [float(sum(samples_ns[at : at + batches])) for at in range(0, len(samples_ns), batches)]


def _of_memory(results: Sequence[WorkerResult]) -> tuple[MeasurementWarning, ...]:
    if all(result.memory_method == "VmHWM" for result in results):
        return ()
    return (MeasurementWarning(kind="memory_since_start"),)
