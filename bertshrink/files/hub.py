"""Names that may be paths or names on the hub; whether the hub can be reached."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bertshrink.command_scope import at_end, once
from bertshrink.errors import UserError

REACH_TIMEOUT_S = 4.0
"""A connection to the hub takes well under a second where there is one."""


def local_path(name: str) -> Path:
    """The place that a name means, its `~` resolved where that is possible.

    Raises:
        UserError: no place can have this name.
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # `~nobody`
        path = Path(name)
    try:
        path.exists()
    except OSError as error:
        text = f"`{name[:40]}...` cannot be a path: {error.strerror}"
        raise UserError(text, hint="check the path") from None
    return path


def hub_is_reachable() -> bool:
    """Try once in a command whether the hub (or the proxy on the way) answers; if not, its libraries stay offline."""
    return once("hub", (), _try_hub)


def _try_hub() -> bool:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    import socket
    from urllib.parse import urlparse

    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    target = urlparse(proxy or os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    port = target.port or (80 if target.scheme == "http" else 443)
    try:
        socket.create_connection((target.hostname or "huggingface.co", port), timeout=REACH_TIMEOUT_S).close()
    except OSError:
        go_offline()
        return False
    return True


def go_offline() -> None:
    """Have huggingface_hub and datasets look only into their caches, till the command ends: they would otherwise retry
    for a minute.
    """
    before = os.environ.get("HF_HUB_OFFLINE")
    _set_offline("1")
    at_end(lambda: _set_offline(before))


def _set_offline(value: str | None) -> None:
    os.environ.pop("HF_HUB_OFFLINE", None)
    if value is not None:
        os.environ["HF_HUB_OFFLINE"] = value
    for name in ("huggingface_hub.constants", "datasets.config"):
        module = sys.modules.get(name)
        if module is not None and hasattr(module, "HF_HUB_OFFLINE"):
            module.HF_HUB_OFFLINE = value == "1"  # type: ignore[attr-defined]
