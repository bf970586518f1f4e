"""What one command remembers is forgotten by the next one in the same process."""

import os
import socket

import pytest

import bertshrink
from bertshrink.command_scope import at_end, command_scope, once
from bertshrink.data.load import load
from bertshrink.data.settings import DataSettings
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files import hub
from tests.support.onnx_files import onnx_folder


def counter():
    calls = []

    def compute():
        calls.append(1)
        return len(calls)

    return compute


def test_a_command_computes_once_and_the_next_one_anew():
    compute = counter()
    with command_scope():
        assert [once("a", 1, compute), once("a", 1, compute), once("b", 1, compute)] == [1, 1, 2]
        with command_scope():
            assert once("a", 1, compute) == 1, "a command within a command is a part of it"
        assert once("a", 1, compute) == 1
    with command_scope():
        assert once("a", 1, compute) == 3
    assert [once("a", 1, compute), once("a", 1, compute)] == [4, 5], "outside of a command nothing is remembered"


def test_what_is_large_is_remembered_for_the_last_key_only():
    compute = counter()
    with command_scope():
        found = [once("a", key, compute, only_last=True) for key in (1, 1, 2, 2, 1)]
    assert found == [1, 1, 2, 2, 3]


def test_a_users_error_is_remembered_and_a_bug_is_not():
    raised = []

    def fail(kind):
        raised.append(kind)
        raise kind("no")

    with command_scope():
        for kind in (UserError, UserError, KeyError, KeyError):
            with pytest.raises(kind):
                once("a", kind, lambda kind=kind: fail(kind))
    assert raised == [UserError, KeyError, KeyError]


def test_what_is_to_be_undone_is_undone_at_the_end_whatever_happens():
    undone = []
    with pytest.raises(KeyError), command_scope():
        at_end(lambda: undone.append("first"))
        at_end(lambda: undone.append("last"))
        raise KeyError
    assert undone == ["last", "first"]


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_file_that_was_refused_is_seen_anew_by_the_next_call(tmp_path):
    path = onnx_folder(tmp_path / "m") / "model.onnx"
    right, status = path.read_bytes(), path.stat()
    _overwrite(path, b"\xff" * len(right), status)
    with pytest.raises(UnsafeModel):
        bertshrink.inspect(str(path))
    _overwrite(path, right, status)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns), "it looks unchanged"
    assert bertshrink.inspect(str(path))


def test_texts_that_look_unchanged_are_read_again_by_the_next_command(tmp_path):
    (tmp_path / "train.txt").write_text("one\n")
    (tmp_path / "dev.txt").write_text("dev\n")
    status = (tmp_path / "train.txt").stat()
    settings = DataSettings(path=str(tmp_path))
    with command_scope():
        first = load(settings)
        assert load(settings) is first
        _overwrite(tmp_path / "train.txt", b"two\n", status)
    with command_scope():
        assert load(settings).train.texts == ("two",)


def test_a_hub_that_was_away_is_tried_again_by_the_next_command(monkeypatch):
    import huggingface_hub.constants

    for name in ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def away(address, timeout):
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", away)
    with command_scope():
        assert not hub.hub_is_reachable()
        assert huggingface_hub.constants.HF_HUB_OFFLINE and os.environ["HF_HUB_OFFLINE"] == "1"
    assert not huggingface_hub.constants.HF_HUB_OFFLINE and "HF_HUB_OFFLINE" not in os.environ
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: socket.socket())
    with command_scope():
        assert hub.hub_is_reachable()


def _overwrite(path, data, status):
    """Other bytes in the same file, with the same size and time."""
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
