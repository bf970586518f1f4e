"""What export and quantization give: bertshrink beside optimum-onnx, plain ONNX Runtime, OpenVINO and NNCF.

    python benchmarks/export_quantize.py --teacher FOLDER --data FOLDER [--models sst2 bert-base albert-base]
        [--optimum PYTHON] [--nncf PYTHON] [--rounds 9] [--threads 2] [--cache FOLDER]

Models: `sst2`, the fine-tuned classifier that `--teacher` names, judged on the dev split of `--data`; `bert-base` and
`albert-base`, classifiers of those shapes with random weights and the teacher's tokenizer, for bytes, time and memory.

    torch            PyTorch, float32
    fp32, int8, int8-static, int4                  bertshrink's files, ONNX Runtime
    optimum-fp32     optimum-onnx's export                 optimum-int8         its `--avx512_vnni --per_channel`
    naive-int8       PyTorch's dynamo export, quantized as ONNX Runtime's documentation says
    openvino-fp32    bertshrink's float32 file, OpenVINO   openvino-auto        what `quantize --auto` picks (sst2 only)
    nncf-int8        the same quantized by NNCF with 300 real texts, OpenVINO

optimum-onnx and NNCF are run in environments of their own, whose Python is named (`pip install
'optimum-onnx[onnxruntime]' accelerate`, and `pip install nncf openvino`); without it they are left out, and that is
said. What is made is kept below `--cache` and made once. bertshrink's own files are made by its command line in a fresh
process whose wall time and peak memory are shown.

Times: all files are open in one process, take their turn in every round (A B C, then C B A), and ratios are formed
round by round. Output: a table for each model, and as the last line one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SHAPES = ((8, 128), (1, 128))
SIZES: dict[str, dict[str, Any]] = {
    "bert-base": {"architecture": "BertForSequenceClassification", "model_type": "bert"},
    "albert-base": {
        "architecture": "AlbertForSequenceClassification",
        "model_type": "albert",
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
}
OURS = {
    "fp32": ("export",),
    "int8": ("quantize",),
    "int8-static": ("quantize", "--scheme", "static-int8"),
    "int4": ("quantize", "--scheme", "block-int4"),
}
CHOSEN = ("quantize", "--auto", "--engine", "openvino")


@dataclass
class Contender:
    """One file, and what was found out about it."""

    name: str
    engine: str
    path: Path
    options: dict[str, Any] = field(default_factory=dict)
    size_bytes: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)


def sized(name: str, teacher: Path, cache: Path) -> Path:
    """A model of a known shape with random weights, as a stock checkpoint with the teacher's tokenizer."""
    folder = cache / name / "model"
    if not folder.exists():
        import torch
        import transformers

        sizes = dict(SIZES[name])
        architecture = sizes.pop("architecture")
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(teacher))
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(**sizes, vocab_size=len(tokenizer), num_labels=2)
        getattr(transformers, architecture)(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def watched(command: list[str], log: Path, environment: dict[str, str] | None = None) -> dict[str, float]:
    """Run a command; its wall time, and the peak memory of it and its children one at a time."""
    start = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | (environment or {}))
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{log.read_text()[-3000:]}")
    return {"seconds": time.perf_counter() - start, "peak_bytes": usage.ru_maxrss * 1024}


def ours(name: str, command: tuple[str, ...], model: Path, cache: Path, data: str | None) -> Contender:
    """A file that bertshrink's command line makes."""
    folder = cache / name
    kept = folder.with_suffix(".json")
    if not kept.exists():
        texts = ["--data", data] if data else []
        call = [sys.executable, "-m", "bertshrink", *command[:1], str(model), *command[1:], *texts]
        runs = ["--runs", str(cache / "runs"), "--no-latency", "--quiet", "--force"]
        made = watched([*call, "-o", str(folder), *runs], folder.with_suffix(".log"), {"PYTHONPATH": str(ROOT)})
        kept.write_text(json.dumps(made))
    card = json.loads((folder / "artifact.json").read_text())
    made = {f"made_{key}": value for key, value in json.loads(kept.read_text()).items()}
    return Contender(name, card["engine"], folder / card["file"], card.get("options", {}), figures=made)


def optimum(python: str, model: Path, cache: Path) -> list[Contender]:
    """optimum-onnx's own route, in its own environment."""
    plain, small, cli = cache / "optimum", cache / "optimum-int8", str(Path(python).parent / "optimum-cli")
    if not (small / "model_quantized.onnx").exists():
        log = cache / "optimum.log"
        watched([cli, "export", "onnx", "-m", str(model), "--task", "text-classification", str(plain)], log)
        preset = ["--avx512_vnni", "--per_channel"]
        watched([cli, "onnxruntime", "quantize", "--onnx_model", str(plain), "-o", str(small), *preset], log)
    return [
        Contender("optimum-fp32", "onnxruntime", plain / "model.onnx"),
        Contender("optimum-int8", "onnxruntime", small / "model_quantized.onnx"),
    ]


def naive(model: Path, cache: Path) -> Contender:
    """The documented way with nothing else: PyTorch's exporter, then ONNX Runtime's `quantize_dynamic`."""
    path = cache / "naive-int8.onnx"
    if not path.exists():
        import onnx
        import torch
        import transformers
        from onnxruntime.quantization import QuantType, quantize_dynamic

        net = transformers.AutoModelForSequenceClassification.from_pretrained(str(model)).eval()
        names = ("input_ids", "attention_mask", "token_type_ids")
        feeds = dict.fromkeys(names, torch.ones(2, 16, dtype=torch.int64))
        dynamic = {name: {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for name in names}
        plain = cache / "naive-fp32.onnx"
        torch.onnx.export(
            net,
            (),
            str(plain),
            kwargs=feeds,
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=list(names),
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )
        graph = onnx.load(str(plain))
        del graph.graph.value_info[:]  # with it `quantize_dynamic` fails on this exporter's files
        onnx.save(graph, str(plain))
        quantize_dynamic(str(plain), str(path), weight_type=QuantType.QInt8, per_channel=True)
    return Contender("naive-int8", "onnxruntime", path)


def nncf(python: str, float_file: Path, rows: list[dict[str, Any]], cache: Path) -> Contender:
    """NNCF's post-training int8 of a float32 file, calibrated on real rows."""
    path = cache / "nncf-int8.xml"
    if not path.exists():
        calibration = cache / "calibration.json"
        calibration.write_text(json.dumps([{key: value.tolist() for key, value in row.items()} for row in rows[:300]]))
        script = str(ROOT / "benchmarks" / "nncf_int8.py")
        watched([python, script, str(float_file), str(calibration), str(path)], cache / "nncf.log")
    return Contender("nncf-int8", "openvino", path)


def rows_of(artifact: Any, data: str | None, num: int | None = None) -> tuple[list[dict[str, Any]], list[str] | None]:
    """Real texts, one row per text, and their labels."""
    from bertshrink.data.load import load
    from bertshrink.data.settings import DataSettings

    texts = load(DataSettings(path=data or "builtin:pydoc"))
    side = texts.dev.take(range(min(len(texts.dev), num or len(texts.dev))))
    rows = artifact.tokenize(side.texts, side.pairs, 128)
    feeds = [{name: np.array([values], dtype=np.int64) for name, values in row.items()} for row in rows]
    return feeds, None if side.labels is None else [str(label) for label in side.labels]


def answers(session: Any, rows: list[dict[str, Any]]) -> np.ndarray:
    return np.concatenate([next(iter(session.run(row).values())) for row in rows]).astype(np.float64)


def judge(contenders: list[Contender], sessions: dict[str, Any], artifact: Any, data: str | None) -> None:
    """Agreement with the float32 file on real text, and accuracy where the texts are labelled."""
    rows, labels = rows_of(artifact, data, None if data else 32)
    theirs = answers(sessions["fp32"], rows)
    for contender in contenders:
        found = answers(sessions[contender.name], rows)
        norms = np.linalg.norm(found) * np.linalg.norm(theirs)
        contender.figures["cosine"] = float((found * theirs).sum() / norms)
        contender.figures["same_class"] = float((found.argmax(-1) == theirs.argmax(-1)).mean())
        if labels is not None:
            names = artifact.labels
            hits = [names[at] == label or str(at) == label for at, label in zip(found.argmax(-1), labels, strict=True)]
            contender.figures["accuracy"] = float(np.mean(hits))


def clock(contenders: list[Contender], sessions: dict[str, Any], rounds: int, vocab: int, seconds: float) -> None:
    """Time all files, interleaved; a round's figure is the median of its samples."""
    generator = np.random.default_rng(0)
    for batch, length in SHAPES:
        ids = generator.integers(5, vocab, (batch, length))
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        for contender in contenders:
            sessions[contender.name].run(feeds)
        for number in range(rounds):
            for contender in contenders if number % 2 == 0 else contenders[::-1]:
                session, samples, until = sessions[contender.name], [], time.perf_counter() + seconds
                while len(samples) < 3 or time.perf_counter() < until:
                    start = time.perf_counter()
                    session.run(feeds)
                    samples.append(time.perf_counter() - start)
                contender.seconds.setdefault(f"{batch}x{length}", []).append(statistics.median(samples))


def open_all(contenders: list[Contender], threads: int) -> dict[str, Any]:
    from bertshrink.engines import engine

    return {c.name: engine(c.engine).load(str(c.path), threads, c.options) for c in contenders}


def table(name: str, contenders: list[Contender]) -> None:
    by_name = {contender.name: contender for contender in contenders}
    reference, small = by_name["fp32"], by_name["int8"]
    shapes = [f"{batch}x{length}" for batch, length in SHAPES]
    print(f"\n{name}: bytes against fp32; ms as the median over rounds; in brackets int8's time as a share of it")
    print(f"{'':15s} {'MB':>7s} {'bytes':>7s} {'accuracy':>8s} {'cosine':>7s} {'same':>7s}", end="")
    print("".join(f" {shape:>19s}" for shape in shapes))
    for contender in contenders:
        figures = contender.figures
        share = contender.size_bytes / reference.size_bytes
        line = f"{contender.name:15s} {contender.size_bytes / 1e6:7.2f} {share:6.3f}x"
        line += "".join(
            f" {figures[key]:{width}.4f}" if key in figures else " " * (width + 1)
            for key, width in (("accuracy", 8), ("cosine", 7), ("same_class", 7))
        )
        for shape in shapes:
            ratios = [a / b for a, b in zip(small.seconds[shape], contender.seconds[shape], strict=True)]
            line += f" {statistics.median(contender.seconds[shape]) * 1e3:9.2f} ({statistics.median(ratios):6.3f}x)"
        print(line)
    for contender in contenders:
        if "made_seconds" in contender.figures:
            seconds, peak = contender.figures["made_seconds"], contender.figures["made_peak_bytes"]
            share = peak / reference.size_bytes
            print(f"made {contender.name}: {seconds:.1f} s, peak {peak / 1e6:.0f} MB ({share:.2f}x of fp32's bytes)")


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One model, all contenders."""
    from bertshrink.model.artifact import Artifact

    cache = Path(args.cache) / name
    cache.mkdir(parents=True, exist_ok=True)
    teacher = Path(args.teacher)
    is_real = name == "sst2"
    model, data = (teacher, args.data) if is_real else (sized(name, teacher, Path(args.cache)), None)
    contenders = [Contender("torch", "torch", model, {"auto_class": "AutoModelForSequenceClassification"})]
    freely = () if is_real else ("--min-cosine", "0")  # random weights are made for speed, not for 4 bits
    contenders += [
        ours(key, (*command, *(freely if command[0] == "quantize" else ())), model, cache, data)
        for key, command in OURS.items()
    ]
    float_file = cache / "fp32" / "model.onnx"
    artifact = Artifact.load(cache / "fp32")
    if args.optimum:
        contenders += optimum(args.optimum, model, cache)
    contenders.append(naive(model, cache))
    if args.nncf:
        contenders.append(Contender("openvino-fp32", "openvino", float_file))
        if is_real:
            contenders.append(ours("openvino-auto", CHOSEN, model, cache, data))
        contenders.append(nncf(args.nncf, float_file, rows_of(artifact, data, 300)[0], cache))
    for contender in contenders:
        files = [contender.path, contender.path.with_suffix(".bin")]
        if contender.path.is_dir():
            files = [contender.path / "model.safetensors"]
        contender.size_bytes = sum(path.stat().st_size for path in files if path.is_file())
    sessions = open_all(contenders, args.threads)
    judge(contenders, sessions, artifact, data)
    clock(contenders, sessions, args.rounds, artifact.card.vocab_size, args.seconds)
    table(name, contenders)
    return {contender.name: asdict(contender) | {"path": contender.path.name} for contender in contenders}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", nargs="+", default=["sst2", *SIZES], choices=["sst2", *SIZES])
    parser.add_argument("--optimum", help="the Python of an environment with optimum-onnx")
    parser.add_argument("--nncf", help="the Python of an environment with NNCF and OpenVINO")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="sampling time per file, shape and round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", default="runs/.benchmarks/export_quantize")
    args = parser.parse_args()
    for name, given in (("optimum", args.optimum), ("nncf", args.nncf)):
        if not given:
            print(f"{name}: left out, no Python was named")
    found = {name: measure(name, args) for name in args.models}
    print(json.dumps({"threads": args.threads, "rounds": args.rounds, "models": found}))


if __name__ == "__main__":
    main()
