"""How fast PyTorch itself multiplies and reads: the calls that the worker's job `rates` times.

On a GPU each call ends when the GPU is done. Its launch and the wait, some 20 microseconds, are in the time: products
and arrays must be so large that they do not count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bertshrink.engines.torch_options import TorchOptions

Run = Callable[[], object]


def product(precision: str, shape: tuple[int, int, int], threads: int, options: dict[str, Any]) -> Run:
    """A call that multiplies M x K by K x N as a linear layer does: the weight is N x K.

    Args:
        precision: a name of PyTorch's; `tf32` is float32 with TF32 allowed.
        shape: M, K, N.
        threads: intra-op threads of the whole process.
        options: the engine's, of which `device` counts.
    """
    device = TorchOptions.read(options).device
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    dtype = torch.float32 if precision == "tf32" else getattr(torch, precision)
    m, k, n = shape
    left_MK = torch.rand(m, k, device=device).to(dtype)
    right_NK = torch.rand(n, k, device=device).to(dtype)

    @torch.inference_mode()
    def run() -> None:
        torch.nn.functional.linear(left_MK, right_NK)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def streams(num_bytes: int, passes: int, device: str = "cuda") -> dict[str, Run]:
    """Calls that read, and that copy, an array of so many bytes in a device's memory, so many times."""
    source = torch.ones(num_bytes // 4, dtype=torch.float32, device=device)
    target = torch.zeros_like(source)
    wait: Run = torch.cuda.synchronize if device == "cuda" else lambda: None

    def read() -> None:
        for _ in range(passes):
            source.sum()
        wait()

    def copy() -> None:
        for _ in range(passes):
            target.copy_(source)
        wait()

    return {"read": read, "copy": copy}
