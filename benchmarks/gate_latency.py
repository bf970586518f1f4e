"""How often does the gate's rule about time cry wolf, and how often does it see what is slower?

    A/A        an artifact against a copy of itself, under the limit 1.10: every failure is a false alarm
    slowdown   against the same file with a share of its multiplications done again, for nothing (a chain of them from
               which a zero is added to the output), tuned until it takes 1.3 times as long: every pass is a miss

Each is judged as `bertshrink gate --base-artifact` judges, by the same functions. The slowed file's true ratio is the
median over its own runs, told beside the counts, so that 1.3 is measured and not hoped for. `--load N` keeps N
processes busy meanwhile. The last line is one JSON document.

    python benchmarks/gate_latency.py ARTIFACT --kind aa --runs 200 --load 2
    python benchmarks/gate_latency.py ARTIFACT --kind slow --runs 100

ARTIFACT is a folder that `bertshrink export` or `quantize` wrote. A run takes about rounds x 2 x 2 s.
"""

import argparse
import json
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from bertshrink.files.atomic import new_folder
from bertshrink.gates.judge import judge_ratio
from bertshrink.gates.limits.limit import Rule, read_limit
from bertshrink.gates.limits.metric_key import read_key
from bertshrink.gates.paired_timing import race
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.model.artifact import Artifact
from bertshrink.progress import Silent

WIDTH = 128
KEY = read_key("cpu p50 ratio")


def busy(stop):
    """Keep a core at work."""
    while not stop.is_set():
        sum(range(10_000))


def copy_of(folder, target, num_extra=0):
    """The artifact, sealed again, with `num_extra` multiplications that change nothing."""
    with new_folder(target, replace=True) as scratch:
        artifact = Artifact.load(folder)
        artifact.save(scratch)
        if num_extra:
            path = scratch / artifact.card.file
            model = onnx.load(path)
            slow_down(model.graph, num_extra)
            onnx.save(model, path)
    return target


def slow_down(graph, num_extra):
    """Multiply a square with itself again and again, and add nothing of it to the first output."""
    # A cyclic shift keeps every number as it is: no overflow, and no denormals, which have a speed of their own.
    square = [float((row + 1) % WIDTH == column) for row in range(WIDTH) for column in range(WIDTH)]
    graph.initializer.append(helper.make_tensor("slow.square", TensorProto.FLOAT, (WIDTH, WIDTH), square))
    graph.initializer.append(helper.make_tensor("slow.zero", TensorProto.FLOAT, (), [0.0]))
    graph.initializer.append(helper.make_tensor("slow.axes", TensorProto.INT64, (1,), [0]))
    # It starts from an input, so that no optimizer can compute it beforehand.
    given = graph.input[0].name
    nodes = [
        helper.make_node("Cast", [given], ["slow.cast"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["slow.cast"], ["slow.mean"], keepdims=0),
        helper.make_node("Add", ["slow.square", "slow.mean"], ["slow.0"]),
    ]
    for i in range(num_extra):
        nodes.append(helper.make_node("MatMul", [f"slow.{i}", "slow.square"], [f"slow.{i + 1}"]))
    output = graph.output[0].name
    for node in graph.node:
        node.output[:] = [f"{name}.fast" if name == output else name for name in node.output]
        node.input[:] = [f"{name}.fast" if name == output else name for name in node.input]
    nodes += [
        helper.make_node("ReduceMean", [f"slow.{num_extra}"], ["slow.one"], keepdims=0),
        helper.make_node("Mul", ["slow.one", "slow.zero"], ["slow.nothing"]),
        helper.make_node("Add", [f"{output}.fast", "slow.nothing"], [output]),
    ]
    graph.node.extend(nodes)


def tuned(folder, place, settings, wanted):
    """The artifact slowed to about `wanted`, and how many multiplications that took."""
    tries, num_extra = [], 32
    for _ in range(6):
        (ratio,) = race(folder, copy_of(folder, place, num_extra), settings, Silent()).values()
        tries.append((num_extra, ratio.value))
        print(f"{num_extra} more multiplications: {ratio.value:.3f}x")
        if abs(ratio.value - wanted) < 0.02:
            break
        num_extra = max(1, round(num_extra * (wanted - 1) / max(ratio.value - 1, 0.01)))
    best = min(tries, key=lambda pair: abs(pair[1] - wanted))[0]
    return copy_of(folder, place, best), best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--kind", choices=("aa", "slow"), required=True)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--limit", default="<= 1.10")
    parser.add_argument("--slowdown", type=float, default=1.3)
    parser.add_argument("--load", type=int, default=0, help="processes that keep cores busy")
    asked = parser.parse_args()
    settings = LatencySettings(
        batch=(1,), length=(asked.length,), rounds=asked.rounds, seconds=asked.seconds, threads=asked.threads
    )
    rule = Rule(KEY, read_limit(asked.limit, KEY), "fail", "benchmark")
    stop = multiprocessing.Event()
    noise = [multiprocessing.Process(target=busy, args=(stop,), daemon=True) for _ in range(asked.load)]
    room = Path(tempfile.mkdtemp())
    found, extra = [], 0
    try:
        other = copy_of(asked.artifact, room / "other")
        if asked.kind == "slow":
            other, extra = tuned(asked.artifact, room / "slow", settings, asked.slowdown)
        for process in noise:
            process.start()
        began = time.monotonic()
        for number in range(asked.runs):
            (ratio,) = race(asked.artifact, other, settings, Silent()).values()
            verdict = judge_ratio(rule.key, rule, ratio).verdict.value
            found.append({"ratio": ratio.value, "low": ratio.low, "high": ratio.high, "verdict": verdict})
            print(f"{number + 1}: {verdict} {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]", flush=True)
    finally:
        stop.set()
        for process in noise:
            if process.pid is not None:
                process.join()
        shutil.rmtree(room)
    counts = Counter(one["verdict"] for one in found)
    middle = statistics.median(one["ratio"] for one in found)
    seconds = time.monotonic() - began
    print(f"{asked.kind}: {dict(counts)} of {asked.runs}, median ratio {middle:.3f}, {seconds:.0f} s")
    settings_told = {name: str(value) for name, value in vars(asked).items()}
    print(json.dumps({"settings": settings_told, "num_extra": extra, "counts": counts, "runs": found}))


if __name__ == "__main__":
    main()
