"""The losses of distillation: pure functions of tensors, each a mean, 0 when the student agrees with its teacher.

    soft_targets           KL of softened classes                       Hinton et al., arXiv:1503.02531
    soft_decisions         the same for classes that exclude no other   (a Bernoulli KL per class)
    logits_error           squared error of logits                      Ba and Caruana, arXiv:1312.6184
    hidden_cosine          angle of hidden states                       DistilBERT, arXiv:1910.01108
    hidden_error           squared error of hidden states               TinyBERT, arXiv:1909.10351
    attention_error        squared error of attention scores            TinyBERT, arXiv:1909.10351
    relation_divergence    KL of relations among queries, keys, values  MiniLMv2, arXiv:2012.15828
    vector_cosine          angle of sentence vectors
    vector_error           distance of sparse vectors, whose lengths count in a search
    similarity_structure   which texts of a batch are alike             after arXiv:1907.09682

B batch, L length, N rows, C classes, H hidden size, A heads
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from bertshrink.training.distributed.ranks import mean_over


def soft_targets(student_NC: Tensor, teacher_NC: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over rows.

    T^2 keeps the gradient's size whatever T is (arXiv:1503.02531, section 2). Rows are whatever is classified: texts,
    or attended tokens over tags or the vocabulary.
    """
    student = functional.log_softmax(student_NC.float() / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_NC.float() / temperature, dim=-1)
    total = functional.kl_div(student, teacher, reduction="sum", log_target=True)
    return mean_over(total, _count(student_NC)) * temperature**2


def soft_decisions(student_BC: Tensor, teacher_BC: Tensor, temperature: float) -> Tensor:
    """T^2 times the KL of one coin per class, sigmoid(logit / T), the mean over rows and classes."""
    student, teacher = student_BC.float() / temperature, teacher_BC.float() / temperature
    probability = torch.sigmoid(teacher)
    cost_BC = probability * (functional.logsigmoid(teacher) - functional.logsigmoid(student)) + (1 - probability) * (
        functional.logsigmoid(-teacher) - functional.logsigmoid(-student)
    )
    return mean_over(cost_BC.sum(), _count(student_BC) * student_BC.shape[-1]) * temperature**2


def logits_error(student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
    """Squared error of logits or scores, the mean over rows and classes."""
    total = functional.mse_loss(student_NC.float(), teacher_NC.float(), reduction="sum")
    return mean_over(total, _count(student_NC) * student_NC.shape[-1])


def hidden_cosine(student_BLH: Tensor, teacher_BLH: Tensor, mask_BL: Tensor) -> Tensor:
    """1 - cos(student, teacher) of hidden states, the mean over attended tokens (arXiv:1910.01108, section 3)."""
    cosine_BL = functional.cosine_similarity(student_BLH.float(), teacher_BLH.float(), dim=-1)
    weight_BL = mask_BL.float()
    return mean_over(((1 - cosine_BL) * weight_BL).sum(), weight_BL.sum())


def hidden_error(student_BLH: Tensor, teacher_BLH: Tensor, mask_BL: Tensor) -> Tensor:
    """Squared error of hidden states, the mean over attended tokens and H (arXiv:1909.10351, equation 8)."""
    error_BL = ((student_BLH.float() - teacher_BLH.float()) ** 2).mean(dim=-1)
    weight_BL = mask_BL.float()
    return mean_over((error_BL * weight_BL).sum(), weight_BL.sum())


def attention_error(
    student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask_BL: Tensor, heads: int
) -> Tensor:
    """Squared error of attention scores q k / sqrt(H / A) before the softmax, the mean over heads and pairs of attended
    tokens (arXiv:1909.10351, equation 7: unnormalised scores learn faster).

    Args:
        student: queries and keys, each (B, L, H).
        teacher: likewise; H may be another.
        mask_BL: 1 at tokens.
        heads: A, equal in both.
    """
    mine_BALL, theirs_BALL = (_scores(q, k, heads) for q, k in (student, teacher))
    pairs_B1LL = _pairs(mask_BL)
    total = ((mine_BALL - theirs_BALL) ** 2 * pairs_B1LL).sum()
    return mean_over(total, pairs_B1LL.sum() * heads)


def relation_divergence(
    student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], mask_BL: Tensor, heads: int
) -> Tensor:
    """KL between how tokens relate to each other among queries, among keys and among values.

    Each of the three is cut into `heads` parts, whatever the models' own heads are; a part's relations are the softmax
    of its scaled products with itself. The mean over the three, heads and attended tokens (arXiv:2012.15828,
    equations 5 to 7).

    Args:
        student: queries, keys, values, each (B, L, H).
        teacher: likewise; H may be another.
        mask_BL: 1 at tokens.
        heads: relation heads; both H are divisible by it.
    """
    hidden_B11L = mask_BL[:, None, None, :] == 0
    weight_B1L = mask_BL[:, None, :].float()
    total = student[0].new_zeros((), dtype=torch.float32)
    for mine, theirs in zip(student, teacher, strict=True):
        mine_BALL, theirs_BALL = (
            functional.log_softmax(_scores(x, x, heads).masked_fill(hidden_B11L, -1e9), dim=-1) for x in (mine, theirs)
        )
        kl_BAL = (theirs_BALL.exp() * (theirs_BALL - mine_BALL)).sum(dim=-1)
        total = total + (kl_BAL * weight_B1L).sum()
    return mean_over(total, weight_B1L.sum() * heads * len(student))


def vector_cosine(student_BH: Tensor, teacher_BH: Tensor) -> Tensor:
    """1 - cos(student, teacher) of sentence vectors, the mean over the batch."""
    distance_B = 1 - functional.cosine_similarity(student_BH.float(), teacher_BH.float(), dim=-1)
    return mean_over(distance_B.sum(), _count(student_BH))


def vector_error(student_BV: Tensor, teacher_BV: Tensor) -> Tensor:
    """Squared distance of vectors as a share of the teacher's square, the mean over the batch; of zeros it is 1."""
    mine, theirs = student_BV.float(), teacher_BV.float()
    square_B = (theirs**2).sum(dim=-1).clamp(min=1e-6)
    return mean_over((((mine - theirs) ** 2).sum(dim=-1) / square_B).sum(), _count(student_BV))


def similarity_structure(student_BH: Tensor, teacher_BH: Tensor, temperature: float) -> Tensor:
    """How differently student and teacher see which texts of the batch are alike: KL between rows of similarities.

    Each text's cosines to the other texts of the batch, over `temperature`, are a distribution; the loss is the mean
    KL from the teacher's to the student's. (Tung and Mori, arXiv:1907.09682, compare the matrices themselves; a
    distribution weighs near neighbours, which is what retrieval asks for.) A batch of fewer than three texts has no
    structure: 0. On several processes each compares the texts of its own share.
    """
    size = student_BH.shape[0]
    if size < 3:
        return student_BH.sum() * 0.0
    others = ~torch.eye(size, dtype=torch.bool, device=student_BH.device)

    def similarities(vectors: Tensor) -> Tensor:
        unit = functional.normalize(vectors.float(), dim=-1)
        rows: Tensor = (unit @ unit.T)[others].view(size, size - 1)
        return rows

    return soft_targets(similarities(student_BH), similarities(teacher_BH), temperature) / temperature**2


def _scores(a_BLH: Tensor, b_BLH: Tensor, heads: int) -> Tensor:
    """(B, A, L, L) scaled products of the heads' parts."""
    a_BALD, b_BALD = (x.float().reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (a_BLH, b_BLH))
    scores: Tensor = a_BALD @ b_BALD.transpose(-1, -2) / a_BALD.shape[-1] ** 0.5
    return scores


def _pairs(mask_BL: Tensor) -> Tensor:
    """(B, 1, L, L) 1 where both tokens are attended."""
    mask = mask_BL.float()
    return (mask[:, :, None] * mask[:, None, :]).unsqueeze(1)


def _count(rows: Tensor) -> Tensor:
    return torch.tensor(float(rows.shape[0]), device=rows.device)


def _score_error(student_NC: Tensor, teacher_NC: Tensor, temperature: float) -> Tensor:
    return logits_error(student_NC, teacher_NC)


def _vector(student_BH: Tensor, teacher_BH: Tensor, temperature: float) -> Tensor:
    return vector_cosine(student_BH, teacher_BH)


def _sparse_vector(student_BV: Tensor, teacher_BV: Tensor, temperature: float) -> Tensor:
    return vector_error(student_BV, teacher_BV)


_Parts = dict[str, Callable[[Tensor, Tensor, float], Tensor]]
_OF_CLASSES: _Parts = {"soft": soft_targets}
SOFT_LOSSES: dict[str, _Parts] = {
    "classification": _OF_CLASSES,
    "multi-label": {"soft": soft_decisions},
    "regression": {"soft": _score_error},
    "token-classification": _OF_CLASSES,
    "question-answering": _OF_CLASSES,
    "embedding": {"vector": _vector, "structure": similarity_structure},
    "sparse-embedding": {"vector": _sparse_vector, "structure": similarity_structure},
    "mlm": _OF_CLASSES,
}
"""Task -> name of a part -> (student's output, teacher's, temperature) -> loss."""
