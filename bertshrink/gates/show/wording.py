"""The words that every drawing of a judgement shares."""

from __future__ import annotations

from bertshrink import units
from bertshrink.gates.baseline.growth import Growth
from bertshrink.gates.judge import Finding, Verdict
from bertshrink.gates.verdict import Judged, Judgement


def status(judgement: Judgement, finding: Finding) -> str:
    """`pass`, `FAIL`, `warn` (a limit broken that only warns), `open` (inconclusive), or `new`."""
    if judgement.fails(finding):
        return "FAIL"
    if finding.verdict in (Verdict.PASS, Verdict.NEW):
        return finding.verdict.value
    return "warn" if finding.verdict is Verdict.FAIL else "open"


def headline(judgement: Judgement) -> str:
    """One line: the verdict and what it counts."""
    findings = judgement.findings
    states = [status(judgement, finding) for finding in findings]
    parts = [f"{states.count('FAIL')} of {len(findings)} rules fail" if "FAIL" in states else "every rule holds"]
    if "FAIL" not in states and set(states) != {"pass"}:
        parts = [f"{states.count('pass')} of {len(findings)} rules hold, none fails"]
    parts += [f"{n} new"] if (n := states.count("new")) else []
    parts += [f"{n} inconclusive"] if (n := states.count("open")) else []
    parts += [f"{n} warned about"] if (n := states.count("warn")) else []
    parts += [f"{judgement.skipped} left out"] if judgement.skipped else []
    return f"gate: {', '.join(parts)}"


def sentence(judged: Judged, finding: Finding) -> str:
    """A finding in one sentence."""
    return f"{judged.name}: {finding.name} {finding.rule.limit.text}: {finding.text}"


def advice(judgement: Judgement, finding: Finding) -> list[str]:
    """Where the limit is written and what to do; nothing for a rule that holds."""
    if finding.verdict in (Verdict.PASS, Verdict.NEW):
        return []
    lines = [f"limit: {finding.rule.place}"]
    if finding.hint and (judgement.has_lock or finding.cause != "baseline"):
        lines.append(f"hint: {finding.hint}")
    if finding.cause == "limit":
        is_step = judgement.has_lock and finding.rule.key.is_relative and finding.rule.since is None
        how = (
            "bertshrink gate --update --accept 'WHY', and commit the lock"
            if is_step
            else "write another limit there, which a reviewer sees"
        )
        lines.append(f"to accept it: {how}")
    return lines


def growth_line(one: Growth) -> str:
    """`tensor encoder.layer.3.weight: +442 kB (INT8 384x384 to FLOAT 384x384)`."""
    by = units.format(one.delta, "B") if one.kind != "operation" else str(one.delta)
    return f"{one.kind} {one.name}: +{by} ({one.text})"
