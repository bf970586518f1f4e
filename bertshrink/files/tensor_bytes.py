"""How many bytes a stored tensor takes, from its type's name and its shape."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_BITS = {"BOOL": 8, "FLOAT": 32, "DOUBLE": 64, "STRING": 0}
"""The types whose name does not hold their width."""


def bytes_of(dtype: str, shape: Sequence[int]) -> int:
    """The bytes of a tensor, by the width in its type's name: `F16`, `BFLOAT16`, `INT4` (two to a byte)."""
    width = re.search(r"\d+", dtype)
    bits = _BITS.get(dtype, int(width[0]) if width else 0)
    return (math.prod(shape) * bits + 7) // 8
