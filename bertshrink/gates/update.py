"""The next baseline from what is measured now, and what it changes.

The lock keeps what files show, and of a report the figures whose change is limited. Where such a rule needs a report
and none is given, the old figures stay only as long as the artifact's bytes do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bertshrink.errors import UserError
from bertshrink.gates.baseline.lock import Accepted, Entry, Lock
from bertshrink.gates.baseline.merge_base import Baseline
from bertshrink.gates.figures.figure import Reading
from bertshrink.gates.judge import Finding, Verdict
from bertshrink.gates.limits.metric_key import MetricKey
from bertshrink.gates.verdict import Examined, Judgement


@dataclass(frozen=True)
class Step:
    """One line of a lock that changes; None: it is not there."""

    artifact: str
    metric: MetricKey
    before: float | None
    now: float | None
    unit: str

    def __str__(self) -> str:
        sides = (f"{value:.10g}" if value is not None else "none" for value in (self.before, self.now))
        return f"{self.artifact}: {self.metric} {' to '.join(sides)}"


def next_lock(
    examined: list[Examined], baseline: Baseline, judgement: Judgement, accept: str | None, kept: Iterable[str] = ()
) -> Lock:
    """The lock that makes these artifacts the baseline.

    Args:
        baseline: what they are compared with; the lock of the working tree.
        accept: why the steps past their limits are taken on purpose; None: they are not.
        kept: the names of other entries of the lock, which stay as they are.

    Raises:
        UserError: a rule's figure is not known, or there is nothing to accept.
    """
    old = baseline.now.artifacts if baseline.now is not None else {}
    base = baseline.lock.artifacts if baseline.lock is not None else {}
    entries, num_accepted = {name: old[name] for name in kept if name in old}, 0
    for one, judged in zip(examined, judgement.judged, strict=True):
        name, origin = one.gated.name, one.gated.renamed_from
        then = base.get(name)
        before = old.get(name) or (old.get(origin) if origin is not None else None) or then
        accepted = _still(before, then) if before is not None else {}
        if accept is not None:
            known = then.operators if then is not None else {}
            steps = _accepted(judged.findings, accept, one.artifact.operators.keys() - known.keys())
            accepted, num_accepted = accepted | steps, num_accepted + len(steps)
        renamed = (origin if origin in (old.keys() | base.keys() | {*(baseline.was or {}).values()}) else None) or (
            before.renamed_from if before is not None else None
        )
        entries[name] = Entry.of(one.artifact, _kept(one, before), accepted, renamed)
    if accept is not None and not num_accepted:
        raise UserError(
            "there is nothing to accept: no change since the baseline is past its limit",
            where="--accept",
            hint="to allow a larger figure, raise its limit where it is written",
        )
    return Lock(artifacts=entries)


def _accepted(findings: Iterable[Finding], why: str, new_operators: Iterable[str]) -> dict[MetricKey, Accepted]:
    """The steps past a limit on a change since the baseline, and from what cannot be compared with it."""
    steps = {}
    for finding in findings:
        key = finding.rule.key
        is_open = finding.verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE) or finding.accepted is not None
        if not (key.is_relative and finding.rule.since is None and is_open):
            continue
        if finding.before is not None and finding.now is not None:
            operators = tuple(sorted(new_operators)) if key.metric == "new_operators" else None
            steps[finding.key.figure] = Accepted(before=finding.before, now=finding.now, why=why, operators=operators)
    return steps


def _still(before: Entry, then: Entry | None) -> dict[MetricKey, Accepted]:
    """The steps that were accepted before and still lead away from the base's figures."""

    def leads(key: MetricKey, step: Accepted) -> bool:
        if then is None:
            return False
        if step.operators is not None:
            return step.before == len(then.operators)
        reading = then.reading(key)
        return reading is not None and reading.value == step.before

    return {key: step for key, step in before.accepted.items() if leads(key, step)}


def _kept(one: Examined, before: Entry | None) -> dict[MetricKey, Reading]:
    """What the lock keeps: all that the file shows, and of the rest what is compared with a baseline."""
    kept = {key: reading for key, reading in one.readings.items() if key.gauge.source == "files"}
    wanted = {rule.key.metric for rule in one.gated.rules if rule.key.is_relative and rule.key.gauge.source != "files"}
    sources = [one.readings]
    if before is not None and before.sha256 == one.artifact.sha256:
        sources.append(before.metrics)
    for readings in sources:
        compared = {key: reading for key, reading in readings.items() if key.metric in wanted}
        kept |= compared
        wanted -= {key.metric for key in compared}
    if wanted:
        told = f"`{one.report}` does not cover" if one.report is not None else "there is no report of"
        raise UserError(
            f"{told} `{one.gated.path}`: {', '.join(sorted(wanted))}",
            where=one.gated.place,
            hint="give a report of this very file with `--report run/report.json`",
        )
    return kept


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
