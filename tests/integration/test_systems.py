"""Windows and macOS: nothing of POSIX alone is needed before it is asked for, and then it is told by name."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import bertshrink
from bertshrink.errors import MissingDependency
from bertshrink.files import atomic
from bertshrink.meters import environment
from bertshrink.meters.latency import validity
from bertshrink.meters.targets import TARGETS, check_system, open_target
from bertshrink.meters.targets.arm64 import setup
from bertshrink.progress import Silent
from bertshrink.worker import supervisor
from bertshrink.worker.machine import identity
from tests.support.tiny import tiny_encoder

WITHOUT = Path(__file__).parents[1] / "support" / "without_posix.py"


def run_without(*words):
    home = str(Path(bertshrink.__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-W", "ignore", str(WITHOUT), *words],
        env={**os.environ, "PYTHONPATH": home},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.subprocess
@pytest.mark.matrix
def test_every_module_is_imported_without_posix():
    done = run_without("all")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 200


@pytest.mark.subprocess
@pytest.mark.parametrize("words", [["--help"], ["recipe", "list"]])
def test_the_paper_side_runs_without_posix(words):
    done = run_without("paper", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout and not done.stderr


@pytest.mark.subprocess
def test_a_model_is_inspected_without_posix(tmp_path):
    tiny_encoder().save(tmp_path)
    done = run_without("paper", "inspect", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    assert '"num_parameters"' in done.stdout
    looked = run_without("some", "doctor", "--json")
    assert looked.returncode == 0, looked.stderr
    assert '"memory"' in looked.stdout


# What is missing elsewhere, by name


@pytest.mark.parametrize("name", ["cpu", "gpu", "arm64:a76", "ssh://pi@board", "adb://?runner=x"])
def test_what_windows_lacks_is_told_by_name(monkeypatch, name):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(MissingDependency, match=r"the target `\w+` runs on Linux.* only; this is Windows") as told:
        open_target(name)
    assert told.value.hint


def test_macos_times_and_does_not_emulate(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert open_target("cpu").name == "cpu"
    for ask in (lambda: open_target("arm64:a76"), lambda: setup.prepare(Silent()), lambda: open_target("gpu")):
        with pytest.raises(MissingDependency, match="on Linux only; this is macOS"):
            ask()
    monkeypatch.setattr(sys, "platform", "freebsd14")
    with pytest.raises(MissingDependency, match="Linux and macOS only; this is freebsd14"):
        check_system("cpu", "linux", "darwin")
    assert set(TARGETS) == {"cpu", "gpu", "arm64", "adb", "profile", "ssh"}, "a new target says where it is there"


def test_memory_where_the_system_has_no_sysconf(monkeypatch):
    known = environment.environment().memory_bytes
    monkeypatch.delattr(os, "sysconf")
    assert identity.machine()["memory_bytes"] == 0
    assert environment.environment().memory_bytes == psutil.virtual_memory().total
    assert abs(psutil.virtual_memory().total / known - 1) < 0.05


@pytest.mark.subprocess
def test_a_worker_without_poll_and_process_groups(monkeypatch, tmp_path):
    monkeypatch.delattr(supervisor.select, "poll")
    monkeypatch.delattr(os, "killpg")
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    (tmp_path / "job").touch()
    ends = [sys.executable, "-c", "print('done')"], [sys.executable, "-c", "import time; time.sleep(60)"]
    assert supervisor.run_in(tmp_path, ends[0], dict(os.environ), 30) == 0
    assert (tmp_path / "result").read_text() == "done\n"
    assert supervisor.run_in(tmp_path, ends[1], dict(os.environ), 0.5) is None


def test_a_load_average_that_is_not_there(monkeypatch):
    monkeypatch.delattr(os, "getloadavg")
    assert validity.initial_load_warning(4) == ()


# Files, as Windows has them


@pytest.fixture
def windows(monkeypatch):
    """`os.name` as there, for `files` alone: pathlib decides by it, too."""

    class Os:
        name = "nt"

        def __getattr__(self, name):
            return getattr(os, name)

    monkeypatch.setattr(atomic, "os", Os())
    monkeypatch.setattr(atomic, "_PATIENCE_S", (0.0, 0.0, 0.0))


def test_folders_appear_whole_on_windows(windows, tmp_path):
    for content in ("old", "new"):
        with atomic.new_folder(tmp_path / "m", replace=True) as scratch:
            (scratch / "x").write_text(content)
    atomic.write_text(tmp_path / "t", "text")
    assert (tmp_path / "m" / "x").read_text() == "new" and atomic.verify(tmp_path / "m")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "t"]


@pytest.mark.parametrize(("refusals", "comes"), [(3, True), (4, False)])
def test_what_a_scanner_holds_open_is_tried_again(windows, tmp_path, monkeypatch, refusals, comes):
    left, real = [refusals], Path.replace

    def held(self, target):
        if left[0]:
            left[0] -= 1
            raise PermissionError(13, "used by another process", str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", held)
    (tmp_path / "a").write_text("a")
    if comes:
        atomic.move(tmp_path / "a", tmp_path / "b")
    else:
        with pytest.raises(PermissionError):
            atomic.move(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").exists() is comes


def test_a_refusal_elsewhere_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic.time, "sleep", lambda _: pytest.fail("it waited"))
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(13, "no")))
    with pytest.raises(PermissionError):
        atomic.move(tmp_path / "a", tmp_path / "b")


@pytest.mark.subprocess
def test_who_is_asked_after_is_not_hurt():
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert atomic._is_running(sleeper.pid) and atomic._is_running(sleeper.pid)
    finally:
        sleeper.kill()
        sleeper.wait()
    assert not atomic._is_running(sleeper.pid)
    assert not atomic._is_running(os.getpid())
