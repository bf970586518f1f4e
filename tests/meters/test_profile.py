"""Modelled ranges: the work in a file, the device files, the bounds, and the rates that are measured instead."""

import json
import re
from dataclasses import replace

import onnx
import pytest

from bertshrink.errors import MissingDependency, UserError
from bertshrink.meters import targets
from bertshrink.meters.latency.launch import launch_of
from bertshrink.meters.targets import TargetKind, TargetResult, open_target
from bertshrink.meters.targets.arm64.sysroot import VARIABLE
from bertshrink.meters.targets.profile import SCALED, bounds_s, calibrate, device, instructions
from bertshrink.meters.targets.profile.device import DeviceProfile, devices, read_device, to_toml, write_device
from bertshrink.meters.targets.profile.instructions import KERNELS, Work, work_of
from bertshrink.meters.targets.ssh import SshRunner
from bertshrink.meters.targets.ssh.address import Address
from bertshrink.model.artifact import Artifact
from bertshrink.progress import Silent
from bertshrink.report import bench_json
from bertshrink.report.measurement import Conditions, Environment, Evidence, Measurement, across, compare
from bertshrink.report.render import html, markdown, terminal
from bertshrink.report.report import Report, Snapshot
from bertshrink.worker.job import RunSpec
from tests.meters.test_latency import CARD, QUICK
from tests.meters.test_size import tiny_onnx
from tests.support.local_sshd import server
from tests.support.tiny import tiny_encoder


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "no emulated system"))
    return tmp_path / "config" / "bertshrink" / "devices"


@pytest.fixture
def made(tmp_path):
    return calibrate.made_model(tmp_path)


# The work in a file ---------------------------------------------------------------------------------------------------


def test_the_work_of_a_graph_is_that_of_its_matrices(made):
    layer = 4 * 384 * 384 + 2 * 384 * 1536
    found = work_of(made)
    assert found.weight_macs == 3 * layer
    assert found.attention_macs == 0
    assert found.weight_bytes == pytest.approx(4 * 3 * layer, rel=1e-3)  # the table is not read as a whole
    assert found.macs(2, 8) == 16 * 3 * layer


@pytest.mark.slow
def test_a_checkpoint_and_its_exported_graph_are_the_same_work(tmp_path, one_thread):
    from bertshrink.techniques import TECHNIQUES
    from bertshrink.techniques.base import Workbench

    encoder = tiny_encoder("bert", "embedding")
    encoder.save(tmp_path / "torch")
    (tmp_path / "work").mkdir()
    artifact = TECHNIQUES["export"]()(encoder, Workbench(None, None, tmp_path / "work"))
    (tmp_path / "onnx").mkdir()
    artifact.save(tmp_path / "onnx")
    torch = work_of(launch_of(encoder, tmp_path / "torch"))
    graph = work_of(launch_of(artifact, tmp_path / "onnx"))
    assert torch.weight_macs == graph.weight_macs
    assert torch.attention_macs == graph.attention_macs
    assert torch.macs(1, 16) * 2 == 16 * encoder.shape.flops_per_token(16)


def test_a_quantized_matrix_is_as_much_work(tmp_path):
    found = []
    for name in (False, True):
        onnx.save(tiny_onnx(int8=name), tmp_path / f"{name}.onnx")
        found.append(work_of(RunSpec("onnxruntime", tmp_path / f"{name}.onnx", {}, "x", 20, (), 64)))
    assert found[0].weight_macs == found[1].weight_macs > 0


def test_other_formats_do_not_say_what_they_compute(tmp_path):
    (tmp_path / "m.pte").write_bytes(b"x")
    with pytest.raises(UserError, match="does not contain a readable graph"):
        open_target("profile:pi5").check({"m": RunSpec("executorch", tmp_path / "m.pte", {}, "x", 20, (), 64)})


def test_instructions_lie_around_those_that_were_counted():
    minilm = Work(weight_macs=10_616_832, attention_macs=6 * 2 * 384, weight_bytes=0)
    assert minilm.macs(1, 16) == pytest.approx(171.0e6, rel=1e-3)
    counted = {  # million instructions of one inference (bench at 16 and 128 tokens)
        ("a53", "int8", 16): 50.28,
        ("a72", "int8", 16): 50.89,
        ("a76", "int8", 16): 24.20,
        ("armv8.6", "int8", 16): 18.10,
        ("a76", "int4", 16): 33.0,
        ("a53", "float32", 16): 60.16,
        ("a53", "int8", 128): 428.9,
        ("a76", "int8", 128): 220.2,
        ("armv8.6", "int8", 128): 171.5,
        ("a76", "float32", 128): 508.7,
    }
    for (isa, precision, length), millions in counted.items():
        low, high = minilm.instructions(isa, precision, 1, length)
        assert low < 1e6 * millions < high
        assert high / low < 2.3
    mixed = minilm.instructions("a76", "int4+int8", 1, 16)
    alone = [minilm.instructions("a76", kind, 1, 16) for kind in ("int4", "int8")]
    assert mixed == (min(low for low, _ in alone), max(high for _, high in alone))
    assert instructions.kinds("float16+float32") == ["float"]


# Devices --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(devices()))
def test_every_device_that_ships_can_be_read_and_names_its_sources(name):
    found = read_device(name)
    assert found.isa.value in KERNELS
    assert found.calibrated is None
    assert "ipc" in found.unverified  # nobody measured it yet
    for datum in (found.isa, found.cores, found.ghz, found.ipc, found.bandwidth_gbs, found.cache_mb):
        assert datum.verified or any(word in datum.source for word in ("assumed", "unconfirmed"))
    assert len(found.environment().id) == 12


def test_the_devices_that_were_promised_ship():
    assert {"pi4", "pi5", "rk3588", "pixel6", "pixel8", "snapdragon8gen2", "snapdragon8gen3"} <= set(devices())


@pytest.mark.subprocess
def test_a_file_of_the_users_own_takes_the_place(own):
    pi = read_device("pi5")
    changed = pi.model_copy(update={"name": 'Pi "5"\n', "ghz": pi.ghz.model_copy(update={"value": 2.8})})
    path = write_device("pi5", changed)
    assert path == own / "pi5.toml"
    assert read_device("pi5") == changed
    path.write_text(to_toml(changed).replace("2.8", "-1"))
    with pytest.raises(UserError, match="is wrong"):
        read_device("pi5")
    path.write_text("no toml")
    with pytest.raises(UserError, match="is wrong"):
        read_device("pi5")
    path.write_text(to_toml(pi).replace("[4.9, 9.4]", "[9.4, 4.9]"))
    with pytest.raises(UserError, match="lower bound comes first"):
        open_target("profile:pi5")
    with pytest.raises(UserError) as caught:
        open_target("profile:pi55")
    assert "`pi5`" in caught.value.hint


# The bounds -----------------------------------------------------------------------------------------------------------

BOARD = DeviceProfile.model_validate(
    {
        "name": "Board",
        **{
            key: {"value": value, "source": "made up"}
            for key, value in {
                "isa": "a76",
                "cores": 4,
                "ghz": 2.0,
                "ipc": (1.0, 2.0),
                "bandwidth_gbs": (5.0, 10.0),
                "cache_mb": 2.0,
            }.items()
        },
    }
)


def test_the_bounds_by_hand():
    assert bounds_s(BOARD, (4e9, 4e9), 0) == pytest.approx((1.0, 2.0))
    assert bounds_s(BOARD, (4e9, 4e9), 10_000_000_000) == pytest.approx((9.998 / 10, 4.0), rel=1e-3)
    assert bounds_s(BOARD, (2e9, 6e9), 0, threads=2) == pytest.approx((0.25, 3.0))
    assert bounds_s(BOARD, (4e9, 4e9), 0, threads=64)[0] == pytest.approx(0.25)
    assert bounds_s(BOARD, (1.0, 1.0), 2_000_000)[0] < 1e-9  # within the cache


@pytest.mark.subprocess
def test_a_profile_gives_ranges_and_says_what_they_are(made):
    target = open_target("profile:pi5")
    target.check({})
    found = target.measure({"m": made}, QUICK, Silent())
    assert [(m.metric, m.unit, m.evidence) for m in found.measurements["m"]] == [
        ("latency_range", "s", Evidence.MODELLED_RANGE)
    ] * 2
    one, two = found.measurements["m"]
    assert one.samples[0][0] < one.samples[0][1] < 1
    assert two.samples[0][1] > 1.5 * one.samples[0][1]
    assert one.conditions == Conditions(
        target="profile:pi5", engine="onnxruntime", precision="float32", threads=1, batch=1, length=8
    )
    (note,) = found.notes
    assert "nothing was measured on the device" in note
    assert "is not prepared" in note or "is not installed" in note
    assert "not verified: ipc" in note
    assert "modelled" in found.environment.cpu
    with pytest.raises(UserError, match="not texts"):
        target.measure({"m": made}, QUICK.model_copy(update={"texts": "t.txt"}), Silent())


class Counter:
    """In the place of `arm64:a76`."""

    name, evidence = "arm64:a76", Evidence.EMULATED_INSTRUCTIONS
    cases = ((1, 8), (2, 8))

    def check(self, launches):
        if not self.cases:
            raise MissingDependency("the root folder is not there")

    def measure(self, launches, settings, progress):
        found = [
            Measurement.single("instructions", "count", 1e9 * batch, conditions=Conditions(batch=batch, length=length))
            for batch, length in self.cases
        ]
        return TargetResult({name: found for name in launches}, Environment(id="q", cpu="a76"))


@pytest.mark.subprocess
def test_counted_instructions_are_taken_where_there_are_any(made, monkeypatch):
    monkeypatch.setitem(targets.TARGETS, "arm64", TargetKind("tests.meters.test_profile:counter", "a stand-in"))
    target = open_target("profile:pi5")
    found = target.measure({"m": made}, QUICK, Silent())
    low, high = found.measurements["m"][0].samples[0]
    assert (low, high) == pytest.approx(bounds_s(target.device, (1e9, 1e9), work_of(made).weight_bytes))
    assert "arm64 instructions counted for a76 cores" in found.notes[0]
    monkeypatch.setattr(Counter, "cases", ((1, 8),))
    found = target.measure({"m": made}, QUICK, Silent())
    low, high = found.measurements["m"][1].samples[0]
    twice = bounds_s(target.device, (2e9 / SCALED, 2e9 * SCALED), work_of(made).weight_bytes)
    assert (low, high) == pytest.approx(twice), "eight tokens twice are twice the work"
    assert "arm64 instructions counted" in found.notes[0]
    monkeypatch.setattr(Counter, "cases", ())
    assert "root folder is not there" in target.measure({"m": made}, QUICK, Silent()).notes[0]


def counter(text):
    assert text == "arm64:a76"
    return Counter()


# A range in a report --------------------------------------------------------------------------------------------------


def modelled(low, high, **more):
    return Measurement(
        metric="latency_range",
        unit="s",
        samples=((low, high),),
        better="lower",
        conditions=Conditions(target="profile:pi5", batch=1, length=8, engine="onnxruntime"),
        evidence=Evidence.MODELLED_RANGE,
        environment="p",
        **more,
    )


@pytest.mark.parametrize("samples", [((1.0,),), ((2.0, 1.0),), ((1.0, 2.0), (1.0, 2.0)), ((1.0, 2.0, 3.0),), ()])
def test_what_is_modelled_is_a_pair_of_bounds(samples):
    with pytest.raises(ValueError, match="bound"):
        Measurement(metric="x", unit="s", samples=samples, evidence=Evidence.MODELLED_RANGE)


def test_a_range_has_no_ratio_and_no_percentile():
    one, two = modelled(1e-3, 2e-3), modelled(4e-3, 8e-3)
    assert compare(one, two) is None
    assert across(one, two.model_copy(update={"environment": "q"})) is None
    assert one.percentile(50) is None
    assert (one.interval().low, one.interval().high) == (1e-3, 2e-3)


def test_no_renderer_shows_a_range_as_a_measured_time():
    snapshots = [
        Snapshot(name=name, label=name, role=role, kind="artifact", measurements=[modelled(low, 2 * low)])
        for name, role, low in (("a", "reference", 1.0e-3), ("b", "compared", 4.125e-3))
    ]
    report = Report(
        name="r", version="1", created="2026-01-01", command="c", model="m", task="embedding", snapshots=snapshots
    )
    texts = {"terminal": terminal.render(report), "markdown": markdown.render(report), "html": html.render(report)}
    for name, text in texts.items():
        plain = getattr(text, "plain", None) or "".join(str(part) for part in [text])
        if name == "terminal":
            from rich.console import Console

            console = Console(width=200)
            with console.capture() as capture:
                console.print(text)
            plain = capture.get()
        assert "4.12 to 8.25 ms" in plain, name
        assert "1.00 to 2.00 ms" in plain, name
        assert "Modelled latency" in plain, name
        assert "6.19" not in plain, "the middle of a range is not a figure"
        assert not re.search(r"± \d", plain), name
        assert "x faster" not in plain, name
    figure = json.loads(bench_json.to_json(report))["models"][1]["figures"][0]
    assert (figure["value"], figure["ci95"], figure["rounds"], figure["n"]) == (None, None, [], 0)
    assert figure["range"] == [4.125e-3, 8.25e-3]
    assert figure["ratio"] is None
    assert figure["percentiles"] is None


# Rates that were measured ---------------------------------------------------------------------------------------------


def latency(length, *rounds):
    samples = tuple((seconds,) for seconds in rounds)
    return Measurement(metric="latency", unit="s", samples=samples, conditions=Conditions(batch=1, length=length))


def test_ipc_by_hand():
    spans = {(1, 16): (1e9, 4e9), (1, 128): (8e9, 8e9)}
    found = calibrate.ipc_of(spans, [latency(16, 1.0, 0.5), latency(128, 2.0)], 2e9)
    assert found == pytest.approx((1.0 / 1.1, 2.0 * 1.1))


def test_a_calibrated_device_brackets_what_was_measured():
    how = device.Calibration(by="pi@x", when="2026-11-21T00:00:00", basis="operations", model="m", engine="o 1")
    minilm = Work(10_616_832, 6 * 2 * 384, 0)
    seconds = {16: 0.020, 128: 0.150}
    spans = {(1, n): minilm.instructions("a76", "float32", 1, n) for n in seconds}
    ipc = calibrate.ipc_of(spans, [latency(n, t) for n, t in seconds.items()], 2e9)
    rates = calibrate.Rates(ipc, 5e9, 2e9, True)
    found = calibrate.with_rates(BOARD, rates, how)
    assert found.bandwidth_gbs.value == (5.0, 10.0)
    assert found.calibrated == how
    for n, t in seconds.items():
        low, high = bounds_s(found, spans[1, n], 0)
        assert low < t < high
        assert high / low < 3
    assert found.ghz.source.startswith("the kernel")
    assert calibrate.with_rates(BOARD, replace(rates, is_told=False), how).ghz == BOARD.ghz


@pytest.mark.subprocess
def test_a_real_machine_is_measured_and_others_are_refused(tmp_path, own, monkeypatch):
    (tmp_path / "sshd").mkdir()
    (tmp_path / "m").mkdir()
    onnx.save(tiny_onnx(int8=False), tmp_path / "m" / "model.onnx")
    launch = launch_of(Artifact(tmp_path / "m", CARD.model_copy(update={"max_length": 128})), tmp_path / "m")
    monkeypatch.setattr(calibrate, "SETTINGS", QUICK.model_copy(update={"batch": (1,), "length": (16, 128)}))
    with server(tmp_path / "sshd") as board:
        monkeypatch.setenv("PATH", board.path)
        with SshRunner.connect(Address.read(board.address())) as there:
            with pytest.raises(UserError, match="is not a Board"):
                calibrate.calibrate(there, BOARD, launch, "m", Silent())
            there.link.about["machine"] = "aarch64"
            here = there.environment()
            there._environment = here.model_copy(update={"isa": ("asimddp",)})
            with pytest.raises(UserError, match="does not take 1x16"):
                calibrate.calibrate(there, BOARD, replace(launch, max_length=64), "m", Silent())
            found = calibrate.calibrate(there, BOARD, launch, "m", Silent())
        assert board.is_clean()
    assert found.calibrated.basis == "operations"
    assert found.calibrated.engine.startswith("onnxruntime 1.")
    assert 0.1 < found.bandwidth_gbs.value[0] < 1000
    assert 0 < found.ipc.value[0] < found.ipc.value[1]
    write_device("board", found)
    assert read_device("board") == found
    note = open_target("profile:board").measure({"m": launch}, QUICK, Silent()).notes[0]
    assert "its rates were measured on" in note
    assert "(its rates were measured that way)" in note


def test_the_model_that_is_made_runs(made):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(made.path), providers=["CPUExecutionProvider"])
    (hidden,) = session.run(None, {"input_ids": [[1, 2, 3]]})
    assert hidden.shape == (1, 3, 384)
    assert 0.1 < hidden.std() < 10


def test_only_machines_that_ssh_reaches_are_calibrated(capsys):
    from bertshrink.cli.app import run

    assert run(["targets", "calibrate", "cpu", "--profile", "pi5"]) == 2
    assert run(["targets", "calibrate", "ssh://x", "--profile", "pi55"]) == 2
    assert "write it as ssh://" in capsys.readouterr().err
