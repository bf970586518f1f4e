"""Engines: each gives PyTorch's numbers, says what it really does, and leaves nothing behind."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from bertshrink import engines
from bertshrink.engines import ENGINES, EngineEntry, engine, is_installed
from bertshrink.errors import CheckFailed
from bertshrink.meters.environment import environment
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.latency.measure import measure
from bertshrink.meters.latency.settings import LatencySettings
from bertshrink.meters.targets.host import LocalRunner
from bertshrink.model.artifact import Artifact
from bertshrink.model.families import FAMILIES
from bertshrink.model.model_ref import ModelRef
from bertshrink.model.round_trip import proof_answers, prove
from bertshrink.model.tasks import TASKS
from bertshrink.progress import Silent
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.export.parity import padded_text
from bertshrink.techniques.quantize import Quantize
from tests.support.families import SELDOM
from tests.support.tiny import bench_of, sentences, tiny_encoder

ROOT = Path(__file__).parents[2]
PAIRS = [
    ("bert", "classification"),
    ("bert", "question-answering"),
    ("roberta", "multi-label"),
    ("electra", "token-classification"),
    ("distilbert", "regression"),
    ("albert", "embedding"),
    ("electra", "mlm"),
    ("bert", "sparse-embedding"),
]
PAIRS += [(family, "classification") for family in FAMILIES if family not in {*dict(PAIRS), *SELDOM}]
"""Every family that is often met, and every task."""

needs_openvino = pytest.mark.skipif(not is_installed("openvino"), reason="needs pip install 'bertshrink[openvino]'")
needs_executorch = pytest.mark.skipif(
    not is_installed("executorch"), reason="needs pip install 'bertshrink[executorch]', a heavy one: run these by hand"
)
pytestmark = pytest.mark.usefixtures("one_thread")


def export(encoder, folder, **settings):
    return Export(**settings)(encoder, Workbench(None, None, folder))


def assert_same(artifact, encoder, rtol, num_rows=11):
    rows = encoder.tokenize(sentences(num_rows), max_length=artifact.max_length)
    wanted = encoder.predict(rows)
    largest = max(np.abs(value).max() for row in wanted for value in row.values())
    for ours, theirs in zip(artifact.predict(rows), wanted, strict=True):
        assert tuple(ours) == tuple(theirs) == TASKS[encoder.task].outputs
        for name in theirs:
            assert ours[name].shape == theirs[name].shape
            np.testing.assert_allclose(ours[name], theirs[name], atol=rtol * largest)


def timed(artifact):
    """What the worker measures of an artifact, in a process of its own."""
    settings = LatencySettings(batch=(1, 2), length=(8,), rounds=1, seconds=0.01, warmup=0, threads=1)
    if artifact.card.shape:
        batch, length = artifact.card.shape
        settings = settings.model_copy(update={"batch": (batch,), "length": (length,)})
    launch = launch_of(artifact, artifact.folder)
    (found,) = measure({"it": launch}, settings, Silent(), environment(), LocalRunner()).values()
    return [m for m in found if m.metric == "latency"]


def test_pairs_are_all_families_and_tasks():
    assert {family for family, _ in PAIRS} == set(FAMILIES) - SELDOM
    assert {task for _, task in PAIRS} == set(TASKS)


def test_an_engine_that_is_not_installed_is_known_to_be_missing(monkeypatch):
    monkeypatch.setitem(ENGINES, "none", EngineEntry("none", "no_such_package.runtime", "pip install none"))
    assert not is_installed("none")
    assert engines.version("none") is None
    assert engines.version("onnxruntime")


@pytest.mark.subprocess
def test_onnx_runtime_leaves_no_files(tmp_path):
    artifact = export(tiny_encoder(), tmp_path / "work")
    home = tmp_path / "home"
    home.mkdir()
    code = "import sys; from bertshrink.engines import engine; engine('onnxruntime').load(sys.argv[1]); print('done')"
    env = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(artifact.file)],
        env=env | {"HOME": str(home), "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(home / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr
    assert list(home.iterdir()) == [], "its telemetry is off"


# OpenVINO -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize(("family", "task"), PAIRS)
def test_openvino_gives_pytorchs_numbers(family, task, tmp_path):
    encoder = tiny_encoder(family, task, num_hidden_layers=2)
    artifact = export(encoder, tmp_path, engine="openvino")
    again = Artifact.load(artifact.folder)
    assert again.card.engine == "openvino"
    assert max(again.card.details["parity"].values()) < 1e-5, "compared by OpenVINO, in float32"
    left_alone = engine("openvino").load(str(again.file), 1).describe()["precision"]
    assert_same(again, encoder, 1e-5 if left_alone == "float32" else 0.05)
    prove(artifact, ModelRef.read(artifact.folder), "artifact", proof_answers(encoder))


@pytest.mark.slow
@needs_openvino
def test_numbers_of_another_shape_are_a_failed_check(tmp_path, monkeypatch):
    session = engine("openvino").OpenVinoSession
    run = session.run
    monkeypatch.setattr(session, "run", lambda *given: {name: value[:0] for name, value in run(*given).items()})
    with pytest.raises(CheckFailed, match=r"gives numbers of the shape \(0, 2\)"):
        export(tiny_encoder(num_hidden_layers=1), tmp_path, engine="openvino")


@needs_openvino
def test_openvino_calls_an_input_by_its_own_name(tmp_path):
    """A Cast that does nothing gives the input a second name, which OpenVINO may take for the first."""
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "length"])
    out = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    nodes = [
        helper.make_node("Cast", ["attention_mask"], ["Cast_1_output_0"], to=TensorProto.INT64),
        helper.make_node("Add", ["Cast_1_output_0", "attention_mask"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [mask], [out])
    opset = [helper.make_opsetid("", 20)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "model.onnx")
    session = engine("openvino").load(str(tmp_path / "model.onnx"), 1)
    assert session.inputs == ["attention_mask"]
    assert session.run({"attention_mask": np.ones((1, 2), np.int64)})["y"].tolist() == [[2, 2]]


@pytest.mark.slow
@needs_openvino
def test_openvino_says_what_it_multiplies_in(tmp_path):
    artifact = export(tiny_encoder(), tmp_path)
    short = {"float32": "f32", "bfloat16": "bf16"}
    for asked in (None, "float32", "bfloat16"):
        session = engine("openvino").load(str(artifact.file), 1, {"precision": asked})
        told = session.describe()
        assert told["precision"] in ({asked, "float32"} if asked else set(short))
        assert set(told["dense_layers"]) == {short[told["precision"]]}, "the compiled graph's own words"
        assert (told["threads"], told["outputs"]) == (1, ["logits"])
    assert engine("openvino").load(str(artifact.file), 1, {"precision": "float32"}).describe()["precision"] == "float32"
    with pytest.raises(ValueError, match="`int3`"):
        engine("openvino").load(str(artifact.file), 1, {"precision": "int3"})


@pytest.mark.slow
@needs_openvino
def test_openvinos_options_come_from_the_card(tmp_path):
    artifact = export(tiny_encoder(), tmp_path, engine="openvino")
    odd = Artifact(artifact.folder, artifact.card.model_copy(update={"options": {"precision": "float16"}}))
    assert launch_of(odd, odd.folder).options == {"precision": "float16", "outputs": ["logits"]}
    assert odd.session(options={"precision": "float32"}).describe()["precision"] == "float32"


@pytest.mark.subprocess
@needs_openvino
def test_openvino_is_timed_like_any_engine(tmp_path):
    found = timed(export(tiny_encoder(), tmp_path, engine="openvino"))
    assert [m.conditions.engine for m in found] == ["openvino", "openvino"]
    assert {m.conditions.precision for m in found} <= {"float32", "bfloat16"}


@pytest.mark.subprocess
@needs_openvino
def test_signals_are_handled_where_openvino_was(tmp_path):
    """In whichever order its models go: it would leave the handlers a stack that is freed."""
    artifact = export(tiny_encoder(num_hidden_layers=1), tmp_path)
    code = f"""
    import os, signal
    from bertshrink.engines import engine
    signal.signal(signal.SIGTERM, lambda number, frame: print("heard", flush=True))
    openvino = engine("openvino")
    openvino.prepare({str(artifact.file)!r})
    one, other = (openvino.load({str(artifact.file)!r}, 1) for _ in range(2))
    os.kill(os.getpid(), signal.SIGTERM)
    del one
    del other
    os.kill(os.getpid(), signal.SIGTERM)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\nheard\n"), done.stderr


@pytest.mark.slow
@needs_openvino
def test_what_is_quantized_for_openvino_runs_there(tmp_path):
    encoder = tiny_encoder("bert", "embedding")
    artifact = export(encoder, tmp_path, engine="openvino")
    made = Quantize(min_cosine=0.9)(artifact, bench_of(encoder, tmp_path))
    assert (made.card.engine, made.card.precision) == ("openvino", "int8")
    assert made.card.details["agreement"]["cosine"] > 0.9


@pytest.mark.subprocess
@needs_openvino
def test_openvino_calls_nobody_and_leaves_no_files(tmp_path):
    code = """
import socket, sys
def refuse(*args, **more):
    raise AssertionError("called the network")
socket.socket.connect = refuse
from bertshrink.engines import engine
found = engine("openvino")
found.prepare("")
import openvino.tools.ovc.telemetry_utils as used
assert used.tm.__name__ == "openvino.tools.ovc.telemetry_stub", used.tm
assert "openvino_telemetry" not in sys.modules
import importlib.util
assert importlib.util.find_spec("openvino_telemetry"), "others may still import it"
print("done")
"""
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), "CI": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr
    assert list(home.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


# ExecuTorch -----------------------------------------------------------------------------------------------------------


@needs_executorch
@pytest.mark.parametrize(("family", "task"), PAIRS)
def test_executorch_gives_pytorchs_numbers(family, task, tmp_path):
    encoder = tiny_encoder(family, task, num_hidden_layers=1)
    artifact = export(encoder, tmp_path, to="executorch", static_shape="2x16")
    assert (artifact.card.format, artifact.card.engine, artifact.card.shape) == ("pte", "executorch", (2, 16))
    assert_same(Artifact.load(artifact.folder), encoder, 1e-5, num_rows=5)
    prove(artifact, ModelRef.read(artifact.folder), "artifact", proof_answers(encoder))


@pytest.mark.subprocess
@needs_executorch
def test_executorch_takes_any_shape_within_its_bounds(tmp_path):
    encoder = tiny_encoder(num_hidden_layers=1)
    artifact = export(encoder, tmp_path, to="executorch", max_batch=4)
    assert list(artifact.card.details["parity"]) == ["1x1", "1x7", "4x31", "4x64", "2x64"]
    assert (artifact.card.shape, artifact.card.max_batch) == (None, 4)
    assert_same(artifact, encoder, 1e-5)
    session = engine("executorch").load(str(artifact.file), 1)
    with pytest.raises(ValueError, match="at most"):
        session.run(padded_text(encoder, 5, 3))
    assert len(timed(artifact)) == 2


@needs_executorch
@pytest.mark.parametrize(("family", "task"), [("bert", "embedding"), ("roberta", "mlm")])
def test_executorch_int8_agrees_and_is_smaller(family, task, tmp_path):
    encoder = tiny_encoder(family, task, num_hidden_layers=1)
    whole = export(encoder, tmp_path / "a", to="executorch", static_shape="2x16")
    made = export(encoder, tmp_path / "b", to="executorch", static_shape="2x16", int8=True)
    assert made.card.precision == "int8"
    assert made.card.details["agreement"]["cosine"] >= 0.99
    assert made.file.stat().st_size < 0.6 * whole.file.stat().st_size
    assert encoder.model.get_input_embeddings().weight.dtype.is_floating_point, "the encoder is left as it was"
    with pytest.raises(CheckFailed, match="cosine"):
        export(encoder, tmp_path / "c", to="executorch", static_shape="2x16", int8=True, int8_cosine=1.0)


@needs_executorch
def test_a_cut_program_is_an_error_not_a_crash(tmp_path):
    artifact = export(tiny_encoder(num_hidden_layers=1), tmp_path, to="executorch", static_shape="1x8")
    artifact.file.write_bytes(artifact.file.read_bytes()[:2000])
    with pytest.raises(RuntimeError):
        engine("executorch").load(str(artifact.file), 1)
