"""A made-up `nvidia-smi` on the PATH: answers what the worker asks, and writes down how it was asked."""

import textwrap
from pathlib import Path


def install(folder: Path, answers: dict[str, str], monkeypatch) -> Path:
    """Put it first on the PATH; it gives the first answer whose key is in its arguments, else fails.

    Returns the file that it writes its arguments to.
    """
    program, log = folder / "nvidia-smi", folder / "asked"
    program.write_text(
        textwrap.dedent(
            f"""\
            #!/bin/sh
            echo "$@" >> {log}
            case "$*" in
            {{cases}}
            *) echo "Field is not a valid field to query." >&2; exit 2;;
            esac
            """
        ).format(cases="\n".join(f"*'{key}'*) printf '{text}';;" for key, text in answers.items()))
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return log
