"""The finished model is there before anything is timed, and its report catches up."""

import json
import shutil
from pathlib import Path

import pytest

from bertshrink.cli.app import run
from bertshrink.errors import MeasurementError, Terminated
from bertshrink.files import atomic
from bertshrink.files.atomic import MANIFEST, amend, new_folder, verify
from bertshrink.model.artifact import Artifact
from bertshrink.pipeline.run import NOT_YET, Run
from bertshrink.report.measurement import Measurement
from tests.support.tiny import tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model `m`, exported once, so that every test finds its stage finished."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "m").mkdir()
    tiny_encoder().save(folder / "m")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["export", "./m", "-q"]) == 0
    return folder


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    folder = shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder


def seen(monkeypatch, result):
    """Measuring replaced: what is at `out` while it runs, and then `result` (an exception, or a memory in bytes)."""
    found = []

    def measure(work):
        found.append(json.loads(Path("out/report.json").read_text()) if Path("out/report.json").is_file() else None)
        if not isinstance(result, int):
            raise result
        for snapshot in work.report.snapshots:
            snapshot.measurements.append(Measurement.single("memory", "B", result, "lower"))

    monkeypatch.setattr(Run, "_running", measure)
    return found


EXPORT = ["export", "./m", "-q", "--measure", "-o", "out"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "the model is finished: out; only measuring was stopped\nstopped; run the same"),
        (Terminated("stopped by SIGTERM", hint="the same command goes on"), 143, "only measuring was stopped\nstopped"),
        (
            MeasurementError("the worker died"),
            3,
            "out; only measuring failed; run the same command to measure again\nerr",
        ),
    ],
    ids=["ctrl-c", "sigterm", "failure"],
)
def test_a_model_outlives_its_measuring(here, monkeypatch, capsys, error, code, told):
    found = seen(monkeypatch, error)
    assert run(EXPORT) == code
    assert told in capsys.readouterr().err
    (at_that_time,) = found
    assert NOT_YET in at_that_time["notes"]
    assert verify(here / "out")
    assert Artifact.load(here / "out").card.engine == "onnxruntime"

    model = (here / "out" / "onnx" / "model.onnx").stat()
    seen(monkeypatch, 77_000_000)
    assert run(EXPORT) == 0
    assert (here / "out" / "onnx" / "model.onnx").stat().st_mtime_ns == model.st_mtime_ns, "only its papers are new"
    assert verify(here / "out")
    report = json.loads((here / "out" / "report.json").read_text())
    assert NOT_YET not in report["notes"]
    assert report == json.loads(next(here.glob("runs/*/report.json")).read_text())
    assert "77.0 MB" in (here / "out" / "README.md").read_text()


@pytest.mark.subprocess
def test_what_is_measured_is_not_lost_again(here, monkeypatch):
    seen(monkeypatch, 77_000_000)
    assert run(EXPORT) == 0
    before = {path.name: path.stat().st_mtime_ns for path in (here / "out").iterdir()}
    assert run(EXPORT) == 0
    assert run([*EXPORT, "--no-latency"]) == 0
    assert {path.name: path.stat().st_mtime_ns for path in (here / "out").iterdir()} == before
    (here / "out" / "README.md").unlink()
    (here / "out" / "report.json").unlink()
    assert run(EXPORT) == 2, "another folder by now"


@pytest.mark.subprocess
def test_models_to_compare_with_enter_the_report_at_the_place(here):
    (here / "r.yaml").write_text("model: ./m\nstages: [export]\ncompare: [./m]\nmeasure: {latency: false}\n")
    assert run(["run", "r.yaml", "-q", "-o", "out"]) == 0
    roles = [s["role"] for s in json.loads((here / "out/report.json").read_text())["snapshots"]]
    assert roles == ["reference", "stage", "compared"]
    assert verify(here / "out")


GATED = "model: ./m\nstages: [export]\ngates:\n  size: '<= 90 MB'\n  memory: '<= 50 MB'\n"


@pytest.mark.subprocess
def test_a_gate_that_needs_measuring_is_waited_for(here, monkeypatch, capsys):
    (here / "r.yaml").write_text(GATED)
    command = ["run", "r.yaml", "-q", "-o", "out"]
    found = seen(monkeypatch, KeyboardInterrupt())
    assert run(command) == 130
    assert "the model is finished: runs/r/01-export; only measuring" in capsys.readouterr().err
    seen(monkeypatch, 77_000_000)
    assert run(command) == 1
    assert "nothing is written at out" in capsys.readouterr().err
    assert found == [None] and not (here / "out").exists()
    found = seen(monkeypatch, 40_000_000)
    assert run(command) == 0
    assert found == [None] and verify(here / "out")


@pytest.mark.subprocess
def test_a_gate_of_files_is_judged_before_anything_is_measured(here, monkeypatch):
    text = GATED.replace("  memory: '<= 50 MB'\n", "")
    (here / "r.yaml").write_text(text)
    found = seen(monkeypatch, 1)
    assert run(["run", "r.yaml", "-q", "-o", "out"]) == 0
    (first,) = found
    assert NOT_YET in first["notes"]
    shutil.rmtree(here / "out")
    (here / "r.yaml").write_text(text.replace("90 MB", "9 B"))
    found = seen(monkeypatch, 1)
    assert run(["run", "r.yaml", "-q", "-o", "out"]) == 1
    assert found == [None] and not (here / "out").exists()


@pytest.mark.parametrize("at", range(4))
def test_a_manifest_is_right_wherever_its_folder_is_stopped(tmp_path, monkeypatch, at):
    """Four writes: the manifest, both files, the manifest."""
    with new_folder(tmp_path / "out") as scratch:
        for name in ("model", "report.json", "README.md"):
            (scratch / name).write_text("old")
    calls = []
    write = atomic.write_text

    def stopped(path, text):
        calls.append(path.name)
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(atomic, "write_text", stopped)
    with pytest.raises(KeyboardInterrupt):
        amend(tmp_path / "out", {"report.json": "new", "README.md": "new"})
    assert calls == [MANIFEST, "report.json", "README.md", MANIFEST][: at + 1]
    assert verify(tmp_path / "out")
    monkeypatch.undo()
    amend(tmp_path / "out", {"report.json": "new", "README.md": "new"})
    assert verify(tmp_path / "out")
    (tmp_path / "out" / "report.json").write_text("bad")
    with pytest.raises(Exception, match=r"report\.json"):
        verify(tmp_path / "out")
