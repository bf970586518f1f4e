"""The machine and its software, as it names itself: what a time is worth is decided by these.

Read from `/proc` and from packages' metadata in some 20 ms; nothing heavy is imported.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

_ISA = (
    *("avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni"),
    *("avx_vnni_int8", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "svei8mm", "svebf16", "sve", "sve2", "sme", "sme2"),
)
"""What matrix kernels choose their path by, x86 then ARM, in the kernel's words."""

_PACKAGES = (
    *("torch", "transformers", "tokenizers", "safetensors", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy"),
    *("openvino", "executorch", "accelerate", "datasets"),
)
_NVIDIA = Path("/proc/driver/nvidia/gpus")


def machine() -> dict[str, Any]:
    """This machine and its software, now; the fields of `report.measurement.Environment` without the id."""
    cpu_fields = _cpu_fields()
    flags = set((cpu_fields.get("flags") or cpu_fields.get("Features") or "").split())
    return {
        "cpu": _cpu_name(cpu_fields),
        "isa": [name for name in _ISA if name in flags],
        "num_cores": usable_cores(),
        "memory_bytes": _memory_bytes(),
        "gpu": _gpu_name(),
        "hypervisor": _hypervisor(flags),
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": _versions(),
    }


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    """What is built in; 0 on Windows, which tells it in another way."""
    if not hasattr(os, "sysconf"):
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def last_level_cache_bytes() -> int | None:
    """The largest cache that the first processor reads through; None where the kernel does not tell."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        if match := re.fullmatch(r"(\d+)([KMG]?)\s*", path.read_text(encoding="ascii", errors="replace")):
            sizes.append(int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]])
    return max(sizes, default=None)


def _cpu_fields() -> dict[str, str]:
    """The first processor's entry in /proc/cpuinfo; empty where there is none."""
    try:
        entry = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in entry.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cpu_name(fields: dict[str, str]) -> str:
    """The model's name; with family, model and stepping on x86, since hypervisors shorten the name to the brand."""
    if "model name" in fields:
        numbers = [fields.get(key, "?") for key in ("cpu family", "model", "stepping")]
        return f"{fields['model name']} ({'/'.join(numbers)})" if "cpu family" in fields else fields["model name"]
    board = Path("/proc/device-tree/model")
    part = f"{fields.get('CPU implementer', '')} {fields.get('CPU part', '')}".strip()
    name = board.read_text(errors="replace").strip("\0\n ") if board.is_file() else platform.processor()
    return " ".join(text for text in (name or platform.machine(), part) if text)


def _hypervisor(flags: set[str]) -> str | None:
    """Who runs the virtual machine that this is; None on bare metal as far as can be seen."""
    for path in ("/sys/hypervisor/type", "/sys/class/dmi/id/product_name", "/sys/class/dmi/id/sys_vendor"):
        if "hypervisor" in flags and Path(path).is_file():
            return Path(path).read_text(errors="replace").strip() or None
    return "unnamed" if "hypervisor" in flags else None


def _gpu_name() -> str | None:
    """The first NVIDIA GPU: from the driver's files, else from nvidia-smi."""
    for path in sorted(_NVIDIA.glob("*/information")):
        if match := re.search(r"^Model:\s*(.+)$", path.read_text(errors="replace"), re.MULTILINE):
            return match[1].strip()
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(answer.stdout.splitlines()), "").strip() or None


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
