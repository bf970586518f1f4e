"""What a CPU trains faster in another way: the same numbers as the plain way, and nothing of it left afterwards."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from bertshrink.model.families import FAMILIES
from bertshrink.progress import Silent
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.distill import Distill
from bertshrink.training import cpu_kernels
from bertshrink.training.optim.row_adagrad import WhitenedRowAdagrad
from bertshrink.training.optim.sparse_adamw import RowSparseAdamW, clip, has_rows
from tests.support.tiny import outputs, sentences, tiny_encoder, tiny_texts

B, A, L, D = 3, 4, 7, 8


@pytest.fixture(autouse=True)
def _on_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def heads(seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return [torch.randn(B, L, A, D).to(dtype).transpose(1, 2).requires_grad_() for _ in range(3)]


def padding(*lengths):
    return (torch.arange(L)[None] < torch.tensor(lengths)[:, None])[:, None, None, :].expand(B, 1, L, L)


def banded():
    at = torch.arange(L)
    return ((at[:, None] - at[None]).abs() < 3).expand(B, 1, L, L).contiguous()


def fused(query, key, value, mask, scale=None):
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale).transpose(1, 2)


@pytest.mark.parametrize("mask", [None, padding(7, 4, 1), banded()], ids=["none", "padding", "band"])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention_by_two_products_is_attention(mask, scale, monkeypatch):
    given = heads()
    wanted = fused(*given, mask, scale)
    weight = torch.randn_like(wanted)
    gradients = torch.autograd.grad((wanted * weight).sum(), given)
    monkeypatch.setattr(cpu_kernels, "sdpa_attention_forward", None)  # whoever calls it fails
    found, weights = cpu_kernels.attention(nn.Module(), *given, mask, scaling=scale)
    assert weights is None and found.shape == (B, L, A, D) and found.is_contiguous()
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad((found * weight).sum(), given), gradients)


@pytest.mark.parametrize("is_autocast", [False, True])
def test_attention_in_bfloat16_is_near(is_autocast):
    mask = padding(7, 5, 2)
    wanted = fused(*heads(), mask)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        found, _ = cpu_kernels.attention(
            nn.Module(), *heads(dtype=torch.float32 if is_autocast else torch.bfloat16), mask
        )
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_long_texts_and_masks_of_numbers_go_to_the_fused_kernel(dtype, monkeypatch):
    asked = []
    kernel = cpu_kernels.sdpa_attention_forward
    monkeypatch.setattr(cpu_kernels, "sdpa_attention_forward", lambda *a, **b: asked.append(b) or kernel(*a, **b))
    module = nn.Module().eval()
    module.is_causal = False
    given = heads(dtype=dtype)
    numbers = torch.zeros(B, 1, L, L, dtype=dtype).masked_fill(~padding(7, 4, 1), torch.finfo(dtype).min)
    found, _ = cpu_kernels.attention(module, *given, numbers, scaling=0.5)
    torch.testing.assert_close(found, fused(*given, numbers, 0.5))
    assert asked == [{"dropout": 0.0, "scaling": 0.5}]
    asked.clear()
    cpu_kernels.attention(module, *given, None)
    assert bool(asked) == (dtype == torch.float64), "a type that was not measured"
    asked.clear()
    monkeypatch.setattr(cpu_kernels, "LONGEST", {dtype: L - 1})
    cpu_kernels.attention(module, *given, None)
    assert asked


def test_attention_drops_weights_out_while_training_alone():
    given = heads()
    module = nn.Module()
    torch.manual_seed(3)
    found, _ = cpu_kernels.attention(module, *given, None, dropout=0.5)
    torch.manual_seed(3)
    q, k, v = given
    weights = functional.dropout((q @ k.mT / D**0.5).softmax(-1).flatten(0, 1), 0.5).view(B, A, L, L)
    torch.testing.assert_close(found, (weights @ v).transpose(1, 2))
    assert torch.equal(
        cpu_kernels.attention(module.eval(), *given, None, dropout=0.5)[0],
        cpu_kernels.attention(module, *given, None)[0],
    )


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_quick_dropout_drops_the_share_that_it_is_told(p):
    torch.manual_seed(0)
    drop = cpu_kernels.FastDropout(p)
    given = torch.ones(4, 100_000).T.requires_grad_()  # 4 lanes of a word are side by side
    found = drop(given)
    for lane in found.T:
        assert float((lane == 0).float().mean()) == pytest.approx(p, abs=0.01)
    assert float(found.detach().mean()) == pytest.approx(1, abs=0.02)
    kept = found[found != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), atol=0, rtol=2e-4)
    (gradient,) = torch.autograd.grad(found.sum(), given)
    assert torch.equal(gradient, found.detach())


def test_quick_dropout_repeats_itself_and_can_be_off():
    drop = cpu_kernels.FastDropout(0.3)
    given = torch.randn(5, 3).bfloat16()  # no multiple of 4
    torch.manual_seed(1)
    first, second = drop(given), drop(given)
    torch.manual_seed(1)
    assert torch.equal(drop(given), first) and not torch.equal(first, second)
    assert first.dtype == given.dtype
    assert cpu_kernels.FastDropout(0.0)(given) is given and drop.eval()(given) is given
    assert not cpu_kernels.FastDropout(1.0)(given).any()
    assert drop.train()(torch.empty(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_the_same_and_is_as_before_afterwards(family, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_kernels, "LARGE", 20)
    asked = []
    attend = cpu_kernels.attention
    monkeypatch.setattr(cpu_kernels, "attention", lambda *a, **b: asked.append(1) or attend(*a, **b))
    student, teacher = tiny_encoder(family), tiny_encoder(family, seed=1)
    texts = sentences(5)
    before = [outputs(one, one.tokenize(texts)) for one in (student, teacher)]

    def state(model):
        return model.config._attn_implementation, [(type(one), vars(one).get("sparse")) for one in model.modules()]

    states = [state(one.model) for one in (student, teacher)]
    with (
        pytest.raises(ZeroDivisionError),
        cpu_kernels.with_cpu_kernels(student.model, (teacher.model,), compiled=False),
    ):
        kinds = {type(one) for one in student.model.modules()}
        had_dropout = any(kind is nn.Dropout for kind, _ in states[0][1])
        assert (cpu_kernels.FastDropout in kinds) == had_dropout and nn.Dropout not in kinds
        assert student.model.get_input_embeddings().sparse and not teacher.model.get_input_embeddings().sparse
        asked.clear()
        for one, wanted in zip((student, teacher), before, strict=True):
            torch.testing.assert_close(outputs(one, one.tokenize(texts)), wanted, atol=1e-5, rtol=1e-5)
        layers = student.shape.num_layers + teacher.shape.num_layers
        assert len(asked) == (layers if student.model._supports_sdpa else 0)
        student.model.save_pretrained(tmp_path)
        assert cpu_kernels.ATTENTION not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
        1 / 0  # noqa: B018
    assert [state(one.model) for one in (student, teacher)] == states


def test_gpus_and_compiled_steps_are_left_alone(monkeypatch):
    model = tiny_encoder().model
    with cpu_kernels.with_cpu_kernels(model, (), compiled=True):
        assert cpu_kernels.FastDropout not in {type(one) for one in model.modules()}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with cpu_kernels.with_cpu_kernels(model, (), compiled=False):
        assert model.config._attn_implementation != cpu_kernels.ATTENTION


def test_gradients_by_rows_are_for_large_tables_of_one_use(monkeypatch):
    assert cpu_kernels.large_embeddings(tiny_encoder().model) == [], "too small"
    monkeypatch.setattr(cpu_kernels, "LARGE", 20)
    model = tiny_encoder().model
    assert model.get_input_embeddings() in cpu_kernels.large_embeddings(model)
    model.get_input_embeddings().requires_grad_(False)
    assert model.get_input_embeddings() not in cpu_kernels.large_embeddings(model)
    tied = tiny_encoder(task="mlm").model
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    assert tied.get_input_embeddings() not in cpu_kernels.large_embeddings(tied)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with cpu_kernels.with_cpu_kernels(model.requires_grad_(True), (), compiled=False):
        assert not model.get_input_embeddings().sparse


def pair(*, sparse):
    torch.manual_seed(0)
    table, dense = nn.Embedding(30, 4, padding_idx=0, sparse=sparse), nn.Linear(4, 3)
    return nn.ModuleDict({"table": table, "dense": dense})


def backward(model, step):
    rows = torch.randint(30, (2, 9), generator=torch.Generator().manual_seed(step))
    (model["dense"](model["table"](rows)) - 1).square().sum().backward()


@pytest.mark.parametrize("fused", [False, True])
def test_steps_with_gradients_by_rows_are_adamws(fused):
    plain, mine = pair(sparse=False), pair(sparse=True)
    slow = torch.optim.AdamW(plain.parameters(), 1e-2, weight_decay=0.1, fused=fused)
    quick = RowSparseAdamW(mine.parameters(), 1e-2, weight_decay=0.1, fused=fused)
    for step in range(12):
        for part in range(1 + step % 2):  # gradients of two parts of a step add up
            backward(plain, 2 * step + part)
            backward(mine, 2 * step + part)
        assert has_rows(mine.parameters()) and not has_rows(plain.parameters())
        norms = nn.utils.clip_grad_norm_(plain.parameters(), 5.0), clip(mine.parameters(), 5.0)
        torch.testing.assert_close(*norms)
        torch.testing.assert_close(mine["table"].weight.grad.to_dense(), plain["table"].weight.grad)
        slow.step()
        quick.step()
        torch.testing.assert_close(mine.state_dict(), plain.state_dict())
        assert mine["table"].weight.grad is None
        slow.zero_grad()
        quick.zero_grad()
        if step == 6:  # a pause, as between checkpoint and resumption
            state = copy.deepcopy(quick.state_dict())
            quick = RowSparseAdamW(mine.parameters(), 1e-2, weight_decay=0.1, fused=fused)
            quick.load_state_dict(state)


def test_steps_by_rows_of_tables_that_learn_by_rows_are_the_same():
    plain, mine = pair(sparse=False), pair(sparse=True)
    slow, quick = (WhitenedRowAdagrad([m["table"].weight], [m["dense"].weight], [], 1e-2, 0.1) for m in (plain, mine))
    start = mine["table"].weight.detach().clone()
    for step in range(30):
        backward(plain, step)
        backward(mine, step)
        assert mine["table"].weight.grad.is_sparse
        slow.step()
        quick.step()
        torch.testing.assert_close(mine.state_dict(), plain.state_dict())
        assert mine["table"].weight.grad is None
        slow.zero_grad()
        quick.zero_grad()
    assert not torch.allclose(mine["table"].weight, start)


def test_a_norm_that_is_no_number_is_told_and_changes_nothing():
    model = pair(sparse=True)
    backward(model, 0)
    model["dense"].bias.grad[0] = float("nan")
    before = model["dense"].weight.grad.clone()
    assert clip(model.parameters(), 1.0).isnan()
    assert torch.equal(model["dense"].weight.grad, before)


@pytest.mark.training
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation_steps": 2},
        {"gradient_checkpointing": True},
        {"fake_quant": "int8"},
        {"trainable": "embeddings"},
    ],
)
def test_a_student_learns_the_same_whichever_way_gradients_are_kept(settings, tmp_path, monkeypatch):
    def learnt(name):
        teacher = tiny_encoder()
        bench = Workbench(tiny_texts("classification"), teacher, tmp_path / name, progress=Silent())
        wish = Distill(layers=2, epochs=2, batch_size=4, precision="float32", dropout=False, **settings)
        return wish(teacher.copy(), bench).model

    seen = []
    step = RowSparseAdamW.step

    def stepping(self, *given, **more):
        seen.append(has_rows(one for group in self.param_groups for one in group["params"]))
        return step(self, *given, **more)

    monkeypatch.setattr(RowSparseAdamW, "step", stepping)
    monkeypatch.setattr(cpu_kernels, "LARGE", 20)
    by_rows = learnt("rows")
    assert seen and all(seen)
    seen.clear()
    monkeypatch.setattr(cpu_kernels, "LARGE", 10**9)
    whole = learnt("whole")
    assert seen and not any(seen)
    assert by_rows.config._attn_implementation != cpu_kernels.ATTENTION
    # Adam makes a full step of rounding where the true gradient is nought: single numbers part, together they do not.
    start = tiny_encoder().model.state_dict()
    names = [name for name, value in whole.state_dict().items() if value.is_floating_point() and name in start]
    assert len(names) > 10
    ours, theirs = (torch.cat([one.state_dict()[n].flatten() for n in names]) for one in (by_rows, whole))
    moved = (theirs - torch.cat([start[name].flatten() for name in names])).norm()
    assert (ours - theirs).norm() < 0.1 * moved
