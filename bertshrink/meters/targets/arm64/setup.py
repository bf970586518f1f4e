"""`bertshrink targets setup arm64`: prepares the emulated ARM system, whole or not at all.

    1  qemu-user and a C compiler: where they are missing, root installs Debian's packages; anybody else is told how
    2  Debian's packages and the wheels are fetched and unpacked (48 MB over the network, 117 MB on disk)
    3  the system runs once, emulated and counted; what it imports is compiled to bytecode then, which saves three
       seconds of every later run
    4  it is sealed and appears at its place

No step but the first changes anything outside bertshrink's cache.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from bertshrink.errors import BertshrinkError, MissingDependency, UserError
from bertshrink.files.atomic import new_folder
from bertshrink.files.scratch_folder import scratch_folder
from bertshrink.meters.targets import check_system
from bertshrink.meters.targets.arm64 import pins
from bertshrink.meters.targets.arm64.cores import CPUS
from bertshrink.meters.targets.arm64.count import EmulatedRunner, command, prepare_guest, read_marks, variables
from bertshrink.meters.targets.arm64.fetch import BY_HAND, check_tools, fetch_debian, fetch_wheels, leave_out, run
from bertshrink.meters.targets.arm64.plugin import INSTALL, find_compiler, find_qemu, plugin
from bertshrink.meters.targets.arm64.sysroot import ABOUT, Sysroot, check_root, find_root, place
from bertshrink.meters.targets.worker_process import run_in
from bertshrink.progress import Progress, Task
from bertshrink.worker.supervisor import tail

PROVED_ON = "a76"
_TIMEOUT_S = 300
_PROOF = """import json, sys
import numpy, onnxruntime
json.dump([numpy.__version__, onnxruntime.__version__], sys.stdout)
"""


def prepare(progress: Progress, mirror: str = pins.MIRROR, *, force: bool = False) -> Sysroot:
    """Prepare the emulated ARM system, or find that it is prepared.

    Args:
        mirror: address of a Debian archive.
        force: prepare it again even if it exists and whole.

    Raises:
        MissingDependency: something that is needed is not here and cannot be had, or this is not Linux.
        OutputError: the disk is full or the place is not writable.
        UserError: a folder that is not a prepared system is at the place.
    """
    check_system("arm64", "linux")
    with progress.task("prepare arm64", total=4, unit="steps") as task:
        _have_programs(task)
        task.advance(1)
        target = place()
        if not force and target.is_dir():
            root = find_root()
            check_root(root)
            task.log(f"it is already prepared: {target}")
            task.advance(3)
            return root
        if target.exists() and not (target / ABOUT).is_file():
            raise UserError(
                "this folder is not an emulated ARM system, so it is not replaced",
                where=str(target),
                hint="move it away, or name another",
            )
        check_tools()
        with new_folder(target, replace=True) as folder:
            _fill(folder, mirror, task)
            task.log("running it once, emulated")
            _prove(folder)
            task.advance(1)
        task.log(f"it is in {target}")
        task.advance(1)
    return find_root()


def _have_programs(task: Task) -> None:
    """Install the emulator and a compiler where they are missing and this user may."""
    missing = []
    for find, package in ((find_qemu, INSTALL["qemu-aarch64"]), (find_compiler, INSTALL["cc"])):
        try:
            find()
        except MissingDependency:
            if getattr(os, "geteuid", lambda: 1)() != 0 or shutil.which("apt-get") is None:
                raise
            missing += package.split()
    if missing:
        words = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
        task.log(f"running `{' '.join(words)}`")
        what = f"apt-get cannot install {' '.join(missing)}"
        try:
            run(words, Path("/"), what, "`apt-get update` may be due")
        except MissingDependency:
            run(["apt-get", "update"], Path("/"), what, "is there a network connection?")
            run(words, Path("/"), what, "install it by hand")
    plugin(find_qemu())


def _fill(folder: Path, mirror: str, task: Task) -> None:
    with scratch_folder() as name:
        scratch = name
        for part in ("debian", "wheels"):
            (scratch / part).mkdir()
        task.log(f"fetching {len(pins.PACKAGES)} packages of Debian ({pins.SUITE}, arm64)")
        debian = fetch_debian(scratch / "debian", folder, mirror)
        task.log(f"fetching {', '.join(f'{w.name} {w.version}' for w in pins.WHEELS)} for aarch64")
        wheels = fetch_wheels(scratch / "wheels", folder / "site")
    leave_out(folder)
    about = {"debian": debian, "wheels": wheels}
    (folder / ABOUT).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    task.advance(1)


def _prove(folder: Path) -> None:
    """Have the system import what it is for, counted."""
    qemu = find_qemu()
    with scratch_folder() as name:
        scratch = name
        emulated = EmulatedRunner(qemu, CPUS[PROVED_ON].model, folder, plugin(qemu))
        guest = prepare_guest(scratch, emulated)
        (guest / "proof.py").write_text(_PROOF, encoding="utf-8")
        (scratch / "job").touch()
        words = command(emulated, "/proof.py", writes_bytecode=True)
        code = run_in(scratch, words, variables(str(guest)), _TIMEOUT_S)
        try:
            versions = json.loads((scratch / "result").read_bytes()) if code == 0 else None
            read_marks(scratch, 0)
        except (ValueError, BertshrinkError):
            versions = None
        if versions != [w.version for w in pins.WHEELS]:
            raise MissingDependency(
                f"the prepared ARM system does not run under QEMU {qemu.version}",
                where=qemu.path,
                hint=f"bertshrink was tried with QEMU 7.2; {BY_HAND}; last lines of stderr:\n{tail(scratch / 'log')}",
            )
