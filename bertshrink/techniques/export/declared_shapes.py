"""Shapes that a runtime cannot tell from the graph, written into it.

A runtime joins operators where it knows that shapes fit: ONNX Runtime makes one operator of two sums and a norm. What
it knows ends where a size is computed. BERT adds the rows of as many positions as a text has tokens, (1, L, H) cut from
a stored table, and from there on the length of everything is unknown. One declared shape at the place where such a
value is added brings all of it back.

What is declared is what was seen at several batches and lengths.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from bertshrink.onnx_graph.canonicalize import DECLARED
from bertshrink.onnx_graph.encoder_graph import initializers
from bertshrink.techniques.export.observed_shapes import SIZES, observed_shapes, without_numbers

_BY_ELEMENT = frozenset(("Add", "Sub", "Mul", "Div", "Min", "Max", "Where"))
_BY_NUMBERS = {"Slice": 1, "Reshape": 1, "Expand": 1, "Tile": 1, "ConstantOfShape": 0, "Range": 0}
"""Operators that give a shape which hangs on numbers -> the first input that holds such numbers."""
_LEAST_AXES = 3
"""Of states and scores. Fewer are those of a pooled text, where there is nothing to join."""
_MOST_ROUNDS = 3
"""What is expected to be known then is looked at again."""


def declare_shapes(model: onnx.ModelProto) -> None:
    """Declare the shapes of values that end what can be told, in place."""
    batch, length = (dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim)
    names = {batch, length}
    for _ in range(_MOST_ROUNDS):
        first = list(_first_unknown(model, names))
        found = {name: _symbolic(seen, batch, length) for name, seen in observed_shapes(model, first).items()}
        told = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims, doc_string=DECLARED)
            for name, dims in found.items()
            if dims is not None and len(dims) >= _LEAST_AXES
        ]
        if not told:
            return
        model.graph.value_info.extend(told)


def _first_unknown(model: onnx.ModelProto, names: set[str]) -> Iterator[str]:
    """Float values of unknown shapes, met element by element by values whose shapes will be known with theirs."""
    inferred = onnx.shape_inference.infer_shapes(without_numbers(model)).graph
    stored, floats = frozenset(initializers(model)), set()
    known = set(stored)
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        kind = value.type.tensor_type
        if kind.elem_type == onnx.TensorProto.FLOAT:
            floats.add(value.name)
        if kind.HasField("shape") and all(
            dim.HasField("dim_value") or dim.dim_param in names for dim in kind.shape.dim
        ):
            known.add(value.name)
    for node in model.graph.node:
        unknown = [name for name in dict.fromkeys(node.input) if name and name not in known]
        if node.op_type in _BY_ELEMENT and set(node.input) & known - stored:
            yield from (name for name in unknown if name in floats)
            known.update(node.output)
        elif not unknown and stored.issuperset(node.input[_BY_NUMBERS.get(node.op_type, len(node.input)) :]):
            known.update(node.output)


def _symbolic(seen: list[list[int]], batch: str, length: str) -> list[int | str] | None:
    """The shape in numbers and names; None where a size is neither constant nor one of the inputs'."""
    by_place = {tuple(sizes): name for sizes, name in zip(zip(*SIZES, strict=True), (batch, length), strict=True)}
    dims: list[int | str] = []
    for sizes in zip(*seen, strict=True):
        if len(set(sizes)) == 1:
            dims.append(sizes[0])
        elif sizes in by_place:
            dims.append(by_place[sizes])
        else:
            return None
    return dims
