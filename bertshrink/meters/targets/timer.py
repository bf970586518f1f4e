"""What a stage that chooses by the clock is given: time and memory of artifacts, side by side (see `measure`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertshrink.meters.environment import environment
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.progress import Progress

if TYPE_CHECKING:
    from bertshrink.model.artifact import Artifact
    from bertshrink.report.measurement import Measurement


@dataclass(frozen=True)
class Timer:
    """Times artifacts that are in folders of their own.

    Attributes:
        settings: shapes that the artifacts take, and rounds.
    """

    settings: LatencySettings
    progress: Progress

    def __call__(self, artifacts: Mapping[str, Artifact]) -> dict[str, list[Measurement]]:
        """The measurements of each artifact, by its name; see `running.measure` for what is raised."""
        from bertshrink.meters.latency.launch import launch_of
        from bertshrink.meters.latency.measure import measure
        from bertshrink.meters.targets.host import LocalRunner

        launches = {name: launch_of(artifact, artifact.folder) for name, artifact in artifacts.items()}
        return measure(launches, self.settings, self.progress, environment(), LocalRunner())
