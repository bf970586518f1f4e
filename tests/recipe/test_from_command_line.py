"""Commands are short recipes, and their faults point at flags."""

import pytest

from bertshrink.data.settings import DataSettings
from bertshrink.errors import BertshrinkError, UserError, UserErrors
from bertshrink.recipe.command_table import COMMANDS, flag_of
from bertshrink.recipe.from_command_line import recipe_of_bench, recipe_of_command
from bertshrink.recipe.plan import make_plan
from bertshrink.recipe.recipe import read_recipe
from tests.support.model_folders import artifact_folder, model_folder


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
    assert stages("factorize", "m", calibration_examples=9) == [("factorize", {"calibration_examples": 9})]
    both = stages("factorize", "m", calibration_examples=9, share_groups=2)
    assert both == [("factorize", {"calibration_examples": 9}), ("share", {"groups": 2, "calibration_examples": 9})]


def test_a_later_stage_is_there_when_a_flag_of_its_own_is(here):
    assert stages("factorize", "m", rank=4) == [("factorize", {"rank": 4})]
    assert stages("factorize", "m", rank=4, epochs=1.0) == [("factorize", {"rank": 4}), ("distill", {"epochs": 1.0})]
    all_three = stages("factorize", "m", share_groups=2, share_method="mean", epochs=1.0)
    assert all_three == [("factorize", {}), ("share", {"groups": 2, "method": "mean"}), ("distill", {"epochs": 1.0})]
    with pytest.raises(BertshrinkError) as caught:
        make_plan(recipe_of_command("factorize", "m", {"rank": 4, "share_groups": 9}, {"data": "d.tsv"}))
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
        ({"layer_map": ["1", "x"]}, {"data": "d.tsv"}, "--layer-map", "valid integer"),
        ({}, {"data": None}, "`bertshrink distill`", "needs texts"),
        ({}, {"data": "./none"}, "--data", "there is no file or folder"),
        ({}, {"data": "d.tsv", "task": "x"}, "--task", "there is no task `x`"),
        ({}, {"data": "d.tsv", "seed": -1}, "--seed", "`seed` is `-1`"),
    ],
)
def test_faults_point_at_flags(here, settings, common, where, what):
    with pytest.raises(BertshrinkError) as caught:
        make_plan(recipe_of_command("distill", "m", settings, common))
    assert not isinstance(caught.value, UserErrors)
    assert (caught.value.where, what in caught.value.what) == (where, True), caught.value


def test_a_missing_model_points_at_the_argument(here):
    with pytest.raises(BertshrinkError) as caught:
        make_plan(recipe_of_command("export", "./none", {}, {}))
    assert caught.value.where == "`MODEL`"


def test_a_flag_that_would_do_nothing_is_refused(here):
    with pytest.raises(BertshrinkError, match="`--opset` is a setting of `export`, which is skipped") as caught:
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


def test_dimensions_go_into_what_is_measured(here):
    timing = {"measure": {"latency": {"batch": [1]}}}
    asked = recipe_of_bench(["m"], timing, None, ["4", "8"])
    assert (asked.measure.dimensions, asked.measure.latency.batch) == ((4, 8), (1,))
    assert recipe_of_command("export", "m", {}, {}, dimensions=[4]).measure.dimensions == (4,)
    assert recipe_of_command("export", "m", {}, {}).measure.dimensions == ()
    for wrong in (["0"], ["x"], [""]):
        with pytest.raises(BertshrinkError) as caught:
            recipe_of_bench(["m"], timing, None, wrong)
        assert caught.value.where == "--dimensions"


# What is said of texts

ABOUT = {"text": "body", "pair": "none", "label": "a,b", "max_train": 5, "split_seed": 3}


def test_what_is_said_of_texts_goes_into_the_data():
    about = {**ABOUT, "max_length": None, "columns": "body, a,b"}
    asked = recipe_of_command("distill", "m", {}, {"data": "train=a.tsv,dev=b.tsv"}, about)
    assert asked.data == DataSettings(train="a.tsv", dev="b.tsv", columns=("body", "a", "b"), **ABOUT)
    assert asked.place("data", "split_seed") == "--split-seed"
    assert recipe_of_bench(["m"], {"data": "a.tsv"}, ABOUT).data == DataSettings(path="a.tsv", **ABOUT)


@pytest.mark.parametrize("name", ABOUT)
def test_what_is_said_of_texts_that_are_not_there_is_refused(name, tmp_path):
    flag = "--" + name.replace("_", "-")
    with pytest.raises(UserError, match=f"`{flag}` applies to texts, and none are given") as caught:
        recipe_of_command("export", "m", {}, {}, {name: ABOUT[name]})
    assert caught.value.where == flag
    (tmp_path / "r.yaml").write_text("model: m\nstages: [export]\n")
    with pytest.raises(UserError, match="none are given"):
        read_recipe(tmp_path / "r.yaml", {}, {name: ABOUT[name]})


def test_what_is_said_of_texts_replaces_the_recipes(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("model: m\ndata: {path: a.tsv, text: x, max_train: 9, max_dev: 7}\nstages: [export]\n")
    own = read_recipe(path, {}, {"text": "y", "label": None}).data
    assert own == DataSettings(path="a.tsv", text="y", max_train=9, max_dev=7)
    other = read_recipe(path, {"data": "b.tsv"}, {"label": "z"}).data
    assert other == DataSettings(path="b.tsv", label="z", max_train=9, max_dev=7), "columns are the data's, limits stay"
    path.write_text("model: m\ndata: a.tsv\nstages: [export]\n")
    assert read_recipe(path, {}, {"label": "z"}).data == DataSettings(path="a.tsv", label="z")


@pytest.mark.subprocess
def test_every_command_that_takes_texts_takes_what_is_said_of_them():
    import typer

    from bertshrink.cli.app import app

    taking = {
        name: {flag for parameter in command.params for flag in parameter.opts}
        for name, command in typer.main.get_command(app).commands.items()
    }
    taking = {name: flags for name, flags in taking.items() if "--data" in flags}
    assert set(taking) == {"run", "bench", "inspect", *COMMANDS}
    for name, flags in taking.items():
        assert {"--text", "--pair", "--label", "--columns", "--max-train", "--split-seed"} <= flags, name
        assert ("--dimensions" in flags) == (name != "inspect"), "where models are evaluated"
