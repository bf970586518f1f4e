"""ONNX Runtime as an engine: an .onnx or .ort file on the CPU provider, or on CUDA's where it is installed.

Spinning is off: threads that spin between runs steal time from whatever else is measured on the machine and make
instruction counts meaningless. On a GPU, TF32 is off unless asked for (ONNX Runtime itself has it on), so that float32
means the same as in PyTorch; what CUDA's provider has no kernel for runs on the CPU, with copies between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertshrink.engines import EngineUnavailable, given
from bertshrink.engines.ort import onnxruntime

CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


class OnnxSession:
    """An ONNX Runtime session behind the engines' protocol."""

    def __init__(self, session: Any, threads: int | None, outputs: Sequence[str] | None = None) -> None:
        self.session = session
        self.threads = threads
        self.inputs = [i.name for i in session.get_inputs()]
        self.outputs = list(outputs or (o.name for o in session.get_outputs()))

    def run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """One forward pass; inputs as `engines.given` has them."""
        arrays = given(feeds, self.inputs)
        return dict(zip(self.outputs, self.session.run(self.outputs, arrays), strict=True))

    def describe(self) -> dict[str, Any]:
        """Engine, version, threads, providers with their options, device, inputs and outputs."""
        providers = list(self.session.get_providers())
        description = {
            "engine": "onnxruntime",
            "version": onnxruntime.__version__,
            "threads": self.threads,
            "providers": providers,
            "device": "cuda" if CUDA in providers else "cpu",
            "inputs": self.inputs,
            "outputs": self.outputs,
        }
        if CUDA in providers:
            description["tf32"] = self.session.get_provider_options()[CUDA].get("use_tf32") != "0"
        return description


def prepare(path: str, options: dict[str, Any] | None = None) -> None:
    """Nothing is left to import but CUDA's libraries, where a GPU is asked for: this file has imported the rest."""
    if (options or {}).get("device") == "cuda":
        _require_cuda()
        onnxruntime.preload_dlls()


def load(path: str, threads: int | None = None, options: dict[str, Any] | None = None) -> OnnxSession:
    """Open a file.

    Args:
        path: the .onnx or .ort file.
        threads: intra-op threads; None: one per core.
        options: `config`: ONNX Runtime session config entries; `profile`: how the path of the file begins that it
            should write what it runs into, once the session is gone; `device`: `cpu` (the default) or `cuda`; `tf32`:
            whether a GPU may use it; `outputs`: the names of those that are fetched (all).

    Raises:
        EngineUnavailable: a GPU is asked for, and CUDA's provider is not installed or does not start.
    """
    options = options or {}
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    if threads is not None:
        settings.intra_op_num_threads = threads
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for key, value in (options.get("config") or {}).items():
        settings.add_session_config_entry(str(key), str(value))
    if "profile" in options:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(options["profile"])
    providers: list[Any] = [_CPU]
    if options.get("device") == "cuda":
        _require_cuda()
        providers = [(CUDA, {"use_tf32": "1" if options.get("tf32") else "0"}), _CPU]
    session = onnxruntime.InferenceSession(path, settings, providers=providers)
    if len(providers) > 1 and CUDA not in session.get_providers():  # it falls back on the CPU without a word
        raise EngineUnavailable(
            f"ONNX Runtime's {CUDA} does not start here",
            "it needs a GPU and the CUDA and cuDNN libraries of its version: `pip install onnxruntime-gpu[cuda,cudnn]`",
        )
    return OnnxSession(session, threads, options.get("outputs"))


def _require_cuda() -> None:
    if CUDA not in onnxruntime.get_available_providers():
        raise EngineUnavailable(
            f"the ONNX Runtime that is installed ({onnxruntime.__version__}) has no {CUDA}",
            "`pip uninstall onnxruntime`, then `pip install onnxruntime-gpu[cuda,cudnn]`",
        )
