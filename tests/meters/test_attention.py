"""`meters.attention`: classes of maps made by hand, heads disabled by hooks and by hand, corrections, curves."""

import re

import numpy as np
import pytest
import torch

from bertshrink.errors import UserError
from bertshrink.meters.attention.disabling import Judge, disabling
from bertshrink.meters.attention.first_layers import FirstLayers
from bertshrink.meters.attention.head_classes import MARGIN, THRESHOLD, role_of
from bertshrink.meters.attention.head_hooks import Heads
from bertshrink.meters.attention.head_importance import importance
from bertshrink.meters.attention.inspection import inspect_heads
from bertshrink.meters.attention.maps import (
    Marks,
    attention_of,
    giving_attention,
    marks_of,
    resampled,
    see_heads,
    shares,
)
from bertshrink.meters.attention.paired_change import compare, difference_interval, holm
from bertshrink.meters.attention.removal_curves import orders_of, steps_of
from bertshrink.meters.quality.base_evaluator import Score, share_of
from bertshrink.meters.quality.evaluators import prepare
from bertshrink.meters.quality.intervals import quotient
from bertshrink.model.families import FAMILIES
from bertshrink.progress import Silent
from bertshrink.report.attention import AttentionReport
from bertshrink.report.render.attention_page import MAX_BYTES, render
from tests.support.families import serves
from tests.support.tiny import outputs, sentences, tiny_encoder, tiny_texts, tiny_tokenizer

LENGTH = 12
SPECIAL = np.isin(np.arange(LENGTH), (0, 5, 11))
KNOWN = [name for name, row in FAMILIES.items() if row.layer is not None]


def marks(*, of_pair):
    first = np.arange(LENGTH) == 0
    second = np.arange(LENGTH) > 5 if of_pair else None
    return Marks(first, SPECIAL & ~first, np.zeros(LENGTH, bool), second)


def role_of_map(map_LL, *, of_pair=False):
    found = shares(torch.tensor(map_LL, dtype=torch.float32)[None], marks(of_pair=of_pair))
    block = found["block_score"][0] if of_pair else 0.0
    return role_of(found["vertical_score"][0], found["diagonal_score"][0], block)


def rows_to_1(map_LL):
    return map_LL / map_LL.sum(axis=1, keepdims=True)


AT = np.arange(LENGTH)
NEAR = rows_to_1((np.abs(AT[:, None] - AT) == 1).astype(float))
TO_SEPARATOR = np.tile((AT == 11).astype(float), (LENGTH, 1))
UNIFORM = np.full((LENGTH, LENGTH), 1 / LENGTH)
OWN_TEXT = rows_to_1(((AT[:, None] > 5) == (AT > 5)).astype(float))


@pytest.mark.parametrize(
    ("map_LL", "of_pair", "role"),
    [
        (TO_SEPARATOR, False, "vertical"),
        (np.eye(LENGTH), False, "diagonal"),
        ((TO_SEPARATOR + np.eye(LENGTH)) / 2, False, "vertical+diagonal"),
        (OWN_TEXT, True, "block"),
        (UNIFORM, True, "heterogeneous"),
        (UNIFORM, False, "heterogeneous"),
    ],
)
def test_maps_made_by_hand_have_the_class_that_they_were_made_for(map_LL, of_pair, role):
    assert role_of_map(map_LL, of_pair=of_pair) == role


def test_a_head_near_a_bound_is_mixed():
    assert role_of(THRESHOLD + MARGIN / 2, 0.0) == "mixed"
    assert role_of(THRESHOLD + 2 * MARGIN, 0.0) == "vertical"
    assert role_of(0.0, 0.0, THRESHOLD - MARGIN / 2) == "mixed"


def test_the_shares_are_those_of_the_map():
    found = shares(
        torch.tensor(np.stack([np.eye(LENGTH), np.eye(LENGTH, k=-1), UNIFORM]))[:, :, :].float(), marks(of_pair=True)
    )
    assert found["itself"] == pytest.approx([1, 0, 1 / LENGTH])
    assert found["before"] == pytest.approx([0, 11 / LENGTH, 11 / LENGTH**2])
    assert found["after"] == pytest.approx([0, 0, 11 / LENGTH**2])
    assert found["first"] == pytest.approx([1 / LENGTH] * 3)
    assert found["separators"][2] == pytest.approx(2 / LENGTH)
    assert found["entropy"] == pytest.approx([0, 0, 1], abs=1e-5)
    assert found["segment"][2] == pytest.approx(0, abs=1e-6), "as by chance"
    assert found["segment"][0] == pytest.approx(0.5)


@pytest.mark.parametrize("length", [3, 32, 100])
def test_a_map_over_a_grid_keeps_its_rows_sums(length):
    grid = resampled(torch.rand(2, length, length).softmax(dim=-1))
    assert grid.sum(dim=-1).numpy() == pytest.approx(1, abs=1e-5)
    if length == 32:
        one = torch.rand(1, 32, 32)
        assert torch.allclose(resampled(one), one, atol=1e-5)


def test_tokens_are_told_apart():
    tokenizer = tiny_tokenizer()
    (row,) = [{"input_ids": tokenizer("a data", "code is")["input_ids"]}]
    found = marks_of(row, tokenizer, is_pair=True)
    assert found.first.tolist() == [True] + 6 * [False]
    assert np.flatnonzero(found.separators).tolist() == [3, 6]
    assert found.second.tolist() == 4 * [False] + 3 * [True]
    assert marks_of(row, tokenizer, is_pair=False).second is None


def zeroed_by_hand(encoder, layer, head):
    copy = encoder.copy()
    names, size = copy.anatomy.layer, copy.shape.hidden_size // copy.shape.num_heads
    mix = copy.model.get_submodule(f"{copy.prefix}{copy.anatomy.path_of_layer(layer)}.{names.mix}")
    chosen = slice(None) if head is None else slice(head * size, (head + 1) * size)
    with torch.no_grad():
        mix.weight[:, chosen] = 0
    return copy


@pytest.mark.parametrize("family", ["bert", "modernbert", "deberta-v2", "distilbert"])
@pytest.mark.parametrize("head", [None, 2])
def test_a_zeroed_head_is_one_whose_weights_behind_it_are_0(family, head):
    encoder = tiny_encoder(family)
    rows = encoder.tokenize(sentences(3))
    before = outputs(encoder, rows)
    disabled = torch.zeros(4, 4, dtype=torch.bool)
    disabled[1, slice(None) if head is None else head] = True
    with disabling(Heads.of(encoder), disabled, "zeroed"):
        mine = outputs(encoder, rows)
    assert mine == pytest.approx(outputs(zeroed_by_hand(encoder, 1, head), rows), abs=1e-5)
    assert not np.allclose(mine, before, atol=1e-4)
    assert outputs(encoder, rows).tolist() == before.tolist(), "nothing is left behind"


def test_of_layers_that_share_weights_only_the_one_that_is_meant_is_disabled():
    encoder = tiny_encoder("albert")
    rows = encoder.tokenize(sentences(3))
    heads, seen = Heads.of(encoder), []
    assert [site.use for site in heads.sites] == [0, 1, 0, 1]
    for layer in range(4):
        disabled = torch.zeros(4, 4, dtype=torch.bool)
        disabled[layer] = True
        with disabling(heads, disabled, "zeroed"):
            seen.append(outputs(encoder, rows))
    assert all(not np.allclose(a, b, atol=1e-5) for i, a in enumerate(seen) for b in seen[:i])
    both = torch.tensor([[True] * 4] * 2 + [[False] * 4] * 2)
    by_hand = outputs(zeroed_by_hand(encoder, 0, None), rows)
    with disabling(heads, both, "zeroed"):
        assert outputs(encoder, rows) == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize("family", ["bert", "modernbert", "eurobert"])
def test_uniform_attention_is_the_mean_of_the_values(family):
    """Queries of 0 make every score 0, so that attention is 1 / L: of a whole layer that is the same by weights."""
    more = {"local_attention": 128} if family == "modernbert" else {}
    more |= {"num_key_value_heads": 2} if family == "eurobert" else {}
    encoder = tiny_encoder(family, **more)
    rows = encoder.tokenize(sentences(4))
    by_hand = encoder.copy()
    names = by_hand.anatomy.layer
    query = by_hand.model.get_submodule(f"{by_hand.prefix}{by_hand.anatomy.path_of_layer(1)}.{names.query}")
    with torch.no_grad():
        query.weight[:32] = 0
        if query.bias is not None:
            query.bias[:32] = 0
    chosen = torch.zeros(4, 4, dtype=torch.bool)
    chosen[1] = True
    before = outputs(encoder, rows)
    with disabling(Heads.of(encoder), chosen, "uniform"):
        mine = outputs(encoder, rows)
    assert mine == pytest.approx(outputs(by_hand, rows), abs=1e-5)
    assert not np.allclose(mine, before, atol=1e-4)


def test_holm_is_as_its_definition_has_it():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_answers_are_compared_one_by_one():
    before, after = (share_of("accuracy", [i >= lost for i in range(20)]) for lost in (2, 10))
    change = compare(before, after)
    assert (change.lost, change.won) == (8, 0)
    assert change.change == pytest.approx(-0.4)
    assert change.p == pytest.approx(2 / 2**8)
    low, high = change.interval
    assert low < -0.4 < high < 0
    assert difference_interval(0, 0, 100) == pytest.approx((-0.0192, 0.0192), abs=1e-4)
    assert change.effect(0.001).finding == "worse"
    assert change.effect(0.2).finding == "no difference shown"


def test_figures_that_are_no_shares_are_drawn_again_for_both():
    values = np.random.default_rng(0).uniform(size=200)
    before, same, worse = (
        Score("f1", "fraction", float(v.mean()), "higher", spread=quotient(v))
        for v in (values, values, values - 0.1 * np.arange(200) / 100)
    )
    assert compare(before, same).p == 1
    change = compare(before, worse)
    assert change.p < 1e-6
    assert change.interval[1] < 0
    likeness = Score("agreement", "fraction", 0.9, "higher", is_likeness=True)
    assert compare(likeness, likeness).effect(None).finding == "not tested"


@pytest.mark.parametrize("family", KNOWN)
def test_each_family_whose_heads_are_known_gives_its_attention(family):
    encoder = tiny_encoder(family, "embedding") if serves(family, "embedding") else tiny_encoder(family)
    rows, before = encoder.tokenize(sentences(3)), encoder.model.config._attn_implementation
    with giving_attention(encoder):
        maps = attention_of(encoder, rows)
    assert encoder.model.config._attn_implementation == before
    assert [tuple(one.shape[:2]) for one in maps] == [(3, 4)] * 4
    longest = max(len(row["input_ids"]) for row in rows)
    full = next(i for i, row in enumerate(rows) if len(row["input_ids"]) == longest)
    for one in maps:
        assert one[full].sum(dim=-1).numpy() == pytest.approx(1, abs=1e-4)
    Heads.of(encoder)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(KNOWN)))
def test_families_of_other_layers_are_refused(family):
    with pytest.raises(UserError, match="cannot be told apart"):
        Heads.of(tiny_encoder(family))


def test_importance_is_the_mean_squared_gradient_of_the_loss():
    encoder, texts = tiny_encoder(), tiny_texts("classification")
    heads = Heads.of(encoder)
    found, source = importance(encoder, heads, texts.train, None, 0, "d", Silent())
    assert "labels" in source
    total = torch.zeros(4, 4)
    names = list(encoder.labels)
    for text, label in zip(texts.train.texts, texts.train.labels, strict=True):
        factors = torch.ones(4, 4, requires_grad=True)
        given = {name: torch.tensor([ids]) for name, ids in encoder.tokenize([text])[0].items()}
        with heads.factors(factors):
            logits = encoder.model(**given).logits
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([names.index(label)]))
        total += torch.autograd.grad(loss, factors)[0] ** 2
    assert found == pytest.approx((total / len(texts.train)).numpy(), rel=1e-3)
    assert all(one.requires_grad for one in encoder.model.parameters())


def test_orders_and_steps():
    roles = ["heterogeneous", "vertical", "mixed", "vertical"]
    orders = orders_of(np.array([[3.0, 1.0], [2.0, 0.0]]), roles, 0)
    assert orders["fisher"] == [[3, 1, 2, 0]]
    assert set(orders["class"][0][:2]) == {1, 3}
    assert orders["class"][0][-1] == 0
    assert orders["class reversed"][0] == orders["class"][0][::-1]
    assert len(orders["random"]) == 10
    assert steps_of(4) == [0, 1, 2, 3, 4]
    assert steps_of(144)[1:3] == [14, 29]


def test_a_base_is_compared_with():
    encoder = tiny_encoder()
    rows = encoder.tokenize(sentences(4))
    same = see_heads(encoder, rows, Silent(), are_pairs=False, num_examples=1, base=encoder.copy())
    assert same.cosine_NA == pytest.approx(1)
    other = see_heads(encoder, rows, Silent(), are_pairs=False, num_examples=1, base=tiny_encoder(seed=3))
    assert other.cosine_NA.max() < 0.999
    with pytest.raises(UserError, match="layers of"):
        inspect_heads(encoder, tiny_texts("classification"), Silent(), base=tiny_encoder(num_hidden_layers=2))


@pytest.fixture(scope="module")
def report():
    return inspect_heads(tiny_encoder(num_hidden_layers=2), tiny_texts("classification"), Silent())


def test_the_document_is_read_again_as_it_was_written(report):
    again = AttentionReport.model_validate_json(report.to_json())
    assert again == report
    assert len(report.heads) == 8
    assert report.is_labelled
    assert [len(curve.points[1].values) for curve in report.curves] == [1, 1, 1, 10]
    ends = {curve.points[-1].values[0] for curve in report.curves}
    assert len(ends) == 1, "without any head all orders are one"


def test_without_labels_it_is_agreement():
    texts = tiny_texts("classification")
    bare = type(texts)("bare", *(type(side)(side.texts) for side in (texts.train, texts.dev)))
    encoder = tiny_encoder(num_hidden_layers=2)
    judge = Judge.of(prepare(encoder, bare, None, 0), encoder, Heads.of(encoder))
    assert (judge.is_labelled, judge.before.metric, judge.before.value) == (False, "agreement", 1.0)


def test_the_page_holds_every_head_and_stays_small(report):
    page = render(report)
    assert page.count("<details id=") == 8
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page), "all that it shows is in it"
    head = report.heads[0]
    many = report.model_copy(
        update={
            "heads": [head.model_copy(update={"layer": i // 16, "head": i % 16}) for i in range(24 * 16)],
            "layers": [report.layers[0].model_copy(update={"layer": i}) for i in range(24)],
        }
    )
    assert len(render(many).encode()) < MAX_BYTES


@pytest.mark.parametrize("family", KNOWN)
def test_layers_that_are_skipped_change_nothing(family):
    encoder = tiny_encoder(family)
    rows = encoder.tokenize(sentences(5))
    heads, first = Heads.of(encoder), FirstLayers(encoder)
    for way in ("zeroed", "uniform"):
        for layer in (2, 3):
            disabled = torch.zeros(4, 4, dtype=torch.bool)
            disabled[layer, 1] = True
            with disabling(heads, disabled, way):
                wanted = outputs(encoder, rows)
            for _ in range(2):  # kept, then given
                with first.skipped(layer), disabling(heads, disabled, way):
                    assert outputs(encoder, rows) == pytest.approx(wanted, abs=1e-6)
            assert first.number == (0 if FAMILIES[family].is_shared else layer)


def test_outputs_that_are_too_many_are_not_kept(monkeypatch):
    monkeypatch.setattr("bertshrink.meters.attention.first_layers.MAX_BYTES", 1)
    encoder = tiny_encoder()
    first = FirstLayers(encoder)
    with first.skipped(2):
        encoder.predict(encoder.tokenize(sentences(5)), 16)
    assert first.outputs is None
