"""A stand-in for `qemu-aarch64`: a script that runs the emulated program here and writes what a counting plugin would.

It does as QEMU does with what it is given: the version, the folder that is `/` to the program, the plugin's file.
"""

import json
import sys
import textwrap
from pathlib import Path

from bertshrink.files.atomic import new_folder
from bertshrink.meters.targets.arm64 import pins
from bertshrink.meters.targets.arm64.sysroot import ABOUT

PER_TOKEN = 1000
"""Instructions that the stand-in counts for a token."""

SCRIPT = """#!{python} -E
import json, os, subprocess, sys, time
words = sys.argv[1:]
if words == ["--version"]:
    print("qemu-aarch64 version {version} (Debian 1:{version})")
    raise SystemExit
guest = words[words.index("-L") + 1]
plugin = words[words.index("-plugin") + 1]
assert os.path.exists(plugin.split(",out=")[0])
assert os.environ["PYTHONHASHSEED"] == "0" and os.path.isdir(guest + "/site")
text = sys.stdin.buffer.read()
job = json.loads(text or b"{{}}")
out, marks = b"", []
if job:
    tokens = sum(len(row) for row in job["cases"][0]["batches"][0])
    marks = [50 + i * tokens * {per_token} for i in range(job["iterations"] + 1)]
    job["path"] = guest + job["path"]
    command = [sys.executable, "-P", guest + words[-1]]
    done = subprocess.run(command, input=json.dumps(job).encode(), capture_output=True, env={{}})
    sys.stderr.buffer.write(done.stderr)
    out = done.stdout
{behaviour}
sys.stdout.buffer.write(out)
with open(plugin.split(",out=")[1], "w") as file:
    file.write("".join(f"{{n}}\\n" for n in [*marks, (marks or [7])[-1] + 5]))
"""


def fake_qemu(folder: Path, behaviour: str = "", version: str = "7.2.22") -> Path:
    """Write the stand-in; `behaviour` is Python that may change `out` and `marks`, or end it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "qemu-aarch64"
    code = textwrap.dedent(behaviour)
    path.write_text(SCRIPT.format(python=sys.executable, version=version, per_token=PER_TOKEN, behaviour=code))
    path.chmod(0o755)
    return path


def fake_root(target: Path) -> Path:
    """A prepared and sealed system with nothing in it that could run."""
    with new_folder(target) as folder:
        for name in ("lib/a", "usr/bin/python3.11", "site/b"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        write_about(folder)
    return target


def write_about(folder: Path) -> None:
    debian = dict.fromkeys(pins.PACKAGES, "1.0")
    wheels = {w.name: w.version for w in pins.WHEELS}
    (folder / ABOUT).write_text(json.dumps({"debian": debian, "wheels": wheels}))
