"""Every time carries the fingerprint of the machine and the software that it was taken on.

Times of two environments with the same `id` may be compared; others must not be, unless that is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from bertshrink.report.measurement import Environment
from bertshrink.worker.machine.identity import machine


def environment(description: Mapping[str, Any] | None = None) -> Environment:
    """What a machine says of itself, with its fingerprint; this machine's when nothing is given.

    Raises:
        pydantic.ValidationError: what is given is not what `worker.machine.identity` gives.
    """
    about = Environment.model_validate({"id": "", **(_this_machine() if description is None else description)})
    return about.model_copy(update={"id": fingerprint(about)})


def _this_machine() -> dict[str, Any]:
    description = machine()
    if not description["memory_bytes"]:
        import psutil

        description["memory_bytes"] = psutil.virtual_memory().total
    return description


def fingerprint(about: Environment) -> str:
    """12 hexadecimal digits of a sha256 over what decides speed: everything, memory rounded to GiB."""
    decisive = about.model_dump(mode="json", exclude={"id"}) | {"memory_bytes": round(about.memory_bytes / 2**30)}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]
