"""ONNX Runtime, imported without its telemetry.

Its wheels keep a database in the user's cache folder and call a statistics server unless a variable is set when they
are imported. It is there for that moment alone: the environment of a program that imports bertshrink is its own.
"""

import os

_VARIABLE = "ORT_DISABLE_TELEMETRY"
_before = os.environ.get(_VARIABLE)
os.environ.setdefault(_VARIABLE, "1")
try:
    import onnxruntime as onnxruntime
finally:
    if _before is None:
        del os.environ[_VARIABLE]
