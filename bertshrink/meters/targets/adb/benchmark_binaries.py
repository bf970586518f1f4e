"""The two programs that users bring along, how each is told what to run, and how its times are read.

onnxruntime_perf_test   .onnx and .ort; inputs are beside the model (test_data_set_0/input_0.pb); it writes a line for
                        every inference: model,seconds,memory,cpu,number
executor_runner         .pte; all inputs are ones; it logs a line for every inference (`Iteration 3 of 50: 1.25 ms`),
                        on stderr or, built for Android, in the system's log; older ones tell the sum alone
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from bertshrink.errors import MeasurementError, UserError

if TYPE_CHECKING:
    from bertshrink.engines import Arrays

TOOLS = {".onnx": "onnxruntime_perf_test", ".ort": "onnxruntime_perf_test", ".pte": "executor_runner"}
"""How a model's file ends -> what runs it."""

_MACHINES = {3: "x86", 40: "armeabi-v7a", 62: "x86_64", 183: "arm64-v8a", 243: "riscv64"}
"""`e_machine` of an ELF header -> Android's name (elf.h; the NDK's ABI guide)."""

_EACH = re.compile(r"Iteration (\d+) of \d+: ([0-9.]+) ms")
_SUM = re.compile(r"Model executed successfully (\d+) time\(s\) in ([0-9.]+) ms")


def abi_of(runner: Path) -> str | None:
    """What a program was built for, in Android's words; None where it is not an ELF file or of another machine.

    Raises:
        UserError: there is no such file.
    """
    try:
        with runner.open("rb") as file:
            header = file.read(20)
    except OSError:
        raise UserError(f"there is no runner at `{runner}`", where="--target") from None
    if len(header) < 20 or header[:4] != b"\x7fELF":
        return None
    return _MACHINES.get(struct.unpack("<H" if header[5] == 1 else ">H", header[18:20])[0])


def perf_test(folder: str, model: str, result: str, seconds: float, threads: int) -> str:
    """The command that times an ONNX file; whole seconds are all that it can be told."""
    return (
        f"{folder}/runner -e cpu -m duration -t {max(1, math.ceil(seconds))} -x {threads} -y 1 "
        f"-C 'session.intra_op.allow_spinning|0' {model} {result}"
    )


def executor(folder: str, model: str, times: int, threads: int, shapes: str | None) -> str:
    """The command that times a program."""
    given = f" --input_shapes={shapes}" if shapes else ""
    return f"{folder}/runner --model_path={model} --num_executions={times} --cpu_threads={threads}{given}"


def read_perf_test(text: str) -> list[float]:
    """Seconds of every inference. Raises MeasurementError: there are none, or they are not times."""
    seconds = []
    for line in text.splitlines():
        fields = line.rsplit(",", 4)
        if len(fields) == 5:
            seconds.append(_seconds(fields[1], 1.0))
    return _some(seconds)


def read_executor(text: str) -> list[float]:
    """Seconds of every inference; a single one, the mean, of a runner that tells the sum alone.

    Raises:
        MeasurementError: there are none, or they are not times.
    """
    seconds = [_seconds(match[2], 1e-3) for match in _EACH.finditer(text)]
    if not seconds and (whole := _SUM.search(text)) and int(whole[1]):
        seconds = [_seconds(whole[2], 1e-3) / int(whole[1])]
    return _some(seconds)


def _seconds(text: str, unit: float) -> float:
    try:
        value = float(text) * unit
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise MeasurementError(f"the runner reports an unreadable time: `{text[:40]}`")
    return value


def _some(seconds: list[float]) -> list[float]:
    if not seconds:
        raise MeasurementError("the runner reports no times", hint="its log contains none: was it built with logging?")
    return seconds


def write_inputs(feeds: Arrays, folder: Path) -> list[Path]:
    """Write a model's inputs as its runner reads them: one tensor per file."""
    from onnx import numpy_helper

    files = []
    for at, (name, array) in enumerate(feeds.items()):
        path = folder / f"input_{at}.pb"
        path.write_bytes(numpy_helper.from_array(array, name).SerializeToString())
        files.append(path)
    return files
