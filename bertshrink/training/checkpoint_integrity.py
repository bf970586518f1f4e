"""Checkpoints that count only when every byte of them is right."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bertshrink.errors import OutputError, UnsafeModel
from bertshrink.files.atomic import MANIFEST, verify

CHECKPOINTS = "checkpoints"


def step_of(folder: Path) -> int:
    """The step that a checkpoint's folder is named after."""
    return int(folder.name.rpartition("-")[2])


def newest_checkpoint(folder: Path, *, delete: bool = True) -> Path | None:
    """The newest checkpoint whose manifest holds.

    Args:
        delete: whether newer ones, which do not count, are deleted (one process must, several must not).
    """
    for path in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        if is_whole(path):
            return path
        if delete:
            shutil.rmtree(path)
    return None


def is_whole(path: Path) -> bool:
    """Whether a folder is sealed and as it was then."""
    try:
        return (path / MANIFEST).is_file() and verify(path)
    except UnsafeModel:
        return False


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """A full disk as `torch.save` tells it: a RuntimeError of its zip writer."""
    try:
        yield
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        raise OutputError(f"cannot write a checkpoint below `{folder}`", hint="free some space, then go on") from error
