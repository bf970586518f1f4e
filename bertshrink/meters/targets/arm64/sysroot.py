"""The root folder: everything that the emulated program reads, prepared once and sealed.

    about.json       what it is made of: versions of packages and wheels
    lib/ usr/        Debian's Python and libraries for arm64, without what nothing reads
    site/            NumPy and ONNX Runtime
    MANIFEST.json    sha256 of every file; checked before each measurement

It holds no path of the machine that it was made on: it may be copied from one machine to another.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from bertshrink.errors import MissingDependency, UnsafeModel
from bertshrink.files.atomic import verify
from bertshrink.meters.targets.arm64 import pins

VARIABLE = "BERTSHRINK_ARM64_ROOT"
ABOUT = "about.json"
SETUP = "`bertshrink targets setup arm64` prepares it"


class SysrootInfo(BaseModel):
    """What a root is made of.

    Attributes:
        debian: package -> version.
        wheels: package -> version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    debian: dict[str, str]
    wheels: dict[str, str]


@dataclass(frozen=True)
class Sysroot:
    """A prepared root."""

    folder: Path
    about: SysrootInfo


def cache() -> Path:
    """Where what is prepared for this target is kept: `$XDG_CACHE_HOME/bertshrink/arm64`, by default in ~/.cache.

    Raises:
        MissingDependency: there is neither the variable nor a home folder.
    """
    told = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(told) if Path(told).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        raise MissingDependency(
            "there is no home folder to keep the emulated system in", hint="set XDG_CACHE_HOME to a folder"
        ) from None
    return base / "bertshrink" / "arm64"


def place() -> Path:
    """Where the root is or should be: what the environment variable names, else a folder in the cache."""
    told = os.environ.get(VARIABLE)
    return Path(told).expanduser().absolute() if told else cache() / f"root-{pins.digest()}"


def find_root() -> Sysroot:
    """The prepared root; what it is made of is read, its files are not checked (see `check_root`).

    Raises:
        MissingDependency: there is none, or it is not whole.
    """
    folder = place()
    if not folder.is_dir():
        raise MissingDependency("the emulated ARM system is not prepared", where=str(folder), hint=SETUP)
    try:
        return Sysroot(folder, SysrootInfo.model_validate_json((folder / ABOUT).read_bytes()))
    except (OSError, ValidationError):
        raise MissingDependency(
            f"the folder holds no emulated ARM system: it has no usable `{ABOUT}`",
            where=str(folder),
            hint=f"{SETUP}; delete the folder first, or let {VARIABLE} name another",
        ) from None


def check_root(root: Sysroot) -> None:
    """Prove that every file of the root is as it was sealed: half a second.

    Raises:
        MissingDependency: one is missing or has changed, or nothing was ever sealed.
    """
    try:
        is_sealed = verify(root.folder)
    except UnsafeModel as error:
        raise MissingDependency(
            f"the emulated ARM system is damaged: {error.what}",
            where=error.where,
            hint="`bertshrink targets setup arm64 --force` prepares it again",
        ) from None
    if not is_sealed:
        raise MissingDependency("the emulated ARM system was never sealed", where=str(root.folder), hint=SETUP)
