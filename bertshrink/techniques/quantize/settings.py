"""Settings of `quantize`: what they mean, what fits them, what they promise. No torch at import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from bertshrink import units
from bertshrink.techniques.base import Technique, is_share, is_size

if TYPE_CHECKING:
    from bertshrink.model.artifact import ArtifactSpec
    from bertshrink.model.model_ref import Kind
    from bertshrink.model.sizes.size_estimate import Sizes

Scheme = Literal["dynamic-int8", "static-int8", "block-int8", "block-int4", "float16", "bfloat16"]

_LABELS = {
    "dynamic-int8": "int8",
    "static-int8": "static int8",
    "block-int8": "int8 in blocks",
    "block-int4": "int4 in blocks",
}


class QuantizeSettings(Technique):
    """Store weights and embeddings in fewer bits, and multiply in integers where the scheme does."""

    name: ClassVar[str] = "quantize"
    paper: ClassVar[str] = "arXiv:1910.06188"
    takes: ClassVar[tuple[Kind, ...]] = ("artifact",)
    gives: ClassVar[Kind] = "artifact"
    other_names: ClassVar[Mapping[str, str]] = {
        "calibration": "range_method",
        "max_drop": "max_metric_drop",
        "num_calibration": "calibration_examples",
        "smooth": "smoothquant_alpha",
    }

    scheme: Scheme = Field(
        "dynamic-int8",
        description="number format: dynamic-int8, static-int8, block-int8, block-int4, float16 or bfloat16",
    )
    embeddings: Literal["auto", "int8", "int4", "float32"] = Field(
        "auto", description="number format of embedding tables: int8, int4, float32; auto: the scheme's own"
    )
    per_channel: bool = Field(True, description="int8: one scale per output of a dense layer instead of one for all")
    block_size: int = Field(32, ge=16, le=256, description="block schemes: values that share a scale, a power of two")
    rounding: Literal["auto", "gptq", "nearest"] = Field(
        "auto",
        description="gptq: minimize the change of outputs on training texts; nearest: to the nearest step; auto: gptq "
        "for 4 bits if there are texts",
    )
    range_method: Literal["min-max", "entropy", "percentile"] = Field(
        "percentile",
        description="static-int8: method that finds an activation's range: min-max, entropy, percentile (99.99 %)",
    )
    calibration_examples: int = Field(128, gt=0, description="number of calibration texts")
    outlier_features: Literal["auto", "keep", "round"] = Field(
        "auto",
        description="int8: inputs of dense layers that are far larger than all others: keep: they take no bits from "
        "the rest; round: all are rounded alike; auto: keep where the cosine is below 0.99 otherwise, and better so",
    )
    smoothquant_alpha: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="static-int8: SmoothQuant alpha, the fraction of activation outliers moved into the "
        "weights, as 0.5",
    )
    min_cosine: float = Field(
        0.98, ge=-1, le=1, description="minimum cosine between the outputs before and after, on real text"
    )
    max_metric_drop: str | None = Field(
        None,
        description="maximum drop of the task's metric (without labels: the cosine), such as 0.5%; the most sensitive "
        "weights keep more bits until it holds",
    )
    auto: bool = Field(
        False, description="try the schemes, time them on this machine, and keep the fastest one within limits"
    )
    max_size: str | None = Field(None, description="auto: maximum file size, such as 20 MB")
    engine: Literal["onnxruntime", "openvino"] | None = Field(
        None, description="engine of the result; default: that of the quantized model"
    )
    target: Literal["cpu"] = Field("cpu", description="auto: target the schemes are timed on")

    _drop_is_share = field_validator("max_metric_drop")(is_share)
    _max_is_size = field_validator("max_size")(is_size)

    @model_validator(mode="after")
    def _no_limit_without_choice(self) -> QuantizeSettings:
        if self.max_size is not None and not self.auto:
            raise ValueError("`max_size` chooses among what `auto` tries: set `auto`, too")
        return self

    @property
    def largest_drop(self) -> float | None:
        """`max_metric_drop` as a number."""
        return None if self.max_metric_drop is None else units.share(self.max_metric_drop)

    @property
    def largest_size(self) -> float | None:
        """`max_size` in bytes."""
        return None if self.max_size is None else units.size(self.max_size)

    def sizes(self, before: Sizes) -> Sizes | None:
        """Those of the scheme; with `auto` of the smallest one; with `max_metric_drop` they may grow from there."""
        from bertshrink.techniques.quantize.search.autotune import FLOAT, candidates
        from bertshrink.techniques.quantize.size_estimate import quantized

        if before.format != "onnx" or not before.is_float:
            return None
        tried: list[tuple[str, str]] = [(self.scheme, self.embeddings)]
        if self.auto:
            choices = candidates(self.engine or "onnxruntime", frozenset())
            tried = [(one.scheme, one.embeddings) for one in choices if one.scheme != FLOAT]
        made = [quantized(before, *one, self.block_size, per_channel=self.per_channel) for one in tried]
        return min(made, key=lambda sizes: sizes.num_bytes)

    def scratch_bytes(self, before: Sizes) -> int:
        """A float file whose activations are looked at, where the scheme asks for that."""
        in_bytes = self.scheme in ("dynamic-int8", "static-int8")
        is_calibrated = self.auto or self.rounding == "gptq" or self.scheme == "static-int8"
        is_calibrated = is_calibrated or (in_bytes and self.outlier_features != "round")
        return before.num_bytes if is_calibrated else 0

    def extras(self) -> frozenset[str]:
        """The engine that runs the result, where it is not part of `ml`."""
        return frozenset({self.engine or "onnxruntime"} - {"onnxruntime"})

    def form(self, before: ArtifactSpec | None) -> ArtifactSpec:
        """The same file for the engine that is named."""
        from dataclasses import replace

        spec = super().form(before)
        return replace(spec, engine=self.engine or spec.engine)

    @property
    def depends_on_machine(self) -> bool:
        """What is fastest here need not be elsewhere."""
        return self.auto

    @field_validator("block_size")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError(f"{value} is not a power of two, which ONNX Runtime's operators ask for")
        return value

    def label(self) -> str:
        """The stage in a few words."""
        if self.auto:
            return "quantize as measured best"
        return f"quantize to {_LABELS.get(self.scheme, self.scheme)}"
