"""How long the command line takes to answer, in fresh processes.

    python benchmarks/startup.py [--rounds 20]

Three commands take turns, so that what the machine does meanwhile falls on all alike: Python doing nothing, which is
the floor; `bertshrink --help`; and a recipe with a misspelt key, which goes through the reader and the table of
techniques and ends with exit code 2. One round before counting fills the caches. Beside the time that passes is
the processor's, which a busy machine lengthens less. Prints a table and, as its last line, one JSON document with
every sample.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WRONG_RECIPE = "model: nowhere\nstages:\n  - distill: {layer: 3}\n"

Samples = dict[str, dict[str, list[float]]]


def answer(command: list[str], exit_code: int) -> dict[str, float]:
    """Seconds that one process took, by the wall and by the processor; anything but `exit_code` is an error."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != exit_code:
        raise SystemExit(f"{command} ended with {process.returncode}, not {exit_code}")
    return {"wall": wall_s, "cpu": usage.ru_utime + usage.ru_stime}


def measure(rounds: int, recipe: Path) -> Samples:
    """Command -> clock -> seconds of every process."""
    program = [sys.executable, "-m", "bertshrink"]
    commands = {
        "python -c pass": ([sys.executable, "-c", "pass"], 0),
        "bertshrink --help": ([*program, "--help"], 0),
        "bertshrink run WRONG.yaml": ([*program, "run", str(recipe)], 2),
    }
    found: Samples = {name: {"wall": [], "cpu": []} for name in commands}
    for number in range(rounds + 1):
        for name, (command, exit_code) in commands.items():
            taken = answer(command, exit_code)
            if number:
                for clock, seconds in taken.items():
                    found[name][clock].append(seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="processes per command (default: 20)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "wrong.yaml"
        recipe.write_text(WRONG_RECIPE, encoding="utf-8")
        found = measure(rounds, recipe)
    print(f"{'command':<27}{'wall median':>12}{'min':>9}{'cpu median':>12}{'min':>9}{'n':>5}")
    for name, clocks in found.items():
        figures = [f(clocks[clock]) for clock in ("wall", "cpu") for f in (statistics.median, min)]
        columns = "".join(f"{f'{1000 * s:.0f} ms':>{w}}" for s, w in zip(figures, (12, 9, 12, 9), strict=True))
        print(f"{name:<27}{columns}{rounds:>5}")
    machine = {"python": platform.python_version(), "system": platform.platform()}
    print(json.dumps({"benchmark": "startup", "unit": "s", "machine": machine, "samples": found}))


if __name__ == "__main__":
    main()
