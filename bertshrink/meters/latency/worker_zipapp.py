"""The worker as one file: `bertshrink.worker` and `bertshrink.engines` in a zip that Python runs (PEP 441).

The same bytes run in a fresh process here, under an emulator, on another machine, in whatever Python is there; they
are the same for the same sources, so a machine that has them already needs no second copy.
"""

from __future__ import annotations

import io
import zipfile
from functools import cache

from bertshrink.version import PACKAGE

NAME = "bertshrink-worker.pyz"
_ROOMS = ("worker", "engines")
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date a zip can hold: one date for all, so that equal sources give equal bytes."""

_START = """import sys
if sys.version_info < (3, 10):
    sys.exit("the worker needs Python 3.10 or newer, and this is " + sys.version.split()[0])
sys.dont_write_bytecode = True
from bertshrink.worker.__main__ import main
main()
"""


@cache
def build_worker() -> bytes:
    """The file's bytes."""
    files = {"__main__.py": _START, "bertshrink/__init__.py": ""}
    for room in _ROOMS:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            files[f"bertshrink/{path.relative_to(PACKAGE).as_posix()}"] = path.read_text(encoding="utf-8")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text)
    return buffer.getvalue()
