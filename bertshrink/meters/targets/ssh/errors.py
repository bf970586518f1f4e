"""What went wrong on the way to another machine, in words that say how to fix it.

OpenSSH exits with 255 when it did not get through and says why on stderr, in English whatever the locale; a shell exits
with 126 or 127 when it cannot start what it is told to.
"""

from __future__ import annotations

import re

from bertshrink.errors import BertshrinkError, MeasurementError, MissingDependency, OutputError
from bertshrink.meters.targets.ssh.address import Address

NO_WAY = 255
_NO_PROGRAM = (126, 127)
OLD = "bertshrink: this is Python "
"""What a Python that is too old says on stderr."""

_KNOWN: tuple[tuple[str, str, str], ...] = (
    # what OpenSSH says; what it means; how to fix it
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host key of `{host}` has changed",
        "find out why; if the machine was reinstalled: `ssh-keygen -R {bare}`, then `ssh {ssh}` once",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        "the host key of `{host}` is not known here",
        "connect once by hand and compare the key that is shown: `ssh {ssh}`",
    ),
    (
        r"Permission denied|Too many authentication failures|No more authentication methods",
        "`{host}` refuses the login",
        "`ssh {ssh}` must work without asking for a password: set up a key with `ssh-copy-id {ssh}`",
    ),
    (
        r"Could not resolve hostname",
        "no machine is called `{bare}`",
        "look at the name, or give it one in ~/.ssh/config",
    ),
    (
        r"Connection refused|timed out|No route to host|Network is unreachable|Host is down|closed by",
        "`{host}` cannot be reached",
        "is it switched on, in this network, and does an ssh server run there? try `ssh {ssh}`",
    ),
)
_FOREIGN = re.compile(
    r"ELF class|ELF header|Exec format error|incompatible architecture|mach-o|GLIBC(XX)?_|undefined symbol|"
    r"cannot open shared object|DLL load failed|_ARRAY_API"
)
"""What loaders say of a library that was built for another machine or another system."""

PACKAGES = {
    "torch": ("numpy", "torch", "transformers", "safetensors"),
    "onnxruntime": ("numpy", "onnxruntime"),
    "openvino": ("numpy", "openvino"),
    "executorch": ("numpy", "executorch"),
}
"""Engine -> what must be installed for it."""


def refused(address: Address, code: int | None, words: str) -> BertshrinkError:
    """Why there is no connection, from how `ssh` ended (None: it had to be ended) and what it said."""
    names = {"host": str(address), "bare": address.host, "ssh": _as_typed(address)}
    where = f"ssh://{address}"
    for pattern, what, fixing in _KNOWN if code == NO_WAY else ():
        if re.search(pattern, words):
            return MissingDependency(what.format(**names), where=where, hint=f"{fixing.format(**names)}{_said(words)}")
    if OLD in words:
        version = words.partition(OLD)[2].split()[0]
        return MissingDependency(
            f"the worker needs Python 3.10 or newer, and `{address.python}` on `{address}` is {version}",
            where=where,
            hint=f"name a newer one: `ssh://{address}?python=/path/to/python3`",
        )
    if code in _NO_PROGRAM or re.search(r"not found|[Uu]nknown command|not recognized", words):
        return MissingDependency(
            f"there is no `{address.python}` on `{address}`",
            where=where,
            hint=f"install Python 3.10 or newer there, or name it: `ssh://{address}?python=/path/to/python3`",
        )
    what = f"`{address}` did not answer in time" if code is None else f"no connection to `{address}` (status {code})"
    return MissingDependency(what, where=where, hint=f"try `ssh {_as_typed(address)}`{_said(words)}")


def broken(address: Address, words: str) -> MissingDependency:
    """The connection ended before the work did."""
    return MissingDependency(
        f"the connection to `{address}` was lost",
        where=f"ssh://{address}",
        hint=f"its worker and folder are removed with the connection; run the same command again{_said(words)}",
    )


def not_written(address: Address, name: str, num_bytes: int, answer: dict[str, object]) -> BertshrinkError:
    """A file that could not be put there."""
    if answer.get("errno") in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EFBIG", "ENOENT"):
        return OutputError(
            f"`{name}` ({num_bytes} bytes) cannot be written on `{address}`: {answer.get('error')}",
            where=f"ssh://{address}",
            hint=f"free some space there, or name another place: `ssh://{address}?folder=/path`",
        )
    return MeasurementError(f"`{name}` did not arrive on `{address}`: {answer.get('error')}")


def not_installed(address: Address, about: dict[str, object], engine: str, missing: list[str]) -> MissingDependency:
    """An engine that is not there, or not all of it."""
    return MissingDependency(
        f"`{address}` has no engine `{engine}`: not installed there: {', '.join(missing)}",
        where=f"ssh://{address}",
        hint=f"there: `{about.get('python')} -m pip install {' '.join(missing)}`{_bits(about)}",
    )


def not_importable(
    address: Address, about: dict[str, object], engine: str, code: int | None, words: str
) -> BertshrinkError:
    """An engine that is installed and cannot be imported."""
    kind = f"{about.get('machine')} with Python {about.get('version')}, {about.get('bits')}-bit"
    if code is not None and -code in (4, 7):  # SIGILL, SIGBUS
        return MissingDependency(
            f"the engine `{engine}` on `{address}` uses instructions that its processor does not have",
            where=f"ssh://{address}",
            hint=f"the machine is {kind}: install a build for it, an older one perhaps",
        )
    if _FOREIGN.search(words):
        return MissingDependency(
            f"the engine `{engine}` on `{address}` was built for another machine",
            where=f"ssh://{address}",
            hint=f"the machine is {kind}: install the wheels for it; last lines of stderr:\n{words}",
        )
    return MissingDependency(
        f"the engine `{engine}` on `{address}` cannot be imported", where=f"ssh://{address}", hint=words or None
    )


def _bits(about: dict[str, object]) -> str:
    if about.get("bits") == 64:
        return ""
    return f"; its Python is 32-bit, and most engines come for 64-bit systems only (the kernel: {about.get('machine')})"


def _as_typed(address: Address) -> str:
    port = f"-p {address.port} " if address.port else ""
    return f"{port}{f'{address.user}@' if address.user else ''}{address.host}"


def _said(words: str) -> str:
    return f"\nit said:\n{words}" if words else ""
