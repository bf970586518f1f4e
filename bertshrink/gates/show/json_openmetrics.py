"""A judgement as one JSON document, and as OpenMetrics text (GitLab's metrics report, Prometheus)."""

from __future__ import annotations

import json
from typing import Any

from bertshrink.gates.judge import Finding
from bertshrink.gates.show.wording import status
from bertshrink.gates.verdict import Examined, Judgement
from bertshrink.report.metrics import METRICS

SCHEMA = "bertshrink.gate/1"
_SUFFIXES = {"B": "bytes", "s": "seconds", "fraction": "ratio", "x": "ratio"}


def to_json(judgement: Judgement) -> str:
    """One JSON document, sorted keys, ending in a newline."""
    data = {
        "schema": SCHEMA,
        "exit_code": judgement.exit_code,
        "id": judgement.id,
        "baseline": judgement.baseline,
        "notes": list(judgement.notes),
        "strict": judgement.strict,
        "skipped": judgement.skipped,
        "artifacts": [
            {
                "name": judged.name,
                "path": judged.path,
                "rules": [_rule(judgement, finding) for finding in judged.findings],
                "grown": [vars(one) for one in judged.grown],
            }
            for judged in judgement.judged
        ],
    }
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _rule(judgement: Judgement, finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.name,
        "limit": finding.rule.limit.text,
        "severity": finding.rule.severity,
        "since": finding.rule.since,
        "place": finding.rule.place,
        "verdict": finding.verdict.value,
        "status": status(judgement, finding).lower(),
        "cause": finding.cause,
        "text": finding.text,
        "hint": finding.hint,
        "unit": finding.rule.key.gauge.unit,
        "now": finding.now,
        "before": finding.before,
        "judged": finding.judged,
        "limit_value": finding.rule.limit.value,
        "accepted": finding.accepted,
    }


def to_openmetrics(examined: list[Examined]) -> str:
    """Every figure of every artifact as a gauge, labelled with the artifact: OpenMetrics 1.0 text."""
    families: dict[str, list[str]] = {}
    heads: dict[str, str] = {}
    for one in examined:
        for key, reading in one.readings.items():
            if key.operator is not None:
                continue
            unit = _SUFFIXES.get(reading.unit, "")
            stem = "bertshrink_" + key.metric.replace("@", "_at_")
            family = f"{stem}_{unit}" if unit and not stem.endswith(f"_{unit}") else stem
            labels = {"artifact": one.gated.name, "target": key.target or ""}
            labels["shape"] = f"{key.shape[0]}x{key.shape[1]}" if key.shape else ""
            shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items() if text)
            heads[family] = f"# TYPE {family} gauge\n" + (f"# UNIT {family} {unit}\n" if unit else "")
            heads[family] += f"# HELP {family} {_escaped(METRICS[key.metric].meaning)}\n"
            families.setdefault(family, []).append(f"{family}{{{shown}}} {reading.value:.17g}\n")
    return "".join(heads[family] + "".join(lines) for family, lines in sorted(families.items())) + "# EOF\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
