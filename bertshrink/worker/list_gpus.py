"""The job `devices`: which GPUs an engine can use here, asked in a process of its own; no model is loaded."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertshrink.worker.job import WorkerJob


def devices(job: WorkerJob) -> dict[str, Any]:
    """`version` of the engine, `cuda` it is built for, `gpus` it sees by name, and why it has none (`lacks`, `hint`).

    Raises:
        ModuleNotFoundError: the engine is not installed here.
    """
    look = {"torch": _of_torch, "onnxruntime": _of_onnxruntime}
    return look[job.engine]()


def _of_torch() -> dict[str, Any]:
    torch: Any = importlib.import_module("torch")
    gpus = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
    install = {"version": torch.__version__, "cuda": torch.version.cuda, "gpus": gpus}
    if torch.cuda.is_available() and gpus:
        return install
    absence = importlib.import_module("bertshrink.engines.torch_cuda").absence
    lacks, hint = absence(torch.__version__, torch.version.cuda)
    return install | {"gpus": [], "lacks": lacks, "hint": hint}


def _of_onnxruntime() -> dict[str, Any]:
    from bertshrink.engines import EngineUnavailable, engine
    from bertshrink.worker.machine.identity import machine

    name = machine()["gpu"]
    install = {
        "version": importlib.import_module("onnxruntime").__version__,
        "cuda": None,
        "gpus": [name] if name else [],
    }
    try:
        engine("onnxruntime").prepare("", {"device": "cuda"})
    except EngineUnavailable as error:
        return install | {"gpus": [], "lacks": error.what, "hint": error.hint}
    if not name:
        hint = "check `nvidia-smi`, or measure on `--target cpu`"
        return install | {"lacks": "no NVIDIA driver answers here, so ONNX Runtime has no GPU", "hint": hint}
    return install
