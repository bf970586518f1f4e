"""The losses of distillation: pure functions of tensors, each a mean. Those that compare with the teacher are 0 when
the student agrees with it.

B batch, L length, N rows, C classes, H hidden size
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The label of a token that has none: cross-entropy's own default."""


def soft_targets(student_NC: Tensor, teacher_NC: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over rows.

    T^2 keeps the gradient's size whatever T is (Hinton et al., arXiv:1503.02531, section 2). Rows are whatever is
    classified: texts, or attended tokens over the vocabulary.
    """
    student = functional.log_softmax(student_NC.float() / temperature, dim=-1)
    teacher = functional.log_softmax(teacher_NC.float() / temperature, dim=-1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def hard_targets(student_NC: Tensor, labels_N: Tensor) -> Tensor:
    """Cross-entropy with the labels, the mean over the rows that have one; 0 where none has, as in a batch of short
    texts none of whose tokens was masked (cross-entropy's own mean would be 0 / 0).
    """
    total = functional.cross_entropy(student_NC.float(), labels_N, ignore_index=IGNORED, reduction="sum")
    return total / (labels_N != IGNORED).sum().clamp(min=1)


def hidden_cosine(student_BLH: Tensor, teacher_BLH: Tensor, mask_BL: Tensor) -> Tensor:
    """1 - cos(student, teacher) of hidden states, the mean over attended tokens (arXiv:1910.01108, section 3)."""
    cosine_BL = functional.cosine_similarity(student_BLH.float(), teacher_BLH.float(), dim=-1)
    weight_BL = mask_BL.float()
    return ((1 - cosine_BL) * weight_BL).sum() / weight_BL.sum()


def vector_cosine(student_BH: Tensor, teacher_BH: Tensor) -> Tensor:
    """1 - cos(student, teacher) of sentence vectors, the mean over the batch."""
    return (1 - functional.cosine_similarity(student_BH.float(), teacher_BH.float(), dim=-1)).mean()


def similarity_structure(student_BH: Tensor, teacher_BH: Tensor, temperature: float) -> Tensor:
    """How differently student and teacher see which texts of the batch are alike: KL between rows of similarities.

    Each text's cosines to the other texts of the batch, over `temperature`, are a distribution; the loss is the mean
    KL from the teacher's to the student's. (Tung and Mori, arXiv:1907.09682, compare the matrices themselves; a
    distribution weighs near neighbours, which is what retrieval asks for.) A batch of fewer than three texts has no
    structure: 0.
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
