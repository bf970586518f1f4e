"""What a run needs is found before it writes anything, and no run begins without it."""

from pathlib import Path

import pytest

from bertshrink.errors import CheckFailed, UnsafeModel, UserError
from bertshrink.pipeline.prepare import REFERENCE, prepare
from bertshrink.pipeline.run import Run, opened
from bertshrink.pipeline.run_folder import RunFolder
from bertshrink.progress import Silent
from bertshrink.recipe.plan import make_plan
from bertshrink.recipe.recipe import read_recipe
from tests.support.remote_repositories import repository, write_vectors
from tests.support.tiny import sentences, tiny_encoder


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("m", 1), ("other", 2)):
        Path(name).mkdir()
        tiny_encoder("bert", "embedding", seed=seed).save(Path(name))
    Path("texts.txt").write_text("\n".join(sentences(80)) + "\n")
    return tmp_path


def plan_of(text):
    Path("r.yaml").write_text(text)
    return make_plan(read_recipe(Path("r.yaml")))


RECIPE = "model: ./m\ndata: ./texts.txt\nstages: [{distill: {layers: 1}}]\nmeasure: {latency: false}\n"


def prepared(text):
    return prepare(plan_of(text), Silent(), RunFolder(Path("runs/r")), "bertshrink run", None)


def test_everything_is_at_hand_and_nothing_is_written(here):
    before = sorted(here.rglob("*"))
    found = prepared(RECIPE + "compare: [./other, ./other]\n")
    assert sorted(here.rglob("*")) == sorted([*before, here / "r.yaml"])
    assert found.given.name == REFERENCE
    assert found.given.key == found.keys.stages[0] == found.given.content_key("embedding")
    assert found.given.loaded is not None, "its figures are to be taken"
    assert [model.name for model in found.compared] == ["./other", "./other (2)"]
    assert [model.loaded for model in found.compared] == [None, None]
    assert len({model.key for model in found.compared}) == 1 != found.given.key
    assert found.texts.fingerprint
    assert found.report.data is not None


def test_the_first_model_is_not_loaded_where_its_figures_are_kept(here):
    first = prepared(RECIPE)
    first.store.folder.mkdir(parents=True)
    first.store_reference({"name": "kept"})
    again = prepared(RECIPE)
    assert again.stored_reference() == {"name": "kept"}
    assert again.given.loaded is None


def test_a_model_to_compare_with_is_refused_before_anything_is_made(here):
    plan = plan_of(RECIPE + "compare: [./other]\n")
    Path("other/model.safetensors").unlink()
    Path("other/pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UnsafeModel, match="are a pickle"), opened(plan, Silent(), Path("runs"), "c"):
        pytest.fail("a run began")
    assert not Path("runs").exists()


def test_the_reference_is_the_given_model_or_what_the_first_stages_made_of_it(here):
    given = Run(prepared(RECIPE), Silent())
    assert given.reference is given.latest is given.prepared.given
    lines = [f"{text}\t{'yes' if at % 2 else 'no'}" for at, text in enumerate(sentences(80))]
    Path("d.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
    text = "model: ./m\ndata: ./d.tsv\ntask: classification\nstages: [finetune, {distill: {layers: 1}}]\n"
    made = Run(prepared(text + "measure: {latency: false}\n"), Silent())
    assert made.reference is None, "it is still to be made"
    made.made.append(made.prepared.given)
    assert made.reference is made.latest is made.made[0]


def test_a_model_is_compared_with_reference_vectors_before_anything_is_made(here):
    write_vectors(Path("v.json"), tiny_encoder("bert", "embedding", seed=1), sentences(3))
    told = prepared(RECIPE + "reference: v.json\n").report.notes
    assert [note for note in told if note.startswith("compared with 3 reference vectors of v.json")]
    write_vectors(Path("other/reference_vectors.json"), tiny_encoder("bert", "embedding", seed=2), sentences(2))
    told = prepared(RECIPE + "compare: [./other]\n").report.notes
    assert [note for note in told if note.startswith("other: compared with 2 reference vectors")]
    with pytest.raises(CheckFailed, match="not the one of the reference vectors"):
        prepared(RECIPE.replace("./m", "./other") + "reference: v.json\n")


def test_reference_vectors_are_compared_where_nothing_is_left_to_be_made(here):
    first = prepared(RECIPE)
    first.store.folder.mkdir(parents=True)
    first.store_reference({"name": "kept"})
    write_vectors(Path("v.json"), tiny_encoder("bert", "embedding", seed=1), sentences(2))
    again = prepared(RECIPE + "reference: v.json\n")
    assert again.given.loaded is None, "let go again"
    assert again.report.notes[-1].startswith("compared with 2 reference vectors")


def test_reference_vectors_need_a_model(here):
    with pytest.raises(UserError, match="`reference` has vectors of a model, and the recipe names none"):
        plan_of("reference: v.json\ndata: ./texts.txt\nstages: [{pretrain: {layers: 1}}]\nmeasure: {latency: false}\n")


def test_the_notes_say_of_every_model_whose_own_code_was_not_run(here):
    for name in ("theirs", "beside"):
        Path(name).mkdir()
        repository(Path(name), "gte")
    text = RECIPE.replace("./m", "./theirs") + "compare: [./beside]\n"
    notes = plan_of(text).notes
    assert [note for note in notes if note.startswith("read by the stock class of GTE") and "was not run" in note]
    assert [note for note in notes if note.startswith("beside: read by the stock class of GTE")]
    assert sum("no reference vectors" in note for note in notes) == 2
