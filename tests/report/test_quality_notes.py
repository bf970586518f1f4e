"""What is beside a figure in words: noise, the trivial answer, a student that is not smaller, what is not valid."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from bertshrink.report.correctness_bits import Outcomes
from bertshrink.report.measurement import Conditions, Measurement
from bertshrink.report.render import html, markdown, terminal
from bertshrink.report.report import Snapshot
from bertshrink.report.table.figures import Scale
from bertshrink.report.table.headline import headline
from bertshrink.report.table.quality_notes import against_trivial, difference
from bertshrink.report.table.table import build
from bertshrink.report.table.window import Fitting
from tests.support import fake_bench_reports as made
from tests.support import fake_reports as made_up

WHERE = Conditions(dataset="sst2", split="dev", num_examples=100, questions="q")


def share(wrong, metric="accuracy", **more):
    """The share of 100 answers, those numbered in `wrong` being wrong."""
    right = [i not in wrong for i in range(100)]
    value = sum(right) / 100
    return Measurement.single(
        metric, "fraction", value, "higher", conditions=WHERE, outcomes=Outcomes.of(right), **more
    )


def figure(value, metric="macro_f1", unit="fraction", better="higher", **more):
    return Measurement.single(metric, unit, value, better, conditions=WHERE, **more)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (range(10), range(10), "within noise, p = 1, 0 of 100 answers differ"),
        (range(10), range(3, 12), "within noise, p = 1, 5 of 100 answers differ"),
        (range(10), range(20), "worse, p = 0.002, 10 of 100 answers differ"),
        (range(20), range(4), "better, p < 0.001, 16 of 100 answers differ"),
    ],
)
def test_answers_are_compared_one_by_one(before, after, told):
    found = difference(share(before), share(after))
    assert f"{found.word}, {found.evidence}" == told


def test_other_figures_by_the_interval_of_their_distance():
    assert difference(figure(0.9), figure(0.88, ahead=(-0.031, 0.004))).evidence == (
        "-3.1 to +0.4 points on other texts of this kind"
    )
    assert difference(figure(0.9), figure(0.8, ahead=(-0.12, -0.08))).word == "worse"
    loss = {"metric": "pseudo_perplexity", "unit": "", "better": "lower"}
    assert difference(figure(9.0, **loss), figure(12.0, **loss, ahead=(2.0, 4.0))).word == "worse"


def test_what_cannot_be_told():
    other = share([1]).model_copy(update={"conditions": WHERE.model_copy(update={"questions": "others"})})
    assert difference(share([1]), other) is None, "other questions"
    assert difference(share([], "agreement"), share([1], "agreement")) is None, (
        "the reference is not a rival in likeness"
    )
    assert difference(figure(0.9), figure(0.8)) is None


def test_the_trivial_answer():
    assert against_trivial(share(range(40), chance=0.6)) == (
        "is no better than always predicting the most frequent class (60.00%)"
    )
    near = share(range(38), chance=0.6, sampling=(0.52, 0.71))
    assert against_trivial(near).startswith("is, within noise, no better than")
    assert against_trivial(share(range(10), chance=0.6, sampling=(0.82, 0.94))) == ""
    assert against_trivial(share(range(10))) == ""


def snapshot(name, role, *measurements, size, kind="encoder"):
    own = [Measurement.single("size", "B", size, "lower"), *measurements]
    return Snapshot(name=name, label=name, role=role, kind=kind, measurements=own)


def report(**more):
    teacher = snapshot("teacher", "reference", share(range(48), chance=0.52, sampling=(0.42, 0.62)), size=1e6)
    student = snapshot("student", "stage", share(range(2, 49), chance=0.52, sampling=(0.43, 0.63)), size=1.1e6, **more)
    return made.report([teacher, student])


FORMS = {
    "terminal": lambda r: drawn(r, 80),
    "markdown": markdown.render,
    "html": html.render,
}


def drawn(found, width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(terminal.render(found))
    console.file.close()
    return console.export_text()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_all_renderings_say_it(form):
    text = " ".join(FORMS[form](report()).split())
    for part in (
        "p = 1, 3 of 100 answers differ",
        "within noise",
        "the reference is no better than always predicting the most frequent class (52.00%)",
        "not smaller than the reference: 1.10 MB against 1.00 MB",
        "52.00 ± 10%",
        "95 % interval for other texts",
        "101.9%",
    ):
        assert part in text, part


def test_an_interval_is_written_so_that_it_tells_the_truth():
    """`±` stands for an interval about the figure; one that is askew has its bounds, and none is none."""
    scale = Scale.of([share(range(100))])
    for sampling, written in (
        ((0.42, 0.62), "52.00 ± 10%"),
        ((0.845, 1.0), "52.00% [84.50, 100.00]"),
        ((0.52, 0.52), "52.00%"),
        ((0.5199999, 0.5200001), "52.00%"),
        (None, "52.00%"),
    ):
        assert scale.figure(share(range(48), chance=0.5, sampling=sampling)) == written


def test_an_artifact_that_is_no_smaller_is_told_in_the_headline_alone():
    found = build(report(kind="artifact"))
    assert not any("not smaller" in advice.text for advice in found.advice)
    assert headline(found)[0].verdict == "not smaller than the reference"


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_figure_that_is_called_invalid_is_not_in_the_headline(form):
    found = made.invalid()
    facts = headline(build(found))
    speed = next(fact for fact in facts if "as fast" in fact.title or "speed" in fact.title)
    assert (speed.figure, speed.title) == ("Not valid", "so no speed is stated")
    assert speed.detail.split(",")[0] in FORMS[form](found).replace("\n", " ")
    assert not any("x" in fact.figure for fact in facts if "speed" in fact.title or "fast" in fact.title)


def test_of_several_speeds_the_valid_ones_stand():
    found = made.bench()
    last = found.snapshots[-1]
    latency = [m for m in last.measurements if m.metric == "latency"]
    spoilt = latency[0].model_copy(update={"validity": "invalid"})
    last.measurements = [spoilt if m is latency[0] else m for m in last.measurements]
    speed = next(fact for fact in headline(build(found)) if "as fast" in fact.title)
    assert speed.figure.endswith("x") and "1 other case not valid" in speed.others
    assert latency[0].conditions.case not in speed.detail


@pytest.mark.slow
@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_no_figure_and_no_head_is_cut(width):
    for found in (report(), made.bench(), made.invalid(), made.mixed(), made_up.make(), made.on_texts()):
        text = drawn(found, width)
        assert "\u2026" not in text and max(map(len, text.splitlines())) <= width
        bare = "".join(text.split())
        table = build(found, only_deciding=True)
        for place, column in enumerate(table.columns):
            assert "".join(f"{column.title} [{column.note}]".split()) in bare
            for row in table.rows:
                cell = row.cells[place]
                for part in (
                    (cell.value, cell.against_figure, cell.against_interval, cell.verdict) if cell.measurement else ()
                ):
                    assert "".join(part.split()) in bare, (column.title, row.label, part)


def test_words_in_columns_are_folded_or_listed_and_never_cut():
    rows = [("onnxruntime", "1.27.0", "training, export, quantization, running models"), ("torch", "missing", "")]
    shown = {}
    for width in (100, 48, 30, 12):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(Fitting(("part", "state", "for"), rows))
        shown[width] = console.export_text()
        bare = "".join(shown[width].split())
        for word in ("onnxruntime", "1.27.0", "quantization,", "models", "missing"):
            assert word in bare, (width, word)
    assert shown[100].count("\n") == 3 and shown[48].count("\n") > 3
    assert "part" not in shown[30] and "  state: 1.27.0" in shown[30], "a list, whose first column names its rows"


def test_a_judgement_in_forty_columns():
    heads: tuple[str, ...] = ()
    rows = [(Text("FAIL  model size growth", style="red"), "<= 0.5%", "+12.3% from 17.4 MB to 19.6 MB")]
    console = Console(width=40, record=True, file=io.StringIO())
    console.print(Fitting(heads, rows))
    text = console.export_text()
    for part in ("FAIL  model size growth", "<= 0.5%", "+12.3% from 17.4 MB to 19.6 MB"):
        assert part in text
