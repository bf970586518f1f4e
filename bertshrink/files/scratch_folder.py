"""Private folders for the time of some work, in the system's place for temporary files.

A process that is killed at once leaves its own behind; the next process that makes one clears it away. That it is dead
is told by a lock, which the system lets go of when a process ends: numbers of processes come again, and say nothing
across containers.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_PREFIX = "bertshrink-work-"
_LOCK = ".held"
_OF_PROCESS: set[Path] = set()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a private folder (0700), which is gone when the block ends."""
    folder, release = make_scratch()
    try:
        yield folder
    finally:
        release.close()


def make_scratch() -> tuple[Path, contextlib.ExitStack]:
    """A private folder, and what removes it when it is closed."""
    from filelock import FileLock

    _sweep()
    release = contextlib.ExitStack()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    release.callback(shutil.rmtree, folder, ignore_errors=True)
    release.enter_context(FileLock(folder / _LOCK, is_singleton=False, thread_local=False))
    inside = folder / "work"  # empty, as a private folder is expected to be
    inside.mkdir(mode=0o700)
    return inside, release


def folder_of_process() -> Path:
    """A new private folder, which is gone when the process ends."""
    folder = Path(tempfile.mkdtemp(dir=_shelf(os.getpid())))
    _OF_PROCESS.add(folder)
    return folder


def is_of_process(folder: Path) -> bool:
    """Whether `folder_of_process` made it: what is in it was put there by this process."""
    return folder in _OF_PROCESS


@cache
def _shelf(owner: int) -> Path:
    shelf, release = make_scratch()

    def clear() -> None:
        if os.getpid() == owner:  # not a process forked from this one
            release.close()

    atexit.register(clear)
    return shelf


@cache
def _sweep() -> None:
    """Clear what killed processes have left; once a process."""
    from filelock import FileLock, Timeout

    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # One that is just being made has no lock yet, one of another user cannot be asked: both stay.
        with contextlib.suppress(Timeout, OSError):
            if (left / _LOCK).is_file() and not left.is_symlink():
                with FileLock(left / _LOCK, timeout=0, is_singleton=False):
                    shutil.rmtree(left, ignore_errors=True)
