"""Which commit a change left its base at: what that commit holds judges the change, never what the change holds.

    --base                                 a branch or commit that is named
    what CI says the change is for         branches of the remotes, whatever those are called; commits as they are
    the default branch                     as CI or the remote calls it
    the commit before                      where CI runs on the base branch itself: a push, a tag, a nightly run
    nothing                                the first commit of all: whatever it holds is new

Outside of CI the base branch is judged by its own last commit, so that what is not committed yet is the change; and a
repository without a remote has its `main` (or what it is called) or the commit at hand. In CI nothing is guessed: where
no base is found (a clone of one commit, no remote), there is no verdict, exit code 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bertshrink.errors import BaselineError
from bertshrink.gates.baseline.ci import Told
from bertshrink.gates.baseline.git_queries import REMOTE_TIMEOUT_S, GitSilent, Repository

USUAL = ("main", "master", "trunk", "develop", "default")
_FETCH = "fetch it: `fetch-depth: 0` for actions/checkout, `GIT_DEPTH: 0` on GitLab, `git fetch --unshallow origin`"


@dataclass(frozen=True)
class Base:
    """What a change is compared with.

    Attributes:
        commit: None: the change is the first commit of all.
        name: for people.
    """

    commit: str | None
    name: str


def find_base(repository: Repository, named: str | None, told: Told) -> Base:
    """Find the base of the change that is checked out.

    Args:
        named: the branch or commit that a person named; None: find it.

    Raises:
        BaselineError: it is not known to git.
    """
    head = repository.commit("HEAD")
    if named is None and head is None and not told.is_ci:
        return Base(None, "the first commit")
    if head is None:
        raise _unknown(named or "the base branch")
    if named is not None:
        commit = repository.commit(named) or next((tip for _, tip in _on_remotes(repository, named)), None)
        return _left(repository, head, commit, named, told)
    if told.targets:
        return _told(repository, head, told)
    for name, commit in _defaults(repository, told):
        if told.is_ci or repository.merge_base(head, commit) is not None:
            return _left(repository, head, commit, name, told)
    if told.is_ci:
        raise BaselineError(
            "git knows no base branch here, so the baseline of this change is unknown",
            hint="name it with `--base`, or let CI clone the repository with its remote; " + _FETCH,
        )
    return Base(head, f"HEAD ({head[:10]})")


def _told(repository: Repository, head: str, told: Told) -> Base:
    """The base of a pull request: the first of what CI names that the clone knows."""
    known = [(name, commit) for name in told.commits if (commit := repository.commit(name)) is not None]
    known += [tip for branch in told.branches for tip in _on_remotes(repository, branch)]
    for name, commit in known:
        if repository.merge_base(head, commit) is not None:
            return _left(repository, head, commit, name, told)
    parents = _parents(repository, head)
    if told.merged is not None and repository.commit(told.merged) == head and len(parents) == 2:
        return Base(parents[0], f"{told.targets[-1]} ({parents[0][:10]})")
    raise _unknown(told.targets[-1])


def _left(repository: Repository, head: str, commit: str | None, name: str, told: Told) -> Base:
    """Where the change left that commit's branch; in CI, on the branch itself, the commit before.

    A pull request that has nothing to merge is what its working tree holds besides.
    """
    fork_point = repository.merge_base(head, commit) if commit is not None else None
    if fork_point is None:
        raise _unknown(name)
    if fork_point != head or not told.is_ci or told.targets:
        return Base(fork_point, f"{name} ({fork_point[:10]})")
    before = repository.commit(told.before) if told.before is not None else None
    before = repository.merge_base(head, before) if before is not None else None
    if before in (None, head):
        before = next(iter(_parents(repository, head)), None)
    if before is not None:
        return Base(before, f"{name}, the commit before ({before[:10]})")
    if repository.is_shallow:
        raise _unknown(f"the commit before {head[:10]}")
    return Base(None, "the first commit")


def _parents(repository: Repository, commit: str) -> list[str]:
    line = repository.line("rev-list", "--parents", "--max-count=1", commit)
    return (line or "").split()[1:]


def _remotes(repository: Repository) -> list[str]:
    """The names of the remotes, of those too that only left their branches here; `origin` first."""
    named = (repository.line("remote") or "").split()
    refs = (repository.line("for-each-ref", "--format=%(refname:lstrip=2)", "refs/remotes/") or "").split()
    left = [ref.partition("/")[0] for ref in refs if not any(ref.startswith(f"{name}/") for name in named)]
    return sorted({*named, *left}, key=lambda name: (name != "origin", name))


def _on_remotes(repository: Repository, branch: str) -> Iterator[tuple[str, str]]:
    """(name, commit) of a branch on each remote that has it."""
    for remote in _remotes(repository):
        if commit := repository.commit(f"refs/remotes/{remote}/{branch}"):
            yield f"{remote}/{branch}", commit


def _defaults(repository: Repository, told: Told) -> Iterator[tuple[str, str]]:
    """(name, commit) of what may be the default branch, the surest first. Raises BaselineError: CI did not fetch it."""
    if told.default is not None:
        yield from _on_remotes(repository, told.default)
        if told.is_ci:
            raise _unknown(told.default)
    remotes = _remotes(repository)
    for remote in remotes:
        ref = repository.line("symbolic-ref", "--quiet", f"refs/remotes/{remote}/HEAD")
        if ref and (commit := repository.commit(ref)):
            yield ref.removeprefix("refs/remotes/"), commit
    for remote in remotes:
        if branch := _asked(repository, remote):
            if commit := repository.commit(f"refs/remotes/{remote}/{branch}"):
                yield f"{remote}/{branch}", commit
            elif told.is_ci:
                raise _unknown(f"{remote}/{branch}")
    usual = [tip for branch in USUAL for tip in _on_remotes(repository, branch)]
    if not told.is_ci or len(usual) == 1:
        yield from usual
    if not told.is_ci:
        for branch in USUAL:
            if commit := repository.commit(f"refs/heads/{branch}"):
                yield branch, commit


def _asked(repository: Repository, remote: str) -> str | None:
    """A remote's default branch, as it says itself; None where it does not answer."""
    try:
        told = repository.line("ls-remote", "--symref", remote, "HEAD", timeout_s=REMOTE_TIMEOUT_S) or ""
    except GitSilent:
        return None
    first = told.split("\t")[0]
    return first.removeprefix("ref: refs/heads/") if first.startswith("ref: refs/heads/") else None


def _unknown(ref: str) -> BaselineError:
    return BaselineError(
        f"git finds no common commit with `{ref}`, so the baseline of this change is unknown", hint=_FETCH
    )
