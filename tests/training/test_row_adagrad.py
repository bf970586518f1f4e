"""Tables that learn by rows: the optimizer against a slow version, and the table that is a sum while it learns."""

import copy

import pytest
import torch

from bertshrink.techniques.distill.shared_embedding import Coded, Codes
from bertshrink.training.optim.row_adagrad import EVERY, TABLE_STEP, WhitenedRowAdagrad, whitening
from tests.support.tiny import outputs, sentences, tiny_encoder


def problem(seed=0):
    torch.manual_seed(seed)
    table, other = torch.nn.Parameter(torch.randn(12, 4)), torch.nn.Parameter(torch.randn(4, 3))
    wanted = torch.randn(12, 3)

    def backward(step):
        rows = torch.randint(12, (5,), generator=torch.Generator().manual_seed(step))
        loss = (table[rows] @ other - wanted[rows]).square().sum()
        loss.backward()
        return rows

    return table, other, backward


def test_a_moment_is_white_after_its_whitening():
    torch.manual_seed(1)
    given = torch.randn(500, 6) @ torch.randn(6, 6)
    white = given @ whitening(given.T @ given / 500)
    torch.testing.assert_close(white.T @ white / 500, torch.eye(6), atol=1e-4, rtol=0)
    assert bool(torch.isfinite(whitening(torch.zeros(3, 3))).all())


def test_steps_are_those_of_a_slow_version_and_the_rest_is_adamw():
    table, other, backward = problem()
    optimizer = WhitenedRowAdagrad([table], [other], [], 1e-2, weight_decay=0.1)
    slow_table, slow_other = table.detach().clone(), torch.nn.Parameter(other.detach().clone())
    plain = torch.optim.AdamW([slow_other], 1e-2, weight_decay=0.1)
    moment, squares = None, torch.zeros(12)
    for step in range(EVERY + 3):
        optimizer.zero_grad()
        touched = set(backward(step).tolist())
        gradient = table.grad.clone()
        slow_other.grad = other.grad.clone()
        before = table.detach().clone()
        optimizer.step()
        plain.step()

        found = gradient[sorted(touched)]
        fresh = found.T @ found / len(touched)
        weight = max(0.02, 1 / (step + 1))
        moment = fresh if moment is None else (1 - weight) * moment + weight * fresh
        if step <= EVERY:
            values, vectors = torch.linalg.eigh(moment.double())
            values = values.clamp(min=float(values[-1]) * 1e-6)
            matrix = (vectors @ torch.diag(values**-0.5) @ vectors.T).float()
        for row in touched:
            white = gradient[row] @ matrix
            squares[row] += white.square().mean()
            slow_table[row] -= TABLE_STEP * 1e-2 * white / squares[row].sqrt()
        for row in set(range(12)) - touched:
            assert torch.equal(table[row], before[row])
        torch.testing.assert_close(table.detach(), slow_table, atol=2e-4, rtol=1e-4)
        slow_table = table.detach().clone()
        assert torch.equal(other, slow_other)


def test_a_table_goes_on_bit_by_bit_after_a_pause():
    def run(pauses):
        table, other, backward = problem(3)
        optimizer = WhitenedRowAdagrad([table], [], [other], 1e-2, weight_decay=0.1)
        for step in range(2 * EVERY):
            if step in pauses:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = WhitenedRowAdagrad([table], [], [other], 1e-2, weight_decay=0.1)
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            backward(step)
            optimizer.step()
        return table.detach(), other.detach()

    for whole, paused in zip(run(()), run((5, EVERY + 7)), strict=True):
        assert torch.equal(whole, paused)


def test_codes_begin_as_the_table_and_end_as_one():
    torch.manual_seed(0)
    rows, contexts, ids = torch.randn(9, 4), 3 * torch.randn(9, 6), torch.tensor([[1, 7, 7]])
    codes = Codes(rows, contexts)
    assert torch.equal(codes(ids), rows[ids])
    assert [name for name, _ in codes.named_parameters()] == ["own_VK", "shared_EK"]
    with torch.no_grad():
        codes.shared_EK += torch.randn(6, 4)
    torch.testing.assert_close(codes(ids), codes.table()[ids])
    rms = rows.square().mean().sqrt() / contexts.square().mean().sqrt()
    torch.testing.assert_close(codes.table(), rows + rms * contexts @ codes.shared_EK.detach())


@pytest.mark.parametrize("same_vocabulary", [True, False])
def test_a_student_is_coded_for_a_while_only(same_vocabulary):
    student, teacher = tiny_encoder("albert"), tiny_encoder("bert")
    if not same_vocabulary:
        teacher.model.set_input_embeddings(torch.nn.Embedding(7, 32))
    table = student.model.get_input_embeddings()
    before, given = table.weight.detach().clone(), outputs(student, student.tokenize(sentences(3)))
    with Coded(student, teacher) as codes:
        assert codes.contexts_VE.shape[1] == (32 if same_vocabulary else table.weight.shape[1])
        assert student.model.get_input_embeddings() is codes
        torch.testing.assert_close(outputs(student, student.tokenize(sentences(3))), given)
        with torch.no_grad():
            codes.shared_EK += 0.1
    assert student.model.get_input_embeddings() is table
    assert not torch.equal(table.weight, before)
    torch.testing.assert_close(table.weight.detach(), codes.table())
