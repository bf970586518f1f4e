"""A PyTorch model on an NVIDIA GPU: CUDA's own clock, the allocator's peaks, and CUDA graphs.

    device_ns      between two CUDA events around the forward pass: no copies, no wait of the host. A GPU that waits for
                   the host to launch its kernels waits between the events too: that is part of an eager model's time.
    device_peaks   the most bytes that tensors took (allocated) and that the allocator held for them (reserved)
    graphs         all kernels of a pass recorded once for each shape and launched together

`torch.cuda` is handed in, so that all of this can be tested with something else in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bertshrink.engines import EngineUnavailable

if TYPE_CHECKING:
    from bertshrink.engines.torch_compile import Forward
    from bertshrink.engines.torch_session import TorchSession

_PASSES_BEFORE_RECORDING = 3
"""PyTorch's documentation runs as many on a side stream, so that libraries set themselves up outside the record."""


def wake(cuda: Any = torch.cuda) -> None:
    """Start CUDA and its matrix library: what the first use of a GPU pays, whatever the model.

    Raises:
        EngineUnavailable: there is no GPU that this PyTorch can use.
    """
    if not cuda.is_available():
        raise EngineUnavailable(*absence(torch.__version__, torch.version.cuda))
    one = torch.ones(16, 16, device="cuda")
    (one @ one).sum().item()


def absence(version: str, cuda: str | None) -> tuple[str, str]:
    """Why there is no GPU for PyTorch, and what to do about it."""
    if cuda is None:
        return (
            f"there is no CUDA GPU for PyTorch: {version} is built without CUDA",
            "install a CUDA build of PyTorch (https://pytorch.org/get-started/locally/) on a machine with an "
            "NVIDIA GPU, or measure on `--target cpu`",
        )
    return (
        f"there is no CUDA GPU for PyTorch: {version} is built for CUDA {cuda} and sees none",
        "check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or measure on `--target cpu`",
    )


class CudaSession:
    """A session whose model is on a GPU, with the GPU's clock and memory.

    Args:
        graphs: whether passes are recorded and replayed.
        tf32: whether float32 products may run in TF32.
        cuda: `torch.cuda`.
    """

    def __init__(self, session: TorchSession, *, graphs: bool, tf32: bool, cuda: Any = torch.cuda) -> None:
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        self.session = session
        self.cuda = cuda
        self.graphs = graphs
        if graphs:
            session.forward = CudaGraphForward(session.forward, cuda)
        self.cuda.reset_peak_memory_stats()

    def run(self, feeds: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """One forward pass from arrays of the host to arrays of the host, so both copies and the wait are in it."""
        return self.session.run(feeds)

    def device_ns(self, feeds: dict[str, NDArray[np.generic]]) -> int:
        """Nanoseconds of one forward pass between two CUDA events (which resolve about half a microsecond)."""
        given = self.session.given(feeds)
        begun, ended = self.cuda.Event(enable_timing=True), self.cuda.Event(enable_timing=True)
        self.cuda.synchronize()
        with torch.inference_mode():
            begun.record()
            self.session.forward(given)
            ended.record()
        self.cuda.synchronize()
        milliseconds: float = begun.elapsed_time(ended)
        return round(milliseconds * 1e6)

    def device_peaks(self) -> dict[str, int]:
        """Peaks of PyTorch's allocator since the last look, in bytes: `allocated` and `reserved`."""
        peaks = {"allocated": self.cuda.max_memory_allocated(), "reserved": self.cuda.max_memory_reserved()}
        self.cuda.reset_peak_memory_stats()
        return peaks

    def describe(self) -> dict[str, Any]:
        """What the session says, with the GPU's name, whether TF32 may be used, and whether graphs are."""
        return self.session.describe() | {
            "device_name": self.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "tf32": torch.get_float32_matmul_precision() != "highest",
            "cuda_graphs": self.graphs,
        }


class CudaGraphForward:
    """A forward pass as CUDA graphs: recorded at a shape's first use, replayed afterwards.

    Its outputs are where the next replay of the same shape writes.
    """

    def __init__(self, forward: Forward, cuda: Any = torch.cuda) -> None:
        self.forward = forward
        self.cuda = cuda
        self.records: dict[object, tuple[Any, dict[str, torch.Tensor], list[torch.Tensor]]] = {}

    def __call__(self, given: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """The outputs for tensors of a shape that was recorded, or is now."""
        shapes = tuple((name, tuple(value.shape)) for name, value in given.items())
        if shapes not in self.records:
            self.records[shapes] = self._record(given)
        graph, fixed, outputs = self.records[shapes]
        for name, value in given.items():
            fixed[name].copy_(value)
        graph.replay()
        return outputs

    def _record(self, given: dict[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor], list[torch.Tensor]]:
        fixed = {name: value.clone() for name, value in given.items()}
        # transformers leaves a mask without padding out, but never while it records: a mask with padding makes the
        # passes before run the very kernels that will be recorded.
        fixed["attention_mask"][:, -1] = 0
        side = self.cuda.Stream()
        side.wait_stream(self.cuda.current_stream())
        with self.cuda.stream(side):
            for _ in range(_PASSES_BEFORE_RECORDING):
                self.forward(fixed)
        self.cuda.current_stream().wait_stream(side)
        graph = self.cuda.CUDAGraph()
        with self.cuda.graph(graph):
            outputs = self.forward(fixed)
        return graph, fixed, outputs
