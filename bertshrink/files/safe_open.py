"""Open a file of somebody else's model: a plain one of its own folder, or a blob of the hub's own cache.

    a plain file                    opened without following a link; its kind is read from what was opened
    a link of a hub cache           snapshots/REVISION/model.onnx -> ../../blobs/HASH, and nowhere else; the blob is
                                    hashed, because its name says what it must hold: a sha256 of 64 digits for large
                                    files, git's sha1 of 40 for small ones
    any other link, a folder, a pipe, a file with a second name (hard link)    refused

A model folder is a thing that people download and publish again: what a link reads into it from elsewhere on the
machine would be published with it. Standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bertshrink.errors import UnsafeModel

MAX_FILE_BYTES = 2**31 - 1
"""Protobuf's cap on one message; bertshrink writes a model and its weights as one."""

_CHUNK = 1 << 20
_HINT = "put the file itself into the model's folder"
_SHA256_DIGITS, _SHA1_DIGITS = 64, 40


@contextmanager
def open_plain(path: Path, *, may_have_other_names: bool = False) -> Iterator[BinaryIO]:
    """Give a file opened for reading, proven to be what this file's opening says.

    Args:
        may_have_other_names: whether a hard link serves; only for files whose content is proven to be a model.

    Raises:
        UnsafeModel: it is missing, no plain file, a link that leads elsewhere, or a blob with other bytes.
    """
    blob = blob_of(path) if path.is_symlink() else None
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(blob or path, flags)
    except OSError as error:
        what = "is missing" if error.errno == errno.ENOENT else f"cannot be read: {error.strerror}"
        raise UnsafeModel(f"`{path.name}` {what}", where=str(path), hint=_HINT) from None
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(about.st_mode) else "not a regular file"
        raise UnsafeModel(f"`{path.name}` is {kind}", where=str(path), hint=_HINT)
    with os.fdopen(handle, "rb") as file:
        if blob is not None:
            _check_blob(file, blob, about.st_size, path)
        elif about.st_nlink > 1 and not may_have_other_names:
            what = f"`{path.name}` has a hard link elsewhere, so it may belong to something else"
            raise UnsafeModel(what, where=str(path), hint="replace it by a copy: `cp FILE COPY && mv COPY FILE`")
        yield file


def copy_plain(path: Path, target: Path) -> None:
    """Copy a file that `open_plain` gives. Raises UnsafeModel: it does not give it."""
    with open_plain(path) as file, target.open("wb") as copy:
        while chunk := file.read(_CHUNK):
            copy.write(chunk)


def blob_of(link: Path) -> Path:
    """The blob that a link of a hub cache's snapshot means. Raises UnsafeModel: the link leads anywhere else."""
    folder = link.parent.resolve()
    target = Path(os.path.normpath(folder / link.readlink()))
    for repository in folder.parents:
        blobs = repository / "blobs"
        if folder.relative_to(repository).parts[0] == "snapshots" and target.parent == blobs:
            if not blobs.is_symlink() and not target.is_symlink():
                return target
            break
    raise UnsafeModel(
        f"`{link.name}` is a link to `{link.readlink()}`; only links of a hub cache to its own blobs are followed",
        where=str(link),
        hint=_HINT,
    )


def _check_blob(file: BinaryIO, blob: Path, num_bytes: int, path: Path) -> None:
    """Prove that a blob holds what its name says, and go back to its beginning."""
    name = blob.name
    digests = {
        _SHA256_DIGITS: hashlib.sha256(),
        _SHA1_DIGITS: hashlib.sha1(f"blob {num_bytes}\0".encode(), usedforsecurity=False),  # as git names its objects
    }
    digest = digests.get(len(name))
    if digest is None:
        raise UnsafeModel(f"`{path.name}` is a link to a blob whose name is not a hash: `{name}`", where=str(path))
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    if digest.hexdigest() != name:
        hint = "delete it from the hub's cache and download it again"
        raise UnsafeModel(f"`{path.name}` does not match the hub's hash", where=str(path), hint=hint)
    file.seek(0)
