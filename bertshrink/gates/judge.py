"""One rule, a figure and its baseline -> a finding. Pure: no file, no clock, no git.

    deterministic   bytes, parameters, operations, instructions: past the limit is a failure
    accuracy_drop   within the limit on these texts passes; past it, `paired_test` says if it is proven or inconclusive
    memory          its whole interval past the limit by `MEMORY_TOLERANCE` fails; past it by less is inconclusive
    ratio of times  the whole interval within the limit passes, the whole interval past it fails; else inconclusive

A finding has one of four verdicts. What cannot be judged is a failure with its cause, never a pass: no figure, another
unit (cause `measurement`); no baseline, another unit, engine or other questions in it, a baseline of zero (cause
`baseline`). What the base does not know is new (`newness.py`), which is not a pass either. Worse figures never turn a
failure into a pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from bertshrink import units
from bertshrink.errors import listed
from bertshrink.gates.baseline.lock import Accepted
from bertshrink.gates.figures.figure import Reading
from bertshrink.gates.limits.limit import Limit, Rule
from bertshrink.gates.limits.metric_key import MetricKey
from bertshrink.gates.paired_test import ALPHA, p_value
from bertshrink.report.measurement import Interval

MEMORY_TOLERANCE = 0.02
"""Peaks of fresh processes on one machine differ by up to a per cent, by up to two between allocators and kernels."""


_BY_ENGINE = ("memory", "instructions")
"""What only figures of one engine's one version are compared in."""


class Verdict(StrEnum):
    """What a gate can say."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NEW = "new"


Cause = Literal["limit", "gone", "measurement", "baseline"]


@dataclass(frozen=True)
class Finding:
    """What a rule came to.

    Attributes:
        key: the figure, with target and shape, and the change that is limited.
        verdict: pass, fail, inconclusive, or new.
        text: one line: the figure, what it was, by how much it is past the limit.
        cause: of a failure: the limit, or what could not be judged.
        hint: what to do about it.
        now: the figure in its base unit; None: there is none.
        before: the baseline's.
        judged: what the limit was held against.
        accepted: why a change past the limit was taken on purpose.
    """

    key: MetricKey
    rule: Rule
    verdict: Verdict
    text: str
    cause: Cause | None = None
    hint: str | None = None
    now: float | None = None
    before: float | None = None
    judged: float | None = None
    accepted: str | None = None

    @property
    def name(self) -> str:
        """What it is called."""
        return str(self.key)

    @property
    def is_failure(self) -> bool:
        """Whether it fails the gate, and is not only told."""
        return self.verdict is Verdict.FAIL and self.rule.severity == "fail"


def unjudged(
    key: MetricKey,
    rule: Rule,
    text: str,
    cause: Cause,
    hint: str,
    now: float | None = None,
    before: float | None = None,
) -> Finding:
    """A rule that could not be judged: never a pass."""
    return Finding(key, rule, Verdict.FAIL, text, cause, hint, now, before)


def judge(
    key: MetricKey, rule: Rule, now: Reading, before: Reading | None, accepted: Accepted | None = None
) -> Finding:
    """Hold one figure against its rule.

    Args:
        rule: any but `new_operators` and those about a ratio.
        accepted: a step that was taken on purpose in this change.
    """
    unit = rule.key.gauge.unit
    if now.unit != unit:
        text = f"the figure is in `{now.unit}`, the rule in `{unit}`"
        return unjudged(key, rule, text, "measurement", "measure it again with this version")
    if not rule.key.change:
        return _absolute(key, rule, now)
    if before is None:
        hint = "write the baseline again with `bertshrink gate --update`"
        return unjudged(key, rule, "the baseline has no such figure", "baseline", hint, now.value)
    if now.engine is None and rule.key.gauge.source in _BY_ENGINE:
        text, hint = "the engine's version is unknown", "measure it again with this version"
        return unjudged(key, rule, text, "measurement", hint, now.value)
    apart = _apart(rule, now, before)
    finding = (
        unjudged(key, rule, apart[0], "baseline", apart[1], now.value, before.value)
        if apart is not None
        else _changed(key, rule, now, before)
    )
    return _accepted(finding, accepted) if accepted is not None and _covers(accepted, rule, now, before) else finding


def _apart(rule: Rule, now: Reading, before: Reading) -> tuple[str, str] | None:
    """(why two figures cannot be compared, what to do); None where they can."""
    unit, anew = rule.key.gauge.unit, "accept the new one: `bertshrink gate --update --accept 'WHY'`"
    if before.unit != unit:
        return f"the baseline is in `{before.unit}`, the figure in `{unit}`", anew
    if (now.engine, now.questions is None) != (before.engine, before.questions is None) or (
        now.questions is None and now.setting != before.setting
    ):
        return f"taken with {_how(now)}, the baseline with {_how(before)}", anew
    if now.questions != before.questions:
        return f"evaluated on other texts than the baseline: {now.setting}, {before.setting}", anew
    if rule.limit.is_share and before.value <= 0:
        hint = f"limit the figure itself, or its growth in its own unit: `<= {units.format(1, unit or 'count')}`"
        return f"the baseline is {shown(before.value, unit)}", hint
    return None


def _accepted(finding: Finding, accepted: Accepted) -> Finding:
    """The finding, where a step past its limit, or from what cannot be compared, was taken on purpose."""
    if finding.verdict is Verdict.PASS:
        return finding
    text = f"{finding.text}; accepted in this change: {accepted.why}"
    return replace(finding, verdict=Verdict.PASS, text=text, cause=None, hint=None, accepted=accepted.why)


def judge_ratio(key: MetricKey, rule: Rule, ratio: Interval) -> Finding:
    """Hold a ratio of times against its rule: only a whole interval is proof."""
    limit = rule.limit
    text = f"{ratio.value:.3f}x [{ratio.low:.3f}, {ratio.high:.3f}] the base's time"
    verdict = Verdict.INCONCLUSIVE
    if limit.is_held(ratio.high):
        verdict = Verdict.PASS
    elif not limit.is_held(ratio.low):
        verdict = Verdict.FAIL
    cause: Cause | None = "limit" if verdict is Verdict.FAIL else None
    hint = "more rounds or a quieter machine may decide it" if verdict is Verdict.INCONCLUSIVE else None
    return Finding(key, rule, verdict, text, cause, hint, ratio.value, None, ratio.value)


def judge_new(key: MetricKey, rule: Rule, new: list[str], num_before: int, accepted: Accepted | None = None) -> Finding:
    """Hold the operations that are not in the baseline against their limit."""
    held = rule.limit.is_held(len(new))
    names = listed([f"`{one}`" for one in new], 10)
    text = f"{len(new)} beside the {num_before} of the baseline" + (f": {names}" if new else "")
    verdict = Verdict.PASS if held else Verdict.FAIL
    finding = Finding(key, rule, verdict, text, None if held else "limit", None, len(new), num_before, len(new))
    is_covered = accepted is not None and accepted.before == num_before and set(new) <= set(accepted.operators or ())
    return _accepted(finding, accepted) if accepted is not None and is_covered else finding


def _absolute(key: MetricKey, rule: Rule, now: Reading) -> Finding:
    limit, unit = rule.limit, now.unit
    verdict, past = _stands(limit, now.value, *now.bounds, _tolerance(rule))
    text = shown(now.value, unit) + (f", past the limit by {shown(past, unit, is_gap=True)}" if past > 0 else "")
    cause: Cause | None = "limit" if verdict is Verdict.FAIL else None
    return Finding(key, rule, verdict, text, cause, None, now.value, None, now.value)


def _stands(limit: Limit, value: float, low: float, high: float, tolerance: float) -> tuple[Verdict, float]:
    """(verdict, how far the value is past the limit) of a figure that is between two bounds."""
    past = value - limit.value if limit.sign == "<=" else limit.value - value
    if limit.is_held(value):
        return Verdict.PASS, 0.0
    surest = low * (1 - tolerance) if limit.sign == "<=" else high * (1 + tolerance)
    return (Verdict.INCONCLUSIVE if limit.is_held(surest) else Verdict.FAIL), past


def _changed(key: MetricKey, rule: Rule, now: Reading, before: Reading) -> Finding:
    limit, unit = rule.limit, now.unit
    sign = -1 if rule.key.change == "drop" else 1
    judged = sign * (now.value - before.value) / (before.value if limit.is_share else 1)
    same = f"{shown(now.value, unit)}, unchanged"
    moved = f"{shown(before.value, unit)} to {shown(now.value, unit)}: {_change(rule, judged)}"
    text = same if now.value == before.value else moved
    more, hint = "", None
    if now.outcomes is not None and before.outcomes is not None and rule.key.change == "drop":
        verdict, judged, more = _paired(limit, now, before)
    elif limit.is_held(judged):
        verdict = Verdict.PASS
    else:
        tolerance = _tolerance(rule)
        surest = sign * (now.bounds[0] * (1 - tolerance) - before.bounds[1])
        surest = surest / before.value if limit.is_share else surest
        is_proven = not (tolerance or now.low is not None) or not limit.is_held(surest)
        is_here = now.machine == before.machine
        verdict = Verdict.FAIL if is_proven and is_here else Verdict.INCONCLUSIVE
        more = "" if is_here else ", on another machine than the baseline's"
    cause: Cause | None = "limit" if verdict is Verdict.FAIL else None
    if verdict is Verdict.INCONCLUSIVE:
        hint = "more evaluation texts may decide it" if now.outcomes is not None else "measure both on one machine"
    return Finding(key, rule, verdict, text + more, cause, hint, now.value, before.value, judged)


def _paired(limit: Limit, now: Reading, before: Reading) -> tuple[Verdict, float, str]:
    """The verdict on two sets of answers to the same questions."""
    assert now.outcomes is not None and before.outcomes is not None
    num = now.outcomes.num
    lost, won = before.outcomes.lost_and_won(now.outcomes)
    unit = before.value if limit.is_share else 1.0
    judged = (lost - won) / num / unit
    told = f" ({lost} answers lost, {won} won, of {num}"
    if limit.is_held(judged):
        return Verdict.PASS, judged, f"{told})"
    p = p_value(num, lost, won, limit.value * unit)
    verdict = Verdict.FAIL if p <= ALPHA else Verdict.INCONCLUSIVE
    return verdict, judged, f"{told}; paired test p = {p:.2g})"


def _covers(accepted: Accepted, rule: Rule, now: Reading, before: Reading) -> bool:
    """Whether a figure is no worse than the step that was accepted from this very baseline."""
    if rule.since is not None or accepted.before != before.value:
        return False
    if rule.key.change == "drop":
        return now.value >= accepted.now
    return now.bounds[0] * (1 - _tolerance(rule)) <= accepted.now


def _tolerance(rule: Rule) -> float:
    return MEMORY_TOLERANCE if rule.key.gauge.source == "memory" else 0.0


def _how(reading: Reading) -> str:
    return ", ".join(part for part in (reading.engine, reading.setting) if part) or "no engine"


def shown(value: float, unit: str, *, is_gap: bool = False) -> str:
    """A figure with enough digits to be told from its neighbour."""
    if unit == "B" and abs(value) < 1e9:
        return f"{units.format(value, 'B', 4)}" if not float(value).is_integer() else _bytes(int(value))
    if unit == "count" and float(value).is_integer():
        return f"{int(value):,}"
    if unit == "fraction":
        return f"{100 * value:.2f} pt" if is_gap else f"{value:.4f}"
    return units.format(value, unit, 4)


def _bytes(value: int) -> str:
    return f"{units.format(value, 'B', 4)} ({value:,} B)" if abs(value) >= 1000 else f"{value} B"


def _change(rule: Rule, judged: float) -> str:
    if rule.limit.is_share:
        moved = -judged if rule.key.change == "drop" else judged
        return f"{100 * moved:+.3g}%" if abs(moved) < 1 else f"{100 * moved:+,.0f}%"
    unit = rule.key.gauge.unit
    if unit == "fraction":
        return f"{-100 * judged:+.2f} pt"
    sign = "-" if (judged < 0) != (rule.key.change == "drop") else "+"
    return f"{sign}{shown(abs(judged), unit)}"
