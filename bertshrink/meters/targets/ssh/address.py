"""`ssh://user@host:port?python=~/venv/bin/python&folder=/data`: where a machine is, and what is used there.

Everything else that a connection needs (keys, agent, jumps, other names) is in the user's own OpenSSH configuration
and is left to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from bertshrink.errors import UserError, did_you_mean

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.%:-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*")
_PROGRAM = re.compile(r"[A-Za-z0-9_~/.][A-Za-z0-9_~/.+-]*")
"""What means the same to every shell, unquoted; `~` is the home there."""

_PYTHON = "python3"
_OPTIONS = ("python", "folder")


@dataclass(frozen=True)
class Address:
    """A machine that is reached by ssh.

    Attributes:
        host: its name, its number, or an alias of the user's configuration.
        user: None: as the configuration says.
        port: None: as the configuration says.
        python: the Python there.
        folder: where the private folder is made there; None: where that system has its temporary files.
    """

    host: str
    user: str | None = None
    port: int | None = None
    python: str = _PYTHON
    folder: str | None = None

    @classmethod
    def read(cls, text: str) -> Address:
        """Read one. Raises UserError: it is none."""
        parts = urlsplit(text)
        user, _, place = parts.netloc.rpartition("@")
        try:
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise _wrong(text, f"`{place}` has no port that is a number") from None
        host = place[: len(host)] if place.lower().startswith(host) else host  # names of a configuration have a case
        given = parse_qsl(parts.query, keep_blank_values=True)
        strange = next((name for name, _ in given if name not in _OPTIONS), None)
        if strange is not None:
            raise _wrong(text, f"there is no option `{strange}`", did_you_mean(strange, _OPTIONS))
        options = dict(given)
        python, folder = options.get("python", _PYTHON), options.get("folder")
        if not _HOST.fullmatch(host) or (user and not _USER.fullmatch(user)):
            raise _wrong(text, "it has no host" if not host else f"`{parts.netloc}` is not a host")
        if parts.path not in ("", "/") or parts.fragment:
            raise _wrong(text, f"`{parts.path}{parts.fragment}` follows the host")
        if not _PROGRAM.fullmatch(python) or folder == "":
            raise _wrong(text, f"`{python}` is not a path of a program" if folder != "" else "`folder` is empty")
        return cls(host, user or None, port, python, folder)

    def __str__(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{f'{self.user}@' if self.user else ''}{name}{f':{self.port}' if self.port else ''}"

    @property
    def name(self) -> str:
        """The address for a report: the machine, and its Python where that is a special one."""
        return f"ssh://{self}{'' if self.python == _PYTHON else f'?python={self.python}'}"

    @property
    def words(self) -> list[str]:
        """The address as arguments of `ssh`."""
        port = ["-p", str(self.port)] if self.port else []
        return [*port, "--", f"{self.user}@{self.host}" if self.user else self.host]


def _wrong(text: str, what: str, hint: str | None = None) -> UserError:
    return UserError(
        f"`{text}` is not an address of a machine: {what}",
        where="--target",
        hint=hint or "write ssh://user@host, ssh://user@host:2222 or ssh://host?python=~/venv/bin/python",
    )
