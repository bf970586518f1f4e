"""What this machine multiplies natively and has free, asked without guessing; and freed memory, given back to it."""

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


def available_memory() -> int | None:
    """Bytes of memory, swap included, that can be taken here, within the limits of a container; None: nobody tells."""
    import psutil

    try:
        free = int(psutil.virtual_memory().available + psutil.swap_memory().free)
    except (OSError, RuntimeError):
        return None
    left = (_left_in(folder, *names) for folder, names in _memory_groups())
    return min([free, *(one for one in left if one is not None)])


def _memory_groups() -> list[tuple[Path, tuple[str, str, str]]]:
    """The control groups of this process, and by what names each tells its limit, its use and its page cache.

    Version 2 of cgroups has one tree, version 1 a tree for memory alone; a limit of any group above counts.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    groups = []
    for line in lines:
        kinds, _, place = line.partition(":")[2].partition(":")
        if kinds and "memory" not in kinds.split(","):
            continue
        root, names = _GROUPS["memory" if kinds else ""]
        inner = root / place.lstrip("/")
        groups += [(folder, names) for folder in (inner, *inner.parents) if folder.is_relative_to(root)]
    return groups


_GROUPS = {
    "": (Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "")),
    "memory": (
        Path("/sys/fs/cgroup/memory"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ),
}


def _left_in(folder: Path, limit: str, use: str, prefix: str) -> int | None:
    """What a control group has left, the page cache of files counted as free; None: it has no limit."""
    try:
        most, taken = (int((folder / name).read_text(encoding="ascii")) for name in (limit, use))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        cached = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
        return max(0, most - taken + cached)
    except (OSError, ValueError):  # `max`: no limit
        return None


def release_freed_memory() -> None:
    """Return freed memory to the system; to be called once a large model has gone.

    glibc keeps what a process frees for its next request: after ONNX Runtime has closed a file of 440 MB, 340 MB of it
    are still held, and the next model's weights come on top wherever they do not fit into the gaps. `malloc_trim` gives
    all of it back in a few milliseconds. Other C libraries have no such call; there nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # TypeError: Windows knows no unnamed library
        ctypes.CDLL(None).malloc_trim(0)
