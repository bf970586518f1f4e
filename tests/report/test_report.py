"""Reports survive the disk; what is not a report is said to be none."""

import json

import pytest

from bertshrink.errors import BaselineError, UserError
from bertshrink.report.measurement import Conditions, Environment, Measurement
from bertshrink.report.report import SCHEMA, Component, Report, Snapshot


def made_up():
    size = Measurement.single("size", "B", 10.0, "lower")
    fast = Measurement(
        metric="latency", unit="s", samples=((0.1, 0.2), (0.3,)), conditions=Conditions(engine="torch", batch=1)
    )
    snapshots = [
        Snapshot(name="reference", label="a", role="reference", kind="encoder", measurements=[size, fast]),
        Snapshot(
            name="01-x",
            label="ü",
            role="stage",
            kind="artifact",
            settings={"layers": 3},
            components=[Component(name="head", num_parameters=1, num_bytes=4)],
            measurements=[size.model_copy(update={"conditions": Conditions(engine="onnxruntime")})],
            history=[{"step": 1, "loss": 0.5}],
        ),
    ]
    return Report(
        name="r",
        version="0",
        created="2025-01-01T00:00:00+00:00",
        command="bertshrink run r",
        model="m",
        task="mlm",
        environments={"e": Environment(id="e", cpu="c")},
        snapshots=snapshots,
    )


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "report.json"
    found.write_text(made_up().to_json())
    return found


def test_round_trip(path):
    report = Report.read(path)
    assert report == made_up()
    assert report.to_json() == path.read_text()
    assert report.reference.name == "reference"
    assert report.reference.find("latency", engine="torch").value == pytest.approx(0.225)
    assert report.reference.find("latency", engine="onnxruntime") is None


def test_columns_are_metrics_whatever_ran_them():
    assert [metric for metric, _ in made_up().columns()] == ["size", "latency"]


def without(key):
    return lambda data: {k: v for k, v in data.items() if k != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("schema"), "has the schema `None`"),
        (lambda d: d | {"schema": "bertshrink.report/1"}, r"has the schema `bertshrink.report/1`; this version reads"),
        (without("name"), "damaged at `name`"),
        (lambda d: d | {"surprise": 1}, "damaged at `surprise`"),
        (lambda d: d | {"snapshots": [{"name": 3}]}, r"damaged at `snapshots\.0\.name`"),
        (lambda d: [d], "has the schema `None`"),
    ],
)
def test_damaged_or_of_another_version(path, change, message):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(BaselineError, match=message) as caught:
        Report.read(path)
    assert caught.value.where == str(path)
    assert caught.value.hint


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_not_finite_is_refused(path, number):
    path.write_text(path.read_text().replace("10.0", number))
    with pytest.raises(BaselineError):
        Report.read(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(BaselineError, match="this is not a report"):
        Report.read(path)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="there is no report"):
        Report.read(tmp_path / "none.json")
    with pytest.raises(BaselineError):
        Report.read(tmp_path)


def test_nan_is_never_written():
    report = made_up()
    report.snapshots[1].history.append({"step": 2, "loss": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.to_json()


def test_the_form_is_stable():
    assert json.loads(made_up().to_json())["schema"] == SCHEMA == "bertshrink.report/2"
