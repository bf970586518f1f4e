"""Export an encoder to an ONNX file that a runtime opens without Python.

The graph carries everything up to the task's output (for sentence encoders pooling and normalisation, too), takes any
batch and length, stores each weight once, and is compared with PyTorch before it counts as made. See `graph` and
`parity`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import Field

from bertshrink.techniques.base import Kind, Technique, Workbench

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder
    from bertshrink.techniques.base import Model


class Export(Technique):
    """Write the model as an ONNX file, and prove that it gives PyTorch's numbers."""

    name: ClassVar[str] = "export"
    paper: ClassVar[str] = "https://onnx.ai/onnx/intro/concepts.html"
    takes: ClassVar[Kind] = "encoder"
    gives: ClassVar[Kind] = "artifact"

    to: Literal["onnx"] = Field("onnx", description="file format of the result")
    opset: int = Field(
        20, ge=17, le=20, description="version of the ONNX operators: 20 has Gelu, 17 is for older runtimes"
    )
    attention: Literal["standard", "fused"] = Field(
        "standard",
        description="`fused`: each layer's attention as one operator, known to ONNX Runtime and OpenVINO; `standard`: "
        "in ONNX's own operators, for every runtime",
    )
    tolerance: float = Field(
        1e-4, gt=0, le=0.1, description="largest accepted difference from PyTorch, as a share of the largest output"
    )

    def label(self) -> str:
        """The stage in a few words."""
        return "export to ONNX"

    def __call__(self, model: Model, bench: Workbench) -> Model:
        """Export; see `graph.export`."""
        from bertshrink.techniques.export.graph import export

        return export(cast("Encoder", model), self, bench)
