"""Killed processes and full disks. Judged by what a second, undisturbed run makes of what is left."""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bertshrink.errors import OutputError
from tests.torture.core import Kind, Probe
from tests.torture.models import home

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "export": ("export", "{home}/classifier", "-o", "out", "-q"),
    "quantize": ("quantize", "{home}/onnx", "-o", "out", "-q"),
    "factorize": ("factorize", "{home}/classifier", "-o", "out", "-q", "--rank", "4"),
    "inspect": ("inspect", "{home}/onnx"),
    "bench": ("bench", "{home}/onnx", "--quick", "-q"),
}
LIMIT_S = 240


def _start(command: str, place: Path, *before: str) -> subprocess.Popen:
    words = [word.format(home=home()) for word in COMMANDS[command]]
    scratch = place / "tmp"
    scratch.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(scratch)}
    return subprocess.Popen(
        [*before, sys.executable, "-m", "bertshrink", *words],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen) -> tuple[int, str]:
    try:
        out = process.communicate(timeout=LIMIT_S)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise TimeoutError("the command hangs") from None
    return process.returncode, out


def _weights(folder: Path) -> dict[str, str]:
    kinds = (".onnx", ".safetensors")
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted((folder / "out").rglob("*"))
        if p.suffix in kinds
    }


def _orphans(place: Path) -> list[str]:
    """Processes that work below a place."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        with contextlib.suppress(OSError):
            if Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(place):  # noqa: PTH115
                found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:100])
    return found


def kills(rng: random.Random, folder: Path) -> Probe:
    """A command is killed at a random moment and given again: it ends as if nothing had been."""
    command = rng.choice(sorted(COMMANDS))
    number = rng.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
    is_group = rng.random() < 0.5
    after_s = rng.uniform(0.2, 12)

    def act() -> dict[str, Any]:
        process = _start(command, folder)
        time.sleep(after_s)
        (os.killpg if is_group else os.kill)(process.pid, number)
        code, said = _finish(process)
        time.sleep(1)
        orphans = _orphans(folder)
        before = time.monotonic()
        again, words = _finish(_start(command, folder))
        left = [p.name for p in folder.rglob("*") if ".tmp-" in p.name or p.name.startswith("bertshrink-")]
        return {
            "code": code,
            "said": said[-300:],
            "orphans": orphans,
            "again": again,
            "words": words[-300:],
            "left": left,
            "weights": _weights(folder),
            "s": time.monotonic() - before,
        }

    def judge(found: dict[str, Any]) -> bool:
        unkilled = folder / "unkilled"
        unkilled.mkdir()
        code, _ = _finish(_start(command, unkilled))
        codes = {-number, 128 + number, 0, *((1,) if number == signal.SIGINT and after_s < 3 else ())}
        return (
            found["code"] in codes
            and "this is a bug" not in found["said"] + found["words"]
            and not found["orphans"]
            and not found["left"]
            and found["again"] == code == 0
            and found["weights"] == _weights(unkilled)
        )

    shown = f"{command} {signal.Signals(number).name} {'group' if is_group else 'parent'} after {after_s:.1f} s"
    return Probe(shown, act, judge, (), 3 * LIMIT_S)


def disks(rng: random.Random, folder: Path) -> Probe:
    """The disk, or the largest file that may be written, is small."""
    command = rng.choice(("export", "quantize", "factorize"))
    kilobytes = rng.choice((8, 64, 200, 400, 1000))
    where = rng.choice(("out", "tmp", "runs"))
    is_mounted = os.geteuid() == 0 and shutil.which("unshare") is not None

    def act() -> dict[str, Any]:
        if is_mounted:
            mount = {"out": ".", "tmp": "tmp", "runs": "runs"}[where]
            (folder / mount).mkdir(exist_ok=True)
            mounted = f'mount -t tmpfs -o size={kilobytes}k none "{folder / mount}"'
            script = f'{mounted} && cd "{folder}" && mkdir -p tmp && exec "$@"'
            process = _start(command, folder, "unshare", "-m", "sh", "-c", script, "sh")
        else:
            process = _start(command, folder, "sh", "-c", f'ulimit -f {2 * kilobytes}; exec "$@"', "sh")
        code, said = _finish(process)
        if code in (7, 153, -signal.SIGXFSZ) and "error:" in said and "hint:" in said:
            raise OutputError(said, where=where, hint=said)
        return {"code": code, "said": said[-400:]}

    def judge(found: dict[str, Any]) -> bool:
        return found["code"] == 0 and "this is a bug" not in found["said"]

    return Probe(f"{command}, {kilobytes} kB for {where}", act, judge, (7,), LIMIT_S + 30)


KINDS = (Kind("kills", kills, 90, 8), Kind("disks", disks, 40, 8))
