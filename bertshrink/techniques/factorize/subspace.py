"""Which directions a narrower embedding keeps: those that calibration text uses and the layers above are sensitive to.

The tables' rows are far from equal: a token that text is full of matters, a token that never comes does not. The moment
is therefore that of what LayerNorm makes of tokens in text (each with its position and type), with a share of tokens
drawn from the whole vocabulary, so that those which the text lacks are not given up. What an error costs is not the
same in all directions either: the gradient of the last hidden states says how much (the Gauss-Newton part of Fisher's
information, Martens, arXiv:1412.1193). The projection stays orthogonal all the same: LayerNorm divides by the length of
what is left, which is right for an orthogonal projection alone.

Letters as in `low_rank`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bertshrink.errors import UserError
from bertshrink.model.batches import Row, batch_by_length, take_tokens, tensors
from bertshrink.model.conversion import EmbeddingWeights
from bertshrink.model.encoder import Encoder
from bertshrink.techniques.factorize.low_rank import principal_basis, sum_free_basis

UNSEEN = 0.1
"""Share of the moment that tokens drawn from the whole vocabulary have."""
_SPREAD = 0.1
"""Share of the sensitivity that is the same in all directions: few gradients know little of many directions."""
_STEPS = 60
_RIDGE = 1e-3


@dataclass(frozen=True)
class TokenSample:
    """Tokens as text has them.

    Attributes:
        ids_N: token ids.
        positions_N: their positions, from 0.
        types_N: their token types.
    """

    ids_N: Tensor
    positions_N: Tensor
    types_N: Tensor

    def __len__(self) -> int:
        return len(self.ids_N)

    def first(self, number: int) -> TokenSample:
        """At most so many of them."""
        return TokenSample(self.ids_N[:number], self.positions_N[:number], self.types_N[:number])

    def and_more(self, other: TokenSample) -> TokenSample:
        """These, then those."""
        mine, theirs = ((one.ids_N, one.positions_N, one.types_N) for one in (self, other))
        return TokenSample(*(torch.cat(pair) for pair in zip(mine, theirs, strict=True)))


def tokens_of(rows: Sequence[Row]) -> TokenSample:
    """The tokens of rows, one after another."""
    ids = [i for row in rows for i in row["input_ids"]]
    positions = [i for row in rows for i in range(len(row["input_ids"]))]
    types = [i for row in rows for i in row.get("token_type_ids") or [0] * len(row["input_ids"])]
    return TokenSample(torch.tensor(ids), torch.tensor(positions), torch.tensor(types))


def from_vocabulary(given: EmbeddingWeights, like: TokenSample, number: int, seed: int) -> TokenSample:
    """Tokens drawn evenly from the whole vocabulary, at positions and of types as text has them."""
    generator = torch.Generator().manual_seed(seed)
    ids_N = torch.randint(len(given.words_VE), (number,), generator=generator)
    where_N = torch.randint(len(like), (number,), generator=generator)
    return TokenSample(ids_N, like.positions_N[where_N], like.types_N[where_N])


def moment(given: EmbeddingWeights, tokens: TokenSample, block: int = 8192) -> Tensor:
    """(M, M) second moment, in float64, of what LayerNorm makes of tokens before its weight and bias."""
    total_MM = torch.zeros(given.norm_width, given.norm_width, dtype=torch.float64)
    for start in range(0, len(tokens), block):
        part = slice(start, start + block)
        sums_NM = given.sums(tokens.ids_N[part], tokens.positions_N[part], tokens.types_N[part])
        normal_NM = given.normalized(sums_NM)
        total_MM += (normal_NM.T @ normal_NM).double()
    return total_MM / max(1, len(tokens))


def sensitivity(encoder: Encoder, given: EmbeddingWeights, rows: Sequence[Row], num_tokens: int, seed: int) -> Tensor:
    """(M, M) how much the last hidden states change with what LayerNorm makes of a token, in float64, trace M.

    The mean of g g' over tokens, g the gradient of a random combination of all last hidden states. About `num_tokens`
    tokens are looked at, the first rows'.

    Raises:
        UserError: the gradients are not finite.
    """
    base: Any = encoder.model.base_model
    norm = base.get_submodule(encoder.anatomy.embedding.norm)
    total_MM, number = torch.zeros(given.norm_width, given.norm_width, dtype=torch.float64), 0
    few = take_tokens(rows, num_tokens)
    generator = torch.Generator().manual_seed(seed)
    seen: list[Tensor] = []

    def watch(module: Any, inputs: Any, output: Tensor) -> Tensor:
        seen.append(output.detach().requires_grad_(True))
        return seen[-1]

    handle = norm.register_forward_hook(watch)
    try:
        for batch in batch_by_length([len(row["input_ids"]) for row in few], 1024):
            block = tensors([few[i] for i in batch])
            with torch.enable_grad():
                states_BLH = base(**block).last_hidden_state
                mask_BL = block["attention_mask"].bool()
                probe_BLH = torch.randn(states_BLH.shape, generator=generator) * mask_BL[..., None]
                (gradient_BLM,) = torch.autograd.grad((states_BLH * probe_BLH).sum(), seen[-1])
            gradient_NM = (gradient_BLM[mask_BL] * given.weight_M).double()
            total_MM += gradient_NM.T @ gradient_NM
            number += len(gradient_NM)
    finally:
        handle.remove()
    scaled_MM = total_MM * (given.norm_width / total_MM.trace())
    if not bool(torch.isfinite(scaled_MM).all()):
        raise UserError("the gradients of the last hidden states are not finite", where=encoder.source)
    return (1 - _SPREAD) * scaled_MM + _SPREAD * torch.eye(given.norm_width, dtype=torch.float64)


def sensitive_basis(moment_MM: Tensor, sensitivity_MM: Tensor, directions: int) -> Tensor:
    """(M, R) the basis whose left-out part costs least: a local minimum of tr(G Q A Q) over Q = I - V V'.

    A is the moment and G the sensitivity. Steepest descent on the Grassmann manifold (Edelman et al.,
    arXiv:physics/9806030) from the principal basis: the direction is Q (A Q G + G Q A) V, a step ends in the
    orthonormal factor of V plus it, and is taken where it lowers the cost.
    """
    width = moment_MM.shape[0]
    start_MR, _ = principal_basis(moment_MM, directions)
    if directions in (0, width - 1):
        return start_MR
    inner = sum_free_basis(width)
    moment, cost = (inner.T @ given @ inner for given in (moment_MM, sensitivity_MM))
    moment, cost = (given.float() * (width / given.trace()).float() for given in (moment, cost))

    def price(basis: Tensor) -> tuple[float, Tensor]:
        left = moment - (moment @ basis) @ basis.T  # A Q
        both = left - basis @ (basis.T @ left)  # Q A Q
        right = cost - basis @ (basis.T @ cost)  # Q G
        return float((cost * both).sum()), left @ right  # A Q G, as Q Q = Q

    basis = (inner.T @ start_MR).float()
    now, product = price(basis)
    step = 1.0
    for _ in range(_STEPS):
        uphill = product @ basis + product.T @ basis
        direction = uphill - basis @ (basis.T @ uphill)
        scale = float(direction.norm())
        while step > 1e-6:
            tried, _ = torch.linalg.qr(basis + (step / scale) * direction)
            then, new = price(tried)
            if then < now:
                break
            step /= 4
        else:
            break
        gain, basis, now, product, step = now - then, tried, then, new, step * 2
        if gain < 1e-5 * now:
            break
    basis, _ = torch.linalg.qr(basis.double())
    basis_MR: Tensor = inner @ basis
    return basis_MR


def refitted(given: EmbeddingWeights, narrower: EmbeddingWeights, tokens: TokenSample) -> EmbeddingWeights:
    """The narrower embedding with the projection that comes nearest to the given one on `tokens`, by least squares.

    What was left out is not unrelated to what was kept, and LayerNorm stretches what is left to full length; both are
    made good for here. A ridge pulls towards the closed form.
    """
    assert narrower.projection_HE is not None
    if narrower.projects_first:
        return _refitted_first(given, narrower, moment(given, tokens))
    assert narrower.offset_H is not None
    size = narrower.width + 1
    gram, cross = torch.zeros(size, size, dtype=torch.float64), None
    closed = torch.cat([narrower.projection_HE.T, narrower.offset_H[None]]).double()
    for start in range(0, len(tokens), 8192):
        part = slice(start, start + 8192)
        ids = tokens.ids_N[part], tokens.positions_N[part], tokens.types_N[part]
        narrow = narrower.normalized(narrower.sums(*ids)).double()
        narrow = torch.cat([narrow, torch.ones(len(narrow), 1, dtype=torch.float64)], 1)
        missing = given.finished(given.normalized(given.sums(*ids))).double() - narrow @ closed
        gram += narrow.T @ narrow / len(tokens)
        cross = narrow.T @ missing / len(tokens) if cross is None else cross + narrow.T @ missing / len(tokens)
    assert cross is not None
    better = closed + torch.linalg.solve(gram + _RIDGE * torch.eye(size, dtype=torch.float64), cross)
    dtype = narrower.projection_HE.dtype
    return replace(narrower, projection_HE=better[:-1].T.to(dtype).contiguous(), offset_H=better[-1].to(dtype))


def _refitted_first(given: EmbeddingWeights, narrower: EmbeddingWeights, moment_MM: Tensor) -> EmbeddingWeights:
    """The same of a projection before LayerNorm: what it is given is what it makes, times V and a number of each token.

    Least squares of n from V' n has the solution A V (V' A V)^-1, A the moment of n. A ridge pulls towards V.
    """
    assert narrower.projection_HE is not None
    basis_HK = narrower.projection_HE.double()
    gram_KK = basis_HK.T @ moment_MM @ basis_HK
    ridge_KK = _RIDGE * gram_KK.diagonal().mean() * torch.eye(narrower.width, dtype=torch.float64)
    missing_HK = moment_MM @ basis_HK - basis_HK @ gram_KK
    better_HK = basis_HK + torch.linalg.solve(gram_KK + ridge_KK, missing_HK.T).T
    return replace(narrower, projection_HE=better_HK.to(narrower.projection_HE.dtype).contiguous())
