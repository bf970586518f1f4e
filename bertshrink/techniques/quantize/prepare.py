"""What has to be known before weights are written: ranges of activations, and weights rounded with regard to them.

int8-static             the range of every activation that a dense layer reads (`thresholds`), after scales have
been moved from activations to weights, if asked for (`migrate`)
int8-block, int4-block  each dense layer rounded so that its outputs on calibration texts change little (`gptq`),
where there are texts; otherwise each number to the nearest step
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from bertshrink.model.onnx_graph import array, initializers
from bertshrink.model.onnx_weights import Weight, weights
from bertshrink.techniques.quantize.block_graph import block_size_for
from bertshrink.techniques.quantize.calibrate import Calibration, Floats, calibration
from bertshrink.techniques.quantize.draft import Options
from bertshrink.techniques.quantize.gptq import gptq_quantize

if TYPE_CHECKING:
    from bertshrink.model.artifact import Artifact
    from bertshrink.techniques.base import Workbench
    from bertshrink.techniques.quantize import Quantize

BITS = {"int8-block": 8, "int4-block": 4}

_GRAM_BYTES = 256 << 20
"""Gram matrices held at a time; the graph is run once for each such group of layers."""


@dataclass
class Prepared:
    """What `rewrite` is given.

    Attributes:
        model: the canonical float32 graph, perhaps with scales moved.
        options: for `rewrite`.
        facts: what was done, for the card.
        sentences: the same for people.

    """

    model: onnx.ModelProto
    options: Options
    facts: dict[str, Any] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)


def prepare(
    source: onnx.ModelProto, types: Mapping[str, str], artifact: Artifact, settings: Quantize, bench: Workbench
) -> Prepared:
    """Calibrate as far as an assignment asks for it.

    Args:
        source: a canonical float32 graph.
        types: weight name -> type.
        artifact: for its tokenizer.
        settings: how.
        bench: for its texts.

    """
    found = Prepared(source, Options(per_channel=settings.per_channel, block_size=settings.block_size))
    dense = {name: weight for name, weight in weights(source).items() if weight.matmuls and not weight.is_table}
    in_blocks = {name: BITS[types[name]] for name in dense if types.get(name) in BITS}
    texts = calibration(artifact, bench, settings.num_calibration)
    if in_blocks and settings.rounding == "gptq" and texts.is_real:
        chosen = {name: dense[name] for name in in_blocks}
        with bench.progress.task("round to blocks", total=len(chosen), unit="layers") as task:
            rounded = {}
            for name, gram_II in gram_matrices(source, chosen, texts):
                weight_OI = array(initializers(source)[name]).T
                size = block_size_for(weight_OI.shape[1], settings.block_size)
                bits = in_blocks[name]
                rounded[name, bits] = gptq_quantize(weight_OI, gram_II, bits, size, symmetric=True)
                task.advance()
        found.options = replace(found.options, rounded=rounded)
    return found


def gram_matrices(
    model: onnx.ModelProto, chosen: Mapping[str, Weight], texts: Calibration
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


def _inputs(weight: Weight) -> list[str]:
    """Names of the distinct activations that a weight is multiplied with."""
    return list(dict.fromkeys(found.node.input[0] for found in weight.matmuls))


def _groups(chosen: Mapping[str, Weight]) -> Iterator[dict[str, Weight]]:
    """Weights in groups whose Gram matrices fit into memory together; each group is one weight at least."""
    group: dict[str, Weight] = {}
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
