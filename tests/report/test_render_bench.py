"""Rendering what `bench` finds: verdicts in words, validity with its reasons, what is not claimed, several targets."""

import functools
import io
import re

import pytest
from rich.console import Console

from bertshrink.report.measurement import Measurement, MeasurementWarning, judge
from bertshrink.report.render import html, markdown, terminal
from bertshrink.report.render.plots import plots
from bertshrink.report.render.plots.pareto import pareto
from bertshrink.report.report import Report
from bertshrink.report.table.figures import Scale
from bertshrink.report.table.headline import headline
from bertshrink.report.table.percentiles import cases
from bertshrink.report.table.table import build
from bertshrink.report.table.verdicts import verdict_text
from tests.report.test_render import Page, place, row, written
from tests.support import fake_bench_reports as made
from tests.support.fake_reports import timed

REPORTS = {
    "bench": made.bench,
    "one model": lambda: made.bench(("reference",)),
    "one round": lambda: made.bench(rounds=1, num_samples=6),
    "two rounds": lambda: made.bench(rounds=2, num_samples=6),
    "no reference": lambda: made.bench(("onnx", "int8")),
    "texts": made.on_texts,
    "invalid": made.invalid,
    "mixed": made.mixed,
}


def words_of(text):
    return " ".join("".join(Page(text).words).split())


@functools.cache
def page(name):
    """The page of an untouched report."""
    return html.render(REPORTS[name]())


@functools.cache
def pictures(name):
    return plots(build(REPORTS[name]()))


@pytest.mark.slow
@pytest.mark.parametrize("name", REPORTS)
def test_every_kind_of_report_renders_the_same_after_json(name):
    report = REPORTS[name]()
    again = Report.model_validate_json(report.to_json())
    assert markdown.render(report) == markdown.render(again)
    assert written(report, 80) == written(again, 80)
    assert max(len(line) for line in written(report, 60).splitlines()) <= 60
    text = page(name)
    seen = Page(text)
    assert not seen.open
    assert not {tag for tag, _ in seen.tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    identifiers = re.findall(r'\sid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))
    labels = re.findall(r'aria-(?:labelledby|describedby)="([^"]+)"', text)
    assert labels and set(labels) <= set(identifiers)
    assert "nan" not in words_of(text).split()


# Verdicts


def test_every_ratio_of_a_speed_has_its_verdict_and_nothing_else_has():
    table = build(made.mixed())
    seen = set()
    for column, cell in ((c, r.cells[i]) for r in table.rows for i, c in enumerate(table.columns)):
        is_speed = column.group in ("latency", "throughput", "time")
        assert bool(cell.verdict) == (is_speed and bool(cell.against))
        seen.add(cell.verdict)
    assert seen >= {"faster", "equal within 5 %"}


FORMS = {
    "page": page,
    "markdown": lambda name: markdown.render(REPORTS[name]()),
    "terminal": lambda name: written(REPORTS[name](), 100),
}


@pytest.mark.parametrize("form", FORMS)
def test_verdicts_are_said_in_all_forms(form):
    text = FORMS[form]("bench")
    assert "faster" in text and "equal within 5 %" in text
    assert "no verdict" in FORMS[form]("two rounds")


@pytest.mark.slow
def test_a_verdict_is_that_of_judge_and_its_margin_is_the_callers():
    report = made.bench()
    onnx, base = report.snapshots[1].find("latency"), report.snapshots[0].find("latency")
    assert judge(base, onnx, 0.05) == "equivalent" and judge(base, onnx, 0.001) != "equivalent"
    assert verdict_text(base, onnx, 0.05) == "equal within 5 %" and verdict_text(base, onnx, 0.1) == "equal within 10 %"
    assert verdict_text(base, onnx, 0.001) in ("faster", "unclear")
    out = io.StringIO()
    Console(file=out, width=100, color_system=None).print(terminal.render(report, margin=0.1))
    for text in (html.render(report, 0.1), markdown.render(report, 0.1), out.getvalue()):
        assert "equal within 10 %" in text and "equal within 5 %" not in text


def test_of_a_rate_more_is_faster():
    def rate(value, seed):
        return timed("throughput", value, "torch", seed, "token/s").model_copy(update={"better": "higher"})

    assert verdict_text(rate(100, 0), rate(200, 1), 0.05) == "faster"
    assert verdict_text(rate(200, 0), rate(100, 1), 0.05) == "slower"
    assert verdict_text(timed("latency", 2, "torch", 0), timed("latency", 1, "torch", 1), 0.05) == "faster"
    assert verdict_text(timed("memory", 2, "torch", 0, "B"), timed("memory", 1, "torch", 1, "B"), 0.05) == ""


def test_two_wide_spreads_are_unclear():
    base, other = (timed("latency", value, "torch", seed, noise=0.6) for value, seed in ((1.0, 1), (1.05, 2)))
    assert verdict_text(base, other, 0.05) == "unclear"


def test_the_verdict_of_an_invalid_figure_says_so():
    table = build(made.invalid())
    at = place(table, "latency", (8, 128))
    assert row(table, "int8").cells[at].verdict == "faster (invalid)"
    scattered = [timed("latency", 1.0, "torch", seed, noise=0.6) for seed in (1, 2)]
    unsure = [m.model_copy(update={"validity": "invalid"}) for m in scattered]
    assert verdict_text(*unsure, 0.05) == "unclear", "no claim, nothing to mark"
    assert row(table, "onnx").cells[at].verdict == "equal within 5 %", "semivalid is told where the target is"
    assert 'class="verdict doubtful">faster (invalid)' in page("invalid")


def test_a_time_that_was_taken_once_has_no_ratio():
    table = build(made.bench(rounds=1, num_samples=1))
    for column, cell in ((c, r.cells[i]) for r in table.rows for i, c in enumerate(table.columns)):
        if column.group in ("latency", "time", "memory"):
            assert (cell.against, cell.verdict) == ("", "")


# What the figures are worth


@pytest.mark.parametrize("form", FORMS)
def test_validity_stands_with_its_reasons(form):
    text = FORMS[form]("invalid")
    for part in ("invalid", "semivalid", "other processes kept 1.5 cores busy", "not warmed up"):
        assert part in text
    assert "measured" in text and "host" in text


def test_the_worst_figure_decides_and_each_model_has_its_own():
    (cpu,) = build(made.invalid()).standings
    assert (cpu.target, cpu.validity) == ("cpu", "invalid")
    assert cpu.models == (("all-MiniLM-L6-v2", "valid"), ("minilm-onnx", "semivalid"), ("minilm-int8", "invalid"))
    assert {advice.subject for advice in cpu.reasons} == {"minilm-int8", ""}
    (cpu,) = build(made.bench()).standings
    assert (cpu.validity, cpu.models, cpu.reasons) == ("valid", (), ())


def test_doubts_that_differ_by_a_number_become_one():
    report = made.bench()
    for snapshot, cores in zip(report.snapshots, (1.4, 1.6, 1.5), strict=True):
        busy = MeasurementWarning(kind="others_busy", values=(cores,))
        snapshot.measurements = [m.model_copy(update={"warnings": (busy,)}) for m in snapshot.measurements]
    (cpu,) = build(report).standings
    assert [advice.text for advice in cpu.reasons] == ["other processes kept 1.4 to 1.6 cores busy"]


def test_doubts_about_texts_are_summed_up_by_case():
    report = made.on_texts()
    drift = MeasurementWarning(kind="drift", case="reviews.txt x8", values=(0.04,))
    for snapshot in report.snapshots:
        snapshot.measurements = [
            m.model_copy(update={"warnings": (drift,) if m.metric == "latency" else ()}) for m in snapshot.measurements
        ]
    (cpu,) = build(report).standings
    (advice,) = cpu.reasons
    assert advice.text.startswith("drift in 3 of 3 cases: ") and "reviews.txt x8" in advice.text


@pytest.mark.parametrize(
    ("rounds", "num_samples", "told"),
    [
        (1, 6, ("no verdict, no ratio, no interval", "they need 64, 130 and 662 samples, there are 6")),
        (2, 20, ("no verdict on who is faster: 2 rounds, of at least 4", "there are 40")),
        (10, 12, ("no p95, no p99: they need 130 and 662 samples, there are 120",)),
        (10, 70, ()),
    ],
)
def test_what_is_not_claimed_is_told(rounds, num_samples, told):
    report = made.bench(rounds=rounds, num_samples=num_samples)
    (cpu,) = build(report).standings
    assert len(cpu.limits) == len(told) and all(part in line for part, line in zip(told, cpu.limits, strict=True))
    for text in (markdown.render(report), " ".join(written(report, 200).split())):
        assert all(part in text for part in told)


def test_the_page_tells_what_is_not_claimed():
    assert "Not claimed no verdict on who is faster: 2 rounds, of at least 4" in words_of(page("two rounds"))
    assert "Not claimed no verdict, no ratio, no interval" in words_of(page("one round"))
    assert "needs 662 samples" in page("two rounds") and "Not claimed" not in page("bench")


def test_percentiles_need_their_samples():
    found = cases(build(made.bench(num_samples=12)))
    assert [case.title for case in found] == [f"Latency {b}x{n}" for b, n in made.CASES]
    p90, p95, p99 = found[0].lines[0].percentiles
    assert p90.text.endswith(" ms") and (p95.text, p99.text) == ("needs 130 samples", "needs 662 samples")
    assert [p90.is_claimed, p95.is_claimed, p99.is_claimed] == [True, False, False]
    assert found[0].lines[0].samples == "120 in 10 processes" and found[0].lines[0].interval.startswith("[")
    m = made.bench(num_samples=70).snapshots[0].find("latency")
    line = cases(build(made.bench(num_samples=70)))[0].lines[0]
    assert [one.text for one in line.percentiles] == [
        f"{Scale.of([m]).write(m.percentile(p))} ms" for p in (90, 95, 99)
    ]


# Several targets


@pytest.mark.slow
def test_each_target_says_what_its_figures_are_worth():
    standings = build(made.mixed()).standings
    assert [(s.target, s.badge, [kind for kind, _ in s.evidence]) for s in standings] == [
        ("cpu", "valid", ["measured-host"]),
        ("gpu", "valid", ["measured-host"]),
        ("ssh://pi@board", "valid", ["measured-device"]),
        ("arm64:a76", "valid", ["emulated-instructions"]),
        ("profile:pi5", "modelled", ["modelled-range"]),
    ]
    words = words_of(page("mixed"))
    for target in ("cpu", "gpu", "ssh://pi@board", "arm64:a76", "profile:pi5"):
        assert f"What it costs on {target}" in words
        assert f"What it costs on {target}" in markdown.render(made.mixed()).replace("\\", "")
        assert f"What it costs on {target}: " in written(made.mixed(), 100)
    assert "GEMM rate of this machine: torch float32 95.0 Gop/s, onnxruntime int8 240 Gop/s" in words
    assert "Memory rate of this machine: read 11.8 GB/s, copy 9.10 GB/s" in words


def test_times_of_one_target_are_compared_with_that_target_only():
    table = build(made.mixed())
    boards = [i for i, c in enumerate(table.columns) if c.conditions.target == "ssh://pi@board"]
    assert boards and not any(row(table, "int8").cells[i].against for i in boards), "the reference did not run there"
    (fact,) = [fact for fact in headline(table) if "fast" in fact.title]
    assert fact.detail.endswith(", cpu") and fact.others[-1].startswith("gpu: ") and "2 faster" in fact.others[-1]


@pytest.mark.slow
def test_a_modelled_range_never_looks_like_a_time():
    table = build(made.mixed())
    (at,) = [i for i, c in enumerate(table.columns) if c.metric == "latency_range"]
    cell = row(table, "int8").cells[at]
    assert cell.value == "9.58 to 19.2 ms" and (cell.against, cell.verdict) == ("", "")
    assert not any(case.title.startswith("Modelled") for case in cases(table))
    assert not any("Modelled" in plot.title for plot in pictures("mixed"))


def test_instructions_are_exact_and_compared_exactly():
    report = made.mixed()
    reference = report.snapshots[0]
    reference.measurements += made.counted("onnx")
    table = build(report)
    (at,) = [i for i, c in enumerate(table.columns) if c.metric == "instructions"]
    cell = row(table, "int8").cells[at]
    assert (cell.value, cell.against, cell.verdict) == ("69.0 M", "0.40x", "")


def test_a_column_whose_values_lie_far_apart_is_written_in_the_smaller_unit():
    fast, slow = (Measurement.single("latency", "s", value) for value in (0.063, 1.88))
    assert Scale.of([fast, slow]).figure(fast) == "63.0 ms" and Scale.of([fast, slow]).figure(slow) == "1880 ms"
    assert Scale.of([slow]).figure(slow) == "1.88 s"
    tiny, huge = (Measurement.single("latency", "s", value) for value in (1e-6, 100.0))
    assert Scale.of([tiny, huge]).suffix == " min", "not by five digits and more"
    rate = Measurement.single("memory_rate", "B/s", 11.8e9)
    assert Scale.of([rate]).figure(rate) == "11.8 GB/s"


# Pictures


@pytest.mark.slow
def test_pictures_stand_under_their_target():
    found = pictures("mixed")
    assert list(dict.fromkeys(plot.group for plot in found)) == ["The models", "On cpu", "On gpu", "On ssh://pi@board"]
    assert [plot.title for plot in found if plot.group == "On cpu"] == [
        *(f"Latency {b}x{n}, ms" for b, n in made.CASES),
        "Spearman against latency",
        "Memory by phase, MB",
        "Roofline, Gop/s",
    ]
    assert "Device memory, tensors by phase, MB" in [plot.title for plot in found if plot.group == "On gpu"]
    assert {plot.group for plot in pictures("bench")} == {""}


@pytest.mark.slow
def test_a_picture_says_in_words_what_it_shows():
    for plot in pictures("mixed"):
        title, words = re.search(r"<title [^>]*>(.*?)</title>\n<desc [^>]*>(.*?)</desc>", plot.svg, re.DOTALL).groups()
        assert title == plot.title and words.startswith(plot.caption[:20].replace("'", "&#x27;"))
        assert "minilm-int8" in words


@pytest.mark.slow
def test_times_far_apart_stand_on_a_logarithmic_axis():
    report = made.bench()
    captions = [plot.caption for plot in pictures("bench") if plot.title.startswith("Latency")]
    assert not any("logarithmic" in caption for caption in captions)
    last = report.snapshots[-1]
    last.measurements = [
        m.model_copy(update={"samples": tuple(tuple(v / 9 for v in r) for r in m.samples)}) if m.unit == "s" else m
        for m in last.measurements
    ]
    captions = [plot.caption for plot in plots(build(report)) if plot.title.startswith("Latency")]
    assert all("logarithmic" in caption for caption in captions)


@pytest.mark.slow
def test_without_a_quality_size_stands_against_latency():
    titles = [plot.title for plot in pictures("invalid")]
    assert "Size against latency" in titles and not any("Roofline" in title for title in titles)


def test_the_front_is_what_nobody_beats():
    assert pareto([3, 1, 2, 2.5], [1, 3, 2, 2.5]) == [1, 2, 0]
    assert pareto([1, 1, 1], [2, 1, 1]) == [1]
    assert pareto([1, 2], [1, 1]) == [0]


@pytest.mark.slow
def test_what_the_table_calls_equal_is_not_better_on_the_front():
    (plot,) = [plot for plot in pictures("bench") if plot.title == "Spearman against latency"]
    assert "Line: Pareto front, models that no other beats" in plot.caption
    report = made.bench()
    spearman = report.snapshots[-1].find("spearman")
    last = report.snapshots[-1]
    last.measurements = [
        made.exact("spearman", "", 0.99999, "higher", dataset="sst2", split="dev", num_examples=872)
        if m is spearman
        else m
        for m in last.measurements
    ]
    (plot,) = [plot for plot in plots(build(report)) if plot.title == "Spearman against latency"]
    assert "Line:" not in plot.caption, "the fastest is as good as any"


def test_no_time_below_zero():
    m = Measurement(metric="latency", unit="s", samples=((0.01,), (0.012,), (0.2,)), better="lower")
    report = made.report([made.model("reference", [made.moved(m, batch=1, length=32)])])
    assert cases(build(report))[0].lines[0].interval.startswith("[0, ")


@pytest.mark.slow
def test_figures_of_zero_do_not_break_a_picture():
    report = made.mixed()
    for snapshot in report.snapshots:
        snapshot.measurements = [
            m.model_copy(update={"samples": tuple(tuple(0.0 for _ in r) for r in m.samples)}) if not m.is_range else m
            for m in snapshot.measurements
        ]
    assert "all-MiniLM-L6-v2" in html.render(report)
