"""Export an encoder to a file that an engine runs without Python.

    onnx         a graph for ONNX Runtime or OpenVINO (see `onnx`)
    ort          the same graph, optimised, in ONNX Runtime's own format for small mobile builds (see `ort`)
    executorch   a .pte program for ExecuTorch with XNNPACK (see `executorch`)

The file carries everything up to the task's output (for sentence encoders pooling and normalisation, too), takes any
batch and length unless `static_shape` says otherwise, stores each weight once, and is compared with PyTorch before it
counts as made (see `parity`).

An ONNX artifact, a quantized one for instance, can be given one shape and be written as .ort, too. The settings that
say how a graph is made from an encoder are then refused, as is any other setting that would do nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertshrink.techniques.base import Workbench

if TYPE_CHECKING:
    from bertshrink.model.model_ref import Model
from bertshrink.techniques.export.settings import ExportSettings


class Export(ExportSettings):
    """Write the model as a file that an engine runs, and prove that it gives PyTorch's numbers."""

    def __call__(self, model: Model, bench: Workbench) -> Model:
        """Export; see `graph.export`, `pte_file.export` and `ort_file.convert`."""
        from bertshrink.model.artifact import Artifact
        from bertshrink.techniques.export import fixed_shape, onnx, ort

        if isinstance(model, Artifact):
            self.form(model.card.form)
            if self.shape is not None and model.card.shape is None:
                model = fixed_shape.fix(model, self.shape, bench)
            return ort.convert(model, bench) if self.to == "ort" else model
        self.form(None)
        if self.to == "executorch":
            from bertshrink.techniques.export import executorch

            return executorch.export(model, self, bench)
        made = onnx.export(model, self, bench)
        return ort.convert(made, bench) if self.to == "ort" else made
