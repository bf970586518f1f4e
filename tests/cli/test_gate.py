"""A pull request, end to end with the real command: what passes, what fails and why, and what is never a pass."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bertshrink
from bertshrink.cli.app import run
from tests.support.gate_fixtures import (
    LIMITS,
    NUM_TEXTS,
    accuracy,
    artifact,
    commit,
    git,
    instructions,
    memory,
    outcomes,
    read_here,
    report,
)

pytestmark = [pytest.mark.subprocess, pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")]
THREE_PARTS = re.compile(r"(error: .+\n  --> .+\nhint: .+\n)+")


@pytest.fixture(scope="module", autouse=True)
def in_process():
    with read_here():
        yield


@pytest.fixture(scope="module")
def made(in_process, tmp_path_factory):
    """A repository whose main has an artifact, limits and their lock."""
    folder = tmp_path_factory.mktemp("team")
    file = artifact(folder / "dist" / "model.onnx")
    (folder / "pyproject.toml").write_text(LIMITS)
    git(folder, "init", "-q")
    here = Path.cwd()
    os.chdir(folder)
    assert run(["gate", "--update"]) == 0
    os.chdir(here)
    (folder / "sizes.txt").write_text(str(file.stat().st_size))
    commit(folder)
    return folder


@pytest.fixture
def repo(made, tmp_path, monkeypatch):
    """A copy of it, on a branch."""
    folder = shutil.copytree(made, tmp_path / "repo")
    git(folder, "checkout", "-q", "-b", "change")
    monkeypatch.chdir(folder)
    return folder


def gate(capsys, *argv):
    """Run the command; returns (exit code, findings by name, what it printed on stderr)."""
    capsys.readouterr()
    code = run(["gate", "--json", *map(str, argv)])
    printed = capsys.readouterr()
    assert "this is a bug" not in printed.err, printed.err
    data = json.loads(printed.out) if printed.out else {"artifacts": [{"rules": [], "grown": []}], "notes": []}
    rules = {rule["rule"]: rule for one in data["artifacts"] for rule in one["rules"]}
    return code, rules, data, printed.err


def test_nothing_changed_passes(repo, capsys):
    code, rules, data, _ = gate(capsys)
    assert code == 0
    assert {rule["verdict"] for rule in rules.values()} == {"pass"}
    assert data["baseline"].startswith("bertshrink.lock.json of main")


def test_the_real_program_answers_without_an_engine(repo):
    environ = os.environ | {"PYTHONPATH": str(Path(bertshrink.__file__).parent.parent)}
    heavy = ("torch", "transformers", "onnxruntime", "datasets")
    code = "import sys\nfrom bertshrink.cli.app import run\ncode = run(['gate'])\n"
    code += f"print('HEAVY', [m for m in {heavy!r} if m in sys.modules], code)"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert "HEAVY [] 0" in done.stdout, done.stdout + done.stderr
    assert "every rule holds" in done.stdout


def test_one_more_layer_fails_and_is_named(repo, capsys):
    artifact(repo / "dist/model.onnx", num_layers=4)
    code, rules, data, _ = gate(capsys)
    assert code == 1
    assert rules["size_growth"]["cause"] == "limit"
    grown = {one["name"]: one for one in data["artifacts"][0]["grown"]}
    assert grown["encoder.layer.3"] == {"kind": "layer", "name": "encoder.layer.3", "delta": 9216, "text": "new"}
    assert grown["MatMulInteger"]["text"] == "6 to 8"
    assert not any("layer.2" in name for name in grown)
    assert run(["gate"]) == 1
    told = capsys.readouterr().out
    assert "layer encoder.layer.3" in told
    assert "pyproject.toml:4:1" in told
    assert "--accept" in told


def test_int8_lost_on_one_matmul_fails_and_is_named(repo, capsys):
    artifact(repo / "dist/model.onnx", float_layers=(1,))
    code, rules, data, _ = gate(capsys)
    assert code == 1
    assert rules["operator:MatMul"]["now"] == 1
    assert rules["new_operators"]["text"].endswith("`MatMul`")
    tensors = [one for one in data["artifacts"][0]["grown"] if one["kind"] == "tensor"]
    assert [(one["name"], one["text"]) for one in tensors] == [
        ("encoder.layer.1.output.dense.weight", "INT8 96x48 to FLOAT 96x48")
    ]


def test_a_layer_renamed_is_no_growth(repo, capsys):
    import onnx

    model = onnx.load("dist/model.onnx")
    for value in model.graph.initializer:
        old, value.name = value.name, value.name.replace("encoder", "body")
        for node in model.graph.node:
            node.input[:] = [value.name if name == old else name for name in node.input]
    onnx.save(model, "dist/model.onnx")
    code, _, data, _ = gate(capsys)
    assert (code, data["artifacts"][0]["grown"]) == (0, [])


# Quality


@pytest.fixture
def judged(repo, capsys):
    """The repository with a limit on accuracy, whose baseline has 800 of 872 answers right."""
    text = LIMITS + 'accuracy = ">= 0.85"\naccuracy_drop = "<= 0.1 pt"\nreport = "run/report.json"\n'
    (repo / "pyproject.toml").write_text(text)
    report(repo / "run/report.json", repo / "dist/model.onnx", accuracy(outcomes(range(72))))
    assert run(["gate", "--update"]) == 0
    commit(repo)
    git(repo, "branch", "-f", "main", "HEAD")
    return repo


def drop_by(repo, wrong):
    artifact(repo / "dist/model.onnx", seed=1)
    report(repo / "run/report.json", repo / "dist/model.onnx", accuracy(outcomes(wrong)))


def test_three_answers_fewer_prove_nothing(judged, capsys):
    drop_by(judged, range(75))
    code, rules, _, _ = gate(capsys)
    found = rules["accuracy_drop"]
    assert (code, found["verdict"]) == (0, "inconclusive")
    assert "3 answers lost, 0 won, of 872; paired test p = " in found["text"]
    assert rules["accuracy"]["verdict"] == "pass"
    assert gate(capsys, "--strict")[0] == 1


def test_within_the_limit_passes(judged, capsys):
    (judged / "pyproject.toml").write_text((judged / "pyproject.toml").read_text().replace("0.1 pt", "0.5 pt"))
    drop_by(judged, range(75))
    code, rules, _, _ = gate(capsys, "--strict")
    assert (code, rules["accuracy_drop"]["verdict"]) == (0, "pass")


def test_thirty_answers_fewer_fail(judged, capsys):
    drop_by(judged, range(102))
    code, rules, _, _ = gate(capsys)
    assert (code, rules["accuracy_drop"]["verdict"], rules["accuracy_drop"]["cause"]) == (1, "fail", "limit")


def test_answers_that_change_places_are_no_drop(judged, capsys):
    drop_by(judged, range(36, 108))
    code, rules, _, _ = gate(capsys, "--strict")
    assert (code, rules["accuracy_drop"]["verdict"]) == (0, "pass")
    assert "36 answers lost, 36 won" in rules["accuracy_drop"]["text"]


def test_other_texts_are_not_compared(judged, capsys):
    changed = accuracy(outcomes(range(72)), questions="f" * 16)
    report(judged / "run/report.json", judged / "dist/model.onnx", changed)
    code, rules, _, _ = gate(capsys)
    assert (code, rules["accuracy_drop"]["cause"]) == (4, "baseline")
    assert rules["accuracy"]["verdict"] == "pass"


def test_a_report_of_another_file_says_nothing(judged, capsys):
    artifact(judged / "dist/model.onnx", seed=1)
    code, rules, _, _ = gate(capsys)
    assert (code, rules["accuracy_drop"]["cause"]) == (3, "measurement")
    assert "does not cover this file" in rules["accuracy_drop"]["text"]


def test_a_rule_without_its_report_is_no_pass(judged, capsys):
    (judged / "pyproject.toml").write_text(LIMITS + 'accuracy = ">= 0.85"\n')
    code, rules, _, _ = gate(capsys)
    assert (code, rules["accuracy"]["cause"]) == (3, "measurement")
    assert "with the tokenizer beside the file" in rules["accuracy"]["hint"]
    code, rules, data, _ = gate(capsys, "--files-only")
    assert (code, data["skipped"], "accuracy" in rules) == (0, 1, False)


def test_a_figure_that_is_none_is_no_pass(judged, capsys):
    file = judged / "run/report.json"
    file.write_text(re.sub(r'"samples": \[\s*\[\s*0\.\d+', '"samples": [[NaN', file.read_text()))
    assert "NaN" in file.read_text()
    code, _, _, told = gate(capsys)
    assert code == 4
    assert THREE_PARTS.fullmatch(told)


# The lock


def edit(repo, change):
    file = repo / "bertshrink.lock.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def test_a_lock_edited_in_the_same_change_does_not_count(repo, capsys):
    artifact(repo / "dist/model.onnx", num_layers=4)
    assert run(["gate", "--update"]) == 0
    assert "size " in capsys.readouterr().out
    commit(repo)
    code, rules, data, _ = gate(capsys)
    assert (code, rules["size_growth"]["verdict"]) == (1, "fail")
    assert "is edited in this change" in data["notes"][0]
    git(repo, "branch", "-f", "main", "HEAD")
    assert gate(capsys)[0] == 0, "once merged it is the baseline"


def test_limits_edited_in_the_same_change_are_told(repo, capsys):
    assert gate(capsys)[2]["notes"] == []
    (repo / "pyproject.toml").write_text("# a comment\n" + LIMITS)
    assert gate(capsys)[2]["notes"] == []
    (repo / "pyproject.toml").write_text(LIMITS.replace("0.5%", "50%"))
    code, _, data, _ = gate(capsys)
    told = "the limits in `pyproject.toml` are edited in this change: `size_growth` <= 0.5% to <= 50%"
    assert (code, data["notes"]) == (0, [told])


def test_a_step_that_was_accepted_passes_once(repo, capsys):
    artifact(repo / "dist/model.onnx", num_layers=4)
    assert run(["gate", "--update", "--accept", "one more layer for recall"]) == 0
    commit(repo)
    code, rules, _, _ = gate(capsys)
    assert rules["size_growth"]["accepted"] == "one more layer for recall"
    assert code == 0
    artifact(repo / "dist/model.onnx", num_layers=5)
    assert gate(capsys)[0] == 1, "only that step was accepted"


def test_what_holds_cannot_be_accepted(repo, capsys):
    assert run(["gate", "--update", "--accept", "because"]) == 2
    assert "nothing to accept" in capsys.readouterr().err


def test_no_lock_is_no_pass(repo, capsys):
    (repo / "bertshrink.lock.json").unlink()
    code, _, _, told = gate(capsys)
    assert code == 4
    assert "removed in this change" in told
    shutil.rmtree(repo / ".git")
    code, rules, _, _ = gate(capsys)
    assert (code, rules["size_growth"]["cause"]) == (4, "baseline")
    assert rules["size"]["verdict"] == "pass"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "\udcff",
        '{"schema": "bertshrink.lock/9"}',
        '{"schema": "bertshrink.lock/1", "artifacts": {"dist/model.onnx": {}}}',
        '{"schema": "bertshrink.lock/1", "schema": "bertshrink.lock/1"}',
        "<<<<<<< HEAD\n{}\n=======\n{}\n>>>>>>> main\n",
    ],
)
def test_a_damaged_lock_is_no_pass(repo, capsys, text):
    (repo / "bertshrink.lock.json").write_bytes(text.encode("utf-8", errors="surrogateescape"))
    code, _, _, told = gate(capsys)
    assert code == 4
    assert THREE_PARTS.fullmatch(told), told
    assert "lock" in told


@pytest.mark.parametrize("value", ["NaN", "Infinity", '"1"', "null"])
def test_a_figure_of_the_lock_that_is_none_is_no_pass(repo, capsys, value):
    file = repo / "bertshrink.lock.json"
    file.write_text(re.sub(r'("size": .*"value": )\d+', rf"\g<1>{value}", file.read_text()))
    assert gate(capsys)[0] == 4


def as_main(repo):
    commit(repo)
    git(repo, "branch", "-f", "main", "HEAD")


def test_a_baseline_of_zero_is_no_pass(repo, capsys):
    edit(repo, lambda data: data["artifacts"]["dist/model.onnx"]["metrics"]["size"].update(value=0))
    as_main(repo)
    code, rules, _, _ = gate(capsys)
    assert (code, rules["size_growth"]["cause"]) == (4, "baseline")


def test_changed_units_are_no_pass(repo, capsys):
    edit(repo, lambda data: data["artifacts"]["dist/model.onnx"]["metrics"]["size"].update(unit="kB"))
    as_main(repo)
    code, rules, _, _ = gate(capsys)
    assert (code, rules["size_growth"]["cause"]) == (4, "baseline")


def test_a_figure_that_the_baseline_lacks_is_no_pass(repo, capsys):
    edit(repo, lambda data: data["artifacts"]["dist/model.onnx"]["metrics"].pop("size"))
    as_main(repo)
    code, rules, _, _ = gate(capsys)
    assert (code, rules["size_growth"]["cause"]) == (4, "baseline")


def test_a_renamed_artifact_is_no_pass(repo, capsys):
    (repo / "dist/model.onnx").rename(repo / "dist/other.onnx")
    code, _, _, told = gate(capsys)
    assert (code, "there is no artifact" in told) == (2, True)
    (repo / "pyproject.toml").write_text(LIMITS.replace("model.onnx", "other.onnx"))
    code, rules, data, _ = gate(capsys)
    assert code == 1
    assert "`dist/other.onnx` has the same bytes" in rules["artifact"]["text"]
    assert data["artifacts"][-1]["name"] == "dist/model.onnx"


def test_a_damaged_artifact_is_refused(repo, capsys):
    data = Path("dist/model.onnx").read_bytes()
    Path("dist/model.onnx").write_bytes(data[: len(data) // 2])
    assert gate(capsys)[0] == 5


# Where the baseline comes from


def test_an_unknown_base_is_no_pass(repo, capsys, monkeypatch):
    assert gate(capsys, "--base", "nowhere")[0] == 4
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    code, _, _, told = gate(capsys)
    assert (code, "fetch-depth: 0" in told) == (4, True)
    git(repo, "update-ref", "refs/remotes/origin/main", "main")
    assert gate(capsys)[0] == 0


def test_the_merge_base_counts_and_not_the_tip(repo, capsys):
    """Main has moved on to a larger model; the change is judged against where it left main."""
    git(repo, "checkout", "-q", "main")
    artifact(repo / "dist/model.onnx", num_layers=5)
    assert run(["gate", "--update"]) == 0
    commit(repo)
    git(repo, "checkout", "-q", "change")
    assert gate(capsys)[0] == 0
    artifact(repo / "dist/model.onnx", num_layers=4)
    assert gate(capsys)[0] == 1


def test_an_anchor_stops_slow_drift(repo, capsys):
    """Each step is allowed, their sum is not."""
    limits = '[tool.bertshrink.gate]\nartifact = "dist/model.onnx"\nsize_growth = "<= 40%"\n'
    limits += '[tool.bertshrink.gate.anchor]\nref = "v1"\nsize_growth = "<= 50%"\n'
    (repo / "pyproject.toml").write_text(limits)
    git(repo, "tag", "v1")
    codes = []
    for num_layers in (4, 5):
        artifact(repo / "dist/model.onnx", num_layers=num_layers)
        codes.append(gate(capsys)[0])
        assert run(["gate", "--update"]) == 0
        as_main(repo)
    assert codes == [0, 1]
    (repo / "pyproject.toml").write_text(limits.replace("v1", "v2"))
    assert gate(capsys)[0] == 4


def test_a_lock_that_is_new_makes_all_of_it_new_and_says_so(repo, capsys):
    git(repo, "checkout", "-q", "main")
    git(repo, "rm", "-q", "--cached", "bertshrink.lock.json")
    git(repo, "commit", "-q", "-m", "no lock")
    git(repo, "branch", "-f", "change", "HEAD")
    code, rules, data, _ = gate(capsys)
    assert code == 0
    assert "not in main" in data["notes"][0]
    assert (rules["size_growth"]["verdict"], rules["new_operators"]["verdict"]) == ("new", "new")


# Instructions and memory


def with_report(repo, rule, *measurements, **more):
    (repo / "pyproject.toml").write_text(f'{LIMITS}report = "run/report.json"\n{rule}\n')
    report(repo / "run/report.json", repo / "dist/model.onnx", *measurements, **more)


def test_instructions_are_hard_and_bound_to_their_engine(repo, capsys):
    rule = '"arm64:a76 instructions" = "<= 26 M"\n"arm64:a76 instructions growth" = "<= 1%"'
    with_report(repo, rule, instructions(24_196_634))
    assert run(["gate", "--update"]) == 0
    as_main(repo)
    assert gate(capsys, "--strict")[0] == 0
    with_report(repo, rule, instructions(24_500_000))
    code, rules, _, _ = gate(capsys)
    assert (code, rules["arm64:a76 instructions 1x16 growth"]["verdict"]) == (1, "fail")
    assert rules["arm64:a76 instructions 1x16"]["verdict"] == "pass"
    with_report(repo, rule, instructions(24_196_634), version="1.25.0")
    code, rules, _, _ = gate(capsys)
    assert (code, rules["arm64:a76 instructions 1x16 growth"]["cause"]) == (4, "baseline")
    with_report(repo, rule, instructions(24_196_634, environment="unknown"))
    code, rules, _, _ = gate(capsys)
    assert (code, rules["arm64:a76 instructions 1x16 growth"]["cause"]) == (3, "measurement"), "of no known version"
    with_report(repo, rule, instructions(24_196_634, unit="s"))
    assert gate(capsys)[0] == 3, "another unit"
    with_report(repo, rule, instructions(24_196_634, target="arm64:a53"))
    assert gate(capsys)[0] == 3, "another target"
    with_report(repo, rule, instructions(24_196_634, length=128))
    code, rules, _, _ = gate(capsys)
    assert (code, rules["arm64:a76 instructions 1x16 growth"]["cause"]) == (4, "measurement"), "it was there before"
    assert rules["arm64:a76 instructions 1x128 growth"]["cause"] == "baseline"


def test_memory_has_its_tolerance(repo, capsys):
    rule = 'memory_growth = "<= 5%"\nmemory = "<= 120 MB"'
    with_report(repo, rule, memory([100e6, 100.2e6, 99.8e6]))
    assert run(["gate", "--update"]) == 0
    as_main(repo)
    verdicts = []
    for megabytes, where in ((104, "here"), (106, "here"), (112, "here"), (112, "there")):
        peaks = [megabytes * 1e6 + delta for delta in (0, 2e5, -2e5)]
        with_report(repo, rule, memory(peaks, environment=where))
        verdicts.append(gate(capsys)[1]["memory_growth"]["verdict"])
    assert verdicts == ["pass", "inconclusive", "fail", "inconclusive"]
    with_report(repo, rule, memory([100e6, 100e6, 100e6]), version="1.25.0")
    assert gate(capsys)[0] == 4


def test_compressed_size_is_measured_where_it_is_limited(repo, capsys):
    (repo / "pyproject.toml").write_text(LIMITS + 'compressed_size = "<= 1 MB"\n')
    assert "compressed_size" not in (repo / "bertshrink.lock.json").read_text()
    code, rules, _, _ = gate(capsys)
    assert code == 0
    assert 0 < rules["compressed_size"]["now"] < int((repo / "sizes.txt").read_text())


# Update and init


def test_an_update_without_a_change_writes_nothing(repo, capsys):
    before = (repo / "bertshrink.lock.json").stat().st_mtime_ns
    assert run(["gate", "--update"]) == 0
    assert "nothing changes" in capsys.readouterr().out
    assert (repo / "bertshrink.lock.json").stat().st_mtime_ns == before


def test_an_update_is_the_same_everywhere(repo, capsys, monkeypatch, tmp_path):
    first = (repo / "bertshrink.lock.json").read_bytes()
    (repo / "bertshrink.lock.json").unlink()
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert run(["gate", "--update"]) == 0
    assert (repo / "bertshrink.lock.json").read_bytes() == first
    data = json.loads(first)
    assert first.decode().count("\n") > 10, "a figure to a line"
    assert list(data) == sorted(data)


def test_an_update_keeps_answers_only_of_the_same_bytes(judged, capsys):
    (judged / "pyproject.toml").write_text(LIMITS + 'accuracy_drop = "<= 0.5 pt"\n')
    assert run(["gate", "--update"]) == 0
    assert "accuracy" in (judged / "bertshrink.lock.json").read_text()
    artifact(judged / "dist/model.onnx", seed=2)
    assert run(["gate", "--update"]) == 2
    assert "there is no report" in capsys.readouterr().err


def test_the_lock_keeps_each_answer(judged):
    entry = json.loads((judged / "bertshrink.lock.json").read_text())["artifacts"]["dist/model.onnx"]
    kept = entry["metrics"]["accuracy"]
    assert kept["outcomes"]["num"] == NUM_TEXTS
    assert kept["questions"] == "0123456789abcdef"
    assert kept["value"] == (NUM_TEXTS - 72) / NUM_TEXTS


def test_first_limits_hold_today(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = artifact(tmp_path / "dist" / "model.onnx")
    report(tmp_path / "run.json", file, accuracy(outcomes(range(72))), memory([1e8, 1e8]), instructions(24e6))
    assert run(["gate", "--init", "dist/model.onnx", "--report", "run.json"]) == 0
    text = (tmp_path / "bertshrink.toml").read_text()
    assert 'accuracy_drop = "<= 0.5 pt"' in text
    code, rules, _, _ = gate(capsys, "--strict")
    assert code == 0
    assert {rule["verdict"] for rule in rules.values()} == {"pass"}
    assert run(["gate", "--init", "dist/model.onnx"]) == 2
    assert "has limits already" in capsys.readouterr().err


def test_no_limits_is_a_wrong_request(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    code, _, _, told = gate(capsys)
    assert (code, "gate --init" in told) == (2, True)


def test_several_artifacts_share_rules(repo, capsys):
    artifact(repo / "dist/tagger.onnx", num_layers=1)
    text = '[tool.bertshrink.gate]\nsize = "<= 200 kB"\nsize_growth = "<= 1%"\n'
    text += '[tool.bertshrink.gate.artifacts.classifier]\npath = "dist/model.onnx"\n'
    text += '[tool.bertshrink.gate.artifacts.tagger]\npath = "dist/tagger.onnx"\nsize = "<= 1 kB"\nseverity = "warn"\n'
    (repo / "pyproject.toml").write_text(text)
    assert run(["gate", "--update"]) == 0
    capsys.readouterr()
    git(repo, "checkout", "-q", "--orphan", "fresh")
    commit(repo)
    git(repo, "branch", "-D", "main")
    code, _, data, _ = gate(capsys)
    first, second = data["artifacts"]
    assert [rule["status"] for rule in first["rules"]] == ["pass", "pass"]
    assert {rule["rule"]: rule["status"] for rule in second["rules"]} == {"size": "warn", "size_growth": "pass"}
    assert code == 0


def test_a_time_that_was_not_measured_is_no_pass(repo, capsys):
    (repo / "pyproject.toml").write_text(LIMITS + '"cpu p50 ratio" = "<= 1.10"\n')
    code, rules, data, _ = gate(capsys)
    assert (code, data["skipped"], "cpu p50 ratio" in rules) == (0, 1, False)
    (repo / "pyproject.toml").write_text(LIMITS + '"cpu p50 ratio" = {limit = "<= 1.10", severity = "fail"}\n')
    assert gate(capsys)[0] == 3


def test_a_base_artifact_wants_a_rule_about_time(repo, capsys):
    assert gate(capsys, "--base-artifact", "dist/model.onnx")[0] == 2
