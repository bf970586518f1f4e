"""stdout and stderr as the program writes them: a result that cannot be printed is never a success.

stdout   a full disk (ENOSPC, and whatever else the system says, also when it only says so at the end, as NFS does) is
         an `OutputError`; a reader that went away (`| head`) is remembered, and what it would not read is dropped
stderr   carries progress and messages: where it takes none, the work goes on without

What the exit code is after the reader went is decided by where the result is. A model in a folder, a report in the run
folder or a gate's verdict is, read or not: the code is the one that it would have been. Where the result was the
print alone (`inspect`, `doctor`, `--help`), it is 128+13, as of any program that SIGPIPE ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

from bertshrink.errors import OutputError

READER_GONE = 128 + 13
_GONE = (errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET)


class _Stream:
    """A text stream under our own rules for what it refuses; whatever else is asked of it is the stream's own."""

    def __init__(self, stream: Any, *, is_result: bool) -> None:
        self._stream, self._is_result = stream, is_result
        self.is_gone = False
        self.stands = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if text == "":  # how libraries ask what a stream is: unbuffered, it is written, and they drop what went wrong
            return 0
        with self._told():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._told():
            self._stream.flush()

    def finish(self) -> None:
        """Write down all that is still held here, and have the system say what it has not said yet."""
        with self._told():
            self._stream.flush()
            handle = _handle(self._stream)
            if handle is not None:
                os.close(os.dup(handle))  # some file systems tell only at a close that there was no room

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            is_heard = self._is_result and not self.is_gone and error.errno not in _GONE
            self._drop()
            if is_heard:
                raise OutputError(
                    f"cannot print: {error.strerror or error}",
                    where="stdout",
                    hint="free some space, or print elsewhere; what was made before is kept",
                ) from error

    def _drop(self) -> None:
        """Send what is still held and all that follows nowhere, so that Python's own end does not trip over it."""
        self.is_gone = True
        handle = _handle(self._stream)
        if handle is not None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, handle)
            os.close(nowhere)


def result_stands() -> None:
    """Say that this command's result is more than what it prints: a reader that goes away changes nothing about it."""
    if isinstance(sys.stdout, _Stream):
        sys.stdout.stands = True


class Streams:
    """Both streams under these rules, while it is open."""

    def __enter__(self) -> Streams:
        self._before = sys.stdout, sys.stderr
        self.stdout = _Stream(sys.stdout, is_result=True) if sys.stdout is not None else None
        for stream in filter(None, self._before):
            if hasattr(stream, "reconfigure") and not str(stream.encoding).lower().startswith("utf"):
                stream.reconfigure(errors="replace")  # `≥` on a terminal that has no such letter is not a failure
        if self.stdout is not None:
            sys.stdout = self.stdout
        if sys.stderr is not None:
            sys.stderr = _Stream(sys.stderr, is_result=False)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._before

    def code(self, code: int) -> int:
        """The exit code of a command that would have ended with `code`, by what became of its output.

        Raises:
            OutputError: the end of it could not be printed.
        """
        if self.stdout is None:
            return code
        self.stdout.finish()
        return READER_GONE if self.stdout.is_gone and not self.stdout.stands and code == 0 else code


def _handle(stream: Any) -> int | None:
    """The file descriptor of the process's own stream; None of one that something else put in its place."""
    try:
        handle = int(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return None
    return handle if handle in (1, 2) else None
