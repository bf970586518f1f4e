"""One connection by the user's own `ssh`, and the keeper at its end (`worker.supervisor`), which lives as long as it
does.

`ssh` is told to ask nothing (BatchMode: without a key that works it fails at once), to notice a dead line within 45 s,
and to become nobody's master connection; all else is the user's configuration. One connection serves all rounds, so no
round pays for a handshake. The remote command has no character that any shell reads differently; the keeper's source
follows on stdin. Whatever a shell there prints before the keeper's greeting is passed over.

While a worker runs over there, this process sleeps in the kernel.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertshrink.errors import MeasurementError, MissingDependency
from bertshrink.files.atomic import sha256_file
from bertshrink.meters.latency.worker_result import MAX_RESULT_BYTES
from bertshrink.meters.targets.host import PASSED_ON
from bertshrink.meters.targets.ssh.address import Address
from bertshrink.meters.targets.ssh.errors import OLD, broken, not_written, refused
from bertshrink.meters.targets.worker_process import WorkerExit
from bertshrink.worker import supervisor

_OPTIONS = (
    *("-T", "-o", "BatchMode=yes", "-o", "ControlMaster=no"),
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"),
)
ANSWER_S = 60
"""What a machine takes at most to let us in and start Python, or to end a worker whose time is up."""

_STORE_S = 600
_GOODBYE_S = 10
_CHUNK_BYTES = 1 << 20
_LONGEST_GREETING_BYTES = 1 << 16
_LONGEST_ANSWER_BYTES = 1 << 16


class SshConnection:
    """Connects; to be closed.

    Attributes:
        about: what the keeper says of the place: `folder`, `python`, `version`, `bits`, `machine`, `board`,
            `firmware`.

    Raises:
        MissingDependency: no ssh here, no way there, or no Python that serves.
        OutputError: no private folder can be made there.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        program = shutil.which("ssh")
        if program is None:
            raise MissingDependency(
                "`ssh` is not installed here", where=f"ssh://{address}", hint="install OpenSSH's client"
            )
        source = Path(supervisor.__file__).read_bytes() + f"\nserve({address.folder!r}, {MAX_RESULT_BYTES})\n".encode()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the connection
        self._process = subprocess.Popen(
            [program, *_OPTIONS, *address.words, _remote_command(address.python, len(source))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for this process; closing the connection is the end of that one
        )
        self._come = b""
        try:
            with contextlib.suppress(BrokenPipeError):
                self._write(source)
            self.about = self._greeting()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it: the keeper removes its folder."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            self._log.close()

    def put(self, name: str, data: bytes | Path, tell: Callable[[int], object] = lambda num_bytes: None) -> str:
        """Send a file, or bytes as a file; its path over there.

        Args:
            name: its path within the private folder.
            tell: is told how many bytes went, again and again.

        Raises:
            OutputError: the disk there is full, or nothing can be written.
            MissingDependency: the connection broke.
            MeasurementError: other bytes arrived.
        """
        num_bytes = len(data) if isinstance(data, bytes) else data.stat().st_size
        digest = hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else sha256_file(data)
        answer = self._order({"do": "put", "name": name, "num_bytes": num_bytes, "sha256": digest})
        if answer.get("ready"):
            if isinstance(data, bytes):
                self._give(data)
                tell(num_bytes)
            else:
                with data.open("rb") as file:
                    while chunk := file.read(_CHUNK_BYTES):
                        self._give(chunk)
                        tell(len(chunk))
            answer = self._answer(_STORE_S)
        if not answer.get("done"):
            raise not_written(self.address, name, num_bytes, answer)
        return f"{self.about['folder']}/{name}"

    def run(
        self, command: Sequence[str | None], jobs: Sequence[str], fixed: Mapping[str, str], timeout_s: float
    ) -> list[WorkerExit]:
        """Run a program there, once for each job, in turns, and wait for it, asleep.

        Args:
            command: its words; None stands for the Python there.
            jobs: the stdin of each.
            fixed: environment variables besides the few that are passed on there.

        Raises:
            MissingDependency: the connection broke.
            MeasurementError: the machine no longer answers, or not with an answer.
        """
        order = {"do": "run", "command": list(command), "jobs": list(jobs), "passed_on": PASSED_ON}
        answer = self._order(order | {"fixed": dict(fixed), "timeout": timeout_s}, timeout_s + ANSWER_S)
        try:
            told = [
                (one["code"], str(one["log"]), int(one["num_bytes"]), int(one["written"])) for one in answer["ended"]
            ]
        except (KeyError, TypeError, ValueError):
            raise self._nonsense(str(answer.get("error", answer))) from None
        if len(told) != len(jobs) or any(
            not 0 <= num_bytes <= MAX_RESULT_BYTES or not isinstance(code, int | None) for code, _, num_bytes, _ in told
        ):
            raise self._nonsense(str(answer))
        end = time.monotonic() + _STORE_S
        return [
            WorkerExit(code, supervisor.printable(log), written, self._take(num_bytes, end))
            for code, log, num_bytes, written in told
        ]

    def _order(self, order: dict[str, Any], within_s: float = ANSWER_S) -> dict[str, Any]:
        self._give(json.dumps(order).encode() + b"\n")
        return self._answer(within_s)

    def _give(self, data: bytes) -> None:
        try:
            self._write(data)
        except (BrokenPipeError, ValueError):
            raise self._broken() from None

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) or 0 :]

    def _greeting(self) -> dict[str, Any]:
        """What the keeper says first; what others say before it is dropped."""
        end, heard = time.monotonic() + ANSWER_S, 0
        while supervisor.GREETING not in self._come:
            kept = self._come[-len(supervisor.GREETING) :]
            heard += len(self._come) - len(kept)
            self._come = kept
            if heard > _LONGEST_GREETING_BYTES:
                self._process.kill()
                raise self._nonsense("it sent text, but no greeting")
            try:
                more = self._more(end)
            except MeasurementError:  # the time is up
                self._process.kill()
                raise refused(self.address, None, self._words()) from None
            if not more:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_GOODBYE_S)
                raise refused(self.address, self._process.returncode, self._words())
            self._come += more
        self._come = self._come.partition(supervisor.GREETING)[2]
        about = self._answer(ANSWER_S)
        if "folder" not in about:
            raise not_written(self.address, "a private folder", 0, about)
        return about

    def _answer(self, within_s: float) -> dict[str, Any]:
        end = time.monotonic() + within_s
        while b"\n" not in self._come:
            more = self._more(end)
            if not more:
                raise self._broken()
            self._come += more
            if len(self._come) > _LONGEST_ANSWER_BYTES and b"\n" not in self._come:
                raise self._nonsense(f"{len(self._come)} bytes and more")
        line, _, self._come = self._come.partition(b"\n")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._nonsense(line[:100].decode(errors="replace"))
        return answer

    def _take(self, num_bytes: int, end: float) -> bytes:
        parts, missing = [self._come[:num_bytes]], num_bytes - len(self._come)
        self._come = self._come[num_bytes:]
        while missing > 0:
            more = self._more(end)
            if not more:
                raise self._broken()
            parts.append(more[:missing])
            self._come = more[missing:]
            missing -= len(more)
        return b"".join(parts)

    def _more(self, end: float) -> bytes:
        """What comes next; nothing when the connection has ended."""
        assert self._process.stdout is not None
        out = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(out, select.POLLIN)
        if not poll.poll(1000 * max(0.0, end - time.monotonic())):
            raise MeasurementError(f"`{self.address}` no longer answers", where=f"ssh://{self.address}")
        return os.read(out, _CHUNK_BYTES)

    def _broken(self) -> MissingDependency:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        return broken(self.address, self._words())

    def _nonsense(self, what: str) -> MeasurementError:
        return MeasurementError(f"the answer of `{self.address}` is unreadable: {what}", where=f"ssh://{self.address}")

    def _words(self) -> str:
        return supervisor.tail_of(self._log)


def _remote_command(python: str, num_bytes: int) -> str:
    """Python reads its program from stdin; only double quotes, and within them nothing that a shell replaces."""
    check = f"sys.version_info<(3,10)and sys.exit('{OLD}'+sys.version.split()[0])"
    return f"{python} -c \"import sys;{check};exec(compile(sys.stdin.buffer.read({num_bytes}),'keeper','exec'))\""
