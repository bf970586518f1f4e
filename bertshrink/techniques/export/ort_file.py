"""From an ONNX artifact to an .ort file: ONNX Runtime's own format, which its small builds for phones read.

A small build has no ONNX reader, no optimiser, and only the operators that it was built with. So ONNX Runtime optimises
the graph here, once, and writes down what it would have run; and `required_operators.config` beside the file names the
operators, for `build.py --minimal_build --include_ops_by_config`.

The level is "extended": an .ort file is not optimised again when it is loaded, so one of level "basic" would run
without any fused operator (of an int8 MiniLM: 26 single DynamicQuantizeLinear with MatMulInteger, Cast and Mul instead
of 20 fused DynamicQuantizeMatMul). Above "extended" only layouts of convolutions for one kind of CPU would follow. The
fused operators (com.microsoft) are in every build for CPUs, whatever machine wrote the file; they are not for NNAPI or
CoreML, which want "basic".

What the file gives must equal what ONNX Runtime gives of the .onnx file, bit for bit, on the machine that writes it.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from bertshrink.engines import engine
from bertshrink.errors import CheckFailed, ModelRefused, RequestError
from bertshrink.model.artifact import Artifact
from bertshrink.techniques.export.parity import padded_text, shapes_of

if TYPE_CHECKING:
    from bertshrink.techniques.base import Workbench

FILE = "model.ort"
CONFIG = "required_operators.config"
LEVEL = "extended"


def convert(artifact: Artifact, bench: Workbench) -> Artifact:
    """Write an ONNX artifact as an .ort artifact, in a new folder below `bench.work`.

    Raises:
        RequestError: an artifact of another format.
        ModelRefused: ONNX Runtime cannot open its file.
        CheckFailed: the new file gives other numbers.

    """
    if artifact.card.format != "onnx":
        raise RequestError(f"`{artifact.card.format}` files cannot be written as .ort, ONNX files can")
    with bench.progress.task("write as .ort", total=2, unit="steps") as task:
        folder = bench.work / "ort"
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
        folder.mkdir(parents=True)
        write(artifact.file, folder / FILE)
        task.advance()
        check_equal(artifact, folder / FILE)
        task.advance()
    operators = required_operators(folder / FILE)
    write_config(operators, folder / CONFIG)
    names = [name for by_version in operators.values() for names in by_version.values() for name in names]
    bench.note(
        f"the .ort file gives the numbers of the ONNX file bit for bit; {CONFIG} names the {len(names)} operators that "
        "a build of ONNX Runtime needs for it"
    )
    details = artifact.card.details | {"optimization": LEVEL, "required_operators": sorted(names)}
    lineage = artifact.card.lineage
    card = artifact.card.model_copy(
        update={
            "format": "ort",
            "engine": "onnxruntime",
            "options": {},
            "file": FILE,
            "details": details,
            "lineage": lineage if lineage[-1:] == ("export",) else (*lineage, "export"),
        }
    )
    return Artifact.create(folder, card, artifact.tokenizer)


def write(source: Path, to: Path) -> None:
    """Have ONNX Runtime optimise an .onnx file and write it in its own format.

    Raises:
        ModelRefused: it cannot open the file.

    """
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.optimized_model_filepath = str(to)
    settings.add_session_config_entry("session.save_model_format", "ORT")
    try:
        onnxruntime.InferenceSession(str(source), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors are plain subclasses of Exception, one per code
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise ModelRefused(f"ONNX Runtime cannot open the file: {error}", where=str(source)) from None


def check_equal(artifact: Artifact, path: Path) -> None:
    """Compare the two files on padded text at every shape that they take.

    Raises:
        CheckFailed: a number differs.

    """
    runtime, card = engine("onnxruntime"), artifact.card
    before, after = runtime.load(str(artifact.file)), runtime.load(str(path))
    for batch, length in shapes_of(card.form, artifact.max_length):
        feeds = padded_text(artifact, batch, length)
        old, new = before.run(feeds), after.run(feeds)
        for name in card.outputs:
            if not np.array_equal(old[name], new[name], equal_nan=True):
                raise CheckFailed(
                    f"`{name}` of the .ort file has other numbers than that of the ONNX file at {batch}x{length}",
                    where=str(path),
                    hint="the installed onnxruntime writes down another graph than it runs; try another version of it",
                )


def required_operators(path: Path) -> dict[str, dict[int, list[str]]]:
    """Domain -> version of an operator's definition -> names, of all that an .ort file runs."""
    handlers = logging.root.handlers[:]
    from onnxruntime.tools.ort_format_model import OrtFormatModelProcessor

    logging.root.handlers[:] = handlers  # its import gives the root logger one
    found: dict[str, dict[int, set[str]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file to the garbage collector
        OrtFormatModelProcessor(str(path), found, None).process()
    return {
        domain: {version: sorted(names) for version, names in sorted(by_version.items())}
        for domain, by_version in sorted(found.items())
    }


def write_config(operators: dict[str, dict[int, list[str]]], path: Path) -> None:
    """Write the operators as ONNX Runtime's `build.py --include_ops_by_config` reads them: `domain;version;A,B`."""
    lines = [
        f"{domain};{version};{','.join(names)}"
        for domain, by_version in operators.items()
        for version, names in by_version.items()
    ]
    path.write_text("\n".join([f"# what {FILE} needs", *lines]) + "\n", encoding="utf-8")
