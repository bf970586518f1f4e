"""Two artifacts timed in turn in this very job: the only way in which a time says something in CI.

This is the one part of a gate that runs a model: what it imports is imported when it is asked, and needs the engine of
the artifacts. Both take turns of 50 ms in fresh processes (`meters.latency.measure`), so that what the machine does
meanwhile falls on both; the ratio is taken round by round, with its interval over rounds.
"""

from __future__ import annotations

from pathlib import Path

from bertshrink.errors import MeasurementError
from bertshrink.gates.verdict import Ratios
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.progress import Progress

_BASE, _NEW = "base", "new"


def race(base: Path, new: Path, settings: LatencySettings, progress: Progress) -> Ratios:
    """Time both and compare.

    Args:
        base: the artifact that is compared with: a folder, or an ONNX file with its tokenizer beside it.

    Returns:
        For each (batch, length) the new one's time over the base's, with its 95 % interval.

    Raises:
        UserError: an artifact that is none, or does not take a shape.
        MeasurementError: a process died, hung or lied.
        MissingDependency: an engine is not installed.
    """
    from bertshrink.meters.environment import environment
    from bertshrink.meters.latency.launch import launch_of
    from bertshrink.meters.latency.measure import measure
    from bertshrink.meters.targets.host import LocalRunner
    from bertshrink.report.measurement import compare
    from bertshrink.sources.resolve import fetch_weights, find_model

    launches = {}
    for name, path in ((_BASE, base), (_NEW, new)):
        model = fetch_weights(find_model(str(path.absolute()), str(path)))
        launches[name] = launch_of(model.load(), model.folder)
    measurements = measure(launches, settings, progress, environment(), LocalRunner())
    times = {name: [m for m in entries if m.metric == "latency"] for name, entries in measurements.items()}
    ratios = {}
    for old, own in zip(times[_BASE], times[_NEW], strict=True):
        ratio = compare(old, own)
        if ratio is None or own.conditions.batch is None or own.conditions.length is None:
            raise MeasurementError("the two artifacts were timed under different conditions", hint="try again")
        ratios[own.conditions.batch, own.conditions.length] = ratio
    return ratios
