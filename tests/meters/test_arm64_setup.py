"""`bertshrink targets`: the list, and the emulated ARM system prepared whole or not at all, by tools that are none."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bertshrink.cli.app import run
from bertshrink.errors import MissingDependency, UserError
from bertshrink.meters.targets.arm64 import fetch, pins, setup
from bertshrink.meters.targets.arm64 import plugin as plugins
from bertshrink.meters.targets.arm64 import sysroot as roots
from bertshrink.progress import Silent
from tests.support.fake_emulators import fake_qemu, fake_root

PROVEN = f"out = json.dumps({[w.version for w in pins.WHEELS]}).encode()"
"""What an emulated system answers that works."""

APT = """#!/bin/sh
echo "$*" >> {log}
case "$*" in
  *download*) touch libc6_2.36-9_arm64.deb "zlib1g_1%3a1.2_arm64.deb" python3.11-minimal_3.11.2_arm64.deb;;
esac
"""
DPKG = """#!/bin/sh
mkdir -p "$3/lib" "$3/usr/bin" "$3/usr/share/doc" "$3/etc"
echo x > "$3/lib/libc.so.6"; echo x > "$3/usr/bin/python3.11"; chmod +x "$3/usr/bin/python3.11"
echo x > "$3/usr/share/doc/copyright"; ln -sf /etc/x "$3/etc/x"; ln -sf libc.so.6 "$3/lib/libc.so"
"""


def program(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Stand-ins for every program and package that the preparation uses; nothing is fetched."""
    bin_ = tmp_path / "bin"
    fake_qemu(bin_, PROVEN)
    program(bin_, "apt-get", APT.format(log=tmp_path / "apt.log"))
    program(bin_, "dpkg-deb", DPKG)
    program(bin_, "cc", '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho so > "$2"\n')
    keyring = tmp_path / "keys"
    keyring.touch()
    monkeypatch.setattr(fetch, "KEYRING", keyring)
    monkeypatch.setenv("PATH", f"{bin_}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(roots.VARIABLE, raising=False)
    monkeypatch.delenv("CC", raising=False)

    def wheels(scratch, site):
        (site / "onnxruntime" / "tools").mkdir(parents=True)
        (site / "onnxruntime" / "x.py").write_text("x")
        (site / "onnxruntime" / "tools" / "y.py").write_text("y")
        return {w.name: w.version for w in pins.WHEELS}

    monkeypatch.setattr(setup, "fetch_wheels", wheels)
    return tmp_path


def left(tools):
    folder = roots.cache()
    return [path.name for path in folder.iterdir() if not path.name.startswith("count-")] if folder.exists() else []


@pytest.mark.subprocess
def test_it_is_prepared_sealed_and_found(tools):
    root = setup.prepare(Silent(), "http://mirror.test/debian")
    roots.check_root(root)
    files = sorted(p.relative_to(root.folder).as_posix() for p in root.folder.rglob("*") if not p.is_dir())
    assert files == [
        "MANIFEST.json",
        "about.json",
        "lib/libc.so",
        "lib/libc.so.6",
        "site/onnxruntime/x.py",
        "usr/bin/python3.11",
    ]
    assert os.access(root.folder / "usr/bin/python3.11", os.X_OK)
    assert root.about.debian == {"libc6": "2.36-9", "zlib1g": "1:1.2", "python3.11-minimal": "3.11.2"}
    assert root.about.wheels["onnxruntime"] == "1.24.1"
    said = (tools / "apt.log").read_text()
    assert "APT::Architecture=arm64" in said
    assert "sourceparts=-" in said
    assert "install" not in said


@pytest.mark.slow
def test_a_second_time_nothing_is_done_unless_forced(tools, monkeypatch):
    first = setup.prepare(Silent())
    before = (first.folder / "about.json").stat().st_ino
    (tools / "apt.log").unlink()
    assert setup.prepare(Silent()) == first
    assert not (tools / "apt.log").exists()
    (first.folder / "site" / "onnxruntime" / "x.py").write_text("changed")
    with pytest.raises(MissingDependency, match="damaged"):
        setup.prepare(Silent())
    roots.check_root(setup.prepare(Silent(), force=True))
    assert (first.folder / "about.json").stat().st_ino != before


def failing(name, words):
    return lambda tools: program(tools / "bin", name, f"#!/bin/sh\necho '{words}' >&2\nexit 100\n")


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("fault", "message", "hint"),
    [
        (
            failing("apt-get", "Could not resolve deb.debian.org"),
            "packages for arm64 cannot be downloaded",
            "Could not resolve",
        ),
        (failing("dpkg-deb", "No space left"), "cannot be unpacked", "No space left"),
        (failing("cc", "no stdio.h"), "cannot make the plugin", "no stdio.h"),
        (lambda tools: fake_qemu(tools / "bin", "out = b'[]'"), "does not run under QEMU 7.2.22", "QEMU 7.2"),
        (lambda tools: fake_qemu(tools / "bin", "raise SystemExit(1)"), "does not run under QEMU", "copy a prepared"),
        (lambda tools: (tools / "keys").unlink(), "Debian's keys are not installed", "debian-archive-keyring"),
    ],
)
def test_whatever_fails_leaves_nothing(tools, fault, message, hint):
    fault(tools)
    with pytest.raises(MissingDependency, match=message) as caught:
        setup.prepare(Silent())
    assert hint in caught.value.hint
    assert left(tools) == []


@pytest.mark.subprocess
def test_without_apt(tools, monkeypatch):
    (tools / "bin" / "apt-get").unlink()
    monkeypatch.setenv("PATH", str(tools / "bin"))
    with pytest.raises(MissingDependency, match="no `apt-get`") as caught:
        setup.prepare(Silent())
    assert roots.VARIABLE in caught.value.hint


@pytest.mark.subprocess
def test_root_installs_the_emulator_and_says_so(tools, monkeypatch, capsys):
    only(tools, monkeypatch, "sh", "touch", "mkdir", "cp", "chmod", "ln", "echo")
    there = tools / "bin" / "qemu-aarch64"
    there.rename(tools / "qemu")
    installs = f'case "$*" in install*) cp {tools / "qemu"} {there};; esac\n'
    program(tools / "bin", "apt-get", APT.format(log=tools / "apt.log") + installs)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert run(["targets", "setup", "arm64"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(roots.place())
    assert "running `apt-get install --yes --no-install-recommends qemu-user`" in err
    assert (tools / "apt.log").read_text().startswith("install --yes --no-install-recommends qemu-user\n")


def test_anybody_else_is_told_what_to_install(tools, monkeypatch):
    only(tools, monkeypatch)
    (tools / "bin" / "qemu-aarch64").unlink()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingDependency, match="not installed") as caught:
        setup.prepare(Silent())
    assert "sudo apt-get install qemu-user" in caught.value.hint
    assert not (tools / "apt.log").exists()


def only(tools, monkeypatch, *names):
    """Let nothing but the stand-ins and these programs be found."""
    for name in names:
        if found := shutil.which(name, path="/usr/bin:/bin"):
            (tools / "bin" / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(tools / "bin"))


@pytest.mark.subprocess
def test_a_folder_that_is_something_else_is_not_replaced(tools, monkeypatch):
    (tools / "mine").mkdir()
    (tools / "mine" / "letter").write_text("dear")
    monkeypatch.setenv(roots.VARIABLE, str(tools / "mine"))
    with pytest.raises(UserError, match="not replaced"):
        setup.prepare(Silent(), force=True)
    assert (tools / "mine" / "letter").read_text() == "dear"


def test_wheels_are_asked_for_by_version_and_hash(tmp_path, monkeypatch):
    asked = []

    def pip(command, folder, what, hint):
        asked.append((command, (folder / "requirements.txt").read_text()))
        shutil.make_archive(str(folder / "a"), "zip", root_dir=Path(__file__).parent, base_dir=Path(__file__).name)
        (folder / "a.zip").rename(folder / "a.whl")

    monkeypatch.setattr(fetch, "run", pip)
    (tmp_path / "scratch").mkdir()
    fetch.fetch_wheels(tmp_path / "scratch", tmp_path / "site")
    (command, text) = asked[0]
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--require-hashes", "--no-deps", "manylinux_2_28_aarch64"} <= set(command)
    assert text.splitlines() == [f"{w.name}=={w.version} --hash=sha256:{w.sha256}" for w in pins.WHEELS]
    assert (tmp_path / "site" / Path(__file__).name).is_file()


def test_another_set_of_parts_has_another_folder(monkeypatch):
    before = pins.digest()
    monkeypatch.setattr(pins, "SUITE", "trixie")
    assert pins.digest() != before


# The command line -----------------------------------------------------------------------------------------------------


@pytest.mark.subprocess
def test_the_list_says_what_is_missing(tools, capsys, monkeypatch):
    assert run(["targets", "list", "--json"]) == 0
    rows = {row["target"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["cpu"]["ready"]
    assert not rows["arm64"]["ready"]
    assert "targets setup arm64" in rows["arm64"]["missing"]["hint"]
    assert rows["ssh"]["ready"] is None
    for argv in (["targets", "list"], ["doctor"]):
        assert run(argv) == 0
        assert "for arm64: the emulated ARM system is not prepared; `bertshrink" in capsys.readouterr().out
    monkeypatch.setenv(roots.VARIABLE, str(fake_root(tools / "root")))
    assert run(["targets", "list", "--json"]) == 0
    rows = {row["target"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["arm64"]["ready"] and rows["arm64"]["missing"] is None
    assert run(["targets", "list"]) == 0
    assert "for arm64" not in capsys.readouterr().out


def test_setup_of_what_needs_none(capsys):
    assert run(["targets", "setup", "cpu"]) == 2
    assert "`cpu` needs no preparation" in capsys.readouterr().err


@pytest.mark.subprocess
def test_the_plugin_compiles_without_a_warning(tmp_path):
    compiler = next(filter(None, map(shutil.which, plugins.COMPILERS)), None)
    if compiler is None:
        pytest.skip("there is no C compiler")
    for api in (1, 2):
        options = ["-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", f"-DPLUGIN_API={api}"]
        subprocess.run([compiler, *options, "-o", str(tmp_path / "x.so"), str(plugins.SOURCE)], check=True)
