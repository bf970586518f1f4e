"""How near a model comes to what its machine can do (Williams, Waterman, Patterson 2009, doi:10.1145/1498765.1498785).

    floor   max(sum over precisions of operations / gemm rate, bytes touched / read rate): no program that multiplies
            the same numbers in the same precisions on this machine is faster
    share   floor / latency; at most 1 / share is left to gain, by better kernels alone

What a model needs is counted (`meters.roofline.inference_cost`), what the machine gives is measured in the same run
(`meters.roofline.machine_peaks`). Bytes are a lower bound, so where memory binds, the true share is at least the one
shown. Fewer layers, fewer bits or shorter texts move the floor itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bertshrink import units
from bertshrink.meters.roofline.inference_cost import WIDTH_BYTES, InferenceCost, encoder_work, onnx_work
from bertshrink.meters.roofline.machine_peaks import MachinePeaks, measure_roofs
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.tasks import TASKS
from bertshrink.report.measurement import Measurement
from bertshrink.worker.job import RunSpec

if TYPE_CHECKING:
    from bertshrink.meters.latency.runner import Runner

ON_GPU = "gpu"
"""The target whose models are on a GPU."""

_NOTHING_LEFT = 0.95
"""From this share on, what is left is within the noise of both measurements."""


@dataclass(frozen=True)
class RooflinePoint:
    """Where one inference is below its roofs.

    Attributes:
        floor_s: the shortest time in which this machine could do it.
        binds: which roof that is.
    """

    work: InferenceCost
    latency_s: float
    floor_s: float
    binds: Literal["arithmetic", "memory"]

    @property
    def share(self) -> float:
        """Of the machine's rate at the roof that binds."""
        return self.floor_s / self.latency_s

    def sentence(self, case: str) -> str:
        """For people: `8x128: bound by arithmetic, 61 % of the machine's peak; at most 1.6x remains`."""
        rate = (self.work.num_operations, "op/s") if self.binds == "arithmetic" else (self.work.num_bytes, "B/s")
        reached = units.format(rate[0] / self.latency_s, rate[1])
        left = "nothing is left" if self.share >= _NOTHING_LEFT else f"at most {1 / self.share:.1f}x remains"
        share = f"{100 * self.share:.0f} % of the machine's peak"
        return f"{case}: bound by {self.binds}, {reached} is {share}; {left}"


@dataclass(frozen=True)
class Roofline:
    """What the machine reaches and what share of it each model uses.

    Attributes:
        machine: `gemm_rate` (op/s) and `memory_rate` (B/s).
        models: by model, for each case: `share_of_peak` (fraction), `operation_rate` (op/s) and `byte_rate` (B/s).
        notes: by model, a sentence for each case.
    """

    machine: list[Measurement]
    models: dict[str, list[Measurement]]
    notes: dict[str, list[str]]


def roofline(
    launches: Mapping[str, RunSpec],
    measurements: Mapping[str, Sequence[Measurement]],
    runner: Runner,
    threads: int,
) -> Roofline:
    """Put models that have been timed under the roofs of the machine that timed them.

    Args:
        measurements: of each model; its latencies of fixed shapes are used, a GPU's own clock before the host's.
        runner: where they ran; it measures the roofs now.

    Returns:
        Nothing of models of which no work is known (.ort, .pte, graphs that do not tell).

    Raises:
        MeasurementError: the roofs could not be measured.
        MissingDependency: an engine or a device went away.
    """
    works = {
        (name, at): work
        for name, launch in launches.items()
        for at, timing in enumerate(timings(measurements[name]))
        if (work := work_of(launch, timing)) is not None
    }
    if not works:
        return Roofline([], {name: [] for name in launches}, {name: [] for name in launches})
    touched = {name: min(w.num_bytes for (n, _), w in works.items() if n == name) for name, _ in works}
    some = timings(measurements[next(iter(works))[0]])[0]
    on_gpu = some.conditions.target == ON_GPU
    roofs = measure_roofs(runner, launches.values(), touched.values(), threads, on_gpu=on_gpu)
    models: dict[str, list[Measurement]] = {name: [] for name in launches}
    notes: dict[str, list[str]] = {name: [] for name in launches}
    for (name, at), work in works.items():
        timing = timings(measurements[name])[at]
        place = position(work, timing.value, roofs)
        if place is not None:
            models[name] += _measurements(place, timing)
            notes[name].append(place.sentence(f"{timing.conditions.batch}x{timing.conditions.length}"))
    base = some.conditions.model_copy(
        update=dict.fromkeys(("engine", "precision", "batch", "length", "phase"), None) | {"threads": threads}
    )
    common = {"environment": some.environment, "evidence": some.evidence}
    return Roofline(roofs.measurements(base, common), models, notes)


def timings(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The latencies of fixed shapes: by the device's clock where there is one, else by the host's."""
    for metric in ("device_latency", "latency"):
        latencies = [
            m
            for m in measurements
            if m.metric == metric and m.conditions.batch is not None and m.conditions.length is not None
        ]
        if latencies:
            return latencies
    return []


def work_of(launch: RunSpec, timing: Measurement) -> InferenceCost | None:
    """What one inference of a timing has to do; None where it is not known.

    Raises:
        UnsafeModel: the file was damaged meanwhile.
    """
    batch, length = timing.conditions.batch, timing.conditions.length
    if batch is None or length is None:
        return None
    if launch.engine == "torch":
        precision = "tf32" if launch.options.get("tf32") else str(launch.options.get("dtype", "float32"))
        return encoder_work(read_facts(launch.path, _task(launch)), batch, length, precision)
    if launch.path.suffix != ".onnx":
        return None
    told = (timing.conditions.precision or "").rpartition("with ")[2]
    floats = told if launch.engine == "openvino" and told in WIDTH_BYTES else None
    return onnx_work(launch.path, batch, length, "tf32" if launch.options.get("tf32") else floats)


def _task(launch: RunSpec) -> str:
    """The task whose class and outputs the launch asks for; one of those with the same work where several do."""
    wanted = (launch.options.get("auto_class"), tuple(launch.options.get("outputs", ())))
    return next((task.name for task in TASKS.values() if (task.auto_class, task.outputs) == wanted), "auto")


def position(work: InferenceCost, latency_s: float, roofs: MachinePeaks) -> RooflinePoint | None:
    """Where an inference is; None where the machine's rates are not known."""
    compute_s = 0.0
    for precision, operations in work.operations.items():
        product = roofs.product(precision)
        if product is None:
            return None
        compute_s += operations / product.rate
    stream = roofs.reading(work.num_bytes)
    memory_s = work.num_bytes / stream.rate if stream is not None else 0.0
    is_compute = compute_s >= memory_s
    return RooflinePoint(work, latency_s, max(compute_s, memory_s), "arithmetic" if is_compute else "memory")


def _measurements(place: RooflinePoint, timing: Measurement) -> list[Measurement]:
    """Of each round: the share of the peak, operations and bytes per second."""

    def figure(metric: str, unit: str, amount: float) -> Measurement:
        return timing.model_copy(
            update={
                "metric": metric,
                "unit": unit,
                "better": "higher",
                "samples": tuple((amount / seconds,) for seconds in timing.rounds),
                "warnings": (),
            }
        )

    return [
        figure("share_of_peak", "fraction", place.floor_s),
        figure("operation_rate", "op/s", place.work.num_operations),
        figure("byte_rate", "B/s", place.work.num_bytes),
    ]
