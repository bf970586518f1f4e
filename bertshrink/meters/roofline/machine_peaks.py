"""The roofs of a machine: how fast it multiplies in each precision and how fast it reads, measured by the worker with
the threads and on the device that the models have.

A roof is the fastest of repeated runs, and the fastest of several ways: a machine can do what it has done once.
Products are multiplied by numpy's BLAS and by every engine at hand, so that a slow engine does not lower its own roof;
on a GPU by PyTorch alone, whose arrays stay there. Sizes:

    1024 x 1024 x 1024   each number is used a thousand times, so memory does not count; 10 to 50 ms on a core of today
    1024 x 768 x 3072    BERT base's largest product for 8 rows of 128 tokens
    8192 x 8192 x 8192   on a GPU, whose hundred cores smaller ones do not fill; a millisecond or two

Reading is measured far above the last-level cache, and again over as many bytes as each model touches: weights that fit
into the caches come faster than memory gives them, and only this tells how fast.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertshrink.hardware import BFLOAT16_FLAGS
from bertshrink.meters.latency.worker_result import GemmRate, MachineRates, ReadRate, read_result
from bertshrink.report.measurement import Conditions, Measurement
from bertshrink.worker.job import RunSpec, WorkerJob

if TYPE_CHECKING:
    from bertshrink.meters.latency.runner import Runner

CPU_SHAPES = ((1024, 1024, 1024), (1024, 768, 3072))
GPU_SHAPES = ((4096, 4096, 4096), (8192, 8192, 8192))
SECONDS = 0.4
"""Of each product and stream, after half as much warm-up: some ten runs of the slowest that is of use."""

_MIN_SAMPLES = 3
_WARMUP_ITERATIONS = 1
_MIB = 1 << 20


@dataclass(frozen=True)
class MachinePeaks:
    """How fast one machine multiplies and reads."""

    products: tuple[GemmRate, ...]
    streams: tuple[ReadRate, ...]

    def product(self, precision: str) -> GemmRate | None:
        """The fastest in a precision; float32's where that one was not measured; None where nothing was."""
        for wanted in (precision, "float32"):
            candidates = [product for product in self.products if product.precision == wanted]
            if candidates:
                return max(candidates, key=lambda product: product.rate)
        return None

    def reading(self, num_bytes: int) -> ReadRate | None:
        """The read of the array that is nearest to so many bytes; None where nothing was read."""
        reads = [stream for stream in self.streams if stream.kind == "read"]
        return min(reads, key=lambda s: max(s.num_bytes, num_bytes) / min(s.num_bytes, num_bytes), default=None)

    def measurements(self, base: Conditions, common: Mapping[str, Any]) -> list[Measurement]:
        """`gemm_rate` (op/s) of each precision and way, `memory_rate` (B/s) of reading and copying."""
        fastest: dict[tuple[str, str], float] = {}
        for product in self.products:
            key = (product.by, product.precision)
            fastest[key] = max(product.rate, fastest.get(key, 0.0))
        peaks = [
            Measurement.single("gemm_rate", "op/s", rate, "higher", conditions=_with(base, by, precision), **common)
            for (by, precision), rate in fastest.items()
        ]
        rates = {s.kind: s.rate for s in sorted(self.streams, key=lambda s: s.rate) if s.is_memory}
        for kind, rate in sorted(rates.items(), reverse=True):
            conditions = base.model_copy(update={"phase": kind})
            peaks.append(Measurement.single("memory_rate", "B/s", rate, "higher", conditions=conditions, **common))
        return peaks


def _with(base: Conditions, engine: str, precision: str) -> Conditions:
    return base.model_copy(update={"engine": engine, "precision": precision})


def measure_roofs(
    runner: Runner,
    launches: Iterable[RunSpec],
    touched: Iterable[int],
    threads: int,
    *,
    on_gpu: bool = False,
    timeout_s: float = 300.0,
) -> MachinePeaks:
    """Measure, one process for each engine.

    Args:
        touched: the bytes that inferences touch: reading is measured at these sizes too.
        on_gpu: whether the models are on a GPU; the runner then uses it for this too.
        timeout_s: timeout of a process in seconds.

    Raises:
        MeasurementError: a process died, hung, or gave no result that can be believed.
        MissingDependency: an engine or a device is not there.
    """
    asked = jobs(list(launches), touched, threads, on_gpu=on_gpu)
    rates_by_job = [read_result(runner.answer(job, timeout_s), MachineRates, job) for job in asked]
    return MachinePeaks(
        tuple(product for rates in rates_by_job for product in rates.products),
        tuple(stream for rates in rates_by_job for stream in rates.streams),
    )


def jobs(launches: Sequence[RunSpec], touched: Iterable[int], threads: int, *, on_gpu: bool) -> list[WorkerJob]:
    """The jobs `rates`: one for each engine of the launches; reading and numpy come with the first."""
    engines = ["torch"] if on_gpu else list(dict.fromkeys(launch.engine for launch in launches))
    sizes = sorted({max(_MIB, round(num / _MIB) * _MIB) for num in touched})
    shapes = GPU_SHAPES if on_gpu else CPU_SHAPES
    made = []
    for at, engine in enumerate(engines):
        products = [] if at or on_gpu else _entries("numpy", {"float32": ()}, shapes)
        job = WorkerJob.without_model(
            f"{engine}'s products",
            engine,
            threads=threads,
            seconds=SECONDS,
            min_samples=_MIN_SAMPLES,
            warmup_seconds=SECONDS / 2,
            warmup_iterations=_WARMUP_ITERATIONS,
            do="rates",
            products=products + _entries(engine, precisions(engine, launches, on_gpu=on_gpu), shapes),
            streams=[] if at else [0, *sizes],
        )
        made.append(job)
    return made


def precisions(engine: str, launches: Sequence[RunSpec], *, on_gpu: bool) -> dict[str, tuple[str, ...]]:
    """What an engine is to multiply in, each with the CPU flags of which one must be there (none: whatever there is).

    What the models need is measured also where the machine emulates it; bfloat16, for what it would give, where not.
    """
    match engine:
        case "torch":
            own = [launch.options for launch in launches if launch.engine == "torch" or on_gpu]
            asked = {"tf32" if o.get("tf32") else str(o.get("dtype", "float32")) for o in own}
            extra: dict[str, tuple[str, ...]] = {} if on_gpu else {"bfloat16": tuple(sorted(BFLOAT16_FLAGS))}
            return extra | {name: () for name in sorted(asked)}
        case "onnxruntime":
            return {"float32": (), "int8": ()}
        case "openvino":
            return {"float32": ()}
    return {}


def _entries(
    by: str, asked: Mapping[str, Sequence[str]], shapes: Iterable[tuple[int, int, int]]
) -> list[dict[str, Any]]:
    entries = []
    for precision, needs in asked.items():
        for shape in shapes:
            entry: dict[str, Any] = {"by": by, "precision": precision, "shape": list(shape), "needs": list(needs)}
            if by not in ("numpy", "torch"):
                entry["graph"] = base64.b64encode(product_graph(precision, shape)).decode()
            entries.append(entry)
    return entries


def product_graph(precision: str, shape: tuple[int, int, int]) -> bytes:
    """An ONNX file with one product: x (M, K) by a stored matrix (K, N), which a rule of a few bytes fills.

    Args:
        precision: `float32`; or `int8`, where x is quantized on the way as dynamic quantization does it.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    m, k, n = shape
    kind = TensorProto.INT8 if precision == "int8" else TensorProto.FLOAT
    stored = [numpy_helper.from_array(np.array([k, n], np.int64), "shape")]
    value = helper.make_tensor("one", kind, [1], [1])
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["weight"], value=value)]
    if precision == "int8":
        stored.append(numpy_helper.from_array(np.array(0.01, np.float32), "weight_scale"))
        nodes += [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["bytes", "scale", "zero_point"]),
            helper.make_node("MatMulInteger", ["bytes", "weight", "zero_point"], ["sums"]),
            helper.make_node("Cast", ["sums"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["scale", "weight_scale"], ["both_scales"]),
            helper.make_node("Mul", ["numbers", "both_scales"], ["y"]),
        ]
    else:
        nodes.append(helper.make_node("MatMul", ["x", "weight"], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [m, k])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [m, n])
    graph = helper.make_graph(nodes, "product", [x], [y], stored)
    model_bytes: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10
    ).SerializeToString()
    return model_bytes
