"""What `bench --json` prints: the figures of a report with everything derived from their samples, for other programs.

History of the form:
    bertshrink.bench/1   first form
    bertshrink.bench/2   a figure's reasons are data: kind, case and values in place of a sentence

Units are base units (s, B, count, token/s, ...). A percentile that too few samples are behind is null, and
`p99_need_n` says how many it takes. `ratio` is this model over the first one: below 1 takes less; its verdict speaks of
speed where the figure is a time.
"""

from __future__ import annotations

import json
from typing import Any

from bertshrink.report.measurement import PERCENTILE_NEEDS, Measurement, compare, judge
from bertshrink.report.report import Report, Snapshot
from bertshrink.report.statistics import MARGIN

SCHEMA = "bertshrink.bench/2"


def to_json(report: Report, margin: float = MARGIN) -> str:
    """One JSON document, sorted keys, ending in a newline.

    Args:
        margin: margin within which speeds count as equivalent, as a fraction.
    """
    reference = next((s for s in report.snapshots if s.role == "reference"), None)
    data = {
        "schema": SCHEMA,
        "tool": {"name": "bertshrink", "version": report.version, "command": report.command},
        "created": report.created,
        "task": report.task,
        "data": report.data,
        "environments": {key: value.model_dump(mode="json") for key, value in report.environments.items()},
        "models": [_model(snapshot, reference, margin) for snapshot in report.snapshots],
        "notes": report.notes,
    }
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _model(snapshot: Snapshot, reference: Snapshot | None, margin: float) -> dict[str, Any]:
    base = reference if reference is not snapshot else None
    return {
        "name": snapshot.name,
        "label": snapshot.label,
        "role": snapshot.role,
        "kind": snapshot.kind,
        "facts": snapshot.facts,
        "sheets": [sheet.model_dump(mode="json") for sheet in snapshot.sheets],
        "figures": [_figure(m, base, margin) for m in snapshot.measurements],
    }


def _figure(m: Measurement, base: Snapshot | None, margin: float) -> dict[str, Any]:
    interval = m.interval() if m.rounds and not m.is_exact else None
    is_measured = not m.is_range  # a range is not a sample of anything
    return {
        "metric": m.metric,
        "unit": m.unit,
        "better": m.better,
        "value": m.value if m.rounds and is_measured else None,
        "ci95": [interval.low, interval.high] if interval is not None and len(m.rounds) > 1 else m.sampling,
        "chance": m.chance,
        "range": [interval.low, interval.high] if interval is not None and m.is_range else None,
        "rounds": m.rounds if is_measured else [],
        "n": len(m.all) if is_measured else 0,
        "percentiles": _percentiles(m) if m.metric.startswith("latency") and is_measured else None,
        "conditions": m.conditions.model_dump(mode="json", exclude_none=True),
        "evidence": str(m.evidence),
        "environment": m.environment,
        "validity": m.validity,
        "reasons": [warning.model_dump(mode="json") for warning in m.warnings],
        "ratio": _ratio(m, base, margin) if base is not None else None,
    }


def _percentiles(m: Measurement) -> dict[str, Any]:
    """The least sample and the usual percentiles, each with what it needs where it has not got it."""
    percentiles: dict[str, Any] = {"min": min(m.all)}
    for p, needs in PERCENTILE_NEEDS.items():
        value = m.percentile(p)
        percentiles[f"p{p}"] = value
        if value is None:
            percentiles[f"p{p}_need_n"] = needs
    return percentiles


def _ratio(m: Measurement, base: Snapshot, margin: float) -> dict[str, Any] | None:
    """This figure over the first model's under the same conditions; None where there is none."""
    for other in base.measurements:
        if other.metric == m.metric and (ratio := compare(other, m)) is not None:
            is_timed = m.unit == "s" and len(m.rounds) > 1
            return {
                "value": ratio.value,
                "ci95": [ratio.low, ratio.high] if len(m.rounds) > 1 else None,
                "verdict": judge(other, m, margin) if is_timed else None,
            }
    return None
