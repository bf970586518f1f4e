"""Teacher outputs computed once: a memory-mapped store that later epochs, runs and other students read.

One file, `rows.bin`, holds one record per training row, at a place that is known before anything is computed, since a
row's length in tokens is known:

    crc32 (4 bytes) | outputs of the row | outputs of its tokens | hidden states of its tokens (L, S, H)

Hidden states and outputs per token are float16, outputs per row float32. With `top_k`, outputs are the k largest logits
(float16), their numbers, and the log-sum-exp of all others, which are given back as one equal value: the probabilities
of the k stay as they were, the rest of the mass is spread evenly (at a temperature other than 1 that spread is
an approximation).

A record is filled the first time its row comes by, so filling takes no pass of its own. It counts only when its
checksum is right, which is looked at once per process: a torn or garbled record, or one that two processes wrote at
once, is made again. Several processes share one file without a lock for the same reason.

The folder's name is a digest of everything that decides the content: the teacher's weights, the token ids of all rows,
what is stored and how. Whatever changes one of them names another folder.

Left out: attentions, queries, keys and values (their size), and inputs that change in every epoch (dynamic masking).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bertshrink.errors import CheckFailed, OutputError
from bertshrink.files.atomic import output_errors, write_text
from bertshrink.techniques.distill.teacher import Answers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bertshrink.techniques.distill.teacher import LiveTeacher, Wanted

VERSION = 1
ROWS, META = "rows.bin", "meta.json"
_CRC_BYTES = 4
_PRESENT = 0x5BD1E995
"""Mixed into every checksum, so that the zeros of a record never written are not valid one."""


@dataclass(frozen=True)
class Layout:
    """Where everything of a record is.

    Attributes:
        widths: output name -> values per row, or per token.
        per_token: whether outputs have a length axis.
        num_states: hidden states stored, S.
        hidden_size: H.
        top_k: outputs kept of each `widths`; None: all of them.
    """

    widths: dict[str, int]
    per_token: bool
    num_states: int
    hidden_size: int
    top_k: int | None = None

    def output_bytes(self, name: str) -> int:
        """Bytes of one row's (or token's) values of an output."""
        width = self.widths[name]
        if self.top_k is None or width <= self.top_k:
            return width * (2 if self.per_token else 4)
        return self.top_k * (2 + _number_type(width).itemsize) + 4

    def sizes(self, lengths_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of each row's record, checksum included."""
        outputs = sum(self.output_bytes(name) for name in self.widths)
        token = 2 * self.num_states * self.hidden_size + (outputs if self.per_token else 0)
        return _CRC_BYTES + (0 if self.per_token else outputs) + lengths_N * token


class CachedTeacher:
    """A teacher that answers from the store, and asks the living one only for rows that are not in it yet.

    Args:
        live: the teacher.
        wanted: what the objective reads of it.
        rows: the training rows, in the order of their numbers.
        per_token: whether the task's outputs have a length axis.
        root: the folder of all caches.
        conditions: whatever else decides its answers (arithmetic, pooling), as JSON values, for the key.
        top_k: keep so many of each output's values; None: all.

    Raises:
        OutputError: the disk has no room for it, or is not writable.
    """

    def __init__(
        self,
        live: LiveTeacher,
        wanted: Wanted,
        rows: Sequence[dict[str, list[int]]],
        *,
        per_token: bool,
        root: Path,
        conditions: dict[str, Any],
        top_k: int | None = None,
    ) -> None:
        self.live = live
        self.wanted = wanted
        self.per_token = per_token
        self.top_k = top_k
        self.lengths_N = np.array([len(row["input_ids"]) for row in rows], dtype=np.int64)
        self.states = tuple(sorted(wanted.states))
        asked = {"version": VERSION, "wanted": asdict(wanted), "top_k": top_k, "conditions": conditions}
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
        key.update(str(live.module.config.to_json_string(use_diff=False)).encode())
        key.update(_digest_of_weights(live.module))
        key.update(_digest_of_weights(live.layers) if len(live.layers) else b"")
        key.update(_digest_of_rows(rows))
        self.folder = root / key.hexdigest()[:24]
        self.rebuilt: str | None = None
        self.num_computed = 0
        self.layout: Layout | None = None
        self.file = -1
        self.checked_N = np.zeros(len(rows), dtype=bool)
        with output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        layout = self._read_meta()
        if layout is not None:
            self._open(layout)

    @property
    def module(self) -> torch.nn.Module:
        """The living teacher's model."""
        return self.live.module  # type: ignore[no-any-return]

    @property
    def num_bytes(self) -> int:
        """Size of the whole store once every row is in it; 0 before the first answer tells the shapes."""
        return int(self.starts_N1[-1]) if self.layout is not None else 0

    def __deepcopy__(self, memo: object) -> CachedTeacher:
        """Itself: it is frozen, and large."""
        return self

    def __call__(self, inputs: dict[str, Tensor], rows_B: Tensor | None) -> Answers:
        """The teacher's answers to a batch: as `LiveTeacher`, hidden states zero at padding."""
        if rows_B is None:
            return self.live(inputs, None)
        numbers = rows_B.tolist()
        missing = [at for at, row in enumerate(numbers) if not self._is_present(row)]
        if missing:
            self._fill(inputs, numbers, missing)
        return self._read(numbers, inputs["input_ids"])

    def close(self) -> None:
        """Let go of the file."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def _is_present(self, row: int) -> bool:
        """Whether a row's record is there and whole; looked at once."""
        if self.checked_N[row]:
            return True
        if self.layout is None:
            return False
        record = self._record(row)
        self.checked_N[row] = _checksum(record[_CRC_BYTES:]) == int.from_bytes(record[:_CRC_BYTES].tobytes(), "little")
        return bool(self.checked_N[row])

    def _fill(self, inputs: dict[str, Tensor], numbers: list[int], missing: list[int]) -> None:
        at = torch.tensor(missing, device=inputs["input_ids"].device)
        whole = len(missing) == len(numbers)
        given = inputs if whole else {name: value.index_select(0, at) for name, value in inputs.items()}
        answers = self.live(given, None)
        layout = self._layout_of(answers)
        if layout != self.layout:
            if self.layout is not None:
                self.rebuilt = f"`{self.folder / META}` does not match the teacher: its cache is built again"
                self.checked_N[:] = False
            write_text(self.folder / META, json.dumps(asdict(layout), sort_keys=True) + "\n")
            self._open(layout)
        outputs = {name: value.float().cpu().numpy() for name, value in answers.outputs.items()}
        states = [answers.states[number].cpu().float().numpy() for number in self.states]
        for i, where in enumerate(missing):
            self._write(numbers[where], {name: value[i] for name, value in outputs.items()}, [s[i] for s in states])
        self.num_computed += len(missing)

    def _write(self, row: int, outputs: dict[str, NDArray[Any]], states: list[NDArray[Any]]) -> None:
        assert self.layout is not None
        length = int(self.lengths_N[row])
        parts = []
        for name in self.layout.widths:
            value = outputs[name][:length] if self.per_token else outputs[name]
            parts.append(self._pack(name, value))
        if states:
            parts.append(_half(np.stack([s[:length] for s in states], axis=1)).tobytes())
        payload = b"".join(parts)
        with output_errors(self.folder):
            os.pwrite(self.file, _checksum(payload).to_bytes(_CRC_BYTES, "little") + payload, int(self.starts_N1[row]))
        self.checked_N[row] = True

    def _pack(self, name: str, value: NDArray[Any]) -> bytes:
        """(C,) or (L, C) outputs as they are in a record."""
        assert self.layout is not None
        width = self.layout.widths[name]
        if not self._is_sparse(name):
            return _half(value).tobytes() if self.per_token else value.astype(np.float32).tobytes()
        rows_MC, top_k = value.reshape(-1, width).astype(np.float32), self.layout.top_k or 0
        chosen_MK = np.argpartition(-rows_MC, top_k, axis=1)[:, :top_k]
        kept_MK = np.take_along_axis(rows_MC, chosen_MK, axis=1)
        others_MC = rows_MC.copy()
        np.put_along_axis(others_MC, chosen_MK, -np.inf, axis=1)
        rest_M = np.logaddexp.reduce(others_MC, axis=1).astype(np.float32)
        numbers_MK = chosen_MK.astype(_number_type(width))
        return b"".join((_half(kept_MK).tobytes(), numbers_MK.tobytes(), rest_M.tobytes()))

    def _unpack(self, name: str, data: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
        """(M, C) float32 of `count` rows or tokens: the inverse of `_pack`."""
        assert self.layout is not None
        width = self.layout.widths[name]
        if not self._is_sparse(name):
            kind: Any = np.float16 if self.per_token else np.float32
            return np.frombuffer(data.tobytes(), kind).reshape(count, width).astype(np.float32)
        top_k = self.layout.top_k or 0
        number, raw = _number_type(width), data.tobytes()
        kept_MK = np.frombuffer(raw, np.float16, count * top_k).reshape(count, top_k)
        at = 2 * count * top_k
        chosen_MK = np.frombuffer(raw, number, count * top_k, at).reshape(count, top_k).astype(np.int64)
        rest_M = np.frombuffer(raw, np.float32, count, at + number.itemsize * count * top_k)
        logits_MC = np.repeat((rest_M - np.log(width - top_k))[:, None], width, axis=1).astype(np.float32)
        np.put_along_axis(logits_MC, chosen_MK, kept_MK.astype(np.float32), axis=1)
        return logits_MC

    def _is_sparse(self, name: str) -> bool:
        assert self.layout is not None
        return self.layout.top_k is not None and self.layout.widths[name] > self.layout.top_k

    def _read(self, numbers: list[int], ids_BL: Tensor) -> Answers:
        """Answers of rows that are all in the store, padded to the batch's length."""
        layout = self.layout
        assert layout is not None
        batch, longest = ids_BL.shape
        states_BLSH = torch.zeros(batch, longest, layout.num_states, layout.hidden_size, dtype=torch.float16)
        outputs: dict[str, list[NDArray[np.float32]]] = {name: [] for name in layout.widths}
        for i, row in enumerate(numbers):
            record, length, at = self._record(row), int(self.lengths_N[row]), _CRC_BYTES
            count = length if self.per_token else 1
            for name in layout.widths:
                end = at + count * layout.output_bytes(name)
                outputs[name].append(self._unpack(name, record[at:end], count))
                at = end
            if layout.num_states:
                block = np.frombuffer(record[at:].tobytes(), np.float16)
                states_BLSH[i, :length] = torch.from_numpy(
                    block.reshape(length, layout.num_states, layout.hidden_size).copy()
                )
        device = ids_BL.device
        states_BLSH = states_BLSH.to(device, non_blocking=True).float()
        return Answers(
            outputs={name: self._padded(values, longest).to(device) for name, values in outputs.items()},
            states={number: states_BLSH[:, :, s] for s, number in enumerate(self.states)},
        )

    def _padded(self, values: list[NDArray[np.float32]], longest: int) -> Tensor:
        """(B, C) outputs of rows, or (B, L, C) of tokens; (B, L) where an output has one value a token."""
        if not self.per_token:
            return torch.from_numpy(np.concatenate(values))
        padded_BLC = np.zeros((len(values), longest, values[0].shape[1]), dtype=np.float32)
        for i, value in enumerate(values):
            padded_BLC[i, : len(value)] = value
        return torch.from_numpy(padded_BLC if padded_BLC.shape[2] > 1 else padded_BLC[:, :, 0])

    def _record(self, row: int) -> NDArray[np.uint8]:
        record: NDArray[np.uint8] = self.mapped[self.starts_N1[row] : self.starts_N1[row + 1]]
        return record

    def _layout_of(self, answers: Answers) -> Layout:
        first = next(iter(answers.states.values()), None)
        return Layout(
            widths={name: _width(value, self.per_token) for name, value in sorted(answers.outputs.items())},
            per_token=self.per_token,
            num_states=len(self.states),
            hidden_size=int(first.shape[-1]) if first is not None else 0,
            top_k=self.top_k,
        )

    def _open(self, layout: Layout) -> None:
        """Map the file, made as long as it will be; holes in it take no room on the disk until they are written."""
        self.starts_N1 = np.concatenate([[0], np.cumsum(layout.sizes(self.lengths_N))])
        size, path = int(self.starts_N1[-1]), self.folder / ROWS
        self.close()
        with output_errors(path):
            self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            now = os.fstat(self.file)
            if now.st_size not in (0, size):
                self.rebuilt = f"the teacher cache had {now.st_size} bytes instead of {size} and is built again"
            free = shutil.disk_usage(self.folder).free
            if size - now.st_blocks * 512 > free:
                raise OutputError(
                    f"the teacher cache needs {size / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free",
                    where=str(self.folder),
                    hint="free some space, or leave `teacher_cache` out",
                )
            os.ftruncate(self.file, size)
        self.mapped = np.memmap(path, dtype=np.uint8, mode="r", shape=(size,))
        self.layout = layout

    def _read_meta(self) -> Layout | None:
        """The layout of a store that is there; None when there is none, or none that can be read."""
        path = self.folder / META
        if not path.is_file():
            return None
        try:
            layout = Layout(**json.loads(path.read_text(encoding="utf-8")))
            layout.sizes(self.lengths_N)
        except (ValueError, TypeError, AttributeError):
            self.rebuilt = f"`{path}` could not be read: the teacher cache is built again"
            return None
        return layout


def _width(value: Tensor, per_token: bool) -> int:
    """Values of an output for each row (B, C), or for each token (B, L) or (B, L, C)."""
    if per_token:
        return int(value.shape[2]) if value.ndim == 3 else 1
    return int(value.shape[1])


def _number_type(width: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if width <= 1 << 16 else np.uint32)


def _half(value: NDArray[Any]) -> NDArray[np.float16]:
    """Values as float16. Raises CheckFailed: one of them is not finite, or is larger than float16 can hold (65504)."""
    with np.errstate(over="ignore"):
        half = value.astype(np.float16)
    if not np.isfinite(half).all():
        raise CheckFailed(
            "an answer of the teacher is not finite or is larger than 65504, which the teacher cache cannot keep",
            hint="leave `teacher_cache` out",
        )
    return half


def _checksum(data: Any) -> int:
    return zlib.crc32(data) ^ _PRESENT


def _digest_of_weights(module: torch.nn.Module) -> bytes:
    """The sha256 of every weight's name, kind and bytes: two teachers of one name are two teachers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.digest()


def _digest_of_rows(rows: Sequence[dict[str, list[int]]]) -> bytes:
    """The sha256 of all inputs of all rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        for name in sorted(row):
            digest.update(f"{name}{len(row[name])}".encode())
            digest.update(np.asarray(row[name], dtype=np.int64).data)
    return digest.digest()


def note_of(teacher: CachedTeacher) -> list[str]:
    """What a finished training says of the store, one sentence each."""
    filled = (
        f"teacher cache `{teacher.folder.name}`: {teacher.num_computed} of {len(teacher.lengths_N)} rows were "
        f"computed in this run, {teacher.num_bytes / 1000000.0:.0f} MB"
    )
    return [teacher.rebuilt, filled] if teacher.rebuilt else [filled]
