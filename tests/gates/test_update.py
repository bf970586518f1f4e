"""What `gate` writes: the next lock, of all artifacts or one; accepted steps; first limits, added to others."""

import json
import os
import tomllib
from pathlib import Path

import pytest

from bertshrink.cli.app import run
from bertshrink.errors import UserError
from bertshrink.gates.baseline.lock import Accepted
from bertshrink.gates.figures.figure import Reading
from bertshrink.gates.judge import Verdict, judge
from bertshrink.gates.limits.first_limits import with_artifact
from bertshrink.gates.limits.metric_key import MetricKey
from bertshrink.report.correctness_bits import Outcomes
from tests.gates.test_judge import rule
from tests.gates.test_merge_base import POINTER
from tests.support.gate_fixtures import (
    LIMITS,
    accuracy,
    artifact,
    commit,
    git,
    instructions,
    outcomes,
    read_here,
    report,
)

pytestmark = pytest.mark.subprocess

SEVERAL = """# two of them
[gate]
size = "<= 200 kB"
size_growth = "<= 0.5%"  # each
[gate.artifacts.classifier]
path = "dist/model.onnx"
[gate.artifacts.tagger]
path = "dist/tagger.onnx"
"""


@pytest.fixture(scope="module", autouse=True)
def in_process():
    with read_here():
        yield


@pytest.fixture
def repo(tmp_path, monkeypatch):
    """Two artifacts on main, and a branch for a change."""
    monkeypatch.chdir(tmp_path)
    artifact(tmp_path / "dist/model.onnx")
    artifact(tmp_path / "dist/tagger.onnx", num_layers=2)
    (tmp_path / "bertshrink.toml").write_text(SEVERAL)
    git(tmp_path, "init", "-q")
    assert run(["gate", "--update"]) == 0
    commit(tmp_path)
    git(tmp_path, "checkout", "-q", "-b", "change")
    return tmp_path


def lock(repo):
    return json.loads((repo / "bertshrink.lock.json").read_text())["artifacts"]


def statuses(capsys, *argv):
    capsys.readouterr()
    code = run(["gate", "--json", *argv])
    printed = capsys.readouterr()
    data = json.loads(printed.out) if printed.out else {"artifacts": []}
    return code, {(one["name"], r["rule"]): r["status"] for one in data["artifacts"] for r in one["rules"]}, printed.err


# One of several


def test_one_artifact_is_judged_alone(repo, capsys):
    artifact(repo / "dist/tagger.onnx", num_layers=4)
    assert statuses(capsys)[0] == 1
    code, found, _ = statuses(capsys, "classifier")
    assert (code, set(found)) == (0, {("classifier", "size"), ("classifier", "size_growth")})
    assert statuses(capsys, "dist/tagger.onnx")[0] == 1, "by its path, too"
    code, _, told = statuses(capsys, "taggr")
    assert (code, "did you mean `tagger`?" in told) == (2, True)
    (repo / "dist/tagger.onnx").unlink()
    assert statuses(capsys, "classifier")[0] == 0, "the other one need not be there"


def test_one_artifact_is_updated_alone(repo, capsys):
    """The other's lines stay as they are, byte for byte, though its file has changed too."""
    before = (repo / "bertshrink.lock.json").read_text()
    artifact(repo / "dist/model.onnx", num_layers=1)
    artifact(repo / "dist/tagger.onnx", num_layers=1)
    assert run(["gate", "--update", "tagger"]) == 0
    after = (repo / "bertshrink.lock.json").read_text()
    assert before.partition('"tagger"')[0] == after.partition('"tagger"')[0]
    assert before != after
    assert "classifier" not in capsys.readouterr().out


def test_a_shared_lock_keeps_what_another_configuration_names(repo):
    (repo / "other.toml").write_text('[gate]\nartifact = "dist/other.onnx"\nsize_growth = "<= 1%"\nsize = "<= 1 MB"\n')
    artifact(repo / "dist/other.onnx", num_layers=1)
    assert run(["gate", "--config", "other.toml", "--update"]) == 0
    assert set(lock(repo)) == {"classifier", "tagger", "dist/other.onnx"}
    assert run(["gate", "--update"]) == 0
    assert set(lock(repo)) == {"classifier", "tagger", "dist/other.onnx"}


def test_a_rename_of_one_takes_its_old_entry_along(repo, capsys):
    text = SEVERAL.replace("[gate.artifacts.tagger]", '[gate.artifacts.ner]\nrenamed_from = "tagger"')
    (repo / "bertshrink.toml").write_text(text)
    assert statuses(capsys)[0] == 4, "its entry has the old name still"
    assert run(["gate", "--update", "ner"]) == 0
    assert set(lock(repo)) == {"classifier", "ner"}
    assert lock(repo)["ner"]["renamed_from"] == "tagger"
    assert statuses(capsys)[0] == 0
    commit(repo)
    git(repo, "branch", "-f", "main", "HEAD")
    (repo / "bertshrink.toml").write_text(text.replace('renamed_from = "tagger"\n', ""))
    assert statuses(capsys)[0] == 0, "once merged, the line can go"
    assert run(["gate", "--update"]) == 0
    assert lock(repo)["ner"]["renamed_from"] == "tagger", "for anchors that are older"


def test_jobs_of_a_matrix_keep_comments_of_their_own(repo):
    """One of several artifacts each, the same file in another folder, or what a job is called."""
    marks = set()
    for argv in (["classifier"], ["tagger"], [], ["--id", "arm64"], ["--id", ""]):
        assert run(["gate", *argv, "--comment-file", "gate.md"]) == 0
        marks.add((repo / "gate.md").read_text().splitlines()[0])
    names = ("bertshrink.toml classifier", "bertshrink.toml tagger", "bertshrink.toml", "arm64")
    assert marks == {*(f"<!-- bertshrink:gate {name} -->" for name in names), "<!-- bertshrink:gate -->"}


def test_the_limit_that_is_asked_for_of_what_is_new_holds_it(repo, capsys):
    """The hint can be copied: a limit near today's figure, which today's figure holds."""
    artifact(repo / "dist/third.onnx", num_layers=5)
    text = '[gate.artifacts.third]\npath = "dist/third.onnx"\nsize_growth = "<= 1%"\n'
    (repo / "bertshrink.toml").write_text(SEVERAL.replace('size = "<= 200 kB"\n', "") + text)
    assert run(["gate", "--update", "third"]) == 0
    capsys.readouterr()
    assert run(["gate", "--json", "third"]) == 4
    data = json.loads(capsys.readouterr().out)
    line = data["artifacts"][0]["rules"][0]["hint"].partition("today: ")[2]
    (repo / "bertshrink.toml").write_text((repo / "bertshrink.toml").read_text() + line + "\n")
    assert statuses(capsys, "third")[0] == 0


# What is accepted


def test_new_operations_are_accepted_and_no_others(repo, capsys):
    (repo / "bertshrink.toml").write_text(SEVERAL.replace("0.5%", "300%") + 'new_operators = "<= 0"\n')
    artifact(repo / "dist/tagger.onnx", num_layers=2, float_layers=(0,))
    assert statuses(capsys)[0] == 1
    assert run(["gate", "--update", "tagger", "--accept", "a point better"]) == 0
    step = lock(repo)["tagger"]["accepted"]["new_operators"]
    assert step == {"before": 1, "now": 1, "why": "a point better", "operators": ["MatMul"]}
    code, found, _ = statuses(capsys)
    assert (code, found["tagger", "new_operators"]) == (0, "pass")
    commit(repo)
    git(repo, "branch", "-f", "main", "HEAD")
    artifact(repo / "dist/tagger.onnx", num_layers=2)
    assert run(["gate", "--update"]) == 0
    assert "accepted" not in lock(repo)["tagger"], "a step that has been made is none any more"


def test_an_engines_update_is_accepted(repo, capsys):
    limit = 'report = "report.json"\n"arm64:a76 instructions" = "<= 26 M"\n"arm64:a76 instructions growth" = "<= 1%"\n'
    (repo / "bertshrink.toml").write_text(SEVERAL + limit)
    file = repo / "dist/tagger.onnx"
    report(repo / "report.json", file, instructions(24e6))
    assert run(["gate", "--update"]) == 0
    commit(repo)
    git(repo, "branch", "-f", "main", "HEAD")
    report(repo / "report.json", file, instructions(25e6), version="1.25.0")
    code, found, _ = statuses(capsys)
    assert (code, found["tagger", "arm64:a76 instructions 1x16 growth"]) == (4, "fail")
    assert run(["gate", "--update"]) == 0
    assert statuses(capsys)[0] == 4, "the lock of the change does not judge it"
    assert run(["gate", "--update", "--accept", "onnxruntime 1.25"]) == 0
    assert statuses(capsys)[0] == 0
    report(repo / "report.json", file, instructions(25.5e6), version="1.25.0")
    assert statuses(capsys)[0] == 4, "only that step"


@pytest.mark.parametrize(
    ("limit", "wrong", "verdict"),
    [
        ("<= 1%", 9, Verdict.PASS),
        ("<= 1%", 10, Verdict.INCONCLUSIVE),
        ("<= 1%", 60, Verdict.FAIL),
        ("<= 2%", 17, Verdict.PASS),
        ("<= 0%", 30, Verdict.FAIL),
    ],
)
def test_a_drop_is_a_share_of_what_it_was(limit, wrong, verdict):
    """Of 1,000 answers 900 were right: 1 % of that are 9 answers, where a point would be 10."""

    def answers(num_right):
        kept = Outcomes.of([i < num_right for i in range(1000)])
        return Reading(value=num_right / 1000, unit="fraction", questions="q", outcomes=kept)

    found = judge(MetricKey("accuracy", "drop"), rule("accuracy_drop", limit), answers(900 - wrong), answers(900))
    assert found.verdict is verdict
    assert found.judged == pytest.approx(wrong / 900)


def test_a_drop_of_a_plain_figure_is_a_share_too():
    before, asked = Reading(value=0.8, unit="", questions="q"), rule("spearman_drop", "<= 1%")
    found = [judge(asked.key, asked, Reading(value=v, unit="", questions="q"), before) for v in (0.793, 0.791)]
    assert [one.verdict for one in found] == [Verdict.PASS, Verdict.FAIL]
    assert "-1.13%" in found[1].text
    step = Accepted(before=0.8, now=0.79, why="smaller")
    assert judge(asked.key, asked, Reading(value=0.791, unit="", questions="q"), before, step).accepted == "smaller"


# First limits


def test_an_artifact_is_added_to_others(repo, capsys):
    artifact(repo / "dist/third.onnx", num_layers=1)
    report(repo / "third.json", repo / "dist/third.onnx", accuracy(outcomes(range(72))))
    before = (repo / "bertshrink.lock.json").read_text()
    (repo / "inner").mkdir()
    os.chdir("inner")
    assert run(["gate", "--init", "../dist/third.onnx", "--report", "../third.json"]) == 0
    os.chdir("..")
    text = (repo / "bertshrink.toml").read_text()
    assert text.startswith(SEVERAL), "not a byte of what was there has changed"
    added = tomllib.loads(text)["gate"]["artifacts"]["dist/third.onnx"]
    assert (added["path"], added["report"], added["accuracy_drop"]) == ("dist/third.onnx", "third.json", "<= 0.5 pt")
    after = iter((repo / "bertshrink.lock.json").read_text().splitlines())
    assert all(line in after for line in before.splitlines()), "nor a line of the lock: some are between them"
    commit(repo)
    code, found, _ = statuses(capsys)
    assert code == 0
    assert {status for (name, _), status in found.items() if name == "dist/third.onnx"} == {"pass", "new"}
    assert found["dist/third.onnx", "accuracy_drop"] == "new"
    assert statuses(capsys, "--init", "dist/third.onnx")[0] == 2, "it has limits already"


def test_one_artifact_and_its_limits_become_the_first_of_several(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    artifact(tmp_path / "dist/model.onnx")
    artifact(tmp_path / "dist/other.onnx", num_layers=6, float_layers=(0,))
    text = "[build-system]\nrequires = []  # none\n\n" + LIMITS.replace('"<= 0.5%"', '"<= 0.5%"  # a step')
    text += '# slow drift\n[tool.bertshrink.gate.anchor]\nref = "v1"\nsize_growth = "<= 3%"\n'
    (tmp_path / "pyproject.toml").write_text(text)
    git(tmp_path, "init", "-q")
    assert run(["gate", "--update"]) == 0
    commit(tmp_path)
    git(tmp_path, "tag", "v1")
    assert run(["gate", "--init", "dist/other.onnx"]) == 0
    after = (tmp_path / "pyproject.toml").read_text()
    for line in text.splitlines():
        assert line.replace("artifact =", "path =") in after.splitlines() or line == "[tool.bertshrink.gate]"
    found = tomllib.loads(after)["tool"]["bertshrink"]["gate"]["artifacts"]
    old = tomllib.loads(text)["tool"]["bertshrink"]["gate"]
    assert found["dist/model.onnx"] == {"path": old.pop("artifact")} | {k: v for k, v in old.items() if k != "anchor"}
    commit(tmp_path)
    code, verdicts, told = statuses(capsys)
    assert code == 0, (verdicts, told)
    assert verdicts["dist/model.onnx", "operator:MatMul"] == "pass", "its own rules do not hold for the new one"
    assert ("dist/other.onnx", "operator:MatMul") not in verdicts
    assert verdicts["dist/other.onnx", "size_growth"] == "pass", "the branch itself: judged by its last commit"


@pytest.mark.parametrize(
    "text",
    [
        'gate = { artifact = "m", size = "<= 1 MB" }\n',
        '[gate]\nartifact = "m"\nsize = "<= 1 MB"\n[x]\n[gate.anchor]\nref = "v"\n',
        '[gate]\nartifacts = { m = { path = "m", size = "<= 1 MB" } }\n',
    ],
)
def test_limits_that_take_no_other_beside_them_are_left_alone(text):
    readings = {MetricKey("size"): Reading(value=1000, unit="B")}
    try:
        found = with_artifact(text, "bertshrink.toml", Path("n"), None, readings, "bertshrink.toml")
    except UserError as error:
        assert "as tables" in error.hint
    else:
        assert set(tomllib.loads(found)["gate"]["artifacts"]) == {"m", "n"}


# Git LFS


@pytest.mark.parametrize("path", ["dist/model.onnx", "report.json", "bertshrink.lock.json", "dist/folder/model.onnx"])
def test_a_pointer_of_git_lfs_is_named(repo, capsys, path):
    limits = SEVERAL.replace("[gate]", '[gate]\nreport = "report.json"') + 'accuracy = ">= 0.1"\n'
    if "folder" in path:
        artifact(repo / path)
        limits = limits.replace("dist/model.onnx", "dist/folder")
    (repo / "bertshrink.toml").write_text(limits)
    report(repo / "report.json", repo / "dist/tagger.onnx", accuracy(outcomes()))
    (repo / path).write_text(POINTER)
    code, _, told = statuses(capsys)
    assert (code, "git LFS pointer" in told, "git lfs pull" in told) == (5 if "onnx" in path else 4, True, True)
