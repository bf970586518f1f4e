"""A repository with code of its own goes through the program; report, README and card say what was not run."""

import json

import pytest

from bertshrink.cli.app import run
from tests.support.remote_repositories import repository, write_vectors

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def test_it_is_exported_and_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    write_vectors(tmp_path / "v.json", repository(tmp_path / "m", "nomic"), ["the movie was wonderful", "data is code"])
    assert run(["export", "./m", "-o", "out", "--reference", "v.json", "-q"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [note for note in report["notes"] if "its own code (`auto_map`" in note and "was not run" in note]
    assert [note for note in report["notes"] if note.startswith("compared with 2 reference vectors of v.json")]
    assert "was not run" in (tmp_path / "out" / "README.md").read_text()
    card = json.loads((tmp_path / "out" / "artifact.json").read_text())
    assert "was not run" in card["details"]["notes"][0]
