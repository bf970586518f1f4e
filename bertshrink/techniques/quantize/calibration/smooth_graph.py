"""Scales moved from activations into weights, in an encoder's graph (the numbers: `smoothquant`; SmoothQuant,
arXiv:2211.10438).

An activation x that dense layers read becomes x / s, and their weights s W. Where the division costs little or nothing:

    norm   LayerNormalization gives x: its scale and bias are divided. What else reads x (the residual path of every
           post-norm encoder) reads x / s times s: one Mul, and none where nothing else does.
    mix    x is the mix of values before an attention's output layer: the value layer's columns and bias are divided,
           because mixing is linear in each channel.

Everything else is left alone: no division can be folded through GELU, or into a sum that a residual path reads.

A weight that several layers share (ALBERT) has one s, from the largest of all the activations that it reads; where one
of these is of neither kind, or the weight is a table, all of them are left alone. In float the graph computes what it
did before.

Letters: I inputs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bertshrink.onnx_graph.encoder_graph import array, tensor
from bertshrink.techniques.quantize.calibration.dense_graph import DenseGraph
from bertshrink.techniques.quantize.calibration.observe import ActivationObserver, Floats, keep_largest
from bertshrink.techniques.quantize.numerics.smoothquant import smoothing_scales

_MIX = (("Reshape", 0), ("Transpose", 0), ("MatMul", 1), ("Transpose", 0), ("Reshape", 0), ("Add", None))
"""From an attention's mix back to its values: operators, and which input leads on."""
_HEADS = [0, 2, 1, 3]
"""The permutation between (batch, length, head, size) and (batch, head, length, size)."""


@dataclass(frozen=True)
class ScaleSite:
    """Where an activation can be divided.

    Attributes:
        node: a LayerNormalization, or the Add of a value layer's bias.
        vectors: places of the node's inputs to divide: scale and bias.
        columns: the value layer's weight, whose outputs are divided as well.
    """

    node: onnx.NodeProto
    vectors: tuple[int, ...]
    columns: str | None = None


@dataclass(frozen=True)
class Smoothed:
    """A graph with scales moved.

    Attributes:
        num_smoothed: activations that were divided.
        num_activations: all that dense layers read.
        num_muls: multiplications added for residual paths.
    """

    model: onnx.ModelProto
    num_smoothed: int
    num_activations: int
    num_muls: int


def migrate(
    model: onnx.ModelProto,
    texts: ActivationObserver,
    alpha: float,
    keep: Callable[[NDArray[Any], str], onnx.TensorProto] = tensor,
) -> Smoothed:
    """Move scales wherever this file's opening says that it costs little.

    Args:
        model: a canonical float32 graph; it is not changed.
        alpha: as for `smooth.smoothing_scales`.
        keep: what makes a stored tensor of changed numbers: (numbers, name).
    """
    work = _GraphSmoother(model)
    groups = list(work.groups())
    largest: dict[str, Floats] = {}
    texts.watch(model, {value: partial(keep_largest, largest, value) for group in groups for value in group})
    for group in groups:
        names = {name for value in group for name in work.reads[value]}
        weight_I = np.max([np.abs(work.numbers(name)).max(axis=1) for name in sorted(names)], axis=0)
        work.divide(group, smoothing_scales(np.max([largest[value] for value in group], axis=0), weight_I, alpha))
    return Smoothed(work.result(keep), sum(map(len, groups)), len(work.reads), work.num_muls)


class _GraphSmoother(DenseGraph):
    """A graph's activations, by which weights read them, and its tensors while they change."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        super().__init__(self.model)
        self.changed: dict[str, Floats] = {}
        self.sources = {value: source for value in self.reads if (source := self.source(value)) is not None}
        self.restored: dict[str, str] = {}
        self.num_muls = 0

    def numbers(self, name: str) -> Floats:
        """A stored tensor's numbers as they are by now; those that nothing changed are read each time."""
        return self.changed[name] if name in self.changed else array(self.stored[name])

    def source(self, value: str) -> ScaleSite | None:
        """Where an activation can be divided; None where it cannot."""
        node = self.makers.get(value)
        if node is None or node.op_type != "LayerNormalization":
            return self.mixed(value)
        vectors = tuple(at for at in range(1, len(node.input)) if node.input[at])
        return ScaleSite(node, vectors) if all(node.input[at] in self.stored for at in vectors) else None

    def mixed(self, value: str) -> ScaleSite | None:
        """The value layer an attention's mix comes from; None where `value` is not a mix, or others read it."""
        if len(self.readers[value]) != len(self.reads[value]):
            return None
        node = self.makers.get(value)
        for place, (kind, leads_on) in enumerate(_MIX):
            if node is None or node.op_type != kind or (place and len(self.readers[node.output[0]]) != 1):
                return None
            if kind == "Transpose" and _permutation(node) != _HEADS:
                return None
            if leads_on is not None:
                node = self.makers.get(node.input[leads_on])
        assert node is not None
        for bias in (0, 1):
            product = self.makers.get(node.input[1 - bias])
            if node.input[bias] in self.stored and product is not None and product.op_type == "MatMul":
                name = product.input[1]
                if name in self.weights and len(self.readers[product.output[0]]) == 1:
                    return ScaleSite(node, (bias,), name)
        return None

    def groups(self) -> Iterator[list[str]]:
        """Activations that can be divided, those with a weight in common together."""
        members: dict[str, set[str]] = defaultdict(set)
        for value, names in self.reads.items():
            source = self.sources.get(value)
            columns = [f"columns of {source.columns}"] if source is not None and source.columns else []
            for key in (*names, *columns):
                members[key].add(value)
        left = dict.fromkeys(self.reads)
        while left:
            group, waiting = [], [next(iter(left))]
            while waiting:
                value = waiting.pop()
                if value in left:
                    del left[value]
                    group.append(value)
                    waiting += sorted(set().union(*(linked for linked in members.values() if value in linked)))
            if self.can_divide(group):
                yield group

    def can_divide(self, group: list[str]) -> bool:
        """Whether each activation has a source, and no weight is read by anything else or as a table."""
        if not all(value in self.sources for value in group):
            return False
        columns = self.columns(group)
        if any(self.weights[name].is_table for name in [*columns, *(n for value in group for n in self.reads[value])]):
            return False
        return all(len(self.weights[name].matmuls) == columns.count(name) for name in columns)

    def columns(self, group: list[str]) -> list[str]:
        """The value layers' weights, one a mix."""
        columns = [self.sources[value].columns for value in group]
        return [name for name in columns if name is not None]

    def divide(self, group: list[str], scale_I: Floats) -> None:
        """Divide a group's activations, and multiply the weights that read them."""
        for name in {name for value in group for name in self.reads[value]}:
            self.changed[name] = self.numbers(name) * scale_I[:, None]
        for name in set(self.columns(group)):
            self.changed[name] = self.numbers(name) / scale_I
        for value in group:
            source = self.sources[value]
            for at in source.vectors:
                divided = f"{source.node.output[0]}.divided.{at}"
                self.changed[divided] = (self.numbers(source.node.input[at]) / scale_I).astype(np.float32)
                source.node.input[at] = divided
            self.restore(value, scale_I)

    def restore(self, value: str, scale_I: Floats) -> None:
        """Give what else reads a divided activation the whole one."""
        dense = {read.node.output[0] for name in self.reads[value] for read in self.weights[name].matmuls}
        others = [node for node in self.readers[value] if node.output[0] not in dense]
        if others:
            self.changed[f"{value}.divisor"] = scale_I.astype(np.float32)
            self.restored[value] = f"{value}.whole"
            self.num_muls += 1
        for node in others:
            node.input[:] = [self.restored[name] if name == value else name for name in node.input]

    def result(self, keep: Callable[[NDArray[Any], str], onnx.TensorProto]) -> onnx.ModelProto:
        nodes = []
        for node in self.model.graph.node:
            nodes.append(node)
            for value in node.output:
                if value in self.restored:
                    inputs = [value, f"{value}.divisor"]
                    nodes.append(onnx.helper.make_node("Mul", inputs, [self.restored[value]], f"{value}/whole"))
        smoothed = onnx.ModelProto()
        smoothed.CopyFrom(self.model)
        smoothed.graph.ClearField("node")
        smoothed.graph.ClearField("initializer")
        smoothed.graph.node.extend(nodes)
        names = dict.fromkeys((*self.stored, *self.changed))
        smoothed.graph.initializer.extend(
            keep(self.changed[name], name) if name in self.changed else self.stored[name] for name in names
        )
        return smoothed


def _permutation(node: onnx.NodeProto) -> list[int]:
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), [])
