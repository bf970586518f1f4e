"""Quantization within limits, on real graphs: what is widened, what is chosen, and what is left when nothing holds."""

import pytest

from bertshrink.errors import CheckFailed
from bertshrink.files.headers import read_onnx
from bertshrink.model.artifact import Artifact
from bertshrink.model.sizes.size_estimate import of_file
from bertshrink.onnx_graph.encoder_graph import read_model
from bertshrink.report.measurement import Conditions, Measurement
from bertshrink.techniques.base import Workbench
from bertshrink.techniques.export import Export
from bertshrink.techniques.quantize import Quantize
from bertshrink.techniques.quantize.coverage import account
from bertshrink.techniques.quantize.search.autotune import CANDIDATES
from tests.support.tiny import tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")

WORST = "bert.encoder.layer.1.output.dense.weight.T"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("float")
    return Export()(tiny_encoder(num_hidden_layers=2), Workbench(None, None, folder))


def metric(artifact):
    """A made-up accuracy that one weight alone decides: 1 where it is not in integers."""
    stored = {tensor.name for tensor in read_model(artifact.file).graph.initializer}
    return 1.0 if WORST in stored or f"{WORST}.half" in stored else 0.9


@pytest.mark.slow
def test_the_weight_that_costs_accuracy_is_kept_wider(exported, tmp_path):
    bench = Workbench(None, None, tmp_path, choose=metric)
    made = Quantize(max_metric_drop="1%", min_cosine=0.9)(exported, bench)
    details = made.card.details
    assert details["types"][WORST] == "float16"
    narrow = [name for name, kind in details["types"].items() if kind == "int8-dynamic"]
    assert len(narrow) >= 1
    assert details["drop"] == 0
    assert [step["holds"] for step in details["road"]][:2] == [False, True]
    found = account(read_model(made.file))
    assert found.matmuls["float16"] == sum(kind == "float16" for kind in details["types"].values())
    told = "\n".join(bench.notes)
    assert "limit: a drop of 1.00% in the task's metric (float: 1.0000)" in told
    assert "try 1: as asked" in told
    assert WORST in told
    assert made.card.precision.startswith("int8") or "int8" in made.card.precision
    assert not (tmp_path / "best-attempt").exists()
    Artifact.load(made.folder)


def test_a_limit_that_holds_as_asked_changes_nothing(exported, tmp_path):
    plain = Quantize(min_cosine=0.9)(exported, Workbench(None, None, tmp_path / "a"))
    held = Quantize(min_cosine=0.9, max_metric_drop="50%")(exported, Workbench(None, None, tmp_path / "b"))
    assert held.file.read_bytes() == plain.file.read_bytes()
    assert len(held.card.details["road"]) == 1


@pytest.mark.slow
def test_without_labels_the_cosine_is_the_measure(exported, tmp_path):
    bench = Workbench(None, None, tmp_path)
    made = Quantize(scheme="block-int4", rounding="nearest", max_metric_drop="0.001%", min_cosine=0)(exported, bench)
    assert 1 - made.card.details["agreement"]["cosine"] <= 1e-5
    assert any("agreement (1 - cosine of outputs)" in note for note in bench.notes)
    assert set(made.card.details["types"].values()) != {"int4-block"}


@pytest.mark.slow
def test_when_nothing_holds_the_nearest_is_left_and_named(exported, tmp_path):
    first = []

    def never(artifact):
        first.append(artifact)
        return 1.0 if len(first) == 1 else 0.5  # the float artifact is asked first

    with pytest.raises(
        CheckFailed, match=r"no mix of number formats holds a drop of 1.00%: the nearest one loses 50.00%"
    ) as failed:
        Quantize(max_metric_drop="1%", min_cosine=0)(exported, Workbench(None, None, tmp_path, choose=never))
    assert failed.value.where == str(tmp_path / "best-attempt")
    assert (tmp_path / "best-attempt" / "onnx" / "model_quantized.onnx").is_file()
    assert not (tmp_path / "quantize").exists()


def clock(times):
    """A measure that gives each candidate the time told, and the others a second."""

    def measure(artifacts):
        at = Conditions(target="cpu", threads=1, batch=1, length=32, phase="steady")
        return {
            name: [
                Measurement(
                    metric="latency", unit="s", samples=((times.get(name, 1.0),),) * 3, better="lower", conditions=at
                )
            ]
            for name in artifacts
        }

    return measure


def test_auto_takes_the_fastest_and_shows_the_front(exported, tmp_path):
    bench = Workbench(None, None, tmp_path, measure=clock({"block-int8": 0.1, "dynamic-int8": 0.2}))
    made = Quantize(auto=True, min_cosine=0.9)(exported, bench)
    tried = made.card.details["tried"]
    assert [row["name"] for row in tried] == [one.name for one in CANDIDATES["onnxruntime"]]
    assert not any("failure" in row for row in tried)
    assert [row["name"] for row in tried if row["chosen"]] == ["block-int8"]
    assert made.card.details["scheme"] == "block-int8"
    assert account(read_model(made.file)).matmuls["int8-block"] > 0
    on_front = {row["name"] for row in tried if row["on_front"]}
    assert {name for name, _, _ in bench.baselines} == on_front - {"block-int8"}
    for _, _, artifact in bench.baselines:
        assert artifact.file.is_file()
    assert sum(note.startswith("tried ") for note in bench.notes) == len(tried)
    assert any(note.startswith("this CPU has") for note in bench.notes)


def test_auto_within_limits(exported, tmp_path):
    bench = Workbench(None, None, tmp_path, measure=clock({"block-int8": 0.1, "dynamic-int8": 0.2}))
    half = exported.file.stat().st_size * 0.9
    made = Quantize(auto=True, min_cosine=0.9, max_metric_drop="0.0001%", max_size=f"{half / 1e3:.1f} kB")(
        exported, bench
    )
    assert made.card.details["scheme"] == "float16"
    reasons = {row["name"]: row.get("outside", "") for row in made.card.details["tried"]}
    assert "a drop of" in reasons["block-int4"]
    assert "are more than" in reasons["float32"]


def test_auto_with_nothing_within_limits(exported, tmp_path):
    with pytest.raises(CheckFailed, match=r"no scheme is within the limits: float32: .* are more than 1.00 kB"):
        Quantize(auto=True, max_size="1 kB")(exported, Workbench(None, None, tmp_path, measure=clock({})))


def test_auto_makes_nothing_that_its_size_rules_out(exported, tmp_path, monkeypatch):
    from bertshrink.techniques.quantize.search import trials

    written = []
    real = trials.VariantBuilder.write
    monkeypatch.setattr(
        trials.VariantBuilder,
        "write",
        lambda self, model, types, name, options: written.append(name) or real(self, model, types, name, options),
    )
    tight = Quantize(scheme="block-int8").sizes(of_file(read_onnx(exported.file), "bert")).num_bytes * 1.01
    bench = Workbench(None, None, tmp_path, measure=clock({"block-int8": 0.1}))
    made = Quantize(auto=True, min_cosine=0.9, max_size=f"{tight:.0f} B")(exported, bench)
    assert made.card.details["scheme"] == "block-int8"
    assert made.file.stat().st_size <= tight
    reasons = {row["name"]: row.get("failure", "") for row in made.card.details["tried"]}
    assert reasons["float16"].startswith("not made: ") and "are more than" in reasons["float16"]
    assert "candidate-float16" not in written and "candidate-float32" in written
    written.clear()
    with pytest.raises(CheckFailed, match="not made"):
        Quantize(auto=True, max_size="1 kB")(exported, Workbench(None, None, tmp_path, measure=clock({})))
    assert written == []


@pytest.mark.slow
def test_tries_outlive_a_stop(exported, tmp_path, monkeypatch):
    from bertshrink.techniques.quantize.search import trials

    def stopped(artifacts):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Quantize(auto=True, min_cosine=0.9)(exported, Workbench(None, None, tmp_path, measure=stopped))
    whole = Quantize(auto=True, min_cosine=0.9)(
        exported, Workbench(None, None, tmp_path / "whole", measure=clock({"block-int8": 0.1}))
    )
    damaged = tmp_path / "candidate-float16" / "onnx" / "model_quantized.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    written = []
    real = trials.VariantBuilder.write
    monkeypatch.setattr(
        trials.VariantBuilder,
        "write",
        lambda self, model, types, name, options: written.append(name) or real(self, model, types, name, options),
    )
    bench = Workbench(None, None, tmp_path, measure=clock({"block-int8": 0.1}))
    made = Quantize(auto=True, min_cosine=0.9)(exported, bench)
    assert written == ["candidate-float16"], "what is there with other bytes is made again"
    assert made.card.details["tried"] == whole.card.details["tried"]
    assert made.file.read_bytes() == whole.file.read_bytes()
    assert made.card.details["accounting"] == whole.card.details["accounting"]
    made.save(tmp_path / "saved")
    Artifact.load(tmp_path / "saved")
    assert not list((tmp_path / "saved").glob("candidate*"))


def test_a_candidate_that_does_not_run_is_told(exported, tmp_path, monkeypatch):
    from bertshrink.techniques.quantize.search import trials

    real = trials.VariantBuilder.write

    def write(self, model, types, name, options):
        if "static" in name:
            raise RuntimeError("no kernel for this\nand more")
        return real(self, model, types, name, options)

    monkeypatch.setattr(trials.VariantBuilder, "write", write)
    bench = Workbench(None, None, tmp_path, measure=clock({"dynamic-int8": 0.1}))
    made = Quantize(auto=True, min_cosine=0.9)(exported, bench)
    (failed,) = (row for row in made.card.details["tried"] if "failure" in row)
    assert failed == {"name": "static-int8", "chosen": False, "failure": "it does not run: no kernel for this"}
    assert any("tried static-int8: it does not run" in note for note in bench.notes)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"max_metric_drop": "2 MB"}, "not a share"),
        ({"max_metric_drop": "120%"}, "not a share"),
        ({"max_size": "5%", "auto": True}, "not a size"),
        ({"max_size": "5 MB"}, "set `auto`"),
    ],
)
def test_limits_that_make_no_sense(settings, why):
    with pytest.raises(ValueError, match=why):
        Quantize(**settings)


def test_only_a_choice_by_the_clock_depends_on_the_machine():
    assert Quantize(auto=True).depends_on_machine
    assert not Quantize(max_metric_drop="1%").depends_on_machine
