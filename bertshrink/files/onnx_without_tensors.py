"""An ONNX file's message without its large numbers, which stay in the file: a few kilobytes instead of a whole model.

A message is read field by field, as https://protobuf.dev/programming-guides/encoding has it: before every value a key
(field number and kind), before messages, strings and bytes their length. The `raw_data` of a large tensor of the graph
is stepped over, and the tensor says in ONNX's own words (`external_data`: location, offset, length) where it is.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx

LARGE_BYTES = 1 << 16
"""Tensors from here on stay in the file: matrices. All others together are a thousandth of a model."""

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
"""Field numbers of ModelProto.graph, GraphProto.initializer and TensorProto.raw_data."""

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


def load_structure(path: Path) -> tuple[onnx.ModelProto, set[int]]:
    """An ONNX file's message, its large tensors left where they are.

    Args:
        path: the file, which must not change as long as the message is used.

    Returns:
        the message, and which of the graph's initializers point into the file.

    Raises:
        ValueError: the file is empty, cut, or no protobuf message; protobuf's DecodeError: as it says.
    """
    where, replaced, count = str(path.absolute()), set[int](), [0]

    def thin(data: mmap.mmap, start: int, end: int) -> bytes:
        at, count[0] = count[0], count[0] + 1
        raw = [(first, last) for key, _, first, last in _fields(data, start, end) if key == _key(RAW_DATA)]
        first, last = raw[-1] if raw else (start, start)
        if last - first < LARGE_BYTES:
            return data[start:end]
        tensor = onnx.TensorProto.FromString(_with(data, start, end, RAW_DATA, None))
        if tensor.data_location == tensor.EXTERNAL or num_bytes(tensor) != last - first:
            return data[start:end]  # whoever reads the message will refuse it
        replaced.add(at)
        tensor.ClearField("external_data")
        point_at(tensor, where, str(first), last - first)
        return bytes(tensor.SerializeToString(deterministic=True))

    def graph(data: mmap.mmap, start: int, end: int) -> bytes:
        return _with(data, start, end, INITIALIZER, thin)

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return onnx.load_model_from_string(_with(data, 0, len(data), GRAPH, graph)), replaced


def num_bytes(stored: onnx.TensorProto) -> int | None:
    """Bytes of a tensor's numbers by its type and shape; None where there is no such type."""
    try:
        each = onnx.helper.tensor_dtype_to_np_dtype(stored.data_type).itemsize
    except KeyError:
        return None
    return int(math.prod(stored.dims) * each)


def point_at(stored: onnx.TensorProto, location: str, offset: str, length: int) -> None:
    """Say where a tensor's numbers are."""
    stored.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", str(length))):
        stored.external_data.add(key=key, value=value)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Of each field of a message: its key, where it begins, where its value begins and ends."""
    at = start
    while at < end:
        begin = at
        key, at = _varint(data, at, end)
        kind = key & 7
        if kind == _LENGTH:
            length, at = _varint(data, at, end)
            last = at + length
        elif kind == _VARINT:
            _, last = _varint(data, at, end)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            last = at + (8 if kind == _EIGHT_BYTES else 4)
        else:
            raise ValueError(f"there is no field of kind {kind}")
        if last > end:
            raise ValueError("a field is longer than its message")
        yield key, begin, at, last
        at = last


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number in 7 bits a byte, the lowest first, and where it ends."""
    value = 0
    for place in range(10):
        if at + place >= end:
            break
        byte = data[at + place]
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number is truncated")


def _with(
    data: mmap.mmap, start: int, end: int, number: int, change: Callable[[mmap.mmap, int, int], bytes] | None
) -> bytes:
    """A message's bytes, the values of one of its fields changed; None: left out."""
    pieces, kept = [], start
    for key, begin, first, last in _fields(data, start, end):
        if key == _key(number):
            pieces.append(data[kept:begin])
            if change is not None:
                value = change(data, first, last)
                pieces += [opening(number, len(value)), value]
            kept = last
    return b"".join([*pieces, data[kept:end]])


def opening(number: int, length: int) -> bytes:
    """What is before a value of so many bytes: its key and its length."""
    return _as_varint(_key(number)) + _as_varint(length)


def _key(number: int) -> int:
    """The key of a field that is a message, a string or bytes."""
    return number << 3 | _LENGTH


def _as_varint(value: int) -> bytes:
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
