"""An OpenSSH server of the tests' own: on loopback, with its own keys, port and settings; and an `ssh` that knows it.

The `ssh` is a script in a folder that is put first on PATH; it adds a configuration of its own and is otherwise the
real one. The Python on the other side is a virtual environment that has numpy and ONNX Runtime and nothing else.
"""

import contextlib
import getpass
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
SSH = shutil.which("ssh")
_WAIT_S = 10


@dataclass
class Server:
    """A running server.

    Attributes:
        folder: everything of it.
        port: where it listens.
        process: itself; each connection is a child.

    """

    folder: Path
    port: int
    process: subprocess.Popen

    @property
    def path(self):
        """PATH with the `ssh` that knows this server."""
        return f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"

    @property
    def temporary(self):
        """Where its machine has temporary files."""
        return self.folder / "tmp"

    @property
    def python(self):
        """A Python with numpy and ONNX Runtime alone."""
        return self.folder / "venv" / "bin" / "python"

    def address(self, **options):
        """`ssh://...` of it."""
        given = {"python": self.python, "folder": self.temporary} | options
        query = "&".join(f"{name}={value}" for name, value in given.items() if value is not None)
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}?{query}"

    def processes(self):
        """Ids of the processes that work in its temporary files."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if str(self.temporary) in str((entry / "cwd").readlink()):
                        found.append(int(entry.name))
        return found

    def is_clean(self, within_s=_WAIT_S):
        """Whether neither files nor processes are left, at the latest after a while."""
        return _soon(lambda: not any(self.temporary.iterdir()) and not self.processes(), within_s)

    def is_idle(self, within_s=_WAIT_S):
        """Whether no process is left, at the latest after a while."""
        return _soon(lambda: not self.processes(), within_s)

    def sessions(self):
        """Ids of the processes that hold its connections."""
        return children(self.process.pid)


def _soon(holds, within_s):
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def children(pid):
    """Ids of a process's children."""
    return [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]


def key(path):
    """A key pair at `path` and `path`.pub."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def bare_python(folder, *packages):
    """A virtual environment with these packages, which are where they are; its site-packages."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in packages:
        for top in {file.parts[0] for file in importlib.metadata.files(name) if file.parts[0] != ".."}:
            (site / top).symlink_to(Path(importlib.metadata.distribution(name).locate_file(top)))
    return site


@contextlib.contextmanager
def server(folder):
    """Start one; it ends with the block. Skips the test where there is no sshd."""
    if SSHD is None or SSH is None:
        pytest.skip("needs OpenSSH's server and client: apt-get install openssh-server openssh-client")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd, as root, wants to lock itself in
    for name in ("bin", "tmp"):
        (folder / name).mkdir()
    bare_python(folder / "venv", "numpy", "onnxruntime")
    host, user = key(folder / "host"), key(folder / "user")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {host}\nAuthorizedKeysFile {user}.pub\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    )
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {Path(f'{host}.pub').read_text()}")
    (folder / "ssh_config").write_text(
        f"Host *\n  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile none\n  IdentitiesOnly yes\n"
        f"  IdentityFile {user}\n  IdentityAgent none\n  StrictHostKeyChecking yes\n  HashKnownHosts no\n"
        f"  UpdateHostKeys no\nHost board\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
    )
    script = folder / "bin" / "ssh"
    script.write_text(f'#!/bin/sh\nexec {SSH} -F {folder}/ssh_config "$@"\n')
    script.chmod(0o755)
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        _wait_for(port, process, folder / "sshd.log")
        yield Server(folder, port, process)
    finally:
        process.terminate()
        process.wait()


def _wait_for(port, process, log):
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.skip(f"sshd does not start here: {log.read_text()[-300:]}")


if sys.platform != "linux":  # what is left there is looked up in /proc
    SSHD = None
