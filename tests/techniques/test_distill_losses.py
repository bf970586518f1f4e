"""Each loss against hand-computed values and against a slow plain version."""

import math

import pytest
import torch

from bertshrink.techniques.distill.losses import (
    attention_error,
    hidden_cosine,
    hidden_error,
    logits_error,
    relation_divergence,
    similarity_structure,
    soft_decisions,
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


def slow_bernoulli(student, teacher, temperature):
    def sigmoid(x):
        return 1 / (1 + math.exp(-x / temperature))

    total = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        p, q = sigmoid(t), sigmoid(s)
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return total / student.numel() * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_decisions_equal_a_sum_over_coins(noise, temperature):
    student, teacher = noise(4, 3), noise(4, 3)
    expected = slow_bernoulli(student, teacher, temperature)
    assert float(soft_decisions(student, teacher, temperature)) == pytest.approx(expected, rel=1e-4)


def test_soft_decisions_by_hand():
    """Teacher 3/4, student 1/2, one class: the same number as soft targets over two."""
    teacher = torch.tensor([[math.log(3.0)]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(soft_decisions(torch.zeros(1, 1), teacher, 1.0)) == pytest.approx(expected, abs=1e-6)
    assert math.isfinite(float(soft_decisions(torch.full((1, 1), -200.0), torch.full((1, 1), 200.0), 1.0)))


def test_logits_error_by_hand():
    assert float(logits_error(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]]))) == 1.5


def test_hidden_error_counts_attended_tokens_only():
    student = torch.tensor([[[1.0, 3.0], [0.0, 2.0], [9.0, 9.0]]])
    assert float(hidden_error(student, torch.zeros(1, 3, 2), torch.tensor([[1, 1, 0]]))) == pytest.approx((5 + 2) / 2)


def slow_scores(a, b, heads):
    """[batch][head][i][j] scaled products, by loops."""
    width = a.shape[-1] // heads
    return [
        [
            [
                [
                    sum(float(a[n, i, h * width + d]) * float(b[n, j, h * width + d]) for d in range(width))
                    / width**0.5
                    for j in range(a.shape[1])
                ]
                for i in range(a.shape[1])
            ]
            for h in range(heads)
        ]
        for n in range(a.shape[0])
    ]


def test_attention_error_equals_a_loop(noise):
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    student, teacher = ((noise(2, 3, 4), noise(2, 3, 4)), (noise(2, 3, 8), noise(2, 3, 8)))
    mine, theirs = (slow_scores(*pair, 2) for pair in (student, teacher))
    terms = [
        (mine[n][h][i][j] - theirs[n][h][i][j]) ** 2
        for n in range(2)
        for h in range(2)
        for i in range(3)
        for j in range(3)
        if mask[n, i] and mask[n, j]
    ]
    assert float(attention_error(student, teacher, mask, 2)) == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_relation_divergence_equals_a_loop(noise):
    """Widths differ, relation heads are equal; padding neither relates nor is related to."""
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    student, teacher = (tuple(noise(2, 3, width) for _ in range(3)) for width in (4, 8))

    def relations(x, n, h):
        scores, length = slow_scores(x, x, 2)[n][h], int(mask[n].sum())
        rows = [[math.exp(scores[i][j]) for j in range(length)] for i in range(length)]
        return [[value / sum(row) for value in row] for row in rows]

    terms = []
    for mine, theirs in zip(student, teacher, strict=True):
        for n in range(2):
            for h in range(2):
                for q, p in zip(relations(mine, n, h), relations(theirs, n, h), strict=True):
                    terms.append(sum(b * math.log(b / a) for a, b in zip(q, p, strict=True)))
    assert float(relation_divergence(student, teacher, mask, 2)) == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_what_stands_at_padding_changes_nothing(noise):
    mask = torch.tensor([[1, 1, 0, 0]])
    student, teacher = (tuple(noise(1, 4, 6) for _ in range(3)) for _ in range(2))
    other = tuple(torch.cat([x[:, :2], 100 * noise(1, 2, 6)], dim=1) for x in student)
    for loss in (
        lambda s: relation_divergence(s, teacher, mask, 2),
        lambda s: attention_error(s[:2], teacher[:2], mask, 2),
        lambda s: hidden_error(s[0], teacher[0], mask),
        lambda s: hidden_cosine(s[0], teacher[0], mask),
    ):
        assert float(loss(student)) == pytest.approx(float(loss(other)), rel=1e-5)


def test_agreement_of_layers_costs_nothing(noise):
    mask, layer = torch.ones(2, 3), tuple(noise(2, 3, 8) for _ in range(3))
    copied = tuple(x.clone() for x in layer)
    assert float(relation_divergence(layer, copied, mask, 4)) == pytest.approx(0, abs=1e-6)
    assert float(attention_error(layer[:2], copied[:2], mask, 4)) == 0
    assert float(logits_error(layer[0], copied[0])) == 0
    assert float(soft_decisions(layer[0][0], copied[0][0], 2.0)) == pytest.approx(0, abs=1e-6)
