"""What is emulated: Python and its libraries from Debian for arm64, NumPy and ONNX Runtime from PyPI. Pinned, because a
count is comparable only with counts of the same parts.

ONNX Runtime 1.24.1: its kernels are nearly all that is counted. 1.31.1 for aarch64 crashes when it is imported under
QEMU 7.2, Debian 12's, with every core tried; 1.20.1, 1.22.0 and 1.24.1 work, and 1.24.1 is the newest of these.

NumPy 2.4.6: the newest that has wheels for Python 3.11. It makes the arrays that go in and out, a few thousand
instructions of millions.

Debian 12: the Python that these wheels are for (3.11), with a glibc (2.36) that is new enough for them (2.28). Debian
keeps only the newest build of a package in a release, so what is pinned is the release: its packages change by security
fixes alone. The builds that came are written into the root's `about.json` and into every report.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
"""Not https: apt trusts Debian's signatures and needs no certificates."""

PACKAGES = (
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1"),
    *("libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal"),
)
PYTHON = "3.11"
"""Of Debian's release; the wheels are for it."""

PLATFORMS = ("manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
"""What pip calls Linux on arm64 with a glibc of at least 2.27 or 2.28: the wheels' names."""


@dataclass(frozen=True)
class Wheel:
    """One package from PyPI.

    Attributes:
        sha256: of its only file for this Python and platform.
    """

    name: str
    version: str
    sha256: str


WHEELS = (
    Wheel("numpy", "2.4.6", "0ab0a9c4ffb1a6d95ef519fe4247dba8eb6b18ad93999f76b7f657039acabd47"),
    Wheel("onnxruntime", "1.24.1", "86bc43e922b1f581b3de26a3dc402149c70e5542fceb5bec6b3a85542dbeb164"),
)

LEFT_OUT = (
    *("usr/share/", "etc/", "usr/lib/binfmt.d/", "usr/lib/aarch64-linux-gnu/gconv/", "lib/aarch64-linux-gnu/gconv/"),
    *(f"site/onnxruntime/{name}/" for name in ("transformers", "tools", "quantization", "datasets")),
    *("site/numpy/f2py/", "site/numpy/_core/include/", "/tests/"),
)
"""What nothing here reads: documentation, settings, converters, tests. A path that begins with one of these, or holds
one that begins with a slash, is not kept."""


def digest() -> str:
    """12 hexadecimal digits over all pins: another set of parts has another folder."""
    pins = [SUITE, PACKAGES, PYTHON, [(w.name, w.version, w.sha256) for w in WHEELS], LEFT_OUT]
    return hashlib.sha256(json.dumps(pins).encode()).hexdigest()[:12]
