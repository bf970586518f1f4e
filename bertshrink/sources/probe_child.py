"""The first look at a model file in a process of its own: `python -m bertshrink.sources.probe_child HOW SOURCE
[TARGET]`.

Files from elsewhere meet libraries written in C++ (protobuf, onnx, ONNX Runtime, ExecuTorch), each of which can be made
to crash or to take all memory. So the look happens here, within limits of memory and time that grow with the file, and
what comes out is either a word of refusal or the file, whole and proven, at TARGET:

    read      as one message; weights that are in a file beside it ("external data") are taken in
    check     see `onnx_checks`; functions are unfolded
    run       opened by ONNX Runtime (where it is installed) and run once: outputs finite
    write     one self-contained file; byte for byte the given one where nothing had to change

That is `look`. `again` reads, checks and runs a file that bertshrink sealed where it is: a seal says that nothing has
changed, not who made it. `facts` gives what `files.headers.read_onnx` reads of it, and runs nothing.

An .ort file is a graph that ONNX Runtime has optimised: what holds for weights and for encoders is checked of it, too,
and nothing of it is changed. Of a .pte program the inside is ExecuTorch's own matter: it is run (see `probe_pte`).

On stdout: one line of JSON with the step it is at, each time one begins; the last line is the result. Limits are no
sandbox: they keep a bad file from taking the machine along, not a malicious one from doing what its user may do.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.errors import BertshrinkError, MissingDependency, UnsafeModel
from bertshrink.files.atomic import output_errors
from bertshrink.files.safe_open import MAX_FILE_BYTES, open_plain
from bertshrink.sources.probe_limits import _MADE_AGAIN, check_finite, limit

if TYPE_CHECKING:
    import onnx


_LENGTH = 5
_MAGIC = (
    (b"PK\x03\x04", "a zip archive, as `torch.save` writes it"),
    (b"\x80", "a pickle, which bertshrink never opens"),
    (b"\x89HDF", "an HDF5 file"),
    (b"ORTM", "an .ort file", 4),
    (b"{", "a text file"),
    (b"version https://git-lfs", "a pointer of git LFS, not the file itself"),
)


def look(source: Path, target: Path) -> dict[str, Any]:
    """Read, check and run a file, and write it to `target`, whose ending says its format; see this file's opening.

    Returns:
        the fields of `probe.ProbeResult`.

    Raises:
        UnsafeModel: the file is not what it must be.
        MissingDependency: what reads or runs its format is not installed.
        OutputError: there is no room for it at `target`.
    """
    step("reading it")
    with open_plain(source, may_have_other_names=True) as file:
        num_bytes = os.fstat(file.fileno()).st_size
        if num_bytes > MAX_FILE_BYTES:
            what = "the file is larger than 2 GB, the most that is read as one file"
            raise UnsafeModel(what, hint="keep its weights in a file beside it, or make the model smaller")
        limit(num_bytes)
        data = file.read()
    if target.suffix == ".pte":
        from bertshrink.sources import probe_pte

        with output_errors(target):
            target.write_bytes(data)
        step("running it in ExecuTorch")
        return probe_pte.look(target)
    from bertshrink.sources import onnx_checks as checks

    model, has_changed = (from_ort(data), False) if target.suffix == ".ort" else from_onnx(data, source)
    vocab_size = checks.check_encoder(model)
    with output_errors(target):
        target.write_bytes(model.SerializeToString(deterministic=True) if has_changed else data)
    del data
    if target.suffix != ".ort":
        checks.check_shapes(model, target)
    shapes = run(target, model, vocab_size)
    return {
        "inputs": {value.name: declared(value) for value in real_inputs(model)},
        "names": {name: ours for ours, names in checks.INPUT_NAMES.items() for name in names},
        "outputs": {value.name: declared(value) | shapes.get(value.name, {}) for value in model.graph.output},
        "vocab_size": vocab_size,
        "precision": checks.precision_of(model),
        "opset": next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
    }


def look_again(source: Path) -> dict[str, Any]:
    """Read, check and run a sealed file where it is.

    Returns:
        nothing: it is what its card says.

    Raises:
        UnsafeModel: the file is not what it must be.
        MissingDependency: what reads or runs its format is not installed.
    """
    step("reading it")
    with open_plain(source, may_have_other_names=True) as file:
        limit(os.fstat(file.fileno()).st_size)
        data = file.read()
    if source.suffix == ".pte":
        from bertshrink.sources import probe_pte

        step("running it in ExecuTorch")
        probe_pte.look(source)
        return {}
    model = from_ort(data) if source.suffix == ".ort" else from_onnx(data, source)[0]
    del data
    run(source, model, 2)
    return {}


def facts(source: Path) -> dict[str, Any]:
    """What an ONNX file's header says, as `files.headers.read_onnx` reads it.

    Raises:
        UnsafeModel: the file is damaged.
    """
    import dataclasses

    from bertshrink.files.headers import read_onnx

    step("reading it")
    with open_plain(source, may_have_other_names=True) as file:
        limit(os.fstat(file.fileno()).st_size)
    return dataclasses.asdict(read_onnx(source))


def from_onnx(data: bytes, source: Path) -> tuple[onnx.ModelProto, bool]:
    """The model of an .onnx file, self-contained and without functions, and whether that changed it.

    Raises:
        UnsafeModel: the file is not what it must be.
    """
    refuse_other_kinds(data)
    import onnx
    from onnx import inliner

    from bertshrink.sources import onnx_checks as checks
    from bertshrink.sources.external_weights import take_in_weights

    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError has no public home that all its builds share
        if type(error).__name__ != "DecodeError":
            raise
        deep = "max_depth" in str(error).lower() or "maxdepth" in str(error).lower()
        what = "is nested deeper than protobuf reads" if deep else "is not an ONNX file, or is damaged or truncated"
        raise checks.refuse(f"the file {what}") from None
    step("checking it")
    checks.check_structure(model)
    has_changed = take_in_weights(model, source, len(data), limit)
    checks.check_tensors(model)
    return (inliner.inline_local_functions(model), True) if model.functions else (model, has_changed)


def from_ort(data: bytes) -> onnx.ModelProto:
    """The graph of an .ort file, to be looked at only: ONNX Runtime alone can write one.

    Raises:
        UnsafeModel: the file is not what it must be.
        MissingDependency: ONNX Runtime, which reads it, is not installed.
    """
    from bertshrink.engines import ENGINES, is_installed

    if not is_installed("onnxruntime"):
        raise MissingDependency(
            "an .ort file needs ONNX Runtime, which is not installed", hint=ENGINES["onnxruntime"].install
        )
    from bertshrink.onnx_graph import ort_format
    from bertshrink.sources import onnx_checks as checks

    step("checking it")
    model = ort_format.graph_of(data)
    checks.check_tensors(model)
    return model


def step(name: str) -> None:
    """Say what is being done, for the parent to tell if it is the last thing done."""
    sys.stdout.write(json.dumps({"at": name}) + "\n")
    sys.stdout.flush()


def refuse_other_kinds(data: bytes) -> None:
    """Refuse what is plainly another kind of file; raises UnsafeModel."""
    hint = "give the ONNX file itself"
    if not data:
        raise UnsafeModel("the file is empty", hint=_MADE_AGAIN)
    for magic, kind, *at in _MAGIC:
        if data.startswith(magic, *at):
            raise UnsafeModel(f"the file is not an ONNX file but {kind}", hint=hint)


def real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are not stored tensors, which old files list as well."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def declared(value: onnx.ValueInfoProto) -> dict[str, Any]:
    """Type and shape of an input or output; a size that is open is None."""
    import onnx

    kind = value.type.tensor_type
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim]
    return {"type": onnx.TensorProto.DataType.Name(kind.elem_type).lower(), "shape": sizes}


def run(path: Path, model: onnx.ModelProto, vocab_size: int) -> dict[str, dict[str, Any]]:
    """Run the file once on one text of 5 tokens.

    Returns:
        output -> its shape; nothing where ONNX Runtime is not installed.

    Raises:
        UnsafeModel: it cannot be opened or run, or gives values that are not finite.
    """
    import numpy as np
    import onnx

    from bertshrink.engines import engine, is_installed

    if not is_installed("onnxruntime"):
        return {}
    step("running it in ONNX Runtime")
    feeds: dict[str, Any] = {}
    for value in real_inputs(model):
        sizes = declared(value)["shape"]
        shape = [size or default for size, default in zip(sizes, (1, _LENGTH), strict=False)]
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        number = min(1, vocab_size - 1) if value.name == "input_ids" else int("mask" in value.name)
        feeds[value.name] = np.full(shape, number, dtype=kind)
    try:
        outputs = engine("onnxruntime").load(str(path), threads=1).run(feeds)
    except Exception as error:  # ONNX Runtime's errors share no base of their own
        raise UnsafeModel(f"ONNX Runtime cannot run the file: {_said(error, path)}", hint=_MADE_AGAIN) from None
    check_finite(outputs)
    return {name: {"shape": list(value.shape)} for name, value in outputs.items()}


def _said(error: Exception, path: Path) -> str:
    """The first line of ONNX Runtime's message, without its codes and the place of our copy."""
    said = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", (str(error).splitlines() or [type(error).__name__])[0])
    return said.replace(str(path), path.name)[:300]


LOOKS: dict[str, Callable[..., dict[str, Any]]] = {"look": look, "again": look_again, "facts": facts}
"""The first word of the command -> what it does with the paths that follow."""


def main(how: str, *paths: str) -> None:
    """Look, and say on stdout what was found or refused."""
    limit(0)
    try:
        answer: dict[str, Any] = {"found": LOOKS[how](*map(Path, paths))}
    except MemoryError:
        answer = {"refused": ["UnsafeModel", "the file needs far more memory than its size suggests", None, None]}
    except BertshrinkError as error:
        answer = {"refused": [type(error).__name__, error.what, error.where, error.hint]}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
