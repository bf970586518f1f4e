"""How often `bertshrink bench` is wrong: false alarms, slowdowns that it misses, noise that it does not see, and what
its own loop costs.

    python benchmarks/bench_honesty.py --model model.onnx --runs 100

    same      the same file twice; never `faster` or `slower` in 99 of 100 runs, `equivalent` in 80 of 100 when idle
    slowed    the second one 10 % slower, by repeating a part of its work; `slower` in 90 of 100
    spinner   the same, while another process keeps a core busy; the figures are not `valid`
    overhead  samples of the worker against a bare loop around the same session, interleaved; at most 1 %

A run is what `bench` does, with fewer and shorter rounds than its defaults (`--rounds`, `--seconds`): the defaults can
only be better. Each prints as it goes; all is written as JSON beside this file (`--output`), and is the last line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import bertshrink
from bertshrink.meters.environment import environment
from bertshrink.meters.running import Launch, launch_of, measure
from bertshrink.meters.settings import RunningSettings
from bertshrink.meters.targets.host import Host
from bertshrink.model.artifact import Artifact
from bertshrink.model.source import fetch
from bertshrink.progress import Silent
from bertshrink.report.measurement import compare, judge

# The worker itself, with one addition: a session that is asked to be slow spins for a share of its own time.
SLOWED = """
import sys
from bertshrink import engines
from bertshrink.worker import __main__ as worker

original = engines.engine
def engine(name):
    module = original(name)
    class Slowed:
        prepare = staticmethod(lambda path, options=None: module.prepare(path, None))
        @staticmethod
        def load(path, threads=None, options=None):
            import time
            share = (options or {}).pop("slowed_by", 0.0)
            session = module.load(path, threads, options)
            run = session.run
            def slowed(feeds):
                start = time.perf_counter_ns()
                found = run(feeds)
                end = time.perf_counter_ns()
                end += int((end - start) * share)
                while time.perf_counter_ns() < end:
                    pass
                return found
            if share:
                session.run = slowed
            return session
    return Slowed
engines.engine = engine
worker.main()
"""
BARE = """
import json, sys, time
import numpy as np
import onnxruntime
path, vocab, batch, length, threads, warmup, seconds, names = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(threads)
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
ids = np.random.default_rng(0).integers(1000, int(vocab), size=(int(batch), int(length)), dtype=np.int64)
known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
feeds = {name: known[name] for name in names.split(",")}
end = time.perf_counter() + float(warmup)
while time.perf_counter() < end:
    session.run(None, feeds)
count, start = 0, time.perf_counter()
while time.perf_counter() - start < float(seconds):
    session.run(None, feeds)
    count += 1
print((time.perf_counter() - start) / count)
"""
SPINNER = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="an .onnx file or an artifact folder")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--spinner-runs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slowed-by", type=float, default=0.10)
    parser.add_argument("--only", help="one of same, slowed, spinner, overhead")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("bench_honesty.json"))
    args = parser.parse_args()
    launch = launch_of(Artifact.load(folder := fetch(args.model)), folder)
    found = {
        "settings": {k: str(v) for k, v in vars(args).items()},
        "environment": environment().model_dump(mode="json"),
    }
    scenarios = {
        "same": lambda: verdicts(launch, launch, args, args.runs, "same"),
        "slowed": lambda: verdicts(
            launch, replace(launch, options={**launch.options, "slowed_by": args.slowed_by}), args, args.runs, "slowed"
        ),
        "spinner": lambda: with_spinner(launch, args),
        "overhead": lambda: overhead(launch, args),
    }
    for name, scenario in scenarios.items():
        if args.only in (None, name):
            found[name] = scenario()
            print(f"{name}: {json.dumps(found[name], sort_keys=True)}", flush=True)
            args.output.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(json.dumps(found, sort_keys=True))


def host() -> Host:
    root = str(Path(bertshrink.__file__).parent.parent)
    return Host((sys.executable, "-c", textwrap.dedent(SLOWED)), (("PYTHONPATH", root),))


def settings_of(args: argparse.Namespace, **more: object) -> RunningSettings:
    given = {
        "batch": (args.batch,),
        "length": (args.length,),
        "rounds": args.rounds,
        "seconds": args.seconds,
        "warmup": args.seconds / 2,
        "threads": args.threads,
    }
    return RunningSettings(**{**given, **more})


def verdicts(one: Launch, other: Launch, args: argparse.Namespace, runs: int, title: str) -> dict[str, object]:
    """Verdicts and validities of `runs` comparisons."""
    told, worth, ratios, began = Counter(), Counter(), [], time.monotonic()
    for number in range(runs):
        found = measure({"one": one, "other": other}, settings_of(args), Silent(), environment(), host())
        base, measured = (next(m for m in found[name] if m.metric == "latency") for name in ("one", "other"))
        told[judge(base, measured)] += 1
        worth[base.validity] += 1
        ratios.append(compare(base, measured).value)
        if number % 10 == 9:
            print(f"{title} {number + 1}/{runs}: {dict(told)}, {dict(worth)}", flush=True)
    return {
        "runs": runs,
        "verdicts": dict(told),
        "validity": dict(worth),
        "ratio_median": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "seconds_per_run": (time.monotonic() - began) / runs,
    }


def with_spinner(launch: Launch, args: argparse.Namespace) -> dict[str, object]:
    """The same twice while one core is kept busy by somebody else."""
    spinner = subprocess.Popen([sys.executable, "-c", SPINNER])
    try:
        return verdicts(launch, launch, args, args.spinner_runs, "spinner")
    finally:
        spinner.kill()
        spinner.wait()


def overhead(launch: Launch, args: argparse.Namespace) -> dict[str, object]:
    """The mean sample of the worker against the mean of a bare loop, in processes that take turns."""
    settings, ratios = settings_of(args, rounds=1, seconds=1.0), []
    words = [
        str(launch.path),
        launch.vocab_size,
        args.batch,
        args.length,
        args.threads,
        0.5,
        1.0,
        ",".join(launch.inputs),
    ]
    for number in range(20):
        figures = {}
        for kind in ("bare", "ours") if number % 2 else ("ours", "bare"):
            if kind == "bare":
                command = [sys.executable, "-c", BARE, *map(str, words)]
                run = subprocess.run(command, capture_output=True, text=True, check=True, env={"OMP_NUM_THREADS": "1"})
                figures[kind] = float(run.stdout)
            else:
                found = measure({"m": launch}, settings.model_copy(update={"warmup": 0.5}), Silent(), environment())
                figures[kind] = statistics.fmean(next(m for m in found["m"] if m.metric == "latency").all)
        ratios.append(figures["ours"] / figures["bare"])
    return {"ratio_median": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)], "pairs": len(ratios)}


if __name__ == "__main__":
    main()
