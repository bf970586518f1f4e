"""What the base does not know: a new artifact, a new figure. It cannot be compared, so it is never a pass: it is new.

New is not a failure where two things hold:

    a limit without a baseline holds it   `size` for what a file shows, the figure itself for what a report shows
    its baseline comes with the change    the lock of the change says what the artifact shows, so that the next change
                                          is judged by that

The same is asked of a lock that a change edits besides: a figure that is neither the base's nor the artifact's would be
the room in which the next change grows.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bertshrink import units
from bertshrink.gates.baseline.lock import Entry
from bertshrink.gates.figures.figure import Reading
from bertshrink.gates.figures.file_metrics import Artifact
from bertshrink.gates.judge import Finding, Verdict, judge, shown, unjudged
from bertshrink.gates.limits.config import Gated
from bertshrink.gates.limits.limit import Rule
from bertshrink.gates.limits.metric_key import MetricKey

_OF_FILE = ("size", "compressed_size")


def judge_newcomer(
    key: MetricKey, rule: Rule, now: Reading, written: Reading | None, gated: Gated, num_bytes: int
) -> Finding:
    """Judge a figure that the base does not have.

    Args:
        rule: a limit on its change.
        written: what the lock of the change says of it; None: nothing.
    """
    if not _is_held(rule, gated):
        size = Reading(value=num_bytes, unit="B")
        return _unheld(key, rule, gated, size if rule.key.gauge.source == "files" else now)
    if rule.since is None and (fault := _untrue(rule, now, written)):
        return _to_write(key, rule, f"new, and {fault}", gated, now.value)
    since = f": {rule.since} does not contain it" if rule.since is not None else ": the base does not contain it"
    text = f"{shown(now.value, now.unit)}, new{since}"
    return Finding(key, rule, Verdict.NEW, text, None, None, now.value)


def new_operators(rule: Rule, artifact: Artifact, own: Entry | None, gated: Gated) -> Finding:
    """Judge the operations of an artifact whose operations the base does not know."""
    key, num = rule.key, len(artifact.operators)
    if not _is_held(rule, gated):
        return _unheld(key, rule, gated, Reading(value=artifact.num_bytes, unit="B"))
    if rule.since is None and (fault := _untrue_operators(rule, artifact, own)):
        return _to_write(key, rule, f"new, and {fault}", gated, num)
    return Finding(key, rule, Verdict.NEW, f"{num} operations, new", None, None, num)


def is_told_truly(
    finding: Finding, now: Reading, before: Reading | None, written: Reading | None, gated: Gated
) -> Finding:
    """The finding of a figure that the base knows; a failure where the lock of the change tells it wrongly.

    Args:
        written: what the lock of the change says; None: it is taken out there.
    """
    if written == before or not (fault := _untrue(finding.rule, now, written)):
        return finding
    return _to_write(finding.key, finding.rule, fault, gated, now.value)


def are_operators_told_truly(
    finding: Finding, artifact: Artifact, before: Entry, own: Entry | None, gated: Gated
) -> Finding:
    """Likewise of the operations, whose names are the figure."""
    if own is not None and own.operators == before.operators:
        return finding
    fault = _untrue_operators(finding.rule, artifact, own)
    return _to_write(finding.key, finding.rule, fault, gated, len(artifact.operators)) if fault else finding


def _untrue_operators(rule: Rule, artifact: Artifact, own: Entry | None) -> str | None:
    if own is None or not own.operators:
        return "the lock of this change has no baseline of it"
    apart = sorted(set(own.operators) ^ set(artifact.operators))
    if rule.limit.is_held(len(apart)):
        return None
    return f"the lock of this change differs from the file in {len(apart)} operations: `{apart[0]}`"


def _untrue(rule: Rule, now: Reading, written: Reading | None) -> str | None:
    """How the lock of the change contradicts the artifact; None where it does not, by the rule's own limit."""
    if written is None:
        return "the lock of this change has no baseline of it"
    plain = replace(rule, since=None)
    sides = (judge(rule.key, plain, now, written), judge(rule.key, plain, written, now))
    if any(side.verdict is Verdict.FAIL and side.cause == "limit" for side in sides):
        there, here = (shown(reading.value, reading.unit) for reading in (written, now))
        return f"the lock of this change says {there}, where the artifact shows {here}"
    return None


def _is_held(rule: Rule, gated: Gated) -> bool:
    """Whether another rule limits the figure without a baseline, and fails where this one would."""
    metrics = _OF_FILE if rule.key.gauge.source == "files" else ()
    return any(
        not other.key.is_relative
        and not other.key.change
        and (other.severity == "fail" or rule.severity == "warn")
        and (other.key.metric in metrics or other.key.metric == rule.key.metric)
        and other.key.target in (None, rule.key.target)
        and other.key.shape in (None, rule.key.shape)
        for other in gated.rules
    )


def _unheld(key: MetricKey, rule: Rule, gated: Gated, reading: Reading) -> Finding:
    is_file = rule.key.gauge.source == "files"
    figure_name = "size" if is_file else str(rule.key.figure)
    sign = ">=" if rule.key.change == "drop" else "<="
    unit = "" if reading.unit in ("fraction", "") else reading.unit
    figure = f"{math.floor(reading.value * 1000) / 1000:g}" if unit == "" else room_above(reading.value, unit)
    hint = f'limit it without a baseline, near what it is today: "{figure_name}" = "{sign} {figure}"'
    text = f"new, and no limit on `{figure_name}` holds `{gated.name}` without a baseline"
    return unjudged(key, rule, text, "baseline", hint, reading.value)


def room_above(value: float, unit: str) -> str:
    """A little above a figure, with three digits: `17.5 MB` for 17.4."""
    step = 10 ** (math.floor(math.log10(value)) - 2) if value > 0 else 1
    return units.format(math.ceil(value * 1.002 / step) * step, unit)


def _to_write(key: MetricKey, rule: Rule, text: str, gated: Gated, now: float) -> Finding:
    hint = f"write it with `bertshrink gate --update {gated.name}`, and commit the lock"
    return unjudged(key, rule, text, "baseline", hint, now)
