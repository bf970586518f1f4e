"""The worker as one file that travels: jobs of every kind, texts, and what the machine went through meanwhile."""

import io
import json
import subprocess
import sys
import time
import zipfile
from dataclasses import replace

import numpy as np
import onnx
import pytest

from bertshrink.errors import MeasurementError
from bertshrink.meters.latency.measure import job_of
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.latency.worker_result import CountResult, MachineInfo, WorkerResult, check_result, read_result
from bertshrink.meters.latency.worker_zipapp import NAME, build_worker
from bertshrink.worker.inputs import Tokenizer, feeds_of, num_tokens
from bertshrink.worker.job import RunSpec
from bertshrink.worker.machine import interference
from bertshrink.worker.machine.memory import pss_bytes
from bertshrink.worker.timing import forget_files, timed
from tests.meters.test_size import tiny_onnx
from tests.support.tiny import tiny_tokenizer

SETTINGS = LatencySettings(batch=(1, 2), length=(8,), rounds=1, seconds=0.02, warmup=0, threads=1)
TEXTS = {"name": "t.txt x2", "pad_to": None, "batches": [[[1, 2, 3], [4]], [[5, 6], [7, 8]]], "texts": None}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    onnx.save(tiny_onnx(int8=False), path)
    return job_of(RunSpec("onnxruntime", path, {}, "float32", 20, ("input_ids",), 64), SETTINGS, 1)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The parcel in a folder of its own, where nothing of bertshrink can be imported."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / NAME).write_bytes(build_worker())

    def work(job):
        block = "import sys; sys.modules['pydantic'] = None; import runpy; sys.argv = sys.argv[1:]; "
        command = [sys.executable, "-I", "-c", block + "runpy.run_path(sys.argv[0], run_name='__main__')", NAME]
        text = job if isinstance(job, str) else job.to_json()
        return subprocess.run(command, input=text, capture_output=True, text=True, cwd=folder, check=False)

    return work


def test_the_parcel_is_the_same_for_the_same_sources_and_holds_two_rooms_only():
    first = build_worker.__wrapped__()
    assert first == build_worker.__wrapped__() == build_worker()
    assert len(first) < 200_000
    names = zipfile.ZipFile(io.BytesIO(first)).namelist()
    rooms = {"bertshrink/worker", "bertshrink/worker/machine", "bertshrink/engines"}
    assert {name.rpartition("/")[0] for name in names} == {"", "bertshrink", *rooms}


@pytest.mark.subprocess
def test_it_measures_without_anything_else_of_bertshrink(alone, job):
    found = alone(job)
    assert found.returncode == 0, found.stderr
    result = check_result(found.stdout.encode(), job, 10**12)
    assert [case.batch for case in result.cases] == [1, 2]
    assert all(result.pss_bytes.values())
    assert result.strain.seconds > 0


@pytest.mark.subprocess
def test_it_counts(alone, job):
    found = alone(replace(job, do="count", iterations=2))
    counted = read_result(found.stdout.encode(), CountResult, job)
    assert counted.outputs["logits"].shape[0] == 1
    assert 0 < len(counted.outputs["logits"].values) <= 4096


@pytest.mark.subprocess
def test_it_looks_around(alone, job):
    found = alone(replace(job, do="look"))
    machine = read_result(found.stdout.encode(), MachineInfo, job).machine
    assert machine["num_cores"] >= 1
    assert machine["packages"]["numpy"]


@pytest.mark.subprocess
def test_a_missing_engine_is_told(alone, job):
    found = alone(replace(job, engine="executorch"))
    if found.returncode == 0 and "missing" in found.stdout:
        assert json.loads(found.stdout)["missing"].startswith("executorch")


@pytest.mark.subprocess
def test_an_old_python_is_told_so():
    text = zipfile.ZipFile(io.BytesIO(build_worker())).read("__main__.py").decode()
    code = "import sys; sys.version_info = (3, 9, 1); sys.version = '3.9.1 (old)'\n" + text
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "needs Python 3.10 or newer, and this is 3.9.1" in found.stderr


# Texts ----------------------------------------------------------------------------------------------------------------


def test_texts_are_padded_to_the_longest_or_to_a_number(job):
    job = replace(job, inputs=["input_ids", "attention_mask"], pad_id=9)
    first, second = feeds_of(job, TEXTS)
    assert first["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert first["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert second["input_ids"].shape == (2, 2)
    assert feeds_of(job, TEXTS | {"pad_to": 5})[1]["input_ids"].shape == (2, 5)
    assert num_tokens(TEXTS) == [4, 4]
    assert num_tokens({"batch": 2, "length": 8}) == [16]


def test_samples_of_several_batches_are_whole_passes():
    calls = []
    samples = timed([lambda: calls.append("a"), lambda: calls.append("b")], 5, 0)
    assert len(samples) == 6
    assert "".join(calls) == "ababab"


def test_the_workers_tokens_are_transformers_own(job, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    job = replace(
        job,
        inputs=["input_ids", "attention_mask", "token_type_ids"],
        tokenizer=tmp_path / "tokenizer.json",
        max_length=12,
        pad_id=tokenizer.pad_token_id,
    )
    for texts in (["the cat sat on the mat and did not go away at all", "a"], [["the cat", "a dog"], ["it", "sat"]]):
        own = Tokenizer(job)(texts, None)
        both = list(zip(*texts, strict=True)) if isinstance(texts[0], list) else [texts]
        theirs = tokenizer(*map(list, both), padding=True, truncation=True, max_length=12, return_tensors="np")
        for name in own:
            assert np.array_equal(own[name], theirs[name]), name


# The machine meanwhile ------------------------------------------------------------------------------------------------


@pytest.mark.subprocess
def test_another_process_is_seen_and_ones_own_work_is_not():
    looking = interference.Interference()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    calm = looking.end()
    looking = interference.Interference()
    spin = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    process = subprocess.Popen([sys.executable, "-c", spin])
    time.sleep(0.9)
    busy = looking.end()
    process.wait()
    assert calm["seconds"] > 0.25
    assert busy["others"] > 0.2
    assert busy["stolen"] is not None


def test_counters_that_are_not_there_are_unknown(monkeypatch):
    monkeypatch.setattr(interference, "_processor_seconds", lambda: (None, None))
    monkeypatch.setattr(interference, "_throttled", lambda: None)
    found = interference.Interference().end()
    assert found["others"] is None
    assert found["stolen"] is None
    assert found["throttled"] is None


def test_a_pi_that_is_held_back_now_is_throttled(monkeypatch):
    monkeypatch.setattr(interference, "_pi_is_throttled", lambda: True)
    assert interference.Interference().end()["throttled"] >= 1


def test_memory_shared_is_known_here():
    assert pss_bytes() > 1 << 20


def test_files_are_forgotten_and_still_there(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 10_000)
    forget_files([str(tmp_path), str(tmp_path / "a")])
    assert (tmp_path / "a").read_bytes() == b"x" * 10_000


def test_a_result_of_another_form_is_refused(job):
    with pytest.raises(MeasurementError, match="is not a result"):
        read_result(b'{"engine": {}}', WorkerResult, job)
