"""Thinner students: stock, of the sizes asked for, made of the weightiest."""

from dataclasses import replace

import pytest
import torch

from bertshrink.errors import UserError
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.encoder import Encoder
from bertshrink.model.thinner_copy import thin
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.distill import Distill
from tests.support.families import THINNED
from tests.support.tiny import sentences, tiny_encoder, tiny_texts


@pytest.mark.parametrize("family", THINNED)
def test_every_family_gets_thinner_and_stays_stock(family, tmp_path):
    encoder = tiny_encoder(family)
    wanted = replace(encoder.shape, hidden_size=24, num_heads=2, intermediate_size=20)
    if encoder.shape.embedding_size == 32:
        wanted = replace(wanted, embedding_size=24)
    made = thin(encoder, wanted)
    assert made.shape == wanted
    made.save(tmp_path)
    again = Encoder.load(tmp_path)
    rows = made.tokenize(sentences(3))
    for mine, theirs in zip(made.predict(rows), again.predict(rows), strict=True):
        assert (mine["logits"] == theirs["logits"]).all()


@pytest.mark.parametrize("family", ["electra", "albert"])
def test_embeddings_as_wide_as_the_layers_stay_so(family):
    """ELECTRA-base: a width of the embeddings alone would need a projection that the teacher does not have."""
    encoder = tiny_encoder(family, embedding_size=32)
    wanted = replace(encoder.shape, hidden_size=24, num_heads=2, embedding_size=24)
    assert thin(encoder, wanted).shape == wanted


def test_as_many_positions_as_dimensions_do_not_mislead():
    """The rows of a table are not hidden dimensions, nor are neurons, though they be as many."""
    encoder = tiny_encoder(max_position_embeddings=32, intermediate_size=32)
    heavy = torch.arange(8, 16)
    with torch.no_grad():
        encoder.model.bert.embeddings.word_embeddings.weight[:, heavy] *= 10
        encoder.model.bert.embeddings.position_embeddings.weight[20:28] = 100
        encoder.model.bert.encoder.layer[0].intermediate.dense.weight[20:28] = 100
    made = thin(encoder, replace(encoder.shape, hidden_size=8, embedding_size=8))
    assert torch.equal(made.model.classifier.weight, encoder.model.classifier.weight[:, heavy])


def test_a_width_that_would_end_the_factorization_is_refused(tmp_path):
    tiny_encoder("electra").save(tmp_path)
    with pytest.raises(UserError, match="the width of its embeddings"):
        Distill(layers=2, hidden_size=16).fit(read_facts(tmp_path))


def test_equal_sizes_change_nothing():
    encoder = tiny_encoder()
    made = thin(encoder, encoder.shape)
    for name, value in encoder.model.state_dict().items():
        assert torch.equal(made.model.state_dict()[name], value)


def test_other_heads_keep_every_weight():
    encoder = tiny_encoder()
    made = thin(encoder, replace(encoder.shape, num_heads=2))
    assert made.model.config.num_attention_heads == 2
    for name, value in encoder.model.state_dict().items():
        assert torch.equal(made.model.state_dict()[name], value)


@pytest.mark.parametrize(("own", "size"), [(1, 16), (2, 8), (4, 4)])
def test_keys_stay_with_the_queries_that_they_are_multiplied_with(own, size):
    encoder = tiny_encoder("eurobert", num_key_value_heads=own, head_dim=size)
    made = thin(encoder, replace(encoder.shape, num_heads=2, head_size=None, num_key_value_heads=None))
    (query, key), (old_query, old_key) = (
        [getattr(one.model.model.layers[0].self_attn, name).weight for name in ("q_proj", "k_proj")]
        for one in (made, encoder)
    )
    for row, other in zip(query, key, strict=True):
        at = (old_query == row).all(dim=1).nonzero().item()
        head = at // size // (4 // own)
        assert torch.equal(other, old_key[head * size + at % size])


def test_the_weightiest_neurons_stay():
    encoder = tiny_encoder()
    layer = encoder.model.bert.encoder.layer[1]
    heavy = torch.tensor([3, 40, 41, 63])
    with torch.no_grad():
        layer.intermediate.dense.weight[heavy] *= 50
    made = thin(encoder, replace(encoder.shape, intermediate_size=4))
    mine = made.model.bert.encoder.layer[1]
    assert torch.equal(mine.intermediate.dense.weight, layer.intermediate.dense.weight[heavy])
    assert torch.equal(mine.intermediate.dense.bias, layer.intermediate.dense.bias[heavy])
    assert torch.equal(mine.output.dense.weight, layer.output.dense.weight[:, heavy])


def test_the_weightiest_dimensions_stay_everywhere():
    encoder = tiny_encoder()
    heavy = torch.tensor([0, 5, 6, 11, 17, 20, 30, 31])
    with torch.no_grad():
        encoder.model.bert.embeddings.word_embeddings.weight[:, heavy] *= 50
    made = thin(encoder, replace(encoder.shape, hidden_size=8, embedding_size=8))
    words = encoder.model.bert.embeddings.word_embeddings.weight
    assert torch.equal(made.model.bert.embeddings.word_embeddings.weight, words[:, heavy])
    assert torch.equal(made.model.classifier.weight, encoder.model.classifier.weight[:, heavy])


@pytest.mark.parametrize(
    ("settings", "task", "what"),
    [
        ({"hidden_size": 48}, "classification", "`hidden_size` is 48; the model has 32"),
        ({"intermediate_size": 65}, "classification", "`intermediate_size` is 65; the model has 64"),
        ({"hidden_size": 30}, "classification", "is not divisible by 4 attention heads"),
        ({"heads": 3}, "classification", "is not divisible by 3 attention heads"),
        ({"hidden_size": 16}, "embedding", "cannot produce the teacher's vectors"),
        ({"heads": 2, "attention_weight": 1}, "classification", "the student has 2 of 4 heads"),
        ({"hidden_size": 20, "relation_weight": 1, "relation_heads": 8}, "classification", "that 8 divides"),
        ({"teacher_cache": True}, "mlm", "masks change"),
        ({"teacher_cache": True, "cache_top_k": 9}, "embedding", "sentence vector are neither"),
        ({"teacher_cache": True, "cache_top_k": 9}, "sparse-embedding", "sentence vector are neither"),
        ({"teacher_cache": True, "relation_weight": 1}, "classification", "not queries"),
    ],
)
def test_what_cannot_be_is_told_before(settings, task, what, tmp_path):
    tiny_encoder("bert", task).save(tmp_path)
    with pytest.raises(UserError, match=what):
        Distill(layers=2, **settings).fit(read_facts(tmp_path, task))


def test_heads_that_positions_turn_have_an_even_width(tmp_path):
    tiny_encoder("gte").save(tmp_path)
    with pytest.raises(UserError, match="in pairs, and the student's heads have 5"):
        Distill(layers=2, hidden_size=20).fit(read_facts(tmp_path))


@pytest.mark.training
@pytest.mark.parametrize(
    "settings",
    [{}, {"hidden_weight": 0, "relation_weight": 1, "heads": 2}, {"hidden_loss": "mse", "hidden_states": "last"}],
)
def test_a_thinner_student_learns(settings, tmp_path):
    teacher = tiny_encoder()
    bench = Workbench(tiny_texts("classification", 96, 8), teacher, tmp_path)
    given = {"hidden_size": 16, "intermediate_size": 32, "layers": 2, "epochs": 6, "learning_rate": 3e-3} | settings
    made = Distill(**given)(teacher.copy(), bench)
    assert made.shape.hidden_size == 16 and made.model.config.hidden_size == 16
    losses = [entry["loss"] for entry in bench.history]
    assert losses[-1] < losses[0]
    assert not any("projection" in name for name in made.model.state_dict())


@pytest.mark.parametrize(
    ("settings", "what"),
    [({"attention_weight": 1}, "the student has 2 of 4 heads"), ({"relation_weight": 1}, "that 4 divides")],
)
def test_what_an_earlier_stage_made_thinner_is_compared_with_the_teacher(settings, what, tmp_path):
    teacher = tiny_encoder()
    thinner = thin(teacher, replace(teacher.shape, hidden_size=18, num_heads=2, embedding_size=18))
    bench = Workbench(tiny_texts("classification"), teacher, tmp_path)
    with pytest.raises(UserError, match=what):
        Distill(epochs=1, **settings)(thinner, bench)


@pytest.mark.training
def test_a_projection_starts_the_same_whatever_was_drawn_before(tmp_path):
    teacher, made = tiny_encoder(), []
    for number in range(2):
        torch.manual_seed(number)
        bench = Workbench(tiny_texts("classification"), teacher, tmp_path / str(number))
        made.append(Distill(layers=2, hidden_size=16, epochs=3, batch_size=8)(teacher.copy(), bench).model)
    for name, value in made[0].state_dict().items():
        assert torch.equal(value, made[1].state_dict()[name]), name
