"""Plans of exports: a missing engine, idle settings and shapes that do not fit are found before anything runs."""

from pathlib import Path

import pytest

from bertshrink.cli.app import run
from bertshrink.errors import BertshrinkError, MissingDependency, UserError, UserErrors
from bertshrink.model.artifact import ArtifactSpec
from bertshrink.recipe import plan as plan_module
from bertshrink.recipe.plan import make_plan
from bertshrink.recipe.recipe import read_recipe
from bertshrink.sources import resolve
from tests.support.model_folders import artifact_folder, model_folder


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Prove a recipe in a folder with a model `m` of 64 tokens and an artifact `a`; every engine is installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve, "hub_is_reachable", lambda: False)
    monkeypatch.setattr(plan_module, "is_installed", lambda name: True)
    model_folder(tmp_path / "m")
    artifact_folder(tmp_path / "a")

    def go(text):
        (tmp_path / "r.yaml").write_text(text)
        return make_plan(read_recipe(Path("r.yaml")))

    return go


def fault_of(call, text):
    with pytest.raises(BertshrinkError) as caught:
        call(text)
    assert not isinstance(caught.value, UserErrors), caught.value
    return caught.value


def forms(found):
    return [stage.form for stage in found.stages]


def test_what_comes_out_is_known_before(plan):
    found = plan("model: ./m\nstages: [export, quantize, {export: {to: ort, static_shape: 1x32}}]")
    assert forms(found) == [ArtifactSpec(), ArtifactSpec(), ArtifactSpec("ort", "onnxruntime", (1, 32), None, 32)]
    found = plan("model: ./m\nstages: [{export: {engine: openvino}}, quantize]")
    assert forms(found) == [ArtifactSpec(engine="openvino")] * 2
    assert forms(plan("model: ./m\nstages: [{export: {to: executorch}}]")) == [
        ArtifactSpec("pte", "executorch", None, 8)
    ]
    found = plan("model: ./a\nstages: [{export: {to: ort}}]")
    assert forms(found) == [ArtifactSpec("ort", "onnxruntime", None, None, 64)]


@pytest.mark.parametrize(
    ("text", "where", "what", "hint"),
    [
        (
            "model: ./m\nstages: [{export: {static_shape: 1x65}}]",
            "2:20",
            "`static_shape: 1x65` is longer",
            "64 tokens at most",
        ),
        ("model: ./m\nstages: [{export: {int8: true}}]", "2:20", "`int8` is for ExecuTorch", "leave it out"),
        ("model: ./m\nstages: [{export: {max_batch: 2}}]", "2:20", "`max_batch` is for ExecuTorch", "leave it out"),
        (
            "model: ./m\nstages: [{export: {to: executorch, static_shape: 1x8, max_batch: 2}}]",
            "2:55",
            "`max_batch` is for files of any shape",
            "leave one out",
        ),
        (
            "model: ./m\nstages: [{export: {to: ort, engine: openvino}}]",
            "2:29",
            "`engine: openvino` runs ONNX files",
            "leave it out",
        ),
        ("model: ./m\nstages: [{export: {to: ort}}, quantize]", "2:31", "gets an .ort file here", "ONNX file"),
        ("model: ./a\nstages: [{export: {to: executorch}}]", "2:20", "is made from an encoder", "`to: ort`"),
        ("model: ./a\nstages: [{export: {to: ort, opset: 17}}]", "2:29", "`opset` is about making a graph", "leave"),
        (
            "model: ./a\nstages: [{export: {to: ort, static_shape: 1x65}}]",
            "2:29",
            "longer than the artifact's",
            "64 tokens",
        ),
    ],
)
def test_an_export_that_cannot_be(plan, text, where, what, hint):
    fault = fault_of(plan, text)
    assert type(fault) is UserError
    assert (fault.where, what in fault.what, hint in fault.hint) == (f"r.yaml:{where}", True, True), fault


def test_a_shape_is_two_numbers(plan):
    for text in ("8", "0x8", "8x0", "-1x8", "1x2x3", "1 x 8", "x8", "9999999x8"):
        assert "static_shape" in fault_of(plan, f"model: ./m\nstages: [{{export: {{static_shape: '{text}'}}}}]").what


# What is timed --------------------------------------------------------------------------------------------------------


def grid(found):
    latency = found.recipe.measure.latency
    return latency.batch, latency.length


FIXED = "model: ./m\nstages: [{export: {static_shape: 4x16}}]\n"


def test_all_models_are_timed_at_the_one_fixed_shape(plan, tmp_path):
    assert grid(plan(FIXED)) == ((4,), (16,))
    assert grid(plan(FIXED + "measure: {latency: {batch: [4], length: [16]}}")) == ((4,), (16,))
    fault = fault_of(plan, FIXED + "measure: {latency: {batch: [1, 4]}}")
    assert fault.where == "r.yaml:3:21"
    assert "`01-export` takes only 4x16" in fault.what
    artifact_folder(tmp_path / "b", shape=[4, 16], max_length=16)
    artifact_folder(tmp_path / "c", shape=[1, 16], max_length=16)
    assert grid(plan(FIXED + "compare: [./b]")) == ((4,), (16,))
    assert grid(plan("model: ./m\ncompare: [./c]")) == ((1,), (16,))
    fault = fault_of(plan, FIXED + "compare: [./c]")
    assert "cannot be timed together" in fault.what and "--no-latency" in fault.hint
    assert plan(FIXED + "compare: [./c]\nmeasure: {latency: false}")


def test_a_choice_by_the_clock_is_timed_at_shapes_that_its_model_takes(plan):
    auto = "model: ./m\nstages: [export, {quantize: {auto: true}}]\n"
    asked = plan(auto + "measure: {latency: {rounds: 3}}")
    untimed = plan(auto + "measure: {latency: false}")
    assert untimed.recipe.measure.latency is False
    assert (untimed.clock.length, untimed.clock.rounds) == ((32, 64), 5)
    assert (asked.clock.length, asked.clock.rounds) == ((32, 64), 3)
    later = "model: ./m\nstages: [export, {quantize: {auto: true}}, {export: {static_shape: 1x16}}]\n"
    assert grid(plan(later)) == ((1,), (16,))
    assert plan(later).clock == untimed.clock, "what is chosen does not hang on what comes after"


def test_batches_are_cut_to_what_memory_is_planned_for(plan):
    text = "model: ./m\nstages: [{export: {to: executorch, max_batch: 2}}]\n"
    assert grid(plan(text)) == ((1, 2), (32, 64))
    fault = fault_of(plan, text + "measure: {latency: {batch: [3]}}")
    assert "batch 3 exceeds the limit of `01-export`: 2 rows" in fault.what


# What is not installed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "extra"), [("to: executorch", "executorch"), ("engine: openvino", "openvino")], ids=str
)
def test_a_missing_engine_is_told_by_the_plan(plan, monkeypatch, settings, extra):
    monkeypatch.setattr(plan_module, "is_installed", lambda name: name != extra)
    fault = fault_of(plan, f"model: ./m\nstages: [{{export: {{{settings}}}}}]")
    assert type(fault) is MissingDependency
    assert (fault.where, fault.hint) == ("r.yaml:2:11", f"pip install 'bertshrink[{extra}]'")


def test_a_given_artifact_needs_its_engine(plan, tmp_path, monkeypatch):
    artifact_folder(tmp_path / "p", engine="executorch", format="pte")
    assert plan("model: ./p")
    monkeypatch.setattr(plan_module, "is_installed", lambda name: name != "executorch")
    for text in ("model: ./p", "model: ./m\ncompare: [./p]"):
        assert type(fault_of(plan, text)) is MissingDependency


def test_an_artifact_of_an_unknown_engine_is_refused(plan, tmp_path):
    artifact_folder(tmp_path / "p", engine="tensorrt")
    assert "`tensorrt`" in fault_of(plan, "model: ./p").what


def test_the_command_ends_with_6_and_the_install_line(plan, monkeypatch, capsys):
    monkeypatch.setattr(plan_module, "is_installed", lambda name: False)
    assert run(["export", "m", "--to", "executorch", "-o", "out"]) == 6
    assert "hint: pip install 'bertshrink[executorch]'" in capsys.readouterr().err
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["a", "m"], "nothing was made"
