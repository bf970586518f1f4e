"""Pull requests, played in a repository of two models: those that a team wants pass, those that hide growth do not.

`docs/ci.md` shows the table of them; it is this one (`test_the_page_shows_this_table`).
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from bertshrink.cli.app import run
from tests.support.gate_fixtures import accuracy, artifact, commit, git, outcomes, read_here, report

pytestmark = [pytest.mark.subprocess, pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")]
PAGE = Path(__file__).parents[2] / "docs" / "ci.md"

LIMITS = """# what we ship
[gate.artifacts.classifier]
path = "dist/classifier.onnx"
size = "<= 100 kB"
size_growth = "<= 0.5%"   # a step at a time
new_operators = "<= 0"

[gate.artifacts.tagger]
path = "dist/tagger.onnx"
size = "<= 100 kB"
size_growth = "<= 0.5%"
"""
MODULE = "nlp"
"""The folder that holds all of it, so that it can be moved."""
GROWN = {"num_layers": 4}


@pytest.fixture(scope="module", autouse=True)
def in_process():
    with read_here():
        yield


@pytest.fixture(scope="module")
def made(in_process, tmp_path_factory):
    """What everybody starts from: main, as a remote has it."""
    root = tmp_path_factory.mktemp("team")
    folder = root / MODULE
    artifact(folder / "dist/classifier.onnx")
    artifact(folder / "dist/tagger.onnx", num_layers=2)
    (folder / "bertshrink.toml").write_text(LIMITS)
    git(root, "init", "-q")
    update(folder)
    commit(root, "main")
    git(root, "update-ref", "refs/remotes/origin/main", "main")
    git(root, "checkout", "-q", "-b", "change")
    return root


@pytest.fixture
def repo(made, tmp_path, monkeypatch):
    """A checkout of the change's branch, in CI, for a pull request into main."""
    root = shutil.copytree(made, tmp_path / "repo")
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    monkeypatch.chdir(root / MODULE)
    return root


def update(folder, *more):
    here = Path.cwd()
    os.chdir(folder)
    try:
        assert run(["gate", "--update", *more]) == 0
    finally:
        os.chdir(here)


def play(folder, *argv):
    """Judge in a folder as CI would; returns (exit code, the document, the statuses, what was told on stderr)."""
    here = Path.cwd()
    os.chdir(folder)
    try:
        code = run(["gate", "--json", *argv])
    finally:
        os.chdir(here)
    return code


def judged(capsys, folder, *argv):
    capsys.readouterr()
    code = play(folder, *argv)
    printed = capsys.readouterr()
    assert "this is a bug" not in printed.err, printed.err
    data = json.loads(printed.out) if printed.out else {"artifacts": [], "notes": []}
    found = {(one["name"], rule["rule"]): rule for one in data["artifacts"] for rule in one["rules"]}
    return code, found, data, printed.err


def edit(file, *pairs):
    text = file.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)


def edit_lock(folder, change):
    file = folder / "bertshrink.lock.json"
    data = json.loads(file.read_text())
    change(data["artifacts"])
    file.write_text(json.dumps(data))


# What a team wants


def nothing(root):
    """nothing that the limits are about"""
    (root / "README").write_text("more words")


def smaller(root):
    """a smaller model, without a new baseline"""
    artifact(root / MODULE / "dist/tagger.onnx", num_layers=1)


def smaller_with_lock(root):
    """a smaller model with its new baseline"""
    smaller(root)
    update(root / MODULE)


def grown(root):
    """one more layer"""
    artifact(root / MODULE / "dist/classifier.onnx", **GROWN)


def grown_with_lock(root):
    """one more layer, and the lock written again"""
    grown(root)
    update(root / MODULE)


def grown_and_accepted(root):
    """one more layer, accepted with a reason"""
    grown(root)
    update(root / MODULE, "--accept", "one more layer for recall")


def other_operation(root):
    """int8 lost on one product: an operation that was not there"""
    artifact(root / MODULE / "dist/classifier.onnx", float_layers=(1,))
    edit(root / MODULE / "bertshrink.toml", ('size_growth = "<= 0.5%"   #', 'size_growth = "<= 200%"  #'))


def other_operation_accepted(root):
    """a new operation, accepted with a reason"""
    other_operation(root)
    update(root / MODULE, "--accept", "int8 lost a point on this layer")


NEW = """
[gate.artifacts.ranker]
path = "dist/ranker.onnx"
size = "<= 100 kB"
size_growth = "<= 0.5%"
new_operators = "<= 0"
"""


def added(root):
    """a model more, with a limit that needs no baseline, and its baseline"""
    artifact(root / MODULE / "dist/ranker.onnx", num_layers=5)
    with (root / MODULE / "bertshrink.toml").open("a") as file:
        file.write(NEW)
    update(root / MODULE, "ranker")


def added_without_lock(root):
    """a model more, its baseline not written"""
    artifact(root / MODULE / "dist/ranker.onnx", num_layers=5)
    with (root / MODULE / "bertshrink.toml").open("a") as file:
        file.write(NEW)


def added_without_limit(root):
    """a model more that only its growth would limit"""
    added(root)
    edit(root / MODULE / "bertshrink.toml", ('ranker.onnx"\nsize = "<= 100 kB"\n', 'ranker.onnx"\n'))


def renamed(root):
    """a model renamed, and declared"""
    (root / MODULE / "dist/tagger.onnx").rename(root / MODULE / "dist/ner.onnx")
    edit(
        root / MODULE / "bertshrink.toml",
        ('[gate.artifacts.tagger]\npath = "dist/tagger.onnx"', '[gate.artifacts.ner]\npath = "dist/ner.onnx"'),
        ('dist/ner.onnx"\n', 'dist/ner.onnx"\nrenamed_from = "tagger"\n'),
    )
    update(root / MODULE)


def renamed_and_grown(root):
    """a model renamed, declared, and grown"""
    renamed(root)
    artifact(root / MODULE / "dist/ner.onnx", **GROWN)
    update(root / MODULE)


def renamed_in_silence(root):
    """a model renamed, and not declared"""
    renamed(root)
    edit(root / MODULE / "bertshrink.toml", ('renamed_from = "tagger"\n', ""))


def renamed_from_another(root):
    """a grown model declared as renamed from one that is still there"""
    artifact(root / MODULE / "dist/tagger.onnx", **GROWN)
    edit(
        root / MODULE / "bertshrink.toml",
        ('[gate.artifacts.tagger]\npath = "dist/tagger.onnx"', '[gate.artifacts.ner]\npath = "dist/ner.onnx"'),
        ('dist/ner.onnx"\n', 'dist/ner.onnx"\nrenamed_from = "classifier"\n'),
    )
    (root / MODULE / "dist/tagger.onnx").rename(root / MODULE / "dist/ner.onnx")
    update(root / MODULE)


WITHOUT_TAGGER = LIMITS.partition("\n[gate.artifacts.tagger]")[0]


def dropped(root):
    """a model taken out, and declared"""
    text = WITHOUT_TAGGER.replace("# what we ship\n", '[gate]\nremoved = ["tagger"]\n')
    (root / MODULE / "bertshrink.toml").write_text(text)
    update(root / MODULE)


def dropped_in_silence(root):
    """a model taken out, and not declared"""
    (root / MODULE / "bertshrink.toml").write_text(WITHOUT_TAGGER)
    update(root / MODULE)


def ruled(root):
    """a new rule about a new figure, with its limit and its report"""
    edit(
        root / MODULE / "bertshrink.toml",
        ('path = "dist/classifier.onnx"\n', 'path = "dist/classifier.onnx"\nreport = "report.json"\n'),
        ("new_operators", 'accuracy = ">= 0.9"\naccuracy_drop = "<= 1%"\nnew_operators'),
    )
    report(root / MODULE / "report.json", root / MODULE / "dist/classifier.onnx", accuracy(outcomes(range(40))))
    update(root / MODULE)


def ruled_without_limit(root):
    """a new rule about a new figure that nothing limits without a baseline"""
    ruled(root)
    edit(root / MODULE / "bertshrink.toml", ('accuracy = ">= 0.9"\n', ""))


# What hides growth


def entry_deleted(root):
    """grown, and the model's entry deleted from the lock"""
    grown(root)
    edit_lock(root / MODULE, lambda entries: entries.pop("classifier"))


def entry_deleted_ahead(root):
    """the model's entry deleted from the lock, ahead of growth"""
    edit_lock(root / MODULE, lambda entries: entries.pop("classifier"))


def figure_edited_ahead(root):
    """a larger size written into the lock, ahead of growth"""
    edit_lock(root / MODULE, lambda entries: entries["classifier"]["metrics"]["size"].update(value=90_000))


def operations_edited_ahead(root):
    """an operation written into the lock, ahead of its use"""
    edit_lock(root / MODULE, lambda entries: entries["classifier"]["operators"].update(MatMul=1))


def lock_deleted(root):
    """grown, and the lock deleted"""
    grown(root)
    (root / MODULE / "bertshrink.lock.json").unlink()


def lock_named_anew(root):
    """grown, and another lock named in the limits"""
    grown(root)
    (root / MODULE / "bertshrink.lock.json").rename(root / MODULE / "lock.json")
    edit(root / MODULE / "bertshrink.toml", ("# what we ship\n", '[gate]\nbaseline = "lock.json"\n'))
    update(root / MODULE)


def folder_moved(root):
    """grown, and the folder moved (`git mv`)"""
    git(root, "mv", MODULE, "models")
    artifact(root / "models/dist/classifier.onnx", **GROWN)
    update(root / "models")


def folder_moved_only(root):
    """the folder moved, and nothing else"""
    git(root, "mv", MODULE, "models")


def limits_moved(root):
    """grown, and the limits moved from bertshrink.toml to pyproject.toml"""
    grown(root)
    (root / MODULE / "bertshrink.toml").unlink()
    (root / MODULE / "pyproject.toml").write_text(LIMITS.replace("[gate.", "[tool.bertshrink.gate."))
    update(root / MODULE)


def limits_and_folder_moved(root):
    """grown, and the limits with their lock moved up to the root's pyproject.toml"""
    grown(root)
    folder = root / MODULE
    folder.joinpath("bertshrink.toml").unlink()
    folder.joinpath("bertshrink.lock.json").unlink()
    text = LIMITS.replace("[gate.", "[tool.bertshrink.gate.").replace('"dist/', f'"{MODULE}/dist/')
    (root / "pyproject.toml").write_text(text)
    update(root)


def limits_beside(root):
    """grown, and limits with a lock of their own put where CI finds them first"""
    grown(root)
    folder = root / MODULE / "dist"
    (folder / "bertshrink.toml").write_text(
        '[gate]\nartifact = "classifier.onnx"\nsize = "<= 100 kB"\nsize_growth = "<= 0.5%"\n'
    )
    update(folder)


def base_set(root):
    """grown, and `base` set to the change itself"""
    grown(root)
    edit(root / MODULE / "bertshrink.toml", ("# what we ship\n", '[gate]\nbase = "change"\n'))
    update(root / MODULE)


def names_swapped(root):
    """one grown, and the two models' names swapped"""
    artifact(root / MODULE / "dist/tagger.onnx", **GROWN)
    file = root / MODULE / "bertshrink.toml"
    edit(file, ("dist/classifier", "dist/x"), ("dist/tagger", "dist/classifier"), ("dist/x", "dist/tagger"))
    update(root / MODULE)


def under_another_name(root):
    """grown, and taken out and added again under another name, both declared"""
    dropped(root)
    artifact(root / MODULE / "dist/tagger.onnx", **GROWN)
    with (root / MODULE / "bertshrink.toml").open("a") as file:
        file.write(NEW.replace("ranker.onnx", "tagger.onnx"))
    update(root / MODULE)


# play, where CI judges, exit code, words that are in the verdict
PLAYS = [
    (nothing, MODULE, 0, "every rule holds"),
    (smaller, MODULE, 0, "every rule holds"),
    (smaller_with_lock, MODULE, 0, "every rule holds"),
    (added, MODULE, 0, "ranker: size_growth, new_operators new"),
    (renamed, MODULE, 0, "every rule holds"),
    (dropped, MODULE, 0, "every rule holds"),
    (ruled, MODULE, 0, "classifier: accuracy_drop new"),
    (folder_moved_only, "models", 0, "every rule holds"),
    (grown_and_accepted, MODULE, 0, "every rule holds"),
    (other_operation_accepted, MODULE, 0, "every rule holds"),
    (grown, MODULE, 1, "classifier: size_growth fail"),
    (grown_with_lock, MODULE, 1, "classifier: size_growth fail"),
    (other_operation, MODULE, 1, "classifier: new_operators fail"),
    (renamed_and_grown, MODULE, 1, "ner: size_growth fail"),
    (renamed_in_silence, MODULE, 1, "ner: size_growth new; tagger: gone"),
    (dropped_in_silence, MODULE, 1, "tagger: gone"),
    (under_another_name, MODULE, 1, "ranker: size_growth fail"),
    (lock_named_anew, MODULE, 1, "classifier: size_growth fail"),
    (folder_moved, "models", 1, "classifier: size_growth fail"),
    (limits_moved, MODULE, 1, "classifier: size_growth fail"),
    (limits_and_folder_moved, ".", 1, "classifier: size_growth fail"),
    (limits_beside, f"{MODULE}/dist", 1, "classifier.onnx: size_growth fail"),
    (base_set, MODULE, 1, "classifier: size_growth fail"),
    (names_swapped, MODULE, 1, "classifier: size_growth fail; tagger: size_growth fail"),
    (entry_deleted, MODULE, 1, "classifier: size_growth, new_operators fail"),
    (renamed_from_another, MODULE, 4, "`ner` is declared as renamed from `classifier`, which is still judged"),
    (added_without_lock, MODULE, 4, "ranker: size_growth, new_operators fail"),
    (added_without_limit, MODULE, 4, "ranker: size_growth, new_operators fail"),
    (ruled_without_limit, MODULE, 4, "classifier: accuracy_drop fail"),
    (entry_deleted_ahead, MODULE, 4, "classifier: size_growth, new_operators fail"),
    (figure_edited_ahead, MODULE, 4, "classifier: size_growth fail"),
    (operations_edited_ahead, MODULE, 4, "classifier: new_operators fail"),
    (lock_deleted, MODULE, 4, "`bertshrink.lock.json` is removed in this change"),
]


@pytest.mark.parametrize(("change", "where", "code", "words"), PLAYS, ids=[play[0].__name__ for play in PLAYS])
def test_a_pull_request_gets_its_verdict(repo, capsys, change, where, code, words):
    change(repo)
    commit(repo, change.__doc__)
    found, rules, data, told = judged(capsys, repo / where)
    assert (found, in_words(rules, told)) == (code, words), data


def in_words(rules, told):
    """What is not a pass, artifact by artifact; the error where there is no verdict at all."""
    if not rules:
        return re.search("error: (.*)", told.replace("::error", ""))[1]
    open_ = {}
    for (name, rule), found in rules.items():
        if found["status"] != "pass":
            kind = "gone" if found["cause"] == "gone" else found["status"]
            open_.setdefault((name, kind), []).append(rule)
    parts = [
        f"{name}: {kind}" if kind == "gone" else f"{name}: {', '.join(of)} {kind}" for (name, kind), of in open_.items()
    ]
    return "; ".join(parts) or "every rule holds"


def test_the_page_shows_this_table():
    rows = [f"| {change.__doc__} | {words} | {code} |" for change, _, code, words in PLAYS]
    head = "| pull request | verdict | exit code |\n|---|---|---:|\n"
    assert head + "\n".join(rows) + "\n" in PAGE.read_text(encoding="utf-8")


def merge(root):
    """The pull request is merged: what it holds is main."""
    git(root, "update-ref", "refs/remotes/origin/main", "HEAD")
    git(root, "checkout", "-q", "-b", "next")


@pytest.mark.parametrize("change", [added, renamed, ruled, grown_and_accepted, folder_moved_only])
def test_what_was_new_is_judged_by_the_next_pull_request(repo, capsys, change):
    """New once, and then no more: each grown again in a second pull request fails."""
    change(repo)
    commit(repo)
    merge(repo)
    where = repo / ("models" if change is folder_moved_only else MODULE)
    code, rules, _, _ = judged(capsys, where)
    assert (code, {rule["status"] for rule in rules.values()}) == (0, {"pass"})
    for file in (where / "dist").iterdir():
        artifact(file, num_layers=6)
    if change is ruled:
        report(where / "report.json", where / "dist/classifier.onnx", accuracy(outcomes(range(300))))
    update(where)
    commit(repo)
    code, rules, _, _ = judged(capsys, where)
    failed = {rule["rule"] for rule in rules.values() if rule["status"] == "fail"}
    assert code == 1
    assert {"size_growth"} | ({"accuracy_drop"} if change is ruled else set()) <= failed
    grown_names = {name for (name, rule), one in rules.items() if rule == "size_growth" and one["status"] == "fail"}
    assert {"classifier", {added: "ranker", renamed: "ner"}.get(change, "tagger")} <= grown_names


@pytest.mark.parametrize("change", [added, grown_and_accepted, renamed])
def test_main_itself_is_judged_by_the_commit_before(repo, capsys, monkeypatch, change):
    """The push that merges it: green as the pull request was; without its reason it would be red."""
    change(repo)
    commit(repo)
    git(repo, "update-ref", "refs/remotes/origin/main", "HEAD")
    monkeypatch.delenv("GITHUB_BASE_REF")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    code, _, data, _ = judged(capsys, repo / MODULE)
    assert (code, "the commit before" in data["baseline"]) == (0, True)


def test_a_push_that_grows_fails_on_main_too(repo, capsys, monkeypatch):
    grown_with_lock(repo)
    commit(repo)
    commit(repo, "and an empty one")
    git(repo, "update-ref", "refs/remotes/origin/main", "HEAD")
    monkeypatch.delenv("GITHUB_BASE_REF")
    event = {"before": git(repo, "rev-parse", "main"), "repository": {"default_branch": "main"}}
    (repo / "event.json").write_text(json.dumps(event))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(repo / "event.json"))
    assert judged(capsys, repo / MODULE)[0] == 1, "the event says where the push began"
