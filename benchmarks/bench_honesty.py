"""How often `bertshrink bench` is wrong: false alarms, slowdowns that it misses, noise that it does not see, and what
its own loop costs.

    python benchmarks/bench_honesty.py --model model.onnx --runs 100

    same      the same file twice; never `faster` or `slower` in 99 of 100 runs, `equivalent` in 80 of 100 when idle
    slowed    the second one 10 % slower, by repeating a part of its work; `slower` in 90 of 100
    spinner   the same, while another process keeps a core busy; the figures are not `valid`
    overhead  samples of the worker against a bare loop around a session of ONNX Runtime, in turns; at most 1 %

A run is what `bench` does, with fewer and shorter rounds than its defaults (`--rounds`, `--seconds`): the defaults can
only be better. Each prints as it goes; all is written as JSON beside this file (`--output`), and is the last line.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import bertshrink
from bertshrink.meters.environment import environment
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.latency.measure import measure
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.targets.host import LocalRunner
from bertshrink.model.artifact import Artifact
from bertshrink.progress import Silent
from bertshrink.report.measurement import compare, judge
from bertshrink.report.statistics import mean_interval
from bertshrink.sources.resolve import locate_model
from bertshrink.worker.job import RunSpec
from bertshrink.worker.turns import MIN_SAMPLES, TURN_NS

# The worker itself, with two additions: a session that is asked to be slow spins for a share of its own time, and one
# that is asked to be bare is ONNX Runtime's own, in a loop that only counts.
CHANGED = """
import time
import onnxruntime
from bertshrink import engines
from bertshrink.worker import __main__ as worker, relay, timing

original = engines.engine
clock = time.perf_counter_ns

def slow(run, share):
    def slowed(feeds):
        start = clock()
        found = run(feeds)
        end = clock()
        end += int((end - start) * share)
        while clock() < end:
            pass
        return found
    return slowed

def bare(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    run = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run

    def in_turns(calls, at_least, seconds, place):
        (feeds,) = calls[0].__defaults__
        samples, resumed, left = [], [], int(seconds * 1e9)
        while True:
            start = clock()
            run(None, feeds)
            resumed.append(clock() - start)
            count, start = 0, clock()
            while clock() - start < relay.TURN_NS or count < relay.MIN_SAMPLES:
                run(None, feeds)
                count += 1
            took = clock() - start
            samples += [took // count] * count
            left -= took
            if left <= 0 and len(samples) >= at_least:
                return samples, resumed
            place.hand_over()
    timing.timed_in_turns = in_turns

def engine(name):
    module = original(name)
    class Changed:
        prepare = staticmethod(lambda path, options=None: module.prepare(path, None))
        @staticmethod
        def load(path, threads=None, options=None):
            asked = dict(options or {})
            share, is_bare = asked.pop("slowed_by", 0.0), asked.pop("bare", False)
            session = module.load(path, threads, asked)
            if share:
                session.run = slow(session.run, share)
            if is_bare:
                bare(path, threads)
            return session
    return Changed
engines.engine = engine
worker.main()
"""
SPINNER = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="an .onnx file or an artifact folder")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--spinner-runs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.25)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--slowed-by", type=float, default=0.10)
    parser.add_argument("--only", help="one of same, slowed, spinner, overhead")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("bench_honesty.json"))
    args = parser.parse_args()
    launch = launch_of(Artifact.load(folder := locate_model(args.model)), folder)
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


def host() -> LocalRunner:
    root = str(Path(bertshrink.__file__).parent.parent)
    return LocalRunner((sys.executable, "-c", CHANGED), (("PYTHONPATH", root),))


def settings_of(args: argparse.Namespace, **more: object) -> LatencySettings:
    given = {
        "batch": (args.batch,),
        "length": (args.length,),
        "rounds": args.rounds,
        "seconds": args.seconds,
        "warmup": args.seconds / 2,
        "threads": args.threads,
    }
    return LatencySettings(**{**given, **more})


def verdicts(one: RunSpec, other: RunSpec, args: argparse.Namespace, runs: int, title: str) -> dict[str, object]:
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


def with_spinner(launch: RunSpec, args: argparse.Namespace) -> dict[str, object]:
    """The same twice while one core is kept busy by somebody else."""
    spinner = subprocess.Popen([sys.executable, "-c", SPINNER])
    try:
        return verdicts(launch, launch, args, args.spinner_runs, "spinner")
    finally:
        spinner.kill()
        spinner.wait()


def overhead(launch: RunSpec, args: argparse.Namespace) -> dict[str, object]:
    """The worker's samples against a bare loop, both as means of turns, round by round."""
    bare = replace(launch, options={**launch.options, "bare": True})
    found = measure(
        {"bare": bare, "ours": launch}, settings_of(args, rounds=max(40, args.rounds)), Silent(), environment(), host()
    )
    times = {name: next(m for m in entries if m.metric == "latency").samples for name, entries in found.items()}
    logs = tuple(
        math.log(statistics.median(turns(ours)) / statistics.median(turns(theirs)))
        for ours, theirs in zip(times["ours"], times["bare"], strict=True)
    )
    low, high = mean_interval(logs)
    return {"ratio": math.exp(statistics.fmean(logs)), "interval": [math.exp(low), math.exp(high)], "rounds": len(logs)}


def turns(samples: Sequence[float]) -> list[float]:
    """The mean of each turn: as long as the worker lets one be."""
    found, own = [], []
    for sample in samples:
        own.append(sample)
        if sum(own) * 1e9 >= TURN_NS and len(own) >= MIN_SAMPLES:
            found.append(statistics.fmean(own))
            own = []
    return found or [statistics.fmean(samples)]


if __name__ == "__main__":
    main()
