"""One case, run in a forked process with limits; what came of it; the table of all."""

import contextlib
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertshrink.errors import BertshrinkError, UserErrors

TIMEOUT_S = 90
"""The lab's measure of a hang was 60 s on a quiet machine."""
MORE_BYTES = 6 * 2**30
"""Address space beyond what the parent's libraries have taken."""

GOOD = ("refused rightly", "right")
BAD = ("silent wrong", "traceback", "exit 70", "hang")


@dataclass
class Probe:
    """A spoilt thing.

    Attributes:
        what: was done to it.
        act: what bertshrink makes of it; raises a BertshrinkError when it refuses it.
        judge: whether what `act` gave is right; run in a process of its own.
        codes: exit codes with which it may be refused.
        timeout_s: after which it hangs.
    """

    what: str
    act: Callable[[], Any]
    judge: Callable[[Any], bool]
    codes: tuple[int, ...]
    timeout_s: float = TIMEOUT_S


@dataclass
class Kind:
    """A kind of faults: `make(rng, folder)` spoils something in an empty folder."""

    name: str
    make: Callable[[random.Random, Path], Probe]
    full: int
    sample: int


@dataclass
class Tally:
    """What came of the cases of a kind."""

    counts: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


def forked(do: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> tuple[str, Any]:
    """Run something in a forked process.

    Returns:
        (`value`, what it gave), (`refused`, (exit code, what is said)), (`raised`, the traceback), (`died`, signal) or
        (`hang`, None).
    """
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:  # whatever goes wrong in here, this process must never go on with its parent's work: it would fork in turn
            os.close(read_end)
            os.setsid()
            _limit()
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(timeout_s) + 10)  # where the parent is gone
            with open(os.devnull, "r+b", buffering=0) as null:  # noqa: PTH123
                for stream in (0, 1, 2):
                    os.dup2(null.fileno(), stream)
            with os.fdopen(write_end, "wb") as pipe:
                pipe.write(pickle.dumps(_told(do)))
        finally:
            os._exit(0)
    os.close(write_end)
    os.set_blocking(read_end, False)
    end, data = time.monotonic() + timeout_s, b""
    with os.fdopen(read_end, "rb") as pipe:
        while True:
            data += pipe.read() or b""
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                data += pipe.read() or b""
                break
            if time.monotonic() > end:
                _kill(pid)
                os.waitpid(pid, 0)
                return "hang", None
            time.sleep(0.01)
    _kill(pid)
    return pickle.loads(data) if data else ("died", os.waitstatus_to_exitcode(status))


def _told(do: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "value", do()
    except BertshrinkError as error:
        parts = [(f.what, f.where, f.hint) for f in (error.faults if isinstance(error, UserErrors) else (error,))]
        return "refused", (error.exit_code, parts)
    except BaseException:
        return "raised", traceback.format_exc()


def _limit() -> None:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MORE_BYTES, taken + MORE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def outcome(probe: Probe) -> tuple[str, str]:
    """What came of a case, and what to say where it is bad."""
    how, found = forked(probe.act, probe.timeout_s)
    match how:
        case "hang":
            return "hang", ""
        case "died":
            return "traceback", f"died of signal {found}"
        case "raised":
            lines = found.strip().splitlines()
            is_panic = "PanicException" in lines[-1]
            return ("traceback" if is_panic else "exit 70"), "\n      ".join(lines[-5:])
        case "refused":
            code, parts = found
            if code not in probe.codes:
                return "silent wrong", f"exit code {code} is not of {probe.codes}: {parts}"
            if lacking := [part for part in parts if not all(part)]:
                return "silent wrong", f"refused without what, where or how: {lacking[0]}"
            return "refused rightly", ""
    how, is_right = forked(lambda: probe.judge(found), probe.timeout_s)
    if how == "value" and is_right:
        return "right", ""
    return "silent wrong", f"accepted: {str(found)[:200]}" + ("" if how == "value" else f"; the judge {how} {is_right}")


def run_kind(kind: Kind, seed: int, numbers: list[int], jobs: int) -> Tally:
    """Run cases of a kind."""
    tally, began = Tally(), time.monotonic()

    def one(number: int) -> tuple[int, str, str, str]:
        folder = Path(tempfile.mkdtemp(prefix="torture-"))
        rng = random.Random(f"{seed}:{kind.name}:{number}")
        try:
            probe = kind.make(rng, folder)
            return number, probe.what, *outcome(probe)
        except Exception:
            return number, "the case itself", "traceback", traceback.format_exc()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # Threads only wait for forked processes; nothing else of this process runs meanwhile.
    with ThreadPoolExecutor(jobs) as pool:
        for number, what, came, said in pool.map(one, numbers):
            tally.counts[came] += 1
            if came in BAD:
                again = f"make torture SEED={seed} ONLY={kind.name}:{number}"
                tally.failures.append(f"{came}: {what}\n      {said}\n      {again}")
                print(f"  {tally.failures[-1]}", file=sys.stderr, flush=True)
    tally.seconds = time.monotonic() - began
    return tally


def table(tallies: dict[str, Tally]) -> Iterator[str]:
    """The figures, as Markdown."""
    columns = (*GOOD, *BAD)
    yield "| what | injected | " + " | ".join(columns) + " | s |"
    yield "|---|" + "---:|" * (len(columns) + 2)
    total, seconds = Counter(), 0.0
    for name, tally in tallies.items():
        total, seconds = total + tally.counts, seconds + tally.seconds
        yield _row(name, tally.counts, tally.seconds, columns)
    yield _row("all", total, seconds, columns)


def _row(name: str, counts: Counter, seconds: float, columns: tuple[str, ...]) -> str:
    figures = " | ".join(str(counts[column]) for column in columns)
    return f"| {name} | {sum(counts.values()):,} | {figures} | {seconds:.0f} |"
