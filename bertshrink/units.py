"""Human quantities to numbers and back: "70 MB", "12 ms", "0.5x", "98%", "0.5 pt".

Inside the program a quantity is a float in its base unit; text appears only at the edges.

    unit      base              written
    B         bytes             "25 MB" (1000), "25 MiB" (1024)
    s         seconds           "12 ms", "1.5 s", "3 min"
    x         ratio             "0.5x"
    fraction  0 to 1            "98%"
    point     hundredths        "0.5 pt": a difference of two fractions
    count     a plain number    "22.7 M"
    B/s       bytes a second    "21.5 GB/s"
    op/s      operations a second; a multiply-add is two: "92.6 Gop/s"
"""

import math
import re

_SCALES: dict[str, dict[str, float]] = {
    "B": {"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3},
    "s": {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600},
    "x": {"x": 1},
    "fraction": {"%": 0.01},
    "point": {"pt": 0.01},
    "count": {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12},
    "B/s": {"B/s": 1, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9, "TB/s": 1e12},
    "op/s": {"op/s": 1, "kop/s": 1e3, "Mop/s": 1e6, "Gop/s": 1e9, "Top/s": 1e12},
}
_RATE_STEPS = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")]
_QUANTITY = re.compile(r"\s*([+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*(\S*)\s*")


def parse(text: str) -> tuple[float, str]:
    """Read one quantity.

    Returns:
        The value in its base unit, and the base unit's name ("B", "s", "x", "fraction", "point", "count", "B/s" or
        "op/s").

    Raises:
        ValueError: no number, an unknown unit, or a value that is not finite.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is not a quantity such as `70 MB`, `12 ms`, `0.5x`, `98%` or `0.5 pt`")
    number, suffix = float(match[1]), match[2]
    for unit, scales in _SCALES.items():
        if suffix in scales:
            value = number * scales[suffix]
            if not math.isfinite(value):
                raise ValueError(f"`{text}` is not finite")
            return value, unit
    raise ValueError(f"`{suffix}` is not a unit; known are {', '.join(s for u in _SCALES.values() for s in u if s)}")


def share(text: str) -> float:
    """Read a share such as `98%` or `0.98`. Raises ValueError: it is none, or not from 0 to 1."""
    value, unit = parse(text)
    if unit not in ("fraction", "count") or not 0 <= value <= 1:
        raise ValueError(f"`{text}` is not a share such as `98%`")
    return value


def size(text: str) -> float:
    """Read a size such as `70 MB`, in bytes. Raises ValueError: it is none, or nothing."""
    value, unit = parse(text)
    if unit != "B" or value <= 0:
        raise ValueError(f"`{text}` is not a size such as `70 MB`")
    return value


def _scaled(value: float, steps: list[tuple[float, str]], digits: int) -> str:
    """Write `value` with the largest step not above it and `digits` significant digits."""
    scale, suffix = next(((s, name) for s, name in steps if abs(value) >= s), steps[-1])
    shown = value / scale
    if shown == 0:
        return f"0{suffix}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(shown))))
    return f"{shown:.{decimals}f}{suffix}"


def format(value: float, unit: str, digits: int = 3) -> str:
    """Write a value of a base unit for people, with about `digits` significant digits.

    Args:
        unit: a base unit of this file's opening; any other text is appended as it is.
    """
    if not math.isfinite(value):
        return str(value)
    match unit:
        case "B":
            return _scaled(value, [(1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1, " B")], digits)
        case "s":
            return _scaled(value, [(60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs"), (1e-9, " ns")], digits)
        case "x":
            return f"{value:.{max(0, digits - 1)}f}x"
        case "fraction":
            return f"{100 * value:.2f}%"
        case "point":
            return f"{100 * value:.2f} pt"
        case "count":
            if value == int(value) and abs(value) < 1000:
                return str(int(value))
            return _scaled(value, [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"), (1, "")], digits)
        case "B/s" | "op/s":
            return _scaled(value, [(scale, f" {prefix}{unit}") for scale, prefix in _RATE_STEPS], digits)
        case "":
            return f"{value:.{digits + 1}f}"
    return f"{_scaled(value, [(1, '')], digits)} {unit}"


def counted(number: float, noun: str) -> str:
    """`1 row`, `2,300 rows`, `0.5 epochs`."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun}{'' if number == 1 else 's'}"
