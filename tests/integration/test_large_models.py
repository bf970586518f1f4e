"""A model that one ONNX file cannot hold, through the commands: export, quantize, inspect, bench, gate, refusals.

The limit is set to a few kilobytes, so that a tiny model is large.
"""

import json
import shutil
from pathlib import Path

import pytest

from bertshrink.cli.app import run
from bertshrink.command_scope import command_scope
from bertshrink.errors import UnsafeModel
from bertshrink.files.atomic import seal, verify
from bertshrink.gates.figures import file_metrics
from bertshrink.meters.targets.ssh import _files
from bertshrink.model.checkpoint_info import ARTIFACT_CARD
from bertshrink.onnx_graph import external_data
from bertshrink.report.report import Report
from bertshrink.sources.resolve import locate_model
from tests.support.gate_fixtures import read_here
from tests.support.tiny import tiny_encoder

pytestmark = [pytest.mark.subprocess, pytest.mark.slow]

LIMIT = 75_000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an encoder `m`, and `two` and `fused`, exported from it."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "m").mkdir()
    tiny_encoder("bert", "classification", num_hidden_layers=2).save(folder / "m")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external_data, "MAX_FILE_BYTES", LIMIT)
        patch.chdir(folder)
        assert run(["export", "m", "-o", "two", "-q"]) == 0
        assert run(["export", "m", "-o", "fused", "--attention", "fused", "-q"]) == 0
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(external_data, "MAX_FILE_BYTES", LIMIT)
    return tmp_path / "work"


def test_both_files_arrive_and_are_told(here, capsys):
    assert verify(here / "two")
    sealed = json.loads((here / "two/MANIFEST.json").read_text())["files"]
    assert {"onnx/model.onnx", "onnx/model.onnx_data"} <= set(sealed)
    report = Report.model_validate_json((here / "two/report.json").read_text())
    with read_here():
        seen = file_metrics.look_at(Path("two"), "test")
        of_file = file_metrics.look_at(Path("two/onnx/model.onnx"), "test")
    assert report.snapshots[-1].facts["sha256"] == seen.sha256 == of_file.sha256
    assert (
        report.snapshots[-1].find("size").value
        == seen.num_bytes
        == sum(sealed[f"onnx/{name}"]["bytes"] for name in ("model.onnx", "model.onnx_data"))
    )
    assert seen.num_bytes > seen.compressed().value > sealed["onnx/model.onnx_data"]["bytes"] / 2
    capsys.readouterr()
    assert run(["inspect", "two", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_bytes"] == seen.num_bytes
    assert _files(Path("two/onnx/model.onnx")) == [Path("two/onnx/model.onnx"), Path("two/onnx/model.onnx_data")]


def test_one_command_or_two_give_one_int8_file(here):
    assert run(["quantize", "two", "-o", "apart", "-q", "--min-cosine", "-1"]) == 0
    assert run(["quantize", "m", "-o", "direct", "-q", "--min-cosine", "-1"]) == 0
    apart, direct = (sorted(path.name for path in (here / name / "onnx").iterdir()) for name in ("apart", "direct"))
    assert apart == direct == ["model_quantized.onnx"]
    name = "onnx/model_quantized.onnx"
    assert (here / "apart" / name).read_bytes() == (here / "direct" / name).read_bytes()


def test_it_is_timed_beside_another(here):
    options = ["--batch", "1", "--length", "8", "--seconds", "0.01", "--rounds", "2", "--cold"]
    assert run(["bench", "fused", "two", *options, "-q"]) == 0


def test_a_folder_whose_manifest_is_gone_is_taken_in_again(here):
    (here / "two/MANIFEST.json").unlink()
    with command_scope():
        folder = locate_model("two")
    assert folder != here / "two"
    card = json.loads((folder / ARTIFACT_CARD).read_text())
    # the child that wrote it has the true limit: it is one file there
    assert (card["file"], card.get("data")) == ("onnx/model.onnx", None)


@pytest.mark.parametrize("how", ["missing", "changed", "cut", "link"])
def test_weights_that_are_not_those_that_were_written(here, how, capsys):
    data = here / "two/onnx/model.onnx_data"
    match how:
        case "missing":
            data.unlink()
        case "changed":
            data.write_bytes(data.read_bytes()[:-1] + b"\1")
        case "cut":
            data.write_bytes(data.read_bytes()[:-1])
        case "link":
            data.rename(here / "elsewhere")
            data.symlink_to(here / "elsewhere")
    for command in (["quantize", "two", "-o", "out", "-q"], ["inspect", "two"]):
        assert run(command) == UnsafeModel.exit_code
        assert "onnx/model.onnx_data" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["unnamed", "renamed", "elsewhere"])
def test_a_seal_around_another_file_of_weights(here, how):
    """Somebody seals what bertshrink would not write: the card says one thing, the graph another."""
    card = json.loads((here / "two" / ARTIFACT_CARD).read_text())
    graph, data = here / "two/onnx/model.onnx", here / "two/onnx/model.onnx_data"
    match how:
        case "unnamed":
            del card["data"]
        case "renamed":
            graph.write_bytes(graph.read_bytes().replace(b"model.onnx_data", b"other.onnx_data"))
            shutil.copyfile(data, data.with_name("other.onnx_data"))
        case "elsewhere":
            graph.write_bytes(graph.read_bytes().replace(b"model.onnx_data", b"../../elsewhere"))
            shutil.copyfile(data, here / "elsewhere")
    (here / "two" / ARTIFACT_CARD).write_text(json.dumps(card))
    (here / "two/MANIFEST.json").unlink()
    seal(here / "two")
    with command_scope(), pytest.raises(UnsafeModel, match=r"names|not a file beside it"):
        locate_model("two")
