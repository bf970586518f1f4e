"""Which commit's lock judges: whatever CI, remote, clone or machine it is, never the change's own in silence."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bertshrink.errors import BaselineError
from bertshrink.gates.baseline.lock import Entry, Lock
from bertshrink.gates.baseline.merge_base import read_anchor, read_baseline
from bertshrink.gates.figures.figure import Reading
from bertshrink.gates.limits.config import read_config
from bertshrink.gates.limits.metric_key import MetricKey
from tests.support.gate_fixtures import commit, git

pytestmark = [pytest.mark.subprocess, pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")]
LIMITS = '[gate]\nartifact = "m.onnx"\nsize = "<= 1 MB"\nsize_growth = "<= 1%"\n'
PATH = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
GITHUB = PATH | {"GITHUB_ACTIONS": "true"}
PULL_REQUEST = GITHUB | {"GITHUB_BASE_REF": "main"}


def write(folder, size, limits=LIMITS, name="m.onnx"):
    """Limits and a lock whose size tells which commit it is of."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bertshrink.toml").write_text(limits)
    entry = Entry(file=name, sha256="0" * 64, metrics={MetricKey("size"): Reading(value=size, unit="B")})
    (folder / "bertshrink.lock.json").write_text(Lock(artifacts={name: entry}).to_json())


def baseline(folder, environ, base=None, file="bertshrink.toml"):
    return read_baseline(read_config(folder / file), base, environ)


def size(folder, environ, base=None, file="bertshrink.toml"):
    """The size in the lock that judges; None where all is new."""
    found = baseline(folder, environ, base, file)
    return found.lock.artifacts["m.onnx"].metrics[MetricKey("size")].value if found.lock is not None else None


def refused(folder, environ, *words, base=None):
    with pytest.raises(BaselineError) as found:
        baseline(folder, environ, base)
    for word in words:
        assert word in f"{found.value.what} {found.value.hint}"
    assert found.value.hint
    return found.value


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """A remote whose default branch is called trunk: 1 on it, then 2; from 1 a change with 10, then 11."""
    folder = tmp_path_factory.mktemp("remote")
    git(folder, "init", "-q", "-b", "trunk")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    write(folder, 1)
    commit(folder)
    git(folder, "checkout", "-q", "-b", "change")
    for number in (10, 11):
        write(folder, number)
        commit(folder)
    git(folder, "checkout", "-q", "trunk")
    write(folder, 2)
    commit(folder)
    return folder


def clone(remote, folder, branch="change", *more):
    git(folder.parent, "clone", "-q", "--branch", branch, *more, f"file://{remote}", folder.name)
    return folder


# Git cannot be asked


@pytest.mark.parametrize(
    "environ",
    [
        {"CI": "true"},
        {"GITHUB_ACTIONS": "true"},
        {"GITHUB_BASE_REF": "trunk"},
        {"GITLAB_CI": "true"},
        {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "trunk"},
        {"BITBUCKET_BUILD_NUMBER": "7"},
        {"TF_BUILD": "True"},
        {"JENKINS_URL": "https://ci.example.org"},
        {"CIRCLECI": "true"},
        {"BUILDKITE": "true"},
    ],
    ids=lambda environ: next(iter(environ)),
)
def test_ci_without_git_has_no_verdict(remote, tmp_path, environ):
    folder = clone(remote, tmp_path / "here")
    refused(folder, environ | {"PATH": str(tmp_path)}, "not installed", "install it")
    shutil.rmtree(folder / ".git")
    refused(folder, environ | PATH, "no git repository", "check out the change")


def test_a_machine_without_git_says_whose_lock_judges(remote, tmp_path):
    folder = clone(remote, tmp_path / "here")
    found = baseline(folder, {"PATH": str(tmp_path), "CI": "false"})
    assert found.lock.artifacts["m.onnx"].metrics[MetricKey("size")].value == 11
    assert "of the working tree" in found.origin
    assert "not installed" in found.notes[0] and "this change may have edited" in found.notes[0]
    refused(folder, {"PATH": str(tmp_path)}, "not installed", base="trunk")
    (folder / "bertshrink.toml").write_text(LIMITS.replace("[gate]", '[gate]\nbase = "trunk"'))
    refused(folder, {"PATH": str(tmp_path)}, "`trunk` is the base")


def test_limits_that_need_no_baseline_need_no_git(tmp_path):
    (tmp_path / "bertshrink.toml").write_text(LIMITS.replace('size_growth = "<= 1%"\n', ""))
    found = baseline(tmp_path, GITHUB)
    assert "not read" in found.notes[0]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes another owner")
def test_a_folder_of_another_owner_has_no_verdict_in_ci(remote, tmp_path):
    folder = clone(remote, tmp_path / "here")
    subprocess.run(["chown", "-R", "65534:65534", str(folder)], check=True)
    environ = PULL_REQUEST | {"GITHUB_BASE_REF": "trunk", "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    refused(folder, environ, "dubious ownership", f"git config --global --add safe.directory {folder}")
    allowed = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": str(folder)}
    assert size(folder, environ | allowed) == 1, "as action.yml allows it for its step"


@pytest.mark.parametrize("odd", [".git", "../.git", "/nowhere/.git"])
def test_variables_of_hooks_do_not_lead_astray(remote, tmp_path, odd):
    folder = clone(remote, tmp_path / "here")
    write(folder / "sub", 5)
    environ = PULL_REQUEST | {
        "GITHUB_BASE_REF": "trunk",
        "GIT_DIR": odd,
        "GIT_INDEX_FILE": "index",
        "GIT_WORK_TREE": ".",
    }
    assert size(folder, environ) == 1
    assert size(folder / "sub", environ) is None


def test_a_separate_git_folder_is_found_by_its_variables(remote, tmp_path):
    folder = clone(remote, tmp_path / "here")
    (folder / ".git").rename(tmp_path / "elsewhere")
    environ = {"GIT_DIR": str(tmp_path / "elsewhere"), "GIT_WORK_TREE": str(folder)}
    assert size(folder, PULL_REQUEST | {"GITHUB_BASE_REF": "trunk"} | environ) == 1
    refused(folder, GITHUB | environ | {"GIT_DIR": str(tmp_path / "nowhere")}, "git cannot be queried")


def test_a_damaged_repository_has_no_verdict_in_ci(remote, tmp_path):
    folder = clone(remote, tmp_path / "here")
    (folder / ".git" / "HEAD").write_text("nonsense")
    refused(folder, GITHUB, "git cannot be queried")


# The base


@pytest.mark.parametrize("name", ["origin", "upstream", "company/main"])
def test_the_default_branch_is_found_whatever_it_and_its_remote_are_called(remote, tmp_path, name):
    folder = clone(remote, tmp_path / "here", "change", "--origin", name)
    for environ in (GITHUB, PATH, PATH | {"CI": "true"}, PULL_REQUEST | {"GITHUB_BASE_REF": "trunk"}):
        assert size(folder, environ) == 1
    git(folder, "remote", "set-head", name, "--delete")
    assert size(folder, GITHUB) == 1, "the remote says it when asked"
    assert size(folder, PATH) == 1


def test_the_name_that_ci_gives_counts(remote, tmp_path):
    folder = clone(remote, tmp_path / "here")
    git(folder, "remote", "set-head", "origin", "--delete")
    git(folder, "remote", "set-url", "origin", str(tmp_path / "gone"))
    assert size(folder, PATH | {"CI": "true"}) == 1, "the only one of a usual name"
    git(folder, "update-ref", "refs/remotes/origin/main", "change")
    refused(folder, PATH | {"CI": "true"}, "no base branch")
    assert size(folder, PATH | {"GITLAB_CI": "true", "CI_DEFAULT_BRANCH": "trunk"}) == 1
    refused(folder, PATH | {"GITLAB_CI": "true", "CI_DEFAULT_BRANCH": "next"}, "`next`")
    (tmp_path / "event.json").write_text(json.dumps({"repository": {"default_branch": "trunk"}}))
    assert size(folder, GITHUB | {"GITHUB_EVENT_PATH": str(tmp_path / "event.json")}) == 1
    (tmp_path / "event.json").write_text("{")
    refused(folder, GITHUB | {"GITHUB_EVENT_PATH": str(tmp_path / "event.json")}, "no base branch")


TARGETS = {
    "GitHub": {"GITHUB_BASE_REF": "trunk"},
    "GitLab": {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "trunk"},
    "Bitbucket": {"BITBUCKET_PR_DESTINATION_BRANCH": "trunk"},
    "Azure": {"SYSTEM_PULLREQUEST_TARGETBRANCH": "refs/heads/trunk"},
    "Jenkins": {"CHANGE_TARGET": "trunk"},
    "Buildkite": {"BUILDKITE_PULL_REQUEST_BASE_BRANCH": "trunk"},
    "Travis": {"TRAVIS_PULL_REQUEST": "7", "TRAVIS_BRANCH": "trunk"},
    "AppVeyor": {"APPVEYOR_PULL_REQUEST_NUMBER": "7", "APPVEYOR_REPO_BRANCH": "trunk"},
    "Cirrus": {"CIRRUS_BASE_BRANCH": "trunk"},
    "Drone": {"DRONE_PULL_REQUEST": "7", "DRONE_TARGET_BRANCH": "trunk"},
    "Woodpecker": {"CI_COMMIT_TARGET_BRANCH": "trunk"},
    "Bitrise": {"BITRISEIO_GIT_BRANCH_DEST": "trunk"},
}


@pytest.fixture(scope="module")
def cloned(remote, tmp_path_factory):
    """A clone that tests only read: of the change, with a local branch that has the base's name."""
    folder = clone(remote, tmp_path_factory.mktemp("cloned") / "here")
    git(folder, "branch", "-q", "--no-track", "trunk", "change")
    return folder


@pytest.mark.parametrize("name", TARGETS)
def test_every_ci_is_understood_and_a_local_branch_is_not_the_base(cloned, name):
    assert size(cloned, PATH | TARGETS[name]) == 1


def test_a_merged_result_is_judged_by_the_commit_that_it_was_merged_into(remote, tmp_path):
    """GitHub's and Azure's merge commit, GitLab's merged result: the base's tip, not where the change began."""
    folder = clone(remote, tmp_path / "here", "trunk")
    git(folder, "checkout", "-q", "--detach")
    git(folder, "merge", "-q", "--no-ff", "-X", "theirs", "-m", "merged", "origin/change")
    head, tip = git(folder, "rev-parse", "HEAD"), git(folder, "rev-parse", "origin/trunk")
    assert size(folder, PATH | TARGETS["GitHub"]) == 2
    assert size(folder, PATH | {"CI_MERGE_REQUEST_TARGET_BRANCH_SHA": tip} | TARGETS["GitLab"]) == 2
    git(folder, "update-ref", "-d", "refs/remotes/origin/trunk")
    fetched_two = PATH | TARGETS["GitHub"] | {"GITHUB_REF": "refs/pull/7/merge", "GITHUB_SHA": head}
    assert size(folder, fetched_two) == 2, "`fetch-depth: 2` has the merge's parents"
    azure = {"BUILD_SOURCEBRANCH": "refs/pull/7/merge", "BUILD_SOURCEVERSION": head}
    assert size(folder, PATH | TARGETS["Azure"] | azure) == 2
    refused(folder, PATH | TARGETS["GitHub"] | {"GITHUB_REF": "refs/pull/7/head"}, "trunk")


def test_a_merge_queue_is_judged_by_the_entry_before(remote, tmp_path):
    folder = clone(remote, tmp_path / "here", "trunk")
    write(folder, 3)
    commit(folder, "the entry before")
    before = git(folder, "rev-parse", "HEAD")
    write(folder, 4)
    commit(folder, "this entry")
    event = {"merge_group": {"base_sha": before, "base_ref": "refs/heads/trunk"}}
    (tmp_path / "event.json").write_text(json.dumps(event))
    environ = GITHUB | {"GITHUB_EVENT_NAME": "merge_group", "GITHUB_EVENT_PATH": str(tmp_path / "event.json")}
    assert size(folder, environ) == 3


@pytest.mark.parametrize("depth", [1, 2])
def test_a_shallow_clone_has_no_verdict_in_ci(remote, tmp_path, depth):
    """One branch, cut: the only branch that is known is the change's own."""
    folder = clone(remote, tmp_path / "here", "change", "--depth", str(depth))
    for environ in (GITHUB, PATH | {"CI": "true"}, PATH | TARGETS["GitHub"], PATH | TARGETS["GitLab"]):
        refused(folder, environ, "fetch-depth: 0")
    trunk = clone(remote, tmp_path / "trunk", "trunk", "--depth", str(depth))
    if depth == 1:
        refused(trunk, GITHUB, "the commit before")
    else:
        assert size(trunk, GITHUB) == 1


def test_no_remote_has_no_verdict_in_ci(tmp_path):
    git(tmp_path, "init", "-q")
    write(tmp_path, 1)
    commit(tmp_path)
    refused(tmp_path, GITHUB, "no base branch", "--base")
    refused(tmp_path, PULL_REQUEST, "`main`")
    write(tmp_path, 2)
    assert size(tmp_path, PATH) == 1, "a person's own machine: the last commit judges what is not committed"
    git(tmp_path, "checkout", "-q", "-b", "change")
    commit(tmp_path)
    assert size(tmp_path, PATH) == 1
    assert size(tmp_path, GITHUB, base="main") == 1


def test_a_remote_that_left_only_its_branches_is_one(tmp_path):
    git(tmp_path, "init", "-q")
    write(tmp_path, 1)
    commit(tmp_path)
    git(tmp_path, "update-ref", "refs/remotes/somewhere/main", "main")
    git(tmp_path, "checkout", "-q", "-b", "change")
    write(tmp_path, 2)
    commit(tmp_path)
    assert size(tmp_path, PULL_REQUEST) == size(tmp_path, GITHUB) == 1


def test_other_histories_have_no_verdict_in_ci(remote, tmp_path):
    folder = clone(remote, tmp_path / "here")
    git(folder, "checkout", "-q", "--orphan", "apart")
    write(folder, 99)
    commit(folder)
    for environ in (GITHUB, PATH | TARGETS["GitHub"]):
        refused(folder, environ, "no common commit")


def test_main_itself_is_judged_by_what_was_there_before_the_push(remote, tmp_path):
    folder = clone(remote, tmp_path / "here", "trunk")
    assert size(folder, GITHUB) == 1, "the parent"
    assert size(folder, PATH) == 2, "a person's own machine: its last commit"
    first = git(folder, "rev-parse", "HEAD~1")
    write(folder, 3)
    commit(folder)
    git(folder, "update-ref", "refs/remotes/origin/trunk", "HEAD")
    assert size(folder, GITHUB) == 2
    event = {"before": first, "repository": {"default_branch": "trunk"}}
    (tmp_path / "event.json").write_text(json.dumps(event))
    assert size(folder, GITHUB | {"GITHUB_EVENT_PATH": str(tmp_path / "event.json")}) == 1, "a push of two commits"
    assert size(folder, PATH | {"GITLAB_CI": "true", "CI_COMMIT_BEFORE_SHA": first}) == 1
    assert size(folder, PATH | {"GITLAB_CI": "true", "CI_COMMIT_BEFORE_SHA": "0" * 40}) == 2
    git(folder, "tag", "v1")
    git(folder, "checkout", "-q", "v1")
    assert size(folder, GITHUB | {"GITHUB_REF": "refs/tags/v1", "GITHUB_REF_TYPE": "tag"}) == 2


def test_a_fork_whose_branch_is_called_main_too(remote, tmp_path):
    folder = clone(remote, tmp_path / "here")
    git(folder, "checkout", "-q", "-b", "trunk", "--no-track", "change")
    assert size(folder, PATH | TARGETS["GitHub"] | {"GITHUB_HEAD_REF": "trunk"}) == 1


def test_the_first_commit_is_all_new(tmp_path):
    upstream = tmp_path / "upstream"
    upstream.mkdir()
    git(upstream, "init", "-q")
    write(upstream, 1)
    assert size(upstream, PATH) is None, "nothing is committed yet"
    commit(upstream)
    folder = clone(upstream, tmp_path / "here", "main")
    found = baseline(folder, GITHUB)
    assert (found.lock, found.is_base, found.origin) == (None, True, "the first commit")


def test_base_that_a_change_sets_does_not_count_in_ci(remote, tmp_path):
    folder = clone(remote, tmp_path / "here")
    write(folder, 12, LIMITS.replace("[gate]", '[gate]\nbase = "origin/change"'))
    commit(folder)
    assert size(folder, PATH) == 11, "on a person's machine it is what they say"
    found = baseline(folder, GITHUB)
    assert found.lock.artifacts["m.onnx"].metrics[MetricKey("size")].value == 1
    assert any("takes effect afterwards" in note for note in found.notes)


def test_base_that_the_base_sets_counts_in_ci(tmp_path):
    upstream = tmp_path / "upstream"
    git(tmp_path, "init", "-q", "-b", "main", "upstream")
    limits = LIMITS.replace("[gate]", '[gate]\nbase = "develop"')
    write(upstream, 1, limits)
    commit(upstream)
    git(upstream, "checkout", "-q", "-b", "develop")
    write(upstream, 2, limits)
    commit(upstream)
    git(upstream, "checkout", "-q", "-b", "change")
    write(upstream, 3, limits)
    commit(upstream)
    git(upstream, "checkout", "-q", "main")
    folder = clone(upstream, tmp_path / "here")
    assert size(folder, GITHUB) == 2
    assert size(folder, PULL_REQUEST) == 1, "what CI says of this very change is surer"


# Where the folder is


def test_worktrees_links_and_folders_below(remote, tmp_path):
    folder = clone(remote, tmp_path / "here")
    git(folder, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"), "change")
    assert size(tmp_path / "tree", PATH | TARGETS["GitHub"]) == 1
    (tmp_path / "link").symlink_to(folder)
    assert size(tmp_path / "link", PATH | TARGETS["GitHub"]) == 1


def test_a_link_in_the_repository_is_followed_there_too(tmp_path):
    """The lock and the folder were links on main; the change makes a file of one and moves the other."""
    git(tmp_path, "init", "-q")
    write(tmp_path / "real" / "model", 1)
    (tmp_path / "real/model/bertshrink.lock.json").rename(tmp_path / "real/shared.json")
    (tmp_path / "real/model/bertshrink.lock.json").symlink_to("../shared.json")
    (tmp_path / "linked").symlink_to("real")
    commit(tmp_path)
    git(tmp_path, "update-ref", "refs/remotes/origin/main", "main")
    git(tmp_path, "checkout", "-q", "-b", "change")
    assert size(tmp_path / "linked" / "model", PULL_REQUEST) == 1
    (tmp_path / "real/model/bertshrink.lock.json").unlink()
    write(tmp_path / "real" / "model", 9)
    (tmp_path / "linked").unlink()
    shutil.move(tmp_path / "real", tmp_path / "linked")
    commit(tmp_path)
    assert size(tmp_path / "linked" / "model", PULL_REQUEST) == 1


def test_limits_that_are_a_link_are_those_that_it_leads_to(tmp_path):
    git(tmp_path, "init", "-q")
    write(tmp_path / "shared", 1)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/bertshrink.toml").symlink_to("../shared/bertshrink.toml")
    commit(tmp_path)
    git(tmp_path, "update-ref", "refs/remotes/origin/main", "main")
    git(tmp_path, "checkout", "-q", "-b", "change")
    write(tmp_path / "shared", 9)
    assert size(tmp_path / "a", PULL_REQUEST) == 1
    (tmp_path / "a/bertshrink.toml").unlink()
    write(tmp_path / "a", 9)
    commit(tmp_path)
    assert size(tmp_path / "a", PULL_REQUEST) == 1, "a file of its own now, with a lock of its own"


def test_a_lock_in_a_submodule_has_no_verdict(remote, tmp_path):
    git(tmp_path, "init", "-q", "-b", "main", "around")
    around = tmp_path / "around"
    git(around, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"file://{remote}", "sub")
    write(around, 1, LIMITS.replace("[gate]", '[gate]\nbaseline = "sub/bertshrink.lock.json"'))
    commit(around)
    git(around, "update-ref", "refs/remotes/origin/main", "main")
    git(around, "checkout", "-q", "-b", "change")
    refused(around, PULL_REQUEST, "is in a submodule")


def test_a_clone_without_blobs_fetches_what_it_reads(remote, tmp_path):
    git(remote, "config", "uploadpack.allowFilter", "true")
    folder = clone(remote, tmp_path / "here", "change", "--filter=blob:none")
    assert size(folder, GITHUB) == 1


def test_a_submodule_is_judged_by_what_the_base_around_it_has(remote, tmp_path):
    around = tmp_path / "around"
    git(tmp_path, "init", "-q", "-b", "main", "around")
    git(
        around,
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        "-b",
        "trunk",
        f"file://{remote}",
        "sub",
    )
    commit(around)
    git(around, "update-ref", "refs/remotes/origin/main", "main")
    git(around, "checkout", "-q", "-b", "bump")
    assert size(around / "sub", PULL_REQUEST) == 2
    git(around / "sub", "checkout", "-q", "origin/change")
    commit(around)
    assert size(around / "sub", PULL_REQUEST) == 2, "the commit that main's entry for the submodule names"
    assert size(around / "sub", PATH) == 1, "on a person's machine: the submodule's own branches"


def test_a_folder_that_becomes_a_submodule_has_no_verdict(remote, tmp_path):
    around = tmp_path / "around"
    git(tmp_path, "init", "-q", "-b", "main", "around")
    write(around / "sub", 1)
    commit(around)
    git(around, "update-ref", "refs/remotes/origin/main", "main")
    git(around, "rm", "-q", "-r", "sub")
    git(around, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", f"file://{remote}", "sub")
    commit(around)
    refused(around / "sub", PULL_REQUEST, "has become a submodule", "--base")


# What is in the files


@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_byte_order_mark_is_read(tmp_path, ending):
    git(tmp_path, "init", "-q")
    git(tmp_path, "config", "core.autocrlf", "false")
    write(tmp_path, 1)
    for name in ("bertshrink.toml", "bertshrink.lock.json"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", ending).encode())
    commit(tmp_path)
    git(tmp_path, "update-ref", "refs/remotes/origin/main", "main")
    git(tmp_path, "checkout", "-q", "-b", "change")
    found = baseline(tmp_path, PULL_REQUEST)
    assert found.lock.artifacts["m.onnx"].metrics[MetricKey("size")].value == 1
    assert (found.now.artifacts, found.notes) == (found.lock.artifacts, ())
    write(tmp_path, 2)
    assert size(tmp_path, PULL_REQUEST) == 1


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 66213\n"


def test_a_lock_in_git_lfs_is_named(tmp_path):
    git(tmp_path, "init", "-q")
    write(tmp_path, 1)
    whole = (tmp_path / "bertshrink.lock.json").read_text()
    (tmp_path / "bertshrink.lock.json").write_text(POINTER)
    refused(tmp_path, PATH, "git LFS pointer", "git lfs pull")
    commit(tmp_path)
    git(tmp_path, "update-ref", "refs/remotes/origin/main", "main")
    git(tmp_path, "checkout", "-q", "-b", "change")
    (tmp_path / "bertshrink.lock.json").write_text(whole)
    refused(tmp_path, PULL_REQUEST, "git LFS pointer")


# Two configurations


def test_each_of_two_configurations_has_its_own_lock_and_history(tmp_path):
    """A monorepo: both move at once, and each is judged by its own."""
    git(tmp_path, "init", "-q")
    for number, name in enumerate(("classifier", "tagger"), start=1):
        write(tmp_path / "packages" / name, number)
    commit(tmp_path)
    git(tmp_path, "update-ref", "refs/remotes/origin/main", "main")
    git(tmp_path, "checkout", "-q", "-b", "change")
    assert [size(tmp_path / "packages" / name, PULL_REQUEST) for name in ("classifier", "tagger")] == [1, 2]
    git(tmp_path, "mv", "packages", "libraries")
    for name in ("classifier", "tagger"):
        write(tmp_path / "libraries" / name, 99)
    commit(tmp_path)
    found = [baseline(tmp_path / "libraries" / name, PULL_REQUEST) for name in ("classifier", "tagger")]
    assert [one.lock.artifacts["m.onnx"].metrics[MetricKey("size")].value for one in found] == [1, 2]
    assert [one.gone for one in found] == [(), ()]
    assert "packages/tagger/bertshrink.lock.json of origin/main" in found[1].origin


def test_limits_elsewhere_are_followed(tmp_path):
    """`--config ci/limits.toml`, then renamed; its lock is named by no usual name."""
    git(tmp_path, "init", "-q")
    write(tmp_path / "ci", 1, LIMITS.replace("[gate]", '[gate]\nbaseline = "../figures.lock"'))
    (tmp_path / "ci/bertshrink.lock.json").rename(tmp_path / "figures.lock")
    (tmp_path / "ci/bertshrink.toml").rename(tmp_path / "ci/limits.toml")
    commit(tmp_path)
    git(tmp_path, "update-ref", "refs/remotes/origin/main", "main")
    git(tmp_path, "checkout", "-q", "-b", "change")
    assert size(tmp_path / "ci", PULL_REQUEST, file="limits.toml") == 1
    write(tmp_path / "gates", 9)
    (tmp_path / "gates/bertshrink.toml").rename(tmp_path / "gates/all.toml")
    shutil.rmtree(tmp_path / "ci")
    (tmp_path / "figures.lock").unlink()
    commit(tmp_path)
    assert size(tmp_path / "gates", PULL_REQUEST, file="all.toml") == 1


def test_limits_outside_of_every_repository_have_no_verdict_in_ci(remote, tmp_path):
    write(tmp_path / "outside", 1)
    refused(tmp_path / "outside", GITHUB, "no git repository")


def test_a_package_that_is_taken_out_does_not_hold_up_the_others(tmp_path):
    git(tmp_path, "init", "-q")
    for name in ("classifier", "tagger"):
        write(tmp_path / name, 1, LIMITS.replace("m.onnx", f"{name}.onnx"), f"{name}.onnx")
    commit(tmp_path)
    git(tmp_path, "update-ref", "refs/remotes/origin/main", "main")
    git(tmp_path, "checkout", "-q", "-b", "change")
    shutil.rmtree(tmp_path / "tagger")
    commit(tmp_path)
    assert baseline(tmp_path / "classifier", PULL_REQUEST).gone == ()
    text = LIMITS.replace('artifact = "m.onnx"\n', "") + "".join(
        f'[gate.artifacts."{name}"]\npath = "{name}"\n' for name in ("classifier.onnx", "other.onnx")
    )
    (tmp_path / "classifier/bertshrink.toml").write_text(text)
    (gone,) = baseline(tmp_path / "classifier", PULL_REQUEST).gone
    assert (gone.name, gone.lock) == ("tagger.onnx", "tagger/bertshrink.lock.json"), "the new one may be it"
    (tmp_path / "classifier/bertshrink.toml").write_text(text.replace("[gate]", '[gate]\nremoved = ["tagger.onnx"]'))
    assert baseline(tmp_path / "classifier", PULL_REQUEST).gone == ()


# Anchors


def test_an_anchor_follows_moves_and_renames(tmp_path):
    git(tmp_path, "init", "-q")
    write(tmp_path / "a", 1)
    commit(tmp_path)
    git(tmp_path, "tag", "v1")
    git(tmp_path, "mv", "a", "b")
    write(tmp_path / "b", 2, LIMITS.replace('"m.onnx"', '"n.onnx"\nrenamed_from = "m.onnx"'), "n.onnx")
    commit(tmp_path)
    config = read_config(tmp_path / "b" / "bertshrink.toml")
    found = read_baseline(config, None, PATH)
    assert read_anchor(config, "v1", {}, found).artifacts["n.onnx"].metrics[MetricKey("size")].value == 1
    write(tmp_path / "b", 2, LIMITS.replace('"m.onnx"', '"n.onnx"'), "n.onnx")
    config = read_config(tmp_path / "b" / "bertshrink.toml")
    told = read_anchor(config, "v1", {"n.onnx": "m.onnx"}, found)
    assert told.artifacts["n.onnx"].metrics[MetricKey("size")].value == 1, "the lock keeps the old name"
    with pytest.raises(BaselineError, match="no commit `v2`"):
        read_anchor(config, "v2", {}, found)


def test_git_is_asked_without_heavy_imports():
    code = "import sys, bertshrink.gates.baseline.merge_base\n"
    code += "print([m for m in ('torch', 'onnxruntime') if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"
