"""A report as one HTML file: opens without network, needs no script, light and dark, on a desk and on a phone.

This file gathers what the page says; how it looks is `template.html.j2` with `style.css.j2`. Everything from the
report passes the template's escaping; only the drawings enter as they are, and matplotlib and `svg` escaped the text
in them.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink import units
from bertshrink.report.measurement import Measurement
from bertshrink.report.metrics import Group, is_counted
from bertshrink.report.render.plots import plots
from bertshrink.report.report import Component, Report, Snapshot
from bertshrink.report.statistics import MARGIN
from bertshrink.report.table.environments import data_lines, evidence_lines, flat, machine_lines
from bertshrink.report.table.figures import Scale, plain
from bertshrink.report.table.headline import headline
from bertshrink.report.table.notes import warnings_of
from bertshrink.report.table.percentiles import cases
from bertshrink.report.table.table import Table, build, sheets
from bertshrink.report.table.target_sections import PERCENTILES

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATE = "template.html.j2"
_PAPER = re.compile(r"(?:arXiv:)?(\d{4}\.\d{4,5}(?:v\d+)?)", re.IGNORECASE)
_GROUP_TITLES: dict[Group, str] = {
    "size": "Size",
    "quality": "Quality",
    "latency": "Latency",
    "throughput": "Throughput",
    "modelled": "Modelled, not measured",
    "work": "Work",
    "time": "Starting",
    "memory": "Memory",
    "roofline": "Against the machine",
    "other": "Other",
}


@dataclass(frozen=True)
class _Detail:
    """What the page says of one model beyond its row."""

    snapshot: Snapshot
    label: str
    lines: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    paper_url: str | None
    notes: list[str]
    components: list[tuple[str, str, str, str]]
    measurements: list[tuple[str, ...]]
    warnings: list[str]


def templates() -> Environment:
    """The pages' templates; what they are given is escaped, and what they miss is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(report: Report, margin: float = MARGIN) -> str:
    """Draw the report.

    Args:
        margin: margin within which speeds count as equivalent, as a fraction.

    Returns:
        The page, the same bytes for the same report.
    """
    from markupsafe import Markup

    table = build(report, margin=margin)
    return (
        templates()
        .get_template(_TEMPLATE)
        .render(
            report=report,
            name=plain(report.name),
            table=table,
            facts=headline(table),
            chapters=[(chapter, _groups(table, chapter.places)) for chapter in table.chapters],
            cases=cases(table),
            percentiles=PERCENTILES,
            sheets=sheets(table),
            galleries=[
                (head, [(plot, Markup(plot.svg)) for plot in group])
                for head, group in groupby(plots(table), key=lambda plot: plot.group)
            ],
            is_run=any(row.snapshot.role == "stage" for row in table.rows),
            details=[_detail(row.snapshot) for row in table.rows],
            measured=[*machine_lines(report), *data_lines(report)],
            evidence=evidence_lines(report),
        )
    )


def _groups(table: Table, places: list[int]) -> list[tuple[str, int]]:
    """The heads above the columns at these places: a title and how many columns are under it."""
    counts = Counter(table.columns[place].group for place in places)
    return [(_GROUP_TITLES[group], count) for group, count in counts.items()]


def _detail(snapshot: Snapshot) -> _Detail:
    lines = [("Kind", snapshot.kind), *([("Technique", snapshot.technique)] if snapshot.technique else [])]
    lines += [("Took", units.format(snapshot.seconds, "s"))] if snapshot.seconds is not None else []
    lines += [("Kept at", snapshot.path)] if snapshot.path else []
    lines += [(key.removeprefix("num_").replace("_", " ").capitalize(), text) for key, text in flat(snapshot.facts)]
    return _Detail(
        snapshot,
        plain(snapshot.label),
        lines,
        flat(snapshot.settings),
        paper_url(snapshot.paper),
        [plain(note) for note in snapshot.notes],
        _components(snapshot.components),
        [_measurement(m) for m in snapshot.measurements if m.rounds],
        warnings_of(snapshot),
    )


def paper_url(paper: str | None) -> str | None:
    """Where an arXiv paper is; None for anything that is not exactly such an identifier."""
    match = _PAPER.fullmatch(paper or "")
    return f"https://arxiv.org/abs/{match[1]}" if match else None


def _components(components: list[Component]) -> list[tuple[str, str, str, str]]:
    total = sum(part.num_parameters for part in components) or 1
    return [
        (
            plain(part.name),
            f"{part.num_parameters:,}",
            f"{100 * part.num_parameters / total:.1f}%",
            units.format(part.num_bytes, "B"),
        )
        for part in components
    ]


def _measurement(m: Measurement) -> tuple[str, ...]:
    """Metric, conditions, figure, rounds and samples, validity, evidence: one line of the full list."""
    conditions: dict[str, Any] = m.conditions.model_dump(exclude_none=True)
    words = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in conditions.items())
    samples = f"{len(m.rounds)} rounds, {len(m.all)} samples"
    if is_counted(m):
        samples = "modelled" if m.is_range else "exact"
    return plain(m.metric), plain(words), Scale.of([m]).figure(m), samples, m.validity, str(m.evidence)
