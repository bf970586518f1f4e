"""The next baseline from what is measured now, what it changes, and a first configuration.

The lock keeps what files show, and of a report the figures whose change is limited. Where such a rule needs a report
and none is given, the old figures stay only as long as the artifact's bytes do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bertshrink import units
from bertshrink.errors import RequestError
from bertshrink.report.gate.judge import Finding, Verdict
from bertshrink.report.gate.lock import Accepted, Entry, Lock
from bertshrink.report.gate.metrics import GAUGES, read_key
from bertshrink.report.gate.reading import Reading
from bertshrink.report.gate.verdict import Examined, Judgement


@dataclass(frozen=True)
class Step:
    """One line of a lock that changes; None: it is not there."""

    artifact: str
    metric: str
    before: float | None
    now: float | None
    unit: str

    def __str__(self) -> str:
        sides = (f"{value:.10g}" if value is not None else "none" for value in (self.before, self.now))
        return f"{self.artifact}: {self.metric} {' to '.join(sides)}"


def next_lock(examined: list[Examined], old: Lock | None, judgement: Judgement, accept: str | None) -> Lock:
    """The lock that makes these artifacts the baseline.

    Args:
        examined: the artifacts.
        old: the working tree's lock.
        judgement: of the artifacts, for what is to be accepted.
        accept: why the steps past their limits are taken on purpose; None: they are not.

    Raises:
        RequestError: a rule's figure is not known, or there is nothing to accept.
    """
    found, num_accepted = {}, 0
    for one, judged in zip(examined, judgement.judged, strict=True):
        before = old.artifacts.get(one.gated.name) if old is not None else None
        accepted = dict(before.accepted) if before is not None else {}
        if accept is not None:
            steps = _accepted(judged.findings, accept)
            accepted, num_accepted = accepted | steps, num_accepted + len(steps)
        found[one.gated.name] = Entry.of(one.artifact, _kept(one, before), accepted)
    if accept is not None and not num_accepted:
        raise RequestError(
            "there is nothing to accept: no growth or drop is past its limit",
            where="--accept",
            hint="a limit on the figure itself is raised where it is written",
        )
    return Lock(artifacts=found)


def _accepted(findings: Iterable[Finding], why: str) -> dict[str, Accepted]:
    """The steps past a limit on a change since the baseline."""
    found = {}
    for finding in findings:
        is_step = finding.rule.key.change in ("growth", "drop") and finding.rule.since is None
        if is_step and finding.verdict is not Verdict.PASS and finding.before is not None and finding.now is not None:
            name = finding.name.removesuffix(finding.rule.key.change).rstrip(" _")
            found[name] = Accepted(before=finding.before, now=finding.now, why=why)
    return found


def _kept(one: Examined, before: Entry | None) -> dict[str, Reading]:
    """What the lock keeps: all that the file shows, and of the rest what is compared with a baseline."""
    kept = {name: reading for name, reading in one.readings.items() if _source(name) == "files"}
    wanted = {rule.key.metric for rule in one.gated.rules if rule.key.is_relative and rule.key.gauge.source != "files"}
    sources = [one.readings]
    if before is not None and before.sha256 == one.artifact.sha256:
        sources.append(before.metrics)
    for readings in sources:
        found = {name: reading for name, reading in readings.items() if read_key(name).metric in wanted}
        kept |= found
        wanted -= {read_key(name).metric for name in found}
    if wanted:
        told = f"`{one.report}` says nothing of" if one.report is not None else "there is no report of"
        raise RequestError(
            f"{told} `{one.gated.path}`: {', '.join(sorted(wanted))}",
            where=one.gated.place,
            hint="give a report of this very file with `--report run/report.json`",
        )
    return kept


def _source(name: str) -> str:
    return read_key(name).gauge.source


def difference(old: Lock | None, new: Lock) -> list[Step]:
    """What a new lock changes, figure by figure."""
    before = {
        (name, metric): reading
        for name, entry in (old.artifacts if old is not None else {}).items()
        for metric, reading in entry.metrics.items()
    }
    now = {(name, m): reading for name, entry in new.artifacts.items() for m, reading in entry.metrics.items()}
    return [
        Step(*key, _value(before.get(key)), _value(now.get(key)), (now.get(key) or before[key]).unit)
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
    ]


def _value(reading: Reading | None) -> float | None:
    return reading.value if reading is not None else None


def first_config(artifact: Path, report: Path | None, readings: dict[str, Reading]) -> str:
    """A configuration that today's artifact holds, as the text of `bertshrink.toml`."""
    lines = ["[gate]", f"artifact = {json.dumps(artifact.as_posix())}"]
    if report is not None:
        lines.append(f"report = {json.dumps(report.as_posix())}")
    lines += ["", "# what may not be passed, and by how much a change may grow"]
    lines.append(f'size = "<= {_rounded_up(readings["size"].value)}"')
    lines.append('size_growth = "<= 0.5%"')
    if "operators" in readings:
        lines.append('new_operators = "<= 0"')
    headline = next((name for name in readings if name in GAUGES and GAUGES[name].source == "quality"), None)
    if headline is not None:
        value = readings[headline].value
        is_lower = GAUGES[headline].better == "lower"
        floor = math.ceil(value * 101) / 100 if is_lower else math.floor((value - 0.01) * 1000) / 1000
        sign, change = ("<=", "growth") if is_lower else (">=", "drop")
        lines.append(f'{headline} = "{sign} {max(0.0, floor):g}"')
        lines.append(f'{headline}_{change} = "{"<= 1%" if is_lower else "<= 0.5 pt"}"')
    if "memory" in readings:
        lines.append('memory_growth = "<= 5%"')
    lines += [f'"{name} growth" = "<= 1%"' for name in readings if read_key(name).metric == "instructions"]
    lines += ["", "# timed against another artifact with --base-artifact; a warning only, since machines are noisy"]
    lines.append('"cpu p50 ratio" = { limit = "<= 1.10", severity = "warn" }')
    return "\n".join(lines) + "\n"


def _rounded_up(num_bytes: float) -> str:
    """A little above a size, with three digits: `17.5 MB` for 17.4."""
    step = 10 ** (math.floor(math.log10(num_bytes)) - 2) if num_bytes > 0 else 1
    return units.format(math.ceil(num_bytes * 1.002 / step) * step, "B")
