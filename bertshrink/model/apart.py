"""Have a model file looked at in a process of its own (see `apart_child`), and outlive whatever it does there.

The child may be ended by any signal (ONNX Runtime's stack running over, the kernel taking its memory back) or by its
own limits: each is a refusal here, with the step that the child was at. It costs its start: Python, onnx and ONNX
Runtime, under a second, and about a second more for each 100 MB of weights. Files that bertshrink wrote and sealed
need none of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bertshrink
from bertshrink import errors
from bertshrink.errors import BertshrinkError, ModelRefused
from bertshrink.model.apart_child import MAX_FILE_BYTES, time_limit_s

COMMAND = (sys.executable, "-P", "-m", "bertshrink.model.apart_child")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Value:
    """An input or output: its type in ONNX's words (`int64`, `float`), its shape with None where a size is open."""

    type: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Look:
    """What was seen of a model file.

    Attributes:
        inputs: by name.
        names: the graph's input -> bertshrink's name of it.
        outputs: by name; shapes as they came out for one text of 5 tokens, where it could be run.
        vocab_size: rows of the table that token ids look up; None: the file does not say.
        precision: what its weights are stored in, or `unknown`.
        opset: version of ONNX's operators.
        producer: what wrote it.
        metadata: what it says of itself.
        most: the most rows and tokens that it takes; None: any number, or those of its one shape.

    """

    inputs: dict[str, Value]
    names: dict[str, str]
    outputs: dict[str, Value]
    vocab_size: int | None
    precision: str
    opset: int
    producer: str
    metadata: dict[str, str]
    most: tuple[int, int] | None = None


def look_apart(source: Path, target: Path, command: tuple[str, ...] = COMMAND) -> Look:
    """Read, check and run a model file in a child process, which writes it to `target` as one self-contained file.

    Args:
        source: the file; an .onnx file's weights in files beside it are taken in.
        target: where nothing is yet; its ending says the format: .onnx, .ort or .pte.
        command: what is started with both paths; a test's own.

    Raises:
        ModelRefused: the file is not what it must be, or the child died of it.
        MissingPart: what reads or runs it is not installed.
        OutputError: there is no room for it at `target`.

    """
    timeout_s = 2 * time_limit_s(MAX_FILE_BYTES)  # for a child that waits; one that works has its own limit
    try:
        done = subprocess.run(
            [*command, str(source), str(target)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise _died(source, f"was not done after {timeout_s} s", expired.stdout or b"") from None
    said = _lines(done.stdout)
    last = said[-1] if said else {}
    if "refused" in last:
        kind, what, where, hint = last["refused"]
        raise _error(kind, what, where or str(source), hint)
    if done.returncode or "found" not in last:
        raise _died(source, _end_of(done.returncode), done.stdout)
    found = last["found"]
    for side in ("inputs", "outputs"):
        found[side] = {name: Value(v["type"], tuple(v["shape"])) for name, v in found[side].items()}
    return Look(**found)


def child_environment() -> dict[str, str]:
    """Environment variables of a process that is bertshrink again, on one thread."""
    root = str(Path(bertshrink.__file__).parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    return os.environ | dict.fromkeys(_THREADS, "1") | {"PYTHONPATH": path}


def _lines(stdout: bytes) -> list[dict[str, Any]]:
    found = []
    for line in stdout.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in found if isinstance(line, dict)]


def _error(kind: str, what: str, where: str, hint: str | None) -> BertshrinkError:
    made: BertshrinkError = getattr(errors, kind)(what, where=where, hint=hint)
    return made


def _end_of(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _died(source: Path, how: str, stdout: bytes) -> ModelRefused:
    at = next((line["at"] for line in reversed(_lines(stdout)) if "at" in line), "starting")
    return ModelRefused(
        f"`{source.name}` cannot be read safely: the process that looked at it {how} while {at}",
        where=str(source),
        hint="export the model again; if it comes from elsewhere, do not trust the file",
    )
