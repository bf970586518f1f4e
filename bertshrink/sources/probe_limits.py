"""What a child that looks at a file may take: memory and time that grow with the file, and finite outputs only."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING

from bertshrink.errors import UnsafeModel
from bertshrink.files.safe_open import MAX_FILE_BYTES

if TYPE_CHECKING:
    from bertshrink.engines import Arrays

_BASE_BYTES, _BYTES_PER_BYTE = 3 * 2**30, 10
"""Libraries and their threads' stacks take about 0.2 GiB of address space; protobuf, the checker and ONNX Runtime each
hold the weights once or twice, all together some six times."""


MAX_MODEL_BYTES = 64 * 2**30
"""Of a model with its weights beside it. The largest encoder there is, XLM-R XXL, takes 43 GB in float32."""

_BASE_S, _S_PER_GB = 20, 300
"""Of the processor: starting takes two, a graph of 24 layers one more, the weights some five for each gigabyte."""


_MADE_AGAIN = "export the model again, or download it again"


def memory_limit(num_bytes: int) -> int:
    """Bytes of address space for a file of this size."""
    return _BASE_BYTES + _BYTES_PER_BYTE * num_bytes


def time_limit_s(num_bytes: int) -> int:
    """Seconds for a file of this size."""
    return _BASE_S + math.ceil(_S_PER_GB * num_bytes / 1e9)


def check_finite(outputs: Arrays) -> None:
    """Refuse a file that gives numbers which are none; raises UnsafeModel."""
    import numpy as np

    for name, value in outputs.items():
        if not np.isfinite(np.asarray(value, dtype=np.float64)).all():
            raise UnsafeModel(f"the file's output `{name}` is not finite: its weights are damaged", hint=_MADE_AGAIN)


def limit(num_bytes: int) -> None:
    """Set this process's limits to what a file of this size may need, where the system knows limits."""
    try:
        import resource
    except ModuleNotFoundError:
        return
    for kind, now, at_most in (
        (resource.RLIMIT_AS, memory_limit(num_bytes), memory_limit(MAX_MODEL_BYTES)),
        (resource.RLIMIT_CPU, time_limit_s(num_bytes), time_limit_s(MAX_MODEL_BYTES)),
        (resource.RLIMIT_FSIZE, max(MAX_FILE_BYTES, 2 * num_bytes), 2 * MAX_MODEL_BYTES),  # weights begin at pages
        (resource.RLIMIT_CORE, 0, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # a limit set from outside may be lower
            resource.setrlimit(kind, (now, at_most))
