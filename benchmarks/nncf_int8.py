"""NNCF's post-training int8 of an ONNX file, as its documentation says; run in an environment with NNCF and OpenVINO.

    python benchmarks/nncf_int8.py MODEL.onnx CALIBRATION.json OUT.xml

CALIBRATION.json is a list of rows, each input name -> numbers (1, L). `export_quantize.py` calls it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def main() -> None:
    import nncf
    import openvino

    model, calibration, out = sys.argv[1:]
    rows = json.loads(Path(calibration).read_text(encoding="utf-8"))
    graph = openvino.Core().read_model(model)
    names = {name for value in graph.inputs for name in value.names}
    feeds = [{key: np.array(value, dtype=np.int64) for key, value in row.items() if key in names} for row in rows]
    small = nncf.quantize(
        graph, nncf.Dataset(feeds), model_type=nncf.ModelType.TRANSFORMER, subset_size=min(300, len(feeds))
    )
    openvino.save_model(small, out, compress_to_fp16=False)


if __name__ == "__main__":
    main()
