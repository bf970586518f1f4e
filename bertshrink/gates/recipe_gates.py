"""A recipe's own `gates:`: the model that came out against the model that it started from.

    gates:
      size: "<= 20 MB"
      accuracy_drop: "<= 0.5 pt"        # against the reference, answer by answer
      cpu p50 ratio: "<= 0.5"           # of the reference's time, from the run's interleaved rounds

Here the baseline is the run's reference, not a lock: both sides are in one report, measured in one run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bertshrink.gates.baseline.lock import Entry, Lock
from bertshrink.gates.baseline.merge_base import Baseline
from bertshrink.gates.figures.figure import Reading, of_report
from bertshrink.gates.figures.file_metrics import look_at
from bertshrink.gates.limits.config import Config, Gated
from bertshrink.gates.limits.limit import Rule
from bertshrink.gates.limits.metric_key import MetricKey
from bertshrink.gates.verdict import Examined, Judgement, Ratios, judge_all
from bertshrink.report.measurement import compare
from bertshrink.report.report import Report, Snapshot

_COUNTED = ("size", "parameters")


def judge_run(rules: tuple[Rule, ...], report: Report, folder: Path) -> Judgement:
    """Hold the last stage's model against the limits of its recipe. Raises UnsafeModel: the model is damaged."""
    made = [snapshot for snapshot in report.snapshots if snapshot.role == "stage"][-1]
    gated = Gated(made.label, folder, None, rules, rules[0].place)
    artifact = look_at(folder, gated.place)
    readings = of_report(report, made) | artifact.readings()
    if any(rule.key.metric == "compressed_size" for rule in rules):
        readings[MetricKey("compressed_size")] = artifact.compressed()
    ratios = _ratios(report.reference, made)
    examined = Examined(gated, artifact, readings, "report.json", True, ratios)
    lock = Lock(artifacts={made.label: _entry(report)})
    baseline = Baseline(lock, f"the reference, {report.reference.label}", None)
    return replace(judge_all([examined], baseline, Config(folder, gated.place, (gated,))), has_lock=False)


def _entry(report: Report) -> Entry:
    reference = report.reference
    counted = {
        MetricKey(m.metric): Reading(value=m.value, unit=m.unit) for m in reference.measurements if m.metric in _COUNTED
    }
    return Entry(file=reference.label, sha256="", metrics=of_report(report, reference) | counted)


def _ratios(base: Snapshot, made: Snapshot) -> Ratios | None:
    """The model's times over the reference's, shape by shape; None where none was measured."""
    ratios = {}
    for own in (m for m in made.measurements if m.metric == "latency"):
        c = own.conditions
        old = base.find("latency", batch=c.batch, length=c.length)
        ratio = compare(old, own) if old is not None and min(len(old.rounds), len(own.rounds)) > 1 else None
        if ratio is not None and c.batch is not None and c.length is not None:
            ratios[c.batch, c.length] = ratio
    return ratios or None
