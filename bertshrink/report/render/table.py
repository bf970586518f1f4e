"""What a report says, as one neutral table that every renderer draws.

Rows are models: the reference first, then each stage with its baselines directly under it. Columns are a metric under
its conditions. A cell holds the figure (`45.2 ± 0.8 ms`: median and half the width of its 95 % interval over rounds) and
what it is against the reference (`2.90x [2.81, 2.99]`). Counted figures, such as a size, have exact ratios; a measured one has
a ratio only together with its interval, and none when a single round leaves no interval to give. What was not measured is a dash.

Text of a report is not to be trusted: every string that enters the table has lost its control characters here; escaping
for HTML, Markdown or a terminal is the renderer's part.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from bertshrink import units
from bertshrink.report.measurement import Conditions, Environment, Interval, Measurement, compare
from bertshrink.report.report import Report, Snapshot

DASH = "\u2013"

Group = Literal["size", "quality", "latency", "time", "memory", "other"]
_GROUPS: tuple[Group, ...] = ("size", "quality", "latency", "time", "memory", "other")


@dataclass(frozen=True)
class Metric:
    """How a metric is called and what one should know to read it."""

    title: str
    group: Group
    meaning: str


METRICS: dict[str, Metric] = {
    "size": Metric("Size", "size", "bytes of the model's files"),
    "parameters": Metric("Parameters", "size", "numbers the model holds, shared ones counted once"),
    "flops_per_token": Metric("FLOPs per token", "size", "computed from the shapes, not measured"),
    "accuracy": Metric("Accuracy", "quality", "share of the texts with the right label"),
    "agreement": Metric("Agreement", "quality", "share of the texts with the same answer as the reference"),
    "spearman": Metric("Spearman", "quality", "rank correlation of the similarities with the reference's"),
    "recall@10": Metric("Recall@10", "quality", "share of the reference's ten nearest neighbours found"),
    "masked_accuracy": Metric("Masked accuracy", "quality", "share of the masked tokens filled in right"),
    "latency": Metric("Latency", "latency", "time of one batch, batch x length in tokens"),
    "load_time": Metric("Load", "time", "from the file to a model that can answer"),
    "first_inference": Metric("First inference", "time", "the first batch after loading"),
    "memory": Metric("Memory", "memory", "peak of the process while it answers"),
}
"""The metrics with a name of their own; any other becomes a column under the name it has."""


@dataclass(frozen=True)
class Cell:
    """One figure: as text, against the reference, and the measurement behind it (None: not measured)."""

    value: str = DASH
    against: str = ""
    measurement: Measurement | None = None
    ratio: Interval | None = None


@dataclass(frozen=True)
class Column:
    """A metric under its conditions; `note` is the number of its footnote, from 1."""

    metric: str
    conditions: Conditions
    group: Group
    title: str
    subtitle: str
    against_title: str
    note: int

    @property
    def heading(self) -> str:
        """Title and subtitle in one line."""
        return f"{self.title} {self.subtitle}".strip()


@dataclass(frozen=True)
class Row:
    """A model and its cells, one per column."""

    snapshot: Snapshot
    label: str
    cells: tuple[Cell, ...]

    @property
    def is_baseline(self) -> bool:
        """Whether the model only stands beside a stage for comparison."""
        return self.snapshot.role == "baseline"

    @property
    def is_reference(self) -> bool:
        """Whether the others are compared with this one."""
        return self.snapshot.role == "reference"


@dataclass(frozen=True)
class Advice:
    """A note of a technique or a warning of a measurement: whom it is about (may be empty), and what it says."""

    subject: str
    text: str
    is_warning: bool


@dataclass(frozen=True)
class Table:
    """Everything that the renderers draw of a report's figures."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]
    advice: tuple[Advice, ...]

    @property
    def reference(self) -> Row | None:
        """The row that the others are compared with."""
        return next((row for row in self.rows if row.is_reference), None)

    @property
    def result(self) -> Row | None:
        """The row that came out last: the last stage's, or the last compared model's."""
        made = [row for row in self.rows if row.snapshot.role == "stage"]
        shown = made or [row for row in self.rows if row.snapshot.role == "compared"]
        return shown[-1] if shown else None

    def of_group(self, *groups: Group) -> list[int]:
        """The places of the columns that belong to these groups."""
        return [place for place, column in enumerate(self.columns) if column.group in groups]


_Key = tuple[str, Conditions]


def build(report: Report) -> Table:
    """Make the table of a report.

    Args:
        report: any report, also one without a reference or without measurements.

    Returns:
        The table: rows and columns in the order to show, numbered footnotes, advice.
    """
    snapshots = _ordered(report.snapshots)
    keys = _keys(snapshots)
    found = {s.name: _by_key(s, keys) for s in snapshots}
    base = next((found[s.name] for s in snapshots if s.role == "reference"), {})
    notes: dict[str, int] = {}
    columns = []
    for key in keys:
        note = _footnote(key, [(s, found[s.name][key]) for s in snapshots if key in found[s.name]], report.environments)
        columns.append(_column(key, keys, found, notes.setdefault(note, len(notes) + 1)))
    rows = tuple(
        Row(s, plain(s.label), tuple(_cell(found[s.name].get(key), base.get(key), s.role) for key in keys)) for s in snapshots
    )
    return Table(tuple(columns), rows, tuple(notes), _advice(report, snapshots))


def plain(text: str) -> str:
    """One line without control or invisible characters: no terminal codes, no reversed text."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def _ordered(snapshots: list[Snapshot]) -> list[Snapshot]:
    """The reference first, each baseline (`01-distill/untrained`) right after the model it is named under."""
    main = [s for s in snapshots if s.role == "reference"] + [s for s in snapshots if s.role in ("stage", "compared")]
    beside = [s for s in snapshots if s.role == "baseline"]
    ordered = []
    for snapshot in main:
        own = [s for s in beside if s.name.startswith(f"{snapshot.name}/")]
        ordered += [snapshot, *own]
        beside = [s for s in beside if s not in own]
    return ordered + beside


# Columns ------------------------------------------------------------------------------------------------------------------


def _bare(m: Measurement) -> _Key:
    return m.metric, m.conditions.model_copy(update={"engine": None, "precision": None})


def _is_shown(m: Measurement) -> bool:
    """Memory while importing and loading is kept in the report and left out of the table: the steady peak is what is paid."""
    return bool(m.rounds) and not (m.metric == "memory" and m.conditions.phase in ("import", "load"))


def _crowded(snapshots: list[Snapshot]) -> set[_Key]:
    """The columns in which one model has several figures, so that the engine must tell them apart."""
    counts = [Counter(_bare(m) for m in s.measurements) for s in snapshots]
    return {key for count in counts for key, number in count.items() if number > 1}


def _keys(snapshots: list[Snapshot]) -> list[_Key]:
    """What the columns are, in the order to show them."""
    crowded = _crowded(snapshots)
    seen: dict[_Key, Measurement] = {}
    for m in (m for s in snapshots for m in s.measurements if _is_shown(m)):
        key = _bare(m)
        seen.setdefault((m.metric, m.conditions) if key in crowded else key, m)
    names = list(METRICS)

    def order(key: _Key) -> tuple[int, int, int]:
        metric, conditions = key
        known = names.index(metric) if metric in names else len(names)
        work = (conditions.batch or 0) * (conditions.length or 0)
        return _GROUPS.index(_group(seen[key])), known, work

    return sorted(seen, key=order)


def _group(m: Measurement) -> Group:
    if m.metric in METRICS:
        return METRICS[m.metric].group
    if m.unit in ("fraction", "point") or (m.unit == "" and m.better != "neither"):
        return "quality"
    return "time" if m.unit == "s" else "other"


def _by_key(snapshot: Snapshot, keys: list[_Key]) -> dict[_Key, Measurement]:
    """The snapshot's figure for each column that it has one for; of two under the same conditions, the first."""
    found: dict[_Key, Measurement] = {}
    for m in snapshot.measurements:
        for key in ((m.metric, m.conditions), _bare(m)):
            if key in keys and _is_shown(m):
                found.setdefault(key, m)
                break
    return found


def _column(key: _Key, keys: list[_Key], found: dict[str, dict[_Key, Measurement]], note: int) -> Column:
    metric, conditions = key
    sample = next(row[key] for row in found.values() if key in row)
    title = METRICS[metric].title if metric in METRICS else plain(metric.replace("_", " ")).capitalize()
    return Column(metric, conditions, _group(sample), title, _subtitle(key, keys), _against_title(sample), note)


def _subtitle(key: _Key, keys: list[_Key]) -> str:
    """The shape, and whatever else tells this column from the metric's other columns."""
    metric, conditions = key
    others = [other for name, other in keys if name == metric]
    parts = [f"{conditions.batch}x{conditions.length}"] if conditions.batch is not None else []
    for field, form in _TELLING.items():
        value = getattr(conditions, field)
        varies = len({getattr(other, field) for other in others}) > 1
        if value is not None and (varies or (field == "target" and value != "host")):
            parts.append(form.format(value))
    return plain(", ".join(parts))


_TELLING = {
    "target": "{}",
    "engine": "{}",
    "precision": "{}",
    "threads": "{} threads",
    "phase": "{}",
    "dataset": "{}",
    "split": "{}",
    "num_examples": "{} texts",
}
"""The conditions that can part two columns of one metric, and how each is written."""


def _is_score(m: Measurement) -> bool:
    return m.unit in ("fraction", "")


def _is_time(m: Measurement) -> bool:
    return m.unit == "s" and m.better != "higher"


def _against_title(m: Measurement) -> str:
    return "speed-up" if _is_time(m) else "of reference"


# Footnotes ----------------------------------------------------------------------------------------------------------------


def _footnote(key: _Key, found: list[tuple[Snapshot, Measurement]], environments: dict[str, Environment]) -> str:
    """How the column's figures were obtained: meaning, evidence, conditions; the same for all shapes of one metric."""
    metric, conditions = key
    measured = [m for _, m in found]
    parts = [METRICS[metric].meaning if metric in METRICS else plain(metric.replace("_", " "))]
    parts.append(" and ".join(sorted({str(m.evidence) for m in measured})))
    if conditions.dataset or conditions.num_examples is not None:
        name = " ".join(part for part in (conditions.dataset, conditions.split) if part)
        number = f"{conditions.num_examples} texts" if conditions.num_examples is not None else ""
        parts.append(" of ".join(part for part in (number, name) if part))
    parts.append(_engines(found))
    if conditions.threads is not None:
        parts.append(f"{conditions.threads} thread{'s' if conditions.threads > 1 else ''}")
    if not all(m.is_exact for m in measured):
        parts.append(_effort(measured))
    machines = sorted({m.environment for m in measured if m.environment})
    if len(environments) > 1 and machines:
        parts.append(f"on machine {' and '.join(machines)}")
    return plain("; ".join(part for part in parts if part))


def _engines(found: list[tuple[Snapshot, Measurement]]) -> str:
    """`onnxruntime int8 (quantize), torch (teacher, distill)`, or the one engine that ran them all."""
    ran: dict[str, list[str]] = {}
    for snapshot, m in found:
        how = " ".join(part for part in (m.conditions.engine, m.conditions.precision) if part)
        if how:
            ran.setdefault(how, []).append(snapshot.label)
    if len(ran) == 1 and len(next(iter(ran.values()))) == len(found):
        return next(iter(ran))
    return ", ".join(f"{how} ({', '.join(dict.fromkeys(labels))})" for how, labels in ran.items())


def _effort(measured: list[Measurement]) -> str:
    """`median ± half the 95 % interval over 10 rounds (processes) of 50 samples`."""
    rounds = _range([len(m.rounds) for m in measured])
    samples = _range([len(values) for m in measured for values in m.samples if values])
    counts = f"{rounds} (processes) of {samples}".replace(" 1 rounds", " 1 round")
    return f"median ± half the 95 % interval over {counts}"


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


# Cells --------------------------------------------------------------------------------------------------------------------


def _cell(m: Measurement | None, base: Measurement | None, role: str) -> Cell:
    if m is None:
        return Cell()
    if base is None or role == "reference":
        return Cell(figure(m), "", m)
    ratio = _ratio(base, m)
    return Cell(figure(m), _against(base, m, ratio), m, ratio)


def _ratio(base: Measurement, m: Measurement) -> Interval | None:
    """Speed-up of a time, share of anything else; None when there is no interval to give with it."""
    ratio = compare(m, base) if _is_time(m) else compare(base, m)
    is_exact = base.is_exact and m.is_exact
    return ratio if is_exact or min(len(base.rounds), len(m.rounds)) > 1 else None


def _against(base: Measurement, m: Measurement, ratio: Interval | None) -> str:
    is_exact = base.is_exact and m.is_exact
    if ratio is not None:
        return share(ratio, is_exact) if _is_score(m) else times(ratio, is_exact)
    if not (_is_score(m) and is_exact):
        return ""
    gap = m.value - base.value
    return f"{100 * gap:+.2f} pt" if m.unit == "fraction" else f"{gap:+.3f}"


def times(ratio: Interval, is_exact: bool = False) -> str:
    """`2.90x [2.81, 2.99]`; without an interval only where both sides were counted."""
    digits = 2 if ratio.low >= 0.1 else 3
    text = f"{ratio.value:.{digits}f}x"
    return text if is_exact else f"{text} [{ratio.low:.{digits}f}, {ratio.high:.{digits}f}]"


def share(ratio: Interval, is_exact: bool = False) -> str:
    """`98.9%`, or `98.9% [98.1, 99.6]` where the sides were measured several times."""
    text = f"{100 * ratio.value:.1f}%"
    return text if is_exact else f"{text} [{100 * ratio.low:.1f}, {100 * ratio.high:.1f}]"


def figure(m: Measurement) -> str:
    """The median with half the width of its 95 % interval over rounds, in one scale: `45.2 ± 0.83 ms`."""
    interval = m.interval()
    half = (interval.high - interval.low) / 2
    number, suffix, scale = scaled(m.value, m.unit)
    return f"{number} ± {_two_digits(half / scale)}{suffix}" if half else f"{number}{suffix}"


def scaled(value: float, unit: str) -> tuple[str, str, float]:
    """A value as its written number, the suffix with its space, and how many base units the suffix stands for."""
    text = units.format(value, unit)
    match = re.match(r"[-+\d.e]+", text)
    if match is None or not float(match[0]):
        return text, "", 1.0
    suffix = text[match.end() :]
    return match[0], plain_suffix(suffix), _scale_of(suffix, value / float(match[0]))


def plain_suffix(suffix: str) -> str:
    """The suffix without control characters, its leading space kept."""
    return "".join(c for c in suffix if c.isprintable())


def _scale_of(suffix: str, about: float) -> float:
    """What the suffix stands for: the written one where `units` knows it, else what the rounded number implies."""
    try:
        return units.parse(f"1{suffix}")[0]
    except ValueError:
        return about


def _two_digits(value: float) -> str:
    if value >= 10 or value <= 0:
        return f"{value:.0f}"
    return f"{value:.{min(6, 1 - math.floor(math.log10(value)))}f}"


# Advice -------------------------------------------------------------------------------------------------------------------


def _advice(report: Report, snapshots: list[Snapshot]) -> tuple[Advice, ...]:
    """Notes of the run and its stages, then the measurements' warnings; what several models share is said once."""
    lines: dict[tuple[str, bool], dict[str, None]] = {}
    for note in report.notes:
        lines.setdefault((plain(note), False), {})
    for snapshot in snapshots:
        for note in snapshot.notes:
            lines.setdefault((plain(note), False), {})[plain(snapshot.label)] = None
    for snapshot in snapshots:
        for text in (text for m in snapshot.measurements for text in m.warnings):
            lines.setdefault((plain(text), True), {})[plain(snapshot.label)] = None
    return tuple(Advice(", ".join(subjects), text, is_warning) for (text, is_warning), subjects in lines.items())
