"""Where a model is run: the table of targets, and what every one of them gives back.

There are two kinds. A *runner* has the worker do jobs somewhere, one process each, and gives back its result; the
rounds (`meters.latency.measure`) are the same for all of them. Any other target has a way of its own to find something
out (count instructions, model a range) and gives measurements.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from bertshrink.errors import MissingDependency, UserError, did_you_mean
from bertshrink.report.measurement import Environment, Evidence, Measurement

if TYPE_CHECKING:
    from bertshrink.meters.latency.settings import LatencySettings
    from bertshrink.progress import Progress
    from bertshrink.worker.job import RunSpec


@dataclass(frozen=True)
class TargetResult:
    """What one target measured.

    Attributes:
        measurements: by model.
        environment: the machine they are of.
        notes: for the report, a sentence each.
        details: by model, what its figures mean, a sentence each.
    """

    measurements: dict[str, list[Measurement]]
    environment: Environment
    notes: tuple[str, ...] = ()
    details: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """In JSON values."""
        return {
            "measurements": {
                name: [m.model_dump(mode="json") for m in entries] for name, entries in self.measurements.items()
            },
            "environment": self.environment.model_dump(mode="json"),
            "notes": list(self.notes),
            "details": self.details,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TargetResult:
        """Of `to_json`."""
        measurements = {
            name: [Measurement.model_validate(entry) for entry in entries]
            for name, entries in data["measurements"].items()
        }
        return cls(measurements, Environment.model_validate(data["environment"]), tuple(data["notes"]), data["details"])


class Target(Protocol):
    """A place, or a way, to find out how a model runs."""

    @property
    def name(self) -> str:
        """As it was asked for: `cpu`, `arm64:a76`, `ssh://pi@board`."""

    @property
    def evidence(self) -> Evidence:
        """What its figures are worth."""

    def check(self, launches: Mapping[str, RunSpec]) -> None:
        """Find whatever is wrong before anything is measured.

        Raises:
            MissingDependency: something that it needs is not there.
            UserError: a model that it cannot run.
        """

    def measure(self, launches: Mapping[str, RunSpec], settings: LatencySettings, progress: Progress) -> TargetResult:
        """Find out all there is to find of all models.

        Raises:
            MeasurementError: nothing that can be believed.
            MissingDependency: something that it needs is not there, or went away.
        """


@dataclass(frozen=True)
class TargetKind:
    """One row of the table.

    Attributes:
        opens: `module:function` that makes a target of its address.
        what: in a few words, for lists.
        is_here: it runs on this machine, so that the same software here means the same figures again.
    """

    opens: str
    what: str
    is_here: bool = True


TARGETS: dict[str, TargetKind] = {
    "cpu": TargetKind("bertshrink.meters.targets.host:open_target", "this machine's processors"),
    "gpu": TargetKind("bertshrink.meters.targets.gpu:open_target", "this machine's first NVIDIA GPU, by CUDA"),
    "arm64": TargetKind(
        "bertshrink.meters.targets.arm64.target:open_target", "instructions on an emulated ARM core: arm64:a76"
    ),
    "adb": TargetKind("bertshrink.meters.targets.adb:open_target", "a phone: adb://SERIAL?runner=PATH", is_here=False),
    "profile": TargetKind(
        "bertshrink.meters.targets.profile:open_target", "a device that is modelled: profile:pi5", is_here=False
    ),
    "ssh": TargetKind(
        "bertshrink.meters.targets.ssh:open_target", "a machine reached by ssh: ssh://user@host", is_here=False
    ),
}
"""By what is before the colon of an address."""


_SYSTEMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}
"""Of Python's names."""


def kind_of(text: str) -> str:
    """What is before the colon of an address."""
    return text.partition(":")[0]


def check_system(target: str, *systems: str) -> None:
    """Prove that a target exists on this operating system, by `sys.platform`. Raises MissingDependency: it does not."""
    if sys.platform not in systems:
        names = " and ".join(_SYSTEMS[system] for system in systems)
        raise MissingDependency(
            f"the target `{target}` runs on {names} only; this is {_SYSTEMS.get(sys.platform, sys.platform)}",
            where="--target",
            hint="leave out times, or measure on such a machine: artifacts are the same everywhere",
        )


def open_target(text: str) -> Target:
    """The target of that name: `cpu`, `arm64:a76`, `ssh://user@host`.

    Raises:
        UserError: there is none, or its address is wrong.
    """
    kind = kind_of(text)
    if kind not in TARGETS:
        raise UserError(f"there is no target `{text}`", where="--target", hint=did_you_mean(kind, TARGETS))
    module, _, function = TARGETS[kind].opens.partition(":")
    return cast(Target, getattr(importlib.import_module(module), function)(text))
