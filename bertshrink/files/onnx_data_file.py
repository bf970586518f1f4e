"""The files beside an ONNX file that hold its weights ("external data"): which they are, and what of them is whose.

One protobuf message ends at 2 GB. The weights of a larger model are in a second file, and each tensor says where in it:
its `location` (a name), `offset` and `length`. bertshrink calls that file as optimum, sentence-transformers and
transformers.js do, `model.onnx_data`; others have other names, and several files.

Followed are only plain files of the model's own folder, and only spans that they have (see `safe_open`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bertshrink.errors import UnsafeModel
from bertshrink.files.atomic import is_lfs_pointer
from bertshrink.files.safe_open import open_plain
from bertshrink.files.tensor_bytes import bytes_of

DATA_SUFFIX = "_data"


@dataclass(frozen=True)
class Span:
    """Where the numbers of a tensor are: `length` bytes of a file of `file_bytes`, from `offset` on."""

    tensor: Any
    path: Path
    offset: int
    length: int
    file_bytes: int


def data_file(path: Path) -> Path:
    """The file beside an ONNX file of bertshrink's that holds its weights, where there is one."""
    return path.with_name(path.name + DATA_SUFFIX)


def files_of(path: Path) -> list[Path]:
    """A model's file, and the one beside it that holds its weights, where there is one."""
    data = data_file(path)
    return [path, data] if path.suffix == ".onnx" and data.is_file() else [path]


def size_of(path: Path) -> int:
    """Bytes of a model's file and of the one beside it."""
    return sum(file.stat().st_size for file in files_of(path))


def remove(path: Path) -> None:
    """Delete a model's file and the one beside it, as far as they are there."""
    for file in (data_file(path), path):
        file.unlink(missing_ok=True)


def spans(tensors: Iterable[Any], source: Path) -> list[Span]:
    """Where the numbers of tensors are that are in files beside the model.

    Args:
        tensors: of the model in `source`; those whose numbers are in the model itself are passed over.

    Raises:
        UnsafeModel: a file is missing, or is not a plain file of the model's own folder, or holds fewer bytes than a
            tensor needs; or a tensor has numbers of its own besides.
    """
    sizes: dict[Path, int] = {}
    located = []
    for tensor in tensors:
        if tensor.data_location != tensor.EXTERNAL:
            continue
        if tensor.HasField("raw_data"):
            what = f"the weight `{tensor.name}` is in the model, and said to be in a file beside it"
            raise UnsafeModel(what, where=str(source), hint="export the model again, or download it again")
        entries = {entry.key: entry.value for entry in tensor.external_data}
        path = beside(source, entries.get("location", ""))
        if path not in sizes:
            with open_plain(path) as file:
                sizes[path] = os.fstat(file.fileno()).st_size
        located.append(Span(tensor, path, *_span(tensor, entries, path, sizes[path]), sizes[path]))
    return located


def beside(source: Path, name: str) -> Path:
    """The file that a model's `location` means: a name, perhaps behind `./`, as onnx and ONNX Runtime take both.

    Raises:
        UnsafeModel: it is not a name of a file in the model's own folder, or a pointer of git LFS in its place.
    """
    parts = PurePosixPath(name).parts  # without `.`
    if len(parts) != 1 or parts[0] in ("/", "//", "..") or "\\" in name or "\0" in name or name.endswith("/"):
        raise UnsafeModel(
            f"the file's weights are in `{name}`, which is not a file beside it",
            where=str(source),
            hint="put the weights beside the model, or save it in one file",
        )
    path = source.parent / parts[0]
    if is_lfs_pointer(path):
        hint = "run `git lfs install` and `git lfs pull` in the repository that it comes from"
        raise UnsafeModel(f"`{parts[0]}` is a pointer of git LFS, not the file", where=str(path), hint=hint)
    return path


def _span(tensor: Any, entries: dict[str, str], path: Path, file_bytes: int) -> tuple[int, int]:
    """Offset and length of a tensor in its file.

    Raises:
        UnsafeModel: they are not numbers, are beyond the file, or are not what the shape asks for.
    """
    from onnx import TensorProto

    hint = "download both files of the model again"
    try:
        asked = bytes_of(TensorProto.DataType.Name(tensor.data_type), tensor.dims)
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", asked))
    except ValueError:
        what = f"the location of the weight `{tensor.name}` is unreadable"
        raise UnsafeModel(what, where=str(path), hint=hint) from None
    if min(offset, length, asked, *tensor.dims, 0) < 0 or offset + length > file_bytes or length != asked:
        raise UnsafeModel(
            f"the weight `{tensor.name}` needs {asked} bytes, stored as {length} from byte {offset} of a file of "
            f"{file_bytes}",
            where=str(path),
            hint=hint,
        )
    return offset, length
