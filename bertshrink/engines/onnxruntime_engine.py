"""ONNX Runtime as an engine: an .onnx or .ort file on the CPU provider.

Spinning is off: threads that spin between runs steal time from whatever else is measured on the machine and make
instruction counts meaningless.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray


class OnnxSession:
    """An ONNX Runtime session behind the engines' protocol."""

    def __init__(self, session: Any, threads: int | None) -> None:
        self.session = session
        self.threads = threads
        self.inputs = [i.name for i in session.get_inputs()]
        self.outputs = [o.name for o in session.get_outputs()]

    def run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """One forward pass; inputs that the graph does not have are dropped."""
        given = {name: feeds[name] for name in self.inputs if name in feeds}
        return dict(zip(self.outputs, self.session.run(self.outputs, given), strict=True))

    def describe(self) -> dict[str, Any]:
        """Engine, version, threads, providers, inputs and outputs."""
        return {
            "engine": "onnxruntime",
            "version": onnxruntime.__version__,
            "threads": self.threads,
            "providers": list(self.session.get_providers()),
            "inputs": self.inputs,
            "outputs": self.outputs,
        }


def prepare(path: str, options: dict[str, Any] | None = None) -> None:
    """Nothing is left to import: this file has imported it all."""


def load(path: str, threads: int | None = None, options: dict[str, Any] | None = None) -> OnnxSession:
    """Open a file.

    Args:
        path: the .onnx or .ort file.
        threads: intra-op threads; None: one per core.
        options: `config`: ONNX Runtime session config entries; `optimized_path`: where it shall write the graph as it
            runs it.

    """
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    if threads is not None:
        settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for key, value in ((options or {}).get("config") or {}).items():
        settings.add_session_config_entry(str(key), str(value))
    if "optimized_path" in (options or {}):
        settings.optimized_model_filepath = str((options or {})["optimized_path"])
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    return OnnxSession(session, threads)
