"""Folders that appear whole or not at all, and know when a bit of them has changed.

A folder is written under a hidden name beside its place, synced, sealed with `MANIFEST.json` (sha256 and bytes of every
file), and renamed into place; the parent folder is synced last. Nothing that was there before is touched until then.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bertshrink.errors import OutputError, UnsafeModel, UserError
from bertshrink.files.bounded_text import Reader, open_regular

MANIFEST = "MANIFEST.json"
MODEL_CARD = "README.md"
_CHUNK = 1 << 20
_LONGEST_PID = 1 << 22
"""Linux numbers no process higher (PID_MAX_LIMIT)."""
_PATIENCE_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Between tries to move what is open elsewhere."""
LFS_POINTER = "version https://git-lfs.github.com/spec/"
"""How a file begins that stands for another one until `git lfs pull`."""
_LFS_BYTES = 1024
"""More than any pointer has."""
READ_BY_LOADERS = (
    *(".json", ".txt", ".model", ".safetensors", ".jinja", ".bin"),
    *(".onnx", ".onnx_data", ".ort", ".pte"),
)
"""The endings of files that transformers and engines look for in a model's folder."""
_SEAL = Reader(
    UnsafeModel, "the manifest is unreadable", "restore it from where it came, or delete the folder and make it again"
)


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return _sha256(file)


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file only stands for the one that git LFS has not fetched."""
    if not path.is_file() or path.stat().st_size > _LFS_BYTES:
        return False
    return path.read_bytes().startswith(LFS_POINTER.encode())


def fsync(path: Path) -> None:
    """Have the operating system write a file or folder down.

    Windows knows no such thing of folders, and syncs a file only through a handle that may write.
    """
    is_windows = os.name == "nt"
    if is_windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move(source: Path, target: Path) -> None:
    """Give a file or folder its place on the same disk; a file that was there gives way at once.

    Windows moves nothing that another program has open, such as a scanner that looks at every new file: there it is
    tried for some seconds.
    """
    for wait_s in _PATIENCE_S if os.name == "nt" else ():
        try:
            source.replace(target)
            return
        except PermissionError:
            time.sleep(wait_s)
    source.replace(target)


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is there whole or as it was before.

    Raises:
        OutputError: the disk is full or the place is not writable.
    """
    scratch = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with output_errors(path):
        sweep(path)
        try:
            scratch.write_text(text, encoding="utf-8")
            fsync(scratch)
            move(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write below `path` into an `OutputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write `{path}`: {reason}", hint="free some space, or choose another place"
        ) from error


def check_name(path: Path) -> None:
    """Prove that the system takes a file or folder of this name, and the hidden one that replaces it meanwhile.

    Raises:
        UserError: it is too long, or no name at all.
    """
    for one in (path, path.with_name(f".{path.name}.tmp-{_LONGEST_PID}") if path.name else path):
        try:
            os.lstat(one)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
                continue
            told = f"{path.name[:40]}..." if len(path.name) > 40 else path.name
            reason = "is too long" if isinstance(error, OSError) else f"is none: {error}"
            raise UserError(f"the name `{told}` {reason}", hint="give a shorter one") from None


def seal(folder: Path) -> dict[str, dict[str, object]]:
    """Write the manifest of a folder and sync every file in it; returns the manifest's entries.

    The model card is left out of it: people are meant to edit that.
    """
    umask = os.umask(0)
    os.umask(umask)
    entries: dict[str, dict[str, object]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        is_program = path.stat().st_mode & 0o100
        path.chmod((0o777 if is_program else 0o666) & ~umask)  # safetensors leaves 0600, which a server could not read
        if path.name == MODEL_CARD:
            continue
        entries[path.relative_to(folder).as_posix()] = _entry_of(path)
        fsync(path)
    (folder / MANIFEST).write_text(_manifest(entries), encoding="utf-8")
    fsync(folder / MANIFEST)
    return entries


def verify(folder: Path) -> bool:
    """Check a folder against its manifest.

    Returns:
        False when it has none (bertshrink did not write it).

    Raises:
        UnsafeModel: the manifest is unreadable, a file of it is missing, is not a plain file or has other bytes, or a
            file was added that those who load the folder would read.
    """
    if not os.path.lexists(folder / MANIFEST):
        return False
    expected = _entries(folder)
    for name, (digest, num_bytes) in expected.items():
        path = folder / name
        if not os.path.lexists(path):
            what = f"`{name}` is missing, though the manifest lists it"
            raise UnsafeModel(what, where=str(folder), hint=_SEAL.hint)
        try:
            with open_regular(path) as file:
                is_same = os.fstat(file.fileno()).st_size == num_bytes and _sha256(file) == digest
        except OSError as error:
            what = f"`{name}` has changed since bertshrink wrote it: {error.strerror}"
            raise UnsafeModel(what, where=str(path), hint=_SEAL.hint) from None
        if not is_same:
            what = f"`{name}` has changed since bertshrink wrote it"
            raise UnsafeModel(what, where=str(path), hint=_SEAL.hint)
    for path in (*folder.glob("*"), *folder.glob("*_*/*"), *folder.glob("onnx/*")):
        name = path.relative_to(folder).as_posix()
        if name not in expected and path.suffix in READ_BY_LOADERS and name not in (MANIFEST, "report.json"):
            what = f"`{name}` was added after bertshrink wrote the folder, and could change the model's outputs"
            raise UnsafeModel(what, where=str(path), hint="remove it, or create the folder again")
    return True


def is_sealed(folder: Path, names: Iterable[str]) -> bool:
    """Whether a folder has a manifest that lists these files, which `verify` then answers for.

    Raises:
        UnsafeModel: the manifest is unreadable.
    """
    if not os.path.lexists(folder / MANIFEST):
        return False
    entries = _entries(folder)
    return all(name in entries for name in names)


def _entries(folder: Path) -> dict[str, tuple[str, int]]:
    """Name -> sha256 and bytes, as a manifest has them. Raises UnsafeModel: it lists what no folder can hold."""
    path = folder / MANIFEST
    manifest = _SEAL.read_json(path)
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict):
        raise UnsafeModel(_SEAL.fault, where=str(path), hint=_SEAL.hint)
    entries: dict[str, tuple[str, int]] = {}
    for name, entry in listed.items():
        digest, num_bytes = (entry.get("sha256"), entry.get("bytes")) if isinstance(entry, dict) else (None, None)
        parts = name.split("/")
        is_inside = not {"", ".", ".."} & set(parts) and "\\" not in name and all(len(part) < 256 for part in parts)
        if not (is_inside and isinstance(digest, str) and isinstance(num_bytes, int)):
            raise UnsafeModel(
                f"{_SEAL.fault}: its entry `{name[:100]}` has no path, hash or size", where=str(path), hint=_SEAL.hint
            )
        entries[name] = digest, num_bytes
    return entries


def amend(folder: Path, texts: Mapping[str, str]) -> None:
    """Write small files again in a sealed folder, of which the manifest tells the truth at every moment.

    They leave the manifest first and enter it last: whenever this is stopped, what the manifest lists is as it says.

    Raises:
        OutputError: the disk is full or the place is not writable.
    """
    manifest = folder / MANIFEST
    listed = _entries(folder).items()
    kept = {name: _entry(digest, num_bytes) for name, (digest, num_bytes) in listed if name not in texts}
    write_text(manifest, _manifest(kept))
    for name, text in texts.items():
        write_text(folder / name, text)
        if name != MODEL_CARD:
            kept[name] = _entry_of(folder / name)
    write_text(manifest, _manifest(kept))


def _manifest(entries: Mapping[str, Mapping[str, object]]) -> str:
    return json.dumps({"schema": "bertshrink.manifest/1", "files": entries}, indent=1, sort_keys=True) + "\n"


def _entry_of(path: Path) -> dict[str, object]:
    return _entry(sha256_file(path), path.stat().st_size)


def _entry(digest: str, num_bytes: int) -> dict[str, object]:
    return {"sha256": digest, "bytes": num_bytes}


def refuse_taken(target: Path, *, replace: bool) -> None:
    """Prove that a folder may appear at `target`.

    Only what bertshrink wrote (it has a manifest) or an empty folder is ever replaced: a slip in a path must not cost
    somebody's work.

    Raises:
        UserError: something is there, and it must not give way.
    """
    is_folder = target.is_dir() and not target.is_symlink() and target.name not in ("", "..")
    if not os.path.lexists(target) or (is_folder and not any(target.iterdir())):
        return
    if not replace:
        raise UserError(
            f"`{target}` already exists",
            where="-o",
            hint="choose another place, or replace it with `--force`",
        )
    if not is_folder or not (target / MANIFEST).is_file():
        raise UserError(
            f"`{target}` is not a folder that bertshrink wrote, so it is not replaced",
            where="-o",
            hint="choose another place, or remove it yourself",
        )


@contextmanager
def new_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a scratch folder that becomes `target`, sealed, when the block ends well, and vanishes when it does not.

    Args:
        replace: whether a folder already there gives way (it is moved aside first and deleted last).

    Raises:
        OutputError: the disk is full or the place is not writable.
    """
    scratch = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    aside = target.with_name(f".{target.name}.old-{os.getpid()}")
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target)
        scratch.mkdir()
        try:
            yield scratch
            seal(scratch)
            fsync(scratch)
            if replace and target.exists():
                move(target, aside)
            move(scratch, target)
            fsync(target.parent)
        except BaseException:
            if aside.exists() and not target.exists():
                move(aside, target)
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.rmtree(aside, ignore_errors=True)


def sweep(target: Path) -> None:
    """Clear what killed processes left beside `target`; an old folder without its successor is put back."""
    for left in target.parent.glob(f".{target.name}.*-*"):
        kind, _, pid = left.name.rpartition(".")[2].partition("-")
        if kind not in ("tmp", "old") or not pid.isdigit() or _is_running(int(pid)):
            continue
        if kind == "old" and not target.exists():
            move(left, target)
        elif left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    """Whether another process has this number. `os.kill(pid, 0)` would ask it on POSIX, and end it on Windows."""
    import psutil

    return pid != os.getpid() and psutil.pid_exists(pid)
