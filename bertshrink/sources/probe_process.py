"""Have a model file looked at in a process of its own (see `probe_child`), and outlive whatever it does there.

The child may be ended by any signal (ONNX Runtime's stack running over, the kernel taking its memory back) or by its
own limits: each is a refusal here, with the step that the child was at. It costs its start: Python, onnx and ONNX
Runtime, about a second, and another for each 100 MB of weights. Files that bertshrink sealed are looked at as well
where a user names them (`probe_again_in_subprocess`): a seal says that nothing has changed, not who made it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertshrink import errors
from bertshrink.errors import BertshrinkError, Stopped, UnsafeModel
from bertshrink.files.headers import FileFacts, Node, Tensor
from bertshrink.sources.probe_limits import MAX_MODEL_BYTES, time_limit_s
from bertshrink.version import PACKAGE

COMMAND = (sys.executable, "-P", "-m", "bertshrink.sources.probe_child")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: its type in ONNX's words (`int64`, `float`), its shape with None where a size is open."""

    type: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class ProbeResult:
    """What was seen of a model file.

    Attributes:
        inputs: by name.
        names: the graph's input -> bertshrink's name of it.
        outputs: by name; an axis that follows batch or length is open, where the file could be run.
        vocab_size: how many token ids it takes; None: not known.
        precision: what its weights are stored in, or `unknown`.
        opset: version of ONNX's operators.
        producer: what wrote it.
        metadata: what it says of itself.
        shape: the (batch, length) that it takes; None: any.
        behind: of each output, the other outputs that it is computed from.
        unread: the inputs that nothing in it reads.
        most: the most rows and tokens that it takes; None: any number, or those of its one shape.
    """

    inputs: dict[str, TensorSpec]
    names: dict[str, str]
    outputs: dict[str, TensorSpec]
    vocab_size: int | None
    precision: str
    opset: int
    producer: str
    metadata: dict[str, str]
    shape: tuple[int | None, int | None] = (None, None)
    behind: dict[str, list[str]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    most: tuple[int, int] | None = None

    @classmethod
    def read(cls, look: dict[str, Any]) -> ProbeResult:
        """What a child's answer says."""
        for side in ("inputs", "outputs"):
            look[side] = {name: TensorSpec(v["type"], tuple(v["shape"])) for name, v in look[side].items()}
        return cls(**look | {"shape": tuple(look["shape"])})


def probe_in_subprocess(source: Path, target: Path, command: tuple[str, ...] = COMMAND) -> ProbeResult:
    """Read, check and run a model file in a child process, which writes it to `target` as one self-contained file.

    What one file cannot hold becomes two, as `external_data.stream` has it.

    Args:
        source: the file; an .onnx file's weights in files beside it are taken in.
        target: where nothing is yet; its ending says the format: .onnx, .ort or .pte.
        command: what is started with both paths; a test's own.

    Raises:
        UnsafeModel: the file is not what it must be, or the child died of it.
        MissingDependency: what reads or runs it is not installed.
        OutputError: there is no room for it at `target`.
    """
    return ProbeResult.read(_in_child(source, "look", command, target))


def probe_again_in_subprocess(source: Path, command: tuple[str, ...] = COMMAND) -> tuple[str, ...]:
    """Read, check and run a sealed file in a child process, where it is.

    Returns:
        the names of the files beside it that hold its weights.

    Raises:
        UnsafeModel: the file is not what it must be, or the child died of it.
        MissingDependency: what reads or runs it is not installed.
    """
    return tuple(_in_child(source, "again", command)["beside"])


def longest_in_subprocess(file: Path, where: str) -> int:
    """The most tokens up to 512 that a file which was looked at takes, found in a child process that runs it.

    Args:
        where: its name for messages.

    Raises:
        UnsafeModel: it cannot be run, or the child died of it.
        MissingDependency: what runs it is not installed.
    """
    try:
        return int(_in_child(file, "longest")["longest"])
    except BertshrinkError as error:
        error.where = where
        raise


def read_header_in_subprocess(source: Path) -> FileFacts:
    """What an ONNX file's header says (see `report.files.read_onnx`), read in a child process.

    Raises:
        UnsafeModel: the file is damaged, or the child died of it.
    """
    header = _in_child(source, "facts")
    header["tensors"] = tuple(Tensor(**{**one, "shape": tuple(one["shape"])}) for one in header["tensors"])
    header["nodes"] = tuple(
        Node(one["op"], tuple(one["inputs"]), tuple(one["outputs"]), one["integers"]) for one in header["nodes"]
    )
    return FileFacts(**header | {name: tuple(header[name]) for name in ("inputs", "outputs", "beside")})


def _in_child(source: Path, how: str, command: tuple[str, ...] = COMMAND, *more: Path) -> dict[str, Any]:
    """The answer of a child process; `how` is one of `probe_child.LOOKS`."""
    beside = source.parent.iterdir() if source.suffix == ".onnx" and source.is_file() else [source]
    num_bytes = sum(file.stat().st_size for file in beside if file.is_file())
    timeout_s = 30 + 3 * time_limit_s(min(num_bytes, MAX_MODEL_BYTES))  # one that works has a limit of its own
    try:
        done = subprocess.run(
            [*command, how, str(source), *map(str, more)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise _died(source, f"did not finish within {timeout_s} s", expired.stdout or b"") from None
    except ValueError:  # a NUL in the path
        raise UnsafeModel("the file's name holds the character NUL", where=repr(source), hint="rename it") from None
    said = _lines(done.stdout)
    last = said[-1] if said else {}
    if "refused" in last:
        kind, what, where, hint = last["refused"]
        raise _error(kind, what, where or str(source), hint)
    stop_as(done.returncode)
    if done.returncode or "found" not in last:
        raise _died(source, _end_of(done.returncode), done.stdout)
    answer: dict[str, Any] = last["found"]
    return answer


def stop_as(code: int) -> None:
    """End as a child did that somebody ended, who then meant this process as well.

    Raises:
        KeyboardInterrupt: by Ctrl-C.
        Stopped: by SIGTERM.
    """
    if code == -signal.SIGINT:
        raise KeyboardInterrupt
    if code == -signal.SIGTERM:
        raise Stopped


def child_environment() -> dict[str, str]:
    """Environment variables of a process that is bertshrink again, on one thread."""
    root = str(PACKAGE.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    return os.environ | dict.fromkeys(_THREADS, "1") | {"PYTHONPATH": path}


def _lines(stdout: bytes) -> list[dict[str, Any]]:
    lines = []
    for line in stdout.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return [line for line in lines if isinstance(line, dict)]


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


def _died(source: Path, how: str, stdout: bytes) -> UnsafeModel:
    at = next((line["at"] for line in reversed(_lines(stdout)) if "at" in line), "starting")
    return UnsafeModel(
        f"`{source.name}` cannot be read safely: the process that read it {how} while {at}",
        where=str(source),
        hint="export the model again; if it comes from elsewhere, do not trust the file",
    )
