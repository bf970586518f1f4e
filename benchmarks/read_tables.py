"""How long a table takes to be read, beside what `datasets` takes for the same file.

    python benchmarks/read_tables.py [--rows 200000] [--rounds 3]

Each reading is a process of its own; its processor time is what counts on a machine with company. `datasets` gets an
empty cache each time, as a user's first run has it, and the options with which bertshrink called it before.
"""

import argparse
import csv
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

OURS = """
from pathlib import Path
from bertshrink.data.readers import _read_table
from bertshrink.data.settings import DataSettings
def read(path): return len(_read_table(Path(path), DataSettings()))
"""
THEIRS = """
import datasets, tempfile
datasets.disable_progress_bars()
def read(path):
    kind = {"csv": "csv", "jsonl": "json", "parquet": "parquet"}[path.rpartition(".")[2]]
    more = {"keep_default_na": False, "na_filter": False, "encoding": "utf-8-sig"} if kind == "csv" else {}
    rows = datasets.load_dataset(kind, data_files=[path], split="train", cache_dir=tempfile.mkdtemp(), **more)
    return len({c: list(rows[c]) for c in rows.column_names}["text"])
"""
MEASURE = """
import resource, sys, time
wall, cpu = time.perf_counter(), time.process_time()
rows = read(sys.argv[1])
print(rows, time.perf_counter() - wall, time.process_time() - cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write(folder: Path, rows: int) -> list[Path]:
    draw = random.Random(0)
    words = ("the", "a", "of", "to", "and", "in", "is", "it", "that", "was", "for", "on", "are", "as", "with", "his")
    table = [
        (" ".join(draw.choices(words, k=12)) + (", quoted" if i % 7 == 0 else ""), draw.choice(("pos", "neg")))
        for i in range(rows)
    ]
    paths = [folder / f"t.{kind}" for kind in ("csv", "jsonl", "parquet")]
    with paths[0].open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *table])
    paths[1].write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in table))
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(
        pyarrow.table({"text": [row[0] for row in table], "label": [row[1] for row in table]}), paths[2]
    )
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for path in write(Path(folder), asked.rows):
            for name, code in (("bertshrink", OURS), ("datasets", THEIRS)):
                samples = []
                for _ in range(asked.rounds):
                    command = [sys.executable, "-c", code + MEASURE, str(path)]
                    samples.append([float(v) for v in subprocess.check_output(command, text=True).split()])
                rows, wall, cpu, memory = (statistics.median(values) for values in zip(*samples, strict=True))
                print(
                    f"{path.suffix:9} {name:11} {rows:9.0f} rows  {wall:6.2f} s  {cpu:6.2f} s of processor time  "
                    f"{memory / 1e3:5.0f} MB"
                )


if __name__ == "__main__":
    main()
