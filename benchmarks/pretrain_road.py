"""The first half of the road, from nothing: pre-train a small BERT on running text, then distill it to half its layers.

    python benchmarks/pretrain_road.py --data FOLDER [--epochs 1] [--student-epochs 0.08] [--out DIR]

FOLDER holds train.txt (and valid.txt): lines of text, documents apart by blank lines. A BERT of 4 layers, 128 wide,
with a WordPiece vocabulary of 8,192 tokens trained on the text, learns masked tokens and next sentences from rows of 64
tokens: small enough for the thousands of steps that the next sentence needs. Its student of 2 layers is taught as
DistilBERT was. Both run through `bertshrink`'s own commands. Printed: the curves' first and last points, masked
accuracy on the dev split of teacher, student and untrained student, seconds. With `--out`: curves.png and curves.json.
The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def command(*words: str) -> tuple[dict[str, Any], float]:
    """One command of bertshrink: its report, and the seconds that it took."""
    began = time.monotonic()
    argv = [sys.executable, "-m", "bertshrink", *words, "--no-latency", "--json"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout), time.monotonic() - began


def curve(history: list[dict[str, float]], name: str) -> tuple[float, float]:
    """Means of the first and of the last tenth of a curve."""
    values = [entry[name] for entry in history if name in entry]
    tenth = max(1, len(values) // 10)
    return statistics.mean(values[:tenth]), statistics.mean(values[-tenth:])


def figure(snapshot: dict[str, Any], metric: str) -> float:
    """One figure of a model."""
    return next(m["samples"][0][0] for m in snapshot["measurements"] if m["metric"] == metric)


def draw(folder: Path, teacher: list[dict[str, float]], student: list[dict[str, float]]) -> None:
    """The curves as one picture."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 3), layout="constrained")
    axes = picture.subplots(1, 3)
    for axis, history, name, title in (
        (axes[0], teacher, "mlm", "pre-training: masked tokens"),
        (axes[1], teacher, "nsp", "pre-training: next sentence"),
        (axes[2], student, "soft", "distillation: soft targets"),
    ):
        axis.plot([e["step"] for e in history if name in e], [e[name] for e in history if name in e])
        axis.set(title=title, xlabel="step")
    picture.savefig(folder / "curves.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--student-epochs", default="0.08")
    parser.add_argument("--learning-rate", default="1e-3")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = ["--data", args.data, "--runs", f"{scratch}/runs", "--seed", "0"]
        shape = ["--layers", "4", "--hidden-size", "128", "--heads", "2", "--vocab-size", "8192"]
        shape += ["--tokens-per-row", "64"]
        rate = ["--learning-rate", args.learning_rate]
        made, first = command("pretrain", *place, *shape, "--epochs", args.epochs, *rate, "-o", f"{scratch}/teacher")
        short = ["--max-length", "128", "--layers", "2", "--epochs", args.student_epochs]
        taught, second = command("distill", f"{scratch}/teacher", *place, *short, "-o", f"{scratch}/student")
    teacher = made["snapshots"][0]
    student, untrained = taught["snapshots"][1:3]
    found = {
        "mlm": curve(teacher["history"], "mlm"),
        "nsp": curve(teacher["history"], "nsp"),
        "soft": curve(student["history"], "soft"),
        "masked_accuracy": {
            "teacher": figure(taught["snapshots"][0], "masked_accuracy"),
            "student": figure(student, "masked_accuracy"),
            "untrained": figure(untrained, "masked_accuracy"),
        },
        "seconds": {"pretrain": round(first), "distill": round(second)},
        "notes": teacher["notes"] + student["notes"],
    }
    for name in ("mlm", "nsp", "soft"):
        print(f"{name:6} loss {found[name][0]:.3f} -> {found[name][1]:.3f} (means of the first and last tenth)")
    print("masked accuracy", {name: round(value, 4) for name, value in found["masked_accuracy"].items()})
    print(f"{first:.0f} s pretrain, {second:.0f} s distill: {(first + second) / 60:.1f} min in all")
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        draw(args.out, teacher["history"], student["history"])
        curves = {"teacher": teacher["history"], "student": student["history"]}
        (args.out / "curves.json").write_text(json.dumps(curves), encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
