"""A device's rates, measured on a real one that ssh reaches, in the place of those that were assumed.

    IPC         instructions of a model / (its latency on one thread x the clock), over two lengths and all rounds: the
                least and the greatest, a tenth wider; the instructions as `profile` will find them for other models
    bandwidth   of copying an array far larger than any cache: what is read a second, and what is read and written
    clock       the highest that the kernel names, where it names one

What comes out is a device file of the user's own. The model is one that is given, or one made here: three layers of the
matrices, norms and GELUs of a small encoder, with random weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bertshrink.errors import MeasurementError, UserError
from bertshrink.meters.latency.measure import measure
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.targets.host import fixed_variables
from bertshrink.meters.targets.profile import WorkCounts, count
from bertshrink.meters.targets.profile.device import Calibration, DeviceProfile, SourcedValue, Span
from bertshrink.meters.targets.ssh import SshRunner
from bertshrink.progress import Progress
from bertshrink.report.measurement import Measurement
from bertshrink.worker.job import RunSpec

SETTINGS = LatencySettings(batch=(1,), length=(16, 128), rounds=5, seconds=1.0, threads=1)
WIDER = 1.1
"""What other models may do better or worse than the one measured."""

_COPY_S = 120
_COPY = """
import json, sys, time
from pathlib import Path
import numpy as np
array = np.ones(64 << 18, np.float32)
copy = np.empty_like(array)
times = []
for _ in range(10):
    start = time.perf_counter()
    np.copyto(copy, array)
    times.append(time.perf_counter() - start)
clocks = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/cpuinfo_max_freq")
json.dump({"copy": array.nbytes / min(times), "hertz": [1000.0 * int(path.read_text()) for path in clocks]}, sys.stdout)
"""
"""64 MiB there and 64 MiB back; the first time the pages are still to be given, so the best of ten counts."""


@dataclass(frozen=True)
class Rates:
    """What a machine does.

    Attributes:
        ipc: instructions per cycle, bounds.
        copy: bytes copied per second.
        hertz: the clock.
        is_told: whether the machine names its clock; else it is the device file's.
    """

    ipc: Span
    copy: float
    hertz: float
    is_told: bool


def calibrate(
    machine: SshRunner, device: DeviceProfile, launch: RunSpec, model: str, progress: Progress
) -> DeviceProfile:
    """Measure a device's rates.

    Args:
        machine: the device, connected.
        device: what is known of it so far.
        launch: the model to measure with; it must take any shape.

    Raises:
        MeasurementError: nothing that can be believed.
        MissingDependency: the engine is not there, or the connection broke.
        UserError: the model does not take the lengths.
    """
    if launch.shape is not None or launch.max_length < max(SETTINGS.length):
        raise UserError(f"`{model}` does not take 1x16 and 1x128", hint="calibrate with a model that takes any shape")
    there = machine.environment()
    _refuse_other_cores(machine, device, there.isa)
    launches = {model: launch}
    machine.require([launch.engine])
    machine.send([launch.path], progress)
    counts = count(launches, SETTINGS, progress, device)
    measurements = measure(launches, SETTINGS, progress, there, machine)[model]
    rates = _rates(machine, device, counts, measurements, model)
    return with_rates(device, rates, _how(machine, counts, launch, model, there.packages))


_NEEDS = {"a53": (), "a72": (), "a76": ("asimddp",), "armv8.6": ("asimddp", "i8mm")}
"""Class of cores -> the kernel's words for the dot products by which it is told from the others."""


def _refuse_other_cores(machine: SshRunner, device: DeviceProfile, isa: Sequence[str]) -> None:
    """Rates of one class of cores say nothing about another one."""
    extensions = tuple(name for name in ("asimddp", "i8mm") if name in isa)
    kind = machine.link.about.get("machine")
    if kind not in ("aarch64", "arm64") or extensions != _NEEDS[device.isa.value]:
        raise UserError(
            f"`{machine.address}` is not a {device.name}: it is {kind} with "
            f"{', '.join(extensions) or 'no dot products'}, and the cores of the profile are {device.isa.value}",
            where="--profile",
            hint="name the profile of the device that is connected",
        )


def _rates(
    machine: SshRunner, device: DeviceProfile, counts: WorkCounts, measurements: list[Measurement], model: str
) -> Rates:
    (ended,) = machine.link.run([None, "-c", _COPY], [""], fixed_variables(1), _COPY_S)
    try:
        told = json.loads(ended.result)
        copy, clocks = float(told["copy"]), [float(clock) for clock in told["hertz"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise MeasurementError(f"`{machine.address}` reports no copy rate", hint=ended.log or None) from None
    hertz = max(clocks, default=device.ghz.value * 1e9)
    if not (math.isfinite(copy) and copy > 0 and math.isfinite(hertz) and hertz > 0):
        raise MeasurementError(f"`{machine.address}` reports impossible rates: copy {copy} B/s, clock {hertz} Hz")
    ipc = ipc_of(counts.spans[model], [m for m in measurements if m.metric == "latency"], hertz)
    return Rates(ipc, copy, hertz, bool(clocks))


def ipc_of(spans: dict[tuple[int, int], Span], latencies: list[Measurement], hertz: float) -> Span:
    """Bounds of the instructions per cycle, over cases and rounds.

    Instructions that follow from operations are bounds themselves; their middle is taken, so that the same bounds
    around another model's middle are as wide as they were, and no wider.
    """
    ipcs = [
        math.sqrt(math.prod(spans[m.conditions.batch or 1, m.conditions.length or 1])) / (seconds * hertz)
        for m in latencies
        for seconds in m.rounds
    ]
    return min(ipcs) / WIDER, max(ipcs) * WIDER


def with_rates(device: DeviceProfile, rates: Rates, how: Calibration) -> DeviceProfile:
    """The device with measured rates in the place of assumed ones."""
    source = f"measured on {how.by} on {how.when[:10]} with {how.model} ({how.engine}), by {how.basis}"
    clock = (
        SourcedValue[float](value=rates.hertz / 1e9, source=f"the kernel of {how.by}") if rates.is_told else device.ghz
    )
    return device.model_copy(
        update={
            "ghz": clock,
            "ipc": SourcedValue[Span](value=rates.ipc, source=source),
            "bandwidth_gbs": SourcedValue[Span](
                value=(rates.copy / 1e9, 2 * rates.copy / 1e9),
                source=f"copies on {how.by} on {how.when[:10]}: what is read, and what is read and written",
            ),
            "calibrated": how,
        }
    )


def _how(machine: SshRunner, counts: WorkCounts, launch: RunSpec, model: str, packages: dict[str, str]) -> Calibration:
    return Calibration(
        by=str(machine.address),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        basis=counts.basis,
        model=model,
        engine=f"{launch.engine} {packages.get(launch.engine, '')}".strip(),
    )


MADE = "three random layers"
_HIDDEN, _INNER, _VOCAB, _LAYERS = 384, 1536, 1000, 3


def made_model(folder: Path) -> RunSpec:
    """Write the model that is made here, as `folder`/model.onnx."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights, nodes = [], []

    def weight(name: str, *shape: int) -> str:
        values = random.standard_normal(shape, np.float32) / np.float32(math.sqrt(shape[0]))
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    for name, value in (("one", 1.0), ("half", 0.5), ("root", math.sqrt(0.5))):
        weights.append(numpy_helper.from_array(np.array(value, np.float32), name))
    weights.append(numpy_helper.from_array(np.ones(_HIDDEN, np.float32), "scale"))
    x = node("Gather", [weight("table", _VOCAB, _HIDDEN), "input_ids"], "x")
    for at in range(_LAYERS):
        for part in ("query", "key", "value", "output"):
            y = node("MatMul", [x, weight(f"{part}{at}", _HIDDEN, _HIDDEN)], f"{part}{at}_y")
            x = node("LayerNormalization", [y, "scale"], f"{part}{at}_x", axis=-1)
        y = node("MatMul", [x, weight(f"up{at}", _HIDDEN, _INNER)], f"up{at}_y")
        error = node("Erf", [node("Mul", [y, "root"], f"in{at}")], f"erf{at}")
        gate = node("Mul", [node("Add", [error, "one"], f"sum{at}"), "half"], f"gate{at}")
        y = node("MatMul", [node("Mul", [y, gate], f"gelu{at}"), weight(f"down{at}", _INNER, _HIDDEN)], f"down{at}_y")
        x = node("LayerNormalization", [y, "scale"], f"down{at}_x", axis=-1)
    node("Identity", [x], "hidden")
    graph = helper.make_graph(
        nodes,
        "calibration",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["batch", "length", _HIDDEN])],
        weights,
    )
    # An IR and an opset that a runtime of two years ago reads: boards do not have the newest one.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return RunSpec("onnxruntime", folder / "model.onnx", {}, "float32", _VOCAB, ("input_ids",), 512)
