"""Pruning: what goes, what is refitted, and that a file without the zeros gives the same numbers."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from bertshrink.data.texts import Split, TextDataset
from bertshrink.errors import CheckFailed, UserError
from bertshrink.model.sizes.parameter_count import facts_of
from bertshrink.model.sizes.size_estimate import of_encoder
from bertshrink.model.thinner_copy import thin
from bertshrink.model.units import Units, layers_of, ones, present, remove, scaled
from bertshrink.progress import Silent
from bertshrink.techniques import TECHNIQUES
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.prune.apply import Pruning
from bertshrink.techniques.prune.choose_units import UnitCosts, choose_units
from bertshrink.techniques.prune.explain import explain
from bertshrink.techniques.prune.importance import importance
from bertshrink.techniques.prune.refit import NormalEquations, refit
from bertshrink.training.rows.batching import TokenizedRows
from tests.support.families import THINNED
from tests.support.pairwise import matrix
from tests.support.tiny import sentences, tiny_encoder, tiny_texts

PRUNE = TECHNIQUES["prune"]


def bench_of(task, folder, texts=None):
    folder.mkdir(exist_ok=True)
    return Workbench(texts or tiny_texts(task), None, folder, task=task)


def pruned(encoder, folder, **settings):
    bench = bench_of(encoder.task, folder)
    return PRUNE(**settings)(encoder.copy(), bench), bench


def left(encoder):
    return [(one.heads.tolist(), one.neurons.tolist()) for one in present(encoder)]


# What is chosen


def test_the_best_for_their_cost_stay():
    scores = [Units(torch.tensor([8.0, 1.0]), torch.tensor([1.0, 3.0, 0.1]))]
    (keep,) = choose_units(scores, UnitCosts(head=4, neuron=1), 6 / 11)
    assert (keep.heads.tolist(), keep.neurons.tolist()) == ([True, False], [True, True, False])


def test_the_choice_is_the_best_of_all_where_costs_are_alike():
    generator = torch.Generator().manual_seed(1)
    scores = [Units(torch.rand(2, generator=generator), torch.rand(4, generator=generator)) for _ in range(2)]
    keep = choose_units(scores, UnitCosts(head=1, neuron=1), 0.5)
    flat = torch.cat([torch.cat([one.heads, one.neurons]) for one in scores])
    best = max(float(flat[list(picked)].sum()) for picked in _subsets(12, 6))
    chosen = torch.cat([torch.cat([one.heads, one.neurons]) for one in keep])
    assert float(flat[chosen].sum()) == pytest.approx(best)


def _subsets(number, size):
    return [[i for i, bit in enumerate(bits) if bit] for bits in product((0, 1), repeat=number) if sum(bits) == size]


def test_what_does_not_fit_is_passed_over():
    scores = [Units(torch.tensor([100.0]), torch.tensor([1.0, 2.0]))]
    (keep,) = choose_units(scores, UnitCosts(head=10, neuron=1), 0.2)
    assert (keep.heads.tolist(), keep.neurons.tolist()) == ([False], [True, True])


def test_numbers_that_are_none_choose_nothing():
    with pytest.raises(CheckFailed, match="not finite"):
        choose_units([Units(torch.tensor([float("nan")]), torch.ones(2))], UnitCosts(1, 1), 0.5)


@pytest.mark.parametrize("family", ["bert", "eurobert", "modernbert"])
def test_costs_are_the_parameters_of_dense_layers(family):
    encoder = tiny_encoder(family, "embedding")
    costs, names = UnitCosts.of(encoder.shape), encoder.anatomy.layer
    everything = [one.map(torch.Tensor.bool) for one in ones(encoder)]
    dense = sum(
        layer.get_submodule(path).weight.numel()
        for layer in layers_of(encoder)
        for path, roles in names.modules().items()
        if "norm" not in roles[0]
    )
    assert costs.of_units(everything) == dense


# Importance


def test_fisher_is_the_mean_of_squared_gradients_of_each_text():
    encoder = tiny_encoder("bert", "classification")
    rows = encoder.tokenize(sentences(5))
    labels = [0, 1, 1, 0, 1]
    found = importance(encoder, TokenizedRows(rows, labels), "fisher", labels=True, seed=0, progress=Silent())
    total = torch.zeros_like(found[1].heads)
    for row, label in zip(rows, labels, strict=True):
        factors = ones(encoder)
        factors[1].heads.requires_grad_()
        with scaled(encoder, factors):
            out = encoder.model(**{name: torch.tensor([values]) for name, values in row.items()})
        loss = torch.nn.functional.cross_entropy(out.logits, torch.tensor([label]))
        total += torch.autograd.grad(loss, factors[1].heads)[0] ** 2
    assert torch.allclose(found[1].heads, total / 5, rtol=1e-3)


def test_magnitude_is_the_mean_square_of_what_a_unit_adds():
    encoder = tiny_encoder("bert", "embedding")
    rows = encoder.tokenize(sentences(3))
    found = importance(encoder, TokenizedRows(rows, [None] * 3), "magnitude", labels=False, seed=0, progress=Silent())
    dense, seen = layers_of(encoder)[2].output.dense, []
    handle = dense.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    for row in rows:
        with torch.no_grad():
            encoder.model(**{name: torch.tensor([values]) for name, values in row.items()})
    handle.remove()
    added = sum((states[0, :, 5, None] * dense.weight[:, 5]).square().sum() for states in seen)
    assert torch.allclose(found[2].neurons[5], added / 3, rtol=1e-3)


def test_a_head_that_is_not_read_has_no_importance():
    encoder = tiny_encoder("bert", "classification").copy()
    keep = [one.map(torch.Tensor.bool) for one in ones(encoder)]
    keep[0].heads[1] = False
    remove(encoder, keep)
    rows = TokenizedRows(encoder.tokenize(sentences(4)), [None] * 4)
    for method in ("fisher", "magnitude"):
        found = importance(encoder, rows, method, labels=False, seed=0, progress=Silent())
        assert found[0].heads[1] == 0
        assert (found[0].heads > 0).sum() == 3


# The refit


def test_the_refit_is_plain_least_squares():
    generator = torch.Generator().manual_seed(0)
    inputs, missing = torch.randn(50, 4, generator=generator), torch.randn(50, 3, generator=generator)
    found = NormalEquations(4, 3)
    found.add(inputs[:20], missing[:20])
    found.add(inputs[20:], missing[20:])
    weight, bias = found.solve(0.1)
    strength = (0.1 * inputs.double().square().sum(dim=0).mean()).sqrt()
    above = torch.cat([inputs.double(), torch.ones(50, 1, dtype=torch.float64)], dim=1)
    below = torch.cat([torch.eye(4, dtype=torch.float64) * strength, torch.zeros(4, 1, dtype=torch.float64)], dim=1)
    right = torch.cat([missing.double(), torch.zeros(4, 3, dtype=torch.float64)])
    wanted = torch.linalg.lstsq(torch.cat([above, below]), right).solution
    assert torch.allclose(weight.T, wanted[:4], atol=1e-5)
    assert torch.allclose(bias, wanted[4], atol=1e-5)


def test_inputs_that_are_always_zero_change_nothing():
    found = NormalEquations(2, 1)
    found.add(torch.zeros(5, 2), torch.ones(5, 1))
    weight, bias = found.solve(0.01)
    assert not weight.any()
    assert torch.allclose(bias, torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("family", ["bert", "albert", "modernbert", "deberta-v2"])
def test_a_refitted_model_is_nearer_to_the_given_one(family):
    encoder = tiny_encoder(family, "embedding")
    rows = encoder.tokenize(sentences(40))
    generator = torch.Generator().manual_seed(0)
    keep = [one.map(lambda values: torch.rand(values.shape, generator=generator) < 0.6) for one in ones(encoder)]
    zeroed, fitted = encoder.copy(), encoder.copy()
    for one in (zeroed, fitted):
        remove(one, keep)
    refit(encoder, fitted, keep, rows, 0.01, Silent())
    far, near = (distance(encoder, one, rows) for one in (zeroed, fitted))
    assert near < 0.8 * far
    assert left(fitted) == left(zeroed), "zeros stay zeros"
    assert not any("forward" in layer.__dict__ for one in (encoder, fitted) for layer in layers_of(one))


def distance(one, other, rows):
    pairs = zip(one.predict(rows), other.predict(rows), strict=True)
    return float(np.mean([np.linalg.norm(a["sentence_embedding"] - b["sentence_embedding"]) for a, b in pairs]))


def test_nothing_pruned_is_nothing_changed(tmp_path):
    encoder = tiny_encoder("bert", "classification")
    made, _ = pruned(encoder, tmp_path, keep="100%")
    assert all(
        torch.equal(mine, theirs)
        for mine, theirs in zip(made.model.state_dict().values(), encoder.model.state_dict().values(), strict=True)
    )


# The technique


@pytest.mark.slow
@matrix(("family", "attention"), THINNED, ("standard", "fused"), strength=1)
def test_a_file_leaves_the_zeros_out_and_gives_the_same_numbers(family, attention, tmp_path):
    encoder = tiny_encoder(family, "embedding").copy()
    if attention == "fused" and not encoder.anatomy.is_fused:
        attention = "standard"
    generator = torch.Generator().manual_seed(0)
    keep = [one.map(lambda values: torch.rand(values.shape, generator=generator) < 0.5) for one in ones(encoder)]
    keep[0].heads[:] = torch.arange(len(keep[0].heads)) == 1
    keep[-1].neurons[:] = False
    if len(keep) > 1:
        keep[1].heads[:] = False
    remove(encoder, keep)
    plain = TECHNIQUES["export"](attention=attention)(
        tiny_encoder(family, "embedding"), bench_of("embedding", tmp_path / "a")
    )
    bench = bench_of("embedding", tmp_path / "b")
    made = TECHNIQUES["export"](attention=attention)(encoder, bench)  # which proves the numbers
    assert made.num_bytes < 0.9 * plain.num_bytes
    assert made.card.details["num_weight_matmuls"] < plain.card.details["num_weight_matmuls"]
    said = next(note for note in bench.notes if "left out" in note)
    assert f"{', '.join(str(int(one.heads.sum())) for one in keep)} of" in said
    assert left(encoder) == [(one.heads.tolist(), one.neurons.tolist()) for one in keep], "the encoder was left alone"


@pytest.mark.parametrize("task", ["classification", "embedding"])
def test_the_same_again_is_the_same(task, tmp_path):
    encoder = tiny_encoder("bert", task)
    first, bench = pruned(encoder, tmp_path, keep="50%")
    second, _ = pruned(encoder, tmp_path, keep="50%")
    for mine, theirs in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    share = UnitCosts.of(encoder.shape).of_units(present(first)) / UnitCosts.of(encoder.shape).of_units(
        present(encoder)
    )
    assert 0.48 < share <= 0.5
    assert any("refitted" in note for note in bench.notes)


@pytest.mark.parametrize("family", ["bert", "albert", "modernbert"])
def test_one_width_for_all_layers_makes_the_checkpoint_smaller(family, tmp_path):
    encoder = tiny_encoder(family, "classification")
    technique = PRUNE(keep="50%", uniform=True)
    made, bench = pruned(encoder, tmp_path, keep="50%", uniform=True)
    assert facts_of(made).shape == technique.fit(facts_of(encoder)).shape
    assert made.shape.intermediate_size == encoder.shape.intermediate_size // 2
    loaded = type(made.model)(made.model.config)
    assert not any(loaded.load_state_dict(made.model.state_dict()))
    zeroed, keep = Pruning.of(encoder, PRUNE(keep="50%", uniform=True), bench).at(0.5)
    assert all(int(one.neurons.sum()) == made.shape.intermediate_size for one in keep)
    costs = UnitCosts.of(encoder.shape)
    everything = costs.of_units([one.map(torch.Tensor.bool) for one in ones(encoder)])
    assert 0.4 * everything < costs.of_units(keep) <= 0.5 * everything
    for row, other in zip(
        made.predict(made.tokenize(sentences(3))), zeroed.predict(made.tokenize(sentences(3))), strict=True
    ):
        assert np.array_equal(row["logits"], other["logits"])
    file = TECHNIQUES["export"]()(made, bench_of("classification", tmp_path / "b"))
    told = TECHNIQUES["export"]().sizes(technique.sizes(of_encoder(facts_of(encoder))))
    assert told.num_bytes == pytest.approx(file.num_bytes, rel=0.08)


def test_a_narrow_layer_says_what_zeros_say():
    encoder = tiny_encoder("bert", "embedding").copy()
    keep = [one.map(torch.Tensor.bool) for one in ones(encoder)]
    for number, one in enumerate(keep):
        one.neurons[number::2] = False
    remove(encoder, keep)
    wanted = replace(encoder.shape, intermediate_size=int(keep[0].neurons.sum()) + 2)
    narrow = thin(
        encoder,
        wanted,
        [torch.argsort(one.neurons.int(), descending=True, stable=True)[: wanted.intermediate_size] for one in keep],
    )
    assert distance(encoder, narrow, encoder.tokenize(sentences(3))) < 1e-5


def test_what_is_gone_stays_gone(tmp_path):
    encoder = tiny_encoder("bert", "classification")
    first, _ = pruned(encoder, tmp_path, keep="50%", refit=False)
    second, _ = pruned(first, tmp_path, keep="30%", refit=False)
    for one, other in zip(present(first), present(second), strict=True):
        assert not (other.heads & ~one.heads).any()
        assert not (other.neurons & ~one.neurons).any()
    again, _ = pruned(first, tmp_path, keep="80%", refit=False)
    assert left(again) == left(first)


def test_training_that_follows_keeps_the_zeros(tmp_path):
    encoder = tiny_encoder("bert", "classification")
    made, _ = pruned(encoder, tmp_path / "a", keep="40%")
    before = left(made)
    bench = bench_of("classification", tmp_path / "b")
    bench.teacher = encoder
    taught = TECHNIQUES["distill"](epochs=4, relation_weight=1.0, learning_rate=1e-3)(made.copy(), bench)
    assert not torch.equal(layers_of(taught)[0].output.dense.weight, layers_of(made)[0].output.dense.weight)
    assert left(taught) == before


def test_the_size_of_the_exported_file_is_told_before(tmp_path):
    encoder = tiny_encoder("bert", "classification")
    technique = PRUNE(keep="50%")
    told = TECHNIQUES["export"]().sizes(technique.sizes(of_encoder(facts_of(encoder))))
    made, _ = pruned(encoder, tmp_path / "a", keep="50%")
    file = TECHNIQUES["export"]()(made, bench_of("classification", tmp_path / "b"))
    # Names are a quarter of so small a file, and those of a feed-forward that is gone as a whole are not told of.
    assert told.num_bytes == pytest.approx(file.num_bytes, rel=0.08)


def test_few_texts_for_many_neurons_are_told(tmp_path):
    encoder = tiny_encoder("bert", "classification")
    texts = tiny_texts("classification")
    few = TextDataset("few", replace(texts.train.take([0, 1])), texts.dev)
    bench = bench_of("classification", tmp_path, few)
    PRUNE(keep="90%")(encoder.copy(), bench)
    assert any("few calibration texts" in note for note in bench.notes)


def test_other_shares_are_explained(tmp_path):
    encoder = tiny_encoder("bert", "classification")
    bench = bench_of("classification", tmp_path)
    bench.choose = lambda model: float(sum(int(one.heads.sum()) for one in present(model)))
    rows = explain(encoder, PRUNE(keep="55%"), bench)
    assert [row["keep"] for row in rows] == ["90%", "80%", "70%", "60%", "55%", "50%", "40%", "30%", "20%"]
    assert all(row["quality"] == row["heads"] for row in rows)
    parameters = [row["parameters"] for row in rows]
    assert parameters == sorted(parameters, reverse=True)
    assert rows[0]["bytes"] == 4 * parameters[0]


# What is refused


@pytest.mark.parametrize("keep", ["0%", "101%", "0", "-5%", "much", "1.5"])
def test_a_share_that_is_none_is_refused(keep):
    with pytest.raises(ValidationError, match="keep"):
        PRUNE(keep=keep)


@pytest.mark.parametrize(
    "settings",
    [
        {"refit": False, "ridge": 0.1},
        {"refit": False, "calibration_examples": 9},
        {"method": "magnitude", "labels": True},
        {"method": "random", "importance_examples": 9},
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings):
    with pytest.raises(ValidationError, match="would do nothing"):
        PRUNE(**settings)


@pytest.mark.parametrize("family", ["mobilebert", "squeezebert", "convbert"])
def test_layers_of_another_kind_are_refused(family):
    with pytest.raises(UserError, match="heads and one feed-forward"):
        PRUNE().fit(facts_of(tiny_encoder(family, "classification")))


def test_labels_of_a_task_without_them_are_refused():
    with pytest.raises(UserError, match="has none"):
        PRUNE(labels=True).fit(facts_of(tiny_encoder("bert", "embedding")))


def test_without_texts_nothing_is_chosen(tmp_path):
    bench = bench_of("classification", tmp_path)
    bench.texts = None
    with pytest.raises(UserError, match="needs texts"):
        Pruning.of(tiny_encoder("bert", "classification"), PRUNE(), bench)


def test_a_model_whose_answers_are_not_numbers_is_refused(tmp_path):
    encoder = tiny_encoder("bert", "classification").copy()
    with torch.no_grad():
        layers_of(encoder)[0].output.dense.bias[:] = float("inf")
    bench = bench_of("classification", tmp_path)
    with pytest.raises((CheckFailed, RuntimeError), match=r"finite|inf|nan"):
        PRUNE(method="magnitude")(encoder, bench)


def test_labels_can_be_read(tmp_path):
    texts = tiny_texts("classification")
    assert isinstance(texts.train, Split)
    made, bench = pruned(tiny_encoder("bert", "classification"), tmp_path, keep="50%", labels=True)
    assert any("on their labels" in note for note in bench.notes)
    assert left(made) != left(tiny_encoder("bert", "classification"))
