"""Whoever looks after workers: starts one, sleeps until it ends, and leaves nothing of it. Standard library alone.

Here `run_together` is what starts workers. On another machine this very file is the program that a connection starts
(`serve`): it makes a private folder, takes files into it, runs workers there, and gives their results back. It lives
exactly as long as the connection: when its stdin ends, for whatever reason (the user's Ctrl-C, a cable pulled out, the
end of the work), the workers are killed and the folder is gone.

A message is a line of JSON, followed by as many bytes as its `num_bytes` says. An order and its answer:

    {"do": "put", "name", "num_bytes", "sha256"}   {"ready": true} before the bytes, then {"done": true}
    {"do": "run", "command", "jobs", "passed_on", "fixed", "timeout"}
                                                   {"ended": [{"code", "log", "num_bytes", "written"}, ...]}, and the
                                                   results one after the other
Whatever cannot be done is answered by {"error", "errno"}.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

GREETING = b"bertshrink keeper "
"""What the first line of `serve` begins with: a shell that prints something before is passed over."""

RELAY = "BERTSHRINK_RELAY"
"""The environment variable that tells a worker its place among those that take turns (`turns.VARIABLE`)."""

_CHUNK_BYTES = 1 << 20
_TAIL_BYTES = 2_000
_LONGEST_ORDER_BYTES = 64_000_000
_IDLE_S = 3600
"""Seconds without an order after which a keeper goes: a connection that died unnoticed leaves nothing for longer."""

_GLANCE_S = 0.2
"""Off Linux no call waits for a process and something else: then it is looked at so often."""


def run_in(
    folder: Path, command: Sequence[str], environment: Mapping[str, str], timeout_s: float, lifeline: int | None = None
) -> int | None:
    """Run a command in `folder` from the file `job` to the files `result` and `log`; all it started ends with it.

    Args:
        environment: all its environment variables.
        lifeline: a file descriptor; the command is killed as well when something comes in there, or its end.

    Returns:
        Its exit status; None when the time was up.

    Raises:
        ConnectionError: the lifeline broke.
    """
    return run_together([folder], command, environment, timeout_s, lifeline)[0]


def run_together(
    folders: Sequence[Path],
    command: Sequence[str],
    environment: Mapping[str, str],
    timeout_s: float,
    lifeline: int | None = None,
) -> list[int | None]:
    """Run a command in each folder as `run_in` does, all at once, as workers that take turns (see `worker.turns`)."""
    pipes = [os.pipe() for _ in folders] if len(folders) > 1 else []
    processes: list[subprocess.Popen[bytes]] = []
    try:
        try:
            for place, folder in enumerate(folders):
                mine = (pipes[place][0], pipes[(place + 1) % len(pipes)][1]) if pipes else ()
                given = {RELAY: ",".join(map(str, (*mine, place, len(folders))))} if mine else {}
                processes.append(_start(folder, command, {**environment, **given}, mine))
        finally:
            for pipe in pipes:
                for end in pipe:
                    os.close(end)
        are_over = _wait(processes, timeout_s, lifeline)
    finally:  # also on Ctrl-C, which reaches the parent alone
        for process in processes:
            _end(process)
    return [p.returncode if is_over else None for p, is_over in zip(processes, are_over, strict=True)]


def run_side_by_side(
    folders: Sequence[Path], command: Sequence[str], environment: Mapping[str, str], timeout_s: float, at_once: int
) -> list[int | None]:
    """Run a command in each folder as `run_in` does, `at_once` of them at a time: for whatever is not timed."""
    codes: list[int | None] = []
    for start in range(0, len(folders), at_once):
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for folder in folders[start : start + at_once]:
                processes.append(_start(folder, command, environment))
            are_over = _wait(processes, timeout_s, None)
        finally:
            for process in processes:
                _end(process)
        codes += [p.returncode if is_over else None for p, is_over in zip(processes, are_over, strict=True)]
    return codes


def _start(
    folder: Path, command: Sequence[str], environment: Mapping[str, str], kept: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    with (
        (folder / "job").open("rb") as job_file,
        (folder / "result").open("wb") as result_file,
        (folder / "log").open("wb") as log_file,
    ):
        return subprocess.Popen(
            command,
            stdin=job_file,
            stdout=result_file,
            stderr=log_file,
            cwd=folder,
            env=dict(environment),
            pass_fds=kept,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """See to it that nothing of the worker is left; its own exit status stays when it had ended by itself."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()


def _wait(processes: Sequence[subprocess.Popen[bytes]], timeout_s: float, lifeline: int | None) -> list[bool]:
    """Sleep until all processes have ended or the time is up; whether each has.

    Off Linux, where no call waits for processes and something else, they are looked at now and then.
    """
    are_over = [False] * len(processes)
    handles = {os.pidfd_open(p.pid): at for at, p in enumerate(processes)} if hasattr(os, "pidfd_open") else {}
    poll: Any = select.poll() if hasattr(select, "poll") else None
    for fd in (*handles, *((lifeline,) if lifeline is not None else ())):
        poll.register(fd, select.POLLIN)
    end = time.monotonic() + timeout_s
    try:
        while True:
            left = max(0.0, end - time.monotonic())
            if poll is None:
                time.sleep(min(left, _GLANCE_S))
            ready = {fd for fd, _ in poll.poll(1000 * (left if handles else min(left, _GLANCE_S)))} if poll else set()
            if lifeline in ready:
                raise ConnectionError("the other side closed the connection")
            for fd in ready:
                are_over[handles[fd]] = True
                poll.unregister(fd)
            if not handles:
                are_over = [process.poll() is not None for process in processes]
            if all(are_over) or time.monotonic() >= end:
                return are_over
    finally:
        for handle in handles:
            os.close(handle)


def tail(path: Path) -> str:
    """The end of a log, without what a terminal would obey."""
    with path.open("rb") as file:
        return tail_of(file)


def tail_of(file: BinaryIO) -> str:
    """As `tail`, of an open file."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
    return printable(file.read().decode("utf-8", errors="replace"))


def printable(text: str) -> str:
    """A text without what a terminal would obey."""
    return "".join(c for c in text if c.isprintable() or c == "\n").strip()


def serve(scratch: str | None, most_bytes: int) -> None:
    """Greet, then follow orders from stdin until it ends.

    Args:
        scratch: where the private folder is made; None: where the system has its temporary files.
        most_bytes: the longest result that is given back.
    """
    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    for number in _ends():
        signal.signal(number, _leave)
    try:
        folder = Path(tempfile.mkdtemp(prefix="bertshrink-", dir=Path(scratch).expanduser() if scratch else None))
    except (OSError, RuntimeError) as error:
        answers.write(GREETING)
        _say(answers, _refusal(error))
        return
    try:
        answers.write(GREETING)
        _say(answers, _about(folder))
        while order := _next(orders):
            _follow(order, folder, orders, answers, most_bytes)
    except (ConnectionError, BrokenPipeError):
        pass
    finally:
        for number in _ends():
            signal.signal(number, signal.SIG_IGN)
        shutil.rmtree(folder, ignore_errors=True)


def _ends() -> list[signal.Signals]:
    """The signals that ask for an end; Windows has no SIGHUP."""
    return [one for one in signal.Signals if one.name in ("SIGTERM", "SIGHUP")]


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _next(orders: BinaryIO) -> dict[str, Any] | None:
    if not select.select([orders], [], [], _IDLE_S)[0]:
        return None
    line = orders.readline(_LONGEST_ORDER_BYTES)
    return json.loads(line) if line.endswith(b"\n") else None


def _follow(order: dict[str, Any], folder: Path, orders: BinaryIO, answers: BinaryIO, most_bytes: int) -> None:
    try:
        if order["do"] == "put":
            _put(order, folder, orders, answers)
        else:
            _run(order, folder, answers, most_bytes, orders.fileno())
    except ConnectionError:
        raise
    except OSError as error:
        _say(answers, _refusal(error))


def _put(order: dict[str, Any], folder: Path, orders: BinaryIO, answers: BinaryIO) -> None:
    """Take a file in, where there is room for it."""
    free = shutil.disk_usage(folder).free
    if free < order["num_bytes"]:
        _say(answers, {"error": f"only {free} bytes are free", "errno": "ENOSPC"})
        return
    _say(answers, {"ready": True})
    path = folder / order["name"]
    left, digest, refusal = order["num_bytes"], hashlib.sha256(), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file: Any = path.open("wb")
    except OSError as error:
        refusal, file = _refusal(error), contextlib.nullcontext()
    with file:
        while left:
            chunk = orders.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise ConnectionError("the file is truncated")
            left -= len(chunk)
            digest.update(chunk)
            if refusal is None:
                try:
                    file.write(chunk)
                except OSError as error:
                    refusal = _refusal(error)  # what is still to come must be read all the same
    if refusal is None and digest.hexdigest() != order["sha256"]:
        refusal = {"error": "the bytes received differ from the bytes sent", "errno": "EIO"}
    _say(answers, refusal or {"done": True})


def _run(order: dict[str, Any], folder: Path, answers: BinaryIO, most_bytes: int, lifeline: int) -> None:
    """Run workers that take turns; their results come along unless one is longer than any can be."""
    rooms = [folder / f"run-{at}" for at in range(len(order["jobs"]))]
    for room, job in zip(rooms, order["jobs"], strict=True):
        room.mkdir(exist_ok=True)
        (room / "job").write_text(job, encoding="utf-8")
    environment = {name: os.environ[name] for name in order["passed_on"] if name in os.environ} | order["fixed"]
    command = [sys.executable if word is None else word for word in order["command"]]
    codes = run_together(rooms, command, environment, order["timeout"], lifeline)
    ended = []
    for room, code in zip(rooms, codes, strict=True):
        written = (room / "result").stat().st_size
        num_bytes = written if written <= most_bytes else 0
        ended.append({"code": code, "log": tail(room / "log"), "num_bytes": num_bytes, "written": written})
    _say(answers, {"ended": ended})
    for room, one in zip(rooms, ended, strict=True):
        with (room / "result").open("rb") as file:
            while one["num_bytes"] and (chunk := file.read(_CHUNK_BYTES)):
                answers.write(chunk)
    answers.flush()


def _refusal(error: Exception) -> dict[str, Any]:
    return {"error": str(error), "errno": errno.errorcode.get(getattr(error, "errno", None) or 0, "")}


def _say(answers: BinaryIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


def _about(folder: Path) -> dict[str, Any]:
    """Where this is, as far as a message to the user may need it."""
    return {
        "folder": str(folder),
        "python": sys.executable,
        "version": platform.python_version(),
        "bits": 8 * struct.calcsize("P"),
        "machine": platform.machine(),
        "board": _text("/proc/device-tree/model"),
        "firmware": _text("/sys/class/dmi/id/product_name"),
    }


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ") or None
    except OSError:
        return None
