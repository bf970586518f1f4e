"""Recipes: every fault at its own line and column, all of them at once, with what was probably meant."""

from pathlib import Path

import pytest

from bertshrink.errors import BertshrinkError, UserError, UserErrors
from bertshrink.recipe.json_schema import schema
from bertshrink.recipe.recipe import read_recipe
from bertshrink.techniques import TECHNIQUES


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def go(text, **overrides):
        (tmp_path / "r.yaml").write_text(text)
        return read_recipe(type(tmp_path)("r.yaml"), overrides)

    return go


def faults_of(call, *arguments, **more):
    with pytest.raises(BertshrinkError) as caught:
        call(*arguments, **more)
    error = caught.value
    return list(error.faults) if isinstance(error, UserErrors) else [error]


def test_a_whole_recipe(read):
    recipe = read(
        "name: edge\nmodel: m\ndata: {path: d, text: t, max_length: 32}\ntask: mlm\nseed: 7\ncompare: [a, b]\n"
        "stages:\n  - distill: {layers: 3, layer_map: [1, 2, 4], epochs: 2}\n  - export\n  - quantize:\n"
        "measure:\n  quality: false\n  latency: {batch: [1], length: [8, 16], rounds: 3}\n"
    )
    assert (recipe.name, recipe.model, recipe.task, recipe.seed) == ("edge", "m", "mlm", 7)
    assert (recipe.data.path, recipe.data.text, recipe.data.max_length) == ("d", "t", 32)
    assert [stage.technique.name for stage in recipe.stages] == ["distill", "export", "quantize"]
    assert recipe.stages[0].technique.layer_map == (1, 2, 4)
    assert recipe.compare == ("a", "b")
    assert not recipe.measure.quality
    assert recipe.measure.latency.batch == (1,)
    assert recipe.place("stages", 0, "distill", "epochs") == "r.yaml:8:48"
    assert recipe.place("stages", 0, "distill", "not there") == "r.yaml:8:5"


def test_what_is_left_out_has_its_default(read):
    recipe = read("model: m\nname:\ndata:\nstages:\nmeasure:\nseed:\n")
    assert (recipe.name, recipe.data, recipe.stages, recipe.seed, recipe.task) == ("r", None, (), 0, "auto")
    assert recipe.measure.quality
    assert read("model: m\nmeasure: {latency: false}").measure.latency is False


STAGE = "model: m\nstages:\n  - distill: "


@pytest.mark.parametrize(
    ("text", "where", "what", "hint"),
    [
        ("model: m\nmodle: n", "r.yaml:2:1", "the recipe has no setting `modle`", "did you mean `model`?"),
        ("model: [m]", "r.yaml:1:1", "`model` is `['m']`: input should be a valid string", "a folder or a hub name"),
        ("model: m\nseed: -1", "r.yaml:2:1", "`seed` is `-1`", "random seed"),
        ("model: m\nseed: x", "r.yaml:2:1", "`seed` is `x`", "random seed"),
        ("model: m\nname: ../up", "r.yaml:2:1", "`name` is `../up`", "name of the run folder"),
        ("model: m\nstages: distill", "r.yaml:2:1", "`stages` is `distill`: input should be a valid list", "order"),
        ("model: m\nstages: {distill: {}}", "r.yaml:2:1", "`stages`: input should be a valid list", "order"),
        ("model: m\nstages: [distil]", "r.yaml:2:10", "there is no technique `distil`", "did you mean `distill`?"),
        (
            "model: m\nstages: [zzz]",
            "r.yaml:2:10",
            "there is no technique `zzz`",
            "known: pretrain, finetune, factorize",
        ),
        ("model: m\nstages: [3]", "r.yaml:2:10", "`3` is not a stage", "write `- export`"),
        ("model: m\nstages: [{a: 1, b: 2}]", "r.yaml:2:10", "is not a stage", "write `- export`"),
        (STAGE + "{layer: 3}", "r.yaml:3:15", "`distill` has no setting `layer`", "did you mean `layers`?"),
        (STAGE + "{layers: [1]}", "r.yaml:3:15", "`layers` is `[1]`", "number of student layers"),
        (STAGE + "{layers: many}", "r.yaml:3:15", "`layers` is `many`", "number of student layers"),
        (STAGE + "{layers: true}", "r.yaml:3:15", "`layers` is `True`", "number of student layers"),
        (STAGE + "{keep: first}", "r.yaml:3:15", "`distill` has no setting `keep`", "did you mean `layer_map`?"),
        (STAGE + "{warmup_steps: 9}", "r.yaml:3:15", "no setting `warmup_steps`", "did you mean `warmup_ratio`?"),
        (STAGE + "{allow_unsharing: 7}", "r.yaml:3:15", "`allow_unsharing` is `7`", "grow"),
        (STAGE + "{temperature: 0}", "r.yaml:3:15", "greater than 0", "soft targets"),
        (STAGE + "{temperature: .inf}", "r.yaml:3:15", "finite", "soft targets"),
        (STAGE + "{temperature: .nan}", "r.yaml:3:15", "`temperature` is `nan`", "soft targets"),
        (
            STAGE + "{layer_map: some}",
            "r.yaml:3:15",
            "`layer_map` is `some`: input should be 'uniform'",
            "a list counted",
        ),
        (STAGE + "{layer_map: [1, x]}", "r.yaml:3:30", "`layer_map` is `x`", "a list counted"),
        (STAGE + "{layer_map: [2, 1]}", "r.yaml:3:5", "`layer_map` must list layers counted from 1", None),
        (STAGE + "{layer_map: [1, 2], layers: 3}", "r.yaml:3:5", "`layer_map` names 2 layers, `layers` says 3", None),
        (STAGE + "3", "r.yaml:3:5", "`distill` takes settings by name, not `3`", "settings: epochs"),
        (STAGE + "[]", "r.yaml:3:5", "`distill` takes settings by name", "settings: epochs"),
        ("model: m\ndata: 3", "r.yaml:2:1", "`data` takes settings by name, not `3`", "settings: path"),
        ("model: m\ndata: {}", "r.yaml:2:1", "`data` names no texts", "give `path` or `train`"),
        ("model: m\ndata: {dev: x}", "r.yaml:2:1", "`data` names no texts", "give `path` or `train`"),
        ("model: m\ndata: {pth: x}", "r.yaml:2:8", "`data` has no setting `pth`", "did you mean `path`?"),
        ("model: m\ndata: {path: x, max_train: 0}", "r.yaml:2:17", "greater than 0", "a fixed sample"),
        ("model: m\nmeasure: {latncy: false}", "r.yaml:2:11", "no setting `latncy`", "did you mean `latency`?"),
        ("model: m\nmeasure: {latency: true}", "r.yaml:2:11", "`latency` is `True`", "not measured"),
        ("model: m\nmeasure: {latency: {batc: [1]}}", "r.yaml:2:21", "`latency` has no setting `batc`", "`batch`?"),
        ("model: m\nmeasure: {latency: {batch: [1, 0]}}", "r.yaml:2:32", "`batch` is `0`", "batch sizes"),
        ("model: m\nmeasure: {latency: {length: []}}", "r.yaml:2:21", "`length` is `[]`", "input lengths"),
        ("model: m\nmeasure: {latency: {rounds: true}}", "r.yaml:2:21", "`rounds` is `True`", "processes per model"),
        ("model: m\nmeasure: 3", "r.yaml:2:1", "`measure` is `3`", "what is measured"),
        ("model: m\ncompare: a", "r.yaml:2:1", "`compare` is `a`: input should be a valid list", "for comparison"),
        ("model: m\ncompare: [a, 3]", "r.yaml:2:14", "`compare` is `3`", "for comparison"),
        ("model: m\nmodel: n", "r.yaml:2:1", "duplicate key `model`", "keep one of the two"),
        (STAGE + "\n      layers: 1\n      layers: 2", "r.yaml:5:7", "duplicate key `layers`", "keep one"),
        ("model: m\nstages:\n\t- export", "r.yaml:3:1", "this is not YAML", "a recipe is a YAML mapping"),
        ("model: 'm", "r.yaml:1:10", "this is not YAML", "a recipe is a YAML mapping"),
        ("", "r.yaml", "not a mapping", "a recipe is a YAML mapping"),
        ("- model", "r.yaml", "not a mapping", "a recipe is a YAML mapping"),
        ("a: \x00", "r.yaml", "this is not YAML", "a recipe is a YAML mapping"),
        ("model: !!python/object/apply:os.system [x]", "r.yaml:1:8", "the tag `!!python/object", "plain value"),
    ],
)
def test_one_fault(read, text, where, what, hint):
    (fault,) = faults_of(read, text)
    assert type(fault) is UserError
    assert (fault.where, what in fault.what) == (where, True), fault
    assert (fault.hint is None) if hint is None else (hint in (fault.hint or "")), fault


def test_all_faults_at_once(read):
    found = faults_of(
        read,
        "modle: m\nseed: x\ndata: {text: 3}\nstages:\n  - distil\n  - distill: {layer: 1, epochs: -1}\n  - 7\n"
        "measure:\n  latency:\n    batc: [1]\n    rounds: 0\n",
    )
    assert sorted(fault.where for fault in found) == [
        "r.yaml:10:5",
        "r.yaml:11:5",
        "r.yaml:1:1",
        "r.yaml:2:1",
        "r.yaml:3:8",
        "r.yaml:5:5",
        "r.yaml:6:15",
        "r.yaml:6:25",
        "r.yaml:7:5",
    ]


def test_merged_keys_are_read_and_their_faults_point_near(read):
    assert read("model: m\nstages:\n  - distill: &a {layers: 1}\n  - distill: {<<: *a, epochs: 2}").stages[
        1
    ].technique.model_dump(include={"layers", "epochs"}) == {"layers": 1, "epochs": 2.0}
    found = faults_of(read, "model: m\nstages:\n  - distill: &a {layer: 1}\n  - distill: {<<: *a}")
    assert [fault.where for fault in found] == ["r.yaml:3:18", "r.yaml:4:5"]


def test_a_recipe_that_refers_to_itself_is_refused(read):
    assert faults_of(read, "model: m\nstages: &a [*a]")
    assert faults_of(read, "model: m\ndata: &a {b: *a}")


def test_overrides_replace_and_faults_point_at_the_flag(read):
    recipe = read("model: m\ndata: {path: d, max_length: 8}", data="e", model="n")
    assert (recipe.model, recipe.data.path, recipe.data.max_length) == ("n", "e", 8)
    assert recipe.place("model") == "--model"
    assert recipe.place("data", "path") == "--data"


@pytest.mark.parametrize(
    "measure", ["", "measure:\n", "measure: {quality: true, dimensions: [9, 7, 5], latency: false}\n"]
)
def test_dimensions_from_the_command_line_replace_the_recipes(measure, read, tmp_path):
    plain = read(f"model: m\n{measure}")
    asked = read_recipe(Path("r.yaml"), None, None, ["4", "2"])
    assert asked.measure == plain.measure.model_copy(update={"dimensions": (4, 2)})
    assert asked.place("measure", "dimensions", 1) == "--dimensions"


def test_other_texts_keep_the_recipes_limits_and_nothing_of_its_columns(read):
    text = "model: m\ndata: {path: d, text: a, label: b, test: t, max_length: 8, max_train: 9, max_dev: 7}"
    limits = {"max_length": 8, "max_train": 9, "max_dev": 7}
    assert read(text, data="e").data.model_dump(exclude_unset=True) == {"path": "e"} | limits
    sides = {"train": "a.tsv", "dev": "glue/stsb"}
    assert read(text, data="train=a.tsv,dev=glue/stsb").data.model_dump(exclude_unset=True) == sides | limits
    assert read(text, data="odd=a.tsv").data.path == "odd=a.tsv", "a file's name may hold what it likes"
    assert read("model: m\ndata: train=a,dev=b").data.model_dump(exclude_unset=True) == {"train": "a", "dev": "b"}


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_recipe_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "r.yaml"
    if content is not None:
        path.write_bytes(content)
    (fault,) = faults_of(read_recipe, path)
    assert "cannot be read" in fault.what
    assert fault.where == str(path)


@pytest.mark.parametrize(("stem", "name"), [("a b", "a-b"), ("-x-", "x"), ("...", "recipe"), ("ü", "recipe")])
def test_the_files_name_names_the_run(tmp_path, stem, name):
    path = tmp_path / f"{stem}.yaml"
    path.write_text("model: m")
    assert read_recipe(path).name == name


def test_the_schema_knows_every_key_of_every_technique():
    found = schema()
    assert set(found["properties"]) == {
        "name",
        "model",
        "reference",
        "task",
        "data",
        "seed",
        "compare",
        "gates",
        "stages",
        "measure",
    }
    assert "required" not in found, "a recipe that makes its model names none"
    for name, technique in TECHNIQUES.items():
        properties = found["$defs"][name]["properties"]
        assert set(properties) == set(technique.model_fields)
        assert all("description" in entry for entry in properties.values())
    text = str(found)
    references = {part.split("'")[0] for part in text.split("'#/$defs/")[1:]}
    assert references <= set(found["$defs"])
