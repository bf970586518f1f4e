"""What becomes of a command when stdout or stderr takes no more, and of paths as flags give them."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bertshrink.cli import app
from bertshrink.cli import run as work
from bertshrink.cli.app import run
from bertshrink.cli.streams import READER_GONE, result_stands
from bertshrink.errors import UserError
from bertshrink.files.atomic import check_name
from bertshrink.pipeline.run_folder import OutputFolder

NO_ROOM = "error: cannot print: No space left on device\n  --> stdout\nhint: "


class Refusing(io.StringIO):
    """A stream that takes `room` letters; the flush, too, can be what fails."""

    def __init__(self, number, room=0, *, at_flush=False):
        super().__init__()
        self.number, self.room, self.at_flush = number, room, at_flush

    def write(self, text):
        if not self.at_flush and self.tell() + len(text) > self.room:
            raise OSError(self.number, os.strerror(self.number))
        return super().write(text)

    def flush(self):
        if self.at_flush:
            raise OSError(self.number, os.strerror(self.number))


def prints(monkeypatch, *, stands=False, code=0):
    """Have `distill` print two lines and end with `code`."""

    def carry_out(*arguments, **more):
        if stands:
            result_stands()
        typer.echo("one")
        sys.stdout.write("two\n")
        return code

    monkeypatch.setattr(work, "carry_out", carry_out)


DISTILL = ["distill", "m", "--layers", "2"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
@pytest.mark.parametrize("more", [{}, {"room": 5}, {"at_flush": True}])
def test_a_result_that_cannot_be_printed_is_no_success(monkeypatch, capsys, number, more):
    prints(monkeypatch, stands=True)
    monkeypatch.setattr(sys, "stdout", Refusing(number, **more))
    assert run(DISTILL) == 7
    assert capsys.readouterr().err.startswith(f"error: cannot print: {os.strerror(number)}\n  --> stdout\nhint: ")


@pytest.mark.parametrize(("stands", "code", "expected"), [(False, 0, 141), (True, 0, 0), (True, 1, 1), (False, 3, 3)])
def test_a_reader_that_went_away(monkeypatch, capsys, stands, code, expected):
    prints(monkeypatch, stands=stands, code=code)
    monkeypatch.setattr(sys, "stdout", Refusing(errno.EPIPE))
    assert run(DISTILL) == expected
    assert capsys.readouterr().err == ""
    assert READER_GONE == 141


def test_stderr_that_takes_nothing_changes_nothing(monkeypatch, capsys):
    def carry_out(*arguments, **more):
        sys.stderr.write("progress\n")
        sys.stderr.flush()
        typer.echo("result")
        return 0

    monkeypatch.setattr(work, "carry_out", carry_out)
    monkeypatch.setattr(sys, "stderr", Refusing(errno.ENOSPC))
    assert run(DISTILL) == 0
    assert capsys.readouterr().out == "result\n"
    assert run(["nonsense"]) == 2


def test_both_streams_are_as_before_afterwards(capsys):
    before = sys.stdout, sys.stderr
    run(["--version"])
    assert (sys.stdout, sys.stderr) == before


def test_letters_that_a_terminal_lacks(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr(work, "carry_out", lambda *a, **k: sys.stdout.write("≥ 3 ± 1") and 0)
    assert run(DISTILL) == 0
    assert written.getvalue().split() == [b"?", b"3", b"?", b"1"]


@pytest.mark.subprocess
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["recipe", "schema"], ["recipe", "list"]])
def test_a_full_disk_to_the_very_end_of_the_process(argv, unbuffered):
    """Buffered, Python's own end must find nothing left to trip over; unbuffered, as in containers, nothing is late."""
    command = [sys.executable, "-m", "bertshrink", *argv]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    assert done.returncode == 7
    assert done.stderr.startswith(NO_ROOM) and done.stderr.count("\n") == 3


@pytest.mark.subprocess
def test_a_pipe_without_a_reader_to_the_very_end_of_the_process():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "bertshrink", "recipe", "schema"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (READER_GONE, "")


# Paths


@pytest.mark.parametrize("length", [245, 300, 5000])
@pytest.mark.parametrize("flag", ["-o", "--runs"])
def test_a_name_that_is_too_long_is_told_before_any_work(monkeypatch, capsys, flag, length):
    monkeypatch.setattr(work, "carry_out", lambda *a, **k: pytest.fail("the work began"))
    assert run([*DISTILL, flag, "a" * length]) == 2
    assert "is too long\nhint: give a shorter one" in capsys.readouterr().err


def test_a_name_that_just_fits_can_be_written(tmp_path):
    from bertshrink.files.atomic import new_folder

    target = tmp_path / ("a" * 240)
    check_name(target)
    with new_folder(target) as scratch:
        (scratch / "x").write_text("x")
    assert (target / "x").is_file()
    with pytest.raises(UserError, match="is too long"):
        OutputFolder(tmp_path / ("a" * 250)).check("key")
    with pytest.raises(UserError, match="null"):
        check_name(tmp_path / "a\0b")


@pytest.mark.subprocess
@pytest.mark.parametrize("argv", [["inspect"], ["run"], ["gate"], ["gate", "--config"], ["bench"]])
def test_a_name_that_is_too_long_anywhere_is_no_bug(tmp_path, monkeypatch, capsys, argv):
    monkeypatch.chdir(tmp_path)
    assert run([*argv, "b" * 5000]) in (2, 7)
    assert "this is a bug" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--output=~/here"], ["-o", "~/here"], ["-o~/here"]])
def test_the_home_folder_in_a_flag(monkeypatch, words, tmp_path):
    seen = {}
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(work, "carry_out", lambda *a, **k: seen.update(k) or 0)
    assert run([*DISTILL, *words, "--runs=~/runs"]) == 0
    assert (seen["output"], seen["runs"]) == (tmp_path / "here", tmp_path / "runs")


@pytest.mark.subprocess
@pytest.mark.training
def test_the_home_folder_in_the_gates_flags_and_a_recipes_name(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "limits.toml").write_text('[gate]\nartifact = "none"\nsize = "<= 1 MB"\n')
    assert run(["gate", "--config=~/limits.toml"]) != 0
    assert "none" in capsys.readouterr().err
    assert run(["gate", "--config=~/others.toml"]) == 2
    (tmp_path / "r.yaml").write_text("nonsense: 1\n")
    assert run(["run", "~/r.yaml"]) == 2
    assert "r.yaml:1:1" in capsys.readouterr().err
    assert run(["run", "~no-such-user/r.yaml"]) == 2


@pytest.mark.training
@pytest.mark.parametrize(("number", "code"), [(errno.ENAMETOOLONG, 2), (errno.EACCES, 7), (errno.EIO, 7)])
def test_what_the_system_refuses_is_told_by_its_kind(monkeypatch, capsys, number, code):
    def fail(*arguments, **more):
        raise OSError(number, os.strerror(number), "x" * 300)

    monkeypatch.setattr(work, "carry_out", fail)
    assert app.run(DISTILL) == code
    assert "bug" not in capsys.readouterr().err


def test_an_end_that_cannot_be_printed_hides_no_failure_before_it(monkeypatch, capsys):
    monkeypatch.setattr(work, "carry_out", lambda *a, **k: sys.stdout.write("two\n") and 1)
    monkeypatch.setattr(sys, "stdout", Refusing(errno.ENOSPC, at_flush=True))
    assert run(DISTILL) == 1
    assert capsys.readouterr().err.startswith(NO_ROOM)
