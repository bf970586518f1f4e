"""What narrow embedding tables cost, on texts of another kind than those they were calibrated with.

    python benchmarks/factorize_ranks.py --data FILE --judge sst2=FOLDER --judge pydoc=builtin:pydoc \\
        [--model sentence-transformers/all-MiniLM-L6-v2] [--ranks 64,96,128,192,256]
        [--recover 128] [--seconds 300] [--depth 2]
    python benchmarks/factorize_ranks.py --convert

The first form factorizes the model to each rank, calibrated on the texts of `--data`, and prints the mean cosine of its
last hidden states (tokens) and of mean-pooled sentence vectors with the given model, on up to 500 texts of each
`--judge`. `--recover` then trains the embeddings of that rank on the texts of `--data`, without labels, by the hidden
states of the first `--depth` layers, for as many texts as fit into `--seconds` at the speed of short trials.

The second form converts a BERT of base size (12 layers, 768 wide, random weights) to rank 128 in a fresh process, and
prints seconds, and the peak of memory above what was there before the model was loaded, in models.

The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from bertshrink.data.load import load
from bertshrink.data.settings import DataSettings
from bertshrink.data.texts import Split, TextDataset
from bertshrink.model.batches import Row, batch_by_length, tensors
from bertshrink.model.encoder import Encoder
from bertshrink.model.quiet import quiet_libraries
from bertshrink.sources.resolve import locate_model
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.factorize import Factorize

MOST_JUDGED = 500
TRIAL = 640
"""Texts whose recovery is timed, to know how many fit into the time."""
MARGIN = 0.95
"""Share of the time that is planned for: a run is not as fast as its trial to the second."""


@torch.no_grad()
def vectors(encoder: Encoder, rows: list[Row]) -> tuple[Tensor, Tensor]:
    """(tokens, H) last hidden states and (rows, H) their means, row after row of each batch."""
    base: Any = encoder.model.base_model
    tokens, sentences = [], []
    for batch in batch_by_length([len(row["input_ids"]) for row in rows], 4096):
        block = tensors([rows[i] for i in batch])
        mask_BL = block["attention_mask"].bool()
        states_BLH = base(**block).last_hidden_state
        tokens.append(states_BLH[mask_BL])
        sentences.append((states_BLH * mask_BL[..., None]).sum(1) / mask_BL.sum(1, keepdim=True))
    return torch.cat(tokens), torch.cat(sentences)


def likeness(
    encoder: Encoder, judges: dict[str, list[Row]], wanted: dict[str, tuple[Tensor, Tensor]]
) -> dict[str, Any]:
    """Mean cosine of tokens and of sentences with the given model's, on each judge's texts."""
    found = {}
    for name, rows in judges.items():
        mine = vectors(encoder, rows)
        pairs = zip(mine, wanted[name], strict=True)
        found[name] = [round(float(cosine_similarity(a, b, dim=1).mean()), 4) for a, b in pairs]
    return found


def bench_for(encoder: Encoder, texts: TextDataset, folder: str) -> Workbench:
    """A bench with the given model as teacher."""
    return Workbench(texts, encoder, Path(folder), task=encoder.task, max_length=128)


def recovered(teacher: Encoder, narrow: Encoder, texts: TextDataset, number: int, depth: int) -> tuple[Encoder, float]:
    """The narrow model after its embeddings learnt from so many texts, and the seconds that took."""
    few = replace(texts, train=Split(texts.train.texts[:number]))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, torch.enable_grad():
        settings = Distill(epochs=1, trainable="embeddings", match_layers=depth)
        student = settings(narrow.copy(), bench_for(teacher, few, folder))
    assert isinstance(student, Encoder)
    return student, time.monotonic() - began


def affordable(teacher: Encoder, narrow: Encoder, texts: TextDataset, seconds: float, depth: int) -> int:
    """How many texts a recovery of so many seconds can read, by short trials.

    Two are compared, because a recovery takes a while before its first step, and one would count that with every text.
    """
    sizes = [min(len(texts.train), size) for size in (TRIAL // 10, TRIAL, 3 * TRIAL)]
    _, short, longer = (recovered(teacher, narrow, texts, size, depth)[1] for size in sizes)  # the first one warms up
    per_text = (longer - short) / max(1, sizes[2] - sizes[1])
    return max(1, int(sizes[1] + (MARGIN * seconds - short) / max(per_text, 1e-3)))


def ranks(args: argparse.Namespace) -> dict[str, Any]:
    """The table of ranks, and the recovery."""
    teacher = Encoder.load(locate_model(args.model), "embedding", args.model)
    texts = load(DataSettings(path=args.data))
    judges = {}
    for judge in args.judge:
        name, _, path = judge.partition("=")
        judges[name] = teacher.tokenize(list(load(DataSettings(path=path)).dev.texts[:MOST_JUDGED]), None, 128)
    wanted = {name: vectors(teacher, rows) for name, rows in judges.items()}
    found: dict[str, Any] = {"ranks": {}}
    print("rank  seconds  " + "  ".join(f"{name + ' token/sentence':>22}" for name in judges))
    narrow = {}
    for rank in [int(part) for part in args.ranks.split(",")]:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            model = Factorize(rank=rank)(teacher.copy(), bench_for(teacher, texts, folder))
        assert isinstance(model, Encoder)
        narrow[rank], seconds = model, time.monotonic() - began
        like = likeness(model, judges, wanted)
        found["ranks"][rank] = {"seconds": round(seconds, 1), **like}
        shown = "  ".join(f"{'/'.join(f'{value:.4f}' for value in pair):>22}" for pair in like.values())
        print(f"{rank:>4}  {seconds:>7.1f}  {shown}", flush=True)
    if args.recover:
        given = narrow[args.recover]
        number = min(len(texts.train), affordable(teacher, given, texts, args.seconds, args.depth))
        student, seconds = recovered(teacher, given, texts, number, args.depth)
        like = likeness(student, judges, wanted)
        found["recovered"] = {"rank": args.recover, "texts": number, "seconds": round(seconds, 1), **like}
        print(f"embeddings recovered at rank {args.recover} from {number} texts in {seconds:.0f} s: {like}")
    return found


def convert() -> dict[str, Any]:
    """Seconds and memory of the conversion of a model of BERT's base size, measured in a fresh process."""
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        transformers.BertModel(transformers.BertConfig()).save_pretrained(folder)
        words = [f"w{i}" for i in range(30522 - 5)]
        vocab = Path(folder) / "vocab.txt"
        vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]) + "\n", encoding="utf-8")
        transformers.BertTokenizerFast(vocab=str(vocab)).save_pretrained(folder)
        done = subprocess.run(
            [sys.executable, __file__, "--converted", folder], stdout=subprocess.PIPE, text=True, check=True
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"converted in {found['seconds']:.1f} s; peak memory {found['peak_models']:.2f} models")
    return found


def converted(folder: str) -> dict[str, Any]:
    """The conversion of the model in `folder`, in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    encoder = Encoder.load(Path(folder), "embedding")
    loaded = time.monotonic()
    held = sum(4 * parameter.numel() for parameter in encoder.model.parameters())
    with tempfile.TemporaryDirectory() as work:
        Factorize(rank=128)(encoder, Workbench(None, encoder, Path(work), task="embedding"))
    seconds = time.monotonic() - loaded
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {"seconds": seconds, "load_seconds": loaded - began, "peak_models": peak / held, "model_bytes": held}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--data")
    parser.add_argument("--judge", action="append", default=[])
    parser.add_argument("--ranks", default="64,96,128,192,256")
    parser.add_argument("--recover", type=int)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--convert", action="store_true")
    parser.add_argument("--converted", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.convert and not args.converted and not (args.data and args.judge):
        parser.error("give --data and at least one --judge, or --convert")
    if args.recover and str(args.recover) not in args.ranks.split(","):
        parser.error("--recover must be one of --ranks")
    torch.set_grad_enabled(False)
    with quiet_libraries():
        found = converted(args.converted) if args.converted else convert() if args.convert else ranks(args)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
