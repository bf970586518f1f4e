"""What an artifact's file shows without an engine: bytes, parameters, operations, and its tensors by name.

    a folder       the file that its artifact.json names; else its one model.safetensors, .onnx, .ort or .pte file
    a file         itself; .onnx and .safetensors are read, any other has bytes only

An ONNX file is read in a child process (see `sources.probe`). A folder that bertshrink wrote is checked against its
manifest first, also where the file itself is named. 100 MB take a fraction of a second; compressing them takes seconds,
so that is done only where a rule asks for it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.atomic import is_lfs_pointer, verify
from bertshrink.files.headers import FileFacts, read_safetensors
from bertshrink.files.json_files import read_object
from bertshrink.files.shards import INDEX, WEIGHTS, read_weight_facts, sha256_weights, weight_file, weight_files
from bertshrink.gates.figures.figure import Reading
from bertshrink.gates.limits.metric_key import MetricKey, operator_key
from bertshrink.meters.size import onnx_components
from bertshrink.model.checkpoint_info import ARTIFACT_CARD
from bertshrink.model.folder.layout import engine_files, named_file, sealed_root
from bertshrink.sources.probe_process import read_header_in_subprocess

_READERS = {".onnx": read_header_in_subprocess, ".safetensors": read_safetensors}
_LEVEL = 6
"""zlib's own default, which zip archives have."""
_CHUNK = 1 << 20
SMALL_BYTES = 1024
"""Tensors below this are told as one: shapes and biases explain no growth, and would fill the lock."""


@dataclass(frozen=True)
class Artifact:
    """One file, looked at.

    Attributes:
        file: the artifact's, or the index of a checkpoint's several files.
        sha256: of its bytes; of several files, of their names and sums.
        facts: its header; None for a format that is not read.
        beside: the files that the index names, or those that hold an ONNX file's weights.
    """

    file: Path
    sha256: str
    facts: FileFacts | None = field(repr=False)
    beside: tuple[Path, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Bytes on disk, external data included."""
        return self.facts.num_bytes if self.facts is not None else self.file.stat().st_size

    @cached_property
    def operators(self) -> Mapping[str, int]:
        """How often each operation occurs, by its name without ONNX's own domain: `com.microsoft.QAttention`."""
        counts = self.facts.operators if self.facts is not None else {}
        return {operator_name(op): count for op, count in sorted(counts.items())}

    @cached_property
    def tensors(self) -> Mapping[str, str]:
        """Each large stored tensor as `INT8 384x1536`, and what the small ones take together."""
        stored = self.facts.tensors if self.facts is not None else ()
        return {
            tensor.name: f"{tensor.dtype} {'x'.join(map(str, tensor.shape))} {tensor.num_bytes}"
            for tensor in stored
            if tensor.num_bytes >= SMALL_BYTES
        }

    def readings(self) -> dict[MetricKey, Reading]:
        """Every figure but the compressed size."""
        readings = {MetricKey("size"): Reading(value=self.num_bytes, unit="B")}
        if self.facts is None:
            return readings
        readings[MetricKey("parameters")] = Reading(value=_num_parameters(self.facts), unit="count")
        if self.facts.format == "onnx":
            readings[MetricKey("nodes")] = Reading(value=sum(self.operators.values()), unit="count")
            readings[MetricKey("operators")] = Reading(value=len(self.operators), unit="count")
            for name, count in self.operators.items():
                readings[operator_key(name)] = Reading(value=count, unit="count")
        return readings

    def compressed(self) -> Reading:
        """The bytes that zlib makes of the files; which zlib did it decides the last few of them."""
        packer, total = zlib.compressobj(_LEVEL), 0
        for path in (self.file, *self.beside):
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    total += len(packer.compress(chunk))
        total += len(packer.flush())
        return Reading(value=total, unit="B", engine=f"zlib {zlib.ZLIB_RUNTIME_VERSION}")


def operator_name(op: str) -> str:
    """`:MatMul` as `MatMul`, `com.microsoft:QAttention` as `com.microsoft.QAttention`."""
    return op.removeprefix(":").replace(":", ".")


def look_at(path: Path, place: str) -> Artifact:
    """Read an artifact's header.

    Raises:
        UserError: there is no such artifact.
        UnsafeModel: it is damaged, not what bertshrink wrote, or a pointer of git LFS.
    """
    file = _file_of(path, place)
    reader = _READERS.get(file.suffix)
    try:
        facts: FileFacts | None
        if file.name == INDEX and weight_file(file.parent) == file:
            facts, files = read_weight_facts(file.parent), weight_files(file.parent)
        else:
            facts = reader(file) if reader is not None else None
            files = (file, *(file.with_name(name) for name in (facts.beside if facts is not None else ())))
        return Artifact(file, sha256_weights(files), facts, files[1:])
    except UnsafeModel:
        for beside in sorted(file.parent.iterdir()):  # its data outside of it
            _fetched(beside)
        raise


def _file_of(path: Path, place: str) -> Path:
    if path.is_file():
        _fetched(path)
        if (folder := sealed_root(path)) is not None:
            verify(folder)
        return path
    if not path.is_dir():
        raise UserError(f"there is no artifact at `{path}`", where=place, hint="make it first, or give its path now")
    for inner in sorted(path.rglob("*")):
        _fetched(inner)
    verify(path)
    card = path / ARTIFACT_CARD
    if card.is_file():
        file = named_file(path, read_object(card).get("file"))
        if file is None:
            hint = "restore the folder from where it came, or export the model again"
            raise UnsafeModel(f"`{ARTIFACT_CARD}` names no file of its folder", where=str(card), hint=hint)
        return file
    models = [one for one in (path / WEIGHTS, path / INDEX, *engine_files(path)) if one.is_file()]
    if weight_file(path).name == WEIGHTS:  # what every loader takes where both are there
        models = [model for model in models if model.name != INDEX]
    if len(models) != 1:
        text = (
            "no model file"
            if not models
            else "several model files: " + ", ".join(one.relative_to(path).as_posix() for one in models)
        )
        raise UserError(f"`{path}` holds {text}", where=place, hint="name the file itself")
    return models[0]


def _fetched(file: Path) -> Path:
    """The file, where it is here and not only git LFS's word for it. Raises UnsafeModel: it is a pointer."""
    if is_lfs_pointer(file):
        hint = "fetch it: `git lfs pull`, or `lfs: true` for actions/checkout"
        raise UnsafeModel(
            f"`{file.name}` is a git LFS pointer: the file itself is not here", where=str(file), hint=hint
        )
    return file


def _num_parameters(facts: FileFacts) -> int:
    if facts.format == "onnx":
        return sum(part.num_parameters for part in onnx_components(facts))
    return sum(tensor.num_elements for tensor in facts.tensors if tensor.is_countable)
