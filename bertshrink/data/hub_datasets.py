"""Data sets of the hub, through `datasets`, which keeps them in its cache (`HF_HOME`)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bertshrink.errors import MissingDependency, OutputError
from bertshrink.files.hub import hub_is_reachable

_NO_ROOM = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR)


def load_hub(name: str, **options: Any) -> Any:
    """What `datasets.load_dataset` gives for a name: `owner/data`, or `owner/data/configuration`.

    Raises:
        MissingDependency: the hub has no such dataset, or cannot be reached.
        OutputError: the cache of `datasets` is full or cannot be written.
    """
    hub_is_reachable()
    reason = ""
    repo, _, config = name.rpartition("/")
    for where in ((name,), (repo, config)) if repo else ((name,),):
        try:
            import datasets

            with quiet_datasets():
                return datasets.load_dataset(*where, **options)
        except Exception as error:  # offline, unknown and gated each come as another kind
            _no_room(error)
            reason = reason or next(iter(str(error).splitlines()), type(error).__name__)
    raise MissingDependency(
        f"`{name}` is not a local path, and the hub does not provide it as a dataset: {reason}",
        hint="give a local file or folder with `--data`, or `builtin:pydoc`",
    )


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Have `datasets` draw no bars meanwhile."""
    import datasets

    has_bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if has_bars:
            datasets.enable_progress_bars()


def _no_room(error: BaseException | None) -> None:
    """Tell a cache that cannot be written from a dataset that is not there."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            place = f" `{error.filename}`" if error.filename else ""
            raise OutputError(
                f"the cache of datasets{place} cannot be written: {error.strerror}",
                hint="free some space, or move it: HF_HOME=FOLDER",
            ) from error
        error = error.__cause__ or error.__context__
