"""bertshrink: make a BERT-family encoder small and fast, honestly measured."""

__version__ = "0.1.0.dev0"

import os

# ONNX Runtime's wheels keep a database in the user's cache folder and call a statistics server unless this is set.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
