"""Getting the parts of the root by the ordinary clients: Debian's packages by apt-get, the wheels by pip.

apt-get runs with lists and caches of its own, so it needs no root and changes nothing of this system: arm64 is not made
a foreign architecture. It checks Debian's signatures; pip checks the pinned sha256 of every wheel.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from bertshrink.errors import MissingDependency
from bertshrink.meters.targets.arm64 import pins
from bertshrink.meters.targets.arm64.sysroot import VARIABLE

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
BY_HAND = f"or copy a prepared folder from a machine that has one, and name it in {VARIABLE}"

_TIMEOUT_S = 900
_TAIL = 1_000


def check_tools() -> None:
    """Find whatever cannot work before anything is fetched.

    Raises:
        MissingDependency: no apt-get, dpkg-deb, pip, or Debian's keys.
    """
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        raise MissingDependency(
            f"the emulated ARM system is made of Debian's packages, and this system has no `{missing[0]}`",
            hint=f"prepare it on Debian or Ubuntu (a container will do), {BY_HAND}",
        )
    if not KEYRING.is_file():
        raise MissingDependency(
            "Debian's keys are not installed, so its packages cannot be checked",
            where=str(KEYRING),
            hint="sudo apt-get install debian-archive-keyring",
        )
    if importlib.util.find_spec("pip") is None:
        raise MissingDependency(
            "this Python has no pip, which gets the wheels", where=sys.executable, hint="python -m ensurepip"
        )


def fetch_debian(scratch: Path, root: Path, mirror: str) -> dict[str, str]:
    """Get Debian's packages and unpack them into the root.

    Args:
        scratch: an empty folder for lists and packages.

    Returns:
        Package -> version.

    Raises:
        MissingDependency: they cannot be had.
    """
    for name in ("lists/partial", "cache/archives/partial", "packages"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    sources = scratch / "sources.list"
    sources.write_text(f"deb [arch=arm64 signed-by={KEYRING}] {mirror} {pins.SUITE} main\n", encoding="utf-8")
    settings = {
        "Dir::State": scratch,
        "Dir::State::lists": scratch / "lists",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferences": "-",
        "Dir::Etc::preferencesparts": "-",
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Update::Error-Mode": "any",
        "APT::Sandbox::User": "root",  # else root hands the download to a user who may not write to this folder
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
    }
    apt = ["apt-get", "-q", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    what, folder = f"Debian's packages for arm64 cannot be downloaded from {mirror}", scratch / "packages"
    hint = f"is there a network connection? another archive: --mirror ADDRESS; {BY_HAND}"
    run([*apt, "update"], scratch, what, hint)
    run([*apt, "download", *pins.PACKAGES], folder, what, hint)
    versions = {}
    for file in sorted(folder.glob("*.deb")):
        run(["dpkg-deb", "-x", str(file), str(root)], scratch, f"`{file.name}` cannot be unpacked", "is the disk full?")
        name, _, rest = file.name.partition("_")
        versions[name] = rest.partition("_")[0].replace("%3a", ":")
    return versions


def fetch_wheels(scratch: Path, site: Path) -> dict[str, str]:
    """Get the wheels and unpack them.

    Args:
        scratch: an empty folder for the wheels.

    Returns:
        Package -> version.

    Raises:
        MissingDependency: they cannot be had, or have other bytes than the pinned.
    """
    wanted = scratch / "requirements.txt"
    lines = [f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in pins.WHEELS]
    wanted.write_text("".join(lines), encoding="utf-8")
    platforms = [word for name in pins.PLATFORMS for word in ("--platform", name)]
    python = ("--python-version", pins.PYTHON, "--implementation", "cp", "--only-binary", ":all:", "--no-deps")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    command += [*platforms, *python, "--dest", str(scratch), "--requirement", str(wanted)]
    names = " and ".join(f"{w.name} {w.version}" for w in pins.WHEELS)
    run(command, scratch, f"pip cannot get {names} for aarch64", f"is there a network connection? {BY_HAND}")
    for file in sorted(scratch.glob("*.whl")):
        with zipfile.ZipFile(file) as archive:
            archive.extractall(site)
    return {w.name: w.version for w in pins.WHEELS}


def leave_out(root: Path) -> None:
    """Delete what nothing reads, and links that lead out of the root or nowhere."""
    for path in sorted(root.rglob("*"), reverse=True):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            if not path.exists() or not path.resolve().is_relative_to(root.resolve()):
                path.unlink()
        elif path.is_file():
            if any(name.startswith(part) or (part.startswith("/") and part in name) for part in pins.LEFT_OUT):
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()


def run(command: Sequence[str], folder: Path, what: str, hint: str) -> str:
    """Run a program to its end; what it wrote on stdout.

    Raises:
        MissingDependency: it failed: `what`, with `hint` and its last words.
    """
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            env=os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            check=False,
        )
        words = done.stderr if done.returncode else None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingDependency(what, hint=f"{hint}; {error}") from None
    if words is not None:
        last = "\n".join((words.strip() or done.stdout.strip() or "it said nothing")[-_TAIL:].splitlines()[-6:])
        raise MissingDependency(what, hint=f"{hint}; last lines of `{Path(command[0]).name}`:\n{last}")
    return done.stdout
