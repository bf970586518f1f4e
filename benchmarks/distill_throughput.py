"""How fast a student is trained: bertshrink beside a plain Trainer loop and TextBrewer, same teacher, texts and losses.

    python benchmarks/distill_throughput.py --teacher FOLDER --data FOLDER [--steps 40] [--rounds 3] [--accuracy [ROWS]]

Four contenders, each in a fresh process, in turn (A B C D, A B C D, ...), each on two threads:

    live        bertshrink's distill with the teacher in the loop
    cached      the same from the second epoch on, the teacher's answers read from its cache
    trainer     Hugging Face's Trainer with `compute_loss` overridden, as tutorials write it
    textbrewer  TextBrewer 0.2.1 in an environment of its own, made below `--cache`

Figures are non-pad tokens per second of training, after a warm-up; ratios are formed round by round. Losses: KL at
T = 2 (weight 1), labels (0.5), cosine of aligned hidden states (1); batches of 32; AdamW at 1e-4, falling linearly
after a rise over 6 % of the steps, gradients clipped at 1. bertshrink uses the precision that `auto` finds here
(shown), the others what they come with (float32). `--accuracy` trains each for one epoch over the data, or over so many
of its rows, and judges the students on the dev split. `--profile` shows where bertshrink's time goes, and what of the
machine's matrix-multiplication rate training reaches (`distill_profile.py`). Output: a table, and as the last line one
JSON document.

Exit codes: 0; 6 when TextBrewer cannot be installed (`--without textbrewer` leaves it out).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertshrink.model.quiet import quiet_libraries

KEPT = (2, 4, 6)
BATCH = 32
WARMUP = 0.06
ROOT = Path(__file__).resolve().parent.parent
CONTENDERS = ("live", "cached", "trainer", "textbrewer")


class Clock:
    """A progress that remembers when how many tokens were told."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    @contextmanager
    def task(self, title: str, total: float | None = None, unit: str = "steps", done: float = 0):
        self.marks.append((time.perf_counter(), 0.0))
        yield self

    def advance(self, steps: float = 1, **fields: str) -> None:
        self.marks.append((time.perf_counter(), steps))

    def log(self, message: str) -> None:
        return None

    def rate(self, warmup: int) -> dict[str, float]:
        """Tokens and seconds of the steps after the warm-up."""
        kept = self.marks[warmup:]
        return {"tokens": sum(n for _, n in kept[1:]), "seconds": kept[-1][0] - kept[0][0], "steps": len(kept) - 1}


def texts_of(data: str, rows: int | None):
    from bertshrink.data.load import load
    from bertshrink.data.settings import DataSettings

    return load(DataSettings(path=data, max_train=rows))


def settings_of(**more: Any):
    from bertshrink.techniques.distill import Distill

    return Distill(
        layers=len(KEPT),
        layer_map=KEPT,
        temperature=2,
        soft_weight=1,
        task_weight=0.5,
        hidden_weight=1,
        learning_rate=1e-4,
        batch_size=BATCH,
        save_steps=10**6,
        **more,
    )


@quiet_libraries()
def ours(args: argparse.Namespace, *, cached: bool, clock: Clock | None = None) -> dict[str, Any]:
    """bertshrink; with a cache, the second of two epochs is timed."""
    import torch

    from bertshrink.model.encoder import Encoder
    from bertshrink.techniques.base import Workbench
    from bertshrink.training.loop import arithmetic

    torch.set_num_threads(2)
    teacher = Encoder.load(Path(args.teacher))
    rows = args.accuracy or (args.steps + args.warmup) * BATCH
    clock = clock or Clock()
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(
            texts_of(args.data, rows), teacher, Path(folder), cache=Path(folder) / "cache", progress=clock
        )
        epochs = (2 if cached else 1) if not args.accuracy else 1
        student = settings_of(epochs=epochs, teacher_cache=cached)(teacher.copy(), bench)
        if args.out:
            Path(args.out).mkdir(parents=True)
            student.save(Path(args.out))
    first = len(clock.marks) // 2 + args.warmup // 2 if cached and not args.accuracy else args.warmup
    return clock.rate(first) | {"precision": str(arithmetic(settings_of())).removeprefix("torch.")}


@quiet_libraries()
def trainer(args: argparse.Namespace) -> dict[str, Any]:
    """A plain distillation loop on Trainer: random batches padded to their longest, float32, default AdamW."""
    import torch
    from torch.nn import functional
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    torch.set_num_threads(2)
    rows = json.loads(Path(args.rows).read_text(encoding="utf-8"))
    teacher = AutoModelForSequenceClassification.from_pretrained(args.teacher).eval()
    student = AutoModelForSequenceClassification.from_pretrained(args.teacher)
    student.bert.encoder.layer = torch.nn.ModuleList([student.bert.encoder.layer[i - 1] for i in KEPT])
    student.config.num_hidden_layers = len(KEPT)
    states = list(enumerate((*KEPT[:-1], teacher.config.num_hidden_layers), start=1))
    clock = Clock()

    class Distiller(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            with torch.no_grad():
                taught = teacher(**inputs, output_hidden_states=True)
            out = model(**inputs, output_hidden_states=True)
            soft = (
                functional.kl_div(
                    functional.log_softmax(out.logits / 2, -1),
                    functional.softmax(taught.logits / 2, -1),
                    reduction="batchmean",
                )
                * 4
            )
            mask = inputs["attention_mask"].bool()
            cosines = [
                1
                - functional.cosine_similarity(out.hidden_states[s][mask], taught.hidden_states[t][mask], dim=-1).mean()
                for s, t in states
            ]
            clock.tokens = int(inputs["attention_mask"].sum())
            return soft + 0.5 * out.loss + torch.stack(cosines).mean()

    class Tell(TrainerCallback):
        def on_train_begin(self, *given, **more):
            clock.marks.append((time.perf_counter(), 0.0))

        def on_step_end(self, *given, **more):
            clock.advance(clock.tokens)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=1e-4,
            weight_decay=0.01,
            warmup_steps=math.ceil(WARMUP * (len(rows) / BATCH if args.accuracy else args.steps + args.warmup)),
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
            max_steps=-1 if args.accuracy else args.steps + args.warmup,
        )
        dataset = [row | {"labels": label} for row, label in rows]
        collate = DataCollatorWithPadding(AutoTokenizer.from_pretrained(args.teacher))
        Distiller(student, arguments, collate, dataset, callbacks=[Tell()]).train()
    if args.out:
        student.save_pretrained(args.out)
    return clock.rate(args.warmup)


def textbrewer_python(cache: Path) -> Path:
    """The interpreter of TextBrewer's environment, made the first time."""
    folder = cache / "textbrewer-0.2.1"
    python = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt")]
        subprocess.run([*install, "torch", "transformers", "textbrewer==0.2.1", "tensorboard"], check=True)
        (folder / "ready").touch()
    return python


def run_contender(name: str, args: argparse.Namespace, rows: Path, out: str | None) -> dict[str, Any]:
    """One contender in a fresh process."""
    if name == "textbrewer":
        size = 10**6 if args.accuracy else args.steps
        command = [str(textbrewer_python(Path(args.cache))), str(Path(__file__).with_name("textbrewer_loop.py"))]
        command += [args.teacher, str(rows), ",".join(map(str, KEPT)), str(size), str(args.warmup), str(BATCH)]
        command += [out or str(rows.with_name("textbrewer-student"))]
    else:
        command = [sys.executable, __file__, "--worker", name, "--teacher", args.teacher, "--data", args.data]
        command += ["--steps", str(args.steps), "--warmup", str(args.warmup), "--rows", str(rows)]
        command += ["--accuracy", str(args.accuracy)] if args.accuracy else []
        command += ["--out", out] if out else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def write_rows(args: argparse.Namespace, path: Path) -> None:
    """The training rows as JSON, so that all read the same tokens."""
    from bertshrink.data.encoding import encode
    from bertshrink.model.encoder import Encoder

    teacher = Encoder.load(Path(args.teacher))
    texts = texts_of(args.data, args.accuracy or (args.steps + args.warmup) * BATCH)
    found = encode(teacher.task, teacher.tokenizer, texts.train, teacher.max_length, teacher.labels, args.data)
    path.write_text(json.dumps(list(zip(found.rows, found.labels, strict=True))), encoding="utf-8")


def judge(args: argparse.Namespace, folder: str) -> float:
    """A student's accuracy on the dev split."""
    from bertshrink.meters.quality.evaluators import prepare
    from bertshrink.model.encoder import Encoder

    teacher = Encoder.load(Path(args.teacher))
    if not (Path(folder) / "tokenizer.json").is_file():
        teacher.tokenizer.save_pretrained(folder)
    exam = prepare(teacher, texts_of(args.data, 8), None, 0)
    return next(m.value for m in exam.sit(Encoder.load(Path(folder))) if m.metric == "accuracy")


def machine() -> dict[str, Any]:
    """The machine and its software."""
    from bertshrink.meters.environment import environment

    return environment().model_dump(mode="json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, help="a BERT classifier of 6 layers")
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", default=str(Path.home() / ".cache" / "bertshrink-benchmarks"))
    parser.add_argument("--without", nargs="*", default=[], choices=CONTENDERS)
    parser.add_argument("--accuracy", nargs="?", type=int, const=10**9, metavar="ROWS")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--worker", choices=CONTENDERS[:3])
    parser.add_argument("--rows")
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.worker:
        found = trainer(args) if args.worker == "trainer" else ours(args, cached=args.worker == "cached")
        print(json.dumps(found))
        return
    if args.profile:
        from distill_profile import profile

        print(json.dumps({"machine": machine()} | profile(args, len(KEPT), ours)))
        return
    names = [name for name in CONTENDERS if name not in args.without]
    if "textbrewer" in names:
        try:
            textbrewer_python(Path(args.cache))
        except subprocess.CalledProcessError as error:
            print(f"TextBrewer cannot be installed ({error}); leave it out with --without textbrewer", file=sys.stderr)
            raise SystemExit(6) from None
    rates: dict[str, list[float]] = {name: [] for name in names}
    accuracy: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        write_rows(args, rows)
        for number in range(1 if args.accuracy else args.rounds):
            for name in names:
                out = f"{folder}/{name}" if args.accuracy else None
                found = run_contender(name, args, rows, out)
                rates[name].append(found["tokens"] / found["seconds"])
                precision = found.get("precision", "float32")
                print(f"round {number + 1}  {name:10}  {precision:8}  {rates[name][-1]:8.0f} tokens/s", flush=True)
                if out:
                    accuracy[name] = judge(args, out)
                    print(f"          {name:10}  {100 * accuracy[name]:8.2f} % accuracy on dev", flush=True)
    print("\n| contender | tokens/s (median) | against trainer | against textbrewer |\n|---|---:|---:|---:|")
    for name in names:
        cells = [f"{statistics.median(rates[name]):,.0f}"]
        for other in ("trainer", "textbrewer"):
            ratios = [a / b for a, b in zip(rates[name], rates.get(other, []), strict=False)]
            cells.append(f"{statistics.median(ratios):.2f}x [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else "")
        print(f"| {name} | {' | '.join(cells)} |")
    print(json.dumps({"machine": machine(), "rates": rates, "accuracy": accuracy}))


if __name__ == "__main__":
    main()
