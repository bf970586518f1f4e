"""The run folder: finished is finished, changed is made again, damaged is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bertshrink.errors import OutputError, UnsafeModel, UserError
from bertshrink.files.atomic import MANIFEST
from bertshrink.files.fingerprint import STAGE_CARD, fingerprint
from bertshrink.pipeline import run_folder as stores
from bertshrink.pipeline.run_folder import OutputFolder, RunFolder


@pytest.fixture
def store(tmp_path):
    found = RunFolder(tmp_path / "runs" / "r")
    found.folder.mkdir(parents=True)
    return found


def inside(folder):
    return sorted(path.name for path in folder.iterdir())


def save(store, key="k", text="weights"):
    def fill(folder):
        (folder / "model").write_text(text)
        return {"snapshots": []}

    return store.save("01-x", key, fill)


def test_a_finished_stage_is_found(store):
    assert store.finished("01-x", "k") is None
    card = save(store)
    assert store.finished("01-x", "k") == card
    assert card["fingerprint"] == "k"
    assert store.finished("01-x", "other") is None, "other ingredients: made again"
    save(store, "other", "new weights")
    assert store.finished("01-x", "k") is None
    assert (store.stage("01-x") / "model").read_text() == "new weights"


@pytest.mark.parametrize("name", ["model", STAGE_CARD])
def test_a_flipped_bit_is_refused(store, name):
    save(store)
    path = store.stage("01-x") / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(UnsafeModel, match=f"`{name}` has changed"):
        store.finished("01-x", "k")


def test_a_stage_without_its_seal_is_not_finished(store):
    save(store)
    (store.stage("01-x") / MANIFEST).unlink()
    assert store.finished("01-x", "k") is None
    assert save(store)


@pytest.mark.parametrize("content", ["[]", "{}", "3", "null", '{"schema": "bertshrink.stage/0", "fingerprint": "k"}'])
def test_a_card_of_another_form_is_no_finished_stage(store, content):
    save(store)
    (store.stage("01-x") / STAGE_CARD).write_text(content)
    assert store.finished("01-x", "k") is None


def test_a_stage_that_fails_leaves_the_one_before_and_its_checkpoints(store):
    save(store)
    work = store.work("01-x", "new")
    (work / "checkpoint").write_text("")

    def fail(folder):
        (folder / "model").write_text("half")
        raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        store.save("01-x", "new", fail)
    assert store.finished("01-x", "k")
    assert (work / "checkpoint").exists()
    assert inside(store.folder) == [".work", "01-x"]
    save(store, "new")
    assert not work.exists(), "a stored stage needs no checkpoints"


def test_checkpoints_of_other_ingredients_are_cleared(store):
    (store.work("01-x", "a") / "c").write_text("")
    assert (store.work("01-x", "a") / "c").exists()
    store.work("01-x", "b")
    assert inside(store.folder / ".work" / "01-x") == ["b"]


def test_a_full_disk_is_told_before_the_work(store, monkeypatch):
    monkeypatch.setattr(stores.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OutputError, match="is full"):
        save(store)


def test_small_entries(store):
    assert store.read_entry("e.json", "k") is None
    store.write_entry("e.json", "k", {"a": [1]})
    assert store.read_entry("e.json", "k") == {"a": [1]}
    assert store.read_entry("e.json", "other") is None
    for content in ("", "[]", "3", "{}", '{"fingerprint": "k"}'):
        (store.folder / "e.json").write_text(content)
        assert store.read_entry("e.json", "k") is None


@pytest.mark.subprocess
def test_one_process_at_a_time(store):
    code = (
        "import sys; from pathlib import Path; from bertshrink.pipeline.run_folder import RunFolder\n"
        "from bertshrink.errors import BertshrinkError\n"
        "try:\n"
        "    with RunFolder(Path(sys.argv[1])).locked(): print('in')\n"
        "except BertshrinkError as error: print(error)\n"
    )

    def other():
        environment = {**os.environ, "PYTHONPATH": str(Path(stores.__file__).parents[2])}
        command = [sys.executable, "-c", code, str(store.folder)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    with store.locked():
        assert "another process is working in" in other()
        with pytest.raises(UserError, match="another process"), RunFolder(store.folder).locked():
            pass
    assert other() == "in\n"


def test_a_run_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(OutputError), RunFolder(tmp_path / "runs" / "r").locked():
        pass


def test_each_ingredient_decides_the_fingerprint():
    base = ["model", "teacher", "distill", {"layers": 3, "epochs": 1.0}, "data", 0, "0.1"]
    others = [[*base[:i], "changed", *base[i + 1 :]] for i in range(len(base))]
    others += [[*base[:3], {"layers": 3, "epochs": 2.0}, *base[4:]], base[:-1], base[::-1]]
    found = {fingerprint(*parts) for parts in [base, *others]}
    assert len(found) == len(others) + 1
    assert fingerprint(*base) == fingerprint(*base)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}), "the order of keys is not an ingredient"


# Where the user wants it


def test_publishing(store, tmp_path):
    save(store)
    target = OutputFolder(tmp_path / "out")
    target.check("k", store.folder)
    target.publish(store.stage("01-x"), "k", {"report.json": "{}"})
    assert inside(tmp_path / "out") == [MANIFEST, "model", "report.json", STAGE_CARD]
    before = (tmp_path / "out" / "model").stat().st_mtime_ns
    assert target.holds("k")
    target.publish(store.stage("01-x"), "k", {"report.json": "{}"})
    assert (tmp_path / "out" / "model").stat().st_mtime_ns == before, "what is there already is left alone"
    with pytest.raises(UserError, match="already exists"):
        target.check("other", store.folder)
    OutputFolder(tmp_path / "out", replace=True).check("other", store.folder)
    save(store, "other", "new")
    OutputFolder(tmp_path / "out", replace=True).publish(store.stage("01-x"), "other", {})
    assert (tmp_path / "out" / "model").read_text() == "new"
    assert not target.holds("k")


def test_a_damaged_result_is_not_taken_for_the_right_one(store, tmp_path):
    save(store)
    target = OutputFolder(tmp_path / "out")
    target.publish(store.stage("01-x"), "k", {})
    (tmp_path / "out" / "model").write_text("damage!")
    assert not target.holds("k")
    with pytest.raises(UserError, match="already exists"):
        target.check("k", store.folder)


@pytest.mark.parametrize("where", ["runs/r", "runs", "runs/r/out", "."])
def test_a_target_and_the_run_folder_do_not_lie_in_each_other(store, tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="contain each other") as caught:
        OutputFolder(Path(where), replace=True).check("k", Path("runs/r"))
    assert caught.value.where == "-o"


def test_a_target_without_a_place(store, tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        OutputFolder(tmp_path / "no" / "out").check("k", store.folder)


def test_the_cards_are_json(store):
    save(store)
    card = json.loads((store.stage("01-x") / STAGE_CARD).read_text())
    assert card == {"schema": "bertshrink.stage/1", "fingerprint": "k", "snapshots": []}
