"""Each loss against hand-computed values and against a slow plain version."""

import math

import pytest
import torch

from bertshrink.techniques.distill.losses import (
    IGNORED,
    hard_targets,
    hidden_cosine,
    similarity_structure,
    soft_targets,
    vector_cosine,
)


def slow_kl(student, teacher, temperature):
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(x / temperature) for x in t]
        q = [math.exp(x / temperature) for x in s]
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(student) * temperature**2


@pytest.fixture
def noise():
    torch.manual_seed(0)
    return torch.randn


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 7.0])
def test_soft_targets_equal_the_sum_over_classes(noise, temperature):
    student, teacher = noise(5, 4), noise(5, 4)
    expected = slow_kl(student, teacher, temperature)
    assert float(soft_targets(student, teacher, temperature)) == pytest.approx(expected, rel=1e-5)


def test_soft_targets_by_hand():
    """Teacher (3/4, 1/4), student (1/2, 1/2), T = 1: 3/4 ln 3/2 + 1/4 ln 1/2."""
    teacher = torch.tensor([[math.log(3.0), 0.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(soft_targets(torch.zeros(1, 2), teacher, 1.0)) == pytest.approx(expected, abs=1e-6)


def test_soft_targets_gradient_hardly_depends_on_temperature(noise):
    """What T^2 is for: at high temperature the gradient tends to (student - teacher) / classes, whatever T is."""
    teacher = noise(3, 4)
    sizes = []
    for temperature in (20.0, 40.0):
        student = torch.zeros(3, 4, requires_grad=True)
        soft_targets(student, teacher, temperature).backward()
        sizes.append(float(student.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_hard_targets_are_the_mean_over_labelled_rows_and_0_without_any(noise):
    student, labels = noise(4, 5), torch.tensor([2, IGNORED, 0, IGNORED])
    expected = -student.log_softmax(dim=-1)[[0, 2], [2, 0]].mean()
    assert float(hard_targets(student, labels)) == pytest.approx(float(expected), rel=1e-5)
    assert float(hard_targets(student, torch.full((4,), IGNORED))) == 0


def test_hidden_cosine_counts_attended_tokens_only():
    teacher = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    student = torch.tensor([[[2.0, 0.0], [1.0, 0.0], [-1.0, -1.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert float(hidden_cosine(student, teacher, mask)) == pytest.approx(0.5)  # 0 and 1, the third is padding
    assert float(hidden_cosine(student, teacher, torch.tensor([[1, 1, 1]]))) == pytest.approx((0 + 1 + 2) / 3)


def test_hidden_cosine_equals_a_loop(noise):
    student, teacher = noise(2, 5, 8), noise(2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    terms = [
        1 - float(student[b, i] @ teacher[b, i] / (student[b, i].norm() * teacher[b, i].norm()))
        for b in range(2)
        for i in range(5)
        if mask[b, i]
    ]
    assert float(hidden_cosine(student, teacher, mask)) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_vector_cosine_by_hand():
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    teacher = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    assert float(vector_cosine(student, teacher)) == pytest.approx((1 - 1 / math.sqrt(2)) / 2)


def test_similarity_structure_equals_a_loop(noise):
    student, teacher = noise(4, 6), noise(4, 6)

    def rows(vectors):
        unit = vectors / vectors.norm(dim=1, keepdim=True)
        return torch.stack([torch.stack([unit[i] @ unit[j] for j in range(4) if j != i]) for i in range(4)])

    expected = slow_kl(rows(student), rows(teacher), 0.1) / 0.1**2
    assert float(similarity_structure(student, teacher, 0.1)) == pytest.approx(expected, rel=1e-4)


def test_similarity_structure_ignores_rotation_and_scale(noise):
    """Only who is near whom counts: turning the whole space leaves it alone."""
    vectors = noise(6, 8)
    turn, _ = torch.linalg.qr(noise(8, 8))
    assert float(similarity_structure(3 * vectors @ turn, vectors, 0.05)) == pytest.approx(0, abs=1e-5)
    assert float(similarity_structure(noise(6, 8), vectors, 0.05)) > 0.1


def test_similarity_structure_of_two_texts_is_zero_but_differentiable(noise):
    student = noise(2, 8).requires_grad_()
    loss = similarity_structure(student, noise(2, 8), 0.05)
    loss.backward()
    assert float(loss.detach()) == 0 and float(student.grad.abs().sum()) == 0


@pytest.mark.parametrize("loss", [vector_cosine, lambda a, b: similarity_structure(a, b, 0.05)])
def test_agreement_costs_nothing(noise, loss):
    vectors = noise(5, 8)
    assert float(loss(vectors, vectors.clone())) == pytest.approx(0, abs=1e-6)
