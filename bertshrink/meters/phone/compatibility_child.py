"""What ONNX Runtime's own tools say of a file for phones, in a process of its own:
`python -m bertshrink.meters.phone.compatibility_child FILE SCRATCH`; the last line on stdout is the result as JSON.

Providers (XNNPACK, NNAPI, CoreML) take the nodes that they support and leave the rest to the CPU; each unbroken group
of theirs is a partition, and between two of them tensors are copied. Which operators NNAPI and CoreML support is in
tables that come with onnxruntime (`tools/mobile_helpers`), and its `check_partitioning` forms the groups as the runtime
would. There is no table for XNNPACK; what it takes of a text encoder is little, and is here (`Xnnpack`).

The graph is looked at as ONNX Runtime gives it to a provider: optimised to level "basic". An .ort file holds a graph
for the CPU, so nothing is to be seen of it but the operators.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

TABLES = {
    # provider: (onnxruntime's table, the most dimensions that it takes)
    "NNAPI": ("nnapi_supported_ops.md", None),
    "CoreML NeuralNetwork": ("coreml_supported_neuralnetwork_ops.md", 5),
    "CoreML MLProgram": ("coreml_supported_mlprogram_ops.md", 5),
}
NO_LIMIT = 999
PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "MatMulNBits", "FusedMatMul")
SECOND = {"QLinearMatMul": 3}
"""Where a product's weights are among its inputs, if not second."""

Weights = dict[str, tuple[int, ...]]
"""Constants, and what dequantizes one: name -> shape."""


class Xnnpack:
    """What the XNNPACK provider takes of a text encoder: products of float32 with a constant matrix, and softmaxes over
    a last dimension that is known (read in onnxruntime's `core/providers/xnnpack/math`, 2025). Everything with
    dimensions of images is left out here.
    """

    def __init__(self, graph: Any, weights: Weights) -> None:
        values = (*graph.value_info, *graph.input, *graph.output)
        self.types = {value.name: value.type.tensor_type for value in values}
        self.weights = weights
        self.float32 = {w.name for w in graph.initializer if w.data_type == 1}

    def is_op_supported(self, node: Any) -> bool:
        """Whether the provider takes a node."""
        if node.domain not in ("", "ai.onnx"):
            return False
        taken = self.types.get(node.input[0]) if node.input else None
        if taken is None or taken.elem_type != 1:
            return False
        if node.op_type == "Softmax":
            axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
            dims = taken.shape.dim
            return bool(dims) and axis in (-1, len(dims) - 1) and dims[-1].HasField("dim_value")
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in self.float32:
            return False
        rank = len(self.weights[node.input[1]])
        return rank <= 2 and len(taken.shape.dim) in (rank, rank + 1)

    def get_caveats(self) -> list[str]:
        """Nothing that is left unchecked; onnxruntime's tool asks."""
        return []


def look(path: Path, scratch: Path) -> dict[str, Any]:
    """Look at an .onnx or .ort file.

    Returns:
        `operators`: domain -> version -> names; `types`: of those that can be built for some types only; `ort`: the
        .ort file, written in `scratch` where another was given; `coverage`: a row for each provider, with the shapes as
        they are and, where they are open, as if they were fixed.
    """
    from bertshrink.onnx_graph.ort_format import operators_and_types, write

    ort, coverage = path, []
    if path.suffix != ".ort":
        ort = scratch / "model.ort"
        write(path, ort)
        coverage = _coverage(path, scratch)
    operators, types = operators_and_types(ort)
    return {"operators": operators, "types": types, "ort": str(ort), "coverage": coverage}


def _coverage(path: Path, scratch: Path) -> list[dict[str, Any]]:
    from bertshrink.onnx_graph.ort_format import import_tools

    tool, utils = import_tools("mobile_helpers.usability_checker"), import_tools("onnx_model_utils")
    basic = scratch / "basic.onnx"
    utils.optimize_model(path, basic)
    model = utils.ModelProtoWithShapeInfo(basic).model_with_shape_info
    weights = weights_of(model.graph)
    folder = Path(tool.__file__).parent
    kinds: dict[str, tuple[Any, int]] = {"XNNPACK": (Xnnpack(model.graph, weights), NO_LIMIT)}
    for provider, (table, rank) in TABLES.items():
        kinds[provider] = (tool._SupportedOpsChecker(folder / table), rank or NO_LIMIT)
    is_open = bool(tool.check_shapes(model.graph)[0])
    rows = []
    for provider, (checker, rank) in kinds.items():
        # XNNPACK looks at the dimensions itself: most of what it takes may be open.
        for shapes in ("open", "fixed") if is_open and provider != "XNNPACK" else ("open" if is_open else "fixed",):
            parts = tool.check_partitioning(model.graph, checker, shapes == "open" and provider != "XNNPACK", rank)
            rows.append({"provider": provider, "shapes": shapes} | _row(model.graph, weights, parts))
    return rows


def _row(graph: Any, weights: Weights, parts: Any) -> dict[str, Any]:
    taken = {tuple(node.output) for group in parts.supported_groups for node in group}
    sizes = [(product_size(node, weights), tuple(node.output) in taken) for node in graph.node]
    return {
        "num_nodes": parts.num_nodes,
        "num_taken": parts.num_supported_nodes,
        "num_partitions": parts.num_partitions,
        "num_weights": sum(size for size, _ in sizes),
        "num_weights_taken": sum(size for size, is_taken in sizes if is_taken),
        "not_taken": sorted(parts.unsupported_ops),
    }


def weights_of(graph: Any) -> Weights:
    """The shapes of all constants, and of what only dequantizes or turns one."""
    weights = {w.name: tuple(w.dims) for w in graph.initializer}
    for node in graph.node:
        if node.op_type in ("DequantizeLinear", "Transpose") and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    return weights


def product_size(node: Any, weights: Weights) -> int:
    """Multiply-adds per token of a product with constant weights; 0 for any other node."""
    if node.op_type not in PRODUCTS:
        return 0
    if node.op_type == "MatMulNBits":
        sizes = {a.name: a.i for a in node.attribute}
        return int(sizes["K"] * sizes["N"])
    at = SECOND.get(node.op_type, 1)
    shape = weights.get(node.input[at]) if len(node.input) > at else None
    return math.prod(shape) if shape else 0


def main() -> None:
    """Look, and write the result; whatever a library prints goes to stderr."""
    channel = os.dup(1)
    os.dup2(2, 1)
    from bertshrink.errors import BertshrinkError

    try:
        answer = look(Path(sys.argv[1]), Path(sys.argv[2]))
    except BertshrinkError as error:
        answer = {"refused": [type(error).__name__, error.what, error.where, error.hint]}
    with os.fdopen(channel, "w", encoding="utf-8") as out:
        json.dump(answer, out)


if __name__ == "__main__":
    main()
