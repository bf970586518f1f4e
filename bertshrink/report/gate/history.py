"""The lock as it stood before this change: read from git, so that nobody can move a baseline and pass in one step.

    the change's merge base with its base branch      in a pull request, in a branch
    the commit itself                                 on the base branch
    the working tree                                  without git, or where the lock is new in this change

The base branch is the one that is named (`--base`, `base =`), else what GitHub or GitLab say the change is for, else
origin's default branch, else `main` or `master`. Where a base was named or a CI says there is one, and git does not
know it (a clone of one commit only), nothing is judged: exit code 4.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bertshrink.errors import BaselineError
from bertshrink.report.gate.lock import Lock, parse, read_lock

_CI = (
    # variable, how the ref is made of it
    ("GITHUB_BASE_REF", "origin/{}"),
    ("CI_MERGE_REQUEST_DIFF_BASE_SHA", "{}"),
    ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "origin/{}"),
)
_USUAL = ("origin/HEAD", "origin/main", "origin/master", "main", "master")
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Baseline:
    """What figures are compared with.

    Attributes:
        lock: None where there is none.
        origin: for people: where it was read.
        now: the lock of the working tree; None where there is none.
        notes: what one should know, one sentence each.
        commit: the commit that it was read from; None: the working tree.
    """

    lock: Lock | None
    origin: str
    now: Lock | None
    notes: tuple[str, ...] = ()
    commit: str | None = None


def read_baseline(folder: Path, lock: Path, base: str | None, environ: Mapping[str, str] = os.environ) -> Baseline:
    """The baseline of a working tree.

    Args:
        folder: of the configuration.
        lock: the lock's path, relative to it.
        base: the branch or commit that is named; None: find it.
        environ: of the CI.

    Raises:
        BaselineError: a lock is damaged, or the base is not known to git.
    """
    path = folder / lock
    if _git(folder, "rev-parse", "--verify", "--quiet", "HEAD") is None:
        if base is not None:
            raise _unknown(base)
        now = read_lock(path)
        return Baseline(now, str(lock), now)
    commit, name = _merge_base(folder, base, environ)
    text = _at(folder, commit, lock) if commit is not None else None
    old = parse(text, f"{lock} of {name}") if text is not None else None
    now = read_lock(path)
    origin = f"{lock} of {name}"
    if old is None:
        why = f"is not in {name} yet" if commit is not None else "has no base branch to be read from"
        notes = (f"`{lock}` {why}: the working tree's own is the baseline",) if now is not None else ()
        return Baseline(now, f"{lock} of the working tree", now, notes)
    if now is None:
        hint = "restore it from git, or write it anew with `bertshrink gate --update`"
        raise BaselineError(f"`{lock}` is removed in this change", where=origin, hint=hint)
    edited = (f"`{lock}` is edited in this change: the baseline is that of {name}",) if now != old else ()
    return Baseline(old, origin, now, edited, commit)


def file_then(folder: Path, baseline: Baseline, path: Path) -> str | None:
    """A file's text as it stood where the baseline was read; None where that is the working tree, or had none."""
    return _at(folder, baseline.commit, path) if baseline.commit is not None else None


def read_anchor(folder: Path, lock: Path, ref: str) -> Lock:
    """The lock of a tag or commit.

    Raises:
        BaselineError: git does not know it, it has no lock, or a damaged one.
    """
    commit = _commit(folder, ref)
    if commit is None:
        raise _unknown(ref)
    text = _at(folder, commit, lock)
    if text is None:
        raise BaselineError(f"`{ref}` has no `{lock}`", hint="name a commit that has one")
    return parse(text, f"{lock} of {ref}")


def _merge_base(folder: Path, base: str | None, environ: Mapping[str, str]) -> tuple[str | None, str]:
    """(the commit whose lock counts, its name); no commit where no base branch is found at all."""
    named = base or next((form.format(environ[name]) for name, form in _CI if environ.get(name)), None)
    for ref in (named,) if named else _USUAL:
        if _commit(folder, ref) is None:
            continue
        found = _git(folder, "merge-base", "HEAD", str(_commit(folder, ref)))
        if found:
            return found.strip(), f"{ref} ({found.strip()[:10]})"
        if named:
            break
    if named:
        raise _unknown(named)
    return None, "the base branch"


def _unknown(ref: str) -> BaselineError:
    return BaselineError(
        f"git finds no common commit with `{ref}`, so that the baseline of this change is not known",
        hint="fetch it: `fetch-depth: 0` for actions/checkout, `GIT_DEPTH: 0` on GitLab, `git fetch origin`",
    )


def _commit(folder: Path, ref: str) -> str | None:
    found = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    return found.strip() if found else None


def _at(folder: Path, commit: str, path: Path) -> str | None:
    """A file's text in a commit; None where it was not there."""
    return _git(folder, "show", f"{commit}:./{path.as_posix()}")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails or is not installed."""
    command = ["git", "-C", str(folder), *arguments]
    quiet = {**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False, env=quiet)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", errors="replace") if done.returncode == 0 else None
