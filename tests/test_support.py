"""What tests lean on does what it says."""

import subprocess
import sys
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace

import pytest

from bertshrink.model.families import FAMILIES
from bertshrink.model.tasks import TASKS
from bertshrink.techniques import TECHNIQUES
from tests.conftest import pytest_collection_modifyitems
from tests.support.fast_loop import LEFT_OUT, Guard, NotFast
from tests.support.pairwise import covering_array, matrix

AXES = (tuple(TECHNIQUES), tuple(FAMILIES), tuple(TASKS))


def test_a_covering_array_holds_every_pair_in_a_fraction_of_the_cases():
    cases = covering_array(*AXES)
    for first, second in combinations(range(len(AXES)), 2):
        assert {(case[first], case[second]) for case in cases} == set(product(AXES[first], AXES[second]))
    *_, second, longest = sorted(map(len, AXES))
    assert len(set(cases)) == len(cases) <= 1.5 * second * longest
    assert cases == covering_array(*AXES), "the same ones every time"


@pytest.mark.parametrize("strength", [1, 2, 3])
def test_strength_says_how_many_values_meet(strength):
    axes = ((0, 1, 2), "ab", "xyz", (True, False))
    held = {values for case in covering_array(*axes, strength=strength) for values in combinations(case, strength)}
    every = {values for chosen in combinations(axes, strength) for values in product(*chosen)}
    assert held == every


def test_a_matrix_is_the_whole_product_and_marks_what_pairs_stand_for():
    cases = matrix(("a", "b", "c"), *AXES).mark.args[1]
    assert [case.values for case in cases] == list(product(*AXES))
    assert [case.values for case in cases if not case.marks] == sorted(
        covering_array(*AXES), key=lambda case: [axis.index(value) for axis, value in zip(AXES, case, strict=True)]
    )


def begin(guard, event):
    """A test that begins what the event says, and swallows whatever it is told."""
    call = guard.pytest_runtest_call()
    next(call)
    with pytest.raises(NotFast):
        guard.hear(event, ("git", ["git", "status"]))
    with pytest.raises(StopIteration):
        call.send(None)


def test_a_process_in_the_fast_loop_fails_its_test_though_the_error_was_swallowed():
    with pytest.raises(pytest.fail.Exception, match=r"subprocess\.Popen.*mark the test `subprocess`"):
        begin(Guard(), "subprocess.Popen")


def test_the_fast_loop_lets_files_be_opened_and_blames_no_test_for_another_ones_process():
    guard = Guard()
    guard.hear("open", ("file", "r", 0))
    with pytest.raises(pytest.fail.Exception):
        begin(guard, "os.fork")
    call = guard.pytest_runtest_call()
    next(call)
    with pytest.raises(StopIteration):
        call.send(None)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ((), "plain training subprocess slow"),
        (("--matrix",), "plain training subprocess slow matrix"),
        (("--fast",), "plain"),
    ],
)
def test_marks_say_which_tests_run(options, kept):
    items = [Item("plain"), *(Item(name, name) for name in LEFT_OUT)]
    dropped = []
    config = SimpleNamespace(
        getoption=options.__contains__,
        hook=SimpleNamespace(pytest_deselected=lambda items: dropped.extend(items)),
    )
    every = list(items)
    pytest_collection_modifyitems(config, items)
    assert {item.name for item in items} == set(kept.split())
    assert {*items, *dropped} == set(every)


class Item:
    """A test with marks, as the hook sees it."""

    def __init__(self, name, *marks):
        self.name, self.get_closest_marker = name, {mark: mark for mark in marks}.get


@pytest.mark.subprocess
def test_the_fast_loop_runs_in_processes_of_pytest():
    command = [sys.executable, "-m", "pytest", "--fast", "-n", "1", "-q", "-p", "no:cacheprovider"]
    where = Path(__file__).parents[1]
    done = subprocess.run([*command, "tests/test_errors.py"], cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout
