"""Rounds within a budget, real texts, several targets, and the JSON of a bench."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest

import bertshrink
from bertshrink.errors import MissingDependency, UserError, UserErrors
from bertshrink.meters.environment import environment
from bertshrink.meters.latency import measure as running
from bertshrink.meters.latency import validity
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.latency.measure import measure
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.latency.text_workload import NUM_TEXTS, read_workload, text_cases
from bertshrink.meters.latency.worker_result import Interference, check_result
from bertshrink.meters.roofline import machine_peaks
from bertshrink.meters.targets import TargetResult, open_target
from bertshrink.meters.targets.host import LocalRunner
from bertshrink.model.model_ref import ModelRef
from bertshrink.pipeline import benchmark as timing
from bertshrink.pipeline.benchmark import across_machines, add_results, measure_everywhere
from bertshrink.pipeline.run_folder import RunFolder
from bertshrink.progress import Silent
from bertshrink.recipe.from_command_line import recipe_of_bench
from bertshrink.recipe.plan import make_plan
from bertshrink.report.bench_json import SCHEMA, to_json
from bertshrink.report.measurement import Conditions, Environment, Evidence, Measurement, MeasurementWarning, compare
from bertshrink.report.report import Report, Snapshot
from bertshrink.report.table.warning_texts import warning_text
from bertshrink.techniques import TECHNIQUES
from bertshrink.techniques.base import Workbench
from bertshrink.worker.job import RunSpec
from tests.support.tiny import sentences, tiny_encoder, tiny_tokenizer

MACHINE = Environment(id="m", cpu="c", num_cores=2)
QUICK = LatencySettings(batch=(1,), length=(8,), rounds=4, seconds=0.02, warmup=0, threads=1)
LAUNCH = RunSpec("onnxruntime", Path("/m.onnx"), {}, "float32", 20, ("input_ids",), 64)
CALM = {"seconds": 1.0, "others": 0.0, "stolen": 0.0, "switches": 0, "throttled": None, "load": 0.5}


@dataclass
class Fake:
    """A runner that makes up every sample; `strain` and the seconds that a job takes can be set."""

    name: ClassVar[str] = "cpu"
    evidence: ClassVar[Evidence] = Evidence.MEASURED_HOST
    strain: dict = field(default_factory=lambda: dict(CALM))
    ran: list = field(default_factory=list)

    def environment(self):
        return MACHINE

    def run(self, jobs, timeout_s):
        self.ran += jobs
        return [self._result(job) for job in jobs]

    def _result(self, job):
        times = {"warmup_ns": [10**6] * 20, "samples_ns": [10**6 + at for at in range(20)]}
        cases = []
        for case in job.cases:
            if "batches" in case:
                counts = [sum(map(len, rows)) for rows in case["batches"]]
                times = {name: [10**6] * (10 * len(counts)) for name in times}
                own = {"name": case["name"], "batch": len(case["batches"][0]), "length": 9, "tokens": counts}
            else:
                own = {**case, "tokens": [case["batch"] * case["length"]]}
            cases.append({**own, "output_rms": 1.0, **times})
        result = {
            "engine": {"engine": "onnxruntime"},
            "clocks_ns": {"import": 5, "load": 6, "first": 7},
            "memory_bytes": dict.fromkeys(("import", "load", "first", "steady"), 10**7),
            "pss_bytes": dict.fromkeys(("import", "load", "first", "steady"), 10**6),
            "memory_method": "VmHWM",
            "strain": self.strain,
            "cases": cases,
        }
        return check_result(json.dumps(result).encode(), job, 10**12)


def latency(found, name="a"):
    return next(m for m in found[name] if m.metric == "latency")


# Rounds and validity --------------------------------------------------------------------------------------------------


def test_rounds_that_do_not_fit_are_left_out_and_told(monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(running.time, "monotonic", lambda: next(clock))
    fake = Fake()
    found = measure({"a": LAUNCH}, QUICK.model_copy(update={"rounds": 9, "budget": 65}), Silent(), MACHINE, fake)
    assert 1 < len(fake.ran) < 9
    m = latency(found)
    assert len(m.rounds) == len(fake.ran)
    assert m.validity == "semivalid"
    assert f"{len(fake.ran)} of 9 rounds fitted into 65 s" in map(warning_text, m.warnings)


def test_the_first_round_is_run_whatever_the_budget():
    fake = Fake()
    measure({"a": LAUNCH}, QUICK.model_copy(update={"budget": 1e-9}), Silent(), MACHINE, fake)
    assert len(fake.ran) == 1


def test_a_calm_machine_gives_valid_figures(monkeypatch):
    monkeypatch.setattr(validity.os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    found = measure({"a": LAUNCH}, QUICK, Silent(), MACHINE, Fake())
    assert {m.validity for m in found["a"]} == {"valid"}


@pytest.mark.parametrize(
    ("change", "worth", "words"),
    [
        ({"others": 0.5}, "semivalid", "other processes kept 0.5 cores busy"),
        ({"others": 1.5}, "invalid", "other processes kept 1.5 cores busy"),
        ({"stolen": 0.06}, "semivalid", "the hypervisor gave 3 %"),
        ({"stolen": 0.6}, "invalid", "the hypervisor gave 30 %"),
        ({"throttled": 2}, "invalid", "slowed down 8 times for heat"),
        ({"others": None, "stolen": None}, "valid", ""),
    ],
)
def test_what_the_machine_went_through_decides_what_figures_are_worth(change, worth, words, monkeypatch):
    monkeypatch.setattr(validity.os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    m = latency(measure({"a": LAUNCH}, QUICK, Silent(), MACHINE, Fake(CALM | change)))
    assert m.validity == worth
    assert words in " ".join(map(warning_text, m.warnings))


def test_one_strained_process_of_many_does_not_cry_wolf():
    calm, strained = Interference(**CALM), Interference(**(CALM | {"others": 2.0}))
    assert validity.of_machine([calm, calm, strained], 1, 2) == ()
    assert validity.of_machine([calm, strained, strained], 1, 2)


# Texts ----------------------------------------------------------------------------------------------------------------


def test_a_long_file_is_thinned_out_evenly(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("".join(f"text {at}\n" for at in range(1000)))
    texts = read_workload(str(path)).texts
    assert len(texts) == NUM_TEXTS
    assert texts[:2] == ("text 0", "text 7")
    assert texts[-1] == "text 992"


def test_texts_become_batches_in_their_order(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("\n".join(sentences(10)))
    settings = QUICK.model_copy(update={"batch": (1, 4), "texts": str(path)})
    texts, tokenizer = read_workload(str(path)), tiny_tokenizer()
    one, four = text_cases(texts, tokenizer, settings, 64)
    assert (one["name"], four["name"]) == ("t.txt x1", "t.txt x4")
    assert [len(rows) for rows in one["batches"]] == [1] * 10
    assert [len(rows) for rows in four["batches"]] == [4, 4], "the last two do not fill a batch"
    assert four["batches"][0][1] == tokenizer(texts.texts[1])["input_ids"]
    assert four["texts"][1] == list(texts.texts[4:8])
    cut = text_cases(texts, tokenizer, settings.model_copy(update={"padding": 5}), 64)[0]
    assert cut["pad_to"] == 5
    assert max(len(row) for rows in cut["batches"] for row in rows) == 5
    assert text_cases(texts, tokenizer, settings, 64, shape=(2, 7))[0]["pad_to"] == 7
    with pytest.raises(UserError, match="64 at most"):
        text_cases(texts, tokenizer, settings.model_copy(update={"padding": 65}), 64)


def test_throughput_counts_no_padding(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("\n".join(sentences(6)))
    tiny_tokenizer().save_pretrained(tmp_path)
    settings = QUICK.model_copy(update={"batch": (2,), "texts": str(path)})
    fake = Fake()
    found = measure({"a": replace(LAUNCH, tokenizer=tmp_path / "tokenizer.json")}, settings, Silent(), MACHINE, fake)[
        "a"
    ]
    figures = {m.metric: m for m in found}
    tokens = sum(len(row) for rows in fake.ran[0].cases[0]["batches"] for row in rows)
    assert figures["throughput"].value == pytest.approx(tokens / 3e-3)
    assert figures["text_rate"].value == pytest.approx(6 / 3e-3)
    assert figures["throughput"].better == "higher"
    assert figures["latency"].conditions.case == "t.txt x2"
    assert figures["latency"].conditions.length is None
    assert figures["latency"].conditions.padding == "longest"


@pytest.mark.subprocess
def test_a_real_model_runs_texts_with_the_tokenizing_in_and_out_of_the_clock(tmp_path):
    encoder = tiny_encoder("bert", "embedding")
    encoder.save(tmp_path / "m")
    path = tmp_path / "t.txt"
    path.write_text("\n".join(sentences(6)))
    settings = QUICK.model_copy(update={"batch": (2,), "texts": str(path), "rounds": 1, "cold": True})
    found = measure({"a": launch_of(encoder, tmp_path / "m")}, settings, Silent(), environment(), LocalRunner())["a"]
    figures = {m.metric: m for m in found}
    assert len(figures["latency"].all) % 3 == 0
    assert len(figures["latency_whole"].all) % 3 == 0
    assert figures["throughput"].value > figures["text_rate"].value > 0


@pytest.mark.subprocess
def test_sigterm_ends_the_worker_too(tmp_path):
    encoder = tiny_encoder("bert", "embedding")
    encoder.save(tmp_path / "m")
    command = [sys.executable, "-m", "bertshrink", "bench", "m", "--seconds", "60", "--batch", "1", "--length", "8"]
    paths = os.pathsep.join((str(Path(bertshrink.__file__).parent.parent), os.environ.get("PYTHONPATH", "")))
    process = subprocess.Popen(
        [*command, "-q"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True
    )

    def children():
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []

    def is_alive(pid):
        """Whether it is there and not only waits for somebody to ask how it ended."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + 120
    while not children() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)  # Python itself has begun by then, and the parent waits for it
    worker = children()
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert worker, told
    assert process.returncode == 143
    assert "stopped by SIGTERM; run the same command to resume" in told
    deadline = time.monotonic() + 20
    while any(map(is_alive, worker)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, worker))


# Targets --------------------------------------------------------------------------------------------------------------


def test_an_unknown_target_is_named_with_its_place():
    with pytest.raises(UserError, match="no target `gpux`"):
        open_target("gpux")
    asked = recipe_of_bench(["./nowhere"], {"measure": {"latency": {"target": ["cpu", "cpx:1"], "texts": "./no.txt"}}})
    with pytest.raises((UserErrors, UserError)) as caught:
        make_plan(asked)
    told = str(caught.value)
    assert "there is no target `cpx:1`" in told
    assert "--target" in told


@dataclass
class Way:
    """A target that counts something."""

    name: str
    found: TargetResult
    asked: int = 0
    checked: int = 0
    fails: bool = False

    def check(self, launches):
        self.checked += 1
        if self.fails:
            raise MissingDependency("nothing there")

    def measure(self, launches, settings, progress):
        self.asked += 1
        return self.found


@pytest.fixture
def models(tmp_path):
    encoder = tiny_encoder("bert", "embedding")
    encoder.save(tmp_path / "m")
    return [replace(ModelRef.read(tmp_path / "m", name="a", key="key"), loaded=encoder)]


def found_on(target):
    m = Measurement.single("instructions", "count", 7.0, conditions=Conditions(target=target))
    return TargetResult({"a": [m]}, MACHINE, ("a note",))


@pytest.mark.subprocess
def test_what_a_target_found_is_kept_and_another_machine_is_asked_again(models, tmp_path, monkeypatch):
    kinds = timing.TARGETS["cpu"]
    monkeypatch.setitem(timing.TARGETS, "far", replace(kinds, is_here=False))
    ways = [Way("cpu", found_on("cpu")), Way("far://x", found_on("far://x"))]
    store = RunFolder(tmp_path / "run")
    store.folder.mkdir()
    for _ in range(2):
        found = measure_everywhere(ways, models, QUICK, Silent(), store)
    assert [way.asked for way in ways] == [1, 2]
    assert [f.measurements["a"][0].conditions.target for f in found] == ["cpu", "far://x"]
    assert found[0].notes == ("a note",)
    assert {path.name for path in store.folder.iterdir()} == {"running-cpu.json", "running-far-x.json"}


@pytest.mark.subprocess
def test_all_targets_are_checked_before_one_measures(models, tmp_path):
    ways = [Way("cpu", found_on("cpu")), Way("cpu", found_on("cpu"), fails=True)]
    store = RunFolder(tmp_path / "run")
    store.folder.mkdir()
    with pytest.raises(MissingDependency):
        measure_everywhere(ways, models, QUICK, Silent(), store)
    assert [way.asked for way in ways] == [0, 0]


def test_a_model_that_ran_in_two_ways_has_two_rows():
    size = Measurement.single("size", "B", 9.0)
    report = report_of(
        Snapshot(name="reference", label="a", role="reference", kind="encoder", measurements=[size]),
        Snapshot(name="b", label="b (large)", role="compared", kind="artifact", measurements=[size]),
    )
    ways = ["reference (torch)", "b (onnxruntime)", "reference (torch:bfloat16)", "b (openvino)"]
    found = TargetResult({way: [figure([[0.01]])] for way in ways}, MACHINE, ("a note",))
    add_results(report, [found], ["torch", "onnxruntime", "torch:bfloat16", "openvino"])
    assert [(s.name, s.label, s.role) for s in report.snapshots] == [
        ("reference", "a (torch)", "reference"),
        ("b", "b (large) (onnxruntime)", "compared"),
        ("reference (torch:bfloat16)", "a (torch:bfloat16)", "compared"),
        ("b (openvino)", "b (large) (openvino)", "compared"),
    ]
    assert [[m.metric for m in s.measurements] for s in report.snapshots] == [["size", "latency"]] * 4
    assert report.notes == ["a note"]


@pytest.mark.subprocess
def test_the_roofline_stands_with_the_figures(models, tmp_path, monkeypatch):
    monkeypatch.setattr(machine_peaks, "SECONDS", 0.02)
    monkeypatch.setattr(machine_peaks, "CPU_SHAPES", ((256, 256, 256),))
    settings = QUICK.model_copy(update={"rounds": 1, "roofline": True})
    store = RunFolder(tmp_path / "run")
    store.folder.mkdir()
    (found,) = measure_everywhere([open_target("cpu")], models, settings, Silent(), store)
    metrics = {m.metric for m in found.measurements["a"]}
    assert {"gemm_rate", "memory_rate", "share_of_peak"} <= metrics
    assert found.details["a"][0].startswith("1x8: bound by")


def test_an_unknown_engine_is_told_by_the_plan():
    asked = recipe_of_bench(["./nowhere"], {"measure": {"latency": {"engine": ["torch:bf61"]}}})
    with pytest.raises((UserErrors, UserError), match="`torch` has no option `bf61`"):
        make_plan(asked)


def test_machines_are_compared_only_when_that_is_asked_for():
    here = figure([[0.010], [0.011]])
    far = here.model_copy(
        update={
            "samples": ((0.04,), (0.04,)),
            "environment": "pi",
            "conditions": here.conditions.model_copy(update={"target": "ssh://pi", "threads": 4}),
        }
    )
    assert compare(here, far) is None
    (told,) = across_machines([TargetResult({"a": [here]}, MACHINE), TargetResult({"a": [far]}, MACHINE)])
    assert told.startswith("a at 1x8: ssh://pi takes 3.81 times as long as cpu (")
    other = far.model_copy(update={"conditions": far.conditions.model_copy(update={"batch": 2})})
    assert across_machines([TargetResult({"a": [here]}, MACHINE), TargetResult({"a": [other]}, MACHINE)]) == []


# JSON -----------------------------------------------------------------------------------------------------------------


def figure(values, **more):
    given = {"metric": "latency", "unit": "s", "better": "lower", "environment": "m"} | more
    return Measurement(samples=tuple(tuple(v) for v in values), conditions=Conditions(batch=1, length=8), **given)


def report_of(*snapshots):
    return Report(
        name="r",
        version="1",
        created="now",
        command="bertshrink bench a b",
        model="a",
        task="embedding",
        environments={"m": MACHINE},
        snapshots=list(snapshots),
    )


def test_the_json_of_a_bench():
    steady = [[0.010, 0.0101, 0.0099]] * 8
    slower = [[2 * v for v in row] for row in steady]
    slowed_down = MeasurementWarning(kind="throttled", values=(8,), is_grave=True)
    base = Snapshot(name="a", label="a", role="reference", kind="encoder", measurements=[figure(steady)])
    other = Snapshot(
        name="b",
        label="b",
        role="compared",
        kind="artifact",
        measurements=[
            figure(slower, validity="invalid", warnings=(slowed_down,)),
            figure([[5.0]], metric="load_time", environment="another machine"),
        ],
    )
    data = json.loads(to_json(report_of(base, other)))
    assert data["schema"] == SCHEMA == "bertshrink.bench/2"
    first = data["models"][0]["figures"][0]
    assert first["ratio"] is None
    assert first["value"] == 0.010
    assert first["n"] == 24
    assert first["percentiles"]["p50"] == 0.010
    assert first["percentiles"]["p99"] is None
    assert first["percentiles"]["p99_need_n"] == 662
    second, third = data["models"][1]["figures"]
    assert second["ratio"]["value"] == pytest.approx(2)
    assert second["ratio"]["verdict"] == "slower"
    reason = {"kind": "throttled", "case": None, "values": [8], "names": [], "is_grave": True}
    assert (second["validity"], second["reasons"]) == ("invalid", [reason])
    assert third["ratio"] is None, "times of different machines are not compared"
    assert math.isfinite(second["ratio"]["ci95"][0])


def test_a_margin_reaches_the_verdict():
    steady = [[0.010 + at * 1e-6] for at in range(8)]
    base = Snapshot(name="a", label="a", role="reference", kind="encoder", measurements=[figure(steady)])
    seven = Snapshot(
        name="b",
        label="b",
        role="compared",
        kind="encoder",
        measurements=[figure([[1.07 * v for v in row] for row in steady])],
    )
    verdicts = [
        json.loads(to_json(report_of(base, seven), margin))["models"][1]["figures"][0]["ratio"]["verdict"]
        for margin in (0.05, 0.10)
    ]
    assert verdicts == ["slower", "equivalent"]


# Phones ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_checks_for_phones_stand_below_a_models_figures_and_are_kept(tmp_path, monkeypatch):
    encoder = tiny_encoder("bert", "embedding")
    encoder.save(tmp_path / "m")
    (tmp_path / "work").mkdir()
    artifact = TECHNIQUES["export"]()(encoder, Workbench(None, None, tmp_path / "work"))
    models = [
        ModelRef.read(tmp_path / "m", name="reference", key="one"),
        ModelRef.read(artifact.folder, name="01-export", key="two"),
    ]
    report = report_of(
        Snapshot(name="reference", label="a", role="reference", kind="encoder"),
        Snapshot(name="01-export", label="export", role="stage", kind="artifact"),
    )
    store = RunFolder(tmp_path / "run")
    store.folder.mkdir()
    timing.check_phones(report, models, Silent(), store)
    teacher, export = report.snapshots
    assert teacher.sheets == []
    assert "export it first" in teacher.notes[0]
    assert [sheet.heading[0] for sheet in export.sheets] == ["provider", "file", "domain"]
    assert "MatMul" in " ".join(cell for row in export.sheets[2].rows for cell in row)
    first = export.sheets
    monkeypatch.setattr(timing, "check_mobile", lambda launch: pytest.fail("checked again"))
    export.sheets = []
    timing.check_phones(report, models, Silent(), store)
    assert export.sheets == first
