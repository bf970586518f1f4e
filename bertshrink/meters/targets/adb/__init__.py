"""A phone on a cable: `adb://SERIAL?runner=/path/to/onnxruntime_perf_test`, or an ExecuTorch runner for .pte files.

Phones have no Python, so the engines' own programs run there, built for the phone by the user, and tell their own times
(`runner_programs`). Runner, models and inputs go into a private folder under /data/local/tmp once; every round is one
process per model and shape, in turn; the folder goes at the end. Only latency is told: these programs measure nothing
else alike.

Warm-up is the first part of what a process runs: the same share for every model. A phone that gets warm slows down and
says so to nobody: look at the drift between rounds.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from bertshrink.errors import BertshrinkError, MeasurementError, MissingDependency, UserError, did_you_mean
from bertshrink.files.atomic import sha256_file
from bertshrink.files.onnx_data_file import files_of
from bertshrink.files.scratch_folder import scratch_folder
from bertshrink.meters.environment import fingerprint
from bertshrink.meters.latency.launch import conditions_of
from bertshrink.meters.latency.measure import alternating_order, check_cases, job_of
from bertshrink.meters.latency.settings import MIN_SAMPLES, LatencySettings
from bertshrink.meters.latency.validity import of_case, validity_of
from bertshrink.meters.targets import Target, TargetResult, check_system
from bertshrink.meters.targets.adb.benchmark_binaries import (
    TOOLS,
    abi_of,
    executor,
    perf_test,
    read_executor,
    read_perf_test,
    write_inputs,
)
from bertshrink.meters.targets.adb.phone import AndroidDevice
from bertshrink.report.measurement import Environment, Evidence, Measurement, MeasurementWarning
from bertshrink.worker.inputs import random_feed
from bertshrink.worker.job import RunSpec

if TYPE_CHECKING:
    from bertshrink.progress import Progress

_FIRST_TIMES = 10
"""Inferences that decide how many make a round of a .pte program."""

_MOST_TIMES = 10_000
_START_S = 120
"""What starting and loading may take besides the time to sample."""

Case = tuple[int, int]


@dataclass
class _Samples:
    """Seconds of one model in one case, by round."""

    warm: list[list[float]] = field(default_factory=list)
    kept: list[list[float]] = field(default_factory=list)

    def add(self, seconds: list[float], warmup_s: float) -> None:
        """Part what a process told: the warm-up lasts `warmup_s`, and leaves `MIN_SAMPLES` where there are so many."""
        number, gone = 0, 0.0
        while gone < warmup_s and number < len(seconds) - MIN_SAMPLES:
            gone += seconds[number]
            number += 1
        self.warm.append(seconds[:number])
        self.kept.append(seconds[number:])


@dataclass(frozen=True)
class Adb:
    """Times models on an Android device by programs of the user's.

    Attributes:
        serial: of the device; empty: the only one.
    """

    serial: str
    runner: Path
    evidence: Evidence = Evidence.MEASURED_DEVICE

    @property
    def name(self) -> str:
        """The address, with the runner's name."""
        return f"adb://{self.serial}?runner={self.runner.name}"

    def check(self, launches: Mapping[str, RunSpec]) -> None:
        """See whether the device, the runner and the models fit together.

        Raises:
            MissingDependency: no adb, no device, or a runner for another processor.
            UserError: no runner, or a model that it cannot run.
        """
        built_for = abi_of(self.runner)
        for name, launch in launches.items():
            if launch.path.suffix not in TOOLS or launch.engine not in ("onnxruntime", "executorch"):
                raise UserError(f"`{name}` is not a file that runs on a phone", hint="export it: .onnx, .ort or .pte")
            if len(files_of(launch.path)) > 1:
                what = f"`{name}` keeps its weights in a file beside it, of which a runner on a phone is not told"
                raise UserError(what, hint="make it smaller: `bertshrink quantize` writes one file where it fits")
        if len({TOOLS[launch.path.suffix] for launch in launches.values()}) > 1:
            raise UserError("one runner runs ONNX files or .pte programs", hint="measure them on two targets")
        phone = AndroidDevice(self.serial)
        abis = phone.shell("getprop ro.product.cpu.abilist")[1].strip()
        if built_for not in abis.split(","):
            raise MissingDependency(
                f"`{self.runner.name}` is built for {built_for or 'no Android device'}, the device runs {abis}",
                where=self.name,
                hint=f"build it with the NDK for {abis.split(',')[0]}",
            )

    def measure(self, launches: Mapping[str, RunSpec], settings: LatencySettings, progress: Progress) -> TargetResult:
        """Time all models side by side: `latency` in s per case.

        Raises:
            MissingDependency: as `check`; or the device went away.
            MeasurementError: a runner that failed, hung, or told no times.
            UserError: texts were asked for, or a model does not take a case.
            OutputError: there is no room.
        """
        if settings.texts is not None:
            raise UserError(f"`{self.name}` measures shapes, not texts", hint="give batch sizes and lengths")
        check_cases(launches, settings)
        phone = AndroidDevice(self.serial)
        machine = phone.environment({self.runner.name: sha256_file(self.runner)[:12]})
        machine = machine.model_copy(update={"id": fingerprint(machine)})
        with _folder(phone) as folder:
            run = _Run(phone, folder, settings, settings.threads or machine.num_cores or 1)
            run.send(self.runner, launches, progress)
            rounds = run.all(launches, progress)
        measurements = {
            name: [self._figure(launch, case, samples, run.threads, machine) for case, samples in rounds[name].items()]
            for name, launch in launches.items()
        }
        note = f"{self.name}: times are those reported by {self.runner.name}, without the checks of bertshrink's worker"
        return TargetResult(measurements, machine, (note,))

    def _figure(
        self,
        launch: RunSpec,
        case: Case,
        samples: _Samples,
        threads: int,
        machine: Environment,
    ) -> Measurement:
        title = f"{case[0]}x{case[1]}"
        warnings = of_case(title, samples.kept, samples.warm, [0.0])
        if any(len(values) == 1 for values in samples.kept):
            warnings += (MeasurementWarning(kind="means_only", case=title),)
        return Measurement(
            metric="latency",
            unit="s",
            samples=tuple(tuple(values) for values in samples.kept),
            better="lower",
            conditions=conditions_of(launch, self.name, threads, *case).model_copy(update={"phase": "steady"}),
            evidence=self.evidence,
            environment=machine.id,
            warnings=warnings,
            validity=validity_of(warnings),
        )


@contextlib.contextmanager
def _folder(phone: AndroidDevice) -> Iterator[str]:
    """A private folder on the device, which goes with the block."""
    path = phone.folder()
    try:
        yield path
    finally:
        with contextlib.suppress(BertshrinkError):  # a device that is gone keeps it until it is asked again
            phone.shell(f"rm -rf {path}")


class _Run:
    """Everything that runs on one device."""

    def __init__(self, phone: AndroidDevice, folder: str, settings: LatencySettings, threads: int) -> None:
        self.phone, self.folder, self.settings, self.threads = phone, folder, settings, threads
        self.cases: list[Case] = [(case["batch"], case["length"]) for case in settings.cases]
        self.places: dict[str, str] = {}
        self.times: dict[tuple[str, Case], int] = {}

    def send(self, runner: Path, launches: Mapping[str, RunSpec], progress: Progress) -> None:
        with progress.task("sending to the device", total=1 + len(launches), unit="files") as task:
            self.phone.push(runner, f"{self.folder}/runner")
            self._must(f"chmod 700 {self.folder}/runner")
            task.advance(1)
            for number, (name, launch) in enumerate(launches.items()):
                self.places[name] = f"{self.folder}/model{number}{launch.path.suffix}"
                self.phone.push(launch.path, self.places[name])
                if launch.path.suffix != ".pte":
                    for case in self.cases:
                        self._send_inputs(launch, self.places[name], case)
                task.advance(1, model=name)

    def _send_inputs(self, launch: RunSpec, model: str, case: Case) -> None:
        """A folder for one shape: the inputs, and the model by a link, since the runner looks beside it."""
        place = _case_folder(model, case)
        data = f"{place}/test_data_set_0"
        self._must(f"mkdir -p {data} && ln -s {model} {place}/model{launch.path.suffix}")
        with scratch_folder() as scratch:
            feeds = random_feed(job_of(launch, self.settings, self.threads), *case)
            for file in write_inputs(feeds, scratch):
                self.phone.push(file, f"{data}/{file.name}")

    def all(self, launches: Mapping[str, RunSpec], progress: Progress) -> dict[str, dict[Case, _Samples]]:
        samples = {name: {case: _Samples() for case in self.cases} for name in launches}
        total = self.settings.rounds * len(launches) * len(self.cases)
        with progress.task("latency on the device", total=total, unit="processes") as task:
            for number in range(self.settings.rounds):
                for name in alternating_order(list(launches), number):
                    for case in self.cases:
                        seconds = self.once(name, launches[name], case)
                        samples[name][case].add(seconds, self.settings.warmup)
                        task.advance(1, model=name)
        return samples

    def once(self, name: str, launch: RunSpec, case: Case) -> list[float]:
        """One process: seconds of every inference."""
        if launch.path.suffix == ".pte":
            return self._programs(name, launch, case)
        place = _case_folder(self.places[name], case)
        result = f"{place}/result.csv"
        seconds = self.settings.seconds + self.settings.warmup
        model = f"{place}/model{launch.path.suffix}"
        self._timed(launch, perf_test(self.folder, model, result, seconds, self.threads))
        text = self._must(f"cat {result} && rm {result}")
        return read_perf_test(text)

    def _programs(self, name: str, launch: RunSpec, case: Case) -> list[float]:
        shape = f"{case[0]}x{case[1]}"
        shapes = None if launch.shape is not None else ",".join([shape] * len(launch.inputs))

        def run(times: int) -> list[float]:
            command = executor(self.folder, self.places[name], times, self.threads, shapes)
            said = self._timed(launch, command)
            if "Iteration" not in said and "executed successfully" not in said:
                pid = said.partition("pid ")[2].split("\n", 1)[0].strip()
                said = self._must(f"logcat -d -v raw --pid={pid}") if pid.isdecimal() else said
            return read_executor(said)

        if (name, case) not in self.times:
            wanted = (self.settings.seconds + self.settings.warmup) / statistics.median(run(_FIRST_TIMES))
            self.times[name, case] = int(min(_MOST_TIMES, max(2 * MIN_SAMPLES, wanted)))
        return run(self.times[name, case])

    def _timed(self, launch: RunSpec, command: str) -> str:
        """Run a runner; what it said. It names its process id first, and is killed there when its time is up."""
        limit = self.settings.timeout
        code, said = self.phone.shell(
            f"cd {self.folder} && LD_LIBRARY_PATH={self.folder} timeout -s KILL {limit:.0f} "
            f"sh -c 'echo pid $$; exec \"$@\"' sh {command} 2>&1",
            limit + _START_S,
        )
        if code in (124, 137):
            raise MeasurementError(f"the runner of `{launch.path}` gave no result within {limit:g} s")
        if code:
            raise MeasurementError(
                f"the runner of `{launch.path}` failed with exit status {code}",
                hint=f"last lines of stderr:\n{said[-1500:]}",
            )
        return said

    def _must(self, command: str) -> str:
        code, said = self.phone.shell(command)
        if code:
            raise MeasurementError(f"`{command.split()[0]}` failed on the device: {said.strip()[-300:]}")
        return said


def _case_folder(model: str, case: Case) -> str:
    return f"{model.rpartition('.')[0]}-{case[0]}x{case[1]}"


def open_target(text: str) -> Target:
    """The target `adb://SERIAL?runner=PATH`.

    Raises:
        MissingDependency: on Windows.
        UserError: the address is none, or names no runner.
    """
    check_system("adb", "linux", "darwin")
    parts = urlsplit(text)
    options = dict(parse_qsl(parts.query))
    strange = next((name for name in options if name != "runner"), None)
    if strange is not None or parts.path or parts.fragment or not text.startswith("adb://"):
        what = f"there is no option `{strange}`" if strange else f"`{text}` is not an address of a device"
        raise UserError(what, where="--target", hint=did_you_mean(strange or "", ("runner",)))
    if "runner" not in options:
        raise UserError(
            f"`{text}` does not name a runner",
            where="--target",
            hint="build onnxruntime_perf_test or executor_runner for Android: adb://SERIAL?runner=/path/to/it",
        )
    return Adb(parts.netloc, Path(options["runner"]).expanduser())
