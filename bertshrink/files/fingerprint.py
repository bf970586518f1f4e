"""The fingerprint of whatever decides a result."""

from __future__ import annotations

import hashlib
import json
from typing import Any

STAGE_CARD = "stage.json"


def fingerprint(*parts: Any) -> str:
    """The sha256 of parts as JSON, 16 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
