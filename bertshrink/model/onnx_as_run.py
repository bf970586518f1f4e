"""What ONNX Runtime makes of a file when it loads it: the operators that it really runs.

On loading it joins nodes into larger operators of its own (a dense layer's five int8 nodes into DynamicQuantizeMatMul,
bias and GELU into BiasGelu). Whether it did decides the speed, the file does not show it, and a slight change of the
graph can lose it; so it is looked at. It costs one more load, and as much disk as the file for that long.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx

from bertshrink.engines import engine
from bertshrink.model.onnx_graph import operators


def operators_as_run(path: Path) -> dict[str, int]:
    """Number of nodes by operator, as ONNX Runtime runs the file on this machine.

    Args:
        path: the .onnx file.

    """
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        apart = {
            "session.optimized_model_external_initializers_file_name": "weights",
            "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
        }  # what is looked at are the nodes
        engine("onnxruntime").load(str(path), options={"optimized_path": str(optimized), "config": apart})
        return operators(onnx.load_model(str(optimized), load_external_data=False))


def describe_fusions(stored: Mapping[str, int], run: Mapping[str, int]) -> str:
    """What was joined, in a sentence: operators that run and are not in the file; empty where there are none.

    Args:
        stored: operators of the file.
        run: operators as they run.

    """
    joined = ", ".join(f"{count} {name}" for name, count in run.items() if name not in stored)
    return f"ONNX Runtime joins nodes when it loads the file, and runs {joined}" if joined else ""
