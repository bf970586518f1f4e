"""Rendering: one made-up report, three forms of it."""

import functools
import io
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from bertshrink.meters.quality.evaluators import prepare
from bertshrink.model.tasks import TASKS
from bertshrink.report.measurement import Evidence, Interval, Measurement, MeasurementWarning, compare
from bertshrink.report.metrics import METRICS, decides
from bertshrink.report.render import html, markdown, terminal
from bertshrink.report.report import Report, Sheet, Snapshot
from bertshrink.report.table.figures import DASH, Scale, times, title_of
from bertshrink.report.table.headline import headline
from bertshrink.report.table.table import Cell, build
from tests.support.fake_reports import EVIL, exact, make, quality, timed
from tests.support.tiny import tiny_encoder, tiny_pairs, tiny_texts


@pytest.fixture
def report():
    return make()


@functools.cache
def page():
    """The page of the untouched report."""
    return html.render(make())


@pytest.fixture
def evil():
    return make(EVIL)


def place(table, metric, shape=None):
    """Where the column of a metric is."""
    for i, column in enumerate(table.columns):
        if column.metric == metric and shape in (None, (column.conditions.batch, column.conditions.length)):
            return i
    raise AssertionError(f"not a column of {metric}")


def row(table, name):
    return next(r for r in table.rows if r.snapshot.name == name)


def single_round(report):
    """The same report with one process per timing, so that nothing is known of the spread between processes."""
    for snapshot in report.snapshots:
        snapshot.measurements = [m.model_copy(update={"samples": m.samples[:1]}) for m in snapshot.measurements]
    return report


def written(report, width):
    """What a terminal of this width shows."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, legacy_windows=False).print(terminal.render(report))
    return out.getvalue()


class Page(HTMLParser):
    """What a browser would make of the page: tags with their attributes, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"`{tag}` closes what it did not open"

    def handle_data(self, data):
        self.words.append(data)


# The table


def test_rows_stand_in_reading_order(report):
    assert [r.snapshot.name for r in build(report).rows] == [
        "teacher",
        "01-distill",
        "01-distill/untrained",
        "02-export",
        "03-quantize",
    ]


def test_columns_go_from_size_to_memory_and_shapes_from_small_to_large(report):
    headings = [column.heading for column in build(report).columns]
    assert headings[:3] == ["Size", "Parameters", "FLOPs per token"]
    assert headings[3:6] == ["Accuracy", "Spearman", "Agreement"]
    assert headings[6:10] == ["Latency 1x16", "Latency 1x128", "Latency 8x128", "Memory"]
    assert headings[10:] == ["Novelty score"]


def test_a_ratio_is_the_one_of_compare_with_its_interval(report):
    table = build(report)
    at = place(table, "latency", (8, 128))
    base, cell = row(table, "teacher").cells[at], row(table, "03-quantize").cells[at]
    oracle = compare(cell.measurement, base.measurement)
    assert cell.ratio == oracle
    assert cell.against == f"{oracle.value:.2f}x [{oracle.low:.2f}, {oracle.high:.2f}]"
    assert oracle.low < oracle.value < oracle.high and oracle.value > 3
    assert table.columns[at].against_title == "speed-up"
    half = (cell.measurement.interval().high - cell.measurement.interval().low) / 2 * 1e3
    assert cell.value == f"{cell.measurement.value * 1e3:.1f} ± {half:.2f} ms"


def test_no_measured_ratio_without_an_interval(report):
    table = build(single_round(report))
    for column, cell in ((c, r.cells[i]) for r in table.rows for i, c in enumerate(table.columns)):
        if column.group in ("latency", "time", "memory"):
            assert cell.against == "" and cell.ratio is None and "±" not in cell.value
    assert row(table, "03-quantize").cells[place(table, "size")].against == "0.20x", "a counted figure stays comparable"
    assert not any("fast" in fact.title for fact in headline(table))


def test_counted_figures_have_exact_ratios(report):
    table = build(report)
    cell = row(table, "03-quantize").cells[place(table, "size")]
    assert (cell.value, cell.against) == ("17.8 MB", "0.20x")
    assert cell.ratio.low == cell.ratio.value == cell.ratio.high == pytest.approx(17.82 / 90.87)
    assert row(table, "01-distill").cells[place(table, "accuracy")].against == "98.9%"


def test_a_column_is_written_in_one_unit(report):
    table = build(report)
    at = place(table, "latency", (1, 16))
    assert all(r.cells[at].value.endswith(" ms") for r in table.rows if r.cells[at].measurement)


def test_what_was_not_measured_is_a_dash(report):
    table = build(report)
    for metric in ("size", "latency", "memory"):
        assert row(table, "01-distill/untrained").cells[place(table, metric)] == Cell(DASH)
    assert row(table, "teacher").cells[place(table, "agreement")].value == DASH
    assert table.columns[place(table, "agreement")].against_title == "", "no reference figure, no promise of a ratio"


def test_a_score_below_zero_is_compared_by_its_difference(report):
    report.snapshots[-1].measurements = quality(spearman=-0.05)
    table = build(report)
    assert row(table, "03-quantize").cells[place(table, "spearman")].against == "-1.050"


def test_memory_is_the_steady_peak(report):
    table = build(report)
    assert [c.conditions.phase for c in table.columns if c.metric == "memory"] == ["steady"]


def test_two_engines_of_one_model_get_a_column_each(report):
    report.snapshots[1].measurements.append(timed("latency", 0.004, "onnxruntime", 9, batch=1, length=16))
    headings = [c.heading for c in build(report).columns if c.metric == "latency"]
    assert headings[:2] == ["Latency 1x16, torch", "Latency 1x16, onnxruntime"]


def test_footnotes_name_evidence_engine_threads_and_effort(report):
    table = build(report)
    assert "40 samples per process" in table.footnotes[table.columns[place(table, "latency")].note - 1]
    assert table.shared == ("Accuracy, Spearman, Agreement: 872 texts of sst2 dev, exact for these texts",)
    (cpu,) = table.standings
    (running,) = cpu.how
    for words in ("Latency, Memory: torch (minilm-l6-sst2", "onnxruntime (export", "2 threads", "over 10 processes"):
        assert words in running
    assert cpu.evidence == (("measured-host", "counted or timed on the machine that made this report"),)
    assert not any("measured-host" in line for line in (*table.footnotes, *table.shared, running))


def test_without_a_target_the_evidence_stands_with_the_figures(report):
    for snapshot in report.snapshots:
        snapshot.measurements = [m for m in snapshot.measurements if m.metric in ("size", "accuracy")]
    table = build(report)
    assert table.standings == () and table.shared[-1].startswith("All figures: measured-host, counted or timed")


def test_shapes_share_a_footnote_though_their_samples_differ(report):
    for snapshot in report.snapshots:
        snapshot.measurements = [
            m.model_copy(update={"samples": tuple(v[: 5 + (m.conditions.length or 0) // 16] for v in m.samples)})
            for m in snapshot.measurements
        ]
    table = build(report)
    assert {c.note for c in table.columns if c.metric == "latency"} == {table.columns[place(table, "latency")].note}
    assert table.footnotes[table.columns[place(table, "latency")].note - 1].endswith("6 to 13 samples per process")
    assert sorted({c.note for c in table.columns}) == list(range(1, len(table.footnotes) + 1))


def test_engines_are_told_apart_where_metrics_ran_in_different_ones(report):
    memory = report.snapshots[1].measurements[-1]
    other = memory.conditions.model_copy(update={"engine": "onnxruntime"})
    report.snapshots[1].measurements[-1] = memory.model_copy(update={"conditions": other})
    lines = build(report).standings[0].how
    assert any(line.startswith("Latency: torch (minilm-l6-sst2") for line in lines)
    assert any(line.startswith("Memory: onnxruntime (minilm-l6-sst2") for line in lines)


def test_evidence_is_told_by_metric_where_it_differs(report):
    report.snapshots[1].measurements[0] = (
        report.snapshots[1].measurements[0].model_copy(update={"evidence": Evidence.MEASURED_ARM64})
    )
    lines = build(report).shared
    assert any(line.startswith("Size: measured-arm64 and measured-host") for line in lines)
    assert not any(line.startswith("All figures") for line in lines)


def test_a_warning_of_several_figures_is_said_once(report):
    table = build(report)
    assert not any(a.is_warning for a in table.advice)
    assert [(a.subject, a.text) for a in reasons(report)] == [
        ("quantize to int8", "other processes kept 0.3 cores busy")
    ]


def reasons(report):
    """What speaks against the figures of the only target."""
    (standing,) = build(report).standings
    return standing.reasons


def warned(report, warnings):
    """The report with `warnings` of each model's latency: a tuple per case."""
    for snapshot in report.snapshots:
        given = iter(warnings.get(snapshot.name, ()))
        snapshot.measurements = [
            m.model_copy(update={"warnings": next(given, ()) if m.metric == "latency" else ()})
            for m in snapshot.measurements
        ]
    return report


def about(case, kind, *values):
    return MeasurementWarning(kind=kind, case=case, values=values)


@pytest.mark.slow
def test_doubts_of_one_kind_become_one_line_with_the_worst_case(report):
    warnings = {
        "teacher": ((about("1x16", "not_warmed_up", 0.03), about("1x16", "outliers", 2, 15)),),
        "01-distill": (
            (about("1x16", "not_warmed_up", -0.69), about("1x16", "outliers", 40, 400)),
            (about("1x128", "outputs_differ"),),
            (about("8x128", "drift", 0.05),),
        ),
    }
    advice = [(a.subject, a.text) for a in reasons(warned(report, warnings))]
    assert advice == [
        (
            "",
            "not warmed up in 2 of 12 cases: the last warm-up iterations still changed by up to 69 % "
            "(distill to 3 layers 1x16)",
        ),
        ("", "outliers in 2 of 12 cases: up to 2 of 15 samples; all are kept (minilm-l6-sst2 1x16)"),
        ("", "the outputs differ between processes in 1 of 12 cases (distill to 3 layers 1x128)"),
        (
            "",
            "drift in 1 of 12 cases: the second half of the rounds differs from the first by +5 % "
            "(distill to 3 layers 8x128)",
        ),
    ]
    text = html.render(report)
    assert text.count("1x16: not warmed up, the last warm-up iterations still changed by -69 %") == 1
    assert "4 warnings about the measurements" in text, "the stage keeps each of them as it was"


def test_what_concerns_every_model_that_ran_needs_no_names(report):
    busy = about(None, "busy_at_start", 3.7, 2)
    names = ("teacher", "01-distill", "02-export", "03-quantize")
    advice = reasons(warned(report, {name: ((busy,),) for name in names}))
    assert [(a.subject, a.text) for a in advice] == [
        ("", "the machine was busy at the start: load average 3.7 on 2 cores")
    ]
    advice = reasons(warned(report, {name: ((busy,),) for name in names[:2]}))
    assert [a.subject for a in advice] == ["minilm-l6-sst2, distill to 3 layers"]


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((2.9, 2.81, 2.99), "2.90x [2.81, 2.99]"),
        ((304.4, 1.55, 59844.49), "304x [1.55, 5.98e4]"),
        ((0.4, 0.000422, 379.456), "0.400x [4.22e-4, 379]"),
        ((0.164, 0.1641, 0.1649), "0.164x [0.164, 0.165]"),
        ((0.9994, 0.9963, 1.0012), "0.999x [0.996, 1.001]"),
        ((37.77, 11.07, 128.88), "37.8x [11.1, 129]"),
    ],
)
def test_a_ratio_has_three_digits(bounds, text):
    value, low, high = bounds
    assert " ".join(times(Interval(value=value, low=low, high=high))) == text


def test_the_headline_takes_the_smallest_speed_up(report):
    table = build(report)
    fact = next(fact for fact in headline(table) if "fast" in fact.title)
    ratios = [row(table, "03-quantize").cells[i].ratio.value for i in table.of_group("latency")]
    assert fact.figure == f"{min(ratios):.2f}x" and fact.interval.startswith("[") and len(fact.others) == 2


def test_the_same_figures_are_called_equal(report):
    teacher, last = report.snapshots[1], report.snapshots[-1]
    last.measurements = [m for m in teacher.measurements if m.metric == "latency"]
    fact = next(fact for fact in headline(build(report)) if "fast" in fact.title)
    assert (fact.figure, fact.verdict) == ("1.00x", "equal within 5 %")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (90_870_000, "B", "90.9 MB"),
        (0.0342, "s", "34.2 ms"),
        (0.8979, "fraction", "89.79%"),
        (0.872, "", "0.8720"),
        (22_713_986, "count", "22.7 M"),
        (12, "count", "12"),
        (0, "s", "0"),
        (3.5, "J", "3.50 J"),
    ],
)
def test_figures_are_written_for_people(value, unit, text):
    m = Measurement.single("thing", unit, value)
    assert Scale.of([m]).figure(m) == text


@pytest.mark.parametrize("first", ["f1", "micro_f1", "sts_spearman", "masked_accuracy"])
def test_the_headline_prefers_what_is_right_to_what_is_alike(report, first):
    for snapshot in report.snapshots:
        others = [m for m in snapshot.measurements if m.metric not in ("accuracy", "agreement", "spearman")]
        alike = {} if first == "masked_accuracy" else {"spearman": 0.8}
        snapshot.measurements = others + quality(**{"agreement": 0.9, **alike, first: 0.7})
    table = build(report)
    (title,) = [fact.title for fact in headline(table) if "of the reference's" in fact.title]
    assert title == f"of the reference's {table.columns[place(table, first)].heading.lower()}"


@pytest.mark.parametrize("task", TASKS)
def test_every_figure_of_a_task_has_a_name_and_its_headline_comes_first(task, tmp_path):
    texts = tiny_texts(task)
    if task == "embedding":
        texts = replace(texts, dev=tiny_pairs(8))
    model = tiny_encoder("bert", task)
    exam = prepare(model, texts, None, 0)
    found = exam.sit(model)
    assert {m.metric for m in found} <= set(METRICS)
    deciding = sorted((m for m in found if decides(m)), key=lambda m: list(METRICS).index(m.metric))
    assert deciding[0].value == exam.headline(model)
    shown = make()
    shown.task = task
    for snapshot in shown.snapshots:
        snapshot.measurements = found
    assert title_of(deciding[0].metric) in written(shown, 100)


def walked(report):
    """The same report as of a run that made its reference itself: pre-trained, then fine-tuned."""
    first = Snapshot(
        name="01-pretrain",
        label="pre-trained",
        role="stage",
        kind="encoder",
        technique="pretrain",
        measurements=[exact("size", "B", 91_000_000, "lower")],
    )
    teacher = next(s for s in report.snapshots if s.role == "reference")
    rest = [s for s in report.snapshots if s is not teacher]
    teacher.technique = "finetune"
    report.snapshots = [first, teacher, *rest]
    return report


@pytest.mark.slow
def test_what_led_to_the_reference_stands_above_it_and_is_compared_with_nothing(report):
    table = build(walked(report))
    assert [r.snapshot.name for r in table.rows[:3]] == ["01-pretrain", "teacher", "01-distill"]
    assert [r.leads for r in table.rows] == [True] + [False] * 5
    size = table.rows[0].cells[place(table, "size")]
    assert (size.value, size.against, size.ratio) == ("91.0 MB", "", None)
    assert table.result.snapshot.name == "03-quantize"
    assert "before the reference" in html.render(report) and "before the reference" in markdown.render(report)


@pytest.mark.slow
def test_a_run_that_only_makes_the_reference_has_nothing_to_boast_of(report):
    walked(report)
    report.snapshots = report.snapshots[:2]
    table = build(report)
    assert table.result is None and headline(table) == ()
    for text in (written(report, 100), markdown.render(report), html.render(report)):
        assert "pre-trained" in text and "89.79%" in text


# All three forms


@pytest.mark.slow
@pytest.mark.parametrize("render", [html.render, markdown.render, lambda report: written(report, 100)])
def test_same_report_same_bytes_also_after_json(render, report):
    again = Report.model_validate_json(report.to_json())
    assert render(report) == render(again)


@pytest.mark.slow
@pytest.mark.parametrize("render", [html.render, markdown.render, lambda report: written(report, 100)])
def test_empty_and_referenceless_reports_render(render, report):
    assert "sst2-edge" in render(
        report.model_copy(update={"snapshots": [], "environments": {}, "data": {}, "recipe": ""})
    )
    compared = [s.model_copy(update={"role": "compared"}) for s in report.snapshots if s.role != "baseline"]
    text = render(report.model_copy(update={"snapshots": compared}))
    assert "quantize to int8" in text and "0.20x" not in text


# HTML


@pytest.mark.slow
def test_nothing_of_a_report_becomes_markup(evil):
    text = html.render(evil)
    assert "<script" not in text and text.count("&lt;script&gt;") > 10
    seen = Page(text)
    assert not seen.open
    assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)
    assert EVIL in "".join(seen.words), "the text itself is kept"


@pytest.mark.slow
def test_a_hostile_paper_is_no_link(report):
    report.snapshots[2].paper = "javascript:alert(1)"
    links = [attributes["href"] for tag, attributes in Page(html.render(report)).tags if tag == "a"]
    assert links == ["https://arxiv.org/abs/1712.05877"]


@pytest.mark.slow
def test_the_page_loads_nothing():
    text = page()
    tags = Page(text).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    targets = [v for tag, a in tags for k, v in a.items() if k in ("href", "src", "xlink:href") and tag != "a"]
    assert all(target.startswith("#") for target in targets)
    assert re.findall(r"https?:[^\s\"<]*", text) == [
        "https://arxiv.org/abs/1910.01108",
        "https://arxiv.org/abs/1712.05877",
    ]
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


@pytest.mark.slow
def test_drawings_leave_colour_to_the_page_and_share_no_identifier():
    text = page()
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 11, "size, components, three qualities and latencies, front, memory by phase, training"
    assert not re.search(r"#0101\d\d", text)
    used = {name for drawing in drawings for name in re.findall(r"var\((--[\w-]+)\)", drawing)}
    assert all(f"{name}: " in text for name in used)
    identifiers = re.findall(r'\sid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))
    for reference in re.findall(r'(?:url\(#|href="#)([^)"]+)', text):
        assert reference in identifiers


def test_the_page_says_everything():
    words = " ".join("".join(Page(page()).words).split())
    for text in (
        "bertshrink run recipes/sst2-edge.yaml",
        "9f2ab7d04c11",
        "avx512_vnni",
        "torch 2.13.0",
        "counted or timed on the machine that made this report",
        "Kept layers 2, 4, 6 of 6.",
        "- distill: {layers: 3}",
        "10.2 min",
        "weights.cosine",
        "for comparison",
    ):
        assert text in words


@pytest.mark.slow
def test_odd_names_do_not_break_a_drawing(report):
    report.snapshots[1].label = r"$\frac{1}$ 模型 & _x " + "long " * 40
    report.snapshots[1].components[0].name = "_hidden"
    assert "模型" in html.render(report)


# Markdown


def test_the_markdown_table_is_well_formed(evil):
    evil.snapshots[1].label = "a | b `c`\n\nd"
    lines = markdown.render(evil).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
    assert len(rows) == 2 + len(evil.snapshots) and len(bars) == 1
    assert re.fullmatch(r"\| --- (\| ---: )+\|", rows[1])
    assert r"a \| b \`c\` d" in rows[2]
    outside = "\n".join(re.split(r"^```.*?^```$", "\n".join(lines), flags=re.DOTALL | re.MULTILINE))
    assert "<script" not in outside


def test_a_recipe_cannot_leave_its_fence(report):
    report.recipe = "a: 1\n```\n<script>\n````\n"
    text = markdown.render(report)
    assert "`````yaml\na: 1\n```\n<script>\n````\n`````\n" in text


# Terminal


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_figure_is_cut_on_a_terminal(report, width):
    text = written(report, width)
    assert max(len(line) for line in text.splitlines()) <= width
    table = build(report, only_deciding=True)
    for cell in (cell for r in table.rows for cell in r.cells):
        assert cell.value in text and all(part in text for part in (cell.against_figure, cell.against_interval))
    assert "…" not in text
    for number, note in enumerate(table.footnotes, 1):
        assert f"[{number}] {note}" in " ".join(text.split())


@pytest.mark.slow
def test_a_terminal_shows_what_decides_the_pages_everything(report):
    loading = timed("load_time", 0.4, "torch", 0, num_samples=1)
    for snapshot in report.snapshots:
        snapshot.measurements += [loading] if snapshot.role != "baseline" else []
    text = written(report, 100)
    for words in ("Size [1]", "Parameters [2]", "Accuracy [3]", "Latency [6]", "Memory [7]"):
        assert words in text
    for words in ("FLOPs per token", "Load", "Novelty"):
        assert words not in text and words in markdown.render(report) and words in html.render(report)
    assert len(text.splitlines()) <= 48


def test_ratios_of_a_column_stand_under_each_other(report):
    lines = [line for line in written(report, 100).splitlines() if "MB  0." in line]
    assert len(lines) == 3 and len({line.index("x ") for line in lines}) == 1


@pytest.mark.slow
def test_parameters_of_a_small_model_are_not_rounded_away(report):
    for part in (part for s in report.snapshots for part in s.components):
        part.num_parameters //= 1000
    assert "22.7 k" in html.render(report)


def test_an_asked_width_is_kept(report):
    out = io.StringIO()
    Console(file=out, width=120, color_system=None).print(terminal.render(report, width=70))
    grids = [line for line in out.getvalue().splitlines() if "±" in line and not line.startswith((" ", "["))]
    assert grids and max(len(line.rstrip()) for line in grids) <= 70


def test_a_report_cannot_steer_the_terminal(report):
    report.name = "x\x1b]0;owned\x07[bold red]y"
    report.snapshots[1].label = "a\x1b[2Jb"
    report.snapshots[-1].notes = ["\u202egnp.exe"]
    text = written(report, 100)
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "[bold red]y" in text, "markup of a name is text"


@pytest.mark.subprocess
def test_rendering_imports_no_engine_and_matplotlib_only_for_pictures():
    code = (
        "import sys; from bertshrink.report.render import html, markdown, terminal;"
        "print(sorted(set(sys.modules) & {'torch', 'transformers', 'onnxruntime', 'matplotlib', 'numpy', 'jinja2'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_further_tables_stand_in_every_form(report):
    rows = (("XNNPACK", "yes | no"),)
    report.snapshots[0].sheets = [Sheet(title="on a phone", heading=("provider", "worth <trying>"), rows=rows)]
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(terminal.render(report))
    assert "XNNPACK" in console.export_text()
    assert "worth &lt;trying&gt;" in html.render(report)
    assert "XNNPACK | yes \\| no" in markdown.render(report)
