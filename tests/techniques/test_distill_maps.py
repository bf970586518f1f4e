"""Which layers make the student."""

from dataclasses import replace

import pytest
import torch

from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.thinner_copy import thin
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.distill.apply import choose_map
from bertshrink.techniques.distill.layer_maps import MAPS, candidates
from bertshrink.techniques.distill.student import reduce_layers
from tests.support.tiny import tiny_encoder, tiny_texts


@pytest.mark.parametrize(
    ("name", "num_layers", "num_kept", "expected"),
    [
        ("uniform", 6, 3, (1, 4, 6)),
        ("uniform", 6, 4, (1, 3, 4, 6)),
        ("uniform", 12, 1, (12,)),
        ("first", 6, 4, (1, 2, 3, 4)),
        ("last", 6, 4, (3, 4, 5, 6)),
        ("every-other", 6, 4, (2, 3, 5, 6)),
    ],
)
def test_maps(name, num_layers, num_kept, expected):
    assert MAPS[name](num_layers, num_kept) == expected


@pytest.mark.parametrize("num_layers", range(1, 25))
def test_every_map_gives_so_many_different_layers_in_rising_order(num_layers):
    for num_kept in range(1, num_layers + 1):
        for rule in MAPS.values():
            found = rule(num_layers, num_kept)
            assert len(found) == num_kept and list(found) == sorted(set(found))
            assert found[0] >= 1 and found[-1] <= num_layers


def test_equal_maps_are_compared_once():
    assert candidates(2, 2) == {"uniform": (1, 2)}
    assert list(candidates(6, 3)) == ["uniform", "every-other", "first", "last"]


def layers_that_do_nothing(encoder, layers):
    """Zero what layers (from 1) add to their input, so that leaving them out changes little."""
    for number in layers:
        layer = getattr(encoder.model, "bert", encoder.model).encoder.layer[number - 1]
        for dense in (layer.attention.output.dense, layer.output.dense):
            dense.weight.data.zero_()
            dense.bias.data.zero_()


@pytest.mark.parametrize("task", ["classification", "embedding", "token-classification", "mlm"])
def test_auto_keeps_the_layers_that_do_something(task, tmp_path):
    teacher = tiny_encoder("bert", task, num_hidden_layers=6)
    layers_that_do_nothing(teacher, (4, 5, 6))
    bench = Workbench(tiny_texts(task), teacher, tmp_path)
    assert choose_map(teacher, Distill(layers=3, layer_map="auto"), bench) == (1, 2, 3)
    (note,) = bench.notes
    assert "chose `first`" in note and all(name in note for name in MAPS)


@pytest.mark.parametrize(
    ("number", "names", "groups"), [(4, {"every-other", "uniform"}, 2), (5, {"first"}, 2), (3, {"first", "last"}, 1)]
)
def test_auto_compares_only_maps_that_keep_the_sharing(number, names, groups, tmp_path):
    """Six layers of two groups, 1-3 and 4-6: stock can share 2, 3, 5, 6 and 1, 2, 3, 4, 5 as they were shared."""
    model, settings = tiny_encoder("albert", num_hidden_layers=6), Distill(layers=number, layer_map="auto")
    model.save(tmp_path)
    assert settings.fit(read_facts(tmp_path)).shape.num_groups == groups
    assert set(settings.compared(model.shape, model.anatomy)) == names
    bench = Workbench(tiny_texts("classification", 8, 4), model, tmp_path)
    assert reduce_layers(model, choose_map(model, settings, bench)).shape.num_groups == groups


def test_auto_judges_a_thinner_model_by_its_answers_alone(tmp_path):
    """Its states have another width, and a projection at random would decide."""
    teacher = tiny_encoder(num_hidden_layers=6)
    thinner = thin(teacher, replace(teacher.shape, hidden_size=16, embedding_size=16))
    notes = []
    for seed in range(2):
        torch.manual_seed(seed)
        bench = Workbench(tiny_texts("classification"), teacher, tmp_path)
        choose_map(thinner, Distill(layers=3, layer_map="auto"), bench)
        notes.append(bench.notes)
    assert notes[0] == notes[1]
