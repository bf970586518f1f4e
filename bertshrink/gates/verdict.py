"""All rules of all artifacts -> one verdict with its exit code, and what grew where a rule about files broke.

0   every rule that fails the gate holds, is about something new, or is inconclusive without `--strict`
1   a limit is broken, or an artifact is gone
4   a rule has no usable baseline
3   a rule has no usable figure
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bertshrink.errors import BaselineError, CheckFailed, MeasurementError
from bertshrink.files.atomic import is_lfs_pointer
from bertshrink.gates.baseline.growth import Growth, growth
from bertshrink.gates.baseline.lineage import Gone
from bertshrink.gates.baseline.lock import Entry, Lock
from bertshrink.gates.baseline.merge_base import Baseline, read_anchor
from bertshrink.gates.baseline.newness import are_operators_told_truly, is_told_truly, judge_newcomer, new_operators
from bertshrink.gates.figures.figure import Reading, model_of, of_report
from bertshrink.gates.figures.file_metrics import Artifact, look_at
from bertshrink.gates.judge import Cause, Finding, Verdict, judge, judge_new, judge_ratio, unjudged
from bertshrink.gates.limits.config import Config, Gated
from bertshrink.gates.limits.limit import Limit, Rule
from bertshrink.gates.limits.metric_key import HOST, PRESENCE, MetricKey
from bertshrink.report.measurement import Interval
from bertshrink.report.report import Report

Ratios = Mapping[tuple[int, int], Interval]
"""(batch, length) -> the time of the artifact over that of the base artifact."""


@dataclass(frozen=True)
class Examined:
    """One artifact with everything that is known of it.

    Attributes:
        gated: its rules.
        artifact: its file.
        readings: its figures, from the file and from a report.
        report: the path of the report, for messages; None: there is none.
        is_reported: whether the report has figures of this very file.
        ratios: its times against the base artifact's; None: not measured.
    """

    gated: Gated
    artifact: Artifact
    readings: dict[MetricKey, Reading]
    report: str | None = None
    is_reported: bool = False
    ratios: Ratios | None = None


@dataclass(frozen=True)
class Judged:
    """One artifact's findings, in the order of its rules, and what grew where one about its file broke."""

    name: str
    path: str
    findings: tuple[Finding, ...]
    grown: tuple[Growth, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """What a gate came to.

    Attributes:
        judged: artifact by artifact.
        baseline: where the baseline was read.
        notes: what one should know, one sentence each.
        strict: inconclusive findings fail.
        skipped: rules that were left out: on request, or because they warn of times that nobody took.
        has_lock: the baseline is a lock, which can be written again.
        id: what tells this judgement from others of the same pull request: its limits, its artifact, its job.
    """

    judged: tuple[Judged, ...]
    baseline: str
    notes: tuple[str, ...] = ()
    strict: bool = False
    skipped: int = 0
    has_lock: bool = True
    id: str = ""

    @property
    def findings(self) -> list[Finding]:
        """Those of all artifacts."""
        return [finding for one in self.judged for finding in one.findings]

    def fails(self, finding: Finding) -> bool:
        """Whether this finding fails the gate."""
        is_open = self.strict and finding.verdict is Verdict.INCONCLUSIVE and finding.rule.severity == "fail"
        return finding.is_failure or is_open

    def count(self, verdict: Verdict) -> int:
        """How many findings have this verdict."""
        return sum(finding.verdict is verdict for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0, 1, 3 or 4."""
        failed = [finding for finding in self.findings if self.fails(finding)]
        causes = {finding.cause or "limit" for finding in failed}
        if causes & {"limit", "gone"}:
            return CheckFailed.exit_code
        if "baseline" in causes:
            return BaselineError.exit_code
        return MeasurementError.exit_code if failed else 0


def examine(gated: Gated, folder: Path, report_path: Path | None) -> Examined:
    """Look at one artifact's file and at what a report says of it.

    Raises:
        UserError: no such artifact or report.
        UnsafeModel: the artifact is damaged.
        BaselineError: the report is.
    """
    artifact = look_at(folder / gated.path, gated.place)
    readings = artifact.readings()
    if any(rule.key.metric == "compressed_size" for rule in gated.rules):
        readings[MetricKey("compressed_size")] = artifact.compressed()
    if report_path is None:
        return Examined(gated, artifact, readings)
    if is_lfs_pointer(report_path):
        hint = "fetch it: `git lfs pull`, or `lfs: true` for actions/checkout"
        raise BaselineError(
            "the report is a git LFS pointer: the file itself is not here", where=str(report_path), hint=hint
        )
    report = Report.read(report_path)
    snapshot = model_of(report, artifact.sha256, artifact.num_bytes)
    reported = of_report(report, snapshot) if snapshot is not None else {}
    return Examined(gated, artifact, reported | readings, str(report_path), snapshot is not None)


def judge_all(
    examined: list[Examined], baseline: Baseline, config: Config, *, files_only: bool = False, strict: bool = False
) -> Judgement:
    """Hold every artifact against its rules.

    Args:
        files_only: leave out the rules that a file alone does not answer.
        strict: inconclusive findings fail.

    Raises:
        BaselineError: an anchor has no lock that can be read.
    """

    def is_asked(one: Examined, rule: Rule) -> bool:
        is_time, is_file = (rule.key.gauge.source == source for source in ("time", "files"))
        # A warning about time, where nobody asked for the race that it takes, would appear under every change.
        return is_file if files_only else not is_time or one.ratios is not None or rule.severity == "fail"

    refs = dict.fromkeys(rule.since for one in examined for rule in one.gated.rules if rule.since is not None)
    known = baseline.lock.artifacts if baseline.lock is not None else {}
    was = {name: entry.renamed_from for name, entry in known.items() if entry.renamed_from is not None}
    anchors = {ref: read_anchor(config, ref, was, baseline) for ref in refs}
    judged, skipped = [], 0
    for one in examined:
        wanted = [rule for rule in one.gated.rules if is_asked(one, rule)]
        skipped += len(one.gated.rules) - len(wanted)
        findings = [
            finding
            for rule in wanted
            for finding in _findings(one, rule, baseline, anchors[rule.since] if rule.since else None)
        ]
        grown = _grown(one, findings, baseline.lock)
        judged.append(Judged(one.gated.name, str(one.gated.path), tuple(findings), grown))
    judged += [_gone(one, examined, config) for one in baseline.gone]
    return Judgement(tuple(judged), baseline.origin, baseline.notes, strict, skipped)


def _findings(one: Examined, rule: Rule, baseline: Baseline, anchor: Lock | None) -> list[Finding]:
    """What a rule came to: one finding for each figure that it is about, one at least."""
    key, name = rule.key, one.gated.name
    lock, now = anchor or baseline.lock, baseline.now
    if key.gauge.source == "time":
        return _ratios(rule, one.ratios)
    entry = lock.artifacts.get(name) if lock is not None else None
    own = now.artifacts.get(name) if now is not None else None
    is_new = baseline.is_base or anchor is not None
    if rule.needs_baseline and entry is None and not is_new:
        return [unjudged(key, rule, *_no_entry(one, lock))]
    if key.metric == "new_operators":
        return [_new_operators(one, rule, entry, own, is_new)]
    known = list(one.readings) + (list(entry.metrics) if entry is not None and rule.needs_baseline else [])
    figures = [key.figure] if key.operator is not None else [f for f in dict.fromkeys(known) if _is_meant(f, key)]
    findings = []
    for figure in figures or [key.figure]:
        reading = _reading(one, figure)
        title = replace(figure, change=key.change)
        if reading is None:
            findings.append(unjudged(title, rule, *_no_figure(one, key)))
            continue
        before = entry.reading(figure) if entry is not None else None
        written = own.reading(figure) if own is not None else None
        if rule.needs_baseline and before is None and is_new:
            size = one.artifact.num_bytes
            findings.append(judge_newcomer(title, rule, reading, written, one.gated, size))
            continue
        accepted = own.accepted.get(figure) if own is not None else None
        finding = judge(title, rule, reading, before, accepted)
        if rule.needs_baseline and rule.since is None and baseline.is_base and finding.verdict is not Verdict.FAIL:
            finding = is_told_truly(finding, reading, before, written, one.gated)
        findings.append(finding)
    return findings


def _is_meant(figure: MetricKey, key: MetricKey) -> bool:
    """Whether a figure is what the rule's key is about."""
    same_target = key.target in (None, figure.target) or (key.target == HOST and figure.target is None)
    return figure.metric == key.metric and same_target and key.shape in (None, figure.shape)


def _reading(one: Examined, figure: MetricKey) -> Reading | None:
    if figure.operator is not None and one.artifact.operators:
        return one.readings.get(figure, Reading(value=0, unit="count"))
    return one.readings.get(figure)


def _no_entry(one: Examined, lock: Lock | None) -> tuple[str, Cause, str]:
    """(text, cause, hint) where the baseline does not know the artifact."""
    update = "write it with `bertshrink gate --update`, and commit it"
    if lock is None:
        return "there is no baseline", "baseline", update
    same = [name for name, entry in lock.artifacts.items() if entry.sha256 == one.artifact.sha256]
    if same:
        return (
            f"the baseline has no `{one.gated.name}`; `{same[0]}` has the same bytes",
            "baseline",
            "if it was renamed, rename it in the baseline too: `bertshrink gate --update`",
        )
    return f"the baseline has no `{one.gated.name}`", "baseline", update


def _no_figure(one: Examined, key: MetricKey) -> tuple[str, Cause, str]:
    """(text, cause, hint) where the artifact has no such figure."""
    if key.gauge.source == "files":
        return "files of this format do not contain it", "measurement", "leave the rule out, or judge an .onnx file"
    if one.report is None:
        hint = "give one with `--report run/report.json`, or use `--files-only` for rules that need no report"
        if key.gauge.source == "quality":
            hint += f"; `bertshrink bench {one.gated.path} --data TEXTS` writes one, with the tokenizer beside the file"
        return "it needs a report, and there is none", "measurement", hint
    if not one.is_reported:
        return (
            f"`{one.report}` does not cover this file",
            "measurement",
            f"measure {one.gated.path} itself: `bertshrink bench {one.gated.path} --data TEXTS`",
        )
    return f"`{one.report}` does not contain it", "measurement", "measure it in the recipe, or leave the rule out"


def _new_operators(one: Examined, rule: Rule, entry: Entry | None, own: Entry | None, is_new: bool) -> Finding:
    artifact = one.artifact
    if not artifact.operators:
        hint = "only .onnx files list their operations: leave the rule out, or judge one"
        return unjudged(rule.key, rule, "the operations are not known", "measurement", hint)
    if entry is None or not entry.operators:
        if is_new:
            return new_operators(rule, artifact, own, one.gated)
        hint = "write the baseline again with `bertshrink gate --update`"
        return unjudged(rule.key, rule, "the baseline has no operations", "baseline", hint)
    new = sorted(set(artifact.operators) - set(entry.operators))
    accepted = own.accepted.get(rule.key) if own is not None and rule.since is None else None
    finding = judge_new(rule.key, rule, new, len(entry.operators), accepted)
    if finding.verdict is Verdict.FAIL or rule.since is not None or not is_new:
        return finding
    return are_operators_told_truly(finding, artifact, entry, own, one.gated)


def _gone(one: Gone, examined: list[Examined], config: Config) -> Judged:
    """An artifact that the base's lock has and the change does not speak of."""
    rule = Rule(
        MetricKey(PRESENCE), Limit(">=", 1, "count", False, "judged or removed"), "fail", f"{config.origin}:1:1"
    )
    same = next((e.gated.name for e in examined if e.artifact.sha256 == one.sha256), None)
    like = f"; `{same}` has the same bytes" if same is not None else ""
    hint = (
        f'renamed: `renamed_from = "{one.name}"` beside the path of the new one; taken out: `removed = ["{one.name}"]`'
        " in the table of limits"
    )
    text = f"gone: `{one.lock}` of the base contains it, but the limits no longer name it{like}"
    return Judged(one.name, one.name, (Finding(rule.key, rule, Verdict.FAIL, text, "gone", hint, 0, 1, 0),))


def _ratios(rule: Rule, ratios: Ratios | None) -> list[Finding]:
    if ratios is None:
        hint = "give `--base-artifact PATH`: both are timed in turn, on this machine"
        return [unjudged(rule.key, rule, "not measured", "measurement", hint)]
    shapes = [shape for shape in ratios if rule.key.shape in (None, shape)]
    if not shapes:
        hint = "ask for it in `latency`: `batch` and `length`"
        return [unjudged(rule.key, rule, "no such shape was measured", "measurement", hint)]
    return [judge_ratio(replace(rule.key, shape=shape), rule, ratios[shape]) for shape in shapes]


def _grown(one: Examined, findings: list[Finding], lock: Lock | None) -> tuple[Growth, ...]:
    """What grew, where a rule about the file is past its limit and the baseline knows the file."""
    broken = any(
        finding.verdict is not Verdict.PASS and finding.cause == "limit" and finding.rule.key.gauge.source != "quality"
        for finding in findings
    )
    entry = lock.artifacts.get(one.gated.name) if lock is not None else None
    if not broken or entry is None or not (entry.tensors or entry.operators):
        return ()
    return tuple(growth(entry.tensors, one.artifact.tensors, entry.operators, one.artifact.operators))
