"""From an ONNX artifact to an .ort file: ONNX Runtime's own format, which its small builds for phones read.

A small build has no ONNX reader, no optimiser, and only the operators that it was built with. So ONNX Runtime optimises
the graph here, once, and writes down what it would have run; and `required_operators.config` beside the file names the
operators, for `build.py --minimal_build --include_ops_by_config`.

The level is "extended": an .ort file is not optimised again when it is loaded, so one of level "basic" would run
without any fused operator (of an int8 MiniLM: 26 single DynamicQuantizeLinear with MatMulInteger, Cast and Mul instead
of 20 fused DynamicQuantizeMatMul). Above "extended" only layouts of convolutions for one kind of CPU would follow. The
fused operators (com.microsoft) are in every build for CPUs, whatever machine wrote the file; they are not for NNAPI or
CoreML, which want "basic".

Optimising computes what is stored alone, so weights stored in half become float32 again, with all their bytes. To leave
the Cast to whoever loads the file would keep them half on disk and have every run convert them again: nothing optimises
an .ort file a second time. So it is said, and the card says float32.

What the file gives must equal what ONNX Runtime gives of the .onnx file, bit for bit, on the machine that writes it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bertshrink.engines import engine
from bertshrink.errors import CheckFailed, UserError
from bertshrink.model.artifact import Artifact
from bertshrink.model.folder.layout import PLACES
from bertshrink.onnx_graph.ort_format import Operators, required_operators, write
from bertshrink.techniques.export.parity import padded_text, shapes_of

if TYPE_CHECKING:
    from bertshrink.techniques.base import Workbench

FILE = PLACES["ort"]
CONFIG = "onnx/required_operators.config"
LEVEL = "extended"


def convert(artifact: Artifact, bench: Workbench) -> Artifact:
    """Write an ONNX artifact as an .ort artifact, in a new folder below `bench.work`.

    Raises:
        UserError: an artifact of another format, or more weights than one .ort file holds.
        UnsafeModel: ONNX Runtime cannot open its file.
        CheckFailed: the new file gives other numbers.
    """
    if artifact.card.format != "onnx":
        raise UserError(f"`{artifact.card.format}` files cannot be written as .ort, ONNX files can")
    with bench.progress.task("write as .ort", total=2, unit="steps") as task:
        folder = bench.work / "ort"
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
        (folder / FILE).parent.mkdir(parents=True)
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
    precision = without_half(artifact.card.precision)
    if precision != artifact.card.precision:
        grown = (folder / FILE).stat().st_size / artifact.num_bytes
        bench.note(
            f"the weights that were stored in half are float32 in the .ort file, which takes {grown:.2f}x the bytes of "
            "the ONNX file: ONNX Runtime computes their Cast when it optimises"
        )
    details = artifact.card.details | {"optimization": LEVEL, "required_operators": sorted(names)}
    lineage = artifact.card.lineage
    card = artifact.card.model_copy(
        update={
            "format": "ort",
            "engine": "onnxruntime",
            "options": {},
            "file": FILE,
            "precision": precision,
            "details": details,
            "lineage": lineage if lineage[-1:] == ("export",) else (*lineage, "export"),
        }
    )
    return Artifact.create(folder, card, artifact)


def without_half(precision: str) -> str:
    """A card's precision once what was stored in half is float32: `int8+float16` -> `int8+float32`."""
    parts = ["float32" if part in ("float16", "bfloat16") else part for part in precision.split("+")]
    return "+".join(dict.fromkeys(parts))


def check_equal(artifact: Artifact, path: Path) -> None:
    """Compare the two files on padded text at every shape that they take. Raises CheckFailed: a number differs."""
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
                    hint="the installed onnxruntime writes a graph that differs from the one it runs; try "
                    "another version",
                )


def write_config(operators: Operators, path: Path) -> None:
    """Write the operators as ONNX Runtime's `build.py --include_ops_by_config` reads them: `domain;version;A,B`."""
    lines = [
        f"{domain};{version};{','.join(names)}"
        for domain, by_version in operators.items()
        for version, names in by_version.items()
    ]
    path.write_text("\n".join([f"# what {Path(FILE).name} needs", *lines]) + "\n", encoding="utf-8")
