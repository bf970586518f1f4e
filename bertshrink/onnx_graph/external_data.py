"""Weights that stay outside their graph, so that a graph of a hundred million weights is a message of a few kilobytes.

Protobuf copies what it holds: on reading (the bytes, then the message), whenever a tensor moves into another message,
and on writing. Of a model of 440 MB that is gigabytes. Here a large tensor says only where its numbers are, in ONNX's
own words (`external_data`: location, offset, length, checksum), and they are read when they are asked for, one tensor
at a time. They are

    in the ONNX file itself        `report.onnx_message.skeleton`: the file's message without its large `raw_data`
    in memory, lent                `BorrowedTensors`: the weights of a PyTorch model, and transposed views of them

Such a graph never leaves the process: `stream` writes the numbers into their places, byte for byte what protobuf would
have written of the whole.
"""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import onnx
from google.protobuf.message import Message
from numpy.typing import NDArray

from bertshrink.files.onnx_without_tensors import GRAPH, INITIALIZER, LARGE_BYTES, RAW_DATA, opening, point_at

_LENT: dict[int, NDArray[Any]] = {}
"""What lenders hold, by what is stored as `offset` in the tensors; no path is empty, so their `location` is."""

_TICKETS = itertools.count()

_FIRST_BYTES, _COPIED_BYTES = 256, 1 << 24


class BorrowedTensors:
    """Lends arrays to tensors for as long as the block runs; nothing is copied, so the arrays must not change."""

    def __enter__(self) -> BorrowedTensors:
        self.tickets: list[int] = []
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for ticket in self.tickets:
            del _LENT[ticket]

    def tensor(self, value: NDArray[Any], name: str) -> onnx.TensorProto:
        """A numpy array as a stored tensor; a large one is lent."""
        if value.nbytes < LARGE_BYTES:
            return inline_tensor(value, name)
        self.tickets.append(next(_TICKETS))
        _LENT[self.tickets[-1]] = value
        stored = onnx.TensorProto(
            name=name, dims=value.shape, data_type=onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        )
        point_at(stored, "", str(self.tickets[-1]), value.nbytes)
        return stored


def inline_tensor(value: NDArray[Any], name: str) -> onnx.TensorProto:
    """A numpy array as a stored tensor that holds its numbers."""
    return onnx.numpy_helper.from_array(np.ascontiguousarray(value) if value.ndim else value, name)


def is_external(stored: onnx.TensorProto) -> bool:
    """Whether a tensor's numbers are elsewhere."""
    return bool(stored.data_location == onnx.TensorProto.EXTERNAL)


def tensor_data(stored: onnx.TensorProto) -> NDArray[Any]:
    """A tensor's numbers, wherever they are. Raises OSError: the file that they are in was cut."""
    if not is_external(stored):
        numbers: NDArray[Any] = onnx.numpy_helper.to_array(stored)
        return numbers
    path, offset, length = _place(stored)
    if not path:
        return _LENT[offset]
    numbers = (
        _read(path, offset, length)
        .view(onnx.helper.tensor_dtype_to_np_dtype(stored.data_type))
        .reshape(tuple(stored.dims))
    )
    return numbers


def first_bytes(stored: onnx.TensorProto) -> bytes:
    """The first bytes of a tensor's numbers: where they differ, the tensors do, and no more of them has to be read."""
    path, offset, length = _place(stored) if is_external(stored) else ("", 0, 0)
    if path:
        return _read(path, offset, min(length, _FIRST_BYTES)).tobytes()
    return _as_bytes(tensor_data(stored).flat[:_FIRST_BYTES]).tobytes()[:_FIRST_BYTES]


def digest(stored: onnx.TensorProto) -> bytes:
    """The sha256 of a tensor's numbers; of one that is outside it is computed once and noted beside its place."""
    noted = [entry.value for entry in stored.external_data if entry.key == "checksum" and is_external(stored)]
    if noted:
        return bytes.fromhex(noted[0])
    sha256 = hashlib.sha256(_as_bytes(tensor_data(stored)).data)
    if is_external(stored):
        stored.external_data.add(key="checksum", value=sha256.hexdigest())
    return sha256.digest()


def _as_bytes(value: NDArray[Any]) -> NDArray[np.uint8]:
    """An array's bytes, also where Python's buffers have no such type: bfloat16, integers of 4 bits, text."""
    if value.dtype == object:
        return np.frombuffer(repr(value.tolist()).encode(), np.uint8)
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)


def without_numbers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph whose large tensors are empty ones of as many axes: what ONNX's checker looks at, and little more."""
    emptied = _parts(model, GRAPH, after=True)
    emptied.MergeFrom(_parts(model, GRAPH))
    emptied.graph.MergeFrom(_parts(model.graph, INITIALIZER))
    emptied.graph.MergeFrom(_parts(model.graph, INITIALIZER, after=True))
    for stored in model.graph.initializer:
        if stored.ByteSize() < LARGE_BYTES and not is_external(stored):
            emptied.graph.initializer.append(stored)
        else:
            empty = emptied.graph.initializer.add(name=stored.name, data_type=stored.data_type, raw_data=b"")
            empty.dims.extend([0] * len(stored.dims))
    return emptied


def stream(model: onnx.ModelProto, path: Path) -> None:
    """Write a model with every number in its place: the bytes of `SerializeToString(deterministic=True)`.

    Raises:
        OSError: the disk is full or the place is not writable.
    """
    graph = model.graph
    head, tail = (_serialized(_parts(graph, INITIALIZER, after=after)) for after in (False, True))
    sizes = [_size(stored) for stored in graph.initializer]
    stored_bytes = sum(size + len(opening(INITIALIZER, size)) for size in sizes)
    with path.open("wb") as file:
        file.write(_serialized(_parts(model, GRAPH)))
        file.write(opening(GRAPH, len(head) + stored_bytes + len(tail)) + head)
        for stored, size in zip(graph.initializer, sizes, strict=True):
            file.write(opening(INITIALIZER, size))
            _write_tensor(stored, file)
        file.write(tail + _serialized(_parts(model, GRAPH, after=True)))


def _parts(message: Any, number: int, *, after: bool = False) -> Any:
    """A message of the fields before, or after, the one with this number."""
    fields = {
        field.name: value
        for field, value in message.ListFields()
        if (field.number > number if after else field.number < number)
    }
    return type(message)(**fields)


def _serialized(message: Message) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _place(stored: onnx.TensorProto) -> tuple[str, int, int]:
    """Of a tensor that lies outside: its file ("": it is lent), where in it (which of those lent), and its bytes."""
    entries = {entry.key: entry.value for entry in stored.external_data}
    return entries["location"], int(entries["offset"]), int(entries["length"])


def _read(path: str, offset: int, length: int) -> NDArray[np.uint8]:
    """Bytes of a file. Raises OSError: it was cut."""
    data = np.fromfile(path, np.uint8, length, offset=offset)
    if data.size != length:
        raise OSError(f"`{path}` was cut while it was read")
    return data


def _head(stored: onnx.TensorProto) -> tuple[bytes, int]:
    """What is before the numbers of a tensor that is outside, their key included, and how many bytes they are."""
    length = _place(stored)[2]
    return _serialized(_parts(stored, RAW_DATA)) + opening(RAW_DATA, length), length


def _size(stored: onnx.TensorProto) -> int:
    """Bytes of a tensor's message with its numbers in it."""
    if not is_external(stored):
        return int(stored.ByteSize())
    head, length = _head(stored)
    return len(head) + length


def _write_tensor(stored: onnx.TensorProto, file: BinaryIO) -> None:
    if not is_external(stored):
        file.write(_serialized(stored))
        return
    file.write(_head(stored)[0])
    path, offset, length = _place(stored)
    if not path:
        file.write(_as_bytes(_LENT[offset]).data)
        return
    for start in range(0, length, _COPIED_BYTES):  # a table may be most of the memory that there is
        file.write(_read(path, offset + start, min(length - start, _COPIED_BYTES)).data)
