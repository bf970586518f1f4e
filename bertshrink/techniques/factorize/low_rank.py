"""The closed form: an embedding of width E as stock ALBERT's, tables of width K and a projection, without training.

An encoder embeds `x = LN_E(z) M + b` with `z = W[t] + P[p] + S[s]`. LayerNorm sees `C z` alone, `C` the centring over
the E numbers. Let V (E, K-1) be orthonormal with columns that sum to zero, and R (K, K-1) an orthonormal basis of the
vectors in K dimensions that sum to zero. ALBERT's tables are then `sqrt(K / E) * C T V R'` for each table T, its
LayerNorm has weight 1 and bias 0, and its projection is `sqrt(E / K) * R V' diag(gamma) M`. What V spans is kept
exactly: the variance that LayerNorm divides by is the same number, `eps` included, up to what V leaves out. At K = E
nothing is left out.

Letters: V tokens of the vocabulary, P positions, T types, E width of the tables, K the smaller width, H hidden size, N
samples. `basis_ER` has R = K - 1 columns.
"""

from __future__ import annotations

import math

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


def principal_basis(moment_EE: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The basis that keeps most of a second moment of normalized sums.

    Args:
        moment_EE: second moment, symmetric; its vectors sum to zero.
        rank: K, from 1 to E.

    Returns:
        basis_ER: (E, K - 1), orthonormal, columns sum to zero.
        explained_E: explained_E[k - 1] is the share of the moment that rank k keeps.
    """
    width = moment_EE.shape[0]
    inner = sum_free_basis(width)  # within it the constant vector, which holds nothing, cannot be chosen
    values, vectors = torch.linalg.eigh(inner.T @ moment_EE.double() @ inner)
    values = values.flip(0).clamp(min=0)
    kept = torch.cat([torch.zeros(1, dtype=values.dtype), values.cumsum(0)])
    basis_ER = inner @ vectors.flip(1)[:, : rank - 1]
    return basis_ER, kept / kept[-1].clamp(min=torch.finfo(values.dtype).tiny)


def factorized(given: EmbeddingWeights, basis_ER: Tensor) -> EmbeddingWeights:
    """The embedding of width K = R + 1 that keeps what `basis_ER` spans, exactly."""
    width, rank = given.width, basis_ER.shape[1] + 1
    spread_KR = sum_free_basis(rank)
    down_EK = math.sqrt(rank / width) * basis_ER @ spread_KR.T
    up_EK = math.sqrt(width / rank) * basis_ER @ spread_KR.T
    weight_E, bias_E = given.weight_E.double(), given.bias_E.double()
    projection_HK, offset_H = weight_E[:, None] * up_EK, bias_E
    if given.projection_HE is not None and given.offset_H is not None:
        projection_HE = given.projection_HE.double()
        projection_HK, offset_H = projection_HE @ projection_HK, projection_HE @ bias_E + given.offset_H.double()

    def narrow(table: Tensor) -> Tensor:
        # Columns of the basis sum to zero, so the mean of a row falls out by itself.
        return (table.double() @ down_EK).to(table.dtype)

    dtype = given.words_VE.dtype
    return EmbeddingWeights(
        words_VE=narrow(given.words_VE),
        positions_PE=narrow(given.positions_PE),
        types_TE=narrow(given.types_TE),
        weight_E=torch.ones(rank, dtype=dtype),
        bias_E=torch.zeros(rank, dtype=dtype),
        eps=given.eps,
        projection_HE=projection_HK.to(dtype),
        offset_H=offset_H.to(dtype),
    )
