"""Units of layers: a factor of 0, zeros in the weights, and what a file leaves out are one and the same."""

import numpy as np
import pytest
import torch

from bertshrink.errors import CheckFailed
from bertshrink.model.units import Units, held_at_zero, layers_of, num_attention_units, ones, present, remove, scaled
from tests.support.families import THINNED
from tests.support.tiny import sentences, tiny_encoder

FAMILIES = [
    pytest.param(name, marks=() if name in ("bert", "albert", "eurobert", "modernbert") else pytest.mark.matrix)
    for name in THINNED
]


def some(encoder, seed=0):
    """About half of the units of each layer, at least one head in the first."""
    generator = torch.Generator().manual_seed(seed)
    keep = [one.map(lambda values: torch.rand(values.shape, generator=generator) < 0.5) for one in ones(encoder)]
    keep[0].heads[0] = True
    return keep


def answers(encoder):
    return [next(iter(row.values())) for row in encoder.predict(encoder.tokenize(sentences(4)))]


@pytest.mark.parametrize("family", FAMILIES)
def test_zeros_say_what_a_factor_of_zero_says(family):
    encoder = tiny_encoder(family, "embedding").copy()
    keep = some(encoder)
    before = answers(encoder)
    with scaled(encoder, [one.map(torch.Tensor.float) for one in keep]):
        turned_off = answers(encoder)
    assert np.array_equal(answers(encoder), before), "the factors are gone"
    remove(encoder, keep)
    assert not np.allclose(turned_off, before, atol=1e-3)
    assert np.allclose(answers(encoder), turned_off, atol=1e-6)
    for one, there in zip(keep, present(encoder), strict=True):
        assert torch.equal(one.heads, there.heads)
        assert torch.equal(one.neurons, there.neurons)


@pytest.mark.parametrize("family", FAMILIES)
def test_keeping_all_changes_nothing(family):
    encoder = tiny_encoder(family, "embedding").copy()
    before = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    remove(encoder, [one.map(torch.Tensor.bool) for one in ones(encoder)])
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.model.state_dict().items())


def test_a_factor_of_each_row_is_that_rows_alone():
    encoder = tiny_encoder("bert", "embedding")
    factors = ones(encoder, 2)
    factors[1].heads[1] = 0
    rows = encoder.tokenize(sentences(1)) * 2
    with scaled(encoder, factors):
        first, second = (row["sentence_embedding"] for row in encoder.predict(rows))
    assert np.allclose(first, encoder.predict(rows)[0]["sentence_embedding"], atol=1e-6)
    assert not np.allclose(first, second, atol=1e-3)


@torch.no_grad()
def test_units_that_other_tools_made_silent_are_found():
    encoder = tiny_encoder("bert", "embedding").copy()
    layer = layers_of(encoder)[0]
    size = encoder.shape.hidden_size // num_attention_units(encoder.shape)
    layer.attention.self.value.weight[:size] = 0
    layer.attention.self.value.bias[:size] = 0
    layer.intermediate.dense.weight[3] = 0
    layer.intermediate.dense.bias[3] = 0
    layer.intermediate.dense.weight[4] = 0
    layer.intermediate.dense.bias[4] = 0.5  # it says the same of everything
    (there, *_) = present(encoder)
    assert (~there.heads).nonzero().flatten().tolist() == [0]
    assert (~there.neurons).nonzero().flatten().tolist() == [3]


@torch.no_grad()
def test_of_a_gated_layer_either_side_can_be_silent():
    encoder = tiny_encoder("gte", "embedding").copy()
    layer = layers_of(encoder)[0]
    layer.mlp.up_proj.weight[1] = 0
    layer.mlp.gate_proj.weight[2] = 0
    assert (~present(encoder)[0].neurons).nonzero().flatten().tolist() == [1, 2]


@torch.no_grad()
def test_a_neuron_that_says_something_at_zero_is_there():
    encoder = tiny_encoder("bert", "embedding").copy()
    encoder.model.config.hidden_act = "sigmoid"
    layer = layers_of(encoder)[0]
    layer.intermediate.dense.weight[3] = 0
    layer.intermediate.dense.bias[3] = 0
    assert present(encoder)[0].neurons.all()


def train_a_step(encoder):
    """One step by a loss on queries and values, which alone could bring a head back."""
    attention = layers_of(encoder)[0].attention.self
    optimizer = torch.optim.AdamW(encoder.model.parameters(), lr=0.1, weight_decay=0.1)
    states = torch.randn(3, encoder.shape.hidden_size, generator=torch.Generator().manual_seed(0))
    (attention.query(states).square().sum() + (attention.value(states) - 1).square().sum()).backward()
    optimizer.step()


def test_training_leaves_what_is_gone_alone():
    encoder = tiny_encoder("bert", "embedding").copy()
    keep = some(encoder)
    remove(encoder, keep)
    weight = layers_of(encoder)[0].attention.self.value.weight
    before = weight.clone()
    with held_at_zero(encoder):
        train_a_step(encoder)
    gone = (~keep[0].heads).repeat_interleave(len(weight) // len(keep[0].heads))
    assert gone.any()
    assert not weight[gone].any()
    assert not torch.equal(weight[~gone], before[~gone])


def test_what_came_back_is_told():
    encoder = tiny_encoder("bert", "embedding").copy()
    remove(encoder, some(encoder))
    with pytest.raises(CheckFailed, match="back"), held_at_zero(encoder), torch.no_grad():
        for layer in layers_of(encoder):
            for parameter in layer.parameters():
                parameter += 0.1


def test_an_unpruned_model_is_trained_as_ever():
    encoder = tiny_encoder("bert", "embedding").copy()
    with held_at_zero(encoder):
        assert not any(parameter._backward_hooks for parameter in encoder.model.parameters())
        train_a_step(encoder)


def test_units_are_mapped():
    units = Units(torch.ones(2), torch.ones(3)).map(lambda values: values * 2)
    assert (units.heads.tolist(), units.neurons.tolist()) == ([2, 2], [2, 2, 2])
