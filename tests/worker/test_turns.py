"""Workers that take turns: one works at a time, none begins what the others have not come to, none is left over."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import bertshrink
from bertshrink.errors import MeasurementError, MissingDependency
from bertshrink.meters.targets.host import LocalRunner
from bertshrink.worker import supervisor, turns
from bertshrink.worker.job import WorkerJob
from bertshrink.worker.machine import affinity, interference
from bertshrink.worker.machine.affinity import processors_of
from bertshrink.worker.machine.interference import processor_seconds
from bertshrink.worker.timing import timed_in_turns
from bertshrink.worker.turns import LEFT_ALONE, TurnRing

JOB = WorkerJob("fake", Path("m"), {}, "float32", 20, ("input_ids",), 64, cases=[{"batch": 1, "length": 8}])
SHORT = replace(JOB, seconds=0.3, warmup_seconds=0.0, warmup_iterations=3)
ROOT = str(Path(bertshrink.__file__).parent.parent)

# The worker itself with an engine of ours: an inference spins for `ms` of wall time and writes down from when to when,
# and of how many rows.
FAKE = """
import os, sys, time
import numpy as np
from bertshrink import engines
from bertshrink.worker import __main__ as worker

class Session:
    def __init__(self, path, options):
        self.options, self.log = options, open(options["log"], "a") if "log" in options else None
    def run(self, feeds):
        begin = time.perf_counter()
        if self.options.get("dies"):
            os.kill(os.getpid(), 9)
        if self.options.get("hangs"):
            time.sleep(60)
        while time.perf_counter() < begin + self.options.get("ms", 5) / 1e3:
            pass
        if self.log:
            print(begin, time.perf_counter(), len(feeds["input_ids"]), file=self.log, flush=True)
        return {"out": np.ones(3)}
    def describe(self):
        return {"engine": "fake", "processors": sorted(getattr(os, "sched_getaffinity", lambda pid: [])(0))}

class Fake:
    @staticmethod
    def prepare(path, options=None):
        if options.get("missing"):
            raise ModuleNotFoundError("no", name="nothing")
    @staticmethod
    def load(path, threads=None, options=None):
        return Session(path, options)

engines.engine = lambda name: Fake
worker.main()
"""


def fake_host():
    return LocalRunner((sys.executable, "-c", textwrap.dedent(FAKE)), (("PYTHONPATH", ROOT),))


def logged(path):
    return [tuple(map(float, line.split())) for line in path.read_text().splitlines()]


def test_the_keeper_and_the_worker_mean_the_same_variable():
    assert supervisor.RELAY == turns.VARIABLE


@pytest.mark.subprocess
def test_one_works_at_a_time_and_turns_are_short(tmp_path):
    jobs = [replace(SHORT, options={"log": str(tmp_path / name), "ms": ms}) for name, ms in (("a", 5), ("b", 8))]
    results = fake_host().run(jobs, 60)
    spans = sorted((*span[:2], name) for name in ("a", "b") for span in logged(tmp_path / name))
    for (_, end, _), (begin, _, _) in pairwise(spans):
        assert begin >= end
    names = [name for _, _, name in spans]
    changes = sum(one != other for one, other in pairwise(names))
    assert changes >= 6  # 0.3 s each in turns of 50 ms, fewer where a busy machine stretches them
    for result in results:
        (case,) = result.cases
        assert 3 <= len(case.resumed_ns) <= 7
        assert sum(case.samples_ns) >= 0.29e9  # of 0.3 s, some of which are between the samples
        assert set(result.pss_bytes.values()) == {None}


@pytest.mark.subprocess
def test_a_turn_has_two_samples_even_of_a_slow_model(tmp_path):
    slow = replace(SHORT, seconds=0.2, options={"log": str(tmp_path / "a"), "ms": 60})
    (one, other) = fake_host().run([slow, replace(slow, options={"ms": 60})], 60)
    for result in (one, other):
        assert len(result.cases[0].samples_ns) == 5
        assert len(result.cases[0].resumed_ns) == 3


@pytest.mark.subprocess
def test_nobody_begins_a_case_before_all_are_through_with_the_one_before(tmp_path):
    cases = [{"batch": 1, "length": 8}, {"batch": 2, "length": 8}]
    jobs = [
        replace(SHORT, cases=cases, seconds=seconds, options={"log": str(tmp_path / name)})
        for name, seconds in (("quick", 0.05), ("thorough", 0.4))
    ]
    fake_host().run(jobs, 60)
    quick, thorough = logged(tmp_path / "quick"), logged(tmp_path / "thorough")
    _, *second = (begin for begin, _, rows in quick if rows == 2)  # the first is of the look at what comes out
    assert len(second) >= SHORT.min_samples
    assert second[0] > max(end for _, end, rows in thorough if rows == 1)


@pytest.mark.subprocess
def test_alone_there_are_no_turns():
    (result,) = fake_host().run([SHORT], 60)
    assert result.cases[0].resumed_ns == ()
    assert all(result.pss_bytes.values())


def test_the_token_says_how_long_the_others_worked():
    (first_in, second_out), (second_in, first_out) = os.pipe(), os.pipe()
    try:
        one, other = TurnRing(f"{first_in},{first_out},0,2"), TurnRing(f"{second_in},{second_out},1,2")
        one.end()
        other.begin()
        assert 0 < other.others_seconds() <= processor_seconds()
        assert one.others_seconds() == 0
    finally:
        for end in (first_in, first_out, second_in, second_out):
            os.close(end)


def test_the_fellows_work_is_no_strangers(monkeypatch):
    busy, own, fellows = iter([100.0, 110.0]), iter([1.0, 3.0]), iter([5.0, 9.0])
    monkeypatch.setattr(interference, "_processor_seconds", lambda: (next(busy), 0.0))
    monkeypatch.setattr(interference, "processor_seconds", lambda: next(own))
    assert interference.Interference(fellows=lambda: next(fellows)).end()["others"] == 10 - 2 - 4


@pytest.mark.subprocess
@pytest.mark.parametrize("place", [0, 1])
def test_the_one_that_died_is_named_and_not_the_one_that_missed_it(place):
    jobs = [replace(SHORT, path="well"), replace(SHORT, path="well")]
    jobs[place] = replace(SHORT, path="ill", options={"dies": True})
    with pytest.raises(MeasurementError, match="`ill` was killed by SIGKILL"):
        fake_host().run(jobs, 60)


@pytest.mark.subprocess
def test_an_engine_that_is_missing_is_told_although_others_wait():
    with pytest.raises(MissingDependency, match="`nothing` is not installed"):
        fake_host().run(
            [replace(SHORT, engine=e, options=o) for e, o in (("torch", {}), ("torch", {"missing": 1}))], 60
        )


@pytest.mark.subprocess
def test_a_hanging_one_ends_all():
    with pytest.raises(MeasurementError, match="no result within 2 s"):
        fake_host().run([SHORT, replace(SHORT, options={"hangs": True})], 2)


@pytest.mark.subprocess
def test_nothing_is_left_when_the_parent_is_interrupted(tmp_path):
    code = f"""
import signal, sys
sys.path.insert(0, {ROOT!r})
signal.signal(signal.SIGINT, signal.default_int_handler)
from dataclasses import replace
from itertools import pairwise
from tests.worker.test_turns import SHORT, fake_host
fake_host().run([replace(SHORT, seconds=30, options={{"log": {str(tmp_path / "log")!r}}}) for _ in range(2)], 60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not (tmp_path / "log").is_file() or len(logged(tmp_path / "log")) < 20:
        assert time.monotonic() < end
        time.sleep(0.05)
    parent.send_signal(signal.SIGINT)
    parent.communicate()
    count = len(logged(tmp_path / "log"))
    time.sleep(0.3)
    assert len(logged(tmp_path / "log")) == count


def test_whoever_is_left_alone_gives_up():
    source, sink = os.pipe()
    try:
        place = TurnRing(f"{source},{sink},1,2")
        os.close(sink)
        with pytest.raises(SystemExit) as left:
            place.begin()
        assert left.value.code == LEFT_ALONE
    finally:
        os.close(source)


def test_samples_are_whole_passes_and_every_call_counts_alike():
    calls = {"a": 0, "b": 0, "c": 0}

    def call(name):
        calls[name] += 1

    samples, resumed = timed_in_turns([lambda n=n: call(n) for n in calls], 5, 0.0, TurnRing(None))
    assert (len(samples), resumed) == (6, [])
    assert set(calls.values()) == {2}


def test_every_round_is_on_other_processors():
    assert [processors_of([0, 2, 5], 1, number) for number in range(4)] == [{0}, {2}, {5}, {0}]
    assert [processors_of([0, 1, 2, 3, 4], 2, number) for number in range(3)] == [{0, 1}, {2, 3}, {4, 0}]
    assert processors_of([0, 1], 2, 0) == set()
    assert processors_of([0], 4, 0) == set()


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ({}, [{0}, {1}, {2}, {3}]),
        ({f"cpu{n}/topology/thread_siblings_list": f"{n % 2},{n % 2 + 2}" for n in range(4)}, [{0}, {1}, {0}, {1}]),
        ({f"cpu{n}/cpu_capacity": "446" if n < 2 else "1024" for n in range(4)}, [{2}, {3}, {2}, {3}]),
    ],
)
def test_one_of_each_core_and_the_strongest_cores_only(files, chosen, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    found = []
    monkeypatch.setattr(affinity, "_SYSTEM", tmp_path)
    monkeypatch.setattr(affinity.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(affinity.os, "sched_setaffinity", lambda pid, own: found.append(own), raising=False)
    for number in range(4):
        affinity.bind(1, number)
    assert found == chosen


@pytest.mark.subprocess
def test_workers_of_a_round_share_their_processors():
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is nothing to choose from")
    job = replace(SHORT, seconds=0.0, options={"ms": 1})
    rounds = [fake_host().run([replace(job, number=number)] * 2, 60) for number in (0, 1)]
    own = [{tuple(result.engine["processors"]) for result in results} for results in rounds]
    assert [len(found) for found in own] == [1, 1]
    assert own[0] != own[1]
    (alone,) = fake_host().run([job], 60)
    assert set(alone.engine["processors"]) == os.sched_getaffinity(0)
