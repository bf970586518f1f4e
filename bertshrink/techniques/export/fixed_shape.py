"""One shape for a graph: batch and length become numbers, and the sums about them are done now.

For engines that plan everything ahead and take no other shape. Only shapes are touched: no weight is folded, moved or
converted, so a quantized graph keeps its form.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx

from bertshrink.engines import engine
from bertshrink.errors import CheckFailed
from bertshrink.model.artifact import Artifact
from bertshrink.onnx_graph.encoder_graph import initializers, read_model, write_model
from bertshrink.onnx_graph.shape_values import fold_sizes
from bertshrink.techniques.export.parity import padded_text

if TYPE_CHECKING:
    from bertshrink.techniques.base import Workbench

_TOLERANCE = 1e-5


def fix(artifact: Artifact, shape: tuple[int, int], bench: Workbench) -> Artifact:
    """Give an ONNX artifact one shape, in a new folder below `bench.work`.

    Args:
        shape: (batch, length); the length at most the artifact's longest input.

    Raises:
        UnsafeModel: the file is damaged.
        CheckFailed: the new file gives other numbers.
    """
    folder = bench.work / "fixed"
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
    path = folder / artifact.card.file
    path.parent.mkdir(parents=True)
    write_model(fix_shape(read_model(artifact.file, numbers=False), *shape), path)
    feeds = padded_text(artifact, *shape)
    runtime = engine(artifact.card.engine)
    old, new = (runtime.load(str(file), options=artifact.card.options).run(feeds) for file in (artifact.file, path))
    for name in artifact.card.outputs:
        before, after = old[name].astype(np.float64), new[name].astype(np.float64)
        if not np.abs(before - after).max() <= _TOLERANCE * max(1.0, float(np.abs(before).max())):
            raise CheckFailed(f"with a fixed shape `{name}` gives other numbers", where=str(path))
    card = artifact.card.model_copy(
        update={"shape": shape, "max_length": shape[1], "lineage": (*artifact.card.lineage, "export")}
    )
    bench.note(f"the file takes only {shape[0]}x{shape[1]} (batch x length)")
    return Artifact.create(folder, card, artifact)


def fix_shape(model: onnx.ModelProto, batch: int, length: int) -> onnx.ModelProto:
    """The same graph for one shape.

    Args:
        model: its inputs are (batch, length), by whatever names; it is not changed.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    inputs = {value.name for value in fixed.graph.input} - set(initializers(fixed))
    sizes = {}
    for value in fixed.graph.input:
        if value.name in inputs:
            for dim, size in zip(value.type.tensor_type.shape.dim, (batch, length), strict=True):
                sizes[dim.dim_param] = size
    for value in (*fixed.graph.input, *fixed.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    del fixed.graph.value_info[:]
    fold_sizes(fixed)
    return fixed
