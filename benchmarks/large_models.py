"""A model that one ONNX file cannot hold (XLM-R large: 2.24 GB in float32), through every command: time, memory, bytes.

    python benchmarks/large_models.py --work DIR [--task embedding] [--steps NAME ...] [--optimum PYTHON]

The model is a stock XLM-RoBERTa of 24 layers, 1024 wide, with 250,002 pieces, of random weights and saved in DIR once,
with a Unigram tokenizer as large. Random numbers take the bytes and the time of trained ones; cosines after
quantization say nothing of real models, so `--min-cosine` is off. Each step is one command of bertshrink in a process
of its own, on DIR/TASK or on what the step before wrote:

    export          float32, in two files             int8         dynamic int8 of the float file
    export-ort      .ort of the encoder: refused      int8-int4    the same with tables in 4 bits
    int8-ort        .ort of the int8 file             block-int8, block-int4, static-int8, float16, bfloat16
    fixed           the float file at 1x128           smooth       static int8 with SmoothQuant
    foreign         int8 of the float file without its card and manifest, as of another exporter
    inspect         of the float file                 encode       ONNX Runtime, OpenVINO and, with `--optimum`, the
                                                                   ONNX backend of sentence-transformers, beside PyTorch

Told of each: seconds, exit code, the most memory that any of its processes had resident (VmHWM, by wait4) and all of
them together (sampled 20 times a second), both also as multiples of the weights, and the bytes of the files that it
wrote. `--optimum` names a Python of an environment with optimum-onnx (see `loaders.py`). The last line is one JSON
document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

VOCABULARY, WIDTH, LAYERS = 250_002, 1024, 24
KINDS = {"embedding": "XLMRobertaModel", "classification": "XLMRobertaForSequenceClassification"}
"""Task -> the model's class."""
TEXTS = ["A surprisingly good film.", "Prices rose by 3.5 % in 2019; wages did not.", "東京は大きい。 Ça va?"]

_ANY = ["--min-cosine", "-1"]
STEPS: dict[str, tuple[str, list[str]]] = {
    # name: what it is done with, and the command
    "export": ("TASK", ["export"]),
    "export-ort": ("TASK", ["export", "--to", "ort"]),
    "inspect": ("export", ["inspect", "--json"]),
    "int8": ("export", ["quantize", *_ANY]),
    "int8-int4": ("export", ["quantize", "--embeddings", "int4", *_ANY]),
    "int8-ort": ("int8", ["export", "--to", "ort"]),
    "block-int8": ("export", ["quantize", "--scheme", "block-int8", *_ANY]),
    "block-int4": ("export", ["quantize", "--scheme", "block-int4", *_ANY]),
    "static-int8": ("export", ["quantize", "--scheme", "static-int8", *_ANY]),
    "smooth": ("export", ["quantize", "--scheme", "static-int8", "--smoothquant-alpha", "0.5", *_ANY]),
    "float16": ("TASK", ["export", "--precision", "float16"]),
    "bfloat16": ("export", ["quantize", "--scheme", "bfloat16", *_ANY]),
    "fixed": ("export", ["export", "--static-shape", "1x128"]),
    "foreign": ("FOREIGN", ["quantize", *_ANY]),
    "encode": ("export", []),
}

_ENCODE = """
import json, sys
import numpy as np
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], backend="onnx", model_kwargs={"file_name": "onnx/model.onnx"})
json.dump(model.encode(json.loads(sys.argv[2])).tolist(), sys.stdout)
"""


def make_model(folder: Path, task: str) -> None:
    """Save the model; a sentence encoder with sentence-transformers' mean pooling."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = [
        chr(code) for code in (*range(33, 127), *range(160, 1200), *range(0x3040, 0x30FF), *range(0x4E00, 0x9FFF))
    ]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *letters, *(f"▁{letter}" for letter in letters)]
    pieces += [f"▁w{number:x}" for number in range(VOCABULARY - 1 - len(pieces))] + ["<mask>"]
    tokenizer = Tokenizer(models.Unigram([(piece, -0.0001 * at) for at, piece in enumerate(pieces)], unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    special = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    special |= {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, model_input_names=["input_ids", "attention_mask"], **special
    )
    torch.manual_seed(0)
    config = transformers.XLMRobertaConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=16,
        intermediate_size=4 * WIDTH,
        vocab_size=VOCABULARY,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=2,
    )
    model = getattr(transformers, KINDS[task])(config)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    if task == "embedding":
        kind = "sentence_transformers.models"
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": f"{kind}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kind}.Pooling"},
        ]
        pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}
        (folder / "1_Pooling").mkdir()
        for name, value in (
            ("modules.json", modules),
            ("1_Pooling/config.json", pooling),
            ("sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False}),
        ):
            (folder / name).write_text(json.dumps(value), encoding="utf-8")


class Watch:
    """The memory of a process and its children together, sampled while it runs."""

    def __init__(self, pid: int) -> None:
        self.pid, self.peak, self._is_over = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        import psutil

        while not self._is_over.wait(0.05):
            total = 0
            try:
                root = psutil.Process(self.pid)
                for process in (root, *root.children(recursive=True)):
                    total += process.memory_info().rss
            except psutil.Error:
                pass  # one that has just ended; the sum so far still counts
            self.peak = max(self.peak, total)

    def end(self) -> int:
        self._is_over.set()
        self._thread.join()
        return self.peak


def measured(argv: list[str], log: Path) -> dict[str, Any]:
    """Run a command; seconds, exit code, memory and the end of what it said on stderr."""
    began = time.monotonic()
    with log.open("wb") as err, log.with_suffix(".out").open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=err)
        watch = Watch(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
    together = watch.end()
    process.returncode = os.waitstatus_to_exitcode(status)
    said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return {
        "seconds": round(time.monotonic() - began, 1),
        "exit_code": process.returncode,
        "one_process_bytes": usage.ru_maxrss * 1024,
        "together_bytes": together,
        "said": [line for line in said if line.startswith(("error", "hint"))] if process.returncode else [],
    }


def files_of(folder: Path) -> dict[str, int]:
    """The files of a model that was written, by name, without its papers."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name in ("onnx", "executorch"))
    return {path.name: path.stat().st_size for path in found}


def encode(model: Path, made: Path, optimum: str | None) -> dict[str, Any]:
    """The least cosine of a file's vectors or logits with PyTorch's, by library."""
    import numpy as np

    from bertshrink.model.artifact import Artifact
    from bertshrink.model.model_ref import ModelRef
    from bertshrink.model.tasks import TASKS

    artifact = Artifact.load(made)
    (name,) = TASKS[artifact.task].outputs

    def by(engine: str, **options: Any) -> Any:
        rows = artifact.with_engine(engine, options).predict(artifact.tokenize(TEXTS))
        return np.stack([row[name] for row in rows])

    ours = {"onnxruntime": by("onnxruntime"), "openvino": by("openvino", precision="float32")}
    encoder: Any = ModelRef.read(model).load()
    theirs = np.stack([row[name] for row in encoder.predict(encoder.tokenize(TEXTS))])

    def least(mine: Any) -> float:
        norms = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
        return float(((mine * theirs).sum(axis=1) / norms).min())

    cosines: dict[str, Any] = {engine: least(vectors) for engine, vectors in ours.items()}
    if optimum is not None and artifact.task == "embedding":
        done = subprocess.run(
            [optimum, "-c", _ENCODE, str(made), json.dumps(TEXTS)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            return cosines | {"failure": (done.stderr.strip().splitlines() or ["no word"])[-1]}
        cosines["sentence-transformers, backend onnx"] = least(np.array(json.loads(done.stdout)))
    return cosines


def one(step: str, task: str, work: Path, optimum: str | None) -> dict[str, Any]:
    """Do a step and tell what it took."""
    source, command = STEPS[step]
    place = work / task if source == "TASK" else work / f"{task}-{source}"
    if source == "FOREIGN" and not place.exists():
        own = shutil.ignore_patterns("artifact.json", "MANIFEST.json", "stage.json", "report.json")
        shutil.copytree(work / f"{task}-export", place, ignore=own)
    if not command:
        return encode(work / task, place, optimum)
    out, runs = work / f"{task}-{step}", work / "runs"
    for left in (out, runs):
        shutil.rmtree(left, ignore_errors=True)
    argv = [sys.executable, "-m", "bertshrink", command[0], str(place), *command[1:]]
    if command[0] != "inspect":
        argv += ["--runs", str(runs), "-o", str(out), "-q"]
    told = measured(argv, work / f"{task}-{step}.log")
    shutil.rmtree(runs, ignore_errors=True)
    return told | {"files": files_of(out) if out.is_dir() else {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--task", choices=KINDS, default="embedding")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--optimum", metavar="PYTHON")
    parser.add_argument("--make", action="store_true", help="save the model only: a process of its own calls it")
    args = parser.parse_args()
    model = args.work / args.task
    if not model.exists():
        if args.make:
            make_model(model, args.task)
            return
        again = [sys.executable, __file__, "--work", str(args.work), "--task", args.task, "--make"]
        subprocess.run(again, check=True)
    weights = (model / "model.safetensors").stat().st_size
    found: dict[str, Any] = {"task": args.task, "weights_bytes": weights, "steps": {}}
    for step in args.steps:
        told = found["steps"][step] = one(step, args.task, args.work, args.optimum)
        if "seconds" not in told:
            print(f"{step:12} {told}", flush=True)
            continue
        shown = " ".join(f"{name} {size:,}" for name, size in told["files"].items())
        memory = " ".join(
            f"{told[name] / 1e9:.2f} GB ({told[name] / weights:.2f}x)"
            for name in ("one_process_bytes", "together_bytes")
        )
        print(
            f"{step:12} {told['seconds']:7.1f} s exit {told['exit_code']} {memory} {shown}", *told["said"], flush=True
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
