"""Folders that appear whole or not at all, whatever happens on the way."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bertshrink.errors import OutputError, UnsafeModel, UserError
from bertshrink.files import atomic
from bertshrink.files.atomic import MANIFEST, new_folder, refuse_taken, seal, sweep, verify, write_text


def listing(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def inside(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def old(tmp_path):
    """A sealed folder that is already."""
    with new_folder(tmp_path / "out") as scratch:
        (scratch / "a").write_text("old")
    return tmp_path / "out"


def test_a_new_folder_is_sealed(old):
    assert sorted(listing(old.parent)) == ["out/MANIFEST.json", "out/a"]
    entries = json.loads((old / MANIFEST).read_text())["files"]
    assert entries == {"a": {"bytes": 3, "sha256": atomic.sha256_file(old / "a")}}
    assert verify(old)


def test_a_folder_in_folders(tmp_path):
    with new_folder(tmp_path / "x" / "y") as scratch:
        (scratch / "sub").mkdir()
        (scratch / "sub" / "b").write_bytes(b"")
    assert verify(tmp_path / "x" / "y")
    assert verify(tmp_path) is False, "a folder without a manifest is nobody's business"


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, OSError, UserError, SystemExit])
def test_a_failure_leaves_the_old_folder_and_no_litter(old, kind):
    before = listing(old.parent)
    with pytest.raises(OutputError if kind is OSError else kind), new_folder(old, replace=True) as scratch:
        (scratch / "a").write_text("new")
        raise kind("x")
    assert listing(old.parent) == before
    assert inside(old.parent) == ["out"]


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_failure_between_the_two_renames_puts_the_old_folder_back(old, monkeypatch, kind):
    before = listing(old.parent)
    real = Path.replace

    def replace(self, target):
        if ".tmp-" in self.name:
            raise kind(errno.EIO, "broken")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputError if kind is OSError else kind), new_folder(old, replace=True) as scratch:
        (scratch / "a").write_text("new")
    assert listing(old.parent) == before
    assert inside(old.parent) == ["out"]


def test_replacing(old):
    with new_folder(old, replace=True) as scratch:
        (scratch / "b").write_text("new")
    assert sorted(listing(old.parent)) == ["out/MANIFEST.json", "out/b"]
    with pytest.raises(OutputError), new_folder(old) as scratch:
        (scratch / "c").write_text("newer")
    assert sorted(listing(old.parent)) == ["out/MANIFEST.json", "out/b"]


FULL = """
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from bertshrink.errors import OutputError
from bertshrink.files.atomic import new_folder, write_text
try:
    if sys.argv[2] == "folder":
        with new_folder(Path(sys.argv[1]), replace=True) as scratch:
            (scratch / "a").write_bytes(bytes(5000))
    else:
        write_text(Path(sys.argv[1]) / "a", "x" * 5000)
except OutputError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.subprocess
@pytest.mark.parametrize("what", ["folder", "text"])
def test_a_disk_that_takes_no_more(old, what):
    before = listing(old.parent)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(old), what],
        env={**os.environ, "PYTHONPATH": str(Path(atomic.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    assert "cannot write" in done.stdout
    assert "hint: free some space" in done.stdout
    assert listing(old.parent) == before
    assert inside(old.parent) == ["out"]


def test_an_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError), new_folder(tmp_path / "file" / "out"):
        pass
    with pytest.raises(OutputError, match="cannot write"):
        write_text(tmp_path / "none" / "a", "x")


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.subprocess
def test_what_killed_processes_left_is_swept(old):
    dead, alive = dead_process(), os.getppid()
    for name in (f".out.tmp-{dead}", f".out.old-{dead}", f".out.tmp-{alive}", ".out.tmp-x", f".other.tmp-{dead}"):
        (old.parent / name).mkdir()
    sweep(old)
    assert inside(old.parent) == sorted(["out", f".out.tmp-{alive}", ".out.tmp-x", f".other.tmp-{dead}"])


@pytest.mark.subprocess
def test_an_old_folder_without_its_successor_is_put_back(old):
    before = listing(old)
    old.rename(old.parent / f".out.old-{dead_process()}")
    sweep(old)
    assert listing(old) == before
    assert inside(old.parent) == ["out"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_modes_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with new_folder(tmp_path / "out") as scratch:
            (scratch / "a").write_text("x")
            (scratch / "a").chmod(0o600)  # as safetensors leaves it
            (scratch / "program").write_text("x")
            (scratch / "program").chmod(0o700)
    finally:
        os.umask(before)
    for name in ("a", MANIFEST):
        assert (tmp_path / "out" / name).stat().st_mode & 0o777 == 0o666 & ~umask, name
    for path in (tmp_path / "out", tmp_path / "out" / "program"):
        assert path.stat().st_mode & 0o777 == 0o777 & ~umask


def test_write_text_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_text(path, "old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_text(path, "new")
    assert listing(tmp_path) == {"a": b"old"}


def test_every_kind_of_change_is_seen(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a").write_bytes(b"abc")
    (folder / "b").write_bytes(b"")
    seal(folder)
    assert verify(folder)
    for change in (b"abd", b"ab", b"abcd", None):
        (folder / "a").unlink() if change is None else (folder / "a").write_bytes(change)
        with pytest.raises(UnsafeModel):
            verify(folder)


def test_only_what_bertshrink_wrote_is_ever_replaced(old, tmp_path, monkeypatch):
    def taken(path, replace):
        with pytest.raises(UserError) as caught:
            refuse_taken(path, replace=replace)
        assert caught.value.where == "-o"
        assert caught.value.hint
        return caught.value.what

    refuse_taken(tmp_path / "new", replace=False)
    refuse_taken(old, replace=True)
    assert "already exists" in taken(old, replace=False)
    (tmp_path / "work").mkdir()
    refuse_taken(tmp_path / "work", replace=False)
    (tmp_path / "work" / "thesis.tex").write_text("")
    assert "is not a folder that bertshrink wrote" in taken(tmp_path / "work", replace=True)
    assert "is not a folder that bertshrink wrote" in taken(tmp_path / "work" / "thesis.tex", replace=True)
    (tmp_path / "link").symlink_to(old)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("link", "dangling"):
        taken(tmp_path / name, replace=True)
    monkeypatch.chdir(old)
    taken(Path(), replace=True)
    taken(Path(".."), replace=True)
