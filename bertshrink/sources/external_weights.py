"""The weights of a file from elsewhere that are in files beside it, told where they are (see `onnx_data_file`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from bertshrink import units
from bertshrink.errors import UnsafeModel
from bertshrink.files.onnx_data_file import spans
from bertshrink.files.safe_open import MAX_FILE_BYTES
from bertshrink.onnx_graph.external_data import leave_outside, take_in
from bertshrink.sources.onnx_checks import all_tensors
from bertshrink.sources.probe_limits import MAX_MODEL_BYTES


def find_weights(model: onnx.ModelProto, source: Path, num_bytes: int, limit: Callable[[int], None]) -> bool:
    """Have every tensor of a model say where its numbers are, or hold them.

    Args:
        num_bytes: of the model's own file.
        limit: sets the process's limits to what so many bytes may need.

    Returns:
        whether any were in files beside it.

    Raises:
        UnsafeModel: a file is missing or no plain file of this folder, or holds fewer bytes than it is asked for; or
            they are more than any encoder has.
    """
    tensors, num_own = list(all_tensors(model)), len(model.graph.initializer)
    own, inner = spans(tensors[:num_own], source), spans(tensors[num_own:], source)
    total = sum(one.length for one in (*own, *inner))
    held = sum({one.path: one.file_bytes for one in (*own, *inner)}.values())
    if num_bytes + total > MAX_FILE_BYTES and total > held:  # many that share a span would become a file without end
        what = f"the weights take {total} bytes, and the files beside the model hold {held}"
        raise UnsafeModel(what, where=str(source), hint="save the model again, each weight in a place of its own")
    if num_bytes + total > MAX_MODEL_BYTES:
        most = units.format(MAX_MODEL_BYTES, "B")
        raise UnsafeModel(f"the weights take {units.format(total, 'B')}; at most {most} are read", where=str(source))
    if total:
        limit(num_bytes + total)
    for one in own:
        leave_outside(one)
    for one in inner:  # a node's, or a branch's
        take_in(one)
    return bool(own or inner)
