"""Private folders for the time of some work, in the system's place for temporary files.

A process that is killed at once leaves its own behind; the next process that makes one clears it away. That it is dead
is told by a lock, which the system lets go of when a process ends: numbers of processes come again, and say nothing
across containers.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_PREFIX = "bertshrink-work-"
_LOCK = ".held"


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
