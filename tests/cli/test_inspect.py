"""`inspect` of repositories with code of their own, and with reference vectors."""

import json

import pytest

from bertshrink.cli.app import run
from tests.support.remote_repositories import repository, write_vectors
from tests.support.tiny import tiny_encoder

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
