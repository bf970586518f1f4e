"""ONNX Runtime's own format: written from an .onnx file, read as a graph, and asked for the operators that it needs."""

from __future__ import annotations

import importlib
import logging
import struct
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import onnx

from bertshrink import units
from bertshrink.engines.ort import onnxruntime
from bertshrink.errors import OutputError, UnsafeModel, UserError
from bertshrink.files.safe_open import MAX_FILE_BYTES
from bertshrink.onnx_graph.encoder_graph import read_model, stored_bytes

MAGIC = b"ORTM"
"""What such a file has at its fifth byte."""
_NOT_WRITTEN = "Failed to save ORT format model"
_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
"""Stored so, weights are float32 in the .ort file: ONNX Runtime computes their Cast."""
Operators = dict[str, dict[int, list[str]]]
"""Domain -> version of an operator's definition -> names."""


def write(source: Path, to: Path) -> None:
    """Have ONNX Runtime optimise an .onnx file, level "extended", and write it in its own format.

    Raises:
        UserError: its weights are more than one .ort file holds.
        UnsafeModel: it cannot open the file.
        OutputError: there is no room at `to`.
    """
    _refuse_too_large(source)
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
        if _NOT_WRITTEN in str(error):
            what = f"ONNX Runtime cannot write `{to.name}`"
            raise OutputError(what, where=str(to.parent), hint="free some space, or choose another place") from None
        raise UnsafeModel(f"ONNX Runtime cannot open the file: {error}", where=str(source)) from None


def _refuse_too_large(source: Path) -> None:
    """Refuse what a FlatBuffer cannot hold, which ONNX Runtime would find out late, if at all; raises UserError."""
    stored = read_model(source, numbers=False).graph.initializer
    num_bytes = sum(stored_bytes(one) * (2 if one.data_type in _HALF else 1) for one in stored)
    if num_bytes > MAX_FILE_BYTES:
        size, most = (units.format(value, "B") for value in (num_bytes, MAX_FILE_BYTES))
        raise UserError(
            f"the .ort file would take {size}, and one holds {most}",
            where=str(source),
            hint="quantize the model first: `bertshrink quantize`; or leave it in ONNX",
        )


def required_operators(path: Path) -> Operators:
    """All operators that an .ort file runs."""
    return operators_and_types(path)[0]


def operators_and_types(path: Path) -> tuple[Operators, dict[str, str]]:
    """All operators that an .ort file runs, and what types a reduced build must keep of them.

    Returns:
        The operators; and `domain:name` -> types in the words of ONNX Runtime's build configuration, for those
        operators that can be built for some types only.
    """
    tools = import_tools("ort_format_model")
    required: dict[str, dict[int, set[str]]] = {}
    usage = tools.OperatorTypeUsageManager()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file to the garbage collector
        tools.OrtFormatModelProcessor(str(path), required, usage).process()
    operators = {
        domain: {version: sorted(names) for version, names in sorted(by_version.items())}
        for domain, by_version in sorted(required.items())
    }
    types = {
        f"{domain}:{name}": entry
        for domain, by_version in operators.items()
        for names in by_version.values()
        for name in names
        if (entry := usage.get_config_entry(domain, name))
    }
    return operators, types


def graph_of(data: bytes) -> onnx.ModelProto:
    """The graph of an .ort file as an ONNX message, for whoever asks what it is; not to be run.

    It has the nodes with those attributes that are whole numbers, without their subgraphs; stored tensors; inputs and
    outputs with types and shapes; and what the file says of itself.

    Raises:
        UnsafeModel: the bytes are not an .ort file, or a damaged one.
    """
    damaged = UnsafeModel(
        "the file is not an .ort file, or is damaged or truncated", hint="export it again, or download it again"
    )
    if data[4:8] != MAGIC:
        raise damaged
    import_tools("ort_format_model")
    read = importlib.import_module("ort_flatbuffers_py.fbs")  # it is on the path once the tools are imported
    try:
        return _message(read, read.InferenceSession.InferenceSession.GetRootAs(data).Model())
    except (struct.error, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        raise damaged from None  # offsets that lead nowhere end in any of these


def import_tools(name: str) -> Any:
    """A module of `onnxruntime.tools`, without what that package's import does besides.

    It imports torch where that is installed, seconds for a helper that nothing here uses, and gives the root logger a
    handler.
    """
    handlers, modules = logging.root.handlers[:], cast(dict[str, Any], sys.modules)
    is_new = "torch" not in modules
    if is_new:
        modules["torch"] = None  # as if it were not installed
    try:
        return importlib.import_module(f"onnxruntime.tools.{name}")
    finally:
        logging.root.handlers[:] = handlers
        if is_new:
            del modules["torch"]


def _message(read: Any, model: Any) -> onnx.ModelProto:
    graph, text = model.Graph(), bytes.decode
    made = onnx.ModelProto(
        producer_name=text(model.ProducerName() or b""), producer_version=text(model.ProducerVersion() or b"")
    )
    for entry in _each(model, "OpsetImport"):
        made.opset_import.add(domain=text(entry.Domain() or b""), version=entry.Version())
    for entry in _each(model, "MetadataProps"):
        made.metadata_props.add(key=text(entry.Key()), value=text(entry.Value() or b""))
    for stored in _each(graph, "Initializers"):
        made.graph.initializer.add(
            name=text(stored.Name()),
            data_type=stored.DataType(),
            dims=[stored.Dims(at) for at in range(stored.DimsLength())],
            raw_data=b"" if stored.RawDataIsNone() else stored.RawDataAsNumpy().tobytes(),
        )
    for node in _each(graph, "Nodes"):
        numbers = [
            onnx.AttributeProto(name=text(entry.Name()), type=onnx.AttributeProto.INT, i=entry.I())
            for entry in _each(node, "Attributes")
            if entry.Type() == read.AttributeType.AttributeType.INT
        ]
        made.graph.node.add(
            op_type=text(node.OpType()),
            domain=text(node.Domain() or b""),
            input=map(text, _each(node, "Inputs")),
            output=map(text, _each(node, "Outputs")),
            attribute=numbers,
        )
    types = {text(value.Name()): value.Type() for value in _each(graph, "NodeArgs")}
    for side, values in (("Inputs", made.graph.input), ("Outputs", made.graph.output)):
        for name in map(text, _each(graph, side)):
            values.add(name=name, type=_type(read, types[name]))
    return made


def _each(table: Any, name: str) -> list[Any]:
    return [getattr(table, name)(at) for at in range(getattr(table, f"{name}Length")())]


def _type(read: Any, about: Any) -> onnx.TypeProto:
    """The type of an input or output that is a tensor; a size that is open has no number."""
    made = onnx.TypeProto()
    if about.ValueType() != read.TypeInfoValue.TypeInfoValue.tensor_type:
        return made
    value = about.Value()
    tensor = read.TensorTypeAndShape.TensorTypeAndShape()
    tensor.Init(value.Bytes, value.Pos)
    made.tensor_type.elem_type = tensor.ElemType()
    for dim in _each(tensor.Shape(), "Dim") if tensor.Shape() is not None else ():
        size = dim.Value()
        is_number = size is not None and size.DimType() == read.DimensionValueType.DimensionValueType.VALUE
        made.tensor_type.shape.dim.add(**({"dim_value": size.DimValue()} if is_number else {}))
    return made
