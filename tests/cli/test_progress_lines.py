"""Progress without a terminal: plain lines with share, time left and rate."""

import pytest

from bertshrink.cli import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_says_share_time_left_and_rate(clock, capsys):
    with progress.PlainProgress().task("distill", 1000, "tokens") as task:
        clock[0] += 20
        task.advance(400, loss="0.5")
        clock[0] += 30
        task.advance(600)
    assert capsys.readouterr().err.splitlines() == [
        "distill:  40 %, 0:30 left  20 tokens/s  loss 0.5",
        "distill:  100 %, 0:00 left  20 tokens/s  loss 0.5",
        "distill:  done in 0:50  20 tokens/s  loss 0.5",
    ]


def test_a_total_that_was_too_small_an_estimate_leaves_no_time_below_zero(clock, capsys):
    with progress.PlainProgress().task("distill", 1000, "tokens") as task:
        clock[0] += 20
        task.advance(1060)
    assert capsys.readouterr().err.startswith("distill:  100 %, 0:00 left")


def test_what_goes_on_from_a_checkpoint_counts_its_own_rate(clock, capsys):
    with progress.PlainProgress().task("distill", 1000, "tokens", done=500) as task:
        clock[0] += 20
        task.advance(100)
    assert capsys.readouterr().err.startswith("distill:  60 %, 1:20 left  5 tokens/s")
