"""What this machine multiplies natively, asked without guessing; and freed memory, given back to it."""

from __future__ import annotations

import contextlib
import ctypes
from functools import cache
from pathlib import Path

BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""CPU flags of native bfloat16 multiplication: Intel AMX, Intel and AMD AVX-512, Arm. Without one, PyTorch emulates it
and bfloat16 is slower than float32."""

INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
"""CPU flags of 8-bit dot products. Without one, int8 multiplies about as fast as float32 (onnxruntime#6695)."""


@cache
def cpu_flags() -> frozenset[str]:
    """The CPU's feature flags as Linux names them; empty where they cannot be read."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def has_native_bfloat16() -> bool:
    """Whether the GPU, or else the CPU, multiplies bfloat16 natively."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(BFLOAT16_FLAGS & cpu_flags())


def release_freed_memory() -> None:
    """Return freed memory to the system; to be called once a large model has gone.

    glibc keeps what a process frees for its next request: after ONNX Runtime has closed a file of 440 MB, 340 MB of it
    are still held, and the next model's weights come on top wherever they do not fit into the gaps. `malloc_trim` gives
    all of it back in a few milliseconds. Other C libraries have no such call; there nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # TypeError: Windows knows no unnamed library
        ctypes.CDLL(None).malloc_trim(0)
