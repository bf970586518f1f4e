"""Under what a report was made, as short lines for Markdown and HTML: machines, packages, data, settings.

Keys are sorted, so that a report says the same, byte for byte, before and after its trip through JSON.
"""

import json
from collections.abc import Mapping
from typing import Any

from bertshrink import units
from bertshrink.report.measurement import Environment, Evidence
from bertshrink.report.report import Report
from bertshrink.report.table.figures import DASH

EVIDENCE: dict[Evidence, str] = {
    Evidence.MEASURED_DEVICE: "timed on the target device itself",
    Evidence.MEASURED_ARM64: "timed on an arm64 machine, not on the device itself",
    Evidence.EMULATED_INSTRUCTIONS: "arm64 instructions counted in an emulator: exact counts, no times",
    Evidence.MODELLED_RANGE: "computed from counts and a device's published rates: a range, not a measurement",
    Evidence.MEASURED_HOST: "counted or timed on the machine that made this report",
}
"""What each evidence class means, strongest first."""


def evidence_lines(report: Report) -> list[tuple[str, str]]:
    """The evidence classes that the report uses, each with its meaning."""
    used = {m.evidence for snapshot in report.snapshots for m in snapshot.measurements}
    return [(str(kind), meaning) for kind, meaning in EVIDENCE.items() if kind in used]


def machine_lines(report: Report) -> list[tuple[str, str]]:
    """Each machine and its packages; numbered only when there are several."""
    lines = []
    for _, machine in sorted(report.environments.items()):
        mark = f" {machine.id}" if len(report.environments) > 1 else ""
        lines.append((f"Machine{mark}", _machine(machine)))
        if machine.packages:
            packages = ", ".join(f"{name} {version}" for name, version in sorted(machine.packages.items()))
            lines.append((f"Packages{mark}", packages))
    return lines


def _machine(machine: Environment) -> str:
    parts = [machine.cpu, f"{machine.num_cores} cores" if machine.num_cores else ""]
    parts.append(units.format(machine.memory_bytes, "B") if machine.memory_bytes else "")
    parts += [machine.gpu or "", f"under {machine.hypervisor}" if machine.hypervisor else "", machine.system]
    parts += [
        f"Python {machine.python}" if machine.python else "",
        f"features {' '.join(machine.isa)}" if machine.isa else "",
    ]
    return ", ".join(part for part in parts if part)


def data_lines(report: Report) -> list[tuple[str, str]]:
    """What the data was: `Data name`, `Data fingerprint`, `Data rows.train`, ..."""
    return [(f"Data {name}", text) for name, text in flat(report.data)]


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as `rows.train` and text, sorted by key."""
    lines: list[tuple[str, str]] = []
    for key, value in sorted(values.items()):
        if isinstance(value, Mapping):
            lines += flat(value, f"{prefix}{key}.")
        else:
            lines.append((f"{prefix}{key}", _text(value)))
    return lines


def _text(value: object) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
