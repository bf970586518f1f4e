"""The closed form: tables of width K and a projection in place of tables of width E, without training.

Behind LayerNorm, as in stock ALBERT:

An encoder embeds `x = LN_E(z) M + b` with `z = W[t] + P[p] + S[s]`. LayerNorm sees `C z` alone, `C` the centring over
the E numbers. Let V (E, K-1) be orthonormal with columns that sum to zero, and R (K, K-1) an orthonormal basis of the
vectors in K dimensions that sum to zero. ALBERT's tables are then `sqrt(K / E) * C T V R'` for each table T, its
LayerNorm has weight 1 and bias 0, and its projection is `sqrt(E / K) * R V' diag(gamma) M`. What V spans is kept
exactly: the variance that LayerNorm divides by is the same number, `eps` included, up to what V leaves out. At K = E
nothing is left out.

Before LayerNorm, as in stock DeBERTa: an encoder embeds `x = LN_H(z M)`. V is (H, K), its columns sum to zero likewise;
the tables are `T M V` and the projection is `V'`. LayerNorm itself stays, and divides by the length of what is left.

Letters: V tokens of the vocabulary, P positions, T types, E width of the tables, K the smaller width, H hidden size, M
width of LayerNorm, N samples. `basis_MR` has R columns: K - 1 behind LayerNorm, K before it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from bertshrink.model.conversion import EmbeddingWeights


def sum_free_basis(size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """(size, size - 1) orthonormal columns, each of which sums to zero: Helmert's matrix without its first row."""
    index = torch.arange(1, size, dtype=dtype)
    upper = torch.triu(torch.ones(size, size - 1, dtype=dtype))
    rows = upper / torch.sqrt(index * (index + 1))
    rows[torch.arange(1, size), torch.arange(size - 1)] = -torch.sqrt(index / (index + 1))
    return rows


def principal_basis(moment_MM: Tensor, directions: int) -> tuple[Tensor, Tensor]:
    """The basis that keeps most of a second moment of normalized sums.

    Args:
        moment_MM: second moment, symmetric; its vectors sum to zero.
        directions: R, from 0 to M - 1.

    Returns:
        basis_MR: (M, R), orthonormal, columns sum to zero.
        explained_M: explained_M[r] is the share of the moment that r directions keep.
    """
    width = moment_MM.shape[0]
    inner = sum_free_basis(width)  # within it the constant vector, which holds nothing, cannot be chosen
    values, vectors = torch.linalg.eigh(inner.T @ moment_MM.double() @ inner)
    values = values.flip(0).clamp(min=0)
    kept = torch.cat([torch.zeros(1, dtype=values.dtype), values.cumsum(0)])
    basis_MR = inner @ vectors.flip(1)[:, :directions]
    return basis_MR, kept / kept[-1].clamp(min=torch.finfo(values.dtype).tiny)


def factorized(given: EmbeddingWeights, basis_MR: Tensor) -> EmbeddingWeights:
    """The narrow embedding that keeps what `basis_MR` spans, exactly; see `num_directions` for its width."""
    if given.projects_first:
        before = given.projection_HE
        down_EK = basis_MR if before is None else before.double().T @ basis_MR
        return replace(_narrowed(given, down_EK), projection_HE=basis_MR.to(given.words_VE.dtype))
    width, rank = given.width, basis_MR.shape[1] + 1
    spread_KR = sum_free_basis(rank)
    down_EK = math.sqrt(rank / width) * basis_MR @ spread_KR.T
    up_EK = math.sqrt(width / rank) * basis_MR @ spread_KR.T
    weight_M, bias_M = given.weight_M.double(), given.bias_M.double()
    projection_HK, offset_H = weight_M[:, None] * up_EK, bias_M
    if given.projection_HE is not None and given.offset_H is not None:
        projection_HE = given.projection_HE.double()
        projection_HK, offset_H = projection_HE @ projection_HK, projection_HE @ bias_M + given.offset_H.double()
    dtype = given.words_VE.dtype
    return replace(
        _narrowed(given, down_EK),
        weight_M=torch.ones(rank, dtype=dtype),
        bias_M=torch.zeros(rank, dtype=dtype),
        projection_HE=projection_HK.to(dtype),
        offset_H=offset_H.to(dtype),
    )


def _narrowed(given: EmbeddingWeights, down_EK: Tensor) -> EmbeddingWeights:
    """The embedding with its tables times a matrix whose columns sum to zero: the mean of a row falls out by itself."""
    tables = (given.words_VE, given.positions_PE, given.types_TE)
    words_VK, positions_PK, types_TK = ((table.double() @ down_EK).to(table.dtype) for table in tables)
    return replace(given, words_VE=words_VK, positions_PE=positions_PK, types_TE=types_TK)
