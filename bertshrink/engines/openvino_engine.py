"""OpenVINO as an engine: the same .onnx file on the CPU plugin, one stream, tuned for latency.

OpenVINO multiplies in the type that it finds fastest on the machine: a float32 file runs in bfloat16 where the CPU has
AMX or AVX-512 BF16, and nobody is told. So `describe` says which type the compiled model really has, and the option
`precision` can ask for another. What a CPU has no instructions for is not emulated: asked for bfloat16, such a machine
runs float32, and `describe` says so.

The package brings a telemetry client that writes two files into ~/intel and calls a statistics server as soon as
`openvino` is imported. Here it is imported without: for the time of the import the client cannot be found, and OpenVINO
then falls back on a stub of its own that does nothing.

Opening a model also gives the thread another stack for signal handlers, and letting the model go frees it. Of two that
go in the order in which they came the second one puts the first one's back, freed, and the next signal that Python
handles (a Ctrl-C) ends the process by a segmentation fault. So the thread keeps the stack that it had.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertshrink.engines import given

_TELEMETRY = "openvino_telemetry"


class _SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2) on Linux."""

    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("num_bytes", ctypes.c_size_t))


@contextmanager
def _same_signal_stack() -> Iterator[None]:
    """This thread's signal handlers run on the same stack afterwards as before."""
    if not sys.platform.startswith("linux"):
        yield
        return
    change, before = ctypes.CDLL(None).sigaltstack, _SignalStack()
    change(None, ctypes.byref(before))
    try:
        yield
    finally:
        change(ctypes.byref(before), None)


def _import_silently() -> Any:
    """The package `openvino`, imported without its telemetry client."""
    before = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # how Python is told that a module cannot be imported
    try:
        import openvino
    finally:
        del sys.modules[_TELEMETRY]
        if before is not None:
            sys.modules[_TELEMETRY] = before
    return openvino


openvino = _import_silently()

_TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
_ASKED = {name: short for short, name in _TYPES.items()}
_DENSE = ("FullyConnected", "MatMul")
_SINK = "/sink_port_0"
"""What the ONNX reader appends to the name of an output."""


class OpenVinoSession:
    """A compiled model behind the engines' protocol."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self.request = compiled.create_infer_request()
        self.inputs = [_own_name(value) for value in compiled.inputs]
        self.outputs = [_own_name(value) for value in compiled.outputs]

    def run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """One forward pass; inputs as `engines.given` has them."""
        arrays = given(feeds, self.inputs)
        outputs = self.request.infer(arrays, share_inputs=True)
        return {name: outputs[at] for at, name in enumerate(self.outputs)}

    def describe(self) -> dict[str, Any]:
        """Engine, version, threads, the precision that it multiplies in, inputs and outputs."""
        hint = self.compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        return {
            "engine": "openvino",
            "version": openvino.get_version(),
            "threads": self.compiled.get_property("INFERENCE_NUM_THREADS"),
            "precision": _TYPES.get(hint, hint),
            "dense_layers": dense_layers(self.compiled),
            "inputs": self.inputs,
            "outputs": self.outputs,
        }


def dense_layers(compiled: Any) -> dict[str, int]:
    """How many matrix products the compiled model runs in each type, in OpenVINO's words: `{"bf16": 36}`."""
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        if node.rt_info["layerType"].astype(str) in _DENSE:
            counts[node.rt_info["runtimePrecision"].astype(str)] += 1
    return dict(sorted(counts.items()))


def _own_name(value: Any) -> str:
    """An input or output has all names that its value has in the graph; its own is that of its node."""
    own = str(value.node.get_friendly_name()).removesuffix(_SINK)
    return own if own in value.get_names() else str(value.get_any_name())


def prepare(path: str, options: dict[str, Any] | None = None) -> None:
    """Load the CPU plugin and the ONNX reader, which `openvino` leaves for later."""
    with _same_signal_stack():
        openvino.Core().get_versions("CPU")
    openvino.frontend.FrontEndManager().load_by_framework("onnx")


def load(path: str, threads: int | None = None, options: dict[str, Any] | None = None) -> OpenVinoSession:
    """Open a file.

    Args:
        threads: threads of the one stream; None: OpenVINO's choice.
        options: `precision`: `float32`, `bfloat16` or None, OpenVINO's own choice for the machine. `config`: further
            properties of the CPU plugin. `outputs`: the names of those that are computed (all).

    Raises:
        ValueError: `precision` is another word.
    """
    options = options or {}
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    precision = options.get("precision")
    if precision is not None:
        if precision not in _ASKED:
            raise ValueError(f"precision is `{precision}`, and OpenVINO has {', '.join(_ASKED)}")
        config["INFERENCE_PRECISION_HINT"] = _ASKED[precision]
    config |= options.get("config") or {}
    with _same_signal_stack():
        core = openvino.Core()
        model = core.read_model(path)
        for output in model.get_results() if "outputs" in options else []:
            if not output.input_value(0).get_names() & set(options["outputs"]):
                model.remove_result(output)
        return OpenVinoSession(core.compile_model(model, "CPU", config))
