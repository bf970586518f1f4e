"""The live lines of a terminal: what they show in 80 and 40 columns, and when they are drawn."""

import io
import threading
import time
import warnings

import pytest
from rich.console import Console

from bertshrink.cli import progress
from bertshrink.command_scope import command_scope
from bertshrink.meters.targets import runner_target
from bertshrink.progress import Silent


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def bars(width=80, encoding="utf-8"):
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return progress.RichProgress(Console(file=written, width=width, force_terminal=True))


def moving(clock, *, title="distill to 3 layers", total=1000, unit="tokens", **fields):
    task = progress._RichTask(bars(), title, total, unit, 0, False)
    clock[0] += 20
    task.advance(250, **fields)
    return task


def test_eighty_columns_show_title_bar_share_times_and_one_number(clock):
    (line,) = moving(clock, loss="0.1234", rate="0.0002").lines(80)
    assert line.startswith("distill to 3 layers  ━")
    assert line.endswith(" 25 %  0:20  1:00 left  loss 0.1234")
    assert len(line) == 80 or "━" * 7 in line
    assert len(line) <= 80


def test_a_wide_window_shows_the_rest(clock):
    (line,) = moving(clock, loss="0.1234", skipped="3").lines(140)
    assert line.endswith("1:00 left  loss 0.1234  12 tokens/s  skipped 3")


def test_details_go_first_and_nothing_is_cut(clock):
    task = moving(clock, title="stage 2/3 a title of some length", loss="0.1234", more="x" * 90)
    for width in range(12, 160):
        lines = task.lines(width)
        shown = " ".join(lines)
        assert "stage 2/3 a title of some length" in shown and "25 %" in shown and "1:00 left" in shown
        assert all(len(line) <= width for line in lines if line != lines[0] or len(lines) == 1) or width < 25
        if width < 80:
            assert "xxx" not in shown, "a detail is shown whole or not at all"
    assert len(task.lines(80)) == 1
    assert len(task.lines(40)) == 2 and "━" in task.lines(40)[1]


@pytest.mark.parametrize("fields", [{}, {"model": "a-model-with-a-name-that-is-much-too-long-for-a-line " * 2}])
def test_forty_columns_of_every_kind_of_task(clock, fields):
    for total in (None, 7):
        task = moving(clock, title="latency and memory", total=total, unit="processes", **fields)
        assert all(len(line) <= 40 for line in task.lines(40))


def test_the_time_left_passes_while_nothing_moves(clock):
    task = moving(clock)
    clock[0] += 15
    assert "0:35  0:45 left" in task.lines(80)[0]
    clock[0] += 500
    assert "0:00 left" in task.lines(80)[0]


def test_no_time_is_promised_before_the_first_step(clock):
    task = progress._RichTask(bars(), "try", 10, "tries", 4, False)
    clock[0] += 5
    assert "left" not in task.lines(80)[0] and " 40 %" in task.lines(80)[0] and "0:05" in task.lines(80)[0]


def test_a_shipped_recipe_is_told_in_whole_sentences(capsys):
    from bertshrink.cli.app import run

    assert run(["recipe", "list"]) == 0
    for line in capsys.readouterr().out.splitlines():
        assert line.endswith((".", ")")) and "  " in line


def test_a_terminal_without_these_letters(clock):
    assert "#####..." in moving(clock).lines(80, is_plain=True)[0]


@pytest.mark.slow
def test_the_clock_moves_although_nothing_else_does(monkeypatch):
    monkeypatch.setattr(progress.RichProgress, "CLOCK_S", 0.02)
    shown = bars()
    drawn = []
    monkeypatch.setattr(shown, "_drawn", lambda: drawn.append(time.monotonic()) or progress.RichProgress._drawn(shown))
    before = threading.active_count()
    with shown.task("slow", 10):
        time.sleep(0.4)
    assert len(drawn) > 5
    time.sleep(0.1)
    assert threading.active_count() == before, "the clock ends with its task"


def test_timing_is_hardly_disturbed(monkeypatch):
    monkeypatch.setattr(progress.RichProgress, "CLOCK_S", 0.02)
    monkeypatch.setattr(progress.RichProgress, "TIMED_S", 60.0)
    shown = bars()
    with shown.task("latency and memory", 10, is_timed=True):
        time.sleep(0.1)  # a tick that began before
        drawn = []
        monkeypatch.setattr(shown, "_drawn", lambda: drawn.append(1) or progress.RichProgress._drawn(shown))
        time.sleep(0.3)
    assert len(drawn) <= 2, "its start and its end, and nothing between"


def test_what_is_timed_says_so(monkeypatch):
    asked = []

    class Asked(Silent):
        def task(self, title, *given, is_timed=False, **more):
            asked.append((title, is_timed))
            return super().task(title)

    monkeypatch.setattr(runner_target, "measure", lambda *given: {"m": []})
    monkeypatch.setattr(
        runner_target, "roofline", lambda *given: type("R", (), {"models": {}, "machine": [], "notes": {}})
    )

    class Runner:
        name, evidence = "cpu", None

        def environment(self):
            return type("E", (), {"num_cores": 1})

    settings = type("S", (), {"roofline": True, "texts": None, "threads": 1})
    runner_target.RunnerTarget(Runner()).measure({"m": None}, settings, Asked())
    assert asked == [("peak rates of the machine", True)]


def test_tasks_within_tasks_and_lines_between(clock):
    shown = bars()
    with shown.task("try schemes", 3) as outer:
        with shown.task("latency and memory", 2, is_timed=True) as inner:
            inner.log("a line that stays")
            assert len(str(shown._drawn()).splitlines()) == 2
        outer.advance(1)
        assert len(str(shown._drawn()).splitlines()) == 1
    with shown.task("again"):
        pass
    shown.console.file.seek(0)
    assert "a line that stays" in shown.console.file.read()


@pytest.mark.parametrize("kind", ["bars", "lines"])
def test_a_run_of_several_stages_says_at_which_it_is(clock, kind, capsys):
    shown = bars() if kind == "bars" else progress.PlainProgress()
    titles = []
    for number, total in ((1, 3), (1, 1), (0, 0)):
        shown.stage(number, total)
        with shown.task("distill", 10) as task:
            titles.append(task.title)
    assert titles == ["stage 1/3 distill", "distill", "distill"]


def test_no_rate_and_no_time_left_before_they_are_known():
    """The first of two steps takes a millisecond: that says nothing of the second."""
    with bars(100).task("quantize", 2) as task:
        task.advance()
        (line,) = task.lines(100)
        assert "left" not in line and "/s" not in line and "50 %" in line
        task.began -= 4
        (line,) = task.lines(100)
        assert "0:04 left" in line


class Cell:
    """An output of a notebook: everything that was ever to be seen in it."""

    def __init__(self):
        self.seen = []

    def display(self, shown, *, display_id):
        assert display_id
        self.seen.append(shown)
        return self

    def update(self, shown):
        self.seen.append(shown)


def test_in_a_notebook_the_line_is_drawn_in_one_output_and_gone_at_the_end(monkeypatch):
    cell = Cell()
    monkeypatch.setattr("IPython.display.display", cell.display)
    shown = progress.NotebookProgress(Console(file=io.StringIO(), width=80))
    with shown.task("distill to 3 layers", 1000) as task:
        task.advance(250, loss="0.1234")
    lines = [str(one) for one in cell.seen[:-1]]
    assert lines[0].startswith("distill to 3 layers")
    assert any("25 %" in line and "loss 0.1234" in line for line in lines)
    assert cell.seen[-1].data == ""


@pytest.mark.parametrize("is_notebook", [True, False])
def test_progress_fits_where_stderr_goes(monkeypatch, is_notebook):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: is_notebook)
    kind = progress.NotebookProgress if is_notebook else progress.PlainProgress
    assert type(progress.make_progress(quiet=False)) is kind


def test_a_notebook_keeps_its_own_filters_of_warnings():
    before = list(warnings.filters)
    with command_scope():
        progress.NotebookProgress(Console(file=io.StringIO()))
        assert warnings.filters != before
    assert warnings.filters == before
