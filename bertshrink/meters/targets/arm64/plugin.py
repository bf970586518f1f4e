"""QEMU and the plugin that counts in it: found, and compiled when it is needed.

Debian ships QEMU without a plugin and without the header for one, so the source (`plugin.c`) comes along and is
compiled on demand; the result is kept by the hash of the source, QEMU's version and the machine.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bertshrink.errors import MissingDependency
from bertshrink.files.atomic import move, output_errors
from bertshrink.meters.targets.arm64.sysroot import cache

PROGRAM = "qemu-aarch64"
SOURCE = Path(__file__).with_name("plugin.c")
COMPILERS = ("cc", "gcc", "clang")
INSTALL = {PROGRAM: "qemu-user", "cc": "gcc libc6-dev"}
"""What is needed -> Debian's packages with it."""

_TIMEOUT_S = 60
_TAIL = 1_000


@dataclass(frozen=True)
class Qemu:
    """The emulator on this machine.

    Attributes:
        path: the program.
        version: such as `7.2.22`.
    """

    path: str
    version: str

    @property
    def plugin_api(self) -> int:
        """The version of QEMU's plugin interface to claim; those below 2 are refused from QEMU 9.0 on."""
        return 2 if int(self.version.partition(".")[0]) >= 9 else 1


def find_qemu() -> Qemu:
    """The emulator. Raises MissingDependency: it is not installed, or does not say its version."""
    path = shutil.which(PROGRAM)
    if path is None:
        raise MissingDependency(
            f"the emulator `{PROGRAM}` is not installed",
            hint=f"on Debian and Ubuntu: sudo apt-get install {INSTALL[PROGRAM]} "
            "(the package qemu-user-static does not help: it can load no plugin)",
        )
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        match = re.search(r"version (\d+(?:\.\d+)+)", said.stdout)
    except (OSError, subprocess.SubprocessError):
        match = None
    if match is None:
        raise MissingDependency("the emulator does not say its version", where=path, hint=f"run `{PROGRAM} --version`")
    return Qemu(path, match[1])


def find_compiler() -> str:
    """A C compiler: `$CC`, or the first that is found. Raises MissingDependency: there is none."""
    for name in (os.environ.get("CC", ""), *COMPILERS):
        if name and (path := shutil.which(name)):
            return path
    raise MissingDependency(
        "there is no C compiler, and the plugin that counts must be compiled",
        hint=f"on Debian and Ubuntu: sudo apt-get install {INSTALL['cc']}",
    )


def check_plugin(qemu: Qemu) -> None:
    """See whether the plugin is compiled, or can be. Raises MissingDependency: neither."""
    if not _place(qemu).is_file():
        find_compiler()


def plugin(qemu: Qemu) -> Path:
    """The compiled plugin for this emulator; compiled now where it was not before.

    Raises:
        MissingDependency: no compiler, or it fails.
        OutputError: the cache is not writable.
    """
    target = _place(qemu)
    if target.is_file():
        return target
    compiler = find_compiler()
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".count-", dir=target.parent) as scratch:
            made = Path(scratch) / "count.so"
            _compile(compiler, qemu, made)
            move(made, target)
    return target


def _place(qemu: Qemu) -> Path:
    """Where the compiled plugin is: named by all that it depends on."""
    about = f"{qemu.version} {qemu.plugin_api} {platform.machine()}".encode()
    return cache() / f"count-{hashlib.sha256(SOURCE.read_bytes() + about).hexdigest()[:12]}.so"


def _compile(compiler: str, qemu: Qemu, made: Path) -> None:
    options = ("-O2", "-shared", "-fPIC", "-fvisibility=hidden", f"-DPLUGIN_API={qemu.plugin_api}")
    command = [compiler, *options, "-o", str(made), str(SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        words = done.stderr if done.returncode or not made.is_file() else None
    except (OSError, subprocess.TimeoutExpired) as error:
        words = str(error)
    if words is not None:
        raise MissingDependency(
            f"the C compiler `{compiler}` cannot make the plugin that counts",
            where=str(SOURCE),
            hint=f"on Debian and Ubuntu: sudo apt-get install {INSTALL['cc']}; it said:\n{words.strip()[-_TAIL:]}",
        )
