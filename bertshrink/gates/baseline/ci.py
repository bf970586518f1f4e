"""What a CI system says in its own variables: whether it is one, what the change is for, what came before it, and which
branch is the default.

GitHub says some of it in its event's payload only. A branch is never taken as it is in the clone: a local `main`
may be the change itself (`base.py` asks for the remotes' one).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertshrink.errors import BaselineError
from bertshrink.files.bounded_text import Reader

_SIGNS = (
    "APPVEYOR",
    "BITBUCKET_BUILD_NUMBER",
    "BITRISE_IO",
    "BUILDKITE",
    "BUILD_ID",  # Jenkins, Google Cloud Build
    "CI",
    "CIRCLECI",
    "CIRRUS_CI",
    "CODEBUILD_BUILD_ID",
    "DRONE",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "JENKINS_URL",
    "SEMAPHORE",
    "TEAMCITY_VERSION",
    "TF_BUILD",  # Azure
    "TRAVIS",
    "WOODPECKER",
)
_COMMITS = (
    "CI_MERGE_REQUEST_TARGET_BRANCH_SHA",  # GitLab, where the merged result is what runs
    "CI_MERGE_REQUEST_DIFF_BASE_SHA",
    "BITBUCKET_PR_DESTINATION_COMMIT",
    "CIRRUS_BASE_SHA",
)
_BRANCHES = (
    "GITHUB_BASE_REF",
    "CI_MERGE_REQUEST_TARGET_BRANCH_NAME",
    "BITBUCKET_PR_DESTINATION_BRANCH",
    "SYSTEM_PULLREQUEST_TARGETBRANCH",
    "CHANGE_TARGET",  # Jenkins
    "BUILDKITE_PULL_REQUEST_BASE_BRANCH",
    "CIRRUS_BASE_BRANCH",
    "CI_COMMIT_TARGET_BRANCH",  # Woodpecker
    "BITRISEIO_GIT_BRANCH_DEST",
)
_BRANCHES_IF = (  # the branch of every build, which is the target where it is a pull request's
    ("TRAVIS_BRANCH", "TRAVIS_PULL_REQUEST"),
    ("APPVEYOR_REPO_BRANCH", "APPVEYOR_PULL_REQUEST_NUMBER"),
    ("DRONE_TARGET_BRANCH", "DRONE_PULL_REQUEST"),
)
_BEFORE = ("CI_COMMIT_BEFORE_SHA", "GIT_PREVIOUS_SUCCESSFUL_COMMIT")
_DEFAULT = ("CI_DEFAULT_BRANCH", "BUILDKITE_PIPELINE_DEFAULT_BRANCH", "DRONE_REPO_BRANCH", "CI_REPO_DEFAULT_BRANCH")
_MERGED = (("GITHUB_REF", "GITHUB_SHA"), ("BUILD_SOURCEBRANCH", "BUILD_SOURCEVERSION"))
_OTHERS = ("GITHUB_EVENT_PATH", *(name for pair in (*_BRANCHES_IF, *_MERGED) for name in pair))
VARIABLES = frozenset((*_SIGNS, *_COMMITS, *_BRANCHES, *_BEFORE, *_DEFAULT, *_OTHERS))
"""All that is asked."""
_NOT = ("", "false", "0")
_EVENT = Reader(BaselineError, "GitHub's event cannot be read", "see what GITHUB_EVENT_PATH names")


@dataclass(frozen=True)
class Told:
    """What CI says.

    Attributes:
        is_ci: whether this is one.
        commits: what the change is for, as commits.
        branches: the same, as branches.
        before: the commit that a push came after.
        default: the repository's default branch.
        merged: the commit that CI made by merging the change into its base.
        variable: where the target was told, for messages.
    """

    is_ci: bool = False
    commits: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    before: str | None = None
    default: str | None = None
    merged: str | None = None
    variable: str | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """What the change is for; nothing where it is not a pull request, or CI does not say."""
        return self.commits + self.branches


def read_ci(environ: Mapping[str, str]) -> Told:
    """Read CI's variables."""
    event = _event(environ)
    queued = _text(event, "merge_group", "base_sha")
    commits = {name: environ[name] for name in _COMMITS if _is_set(environ, name)}
    branches = {name: environ[name] for name in _BRANCHES if _is_set(environ, name)}
    branches |= {name: environ[name] for name, sign in _BRANCHES_IF if _is_set(environ, sign) and environ.get(name)}
    if queued:
        commits = {"GITHUB_EVENT_PATH": queued} | commits
    before = [environ[name] for name in _BEFORE if _is_set(environ, name)] + [_text(event, "before") or ""]
    default = [environ[name] for name in _DEFAULT if environ.get(name)]
    default.append(_text(event, "repository", "default_branch") or "")
    merges = [environ.get(sha) for ref, sha in _MERGED if environ.get(ref, "").endswith("/merge")]
    return Told(
        is_ci=bool(commits or branches) or any(_is_set(environ, name) for name in _SIGNS),
        commits=tuple(dict.fromkeys(commits.values())),
        branches=tuple(dict.fromkeys(name.removeprefix("refs/heads/") for name in branches.values())),
        before=next((one for one in before if one.strip("0")), None),
        default=default[0] or None,
        merged=next((one for one in merges if one), None),
        variable=next(iter([*commits, *branches]), None),
    )


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").strip().lower() not in _NOT


def _event(environ: Mapping[str, str]) -> Any:
    """GitHub's payload; None where there is none that can be read."""
    path = environ.get("GITHUB_EVENT_PATH")
    try:
        return _EVENT.read_json(Path(path)) if path else None
    except BaselineError:
        return None


def _text(values: Any, *path: str) -> str | None:
    for name in path:
        values = values.get(name) if isinstance(values, dict) else None
    return values if isinstance(values, str) and values else None
