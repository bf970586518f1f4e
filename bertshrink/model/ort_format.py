"""ONNX Runtime's own format: written from an .onnx file, and asked for the operators that it needs."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnxruntime

from bertshrink.errors import ModelRefused

Operators = dict[str, dict[int, list[str]]]
"""Domain -> version of an operator's definition -> names."""


def write(source: Path, to: Path) -> None:
    """Have ONNX Runtime optimise an .onnx file, level "extended", and write it in its own format.

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


def required_operators(path: Path) -> Operators:
    """All operators that an .ort file runs."""
    return operators_and_types(path)[0]


def operators_and_types(path: Path) -> tuple[Operators, dict[str, str]]:
    """All operators that an .ort file runs, and what types a reduced build must keep of them.

    Returns:
        The operators; and `domain:name` -> types in the words of ONNX Runtime's build configuration, for those
        operators that can be built for some types only.

    """
    handlers = logging.root.handlers[:]
    from onnxruntime.tools.ort_format_model import OrtFormatModelProcessor
    from onnxruntime.tools.ort_format_model.operator_type_usage_processors import OperatorTypeUsageManager

    logging.root.handlers[:] = handlers  # its import gives the root logger one
    found: dict[str, dict[int, set[str]]] = {}
    usage = OperatorTypeUsageManager()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file to the garbage collector
        OrtFormatModelProcessor(str(path), found, usage).process()
    operators = {
        domain: {version: sorted(names) for version, names in sorted(by_version.items())}
        for domain, by_version in sorted(found.items())
    }
    types = {
        f"{domain}:{name}": entry
        for domain, by_version in operators.items()
        for names in by_version.values()
        for name in names
        if (entry := usage.get_config_entry(domain, name))
    }
    return operators, types
