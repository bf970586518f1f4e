"""`inspect` of repositories with code of their own, with reference vectors, and of heads."""

import json

import pytest

from bertshrink.cli.app import run
from tests.support.remote_repositories import repository, write_vectors
from tests.support.tiny import tiny_encoder, tiny_project

TEXTS = ["the movie was wonderful", "data is code"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    write_vectors(tmp_path / "right.json", repository(tmp_path / "m", "nomic"), TEXTS)
    write_vectors(tmp_path / "wrong.json", tiny_encoder("nomic_bert", "embedding", seed=5), TEXTS)
    return tmp_path


def test_it_says_that_the_code_was_not_run_and_what_the_vectors_came_to(here, capsys):
    assert run(["inspect", "m", "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert "was not run" in notes[0]
    assert "no reference vectors" in notes[1]
    assert run(["inspect", "m", "--reference", "right.json"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "was not run" in said
    assert "no reference vectors" not in said
    assert "compared with 2 reference vectors of right.json: the least cosine is 1.000000" in said


def test_other_vectors_are_a_check_that_fails(here, capsys):
    assert run(["inspect", "m", "--reference", "wrong.json"]) == 1
    assert "the loaded model is not the one of the reference vectors" in capsys.readouterr().err
    (here / "wrong.json").rename(here / "m" / "reference_vectors.json")
    assert run(["inspect", "m"]) == 1, "the folder's own"
    assert run(["inspect", "m", "--reference", "right.json"]) == 0, "those that are named stand before them"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--reference", "none.json"], "the reference vectors cannot be read"),
        (["--reference", "right.json", "--size", "1 MB"], "`--size` tells of sizes"),
        (["--reference", "right.json", "--task", "mlm"], "its task is `mlm`"),
    ],
)
def test_requests_that_are_refused(argv, message, here, capsys):
    assert run(["inspect", "m", *argv]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_project(tmp_path, 12)
    return tmp_path


def test_heads_are_shown_as_a_page_and_as_json(project, capsys):
    asked = ["inspect", "m", "--attention", "--data", "d.tsv", "-q", "--seed", "1"]
    assert run(asked) == 0
    said = capsys.readouterr().out
    assert "m: 4 layers of 4 heads, classification" in said
    assert "page: m-attention.html" in said
    assert "What the heads of m do" in (project / "m-attention.html").read_text()
    (project / "m-attention.html").unlink()
    assert run([*asked, "--json", "--base", "m"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "bertshrink.attention/1"
    assert document["layers"][0]["base_cosine"] == pytest.approx(1)
    assert not list(project.glob("*.html"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--attention"], "and none are given"),
        (["--data", "d.tsv"], "`--data` belongs to `--attention`"),
        (["--label", "x"], "`--label` belongs to `--attention`"),
        (["--attention", "--data", "d.tsv", "--size", "1 MB"], "two questions"),
        (["--attention", "--data", "d.tsv", "-o", "m"], "`m` is a folder"),
        (["--attention", "--data", "d.tsv", "-o", "no/x.html"], "there is no folder"),
        (["--attention", "--data", "none.tsv"], "none.tsv"),
        (["--attention", "--data", "d.tsv", "--base", "none"], "none"),
        (["--attention", "--data", "d.tsv", "--task", "poetry"], "poetry"),
    ],
)
def test_requests_about_heads_that_are_refused(argv, message, project, capsys):
    assert run(["inspect", "m", *argv, "-q"]) in (2, 6)
    error = capsys.readouterr().err
    assert message in error
    assert "hint: " in error
    assert not list(project.glob("*.html"))


def test_a_family_of_other_layers_is_refused_before_it_is_loaded(project, capsys):
    (project / "mobile").mkdir()
    tiny_encoder("mobilebert").save(project / "mobile")
    (project / "mobile" / "model.safetensors").write_bytes(b"never read")
    assert run(["inspect", "mobile", "--attention", "--data", "d.tsv", "-q"]) == 2
    assert "the heads of MobileBERT cannot be told apart" in capsys.readouterr().err
