"""Which part of an encoder a parameter belongs to, and what each part holds."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bertshrink.model.family import ModelFamily


def component_of(anatomy: ModelFamily, parameter: str) -> str:
    """`embeddings`, `attention`, `feed-forward`, `pooler` or `head`: the part that a parameter belongs to."""
    return next((name for name, pattern in anatomy.parts if re.search(pattern, parameter)), "head")


def count_components(anatomy: ModelFamily, tensors: Iterable[tuple[str, int, int]]) -> dict[str, tuple[int, int]]:
    """Sum parameters and bytes by component.

    Args:
        tensors: (parameter name, number of elements, bytes) of every stored tensor.

    Returns:
        component -> (parameters, bytes), in the order embeddings, attention, feed-forward, pooler, head.
    """
    counts: dict[str, tuple[int, int]] = {}
    order = [name for name, _ in anatomy.parts] + ["head"]
    for name, elements, num_bytes in tensors:
        part = component_of(anatomy, name)
        before = counts.get(part, (0, 0))
        counts[part] = (before[0] + elements, before[1] + num_bytes)
    return {name: counts[name] for name in order if name in counts}
