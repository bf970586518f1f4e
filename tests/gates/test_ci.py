"""What CI is told to run, run here in a bare environment: the action, GitLab's script, the comment, the hook."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from bertshrink.gates.baseline.lock import read_lock
from bertshrink.gates.limits.config import read_config
from tests.gates.test_show import JUNIT
from tests.support.gate_fixtures import LIMITS, artifact, commit, git

ROOT = Path(__file__).parents[2]
ACTION = YAML(typ="safe").load((ROOT / "action.yml").read_text(encoding="utf-8"))
PAGE = [
    YAML(typ="safe").load(block)
    for block in re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/ci.md").read_text(encoding="utf-8"), re.M | re.S)
]
GITHUB, GITLAB, HOOK = PAGE

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or shutil.which("bash") is None, reason="git or bash is not installed"
)


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    """A repository with a baseline on main, and a temporary folder whose virtual environment sees our packages.

    pip then finds everything installed: the steps run as they are written, without a network.
    """
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("team")
    repo = folder / "repo"
    artifact(repo / "dist" / "model.onnx")
    (repo / "pyproject.toml").write_text(LIMITS)
    (repo / ".gitignore").write_text(".gate/\n")
    git(repo, "init", "-q")
    environ = bare(folder) | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "bertshrink", "gate", "--update"], cwd=repo, env=environ, check=True)
    commit(repo)
    git(repo, "update-ref", "refs/remotes/origin/main", "main")
    git(repo, "checkout", "-q", "-b", "change")
    seeing_ours(folder / "temp" / "bertshrink")
    return folder


def seeing_ours(venv):
    """A virtual environment to be, in which our own packages are already there."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = venv / "lib" / version / "site-packages"
    site.mkdir(parents=True)
    (site / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")


def bare(folder, **more):
    """An environment as a fresh container has it: nothing of ours, pip without a network."""
    python = folder / "bin"
    python.mkdir(exist_ok=True)
    for name in ("python3", "python"):
        if not (python / name).exists():
            (python / name).symlink_to(os.path.realpath(sys.executable))
    quiet = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {"PATH": f"{python}:/usr/bin:/bin", "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", **quiet, **more}


def bash(script, cwd, environ):
    """As a runner calls it."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)


def act(team, **inputs):
    """Run the action's steps with these inputs; returns (the last step, GITHUB_OUTPUT, the summary).

    What a first call installed, another one uses: with the same inputs it would be the same again.
    """
    output, summary = team / "output", team / "summary"
    for file in (output, summary):
        file.write_text("")
    given = {name: entry.get("default", "") for name, entry in ACTION["inputs"].items()} | inputs
    github = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_BASE_REF": "main",
        "GITHUB_OUTPUT": str(output),
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_WORKSPACE": str(team / "repo"),
        "RUNNER_TEMP": str(team / "temp"),
    }
    done, installed = None, team / "temp" / "bertshrink" / "bin" / "bertshrink"
    for step in ACTION["runs"]["steps"]:
        if step["name"] == "Install bertshrink" and installed.exists():
            continue
        texts = {name: fill(text, given) for name, text in step["env"].items()}
        done = bash(step["run"], team / "repo", bare(team, **github, **texts))
        if done.returncode:
            break
    return done, output.read_text(), summary.read_text()


def fill(text, inputs):
    """`${{ inputs.NAME }}` and the action's path, as the runner fills them in."""
    text = text.replace("${{ github.action_path }}", str(ROOT))
    return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: inputs[found[1]], text)


@pytest.mark.subprocess
def test_the_action_judges_a_pull_request(team):
    inputs = {"junit": "gate.xml", "comment-file": "gate.md", "artifact": "dist/model.onnx", "id": "arm --> 64"}
    done, output, summary = act(team, **inputs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert output == "exit-code=0\n"
    assert "every rule holds" in done.stdout
    assert "every rule holds" in summary
    artifact(team / "repo/dist/model.onnx", num_layers=5)
    done, output, summary = act(team, **inputs)
    assert (done.returncode, output) == (1, "exit-code=1\n")
    assert "::error file=pyproject.toml,line=4,col=1,title=gate%3A size_growth::" in done.stderr
    JUNIT.validate((team / "repo/gate.xml").read_text())
    assert (team / "repo/gate.md").read_text() == summary
    assert summary.startswith("<!-- bertshrink:gate arm -%2D%3E 64 -->\n")
    git(team / "repo", "checkout", "-q", "dist")


def test_every_input_of_the_action_is_used_and_no_script_takes_text_from_outside():
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    for name in ACTION["inputs"]:
        assert f"${{{{ inputs.{name} }}}}" in text
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"], "what a workflow says is data, never code"
        assert set(re.findall(r"\$\{?([A-Z_]+)", step["run"])) <= {*step["env"], "RUNNER_TEMP", "GITHUB_OUTPUT"}
    used = next(step for step in GITHUB["jobs"]["gate"]["steps"] if "bertshrink" in step.get("uses", ""))
    assert set(used["with"]) <= set(ACTION["inputs"])


@pytest.mark.subprocess
@pytest.mark.matrix
def test_gitlabs_script_judges_a_merge_request(team):
    repo = team / "repo"
    seeing_ours(repo / ".gate")
    base = git(repo, "rev-parse", "main")
    environ = bare(team, BERTSHRINK=str(ROOT), CI_MERGE_REQUEST_DIFF_BASE_SHA=base)
    done = bash("\n".join(GITLAB["gate"]["script"]), repo, environ)
    assert done.returncode == 0, done.stdout + done.stderr
    reports = GITLAB["gate"]["artifacts"]["reports"]
    JUNIT.validate((repo / reports["junit"]).read_text())
    assert (repo / reports["metrics"]).read_text().endswith("# EOF\n")


@pytest.mark.subprocess
@pytest.mark.parametrize("known", ["", "42"])
def test_the_comment_is_written_once_and_then_edited(tmp_path, known):
    """With a `gh` that notes what it is asked."""
    step = next(step for step in GITHUB["jobs"]["gate"]["steps"] if step.get("name") == "Comment")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tmp_path / "gate.md").write_text("<!-- bertshrink:gate a/pyproject.toml tagger -->\n### gate\n")
    fake = f'#!/bin/sh\necho "$MARK $@" >> {tmp_path}/asked\ncase "$*" in *--jq*) printf "%s\\n" "{known}";; esac\n'
    (tools / "gh").write_text(fake)
    (tools / "gh").chmod(0o755)
    environ = {"PATH": f"{tools}:/usr/bin:/bin", "GITHUB_REPOSITORY": "o/r", "PR": "7"}
    done = bash(step["run"], tmp_path, environ)
    assert done.returncode == 0, done.stderr
    last = (tmp_path / "asked").read_text().splitlines()[-1]
    wanted = "PATCH repos/o/r/issues/comments/42" if known else "POST repos/o/r/issues/7/comments"
    mark = "<!-- bertshrink:gate a/pyproject.toml tagger -->"
    assert last == f"{mark} api --method {wanted} -F body=@gate.md"
    assert "== env.MARK" in (tmp_path / "asked").read_text(), "the mark of this very job, and the whole of it"


@pytest.mark.subprocess
def test_the_hook_runs_what_the_command_takes(team):
    (hook,) = YAML(typ="safe").load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert HOOK["repos"][0]["hooks"] == [{"id": hook["id"]}]
    environ = bare(team) | {"PYTHONPATH": str(ROOT)}
    argv = hook["entry"].split()[1:]
    command = [sys.executable, "-m", "bertshrink", *argv]
    done = subprocess.run(command, cwd=team / "repo", env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(hook["files"], "dist/model.onnx")
    assert not re.search(hook["files"], "README.md")


def test_our_own_gate_is_about_the_quickstarts_form():
    """The same stages on fewer texts; what the lock keeps is the file's form, the same on every machine."""
    own, quickstart = (
        YAML(typ="safe").load((ROOT / name).read_text(encoding="utf-8"))
        for name in (".ci/gate.yaml", "recipes/quickstart.yaml")
    )
    assert (own["model"], own["stages"]) == (quickstart["model"], quickstart["stages"])
    config = read_config(ROOT / "pyproject.toml")
    lock = read_lock(ROOT / config.lock)
    (gated,) = config.gated
    entry = lock.artifacts[gated.name]
    assert set(map(str, entry.metrics)) == {"size", "parameters", "nodes", "operators"}
    assert {rule.key.metric for rule in gated.rules} >= {"size", "new_operators", "spearman"}
    assert lock.to_json() == (ROOT / config.lock).read_text(encoding="utf-8"), "written by `gate --update` alone"
