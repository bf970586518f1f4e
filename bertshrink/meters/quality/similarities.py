"""How near vectors are to each other, by each of the similarities that sentence-transformers knows.

cosine     (a / |a|) (b / |b|)
dot        a b
euclidean  -|a - b|
manhattan  -(|a_1 - b_1| + |a_2 - b_2| + ...)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bertshrink.model.folder.pooling import Similarity

    Floats = NDArray[np.floating[Any]]

_DISTANCES: dict[Similarity, Literal["euclidean", "cityblock"]] = {"euclidean": "euclidean", "manhattan": "cityblock"}
"""Similarity -> the name that scipy has for the distance."""


def similarity_table(vectors: Floats, by: Similarity) -> Floats:
    """(N, N) how near each row of (N, H) is to each."""
    if by in _DISTANCES:
        from scipy.spatial.distance import cdist

        distances: Floats = -cdist(vectors, vectors, _DISTANCES[by])
        return distances
    rows = unit_rows(vectors) if by == "cosine" else vectors
    products: Floats = rows @ rows.T
    return products


def paired_similarities(first: Floats, second: Floats, by: Similarity) -> Floats:
    """(N,) how near each row of (N, H) is to the same row of another (N, H)."""
    import numpy as np

    if by in _DISTANCES:
        distances: Floats = -np.linalg.norm(first - second, 2 if by == "euclidean" else 1, axis=1)
        return distances
    rows = (unit_rows(first), unit_rows(second)) if by == "cosine" else (first, second)
    products: Floats = (rows[0] * rows[1]).sum(axis=1)
    return products


def unit_rows(vectors: Floats) -> Floats:
    """The rows (N, H), each of length 1."""
    import numpy as np

    rows: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return rows
