"""What a report says, as one neutral table that every renderer draws.

Rows are models: the reference, then each stage with its baselines directly under it. Where stages made the reference,
those before it are above it, compared with nothing. Columns are a metric under
its conditions. A cell holds the figure (`45.2 ± 0.8 ms`: median and half the width of its 95 % interval over rounds)
and what it is against the reference (`2.90x [2.81, 2.99]`). A quality has the half of its interval over texts, and
whether it is distinguished from the reference's (see `quality_notes`). Counted figures, such as a size, have exact
ratios; a measured one has a ratio only together with its interval, and none when a single round leaves no interval to
give. What was not measured is a dash.

Text of a report is not to be trusted: every string that enters the table has lost its control characters here; escaping
for HTML, Markdown or a terminal is the renderer's part.
"""

from collections import Counter
from dataclasses import dataclass

from bertshrink.report.measurement import Conditions, Interval, Measurement, compare
from bertshrink.report.metrics import (
    DRAWN_ONLY,
    GROUPS,
    METRICS,
    Group,
    Key,
    decides,
    group_of,
    is_compared,
    is_counted,
    is_early,
    is_of_target,
    is_score,
    is_time,
)
from bertshrink.report.report import Report, Sheet, Snapshot
from bertshrink.report.statistics import MARGIN
from bertshrink.report.table import quality_notes, verdicts
from bertshrink.report.table.figures import DASH, Scale, plain, share, times, title_of
from bertshrink.report.table.footnotes import Measured, evidence_of_all, footnote, shared
from bertshrink.report.table.notes import Advice, doubts, notes
from bertshrink.report.table.target_sections import Standing, standings
from bertshrink.report.table.verdicts import Tone


@dataclass(frozen=True)
class Cell:
    """One figure: as text, against the reference with the interval (either may be empty), the measurement behind it
    (None: not measured), and the verdict of a speed or a quality in a word, with its tone.
    """

    value: str = DASH
    against_figure: str = ""
    against_interval: str = ""
    measurement: Measurement | None = None
    ratio: Interval | None = None
    verdict: str = ""
    tone: Tone = ""

    @property
    def against(self) -> str:
        """What the figure is against the reference: `2.90x [2.81, 2.99]`."""
        return " ".join(part for part in (self.against_figure, self.against_interval) if part)

    @property
    def told(self) -> str:
        """What the figure is against the reference, in one line: `2.90x [2.81, 2.99] faster`."""
        return " ".join(part for part in (self.against, self.verdict) if part)


@dataclass(frozen=True)
class Column:
    """A metric under its conditions.

    `against_title` says what the second line of its cells is, empty where there is none; `note` is the number of its
    footnote, from 1; `scale` is the unit that all its cells are written in; `target` is where the models ran, empty
    where that is this machine's processor alone.
    """

    metric: str
    conditions: Conditions
    group: Group
    title: str
    subtitle: str
    against_title: str
    note: int
    scale: Scale
    is_cost: bool
    target: str

    @property
    def heading(self) -> str:
        """Title, subtitle and target in one line."""
        words = f"{self.title} {self.subtitle}".strip()
        return ", ".join(part for part in (words, self.target) if part)

    @property
    def where(self) -> str:
        """Subtitle and target: what tells this column from the metric's others."""
        return ", ".join(part for part in (self.subtitle, self.target) if part)


@dataclass(frozen=True)
class Row:
    """A model and its cells, one per column; `leads`: it is a step on the way to the reference."""

    snapshot: Snapshot
    label: str
    cells: tuple[Cell, ...]
    leads: bool = False

    @property
    def is_baseline(self) -> bool:
        """Whether the model only is beside a stage for comparison."""
        return self.snapshot.role == "baseline"

    @property
    def is_reference(self) -> bool:
        """Whether the others are compared with this one."""
        return self.snapshot.role == "reference"


@dataclass(frozen=True)
class Chapter:
    """A part of the columns that is shown as one table: its title, the evidence of its figures (empty: of the models
    themselves), and where its columns are.
    """

    title: str
    evidence: str
    places: list[int]


@dataclass(frozen=True)
class Table:
    """Everything that the renderers draw of a report's figures.

    `footnotes` has one line per metric, in the order of the columns' numbers; `shared` is what several metrics have in
    common, each line headed by their titles; `standings` says the same and more of the figures that belong to a target.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]
    shared: tuple[str, ...]
    advice: tuple[Advice, ...]
    standings: tuple[Standing, ...] = ()
    margin: float = MARGIN

    @property
    def reference(self) -> Row | None:
        """The row that the others are compared with."""
        return next((row for row in self.rows if row.is_reference), None)

    @property
    def result(self) -> Row | None:
        """The row that came out last: the last stage's, or the last compared model's."""
        made = [row for row in self.rows if row.snapshot.role == "stage" and not row.leads]
        shown = made or [row for row in self.rows if row.snapshot.role == "compared"]
        return shown[-1] if shown else None

    @property
    def chapters(self) -> list[Chapter]:
        """The columns in parts, each with its title: what the models are, then what they cost, target by target."""
        own = [place for place, column in enumerate(self.columns) if not column.is_cost]
        parts = [Chapter("What it is", "", own)]
        for standing in self.standings:
            costs = [
                i for i, c in enumerate(self.columns) if c.is_cost and plain(c.conditions.target) == standing.target
            ]
            on = f" on {standing.target}" if any(self.columns[place].target for place in costs) else ""
            evidence = ", ".join(kind for kind, _ in standing.evidence)
            parts.append(Chapter(f"What it costs{on}", evidence, costs))
        return [part for part in parts if part.places]

    def of_group(self, *groups: Group) -> list[int]:
        """The places of the columns that belong to these groups."""
        return [place for place, column in enumerate(self.columns) if column.group in groups]


def sheets(table: Table) -> list[tuple[Row, Sheet]]:
    """Further tables of words, each with the row of its model."""
    return [(row, sheet) for row in table.rows for sheet in row.snapshot.sheets]


def build(report: Report, only_deciding: bool = False, margin: float = MARGIN) -> Table:
    """Make the table of a report.

    Args:
        only_deciding: leave out the columns that one does not pick a model by, such as the time to load.
        margin: margin within which speeds count as equivalent, as a fraction.

    Returns:
        The table: rows and columns in the order to show, numbered footnotes, advice, the targets' standing.
    """
    snapshots = _ordered(report.snapshots)
    keys = _keys(snapshots, only_deciding)
    figures = {s.name: _by_key(s, keys) for s in snapshots}
    base = next((figures[s.name] for s in snapshots if s.role == "reference"), {})
    leading = _leading(report.snapshots)
    bases = [{} if s.role == "reference" or s.name in leading else base for s in snapshots]
    metrics: dict[str, Measured] = {}
    columns, cells = [], []
    for key in keys:
        measured = [(s, figures[s.name][key]) for s in snapshots if key in figures[s.name]]
        metrics.setdefault(key[0], []).extend(measured)
        scale = Scale.of([m for _, m in measured])
        pairs = zip(snapshots, bases, strict=True)
        cells.append([_cell(figures[s.name].get(key), against.get(key), scale, margin) for s, against in pairs])
        has_ratio = any(cell.against for cell in cells[-1])
        columns.append(_column(key, keys, measured[0][1], has_ratio, list(metrics).index(key[0]) + 1, scale))
    rows = tuple(
        Row(s, plain(s.label), tuple(column[i] for column in cells), s.name in leading) for i, s in enumerate(snapshots)
    )
    where = standings(snapshots, report.environments, only_deciding)
    return Table(
        tuple(columns),
        rows,
        footnotes=tuple(footnote(metric, pairs) for metric, pairs in metrics.items()),
        shared=_shared(report, metrics, bool(where)),
        advice=(
            *quality_notes.remarks(snapshots, tuple(leading)),
            *notes(report, snapshots),
            *doubts(_of_models(snapshots)),
        ),
        standings=where,
        margin=margin,
    )


def _shared(report: Report, metrics: dict[str, Measured], has_targets: bool) -> tuple[str, ...]:
    """What the metrics of the models themselves have in common; without a target also how all was obtained."""
    own = {metric: [(s, m) for s, m in pairs if not is_of_target(m)] for metric, pairs in metrics.items()}
    own = {metric: pairs for metric, pairs in own.items() if pairs}
    return (*shared(own, report.environments), *(() if has_targets else evidence_of_all(own)))


def _of_models(snapshots: list[Snapshot]) -> Measured:
    return [(s, m) for s in snapshots for m in s.measurements if not is_of_target(m)]


def _leading(snapshots: list[Snapshot]) -> set[str]:
    """The names of the stages that came before the one that made the reference."""
    at = next((i for i, s in enumerate(snapshots) if s.role == "reference"), 0)
    return {s.name for s in snapshots[:at] if s.role == "stage"}


def _ordered(snapshots: list[Snapshot]) -> list[Snapshot]:
    """What led to the reference, it, then all others; each baseline (`01-distill/untrained`) right after the model it
    is named under.
    """
    leading = _leading(snapshots)
    main = [s for s in snapshots if s.name in leading] + [s for s in snapshots if s.role == "reference"]
    main += [s for s in snapshots if s.role in ("stage", "compared") and s.name not in leading]
    beside = [s for s in snapshots if s.role == "baseline"]
    ordered = []
    for snapshot in main:
        own = [s for s in beside if s.name.startswith(f"{snapshot.name}/")]
        ordered += [snapshot, *own]
        beside = [s for s in beside if s not in own]
    return ordered + beside


def _bare(m: Measurement) -> Key:
    return m.metric, m.conditions.model_copy(update={"engine": None, "precision": None})


def _is_shown(m: Measurement) -> bool:
    """The steady peak of memory is what is paid; what only makes a picture stays in the picture."""
    return bool(m.rounds) and not is_early(m) and m.metric not in DRAWN_ONLY


def _crowded(snapshots: list[Snapshot]) -> set[Key]:
    """The columns in which one model has several figures, so that the engine must tell them apart."""
    counts = [Counter(_bare(m) for m in s.measurements) for s in snapshots]
    return {key for count in counts for key, number in count.items() if number > 1}


def _keys(snapshots: list[Snapshot], only_deciding: bool) -> list[Key]:
    """What the columns are, in the order to show them."""
    crowded = _crowded(snapshots)
    seen: dict[Key, Measurement] = {}
    for m in (m for s in snapshots for m in s.measurements if _is_shown(m)):
        if only_deciding and not decides(m):
            continue
        key = _bare(m)
        seen.setdefault((m.metric, m.conditions) if key in crowded else key, m)
    names = list(METRICS)

    targets = list(dict.fromkeys(conditions.target for _, conditions in seen))

    def order(key: Key) -> tuple[int, int, int, int]:
        metric, conditions = key
        known = names.index(metric) if metric in names else len(names)
        work = (conditions.batch or 0) * (conditions.length or 0 if conditions.workload is None else 1)
        return GROUPS.index(group_of(seen[key])), known, targets.index(conditions.target), work

    return sorted(seen, key=order)


def _by_key(snapshot: Snapshot, keys: list[Key]) -> dict[Key, Measurement]:
    """The snapshot's figure for each column that it has one for; of two under the same conditions, the first."""
    by_key: dict[Key, Measurement] = {}
    for m in snapshot.measurements:
        for key in ((m.metric, m.conditions), _bare(m)):
            if key in keys and _is_shown(m):
                by_key.setdefault(key, m)
                break
    return by_key


def _column(key: Key, keys: list[Key], sample: Measurement, has_ratio: bool, note: int, scale: Scale) -> Column:
    metric, conditions = key
    is_cost = is_of_target(sample)
    targets = {other.target for _, other in keys}
    return Column(
        metric,
        conditions,
        group_of(sample),
        title_of(metric),
        _subtitle(key, keys),
        ("speed-up" if is_time(sample) else "of reference") if has_ratio else "",
        note,
        scale,
        is_cost,
        plain(conditions.target) if is_cost and targets != {"cpu"} else "",
    )


def _subtitle(key: Key, keys: list[Key]) -> str:
    """The shape, and whatever else tells this column from the metric's other columns."""
    metric, conditions = key
    others = [other for name, other in keys if name == metric]
    parts = [conditions.case] if conditions.case is not None else []
    for field, form in _TELLING.items():
        value = getattr(conditions, field)
        if value is not None and len({getattr(other, field) for other in others}) > 1:
            parts.append(form.format(value))
    return plain(", ".join(parts))


_TELLING = {
    "engine": "{}",
    "precision": "{}",
    "threads": "{} threads",
    "phase": "{}",
    "padding": "padded to {}",
    "dataset": "{}",
    "split": "{}",
    "num_examples": "{} texts",
}
"""The conditions that can part two columns of one metric, and how each is written."""


def _cell(m: Measurement | None, base: Measurement | None, scale: Scale, margin: float) -> Cell:
    if m is None:
        return Cell()
    if base is None or not is_compared(m):
        return Cell(scale.figure(m), measurement=m)
    ratio = _ratio(base, m)
    against, interval = _against(base, m, ratio)
    if not against:
        return Cell(scale.figure(m), measurement=m, ratio=ratio)
    difference = quality_notes.difference(base, m) if group_of(m) == "quality" else None
    if difference is not None:
        return Cell(scale.figure(m), against, interval, m, ratio, difference.word, difference.tone)
    verdict, tone = verdicts.verdict_text(base, m, margin), verdicts.tone_of(base, m, margin)
    return Cell(scale.figure(m), against, interval, m, ratio, verdict, tone)


def _ratio(base: Measurement, m: Measurement) -> Interval | None:
    """Speed-up of a time, share of anything else; None when there is no interval to give with it."""
    if is_counted(base) and is_counted(m):
        # What was counted is the same on every machine.
        base, m = (one.model_copy(update={"environment": None}) for one in (base, m))
    elif min(len(base.rounds), len(m.rounds)) < 2:
        return None
    return compare(m, base) if is_time(m) else compare(base, m)


def _against(base: Measurement, m: Measurement, ratio: Interval | None) -> tuple[str, str]:
    is_exact = is_counted(base) and is_counted(m)
    if ratio is not None:
        return share(ratio, is_exact) if is_score(m) else times(ratio, is_exact)
    if not (is_score(m) and is_exact):
        return "", ""
    gap = m.value - base.value
    return f"{100 * gap:+.2f} pt" if m.unit == "fraction" else f"{gap:+.3f}", ""
