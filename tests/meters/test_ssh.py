"""The target `ssh://`, against a real OpenSSH server on loopback (`sshd.py`)."""

import contextlib
import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from bertshrink.errors import BertshrinkError, MeasurementError, MissingDependency, OutputError, UserError
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.targets import open_target
from bertshrink.meters.targets.host import fixed_variables
from bertshrink.meters.targets.ssh import SshRunner, evidence_of
from bertshrink.meters.targets.ssh.address import Address
from bertshrink.meters.targets.ssh.errors import refused
from bertshrink.model.artifact import Artifact
from bertshrink.progress import Silent
from bertshrink.report.measurement import Evidence
from bertshrink.worker import supervisor
from tests.meters.test_latency import CARD, JOB, QUICK
from tests.meters.test_size import tiny_onnx
from tests.support.local_sshd import bare_python, children, key, server
from tests.support.tiny import tiny_encoder

pytestmark = pytest.mark.subprocess

LONG = QUICK.model_copy(update={"seconds": 20.0})


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    with server(tmp_path_factory.mktemp("sshd")) as found:
        yield found


@pytest.fixture(autouse=True)
def known_here(request, monkeypatch):
    if "board" in request.fixturenames:
        board = request.getfixturevalue("board")
        monkeypatch.setenv("PATH", board.path)
        yield
        assert board.is_clean(), "files or processes are left"
    else:
        yield


@pytest.fixture(scope="module")
def launches(tmp_path_factory):
    found = {}
    for name in ("first", "second"):
        folder = tmp_path_factory.mktemp(name)
        onnx.save(tiny_onnx(int8=False), folder / "model.onnx")
        found[name] = launch_of(Artifact(folder, CARD), folder)
    return found


def machine(board, **options):
    return SshRunner.connect(Address.read(board.address(**options)))


def program(path, text):
    path.write_text(textwrap.dedent(text))
    path.chmod(0o755)
    return path


# It works ------------------------------------------------------------------------------------------------------------


def test_models_are_timed_there_with_numpy_and_the_engine_alone(board, launches):
    target = open_target(board.address())
    target.check(launches)
    found = target.measure(launches, QUICK.model_copy(update={"rounds": 4}), Silent())
    assert set(found.measurements) == set(launches)
    assert set(found.environment.packages) == {"numpy", "onnxruntime"}
    for measurements in found.measurements.values():
        latency = next(m for m in measurements if m.metric == "latency")
        assert len(latency.samples) == 4
        assert 1e-6 < latency.value < 1
        assert latency.evidence == Evidence.MEASURED_DEVICE
        assert latency.conditions.target == target.name == board.address(folder=None)
        assert latency.environment == found.environment.id
        assert {m.metric for m in measurements} >= {"latency", "load_time", "memory", "memory_over_engine"}


def test_a_model_goes_over_once(board, launches):
    with machine(board) as there:
        sent = []
        put = there.link.put
        there.link.put = lambda name, *more: sent.append(name) or put(name, *more)
        job = replace(JOB, path=launches["first"].path)
        for _ in range(3):
            there.run([job], 60)
        assert sent == ["model-0/model.onnx"]
        copy = Path(there.link.about["folder"]) / sent[0]
        assert copy.read_bytes() == launches["first"].path.read_bytes()
        assert copy.parent.parent.stat().st_mode & 0o077 == 0  # nobody else's


def test_of_a_checkpoint_folder_goes_what_pytorch_needs(board, tmp_path):
    encoder = tiny_encoder("bert", "embedding")
    encoder.save(tmp_path / "model")
    (tmp_path / "model" / "huge.bin").write_bytes(b"x")
    with machine(board) as there:
        moved = there._there(replace(JOB, engine="torch", path=tmp_path / "model"))
        names = {path.name for path in Path(moved.path).iterdir()}
        assert names >= {"config.json", "model.safetensors"}
        assert "huge.bin" not in names
        for name in names:
            assert (Path(moved.path) / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_model_and_tokenizer_are_named_as_they_are_there(board, launches, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    texts = {"name": "t x1", "pad_to": None, "batches": [[[1]]], "texts": [["a"]]}
    job = replace(JOB, path=launches["first"].path, cases=[texts], tokenizer=tmp_path / "tokenizer.json")
    with machine(board) as there:
        moved = there._there(job)
        assert Path(moved.path).read_bytes() == launches["first"].path.read_bytes()
        assert Path(moved.tokenizer).read_text() == "{}"
        assert Path(moved.path).is_relative_to(board.temporary)


def test_an_alias_of_the_users_configuration_and_a_shell_that_talks(board, tmp_path):
    wrapper = program(tmp_path / "python", f"#!/bin/sh\nseq 2000\nprintf 'no newline'\nexec {board.python} \"$@\"\n")
    with SshRunner.connect(Address.read(f"ssh://board?python={wrapper}&folder={board.temporary}")) as there:
        assert there.environment().num_cores >= 1
        assert there.name == f"ssh://board?python={wrapper}"


def test_a_workers_environment_there_is_short(board):
    code = "import json, os, sys; json.dump(dict(os.environ), sys.stdout)"
    with machine(board) as there:
        found = json.loads(there.link.run([None, "-c", code], [""], fixed_variables(3), 60)[0].result)
    assert found.pop("LC_CTYPE", None) in (None, "C.UTF-8")  # Python's own
    assert set(found) - {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ"} == set(fixed_variables(3))
    assert found["OMP_NUM_THREADS"] == "3"


def test_this_side_sleeps_while_the_worker_works(board):
    with machine(board) as there:
        start = time.process_time()
        there.link.run([None, "-c", "import time; time.sleep(1)"], [""], {}, 60)
        assert time.process_time() - start < 0.1


@pytest.mark.parametrize(
    ("about", "evidence"),
    [
        ({"machine": "x86_64", "firmware": "KVM"}, Evidence.MEASURED_DEVICE),
        ({"machine": "aarch64", "board": "Raspberry Pi 5 Model B Rev 1.0", "firmware": None}, Evidence.MEASURED_DEVICE),
        ({"machine": "aarch64", "board": None, "firmware": None}, Evidence.MEASURED_DEVICE),  # a phone with Termux
        ({"machine": "aarch64", "board": None, "firmware": "c7g.large"}, Evidence.MEASURED_ARM64),
        ({"machine": "aarch64", "board": "linux,dummy-virt", "firmware": None}, Evidence.MEASURED_ARM64),
    ],
)
def test_what_figures_of_a_machine_are_worth(about, evidence):
    assert evidence_of(about) is evidence


# The end of a connection ---------------------------------------------------------------------------------------------


def when_it_runs(board, act):
    """Do something to a process there as soon as one has run for a while: those that only look around are soon gone."""

    def wait():
        end = time.monotonic() + 20
        seen = set()
        while time.monotonic() < end:
            if lasting := seen & (seen := set(board.processes())):
                act(min(lasting))
                return
            time.sleep(0.3)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def kill_all(pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("side", ["here", "there", "keeper"])
def test_a_connection_killed_in_mid_run(board, launches, side):
    target = open_target(board.address())

    def act(worker):
        if side == "there":
            kill_all(board.sessions())
        elif side == "here":
            kill_all(set(children(os.getpid())) - {board.process.pid})
        else:
            os.kill(int(Path(f"/proc/{worker}/stat").read_text().split()[3]), signal.SIGTERM)

    thread = when_it_runs(board, act)
    with pytest.raises(MissingDependency, match="was lost") as caught:
        target.measure(launches, LONG, Silent())
    thread.join()
    assert caught.value.exit_code == 6
    assert board.is_clean()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whoever_measures_is_stopped(board, launches, number):
    code = f"""
    import pickle, signal
    from pathlib import Path
    from bertshrink.worker.job import RunSpec
    from bertshrink.meters.targets import open_target
    from bertshrink.progress import Silent
    long = pickle.loads({pickle.dumps(LONG)!r})  # without what these tests import
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
    launch = RunSpec("onnxruntime", Path({str(launches["first"].path)!r}), {{}}, "float32", 20, ("input_ids",), 64)
    open_target({board.address()!r}).measure({{"m": launch}}, long, Silent())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE)
    thread = when_it_runs(board, lambda _worker: process.send_signal(number))
    process.communicate(timeout=60)
    thread.join()
    assert process.returncode != 0
    assert board.is_clean()


def test_a_file_that_breaks_off_leaves_nothing(board, tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(300 << 20)
    with machine(board) as there:
        sent = []

        def tell(num_bytes):
            sent.append(num_bytes)
            if len(sent) == 20:
                there.link._process.kill()

        with pytest.raises(MissingDependency, match="was lost"):
            there.link.put("large", tmp_path / "large", tell)


# Workers that fail ----------------------------------------------------------------------------------------------------


def test_a_worker_that_hangs_dies_or_writes_too_much(board):
    with machine(board) as there:
        start = time.monotonic()
        code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
        assert there.link.run([None, "-c", f"{code}; time.sleep(60)"], [""], {}, 1)[0].code is None
        assert time.monotonic() - start < 20
        assert board.is_idle()
        (ended,) = there.link.run([None, "-c", "import sys; sys.exit('a \\x1b[31m word')"], [""], {}, 60)
        assert (ended.code, ended.log) == (1, "a [31m word")
        assert there.link.run([None, "-c", "import os; os.kill(os.getpid(), 11)"], [""], {}, 60)[0].code == -11
        (ended,) = there.link.run([None, "-c", "for _ in range(100): print('x' * 999_999)"], [""], {}, 60)
        assert (ended.num_bytes, ended.result) == (100_000_000, b"")
        (ended,) = there.link.run([None, "-c", "print('x' * 3_000_000)"], [""], {}, 60)
        assert (ended.num_bytes, len(ended.result)) == (3_000_001, 3_000_001)


def test_a_worker_that_cannot_read_the_model_is_told_with_its_path_here(board, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with machine(board) as there, pytest.raises(MeasurementError, match="exit status 1") as caught:
        there.run([replace(JOB, path=tmp_path / "m.onnx")], 60)
    assert str(tmp_path / "m.onnx") in caught.value.what
    assert "INVALID_PROTOBUF" in caught.value.hint


# What is not there ----------------------------------------------------------------------------------------------------


def refusal(address, launches=(), kind=MissingDependency, settings=None):
    with pytest.raises(kind) as caught:
        target = open_target(address)
        target.check(dict(launches)) if settings is None else target.measure(dict(launches), settings, Silent())
    return f"{caught.value}"


def test_no_such_engine(board, launches, tmp_path):
    missing = {"m": replace(launches["first"], engine="openvino")}
    text = refusal(board.address(), missing)
    assert "not installed there: openvino" in text
    assert f"{board.python} -m pip install openvino" in text
    bare_python(tmp_path / "venv")
    text = refusal(board.address(python=tmp_path / "venv" / "bin" / "python"), launches)
    assert "pip install numpy onnxruntime" in text


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ImportError('/x.so: wrong ELF class: ELFCLASS32')", "was built for another machine"),
        ("import os; os.kill(os.getpid(), 4)", "instructions that its processor does not have"),
        ("raise RuntimeError('out of luck')", "cannot be imported"),
    ],
)
def test_an_engine_that_does_not_fit(board, launches, tmp_path, code, message):
    site = bare_python(tmp_path / "venv", "numpy")
    (site / "onnxruntime.py").write_text(code)
    text = refusal(board.address(python=tmp_path / "venv" / "bin" / "python"), launches)
    assert message in text
    assert ("64-bit" in text) == ("luck" not in text)


def test_no_python_or_an_old_one(board, tmp_path):
    text = refusal(board.address(python="/no/python3"))
    assert "there is no `/no/python3`" in text
    assert "?python=" in text
    old = program(tmp_path / "python", f"#!/bin/sh\nshift\nexec {board.python} -c \"import sys; sys.version_info=(3,9);"
                  " sys.version='3.9.2 (old)'; exec(sys.argv[1])\" \"$1\"\n")  # fmt: skip
    assert "3.10 or newer" in refusal(board.address(python=old))
    assert "is 3.9.2" in refusal(board.address(python=old))


def test_no_way_in(board, tmp_path, monkeypatch):
    port = f":{board.port}"
    assert "cannot be reached" in refusal(board.address().replace(port, ":1"))
    assert "no machine is called `no.such.invalid`" in refusal("ssh://no.such.invalid")
    configuration = board.folder / "ssh_config"
    before = configuration.read_text()
    try:
        configuration.write_text(before.replace(f"{board.folder}/known_hosts", "/dev/null"))
        assert "host key of" in (text := refusal(board.address()))
        assert "is not known here" in text
        other = Path(f"{key(tmp_path / 'other')}.pub").read_text()
        (tmp_path / "known").write_text(f"[127.0.0.1]{port} {other}")
        configuration.write_text(before.replace(f"{board.folder}/known_hosts", str(tmp_path / "known")))
        assert "has changed" in refusal(board.address())
        configuration.write_text(before.replace(f"{board.folder}/user", str(tmp_path / "other")))
        text = refusal(board.address())
        assert "refuses the login" in text
        assert "ssh-copy-id" in text
    finally:
        configuration.write_text(before)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "`ssh` is not installed here" in refusal(board.address())


def test_no_room(board, launches, tmp_path):
    small = program(tmp_path / "python", f'#!/bin/bash\nulimit -f 256\nexec {board.python} "$@"\n')
    (tmp_path / "m.onnx").write_bytes(b"x" * 400_000)
    launch = {"m": replace(launches["first"], path=tmp_path / "m.onnx")}
    text = refusal(board.address(python=small), launch, OutputError, QUICK)
    assert "`model-0/m.onnx` (400000 bytes) cannot be written" in text
    assert "?folder=" in text
    assert "a private folder" in refusal(board.address(folder="/no/such/place"), (), OutputError)


@pytest.mark.parametrize(
    "lines",
    ["echo bertshrink keeper garbage", "echo 'bertshrink keeper [1]'", "printf 'bertshrink keeper '; seq -s '' 30000"],
)
def test_garbage_is_no_answer(board, tmp_path, lines):
    fake = program(tmp_path / "python", f"#!/bin/sh\n{lines}\ncat > /dev/null\n")
    assert "is unreadable" in refusal(board.address(python=fake), (), MeasurementError)


def test_a_machine_that_only_talks_or_is_silent(board, tmp_path, monkeypatch):
    fake = program(tmp_path / "python", "#!/bin/sh\nyes | head -c 1000000\n")
    assert "it sent text, but no greeting" in refusal(board.address(python=fake), (), MeasurementError)
    silent = program(tmp_path / "silent", "#!/bin/sh\ncat > /dev/null\n")
    monkeypatch.setattr("bertshrink.meters.targets.ssh.connection.ANSWER_S", 1)
    assert "did not answer in time" in refusal(board.address(python=silent))


# The keeper by itself -------------------------------------------------------------------------------------------------


def put(tmp_path, data, **changes):
    order = {"do": "put", "name": "m/f", "num_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} | changes
    answers = io.BytesIO()
    supervisor._follow(order, tmp_path, io.BytesIO(data), answers, 10)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_what_arrives_is_what_was_sent(tmp_path, monkeypatch):
    assert put(tmp_path, b"data") == [{"ready": True}, {"done": True}]
    assert (tmp_path / "m" / "f").read_bytes() == b"data"
    assert put(tmp_path, b"data", sha256="0" * 64)[1]["errno"] == "EIO"
    with pytest.raises(ConnectionError):
        put(tmp_path, b"data", num_bytes=5)
    (tmp_path / "file").write_bytes(b"")
    assert put(tmp_path, b"data", name="file/f")[1]["errno"] == "EEXIST"
    (answer,) = put(tmp_path, b"", num_bytes=1 << 60)
    assert answer["errno"] == "ENOSPC"


def test_a_keeper_without_orders_goes(tmp_path):
    code = (
        f"from bertshrink.worker import supervisor; supervisor._IDLE_S = 0.2; supervisor.serve({str(tmp_path)!r}, 10)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline().startswith(supervisor.GREETING)
    assert process.wait(20) == 0
    process.communicate()
    assert not any(tmp_path.iterdir())


# Addresses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address", "words"),
    [
        ("ssh://board", Address("board"), "-- board"),
        ("ssh://Pi@Board.local:2222/", Address("Board.local", "Pi", 2222), "-p 2222 -- Pi@Board.local"),
        ("ssh://a@[fe80::1%25eth0]:22", Address("fe80::1%25eth0", "a", 22), "-p 22 -- a@fe80::1%25eth0"),
        ("ssh://b?python=~/v/bin/python&folder=/d", Address("b", None, None, "~/v/bin/python", "/d"), "-- b"),
    ],
)
def test_addresses(text, address, words):
    assert Address.read(text) == address
    assert " ".join(address.words) == words


@pytest.mark.parametrize(
    "text",
    [
        *("ssh://", "ssh://-oProxyCommand=x", "ssh://a b", "ssh://-l@host", "ssh://host:port", "ssh://host/path"),
        *("ssh://h?python=a;b", "ssh://h?python=$(x)", "ssh://h?python=", "ssh://h?folder=", "ssh://h?pyhton=x"),
        *("ssh://h;x", "ssh://h#x", "ssh://u;x@h"),
    ],
)
def test_what_is_no_address(text):
    with pytest.raises(UserError):
        open_target(text)


def test_every_refusal_has_a_hint():
    for code, words in ((255, "what?"), (255, ""), (None, ""), (1, "x"), (127, "sh: python3: not found")):
        error = refused(Address("board", "pi"), code, words)
        assert isinstance(error, BertshrinkError)
        assert error.hint
        assert error.exit_code == 6
