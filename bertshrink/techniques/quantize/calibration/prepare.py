"""What has to be known before weights are written: ranges of activations, and weights rounded with regard to them.

int8-static: the range of every activation that a dense layer reads (`ranges`), after scales have been moved from
activations to weights, if that is asked for (`smooth_graph`).

int8-dynamic and int8-static: which inputs of dense layers are far larger than all others (`outlier_features`), where
that is asked for.

int4-block: each dense layer is rounded so that its outputs on training texts change least (`gptq`), where there are
texts; otherwise, and in tables, each number goes to the nearest step. The int8 types are rounded so where `rounding:
gptq` asks for it: what they lose, they lose where activations become bytes. SST-2 teacher, dynamic int8, five draws of
128 to 1,024 texts: the logits' squared error is 0.0038 to the nearest step and 0.0029 to 0.0038 by GPTQ on dev texts,
0.0080 and 0.0076 to 0.0087 on Wikipedia; the cosine on dev 0.9981, and 0.9981 to 0.9986 (4 bits: 0.9969, 0.9978). All
layers are looked at in the float model, not one after the other in the quantized one as the paper does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.encoder_graph import array, initializers
from bertshrink.onnx_graph.external_data import BorrowedTensors
from bertshrink.onnx_graph.weights import StoredWeight, weights
from bertshrink.techniques.quantize.calibration.observe import ActivationObserver, Floats, calibration
from bertshrink.techniques.quantize.calibration.outlier_features import find_outliers, split_outliers
from bertshrink.techniques.quantize.calibration.smooth_graph import migrate
from bertshrink.techniques.quantize.numerics.gptq import gptq_int8, gptq_quantize
from bertshrink.techniques.quantize.numerics.ranges import RANGES, Histogram
from bertshrink.techniques.quantize.size_estimate import block_size_for
from bertshrink.techniques.quantize.writers.builder import RewriteOptions

if TYPE_CHECKING:
    from bertshrink.model.artifact import Artifact
    from bertshrink.progress import Task
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.quantize.settings import QuantizeSettings

BITS = {"int8-block": 8, "int4-block": 4}

_GRAM_BYTES = 256 << 20
"""Gram matrices held at a time; the graph is run once for each such group of layers."""


@dataclass
class CalibrationResult:
    """What `rewrite` is given.

    Attributes:
        model: the canonical float32 graph, perhaps with outlier features set apart or with scales moved.
        facts: what was done, for the card.
        sentences: the same for people.
        lender: of the numbers that were changed; they stay in memory as long as this is there.
    """

    model: onnx.ModelProto
    options: RewriteOptions
    facts: dict[str, Any] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    lender: BorrowedTensors | None = None


def prepare(
    source: onnx.ModelProto, types: Mapping[str, str], artifact: Artifact, settings: QuantizeSettings, bench: Workbench
) -> CalibrationResult:
    """Calibrate as far as an assignment asks for it.

    Args:
        source: a canonical float32 graph.
    """
    prepared = CalibrationResult(
        source, RewriteOptions(per_channel=settings.per_channel, block_size=settings.block_size)
    )
    dense = {name: weight for name, weight in weights(source).items() if weight.matmuls}
    static = [name for name in dense if types.get(name) == "int8-static"]
    rounded = {name: types[name] for name in dense if _is_rounded(dense[name], types.get(name, "float32"), settings)}
    in_bytes = [name for name in dense if types.get(name) in ("int8-dynamic", "int8-static")]
    if settings.outlier_features != "keep":
        in_bytes = []
    if not static and not in_bytes and not (rounded and bench.texts is not None):
        return prepared
    texts = calibration(artifact, bench, settings.calibration_examples)
    prepared.facts = {"num_texts": len(texts.rows), "num_tokens": texts.num_tokens, "num_gptq": 0}
    prepared.sentences.append(f"calibrated with {texts.words}")
    if in_bytes:
        _split(prepared, in_bytes, texts)
    if static and settings.smoothquant_alpha is not None:
        _smooth(prepared, texts, settings.smoothquant_alpha)
    if static:
        dense = weights(prepared.model)
        chosen = list(dict.fromkeys(value for name in static for value in _inputs(dense[name])))
        prepared.options = replace(
            prepared.options, ranges=ranges(prepared.model, chosen, texts, settings.range_method)
        )
        prepared.facts["ranges"] = settings.range_method
    if rounded and texts.is_real:
        with bench.progress.task("round weights", total=len(rounded), unit="layers") as task:
            _round(prepared, rounded, texts, settings.block_size, task)
    return prepared


def _is_rounded(weight: StoredWeight, kind: str, settings: QuantizeSettings) -> bool:
    """Whether a weight is rounded by GPTQ: a dense layer's, not a table's; of 8 bits only where that is asked for."""
    if weight.is_table or (kind in ("int8-dynamic", "int8-static") and not settings.per_channel):
        return False
    kinds = {"auto": ("int4-block",), "gptq": ("int4-block", "int8-block", "int8-dynamic", "int8-static")}
    return kind in kinds.get(settings.rounding, ())


def _smooth(prepared: CalibrationResult, texts: ActivationObserver, alpha: float) -> None:
    """Move scales from activations into weights."""
    prepared.lender = prepared.lender or BorrowedTensors()
    moved = migrate(prepared.model, texts, alpha, prepared.lender.tensor)
    prepared.model = canonicalise(moved.model)
    prepared.facts |= {"num_smoothed": moved.num_smoothed, "num_activations": moved.num_activations}
    prepared.sentences.append(
        f"outliers of {moved.num_smoothed} of {moved.num_activations} activations moved into weights (SmoothQuant), "
        f"for {moved.num_muls} more multiplications; the others cannot be divided where they are made"
    )


def _split(prepared: CalibrationResult, chosen: Sequence[str], texts: ActivationObserver) -> None:
    """Keep outlier features out of what becomes bytes."""
    outliers = find_outliers(prepared.model, chosen, texts)
    prepared.facts["num_outlier_features"] = sum(len(found.places) for found in outliers.values())
    if not outliers:
        return
    prepared.lender = prepared.lender or BorrowedTensors()
    prepared.model = split_outliers(prepared.model, outliers, prepared.lender.tensor)
    prepared.sentences.append(
        f"{prepared.facts['num_outlier_features']} inputs of dense layers, in {len(outliers)} activations, are far "
        "larger than all others: neurons are computed apart in float32, others divided and read several times"
    )


def _round(
    prepared: CalibrationResult, kinds: Mapping[str, str], texts: ActivationObserver, block_size: int, task: Task
) -> None:
    """Round dense layers by GPTQ; `kinds` is weight name -> type."""
    blocks, columns = dict(prepared.options.blocks), dict(prepared.options.columns)
    stored, dense = initializers(prepared.model), weights(prepared.model)
    for name, gram_II in gram_matrices(prepared.model, {name: dense[name] for name in kinds}, texts):
        weight_IO, bits = array(stored[name]), BITS.get(kinds[name])
        if bits is None:
            columns[name] = gptq_int8(weight_IO, gram_II)
        else:
            size = block_size_for(len(weight_IO), block_size)
            blocks[name, bits] = gptq_quantize(weight_IO.T, gram_II, bits, size, symmetric=True)
        task.advance()
    prepared.options = replace(prepared.options, blocks=blocks, columns=columns)
    prepared.facts["num_gptq"] = len(kinds)
    prepared.sentences.append(f"{len(kinds)} weights rounded so that layer outputs on these texts change least")


def ranges(
    model: onnx.ModelProto, chosen: Sequence[str], texts: ActivationObserver, method: str
) -> dict[str, tuple[float, float]]:
    """The range of each of some activations; `method` is a name in `ranges.RANGES`."""
    histograms = {value: Histogram() for value in chosen}
    texts.watch(model, {value: histogram.update for value, histogram in histograms.items()})
    return {value: RANGES[method](histogram) for value, histogram in histograms.items()}


def gram_matrices(
    model: onnx.ModelProto, chosen: Mapping[str, StoredWeight], texts: ActivationObserver
) -> Iterator[tuple[str, Floats]]:
    """For each dense layer's weight the sum of x x^T over the tokens that it reads, (I, I) float64.

    A weight that several layers share gets the sum over all of them. Layers that read the same activation share the
    sum, and few sums are held at a time: the graph is run once for each group of layers.
    """
    for group in _groups(chosen):
        sums = {value: np.zeros((weight.shape[0],) * 2) for weight in group.values() for value in _inputs(weight)}
        texts.watch(model, {value: partial(_add_gram, sums[value]) for value in sums})
        for name, weight in group.items():
            first, *others = _inputs(weight)
            yield name, sum((sums[value] for value in others), sums[first])


def _add_gram(sum_II: Floats, values_TI: Floats) -> None:
    sum_II += values_TI.T @ values_TI


def _inputs(weight: StoredWeight) -> list[str]:
    """Names of the distinct activations that a weight is multiplied with."""
    return list(dict.fromkeys(matmul.node.input[0] for matmul in weight.matmuls))


def _groups(chosen: Mapping[str, StoredWeight]) -> Iterator[dict[str, StoredWeight]]:
    """Weights in groups whose Gram matrices fit into memory together; each group is one weight at least."""
    group: dict[str, StoredWeight] = {}
    held: dict[str, int] = {}
    for name, weight in chosen.items():
        more = {value: 8 * weight.shape[0] ** 2 for value in _inputs(weight)}
        if group and sum((held | more).values()) > _GRAM_BYTES:
            yield group
            group, held = {}, {}
        group[name] = weight
        held |= more
    if group:
        yield group
