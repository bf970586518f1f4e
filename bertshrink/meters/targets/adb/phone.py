"""An Android device by the user's own `adb`: short commands, each in a process of its own that this one sleeps beside.

Old devices do not give the status of a command back, so every command prints it. Whatever a command writes goes to a
file here, of which no more is read than it can have to say.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path

from bertshrink.errors import BertshrinkError, MeasurementError, MissingDependency, OutputError
from bertshrink.files.scratch_folder import scratch_folder
from bertshrink.report.measurement import Environment
from bertshrink.worker.supervisor import printable, run_in

PLACE = "/data/local/tmp"
"""Where a device lets the shell put programs and run them."""

_STATUS = "bertshrink-status="
_MOST_BYTES = 16_000_000
_SHORT_S = 60
_PUSH_S = 900
_STATES = (
    # what adb says; what it means; how to fix it
    (r"unauthorized|authorizing", "the device `{}` does not trust this computer", "unlock it and allow USB debugging"),
    (r"no permissions|insufficient permissions", "this user may not use the device `{}`", "see its udev rules"),
    (r"offline", "the device `{}` is offline", "unplug it and plug it in again"),
    (r"more than one", "several devices are connected", "name one: adb://SERIAL; `adb devices` lists them"),
    (r"not found|no devices", "there is no device `{}`", "`adb devices` lists those that are connected"),
)
_PROPERTIES = ("ro.product.manufacturer", "ro.product.model", "ro.soc.model", "ro.board.platform", "ro.product.cpu.abi")
_ISA = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme")


class AndroidDevice:
    """A device that is connected.

    Args:
        serial: as `adb devices` names it; empty: the only one.

    Raises:
        MissingDependency: no adb here, or no device that can be used.
    """

    def __init__(self, serial: str) -> None:
        program = shutil.which("adb")
        if program is None:
            raise MissingDependency(
                "`adb` is not installed here", where=f"adb://{serial}", hint="install Android's platform tools"
            )
        self.serial = serial
        self._command = [program, *(["-s", serial] if serial else [])]
        code, words = self._adb(["get-state"], _SHORT_S)
        if code != 0 or words.strip() != "device":
            raise self._unusable(words)

    def shell(self, command: str, timeout_s: float = _SHORT_S) -> tuple[int, str]:
        """Run a command there; its status and what it said.

        Raises:
            MeasurementError: it did not end in time.
            MissingDependency: the device is gone.
        """
        code, words = self._adb(["shell", f"{command}; echo {_STATUS}$?"], timeout_s)
        said, mark, status = words.rpartition(_STATUS)
        if not mark or not status.strip().isdecimal():
            raise self._unusable(words if code else "the connection to the device was lost")
        return int(status), said

    def push(self, file: Path, path: str) -> None:
        """Put a file there.

        Raises:
            OutputError: there is no room for it.
            MissingDependency: the device is gone.
        """
        code, words = self._adb(["push", str(file), path], _PUSH_S)
        if code and re.search(r"No space left|Read-only|Permission denied", words):
            raise OutputError(
                f"`{file.name}` cannot be written on the device `{self.serial}`",
                where=f"adb://{self.serial}",
                hint=f"free some space there; it said: {words.strip()[-200:]}",
            )
        if code:
            raise self._unusable(words)

    def folder(self) -> str:
        """Make a private folder there; its path."""
        path = f"{PLACE}/bertshrink-{secrets.token_hex(6)}"
        code, words = self.shell(f"mkdir -m 700 {path}")
        if code:
            raise OutputError(f"no folder can be made on the device `{self.serial}`: {words.strip()}")
        return path

    def environment(self, packages: dict[str, str]) -> Environment:
        """The device as it names itself, without an id; `packages` are what runs models there."""
        told = {name: self.shell(f"getprop {name}")[1].strip() for name in _PROPERTIES}
        system = self.shell("getprop ro.build.version.release")[1].strip()
        cores = self.shell("nproc")[1].strip()
        features = re.search(r"^Features\s*:(.*)$", self.shell("cat /proc/cpuinfo")[1], re.MULTILINE)
        memory = re.search(r"MemTotal:\s*(\d+) kB", self.shell("cat /proc/meminfo")[1])
        flags = set((features[1] if features else "").split())
        chip = told["ro.soc.model"] or told["ro.board.platform"]
        name = " ".join(dict.fromkeys(told[key] for key in _PROPERTIES[:2] if told[key]))
        return Environment(
            id="",
            cpu=f"{name or 'Android device'}{f' ({chip})' if chip else ''}",
            isa=tuple(flag for flag in _ISA if flag in flags),
            num_cores=int(cores) if cores.isdecimal() else 0,
            memory_bytes=int(memory[1]) * 1024 if memory else 0,
            system=f"Android {system}, {told['ro.product.cpu.abi']}",
            packages=packages,
        )

    def _adb(self, words: list[str], timeout_s: float) -> tuple[int, str]:
        with scratch_folder() as scratch:
            folder = scratch
            (folder / "job").write_bytes(b"")
            code = run_in(folder, [*self._command, *words], os.environ, timeout_s)
            said = b""
            for name in ("log", "result"):
                with (folder / name).open("rb") as file:
                    said += file.read(_MOST_BYTES)
        text = printable(said.decode("utf-8", errors="replace").replace("\r", ""))
        if code is None:
            raise MeasurementError(
                f"the device `{self.serial}` did not answer within {timeout_s:g} s",
                where=f"adb://{self.serial}",
                hint=text[-500:] or None,
            )
        return code, text

    def _unusable(self, words: str) -> BertshrinkError:
        for pattern, what, mending in _STATES:
            if re.search(pattern, words):
                return MissingDependency(what.format(self.serial), where=f"adb://{self.serial}", hint=mending)
        return MissingDependency(
            f"the device `{self.serial}` cannot be used",
            where=f"adb://{self.serial}",
            hint=words.strip()[-500:] or None,
        )
