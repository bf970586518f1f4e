"""Weights that stay outside their graph, so that a graph of a hundred million weights is a message of a few kilobytes.

Protobuf copies what it holds: on reading (the bytes, then the message), whenever a tensor moves into another message,
and on writing. Of a model of 440 MB that is gigabytes. Here a large tensor says only where its numbers are, in ONNX's
own words (`external_data`: location, offset, length, checksum), and they are read when they are asked for, one tensor
at a time. They are

    in the ONNX file itself        `onnx_without_tensors.load_structure`: its message without its large `raw_data`
    in a file beside it            `follow`: proven to be there, then named by their path
    in memory, lent                `BorrowedTensors`: the weights of a PyTorch model, and transposed views of them

Such a graph never leaves the process: `stream` writes the numbers into their places, byte for byte what protobuf would
have written of the whole. What one message cannot hold becomes two files: the graph, and beside it (`onnx_data_file`)
every tensor of a kilobyte or more, those of 64 KB or more at multiples of a page, so that engines can map them.
"""

from __future__ import annotations

import hashlib
import itertools
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import onnx
from google.protobuf.message import Message
from numpy.typing import NDArray

from bertshrink.files.atomic import move
from bertshrink.files.onnx_data_file import Span, data_file, spans
from bertshrink.files.onnx_without_tensors import (
    GRAPH,
    INITIALIZER,
    LARGE_BYTES,
    RAW_DATA,
    num_bytes,
    opening,
    point_at,
)
from bertshrink.files.safe_open import MAX_FILE_BYTES

_LENT: dict[int, NDArray[Any]] = {}
"""What lenders hold, by what is stored as `offset` in the tensors; no path is empty, so their `location` is."""

_TICKETS = itertools.count()

_FIRST_BYTES, _COPIED_BYTES = 256, 1 << 24

_OUTSIDE_BYTES = 1024
"""Smaller tensors stay in the graph, as onnx's own writer has it: shapes, which ONNX looks for there."""

_PAGE, _LINE = 4096, 64
"""Where large and small tensors begin in a file of weights: multiples of a page and of a processor's cache line."""


class BorrowedTensors:
    """Lends arrays to tensors for as long as the block runs, or, without one, as long as the lender is there.

    Nothing is copied, so the arrays must not change.
    """

    def __init__(self) -> None:
        self.tickets: list[int] = []
        self.close = weakref.finalize(self, _take_back, self.tickets)

    def __enter__(self) -> BorrowedTensors:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

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


def _take_back(tickets: list[int]) -> None:
    for ticket in tickets:
        del _LENT[ticket]


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
    return _with_stored(model, [_emptied(stored) for stored in model.graph.initializer])


def _emptied(stored: onnx.TensorProto) -> onnx.TensorProto:
    if stored.ByteSize() < LARGE_BYTES and not is_external(stored):
        return stored
    return onnx.TensorProto(name=stored.name, data_type=stored.data_type, raw_data=b"", dims=[0] * len(stored.dims))


def follow(model: onnx.ModelProto, path: Path, inside: Collection[int] = ()) -> None:
    """Let a graph's tensors whose numbers are in files beside it say where these are, so that they can be read.

    Args:
        path: of the graph; the files must not change as long as it is used.
        inside: which of the initializers point into the graph's own file.

    Raises:
        UnsafeModel: a file is missing, is not a plain file of the graph's folder, or was cut.
    """
    for one in spans((stored for at, stored in enumerate(model.graph.initializer) if at not in inside), path):
        leave_outside(one)


def leave_outside(span: Span) -> None:
    """Let a tensor say by its file's path where its numbers are.

    Small ones are read at once, since ONNX infers shapes from them; so are those of 4 bits, two to a byte.
    """
    stored = span.tensor
    if span.length < LARGE_BYTES or span.length != num_bytes(stored):
        take_in(span)
        return
    stored.ClearField("external_data")
    point_at(stored, str(span.path.absolute()), str(span.offset), span.length)


def take_in(span: Span) -> None:
    """Read a tensor's numbers into it."""
    stored = span.tensor
    stored.raw_data = _read(str(span.path), span.offset, span.length).tobytes()
    stored.ClearField("external_data")
    stored.ClearField("data_location")


def stream(model: onnx.ModelProto, path: Path) -> None:
    """Write a model with every number in its place: the bytes of `SerializeToString(deterministic=True)`.

    A model of more bytes than one message holds becomes two files. They appear when they are whole, so the model may be
    read from the very files that it replaces.

    Raises:
        OSError: the disk is full or the place is not writable.
    """
    data = data_file(path)
    drafts = [file.with_name(f".{file.name}.tmp") for file in (data, path)]
    frame, sizes = _frame(model), [_size(stored) for stored in model.graph.initializer]
    try:
        if sum(map(len, frame)) + _listed_bytes(sizes) > MAX_FILE_BYTES:
            with drafts[0].open("wb") as file:
                outside = [_put_outside(stored, file, data.name) for stored in model.graph.initializer]
            drafts[1].write_bytes(_serialized(_with_stored(model, outside)))
            move(drafts[0], data)
        else:
            with drafts[1].open("wb") as file:
                _write_message(model, frame, sizes, file)
            data.unlink(missing_ok=True)
        move(drafts[1], path)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def _frame(model: onnx.ModelProto) -> tuple[bytes, bytes, bytes, bytes]:
    """What is before the graph, in it before its stored tensors, in it after them, and after the graph."""
    before, after = _parts(model, GRAPH), _parts(model, GRAPH, after=True)
    head, tail = _parts(model.graph, INITIALIZER), _parts(model.graph, INITIALIZER, after=True)
    return _serialized(before), _serialized(head), _serialized(tail), _serialized(after)


def _listed_bytes(sizes: Sequence[int]) -> int:
    """Bytes of stored tensors in their graph, each with its key and length."""
    return sum(size + len(opening(INITIALIZER, size)) for size in sizes)


def _write_message(
    model: onnx.ModelProto, frame: tuple[bytes, bytes, bytes, bytes], sizes: Sequence[int], file: BinaryIO
) -> None:
    """Write a model as one message; `sizes` are those of its stored tensors."""
    before, head, tail, after = frame
    file.write(before)
    file.write(opening(GRAPH, len(head) + _listed_bytes(sizes) + len(tail)) + head)
    for stored, size in zip(model.graph.initializer, sizes, strict=True):
        file.write(opening(INITIALIZER, size))
        _write_tensor(stored, file)
    file.write(tail + after)


def _put_outside(stored: onnx.TensorProto, file: BinaryIO, name: str) -> onnx.TensorProto:
    """Write a tensor's numbers into a file of weights called `name`, unless they are few.

    Returns:
        the tensor for the graph: it says where the numbers are, or holds the few.
    """
    is_elsewhere = is_external(stored)
    if not is_elsewhere and not stored.HasField("raw_data"):
        return stored
    length = _place(stored)[2] if is_elsewhere else len(stored.raw_data)
    if length < _OUTSIDE_BYTES:
        return inline_tensor(tensor_data(stored), stored.name) if is_elsewhere else stored
    file.write(bytes(-file.tell() % (_PAGE if length >= LARGE_BYTES else _LINE)))
    outside: onnx.TensorProto = _parts(stored, RAW_DATA)
    point_at(outside, name, str(file.tell()), length)
    if is_elsewhere:
        _write_numbers(stored, file)
    else:
        file.write(stored.raw_data)
    return outside


def _with_stored(model: onnx.ModelProto, stored: Sequence[onnx.TensorProto]) -> onnx.ModelProto:
    """A model with these stored tensors; its own are not copied."""
    made: onnx.ModelProto = _parts(model, GRAPH, after=True)
    made.MergeFrom(_parts(model, GRAPH))
    made.graph.MergeFrom(_parts(model.graph, INITIALIZER))
    made.graph.MergeFrom(_parts(model.graph, INITIALIZER, after=True))
    made.graph.initializer.extend(stored)
    return made


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
    _write_numbers(stored, file)


def _write_numbers(stored: onnx.TensorProto, file: BinaryIO) -> None:
    """Write the numbers of a tensor that is outside."""
    path, offset, length = _place(stored)
    if not path:
        file.write(_as_bytes(_LENT[offset]).data)
        return
    for start in range(0, length, _COPIED_BYTES):  # a table may be most of the memory that there is
        file.write(_read(path, offset + start, min(length - start, _COPIED_BYTES)).data)
