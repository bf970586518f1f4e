"""What ONNX Runtime makes of a file when it loads it: the operators that it really runs.

On loading it joins nodes into larger operators of its own (a dense layer's five int8 nodes into DynamicQuantizeMatMul,
bias and GELU into BiasGelu). Whether it did decides the speed, the file does not show it, and a slight change of the
graph can lose it; so it is looked at. It costs one more load and a run on three tokens, which its profiler writes down;
to have it write the optimised graph instead took five times as long, and twice the weights' memory.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertshrink.engines import engine
from bertshrink.errors import OutputError
from bertshrink.files.scratch_folder import scratch_folder
from bertshrink.hardware import release_freed_memory

if TYPE_CHECKING:
    from bertshrink.engines import Arrays

_TIME = "_kernel_time"
"""How the profiler ends the name of a node's event."""


def operators_as_run(path: Path, shape: tuple[int | None, int | None] | None = None) -> dict[str, int]:
    """Number of nodes by operator, as ONNX Runtime runs the file on this machine.

    Args:
        path: the .onnx file of an encoder without branches.
        shape: the (batch, length) that it takes; None, or None in a place: any.

    Raises:
        OutputError: the disk of temporary files has no room for the profile.
    """
    batch, length = shape or (None, None)
    ids = np.ones((batch or 1, length or 3), dtype=np.int64)
    feeds: Arrays = {"input_ids": ids, "attention_mask": ids, "token_type_ids": np.zeros_like(ids)}
    with scratch_folder() as folder:
        session = engine("onnxruntime").load(str(path), options={"profile": str(folder / "run")})
        session.run(feeds)
        del session  # which ends the profile
        release_freed_memory()
        events = _events(folder)
    num_nodes = Counter(
        event["args"]["op_name"] for event in events if event.get("cat") == "Node" and event["name"].endswith(_TIME)
    )
    return dict(sorted(num_nodes.items()))


def _events(folder: Path) -> list[dict[str, Any]]:
    """The profile that ONNX Runtime wrote, which says nothing of a disk that had no room for all of it."""
    try:
        (profile,) = folder.glob("run*")
        events: list[dict[str, Any]] = json.loads(profile.read_text(encoding="utf-8"))
    except ValueError:
        what = "ONNX Runtime could not write its profile of a run: the disk of temporary files is full"
        hint = "free some space there, or name another place in the environment variable TMPDIR"
        raise OutputError(what, where=tempfile.gettempdir(), hint=hint) from None
    return events


def describe_fusions(stored: Mapping[str, int], run: Mapping[str, int]) -> str:
    """What was joined, in a sentence: operators that run and are not in the file; empty where there are none."""
    joined = ", ".join(f"{count} {name}" for name, count in run.items() if name not in stored)
    return f"ONNX Runtime fuses nodes when it loads the file, and runs {joined}" if joined else ""
