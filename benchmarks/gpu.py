"""BERT base on a GPU: latency, throughput, memory and share of the peak, by precision and way of running.

    python benchmarks/gpu.py --out gpu-results [--batch 1,2,4,8,16,32,64] [--length 128] [--rounds 3]
                             [--ways "torch;torch:bfloat16,graphs"] [--onnx model.onnx]
    python benchmarks/gpu.py --out gpu-try --try

A classifier of BERT base's shape (12 layers, 768 wide; random weights serve for speed) in fresh processes, the ways in
the order A B C, then C B A: float32, TF32, float16 and bfloat16; eager, compiled by Inductor, as CUDA graphs, and both.
`--onnx` adds a file by ONNX Runtime's CUDA provider. `device` is CUDA's own clock around the forward pass, `whole` the
host's around a whole answer, copies included; `peak` what PyTorch's allocator gave to tensors. The roofs (products and
reads of the same GPU) are measured last. DIR/gpu.json and DIR/gpu.md are written again after every process, so that a
run that is cut off keeps what it had. The last line is one JSON document. Exit codes: 0; 6 without a CUDA GPU.

This script has never run on a GPU: it was written and tried on a machine without one. `--try` runs two layers and two
shapes on the processor, which shows that it works and nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertshrink import units
from bertshrink.meters.latency.engine_variants import expand_variants
from bertshrink.meters.latency.measure import alternating_order
from bertshrink.meters.latency.worker_result import WorkerResult
from bertshrink.meters.roofline.roofline import Roofline, roofline
from bertshrink.meters.targets.gpu import GpuRunner
from bertshrink.meters.targets.host import LocalRunner
from bertshrink.report.measurement import Conditions, Measurement
from bertshrink.worker.job import RunSpec, WorkerJob

WAYS = (
    *("torch", "torch:tf32", "torch:float16", "torch:bfloat16", "torch:float16,graphs", "torch:bfloat16,graphs"),
    *("torch:float16,compiled", "torch:bfloat16,compiled"),
    *("torch:float16,compiled,graphs", "torch:bfloat16,compiled,graphs"),
)
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TIMEOUT_S = 1800.0
"""A compiled way makes a program for each batch size, each in up to a minute."""


def make_model(folder: Path, num_layers: int) -> RunSpec:
    """A stock checkpoint of BERT base's shape with random weights."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=num_layers)
    BertForSequenceClassification(config).save_pretrained(folder)
    options = {"auto_class": "AutoModelForSequenceClassification", "outputs": ["logits"], "pooling": None}
    return RunSpec("torch", folder, options, "float32", config.vocab_size, INPUTS, config.max_position_embeddings)


def job_of(launch: RunSpec, batches: Sequence[int], length: int, seconds: float) -> WorkerJob:
    """One process: every batch size."""
    return WorkerJob(
        **vars(launch),
        cases=[{"batch": batch, "length": length} for batch in batches],
        seconds=seconds,
        warmup_seconds=seconds,
    )


def median_s(samples_ns: Sequence[int]) -> float:
    return statistics.median(samples_ns) * 1e-9


def rows_of(way: str, results: Sequence[WorkerResult]) -> list[dict[str, Any]]:
    """One row for each batch size: medians over the processes."""
    rows = []
    for cases in zip(*(result.cases for result in results), strict=True):
        whole = statistics.median(median_s(case.samples_ns) for case in cases)
        device = [median_s(case.device_ns) for case in cases if case.device_ns]
        steady = [result.device_bytes.get("steady", {}) for result in results]
        rows.append(
            {
                "way": way,
                "batch": cases[0].batch,
                "length": cases[0].length,
                "whole_s": whole,
                "device_s": statistics.median(device) if device else None,
                "tokens_per_s": cases[0].batch * cases[0].length / whole,
                "peak_bytes": max((each["allocated"] for each in steady if "allocated" in each), default=None),
                "driver_bytes": max((each["driver"] for each in steady if "driver" in each), default=None),
                "output_rms": cases[0].output_rms,
                "first_s": [result.clocks_ns["first"] * 1e-9 for result in results],
                "rounds_whole_s": [median_s(case.samples_ns) for case in cases],
                "rounds_device_s": device,
            }
        )
    return rows


def timings_of(rows: Sequence[Mapping[str, Any]], target: str) -> list[Measurement]:
    """The rows as the roofline takes them."""
    return [
        Measurement(
            metric="device_latency" if row["device_s"] else "latency",
            unit="s",
            better="lower",
            samples=tuple((value,) for value in row["rounds_device_s"] or row["rounds_whole_s"]),
            conditions=Conditions(target=target, batch=row["batch"], length=row["length"]),
        )
        for row in rows
    ]


def write(folder: Path, about: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], roofs: Roofline | None) -> None:
    """Both files, again."""
    found = {**about, "rows": list(rows)}
    if roofs is not None:
        found["machine"] = [m.model_dump(mode="json") for m in roofs.machine]
        found["shares"] = {name: notes for name, notes in roofs.notes.items() if notes}
    (folder / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = [f"# {about['gpu']}", "", f"{about['model']}; {about['software']}; {about['rounds']} processes each.", ""]
    lines += [
        "| way | batch x length | device | whole | tokens/s | peak of tensors |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        device, peak = row["device_s"], row["peak_bytes"]
        cells = [row["way"], f"{row['batch']}x{row['length']}", units.format(device, "s") if device else "-"]
        cells += [units.format(row["whole_s"], "s"), f"{row['tokens_per_s']:,.0f}"]
        lines.append(f"| {' | '.join([*cells, units.format(peak, 'B') if peak else '-'])} |")
    if roofs is not None:
        lines += ["", "Roofs:", ""]
        for m in roofs.machine:
            what = m.conditions.precision or m.conditions.phase
            lines.append(f"- {m.metric} {what} ({m.conditions.engine or 'memory'}): {units.format(m.value, m.unit)}")
        lines += ["", "Shares:", ""]
        lines += [f"- {name}, {note}" for name, notes in roofs.notes.items() for note in notes]
    (folder / "gpu.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(
    args: argparse.Namespace, runner: GpuRunner | LocalRunner, launches: Mapping[str, RunSpec], about: dict[str, Any]
) -> None:
    """Measure all ways in turn, then the roofs."""
    batches = [int(text) for text in args.batch.split(",")]
    found: dict[str, list[WorkerResult]] = {way: [] for way in launches}
    rows: list[dict[str, Any]] = []
    for number in range(args.rounds):
        for way in alternating_order(list(launches), number):
            found[way] += runner.run([job_of(launches[way], batches, args.length, args.seconds)], TIMEOUT_S)
            rows = [row for name, results in found.items() if results for row in rows_of(name, results)]
            write(args.out, about, rows, None)
            print(f"round {number + 1}: {way}", file=sys.stderr, flush=True)
    timings = {way: timings_of([row for row in rows if row["way"] == way], runner.name) for way in launches}
    write(args.out, about, rows, roofline(launches, timings, runner, 1))
    print((args.out / "gpu.md").read_text(encoding="utf-8"))
    print(json.dumps(json.loads((args.out / "gpu.json").read_text(encoding="utf-8"))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--batch", default="1,2,4,8,16,32,64")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--ways", help="semicolons between them, as --engine takes them", default=";".join(WAYS))
    parser.add_argument("--onnx", type=Path, help="a file of the same model")
    parser.add_argument("--try", action="store_true", dest="is_trial")
    args = parser.parse_args()
    runner: GpuRunner | LocalRunner = GpuRunner()
    if args.is_trial:
        runner, args.batch, args.length, args.rounds, args.ways = LocalRunner(), "1,2", 16, 2, "torch;torch:bfloat16"
        args.seconds = 0.05
    gpus = ("no GPU: a trial on the processor",) if args.is_trial else GpuRunner().devices("torch").gpus
    if not gpus:
        print("no CUDA GPU is visible here: nothing can be measured on one", file=sys.stderr)
        raise SystemExit(6)
    args.out.mkdir(parents=True, exist_ok=True)
    num_layers = 2 if args.is_trial else 12
    with tempfile.TemporaryDirectory() as scratch:
        model = make_model(Path(scratch), num_layers)
        launches = {
            way: launch
            for text in args.ways.split(";")
            for way, launch in ((text, expand_variants({"m": model}, [text], on_gpu=not args.is_trial)["m"]),)
        }
        if args.onnx is not None:
            launches["onnxruntime"] = RunSpec("onnxruntime", args.onnx.resolve(), {}, "float32", 30522, INPUTS, 512)
        machine = runner.environment()
        about = {
            "gpu": gpus[0],
            "model": f"BERT base's shape, {num_layers} layers, random weights",
            "software": ", ".join(f"{name} {version}" for name, version in sorted(machine.packages.items())),
            "environment": machine.model_dump(mode="json"),
            "rounds": args.rounds,
        }
        run(args, runner, launches, about)


if __name__ == "__main__":
    main()
