"""Settings of `export`: what they mean, what fits them, what they promise. No torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from bertshrink import units
from bertshrink.errors import UserError
from bertshrink.files.safe_open import MAX_FILE_BYTES
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.base import Technique

if TYPE_CHECKING:
    from bertshrink.model.artifact import ArtifactSpec
    from bertshrink.model.checkpoint_info import CheckpointInfo
    from bertshrink.model.model_ref import Kind
    from bertshrink.model.sizes.size_estimate import Sizes

MAX_BATCH = 8
"""Rows that a .pte file without a fixed shape takes at once. Its memory is planned for them at the longest input: about
230 MB at 8x512 for 6 layers of width 384."""

_OF_EXECUTORCH = ("int8", "int8_cosine", "max_batch")
_OF_ENCODERS = ("opset", "tolerance", "engine", "attention", "precision", "outputs")
_TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""Rounding a weight to 11 or 8 bits changes it by up to 2^-12 or 2^-9 of itself; outputs of 6 to 24 layers by some ten
times as much."""


class ExportSettings(Technique):
    """Write the model as a file that an engine runs, and prove that it gives PyTorch's numbers."""

    name: ClassVar[str] = "export"
    paper: ClassVar[str] = "https://onnx.ai/onnx/intro/concepts.html"
    takes: ClassVar[tuple[Kind, ...]] = ("encoder", "artifact")
    gives: ClassVar[Kind] = "artifact"
    other_names: ClassVar[Mapping[str, str]] = {
        "fixed": "static_shape",
    }

    to: Literal["onnx", "ort", "executorch"] = Field("onnx", description="file format of the result")
    engine: Literal["onnxruntime", "openvino"] = Field(
        "onnxruntime", description="engine the ONNX file is for: verified, evaluated and timed with it"
    )
    static_shape: str | None = Field(
        None,
        pattern=r"^[1-9]\d{0,5}x[1-9]\d{0,5}$",
        description="fixed input shape of the file, as BATCHxLENGTH, for engines that need static shapes",
    )
    opset: int = Field(
        20, ge=17, le=20, description="version of the ONNX operators: 20 has Gelu, 17 is for older runtimes"
    )
    attention: Literal["standard", "fused"] = Field(
        "standard",
        description="`fused`: each layer's attention as one operator, known to ONNX Runtime and OpenVINO; `standard`: "
        "in ONNX's own operators, for every runtime",
    )
    precision: Literal["float32", "float16", "bfloat16"] = Field(
        "float32",
        description="number format of the stored weights; the engine chooses what it computes in",
    )
    outputs: Literal["both", "sentence_embedding"] = Field(
        "both",
        description="sentence encoders: `both` also gives token vectors (`last_hidden_state`), which other libraries "
        "pool themselves",
    )
    tolerance: float | None = Field(
        None,
        gt=0,
        le=0.1,
        description="largest accepted difference from PyTorch, as a fraction of the largest output; default: 0.0001 in "
        "float32, 0.01 in float16, 0.05 in bfloat16",
    )
    int8: bool = Field(
        False,
        description="ExecuTorch: 8-bit weights, one scale per output, with dynamic 8-bit activations",
    )
    int8_cosine: float = Field(
        0.99, ge=-1, le=1, description="ExecuTorch: minimum cosine between float and 8-bit outputs"
    )
    max_batch: int = Field(
        MAX_BATCH,
        ge=1,
        le=1024,
        description="ExecuTorch: maximum rows per batch, for which memory is planned; without `static_shape`",
    )

    @property
    def shape(self) -> tuple[int, int] | None:
        """`static_shape` as (batch, length)."""
        if self.static_shape is None:
            return None
        batch, _, length = self.static_shape.partition("x")
        return int(batch), int(length)

    @property
    def largest_difference(self) -> float:
        """`tolerance`, or what the precision allows."""
        return _TOLERANCES[self.precision] if self.tolerance is None else self.tolerance

    @property
    def half(self) -> Literal["float16", "bfloat16"] | None:
        """The type that weights are stored in; None: float32."""
        return None if self.precision == "float32" else self.precision

    def outputs_of(self, task: str) -> tuple[str, ...]:
        """What the file gives, in this order."""
        row = TASKS[task]
        return (*row.beside, *row.outputs) if self.outputs == "both" else row.outputs

    def label(self) -> str:
        """The stage in a few words."""
        words = ["export to", {"onnx": "ONNX", "ort": "ORT", "executorch": "ExecuTorch"}[self.to]]
        words += ["int8"] if self.int8 else []
        words += [f"in {self.precision}"] if self.half else []
        words += ["for OpenVINO"] if self.engine == "openvino" else []
        words += [f"at {self.static_shape}"] if self.static_shape else []
        return " ".join(words)

    def extras(self) -> frozenset[str]:
        """The engine that runs the file, where it is not part of `ml`."""
        return frozenset({self.runs_on} - {"onnxruntime"})

    @property
    def runs_on(self) -> str:
        """A name in `engines.ENGINES`."""
        return {"onnx": self.engine, "ort": "onnxruntime", "executorch": "executorch"}[self.to]

    def fit(self, facts: CheckpointInfo) -> CheckpointInfo:
        """Prove that the model takes texts of the fixed length, has the outputs chosen among, and fits into a file."""
        if "outputs" in self.model_fields_set and not TASKS[facts.task].beside:
            raise UserError(
                f"`outputs` is for sentence encoders; the model is for `{facts.task}`",
                hint="leave it out",
                setting="outputs",
            )
        if self.attention == "fused" and not facts.anatomy.is_fused:
            raise UserError(
                f"attention of a {facts.anatomy.title} is not what ONNX Runtime's one operator computes",
                hint="leave `attention` at `standard`",
                setting="attention",
            )
        if self.shape is not None and self.shape[1] > facts.max_length:
            raise UserError(
                f"`static_shape: {self.static_shape}` is longer than the model's longest input",
                hint=f"it takes {facts.max_length} tokens at most: `static_shape: {self.shape[0]}x{facts.max_length}`",
                setting="static_shape",
            )
        self._refuse_too_large(facts)
        return facts

    def _refuse_too_large(self, facts: CheckpointInfo) -> None:
        """Refuse what a FlatBuffer cannot hold; ONNX has a second file for that. Raises UserError."""
        from bertshrink.model.sizes.size_estimate import TOLERANCE, of_encoder

        num_bytes = of_encoder(facts).num_bytes / (4 if self.int8 else 1)
        if self.to != "onnx" and num_bytes > MAX_FILE_BYTES * (1 + TOLERANCE):
            kind, other = {
                "ort": ("an .ort file", "quantize the ONNX file first"),
                "executorch": ("a .pte program", ""),
            }[self.to]
            size, most = (units.format(value, "B") for value in (num_bytes, MAX_FILE_BYTES))
            raise UserError(
                f"the model's weights take {size}{' in bytes' if self.int8 else ''}, and {kind} holds {most}",
                hint=other or ("make it smaller first" if self.int8 else "store them in bytes: `int8: true`"),
                setting="to",
            )

    def sizes(self, before: Sizes) -> Sizes | None:
        """The ONNX file's; of other formats they is unknown, nor of an artifact that is only written again."""
        if self.to != "onnx":
            return None
        from bertshrink.techniques.export.size_estimate import as_onnx

        return as_onnx(before, is_half=self.half is not None) if before.facts is not None else before

    def form(self, before: ArtifactSpec | None) -> ArtifactSpec:
        """The file that comes out; refuses settings that would do nothing."""
        from bertshrink.model.artifact import ArtifactSpec

        if self.to != "onnx" and "engine" in self.model_fields_set and self.engine != self.runs_on:
            raise UserError(
                f"`engine: {self.engine}` runs ONNX files, and `to` is {self.to}", hint="leave it out", setting="engine"
            )
        for name in _OF_EXECUTORCH:
            if name in self.model_fields_set and self.to != "executorch":
                raise UserError(f"`{name}` is for ExecuTorch, and `to` is {self.to}", hint="leave it out", setting=name)
        if self.half is not None and self.to != "onnx":
            raise UserError(
                f"`precision: {self.precision}` stores the weights of ONNX files, and `to` is {self.to}",
                hint="leave it out: other formats compute the weights in float32 when they are written",
                setting="precision",
            )
        if self.static_shape is not None and "max_batch" in self.model_fields_set:
            raise UserError(
                "`max_batch` is for files of any shape, and `static_shape` names one",
                hint="leave one out",
                setting="max_batch",
            )
        if before is not None:
            return self._form_of_artifact(super().form(before))
        suffix, shape = {"executorch": "pte"}.get(self.to, self.to), self.shape
        max_batch = self.max_batch if self.to == "executorch" and shape is None else None
        return ArtifactSpec(suffix, self.runs_on, shape, max_batch, shape[1] if shape is not None else None)

    def _form_of_artifact(self, before: ArtifactSpec) -> ArtifactSpec:
        from dataclasses import replace

        for name in _OF_ENCODERS:
            if name in self.model_fields_set:
                raise UserError(
                    f"`{name}` is about making a graph from an encoder; the model is an artifact",
                    hint="leave it out, or start from the encoder",
                    setting=name,
                )
        if self.to == "executorch" or (self.to == "onnx" and self.static_shape is None):
            raise UserError(
                f"`to: {self.to}` is made from an encoder; the model is an artifact",
                hint="of an ONNX artifact `to: ort` can be made, and `static_shape` gives it one shape",
                setting="to",
            )
        if self.static_shape is not None and before.shape not in (None, self.shape):
            raise UserError(
                f"`static_shape: {self.static_shape}` is not possible: the artifact already has another fixed shape",
                setting="static_shape",
            )
        if self.shape is not None and before.max_length is not None and self.shape[1] > before.max_length:
            raise UserError(
                f"`static_shape: {self.static_shape}` is longer than the artifact's longest input",
                hint=f"it takes {before.max_length} tokens at most",
                setting="static_shape",
            )
        shape = self.shape or before.shape
        length = (shape[1] if shape is not None else None) or before.max_length
        runs_on = before.engine if self.to == "onnx" else "onnxruntime"
        return replace(before, format=self.to, engine=runs_on, shape=shape, max_length=length)
