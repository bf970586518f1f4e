"""What grew: tensors, layers and operations of two files compared, largest first.

Tensors are matched by name. Exporters number what they cannot name, so that one more layer renames half a graph: what
is left over is matched by type and shape, and only then is a tensor new or gone. Layers are told by the number in a
tensor's name (`encoder.layer.3.`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

TOP = 10
_LAYER = re.compile(r"(.*?\b(?:layers?|albert_layers|block|blocks|h)[._/](\d+))(?=[._/])")


@dataclass(frozen=True)
class Growth:
    """One thing that grew: `kind` is tensor, layer or operation; `delta` in bytes, of an operation in occurrences."""

    kind: str
    name: str
    delta: int
    text: str


def growth(
    before: Mapping[str, str], now: Mapping[str, str], operators_before: Mapping[str, int], operators: Mapping[str, int]
) -> list[Growth]:
    """The ten largest growths among layers, tensors and operations each; layers first.

    Args:
        before: tensors of the baseline: name -> `INT8 384x1536 589824`.
    """
    pairs = _pairs(before, now)
    tensors = []
    by_layer: dict[str, int] = defaultdict(int)
    for name, old, new in pairs:
        delta = _bytes(new) - _bytes(old)
        layer = _LAYER.match(name)
        if layer:
            by_layer[layer[1]] += delta
        if delta > 0:
            what = f"{_type(old)} to {_type(new)}" if old and new else f"new, {_type(new)}"
            tensors.append(Growth("tensor", name, delta, what))
    layers = [
        Growth("layer", name, delta, "new" if _is_new(name, before) else "grown")
        for name, delta in by_layer.items()
        if delta > 0
    ]
    counts = [
        Growth(
            "operation",
            name,
            operators[name] - operators_before.get(name, 0),
            _counts(operators_before, operators, name),
        )
        for name in operators
        if operators[name] > operators_before.get(name, 0)
    ]
    # A layer that is one grown tensor says nothing that the tensor does not.
    told = [one for one in layers if sum(1 for t in tensors if t.name.startswith(f"{one.name}")) > 1]
    return [*_top(told), *_top(tensors), *_top(counts)]


def _counts(before: Mapping[str, int], now: Mapping[str, int], name: str) -> str:
    return f"{before.get(name, 0)} to {now[name]}"


def _top(changes: list[Growth]) -> list[Growth]:
    return sorted(changes, key=lambda one: (-one.delta, one.name))[:TOP]


def _is_new(layer: str, before: Mapping[str, str]) -> bool:
    return not any(name.startswith((f"{layer}.", f"{layer}/", f"{layer}_")) for name in before)


def _pairs(before: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, str | None, str | None]]:
    """(name, what it was, what it is) of every tensor that is there now; what is only renamed is left out."""
    pairs: list[tuple[str, str | None, str | None]] = [
        (name, before[name], now[name]) for name in now if name in before
    ]
    gone = {name: what for name, what in before.items() if name not in now}
    left = Counter(gone.values())
    new = []
    for name in (name for name in now if name not in before):
        if left[now[name]] > 0:
            left[now[name]] -= 1
        else:
            new.append(name)
    for name in new:
        old = next((other for other in gone if _is_form(name, other) and left[gone[other]] > 0), None)
        if old is not None:
            left[gone[old]] -= 1
        pairs.append((name, gone.pop(old) if old is not None else None, now[name]))
    return pairs


def _is_form(name: str, other: str) -> bool:
    """Whether two names are those of one weight in two types: `dense.weight.T` and `dense.weight.T.bytes`."""
    first, second = sorted((name, other), key=len)
    return len(first) < len(second) and second.startswith(first) and second[len(first)] in "._/"


def _bytes(what: str | None) -> int:
    return int(what.rpartition(" ")[2]) if what else 0


def _type(what: str | None) -> str:
    return what.rpartition(" ")[0] if what else ""
