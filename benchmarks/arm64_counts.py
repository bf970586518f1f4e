"""Instructions per inference on emulated ARM cores: float32 against int8, repeated, and with one small product more.

    python benchmarks/arm64_counts.py FLOAT INT8 [--cores a53,a72,a76,armv8.6] [--lengths 16,128] [--output FILE]

FLOAT and INT8 are artifact folders of one model (`bertshrink export M -o FLOAT`, `bertshrink quantize FLOAT -o INT8`).
It needs `bertshrink targets setup arm64`. For each core it prints the counts at each length, the ratio, and how long a
count took at most (to emulate: it says nothing about the core); then, at the first length on the first core,

    repeated   the same counts three times: all must be equal
    seen       the count of FLOAT with one matrix product more, which is at least a hundredth of its multiplications

Its exit status is 1 when a repetition differs or the product is not seen.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.targets import open_target
from bertshrink.meters.targets.arm64.cores import CPUS
from bertshrink.model.artifact import Artifact
from bertshrink.progress import Silent
from bertshrink.worker.job import RunSpec

REPETITIONS = 3


def main() -> int:
    arguments = read_arguments()
    launches = {name: launch_at(folder) for name, folder in (("float32", arguments.float), ("int8", arguments.int8))}
    open_target(f"arm64:{arguments.cores[0]}").check(launches)
    rows: list[dict[str, Any]] = []
    machines = {}
    print(f"{'core':8} {'length':>6} {'float32':>14} {'int8':>14} {'ratio':>6} {'seconds':>8}")
    for core in arguments.cores:
        for length in arguments.lengths:
            found, machine = counts(core, launches, length)
            row = {"core": core, "length": length} | found
            rows.append(row)
            machines[core] = machine
            ratio = row["float32"] / row["int8"]
            shown = f"{row['float32']:14,.1f} {row['int8']:14,.1f} {ratio:6.2f} {row['seconds']:8.1f}"
            print(f"{core:8} {length:6} {shown}", flush=True)
    core, length = arguments.cores[0], arguments.lengths[0]
    again = [counts(core, launches, length)[0] for _ in range(REPETITIONS - 1)]
    repeated = {name: [rows[0][name], *(row[name] for row in again)] for name in launches}
    with tempfile.TemporaryDirectory() as folder:
        path, share = one_product_more(launches["float32"].path, Path(folder) / "model.onnx")
        longer = counts(core, {"longer": replace(launches["float32"], path=path)}, length)[0]["longer"]
    seen = {"core": core, "length": length, "multiplications": share, "instructions": longer / rows[0]["float32"] - 1}
    is_equal = all(len(set(values)) == 1 for values in repeated.values())
    print(f"repeated {REPETITIONS} times on {core} at {length}: {'equal' if is_equal else 'NOT EQUAL'}")
    print(f"one product more ({100 * share:.2f} % of the multiplications): {100 * seen['instructions']:.2f} % more")
    document = {"rows": rows, "repeated": repeated, "seen": seen, "environments": machines}
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document))
    return 0 if is_equal and seen["instructions"] > 0 else 1


def read_arguments() -> argparse.Namespace:
    first, rest = __doc__.split("\n\n", 1)
    form = argparse.ArgumentParser(description=first, epilog=rest, formatter_class=argparse.RawTextHelpFormatter)
    form.add_argument("float", type=Path, help="artifact folder in float32")
    form.add_argument("int8", type=Path, help="artifact folder in int8")
    form.add_argument("--cores", type=lambda text: text.split(","), default=list(CPUS))
    form.add_argument("--lengths", type=lambda text: [int(part) for part in text.split(",")], default=[16])
    form.add_argument("--output", type=Path, help="where the JSON document should be, too")
    return form.parse_args()


def launch_at(folder: Path) -> RunSpec:
    return launch_of(Artifact.load(folder), folder)


def counts(core: str, launches: dict[str, RunSpec], length: int) -> tuple[dict[str, float], dict[str, Any]]:
    """The count of one text of so many tokens, for each model alone, with the most `seconds` of one; the machine."""
    settings = LatencySettings(batch=(1,), length=(length,))
    counted, longest = {}, 0.0
    for name, launch in launches.items():
        began = time.monotonic()
        found = open_target(f"arm64:{core}").measure({name: launch}, settings, Silent())
        longest = max(longest, time.monotonic() - began)
        counted[name] = found.measurements[name][0].value
    return counted | {"seconds": longest}, found.environment.model_dump(mode="json")


def one_product_more(source: Path, target: Path) -> tuple[Path, float]:
    """Write a model whose first product with a square matrix is multiplied by one more; what share of all that adds.

    The matrix is the identity, so the outputs stay as they are.
    """
    model = onnx.load(str(source))
    weights = {w.name: w for w in model.graph.initializer}
    products = {
        n.name: weights[n.input[1]] for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights
    }
    total = sum(math.prod(w.dims) for w in products.values())
    nodes = list(model.graph.node)
    at, width = next(
        (i, products[n.name].dims[1])
        for i, n in enumerate(nodes)
        if n.name in products and len(set(products[n.name].dims)) == 1
    )
    made, output = "one_product_more", nodes[at].output[0]
    nodes[at].output[0] = f"{made}_before"
    more = helper.make_node("MatMul", [f"{made}_before", made], [output], made)
    model.graph.initializer.append(numpy_helper.from_array(np.eye(width, dtype=np.float32), made))
    del model.graph.node[:]
    model.graph.node.extend([*nodes[: at + 1], more, *nodes[at + 1 :]])
    onnx.save(model, str(target))
    return target, width * width / total


if __name__ == "__main__":
    sys.exit(main())
