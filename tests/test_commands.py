"""Commands are short recipes, and their faults point at flags."""

import pytest

from bertshrink.errors import BertshrinkError, Faults
from bertshrink.recipe.commands import flag_of, recipe_of_bench, recipe_of_command
from bertshrink.recipe.plan import prove
from tests.folders import artifact_folder, model_folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model_folder(tmp_path / "m")
    artifact_folder(tmp_path / "a")
    (tmp_path / "d.tsv").write_text("sentence\tlabel\nx\t0\n")
    return tmp_path


def stages(name, model, **settings):
    recipe = recipe_of_command(name, model, settings, {"data": "d.tsv"})
    return [(stage.technique.name, stage.technique.model_dump(exclude_unset=True)) for stage in recipe.stages]


def test_what_each_command_expands_to(here):
    assert stages("distill", "m", layers=2, epochs=None) == [("distill", {"layers": 2})]
    assert stages("export", "m", opset=17) == [("export", {"opset": 17})]
    assert stages("quantize", "m", per_channel=False) == [("export", {}), ("quantize", {"per_channel": False})]
    assert stages("quantize", "a") == [("quantize", {})], "an artifact is exported already"
    assert stages("quantize", "nowhere") == [("export", {}), ("quantize", {})], "the plan says what is wrong"


def test_a_flag_that_two_stages_have_sets_both_and_asks_for_neither(here):
    assert stages("factorize", "m", calibration=9) == [("factorize", {"calibration": 9})]
    both = stages("factorize", "m", calibration=9, share_groups=2)
    assert both == [("factorize", {"calibration": 9}), ("share", {"groups": 2, "calibration": 9})]


def test_a_later_stage_is_there_when_a_flag_of_its_own_is(here):
    assert stages("factorize", "m", rank=4) == [("factorize", {"rank": 4})]
    assert stages("factorize", "m", rank=4, epochs=1.0) == [("factorize", {"rank": 4}), ("distill", {"epochs": 1.0})]
    all_three = stages("factorize", "m", share_groups=2, share_method="mean", epochs=1.0)
    assert all_three == [("factorize", {}), ("share", {"groups": 2, "method": "mean"}), ("distill", {"epochs": 1.0})]
    with pytest.raises(BertshrinkError) as caught:
        prove(recipe_of_command("factorize", "m", {"rank": 4, "share_groups": 9}, {"data": "d.tsv"}))
    assert (caught.value.where, caught.value.what) == ("--share-groups", "`groups` is 9; the model has 4 layers")


def test_flags_are_fields_with_dashes():
    assert flag_of("learning_rate") == "--learning-rate"


def test_the_run_is_named_by_what_was_asked(here):
    def name(model="m", **settings):
        return recipe_of_command("distill", model, settings, {"data": "d.tsv"}).name

    assert name(layers=2) == name(layers=2)
    assert len({name(layers=2), name(layers=1), name("./m", layers=2)}) == 3
    assert name("a/b/ü mödel!").startswith("distill-ü-mödel-")
    assert name("/").startswith("distill-model-")


@pytest.mark.parametrize(
    ("settings", "common", "where", "what"),
    [
        ({"layers": 0}, {"data": "d.tsv"}, "--layers", "`layers` is 0; the model has 4"),
        ({"layers": 9}, {"data": "d.tsv"}, "--layers", "`layers` is 9; the model has 4"),
        ({"learning_rate": -1.0}, {"data": "d.tsv"}, "--learning-rate", "greater than 0"),
        ({"keep": ["1", "x"]}, {"data": "d.tsv"}, "--keep", "valid integer"),
        ({}, {"data": None}, "`bertshrink distill`", "needs texts"),
        ({}, {"data": "./none"}, "--data", "there is no file or folder"),
        ({}, {"data": "d.tsv", "task": "x"}, "--task", "there is no task `x`"),
        ({}, {"data": "d.tsv", "seed": -1}, "--seed", "`seed` is `-1`"),
    ],
)
def test_faults_point_at_flags(here, settings, common, where, what):
    with pytest.raises(BertshrinkError) as caught:
        prove(recipe_of_command("distill", "m", settings, common))
    assert not isinstance(caught.value, Faults)
    assert (caught.value.where, what in caught.value.what) == (where, True), caught.value


def test_a_missing_model_points_at_the_argument(here):
    with pytest.raises(BertshrinkError) as caught:
        prove(recipe_of_command("export", "./none", {}, {}))
    assert caught.value.where == "`MODEL`"


def test_a_flag_that_would_do_nothing_is_refused(here):
    with pytest.raises(BertshrinkError, match="`--opset` belongs to `export`, which is left out") as caught:
        recipe_of_command("quantize", "a", {"opset": 17}, {})
    assert caught.value.where == "--opset"


def test_bench_compares_with_the_first(here):
    recipe = recipe_of_bench(["m", "a"], {"measure": {"latency": {"batch": [1], "threads": None}}})
    assert (recipe.model, recipe.compare, recipe.stages) == ("m", ("a",), ())
    assert recipe.measure.latency.batch == (1,)


@pytest.mark.parametrize(
    ("latency", "where"), [({"batch": [0]}, "--batch"), ({"length": [-1]}, "--length"), ({"seconds": 0}, "--seconds")]
)
def test_faults_of_bench_point_at_flags(here, latency, where):
    with pytest.raises(BertshrinkError) as caught:
        recipe_of_bench(["m"], {"measure": {"latency": latency}})
    assert caught.value.where == where
