"""Plans: what does not fit is found before a weight is loaded."""

import json
from pathlib import Path

import pytest

from bertshrink.errors import BertshrinkError, MissingDependency, UnsafeModel, UserError, UserErrors
from bertshrink.recipe.plan import make_plan
from bertshrink.recipe.recipe import read_recipe
from bertshrink.sources import resolve
from tests.support.model_folders import artifact_folder, model_folder


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Prove a recipe in a folder with a model `m`, an artifact `a` and data `d.tsv`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve, "hub_is_reachable", lambda: False)
    model_folder(tmp_path / "m")
    artifact_folder(tmp_path / "a")
    (tmp_path / "d.tsv").write_text("sentence\tlabel\nx\t0\n")
    (tmp_path / "e").mkdir()

    def go(text):
        (tmp_path / "r.yaml").write_text(text)
        return make_plan(read_recipe(Path("r.yaml")))

    return go


def faults_of(call, text):
    with pytest.raises(BertshrinkError) as caught:
        call(text)
    error = caught.value
    return list(error.faults) if isinstance(error, UserErrors) else [error]


def test_a_plan_that_fits(plan):
    found = plan("model: ./m\ndata: d.tsv\nstages: [{distill: {layers: 2}}, export, quantize]\ncompare: [./a]")
    assert (found.model.kind, found.task, found.about.labels) == ("encoder", "classification", ("negative", "positive"))
    assert [model.kind for model in found.compared] == ["artifact"]
    assert [stage.name for stage in found.stages] == ["01-distill", "02-export", "03-quantize"]
    assert found.stages[1].place == "r.yaml:3:34"
    assert found.recipe.with_measure(latency=False).measure.latency is False
    found = plan("model: ./a\nstages: [quantize]")
    assert (found.model.kind, found.task, found.about) == ("artifact", "classification", found.model.about)


def test_each_stage_is_proven_against_the_model_as_it_will_be_by_then(plan):
    plan("model: ./m\ndata: d.tsv\nstages: [{distill: {layers: 2}}, {distill: {layers: 2}}]")
    (fault,) = faults_of(plan, "model: ./m\ndata: d.tsv\nstages: [{distill: {layers: 2}}, {distill: {layers: 3}}]")
    assert "`layers` is 3; the model has 2" in fault.what
    assert fault.where == "r.yaml:3:45"


HEAD = "model: ./m\ndata: d.tsv\nstages: "


@pytest.mark.parametrize(
    ("text", "where", "what", "hint"),
    [
        (HEAD + "[export, distill]", "r.yaml:3:18", "`distill` takes an encoder, and gets an artifact", "move it"),
        (HEAD + "[quantize]", "r.yaml:3:10", "`quantize` takes an artifact, and gets an encoder", "put `export`"),
        ("model: ./a\nstages: [export]", "r.yaml:2:10", "`to: onnx` is made from an encoder", "`to: ort` can be made"),
        (HEAD + "[{distill: {layers: 0}}]", "r.yaml:3:21", "`layers` is 0; the model has 4", "give 1 to 4"),
        (HEAD + "[{distill: {layers: -1}}]", "r.yaml:3:21", "`layers` is -1; the model has 4", "give 1 to 4"),
        (HEAD + "[{distill: {layers: 5}}]", "r.yaml:3:21", "`layers` is 5; the model has 4", "half is `layers: 2`"),
        (HEAD + "[{distill: {layer_map: [1, 5]}}]", "r.yaml:3:21", "`layer_map` names layer 5", "layers from 1 to 4"),
        ("model: ./m\nstages: [distill]", "r.yaml:2:10", "`distill` needs texts, and the recipe names none", "--data"),
        ("model: ./none", "r.yaml:1:1", "there is no model folder `./none`", "check the path"),
        ("model: ~nobody/x", "r.yaml:1:1", "there is no model folder `~nobody/x`", "check the path"),
        ("model: " + "x" * 5000, "r.yaml:1:1", "cannot be a path", "check the path"),
        ("model: ./d.tsv", "r.yaml:1:1", "is a file, not a model folder", "config.json"),
        ("model: ./m\ndata: ./none.tsv", "r.yaml:2:1", "there is no file or folder `./none.tsv`", "check the path"),
        ("model: ./m\ndata: builtin:x", "r.yaml:2:1", "there is no `builtin:x`", "builtin:pydoc"),
        ("model: ./m\ndata: ./m/config.txt/x", "r.yaml:2:1", "there is no file or folder", "check the path"),
        ("model: ./m\ndata: r.yaml", "r.yaml:2:1", "is not a text file", "kinds: .tsv"),
        ("model: ./m\ndata: ./e", "r.yaml:2:1", "holds no train or dev file", "train.*"),
        (
            "model: ./m\ndata: {train: d.tsv, dev: e.tsv}",
            "r.yaml:2:22",
            "there is no file or folder `e.tsv`",
            "check the path",
        ),
        ("model: ./m\ntask: mlmm", "r.yaml:2:1", "there is no task `mlmm`", "did you mean `mlm`?"),
        ("model: ./a\ntask: mlm", "r.yaml:2:1", "exported for `classification`", "leave `task` out"),
        ("model: ./m\ncompare: [./a, ./none]", "r.yaml:2:16", "there is no model folder `./none`", "check the path"),
    ],
)
def test_one_fault(plan, text, where, what, hint):
    (fault,) = faults_of(plan, text)
    assert type(fault) is UserError
    assert (fault.where, what in fault.what) == (where, True), fault
    assert (fault.hint is None) if hint is None else (hint in (fault.hint or "")), fault


def test_all_faults_at_once(plan):
    found = faults_of(
        plan, "model: ./m\ntask: x\nstages:\n  - distill: {layers: 9}\n  - quantize\n  - distill\ncompare: [./no]"
    )
    assert [(fault.where, fault.what.split("`")[1]) for fault in found] == [
        ("r.yaml:2:1", "x"),
        ("r.yaml:4:5", "distill"),
        ("r.yaml:4:15", "layers"),
        ("r.yaml:5:5", "quantize"),
        ("r.yaml:6:5", "distill"),  # gets an artifact
        ("r.yaml:6:5", "distill"),  # needs texts
        ("r.yaml:7:11", "./no"),
    ]


@pytest.mark.parametrize(
    ("changes", "what", "hint"),
    [
        (
            {"family": "gpt2"},
            "`gpt2`, which bertshrink does not support",
            "bert, roberta, xlm-roberta, distilbert, albert",
        ),
        ({"family": None}, "config.json names no `model_type`", "write its `model_type`: bert, roberta"),
        ({"num_hidden_layers": None}, "`num_hidden_layers` of the model's config.json is `None`", "save the model"),
        ({"hidden_size": "32"}, "`hidden_size` of the model's config.json is `32`", "save the model"),
        ({"vocab_size": 0}, "`vocab_size` of the model's config.json is `0`", "save the model"),
        ({"head": "ForNextSentencePrediction"}, "belongs to no task that bertshrink supports", "embedding, mlm"),
        ({"id2label": {"1": "a", "2": "b"}}, "does not number its labels from 0", "id2label"),
        ({"id2label": ["a", "b"]}, "is not a mapping", "id2label"),
    ],
)
def test_a_model_that_is_not_for_this(plan, tmp_path, changes, what, hint):
    model_folder(tmp_path / "m", **changes)
    (fault,) = faults_of(plan, HEAD + "[{distill: {layers: 99}}]")
    assert type(fault) is UserError
    assert what in fault.what
    assert hint in fault.hint
    assert fault.where in (str(Path("m/config.json")), "r.yaml:1:1")


@pytest.mark.parametrize(
    ("changes", "task", "own"),
    [
        ({"id2label": {"0": "score"}}, "classification", "regression"),
        ({"problem_type": "multi_label_classification"}, "classification", "multi-label"),
        ({"problem_type": "single_label_classification"}, "regression", "classification"),
        ({}, "regression", "classification"),
    ],
)
def test_one_class_of_models_serves_three_tasks(plan, tmp_path, changes, task, own):
    model_folder(tmp_path / "m", **changes)
    assert plan("model: ./m").task == own
    (fault,) = faults_of(plan, f"model: ./m\ntask: {task}")
    assert f"that is not a model for `{task}`" in fault.what and f"`{own}`" in fault.hint


def test_a_model_folder_without_a_configuration(plan, tmp_path):
    (tmp_path / "empty").mkdir()
    (fault,) = faults_of(plan, "model: ./empty")
    assert type(fault) is UserError
    assert "is not a model folder: it has no config.json" in fault.what


def test_a_damaged_model_is_refused_as_such(plan, tmp_path):
    (tmp_path / "m/config.json").write_text("{")
    (fault,) = faults_of(plan, "model: ./m\ntask: x")
    assert type(fault) is UnsafeModel
    (tmp_path / "a/artifact.json").write_text(json.dumps({"format": "onnx"}))
    (fault,) = faults_of(plan, "model: ./a")
    assert type(fault) is UnsafeModel


@pytest.mark.slow
def test_an_artifact_does_not_lead_out_of_its_folder(plan, tmp_path):
    artifact_folder(tmp_path / "a", file="../m/config.json")
    (fault,) = faults_of(plan, "model: ./a")
    assert type(fault) is UnsafeModel


def test_models_to_compare_are_proven_too(plan, tmp_path):
    model_folder(tmp_path / "other", family="gpt2")
    (fault,) = faults_of(plan, "model: ./m\ncompare: [./other]")
    assert "`gpt2`" in fault.what
    model_folder(tmp_path / "other", head="ForMaskedLM")
    (fault,) = faults_of(plan, "model: ./m\ndata: d.tsv\ncompare: [./m, ./other]")
    assert (fault.where, "is for `mlm`, the first model for `classification`" in fault.what) == ("r.yaml:3:16", True)
    assert plan("model: ./m\ncompare: [./other]"), "size and speed may be compared across tasks"


def test_models_to_compare_must_have_the_first_ones_classes(plan, tmp_path):
    model_folder(tmp_path / "turned", id2label={"0": "Positive", "1": "Negative"})
    model_folder(tmp_path / "unnamed", id2label=None)
    assert plan("model: ./m\ndata: d.tsv\ncompare: [./turned, ./unnamed]")
    model_folder(tmp_path / "other", id2label={"0": "good", "1": "bad"})
    (fault,) = faults_of(plan, "model: ./m\ndata: d.tsv\ncompare: [./other]")
    assert "has the classes `good`, `bad`" in fault.what and fault.where == "r.yaml:3:11"
    assert plan("model: ./m\ncompare: [./other]"), "size and speed may be compared across classes"


def test_input_lengths_fit_every_model_before_anything_runs(plan, tmp_path):
    assert plan("model: ./m").recipe.measure.latency.length == (32, 64), "the default ones are cut"
    model_folder(tmp_path / "short", max_position_embeddings=16)
    assert plan("model: ./m\ncompare: [./short]").recipe.measure.latency.length == (16,)
    asked = "measure:\n  latency: {length: [8, 32]}"
    assert plan(f"model: ./m\n{asked}").recipe.measure.latency.length == (8, 32)
    (fault,) = faults_of(plan, f"model: ./m\ncompare: [./short]\n{asked}")
    assert (fault.where, "length 32 exceeds the limit of `./short`: 16" in fault.what) == ("r.yaml:4:13", True)


def test_a_hub_name_without_a_hub(plan):
    (fault,) = faults_of(plan, "model: nobody/nothing")
    assert type(fault) is MissingDependency
    assert fault.where == "r.yaml:1:1"
    assert "local folder" in fault.hint


def test_a_shared_students_sharing_is_kept_or_given_up_knowingly(plan, tmp_path):
    model_folder(tmp_path / "m", "albert", num_hidden_layers=12, num_hidden_groups=2, embedding_size=16)
    found = plan(HEAD + "[{distill: {layers: 6}}]")
    assert found.stages
    (fault,) = faults_of(plan, HEAD + "[{distill: {layer_map: [1, 7, 8]}}]")
    assert "cannot keep the sharing of the model's 2 groups" in fault.what
    assert "`allow_unsharing: true`: 2 groups grow to 3" in fault.hint
    assert fault.where == "r.yaml:3:11"
    assert plan(HEAD + "[{distill: {layer_map: [1, 7, 8], allow_unsharing: true}}]")


@pytest.mark.parametrize(
    ("settings", "where", "what"),
    [
        ("{task_weight: 1}", "r.yaml:3:21", "a sentence encoder has neither labels nor logits"),
        ("{soft_weight: 0, hidden_weight: 0}", "r.yaml:3:11", "every loss weight is 0"),
    ],
)
def test_losses_that_cannot_teach(plan, tmp_path, settings, where, what):
    model_folder(tmp_path / "m", head="Model")
    (fault,) = faults_of(plan, HEAD + f"[{{distill: {settings}}}]")
    assert (fault.where, what in fault.what) == (where, True)


def test_a_setting_that_would_do_nothing(plan, tmp_path):
    (fault,) = faults_of(plan, HEAD + "[{distill: {mask_share: 0.2}}]")
    assert (fault.where, "`mask_share` is set" in fault.what) == ("r.yaml:3:21", True)
    model_folder(tmp_path / "m", head="ForMaskedLM")
    assert plan(HEAD + "[{distill: {mask_share: 0.2}}]")


def test_a_pooling_that_was_not_stated_is_noted(plan, tmp_path):
    model_folder(tmp_path / "m", head="Model")
    assert "normalised mean" in plan("model: ./m").notes[0]


@pytest.mark.parametrize(
    ("asked", "where", "what"),
    [
        ("task: embedding\ndata: d.tsv\nmeasure: {dimensions: [4, 32]}", "r.yaml:4:27", "sentence vectors have"),
        ("data: d.tsv\nmeasure: {dimensions: [4]}", "r.yaml:3:11", "the task is `classification`"),
        ("task: embedding\nmeasure: {dimensions: [4]}", "r.yaml:3:11", "nothing is evaluated"),
    ],
)
def test_dimensions_that_there_are_not(plan, asked, where, what):
    (fault,) = faults_of(plan, f"model: ./m\n{asked}")
    assert what in fault.what and fault.where == where and fault.hint
