"""Ways to spoil a file: its bytes, its values, its being a file."""

import json
import os
import random
from pathlib import Path
from typing import Any

RAW = {"@nan": "NaN", "@inf": "-Infinity", "@huge": "1e400", "@digits": "9" * 5000, "@deep": "[" * 5000 + "]" * 5000}
"""Stand-ins for what `json.dumps` does not write."""
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 10**9, 10**30, 0.5, -0.0, 1e300),
    *("", " ", "x", "a\0b", "../x", "/dev/zero", "n" * 300, "\ud800", "é" * 5),
    *([], {}, [None], {"a": 1}, [[1]], ["x", 3], {"": ""}),
    *RAW,
)


def spoil_bytes(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Random damage to bytes."""
    at = rng.randrange(len(data) + 1)
    size = rng.choice((1, 4, 64, 1000))
    match rng.randrange(7):
        case 0:
            where = min(at, len(data) - 1)
            bit = 1 << rng.randrange(8)
            return data[:where] + bytes([data[where] ^ bit]) + data[where + 1 :], f"bit {bit} of byte {where} flipped"
        case 1:
            return data[:at], f"cut at {at}"
        case 2:
            return data[:at] + rng.randbytes(size) + data[at:], f"{size} bytes put in at {at}"
        case 3:
            return data[:at] + bytes(size) + data[at + size :], f"{size} zeros at {at}"
        case 4:
            return data[:at] + rng.randbytes(size) + data[at + size :], f"{size} random bytes at {at}"
        case 5:
            return data[:at] + data[at + size :], f"{size} bytes taken out at {at}"
    return data[:at] + data[max(0, at - size) : at] + data[at:], f"{size} bytes twice at {at}"


def spoil_text(rng: random.Random, text: str) -> tuple[bytes, str]:
    """Other encodings, line ends, and damage that is likely in text."""
    match rng.randrange(10):
        case 0:
            return b"\xef\xbb\xbf" + text.encode(), "BOM"
        case 1:
            return text.replace("\n", "\r\n").encode(), "CRLF"
        case 2:
            return text.encode("utf-16"), "UTF-16"
        case 3:
            return b"", "empty"
        case 4:
            lines = text.splitlines(keepends=True)
            at = rng.randrange(len(lines))
            return "".join([*lines[: at + 1], *lines[at:]]).encode(), f"line {at + 1} twice"
        case 5:
            lines = text.splitlines(keepends=True)
            at = rng.randrange(len(lines))
            return "".join([*lines[:at], *lines[at + 1 :]]).encode(), f"line {at + 1} left out"
    return spoil_bytes(rng, text.encode())


def spoil_json(rng: random.Random, value: Any) -> tuple[bytes, str]:
    """One value of a JSON document becomes an odd one, goes, or appears twice."""
    value = json.loads(json.dumps(value))
    places = list(_places(value))
    owner, key = rng.choice(places)
    deed = rng.randrange(8)
    shown = f"`{key}`"
    if deed == 0:
        del owner[key]
        what = f"{shown} left out"
    elif deed == 1 and isinstance(owner, dict):
        owner[f"{key}@twice"] = rng.choice(ODD)
        what = f"{shown} twice"
    elif deed == 2 and isinstance(owner, dict):
        owner["odd_key"] = rng.choice(ODD)
        what = "a key more"
    else:
        owner[key] = rng.choice(ODD)
        what = f"{shown} is {str(owner[key])[:20]!r}"
    text = json.dumps(value, indent=1).replace("@twice", "")
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode(), what


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for number, (key, inner) in enumerate(items):
        if number < 50:
            yield value, key
            yield from _places(inner)


def spoil_file(rng: random.Random, path: Path) -> str:
    """A file becomes something else."""
    path.unlink()
    match rng.randrange(6):
        case 0:
            os.mkfifo(path)
            return "a pipe"
        case 1:
            path.mkdir()
            return "a folder"
        case 2:
            path.symlink_to("/dev/zero")
            return "a link to /dev/zero"
        case 3:
            path.symlink_to(path)
            return "a link to itself"
        case 4:
            path.symlink_to("/etc/passwd")
            return "a link to /etc/passwd"
    return "gone"


def spoil(rng: random.Random, path: Path, *, as_file: bool = True) -> str:
    """Spoil a file in one of these ways, by what it holds."""
    deed = rng.random()
    if as_file and deed < 0.1:
        return f"{path.name}: {spoil_file(rng, path)}"
    if path.suffix == ".json" and deed < 0.75:
        data, what = spoil_json(rng, json.loads(path.read_text()))
    elif path.suffix in (".json", ".txt", ".toml", ".yaml", ".csv", ".tsv", ".jsonl", ".conll"):
        data, what = spoil_text(rng, path.read_text())
    else:
        data, what = spoil_bytes(rng, path.read_bytes())
    path.write_bytes(data)
    return f"{path.name}: {what}"
