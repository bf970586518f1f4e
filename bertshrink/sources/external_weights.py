"""The weights of an ONNX file that are in files beside it ("external data"), taken into its message.

Only plain files of its own folder, and only spans that they have.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import onnx

from bertshrink.errors import UnsafeModel
from bertshrink.files.atomic import is_lfs_pointer
from bertshrink.files.headers import bytes_of
from bertshrink.files.safe_open import MAX_FILE_BYTES, open_plain
from bertshrink.sources.onnx_checks import all_tensors


def take_in_weights(model: onnx.ModelProto, source: Path, num_bytes: int, limit: Callable[[int], None]) -> bool:
    """Put the bytes of weights that are in files beside the model into it.

    Args:
        limit: sets the process's limits to what so many bytes may need.

    Returns:
        whether there were any.

    Raises:
        UnsafeModel: a file is missing or no plain file of this folder, or holds fewer bytes than it is asked for.
    """
    outside = [tensor for tensor in all_tensors(model) if tensor.data_location == tensor.EXTERNAL]
    with contextlib.ExitStack() as stack:
        files: dict[str, BinaryIO] = {}
        spans = []
        for tensor in outside:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            name = entries.get("location", "")
            if name not in files:
                files[name] = stack.enter_context(open_plain(beside(source, name)))
            spans.append((files[name], *span(tensor, entries, os.fstat(files[name].fileno()).st_size)))
        total = num_bytes + sum(length for _, _, length in spans)
        if total > MAX_FILE_BYTES:
            raise UnsafeModel("the model and its weights are more than 2 GB, the limit of one ONNX file")
        if outside:
            limit(total)
        for tensor, (file, offset, length) in zip(outside, spans, strict=True):
            file.seek(offset)
            tensor.raw_data = file.read(length)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return bool(outside)


def beside(source: Path, name: str) -> Path:
    """The file that a model's `location` means: a name, perhaps behind `./`, as onnx and ONNX Runtime take both.

    Raises:
        UnsafeModel: it is not a name of a file in the model's own folder, or a pointer of git LFS in its place.
    """
    parts = PurePosixPath(name).parts  # without `.`
    if len(parts) != 1 or parts[0] in ("/", "//", "..") or "\\" in name or "\0" in name or name.endswith("/"):
        raise UnsafeModel(
            f"the file's weights are in `{name}`, which is not a file beside it",
            hint="put the weights beside the model, or save it in one file",
        )
    path = source.parent / parts[0]
    if is_lfs_pointer(path):
        hint = "run `git lfs install` and `git lfs pull` in the repository that it comes from"
        raise UnsafeModel(f"`{parts[0]}` is a pointer of git LFS, not the file", where=str(path), hint=hint)
    return path


def span(tensor: onnx.TensorProto, entries: dict[str, str], file_bytes: int) -> tuple[int, int]:
    """Offset and length of a tensor in its file.

    Raises:
        UnsafeModel: they are not numbers, are beyond the file, or are not what the shape asks for.
    """
    hint = "download both files of the model again"
    try:
        asked = bytes_of(onnx.TensorProto.DataType.Name(tensor.data_type), tensor.dims)
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", asked))
    except ValueError:
        raise UnsafeModel(f"the location of the weight `{tensor.name}` is unreadable", hint=hint) from None
    if min(offset, length, asked, *tensor.dims, 0) < 0 or offset + length > file_bytes or length != asked:
        raise UnsafeModel(
            f"the weight `{tensor.name}` needs {asked} bytes, stored as {length} from byte {offset} of a file of "
            f"{file_bytes}",
            hint=hint,
        )
    return offset, length
