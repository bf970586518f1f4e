"""The student: which layers, which sharing, and that its weights are the teacher's."""

import math

import pytest
import torch

from bertshrink.errors import UserError
from bertshrink.model.checkpoint_info import read_facts
from bertshrink.model.families import FAMILIES, shared_group
from bertshrink.techniques.distill import Distill
from bertshrink.techniques.distill.defaults import default_epochs
from bertshrink.techniques.distill.layer_maps import every_other
from bertshrink.techniques.distill.settings import kept_groups
from bertshrink.techniques.distill.student import reduce_layers
from tests.support.tiny import sentences, tiny_encoder


@pytest.mark.parametrize(
    ("num_layers", "num_kept", "expected"),
    [
        (6, 3, (2, 4, 6)),
        (12, 6, (2, 4, 6, 8, 10, 12)),
        (12, 4, (3, 6, 9, 12)),
        (12, 5, (2, 5, 7, 10, 12)),
        (6, 6, (1, 2, 3, 4, 5, 6)),
        (6, 1, (6,)),
        (6, 4, (2, 3, 5, 6)),
    ],
)
def test_every_other_is_round_of_i_l_over_n(num_layers, num_kept, expected):
    assert every_other(num_layers, num_kept) == expected


def test_every_other_equals_its_formula_and_never_repeats():
    for num_layers in range(1, 25):
        for num_kept in range(1, num_layers + 1):
            found = every_other(num_layers, num_kept)
            assert found == tuple(math.floor(i * num_layers / num_kept + 0.5) for i in range(1, num_kept + 1))
            assert len(set(found)) == num_kept and found[-1] == num_layers and found[0] >= 1


def test_half_of_twelve_layers_is_distilberts_published_choice():
    assert [layer - 1 for layer in Distill(layers=6).chosen(12)] == [0, 2, 4, 7, 9, 11]


@pytest.mark.parametrize("settings", [{"layers": 0}, {"layers": -1}, {"layers": 5}, {"layer_map": (1, 9)}])
def test_layers_outside_the_model_are_refused(settings):
    with pytest.raises(UserError):
        Distill(**settings).chosen(4)


@pytest.mark.parametrize("keep", [(), (0, 1), (2, 1), (1, 1)])
def test_a_list_of_layers_must_rise_from_one(keep):
    with pytest.raises(ValueError, match="rising order"):
        Distill(layer_map=keep)


@pytest.mark.parametrize(("keep", "number"), [((1, 2), 2), ((1, 2, 3, 4), 4)])
def test_keep_and_layers_must_say_the_same(keep, number):
    assert Distill(layer_map=keep, layers=number).num_kept == number
    with pytest.raises(ValueError, match=f"`layer_map` names {number} layers, `layers` says 3"):
        Distill(layer_map=keep, layers=3)


def test_kept_groups_against_trying_every_number_of_groups():
    """Oracle: a stock model can share so if some number of groups gives each chosen layer its own group in order."""
    for num_layers, num_groups in ((4, 1), (4, 2), (6, 2), (6, 3), (12, 3), (5, 2)):
        teacher = [shared_group(i, num_layers, num_groups) for i in range(num_layers)]
        for bits in range(1, 2**num_layers):
            chosen = tuple(i + 1 for i in range(num_layers) if bits >> i & 1)
            wanted = [teacher[layer - 1] for layer in chosen]
            names = sorted(set(wanted))
            stock = [names[shared_group(i, len(chosen), len(names))] for i in range(len(chosen))]
            found = kept_groups(chosen, num_layers, num_groups)
            assert (found == tuple(names)) if stock == wanted else (found is None)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_layers_kept_changes_nothing(family):
    encoder = tiny_encoder(family)
    student = reduce_layers(encoder, (1, 2, 3, 4), unshare=False)
    assert student.model is not encoder.model
    rows = encoder.tokenize(sentences(4))
    for mine, theirs in zip(student.predict(rows), encoder.predict(rows), strict=True):
        assert (mine["logits"] == theirs["logits"]).all()


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "albert"])
def test_each_kept_layer_is_the_teachers_bit_for_bit(family):
    encoder = tiny_encoder(family, "mlm")
    first = 1 if encoder.anatomy.keeps_first_layer else 2
    student = reduce_layers(encoder, (first, 4))
    given, found = encoder.model.state_dict(), student.model.state_dict()
    path = encoder.anatomy.layers
    for name, tensor in found.items():
        source = name.replace(f"{path}.0.", f"{path}.A.").replace(f"{path}.1.", f"{path}.3.")
        source = source.replace(".A.", f".{first - 1}.")
        assert torch.equal(tensor, given[source]), name
    assert student.shape.num_layers == 2


def test_albert_keeps_one_copy_of_each_group():
    encoder = tiny_encoder("albert")  # 4 layers in 2 groups
    student = reduce_layers(encoder, (2, 4))
    assert (student.shape.num_layers, student.shape.num_groups) == (2, 2)
    given, found = encoder.model.state_dict(), student.model.state_dict()
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], given[name]) for name in found)


def test_albert_that_cannot_share_is_refused_or_grows():
    encoder = tiny_encoder("albert")
    assert kept_groups((1, 2, 3), 4, 2) is None or kept_groups((1, 2, 3), 4, 2) == (0, 1)
    assert kept_groups((1, 3, 4), 4, 2) is None  # stock would give the groups 0, 0, 1
    with pytest.raises(Exception, match="sharing"):
        reduce_layers(encoder, (1, 3, 4))
    student = reduce_layers(encoder, (1, 3, 4), unshare=True)
    assert (student.shape.num_layers, student.shape.num_groups) == (3, 3)
    given, found = encoder.model.state_dict(), student.model.state_dict()
    for target, source in enumerate((0, 1, 1)):
        mine = {k: v for k, v in found.items() if f"albert_layer_groups.{target}." in k}
        assert mine
        for name, tensor in mine.items():
            assert torch.equal(tensor, given[name.replace(f"groups.{target}.", f"groups.{source}.")])


def test_default_epochs_fall_with_the_size_of_the_data():
    assert [default_epochs(n, 3) for n in (10, 666, 1000, 2000, 2105, 10**6)] == [3, 3, 2, 1, 1, 1]
    assert [default_epochs(n, 10) for n in (10, 400)] == [10, 5]


def test_unshare_is_refused_where_nothing_is_shared(tmp_path):
    tiny_encoder("bert").save(tmp_path)
    with pytest.raises(UserError, match="do not share weights"):
        Distill(layers=2, allow_unsharing=True).fit(read_facts(tmp_path))
    tiny_encoder("albert").save(tmp_path / "albert")
    assert Distill(layer_map=(1, 3, 4), allow_unsharing=True).fit(read_facts(tmp_path / "albert")).shape.num_groups == 3
