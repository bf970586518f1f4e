"""Outlier features: inputs of dense layers that are far larger than all others, and take no steps from them.

One scale serves a whole activation in int8, so one input that is always large leaves few steps to the hundreds that are
not. In trained encoders such inputs are few, and the same ones for every text (LLM.int8(), arXiv:2208.07339). Two ways
to keep them, by what is cheap:

    neurons   inputs of a feed-forward's second layer, a(h W1 + b1) W2 with a(0) = 0. They are computed apart in
              float32, from their columns of W1 to their rows of W2, and where they were are zeros.
    copies    any other. The input is divided by m, and read m times, with the same row of weights
              (outlier channel splitting, arXiv:1901.09504). LLM.int8() multiplies them apart as well, for a product
              and a sum as wide as the layer's output: all-mpnet-base-v2 took 1.3 times as long.

In float the graph computes what it did before.

Letters: I inputs, F outlier features, C their further copies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto
from onnx.helper import make_node

from bertshrink.onnx_graph.encoder_graph import array, tensor
from bertshrink.onnx_graph.weights import assembled
from bertshrink.techniques.quantize.calibration.dense_graph import DenseGraph
from bertshrink.techniques.quantize.calibration.observe import ActivationObserver, Floats, keep_largest

_MOST = 0.01
"""The largest fraction of an activation's inputs that can be outliers; one can always be."""
_FACTOR = 3.0
"""How many times as large as the largest usual input an outlier is. all-mpnet-base-v2: 5 leaves a cosine of 0.9956 with
the float vectors, 3 of 0.9976, 2 of 0.9984 and 1.5 of 0.9987, for 39, 60, 101 and 180 features of all dense layers."""
_MOST_COPIES = 8
_ZERO_AT_ZERO = frozenset(("Gelu", "Relu", "Tanh"))

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Outliers:
    """The outlier features of an activation.

    Attributes:
        places: which of its inputs (F,).
        times: how often each is to be read (F,), powers of two; None: they are neurons.
    """

    places: Places
    times: Places | None

    @property
    def copies(self) -> Places:
        """The places of the further copies (C,)."""
        return np.repeat(self.places, 0 if self.times is None else self.times - 1)


@dataclass(frozen=True)
class _Neurons:
    """What makes an activation of neurons.

    Attributes:
        function: the node of the activation function.
        bias: the node that adds a bias before it; None where there is none.
        product: the first layer's MatMul.
    """

    function: NodeProto
    bias: NodeProto | None
    product: NodeProto


class _Graph(DenseGraph):
    """A graph's connections, and where its neurons are."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self.weight_of = {read.node.output[0]: name for name, one in self.weights.items() for read in one.matmuls}
        self.outputs = {value.name for value in model.graph.output}

    def only_reader(self, value: str) -> NodeProto | None:
        """The one node that reads a value."""
        readers = self.readers[value]
        return readers[0] if len(readers) == 1 and value not in self.outputs else None

    def biased(self, product: str) -> str:
        """The sum with a stored bias that is all that reads a product: engines join the two; else the product."""
        node = self.only_reader(product)
        is_bias = node is not None and node.op_type == "Add" and not self.stored.keys().isdisjoint(node.input)
        return node.output[0] if node is not None and is_bias else product

    def neurons(self, value: str) -> _Neurons | None:
        """What makes an activation, if it is one of neurons that dense layers alone read."""
        function = self.makers.get(value)
        if function is None or function.op_type not in _ZERO_AT_ZERO or value in self.outputs:
            return None
        if any(node.output[0] not in self.weight_of for node in self.readers[value]):
            return None
        before = self.makers.get(function.input[0])
        bias = before if before is not None and before.op_type == "Add" else None
        product = before
        if bias is not None:
            left = [name for name in bias.input if name not in self.stored]
            product = self.makers.get(left[0]) if len(left) == 1 else None
        if product is None or product.output[0] not in self.weight_of:
            return None
        chain = [product, *([] if bias is None else [bias]), function]
        return _Neurons(function, bias, product) if all(self.only_reader(one.output[0]) for one in chain[:-1]) else None


def find_outliers(model: onnx.ModelProto, chosen: Collection[str], texts: ActivationObserver) -> dict[str, Outliers]:
    """The outlier features of the activations that dense layers read.

    Args:
        model: a canonical float32 graph.
        chosen: the weights whose activations become bytes.

    Returns:
        activation -> its outlier features, of those that have any. Activations that share a weight have the same ones;
        where a table is multiplied with one of them, or a weight that is not chosen, there are none.
    """
    graph = _Graph(model)
    largest: dict[str, Floats] = {}
    asked = [value for value, names in graph.reads.items() if not set(chosen).isdisjoint(names)]
    texts.watch(model, {value: partial(keep_largest, largest, value) for value in asked})
    found: dict[str, Outliers] = {}
    for group in _groups(graph.reads):
        names = set().union(*(graph.reads[value] for value in group))
        if names <= set(chosen) and not any(graph.weights[name].is_table for name in names):
            excess_I = np.max([_excess(largest[value]) for value in group], axis=0)
            places = np.flatnonzero(excess_I > _FACTOR)
            times = 2 ** np.ceil(np.log2(excess_I[places].clip(2, _MOST_COPIES))).astype(np.int64)
            if len(places):
                one = Outliers(places, None if _are_neurons(graph, group) else times)
                found |= dict.fromkeys(group, one)
    return found


def split_outliers(
    model: onnx.ModelProto,
    outliers: Mapping[str, Outliers],
    keep: Callable[[NDArray[Any], str], onnx.TensorProto] = tensor,
) -> onnx.ModelProto:
    """Keep outlier features in one of this file's two ways.

    Args:
        model: a canonical float32 graph; it is not changed.
        outliers: as `find_outliers` returns them.
        keep: what makes a stored tensor of changed numbers: (numbers, name).

    Returns:
        a graph in which the weights keep their names, with zeros where neurons were, or with rows of copies (I + C);
        the weights of neurons are `NAME.outliers`.
    """
    graph = _Graph(model)
    stored = dict(graph.stored)
    numbers: dict[str, NDArray[Any]] = {}
    before: dict[str, list[NodeProto]] = defaultdict(list)
    behind: dict[str, str] = {}
    renamed: dict[str, tuple[str, str]] = {}

    def changed(name: str) -> NDArray[Any]:
        return numbers.setdefault(name, array(graph.stored[name]).copy())

    for value, found in outliers.items():
        if found.times is not None:
            before[graph.readers[value][0].output[0]] += _copied(value, found, graph, stored)
            dense = [node.output[0] for node in graph.readers[value] if node.output[0] in graph.weight_of]
            renamed |= dict.fromkeys(dense, (value, f"{value}.usual"))
            for name in set(graph.reads[value]):
                numbers[name] = np.concatenate([array(graph.stored[name]), array(graph.stored[name])[found.copies]])
    for value, found in outliers.items():
        if found.times is None and (made := graph.neurons(value)) is not None:
            before[made.product.output[0]] += _apart(value, found.places, made, graph, stored, keep)
            changed(graph.weight_of[made.product.output[0]])[:, found.places] = 0
            if made.bias is not None:
                (name,) = set(made.bias.input) & graph.stored.keys()
                renamed[made.bias.output[0]] = name, f"{value}.bias"
                numbers[f"{value}.bias"] = array(graph.stored[name]).copy()
                numbers[f"{value}.bias"][found.places] = 0
            for node in graph.readers[value]:
                name = graph.weight_of[node.output[0]]
                changed(name)[found.places] = 0
                behind[graph.biased(node.output[0])] = f"{node.output[0]}.outliers"
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        output = node.output[0]
        nodes += before[output]
        if output in renamed:
            node = _renamed(node, *renamed[output])
        if output in behind:
            node = _renamed(node, output, f"{output}.without_outliers")
            nodes.append(node)
            node = make_node("Add", [node.output[0], behind[output]], [output], f"{output}/outliers")
        nodes.append(node)
    stored |= {name: keep(value, name) for name, value in numbers.items()}
    return assembled(model, nodes, stored)


def _excess(size_I: Floats) -> Floats:
    """How many times as large as the largest usual input each is."""
    usual = float(np.sort(size_I)[-1 - max(1, int(_MOST * len(size_I)))])
    return np.asarray(size_I / usual) if usual else np.ones_like(size_I)


def _groups(reads: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Activations that share a weight, together."""
    groups: list[tuple[set[str], list[str]]] = []
    for value, read in reads.items():
        names = set(read)
        joined = [group for group in groups if not group[0].isdisjoint(names)]
        groups = [group for group in groups if group[0].isdisjoint(names)]
        names = names.union(*(group[0] for group in joined))
        groups.append((names, [*(one for group in joined for one in group[1]), value]))
    return [values for _, values in groups]


def _are_neurons(graph: _Graph, group: list[str]) -> bool:
    """Whether all are made by neurons, and no other activation by the same ones."""
    made = [graph.neurons(value) for value in group]
    first = [graph.weight_of[one.product.output[0]] for one in made if one is not None]
    if len(first) < len(group):
        return False
    products = {one.product.output[0] for one in made if one is not None}
    return all(
        not graph.weights[name].is_table and {read.node.output[0] for read in graph.weights[name].matmuls} <= products
        for name in first
    )


def _copied(value: str, found: Outliers, graph: _Graph, stored: dict[str, onnx.TensorProto]) -> list[NodeProto]:
    """`VALUE.usual` (.., I + C): an activation with its outlier features divided, and further copies of these."""
    assert found.times is not None
    num_inputs = graph.weights[graph.reads[value][0]].shape[0]
    scale_I = np.ones(num_inputs, dtype=np.float32)
    scale_I[found.places] = 1 / found.times
    for name, numbers in ((f"{value}.even_scale", scale_I), (f"{value}.copied", found.copies)):
        stored[name] = tensor(numbers, name)
    even, copies, wide = (f"{value}.{name}" for name in ("even", "copies", "usual"))
    return [
        make_node("Mul", [value, f"{value}.even_scale"], [even], f"{even}/Mul"),
        make_node("Gather", [even, f"{value}.copied"], [copies], f"{copies}/Gather", axis=-1),
        make_node("Concat", [even, copies], [wide], f"{wide}/Concat", axis=-1),
    ]


def _apart(
    value: str,
    places_F: Places,
    made: _Neurons,
    graph: _Graph,
    stored: dict[str, onnx.TensorProto],
    keep: Callable[[NDArray[Any], str], onnx.TensorProto],
) -> list[NodeProto]:
    """The same neurons once more, these alone, in float32: `PRODUCT.outliers` of each layer that reads them."""
    first = graph.weight_of[made.product.output[0]]
    stored[f"{first}.outliers"] = keep(array(graph.stored[first])[:, places_F], f"{first}.outliers")
    last = f"{value}.outliers.product"
    nodes = [make_node("MatMul", [made.product.input[0], f"{first}.outliers"], [last], f"{last}/MatMul")]
    if made.bias is not None:
        (name,) = set(made.bias.input) & graph.stored.keys()
        bias = f"{value}.outliers.bias"
        stored[bias] = tensor(array(graph.stored[name])[places_F], bias)
        nodes.append(make_node("Add", [last, bias], [f"{value}.outliers.sum"], f"{last}/Add"))
        last = f"{value}.outliers.sum"
    function = NodeProto()
    function.CopyFrom(made.function)
    function.input[:], function.output[:], function.name = [last], [f"{value}.outliers"], f"{value}.outliers"
    nodes.append(function)
    for node in graph.readers[value]:
        name, output = graph.weight_of[node.output[0]], f"{node.output[0]}.outliers"
        if f"{name}.outliers" not in stored:
            stored[f"{name}.outliers"] = keep(array(graph.stored[name])[places_F], f"{name}.outliers")
        nodes.append(make_node("MatMul", [f"{value}.outliers", f"{name}.outliers"], [output], f"{output}/MatMul"))
    return nodes


def _renamed(node: NodeProto, old: str, new: str) -> NodeProto:
    other = NodeProto()
    other.CopyFrom(node)
    other.input[:] = [new if name == old else name for name in node.input]
    other.output[:] = [new if name == old else name for name in node.output]
    return other
