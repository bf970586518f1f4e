"""The first look at a model file in a process of its own: `python -m bertshrink.sources.probe_child HOW SOURCE
[TARGET]`.

Files from elsewhere meet libraries written in C++ (protobuf, onnx, ONNX Runtime, ExecuTorch), each of which can be made
to crash or to take all memory. So the look happens here, within limits of memory and time that grow with the file, and
what comes out is either a word of refusal or the file, whole and proven, at TARGET:

    read      as one message; weights that are in a file beside it ("external data") are looked for there
    check     see `onnx_checks`; functions are unfolded, and norms that the file's opset does not have are spelled out
    run       opened by ONNX Runtime (where it is installed) and run at a few shapes: outputs finite (see `probe_run`)
    write     one self-contained file, or two where one cannot hold it; byte for byte the given one where nothing had
              to change

That is `look`. `again` reads, checks and runs a file that bertshrink sealed where it is: a seal says that nothing has
changed, not who made it. `longest` finds the longest input of a file that was looked at. `facts` gives what
`files.headers.read_onnx` reads of it, and runs nothing.

An .ort file is a graph that ONNX Runtime has optimised: what holds for weights and for encoders is checked of it, too,
and nothing of it is changed. Of a .pte program the inside is ExecuTorch's own matter: it is run (see `probe_pte`).

On stdout: one line of JSON with the step it is at, each time one begins; the last line is the result. Limits are no
sandbox: they keep a bad file from taking the machine along, not a malicious one from doing what its user may do.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.engines import ENGINES, is_installed
from bertshrink.errors import BertshrinkError, MissingDependency, UnsafeModel
from bertshrink.files.atomic import output_errors
from bertshrink.files.safe_open import MAX_FILE_BYTES, open_plain
from bertshrink.sources.probe_limits import _MADE_AGAIN, limit
from bertshrink.sources.probe_run import ModelRuns, longest_input, look_at_runs

if TYPE_CHECKING:
    import onnx

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
    from bertshrink.onnx_graph.external_data import stream
    from bertshrink.sources import onnx_checks as checks

    model, has_changed = (from_ort(data), False) if target.suffix == ".ort" else from_onnx(data, source)
    checks.check_inputs(model)
    with output_errors(target):
        if has_changed:
            stream(model, target)
        else:
            target.write_bytes(data)
    del data
    if target.suffix != ".ort":
        checks.check_shapes(model, target)
    rows, runs = checks.table_rows(model), runs_of(target, model)
    seen: dict[str, Any] = {"shape": checks.declared_shape(model), "outputs": {}, "vocab_size": rows}
    if runs is not None:
        seen = look_at_runs(runs, rows)
    outputs = {value.name: declared(value) for value in model.graph.output}
    for name, shape in seen["outputs"].items():
        outputs[name]["shape"] = shape
    return {
        "inputs": {value.name: declared(value) for value in checks.real_inputs(model)},
        "names": {value.name: checks.OURS[value.name] for value in checks.real_inputs(model)},
        "outputs": outputs,
        "behind": checks.outputs_behind(model),
        "unread": checks.unread_inputs(model),
        "shape": seen["shape"],
        "vocab_size": seen["vocab_size"],
        "precision": checks.precision_of(model),
        "opset": next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
    }


def look_again(source: Path) -> dict[str, Any]:
    """Read, check and run a sealed file where it is.

    Returns:
        `beside`: the names of the files beside it that hold its weights.

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
        return {"beside": []}
    model = from_ort(data) if source.suffix == ".ort" else from_onnx(data, source)[0]
    del data
    if (runs := runs_of(source, model)) is not None:
        runs.first()
    from bertshrink.files.headers import read_onnx

    return {"beside": list(read_onnx(source).beside) if source.suffix == ".onnx" else []}


def look_for_length(source: Path) -> dict[str, Any]:
    """`longest`: the most tokens that a file which was looked at before takes, as `probe_run.longest_input` finds them.

    Raises:
        UnsafeModel: the file cannot be run.
        MissingDependency: ONNX Runtime is not installed.
    """
    step("reading it")
    with open_plain(source, may_have_other_names=True) as file:
        limit(os.fstat(file.fileno()).st_size)
        data = file.read()
    runs = runs_of(source, from_ort(data) if source.suffix == ".ort" else from_onnx(data, source)[0])
    if runs is None:
        what = "ONNX Runtime, which tells how long an input may be, is not installed"
        raise MissingDependency(what, hint=ENGINES["onnxruntime"].install)
    return {"longest": longest_input(runs)}


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
    """The model of an .onnx file without functions and with norms that its opset has, large weights where they are, and
    whether that changed it.

    Raises:
        UnsafeModel: the file is not what it must be.
    """
    refuse_other_kinds(data)
    import onnx
    from onnx import inliner

    from bertshrink.onnx_graph.unfused import with_plain_norms
    from bertshrink.sources import onnx_checks as checks
    from bertshrink.sources.external_weights import find_weights

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
    has_changed = find_weights(model, source, len(data), limit)
    checks.check_tensors(model)
    whole = inliner.inline_local_functions(model) if model.functions else model
    valid = with_plain_norms(whole)
    return valid, has_changed or valid is not model


def from_ort(data: bytes) -> onnx.ModelProto:
    """The graph of an .ort file, to be looked at only: ONNX Runtime alone can write one.

    Raises:
        UnsafeModel: the file is not what it must be.
        MissingDependency: ONNX Runtime, which reads it, is not installed.
    """
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


def declared(value: onnx.ValueInfoProto) -> dict[str, Any]:
    """Type and shape of an input or output; a size that is open is None."""
    import onnx

    kind = value.type.tensor_type
    sizes = [size.dim_value if size.dim_value > 0 else None for size in kind.shape.dim]
    return {"type": onnx.TensorProto.DataType.Name(kind.elem_type).lower(), "shape": sizes}


def runs_of(path: Path, model: onnx.ModelProto) -> ModelRuns | None:
    """The file, opened to be run; None where ONNX Runtime is not installed.

    Raises:
        UnsafeModel: it cannot be opened.
    """
    import onnx

    from bertshrink.sources import onnx_checks as checks

    if not is_installed("onnxruntime"):
        return None
    step("running it in ONNX Runtime")
    inputs = {}
    for value in checks.real_inputs(model):
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        batch, length = (*declared(value)["shape"], None, None)[:2]
        inputs[value.name] = (checks.OURS.get(value.name, value.name), kind, (batch, length))
    return ModelRuns(path, inputs)


LOOKS: dict[str, Callable[..., dict[str, Any]]] = {
    "look": look,
    "again": look_again,
    "longest": look_for_length,
    "facts": facts,
}
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
