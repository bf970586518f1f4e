"""Another machine, over the user's own OpenSSH: a Raspberry Pi, a Jetson, a phone with Termux, a server.

The machine needs an ssh server, Python 3.10 or newer, numpy and the engine; nothing of bertshrink is installed there.
The worker and the files of the models go over once, into a private folder, checked by sha256; every round is one
process there, in a short environment of its own, with nothing else of ours running on either side; the results come
back as JSON of bounded length. When the connection ends, for whatever reason, the worker and the folder go
(`worker.supervisor`).

    connection.py  the connection and what goes over it
    address.py     ssh://user@host:port?python=...&folder=...
    errors.py      what went wrong, in words

What its figures are worth: `measured-device`, since the user names the machine that is meant. An aarch64 machine that
is a server or a virtual machine (its firmware speaks DMI, which boards and phones have not; or it is QEMU's board) is a
stand-in for the boards with the same kernels: `measured-arm64`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bertshrink.errors import MeasurementError
from bertshrink.files.onnx_data_file import files_of
from bertshrink.meters.environment import environment
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.latency.worker_result import MachineInfo, WorkerResult, missing_package, read_result
from bertshrink.meters.latency.worker_zipapp import NAME, build_worker
from bertshrink.meters.targets import Target, TargetResult, check_system
from bertshrink.meters.targets.host import fixed_variables
from bertshrink.meters.targets.runner_target import RunnerTarget
from bertshrink.meters.targets.ssh.address import Address
from bertshrink.meters.targets.ssh.connection import SshConnection
from bertshrink.meters.targets.ssh.errors import PACKAGES, not_importable, not_installed
from bertshrink.meters.targets.worker_process import WorkerExit, results_of
from bertshrink.progress import Progress, Silent
from bertshrink.report.measurement import Environment, Evidence
from bertshrink.worker.job import RunSpec, WorkerJob

_LOOK = WorkerJob.without_model("this machine", do="look")
_LOOK_S = 120
"""A small board needs seconds to start Python, and a minute to import PyTorch for the first time."""

_OF_A_CHECKPOINT = (".json", ".safetensors")
"""What PyTorch needs of a model's folder."""

_PROBE = """
import importlib.util, json, sys
sys.path.insert(0, {name!r})
missing = [name for name in {packages!r} if importlib.util.find_spec(name) is None]
if not missing:
    from bertshrink import engines
    engines.engine({engine!r})
json.dump(missing, sys.stdout)
"""

R = TypeVar("R", bound=BaseModel)


@dataclass
class SshRunner:
    """Runs the worker on a machine that is reached by ssh.

    Attributes:
        evidence: what figures of this machine are worth.
    """

    address: Address
    link: SshConnection
    name: str = ""
    evidence: Evidence = Evidence.MEASURED_DEVICE
    _sent: dict[Path, str] = field(default_factory=dict)
    _environment: Environment | None = None

    @classmethod
    def connect(cls, address: Address) -> SshRunner:
        """Connect and send the worker.

        Raises:
            MissingDependency: no way there, or no Python that serves.
            OutputError: nothing can be written there.
        """
        link = SshConnection(address)
        try:
            link.put(NAME, build_worker())
        except BaseException:
            link.close()
            raise
        return cls(address, link, address.name, evidence_of(link.about))

    def __enter__(self) -> SshRunner:
        return self

    def __exit__(self, *error: object) -> None:
        self.link.close()

    def environment(self) -> Environment:
        """The machine, as it names itself. Raises MeasurementError: not in words that can be understood."""
        if self._environment is None:
            info = read_result(self.answer(_LOOK, _LOOK_S), MachineInfo, _LOOK)
            try:
                self._environment = environment(info.machine)
            except ValidationError as error:
                what = f"what `{self.address}` says of itself is of another form: {error.errors()[0]['msg']}"
                raise MeasurementError(what, where=self.name) from None
        return self._environment

    def require(self, engines: Iterable[str]) -> None:
        """See to it that engines can be imported there.

        Raises:
            MissingDependency: one is not installed, or was built for another machine.
        """
        for engine in dict.fromkeys(engines):
            code = _PROBE.format(name=f"{self.link.about['folder']}/{NAME}", packages=PACKAGES[engine], engine=engine)
            (ended,) = self.link.run([None, "-c", code], [""], fixed_variables(1), _LOOK_S)
            if ended.code != 0:
                raise not_importable(self.address, self.link.about, engine, ended.code, ended.log)
            if missing := _names(ended):
                raise not_installed(self.address, self.link.about, engine, missing)

    def send(self, paths: Iterable[Path], progress: Progress) -> None:
        """Send the files of models that were not sent yet.

        Raises:
            OutputError: there is no room for them.
            MissingDependency: the connection broke.
        """
        files = {path: _files(path) for path in dict.fromkeys(paths) if path not in self._sent}
        if not files:
            return
        total = sum(file.stat().st_size for model_files in files.values() for file in model_files)
        with progress.task(f"sending to {self.address}", total=total / 1e6, unit="MB") as task:
            for path, model_files in files.items():
                place = f"model-{len(self._sent)}"
                for file in model_files:
                    name = file.relative_to(path.parent).as_posix()
                    self.link.put(f"{place}/{name}", file, lambda num: task.advance(num / 1e6))
                self._sent[path] = f"{self.link.about['folder']}/{place}/{path.name}"

    def run(self, jobs: Sequence[WorkerJob], timeout_s: float) -> list[WorkerResult]:
        """Run jobs there in fresh processes that take turns, and wait for them, asleep.

        Raises:
            MeasurementError: a worker died, hung, or gave no result that can be believed.
            MissingDependency: an engine is not installed there, or the connection broke.
            OutputError: there is no room for a model.
        """
        start_ns = time.perf_counter_ns()
        ended = self._ended(jobs, timeout_s)
        for job, one in zip(jobs, ended, strict=True):
            if missing := missing_package(one.result):
                raise not_installed(self.address, self.link.about, job.engine, [missing])
        return results_of(ended, jobs, timeout_s, time.perf_counter_ns() - start_ns)

    def answer(self, job: WorkerJob, timeout_s: float) -> bytes:
        """What the worker writes for a job of any kind.

        Raises:
            MeasurementError: the worker died or hung.
            MissingDependency: the connection broke.
        """
        return self._ended([job], timeout_s)[0].answer(job, timeout_s)

    def _ended(self, jobs: Sequence[WorkerJob], timeout_s: float) -> list[WorkerExit]:
        texts = [self._there(job).to_json() for job in jobs]
        command = [None, f"{self.link.about['folder']}/{NAME}"]
        return self.link.run(command, texts, fixed_variables(jobs[0].threads), timeout_s)

    def _there(self, job: WorkerJob) -> WorkerJob:
        """The job with its paths as they are over there."""
        if job.do == "look":
            return job
        tokenizer = job.tokenizer if any("texts" in case for case in job.cases) else None
        self.send([job.path, *([tokenizer] if tokenizer else [])], Silent())
        there = {path: Path(place) for path, place in self._sent.items()}
        return replace(job, path=there[job.path], tokenizer=tokenizer and there[tokenizer])


def _names(ended: WorkerExit) -> list[str]:
    try:
        return [str(name) for name in json.loads(ended.result)]
    except (ValueError, TypeError, RecursionError):
        raise MeasurementError(f"what the worker says of its packages is not a list: {ended.result[:100]!r}") from None


def _files(path: Path) -> list[Path]:
    """What an engine needs of a model: its file and the weights beside it, or those of a checkpoint's folder."""
    if not path.is_dir():
        return files_of(path)
    return [file for file in sorted(path.iterdir()) if file.is_file() and file.suffix in _OF_A_CHECKPOINT]


def evidence_of(about: Mapping[str, Any]) -> Evidence:
    """What figures of a machine are worth, from what it says of itself (this file's opening)."""
    is_arm = about.get("machine") in ("aarch64", "arm64")
    stands_in = about.get("firmware") or "dummy-virt" in str(about.get("board"))
    return Evidence.MEASURED_ARM64 if is_arm and stands_in else Evidence.MEASURED_DEVICE


@dataclass(frozen=True)
class SshTarget:
    """Times models on a machine that is reached by ssh.

    Attributes:
        evidence: of most machines; each figure says what it is worth.
    """

    address: Address
    evidence: Evidence = Evidence.MEASURED_DEVICE

    @property
    def name(self) -> str:
        """The address's."""
        return self.address.name

    def check(self, launches: Mapping[str, RunSpec]) -> None:
        """Connect, and see whether the engines are there.

        Raises:
            MissingDependency: no way there, no Python that serves, or no engine.
            OutputError: nothing can be written there.
        """
        with SshRunner.connect(self.address) as machine:
            machine.require(launch.engine for launch in launches.values())

    def measure(self, launches: Mapping[str, RunSpec], settings: LatencySettings, progress: Progress) -> TargetResult:
        """Send the models and time them there side by side.

        Raises:
            MissingDependency: as `check`; or the connection broke.
            MeasurementError: nothing that can be believed.
            OutputError: the models do not fit.
        """
        with SshRunner.connect(self.address) as machine:
            machine.require(launch.engine for launch in launches.values())
            machine.send((launch.path for launch in launches.values()), progress)
            return RunnerTarget(machine).measure(launches, settings, progress)


def open_target(text: str) -> Target:
    """The target `ssh://user@host`.

    Raises:
        MissingDependency: on Windows.
        UserError: the address is none.
    """
    check_system("ssh", "linux", "darwin")
    return SshTarget(Address.read(text))
