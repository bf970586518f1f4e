"""The command line: argv -> one call -> print -> exit code. The only place that prints or exits.

Commands that make a model (`distill`, `export`, ...) are built from `recipe.commands.COMMANDS`: each field of a
technique is a flag. Nothing heavy is imported until a command runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

_SETTINGS = {
    "PYDANTIC_DISABLE_PLUGINS": "__all__",  # looking for plugins reads every package's metadata
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Environment variables of the program, and of those it starts; a caller of the Python API keeps his own."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code (see `errors` and docs/architecture.md for the codes)."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    _fill_gaps()
    from bertshrink.cli.app import run

    sys.exit(run(list(sys.argv[1:] if argv is None else argv)))


def _fill_gaps() -> None:
    """Where stdin, stdout or stderr is closed, the next file that is opened would get its number and its output."""
    for handle in range(3):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
