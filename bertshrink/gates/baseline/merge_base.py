"""The lock as it was before this change: read from git, so that nobody can move a baseline and pass in one step.

    base.py        the commit that the change left its base at
    lineage.py     what that commit's locks know of today's artifacts, wherever they, the lock or the limits have moved
    this file      what a change is compared with, in one piece

In CI there is no verdict where git cannot be queried: exit code 4. Elsewhere the working tree's own lock judges then,
and that is said: without git there is nothing else.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertshrink.errors import BaselineError
from bertshrink.gates.baseline.base_commit import Base, find_base
from bertshrink.gates.baseline.ci import Told, read_ci
from bertshrink.gates.baseline.git_queries import GitSilent, Repository, repository_of
from bertshrink.gates.baseline.lineage import Gone, Lineage, trace
from bertshrink.gates.baseline.lock import Lock, read_lock
from bertshrink.gates.limits.config import Config, limits_of


@dataclass(frozen=True)
class Baseline:
    """What figures are compared with.

    Attributes:
        lock: its entries by the names of today; None where there is none.
        origin: for people: where it was read.
        now: the lock of the working tree; None where there is none.
        notes: what one should know, one sentence each.
        is_base: the lock is that of the base: what it does not know is new in this change. Else it is the working
            tree's own, or a run's reference.
        was: what artifacts were called in it, where that is another name.
        gone: what it knows and no artifact claims.
        repository: where anchors are looked up; None: there is none.
    """

    lock: Lock | None
    origin: str
    now: Lock | None
    notes: tuple[str, ...] = ()
    is_base: bool = False
    was: Mapping[str, str] | None = None
    gone: tuple[Gone, ...] = ()
    repository: Repository | None = None


def read_baseline(config: Config, base: str | None = None, environ: Mapping[str, str] = os.environ) -> Baseline:
    """The baseline of a working tree.

    Args:
        base: the branch or commit that a person named; None: find it.

    Raises:
        BaselineError: a lock is damaged, or the base is not known to git.
    """
    told = read_ci(environ)
    now = read_lock(config.folder / config.lock)
    try:
        repository = repository_of(config.folder, environ)
        if repository is None:
            why = "there is no git repository here"
            return _own(config, now, why, "check out the change with git, with its history", base, told)
        return _of_base(repository, config, now, base, told)
    except GitSilent as error:
        return _own(config, now, f"git cannot be queried: {error.why}", error.hint, base, told)


def read_anchor(config: Config, ref: str, was: Mapping[str, str], baseline: Baseline) -> Lock:
    """The lock of a tag or commit, its entries by the names of today.

    Args:
        was: earlier names of artifacts, where nothing else says so.

    Raises:
        BaselineError: git does not know it, it has no lock, or a damaged one.
    """
    repository = baseline.repository
    commit = repository.commit(ref) if repository is not None else None
    if repository is None or commit is None:
        raise BaselineError(
            f"git knows no commit `{ref}`, which limits are anchored to",
            where=config.origin,
            hint="fetch its tags: `fetch-depth: 0` for actions/checkout, `GIT_DEPTH: 0` on GitLab, `git fetch --tags`",
        )
    renamed = tuple(replace(one, renamed_from=one.renamed_from or was.get(one.name)) for one in config.gated)
    lineage = trace(repository.tree(commit), replace(config, gated=renamed), lenient=True)
    if lineage.ancestor is None and not lineage.entries:
        raise BaselineError(f"`{ref}` has no `{config.lock.as_posix()}`", hint="name a commit that has one")
    return Lock(artifacts=dict(lineage.entries))


def _own(config: Config, now: Lock | None, why: str, hint: str, base: str | None, told: Told) -> Baseline:
    """The working tree's own lock, where a person judges on their own machine; never where a base is known to be."""
    origin = f"{config.lock.as_posix()} of the working tree"
    if now is None and not any(rule.needs_baseline for one in config.gated for rule in one.rules):
        return Baseline(None, "none is asked for", None, (f"{why}: the base is not read",))
    if told.is_ci or base is not None or config.base is not None:
        asked = f"`{base or config.base}` is the base" if not told.is_ci else "this is CI"
        asked = f"{told.variable} names a base" if told.variable is not None else asked
        raise BaselineError(f"{why}, and {asked}: the baseline of this change is not known", hint=hint)
    notes = (f"{why}: the lock of the working tree is used, which this change may have edited ({hint})",)
    return Baseline(now, origin, now, notes if now is not None else (why,))


def _of_base(repository: Repository, config: Config, now: Lock | None, named: str | None, told: Told) -> Baseline:
    base, notes = _base(repository, config, named, told)
    lock = config.lock.as_posix()
    if base.commit is None:
        return Baseline(None, base.name, now, notes, is_base=True, repository=repository)
    tree = repository.tree(base.commit)
    lineage = trace(tree, config)
    origin = f"{_short(repository, config, lineage.ancestor.lock) if lineage.ancestor else lock} of {base.name}"
    if not lineage.entries and (lineage.ancestor is None or not lineage.ancestor.entries):
        notes += (f"`{lock}` is not in {base.name} yet: everything in it is new",) if now is not None else ()
        return Baseline(None, origin, now, notes, is_base=True, gone=lineage.gone, repository=repository)
    if now is None and lineage.entries:
        hint = "restore it from git, or write it again with `bertshrink gate --update`"
        raise BaselineError(f"`{lock}` is removed in this change", where=origin, hint=hint)
    notes += _moves(repository, config, lineage, base, now)
    return Baseline(
        Lock(artifacts=dict(lineage.entries)), origin, now, notes, True, lineage.was, lineage.gone, repository
    )


def _base(repository: Repository, config: Config, named: str | None, told: Told) -> tuple[Base, tuple[str, ...]]:
    """The base, and what is to be said of it. In CI `base =` counts as the base has it, not as the change sets it."""
    over = _super(repository, told) if named is None else None
    if over is not None:
        return over, ()
    if named is not None or told.targets or (config.base is None and not told.is_ci):
        return find_base(repository, named, told), ()
    if not told.is_ci:
        return find_base(repository, config.base, told), ()
    base = find_base(repository, None, told)
    path = repository.path_of(Path(config.origin))
    text = repository.tree(base.commit).read(path) if base.commit is not None and path is not None else None
    limits = limits_of(text.decode("utf-8-sig", errors="replace"), posixpath.basename(str(path))) if text else None
    then = limits.get("base") if isinstance(limits, dict) else None
    if isinstance(then, str):
        return find_base(repository, then, told), ()
    return base, (f"`base = {config.base}` is new in this change and takes effect afterwards",) if config.base else ()


def _super(repository: Repository, told: Told) -> Base | None:
    """The base of a submodule in CI: what the base of the repository around it has there; None: it is none."""
    around = repository.line("rev-parse", "--show-superproject-working-tree") if told.is_ci else None
    if around is None:
        return None
    outer = repository_of(Path(around).resolve(), repository.environ)
    if outer is None:
        return None
    base = find_base(outer, None, told)
    if base.commit is None:
        return base
    path = outer.path_of(repository.root)
    files = outer.tree(base.commit).files
    blob = files.get(str(path))
    if blob is None and any(name.startswith(f"{path}/") for name in files):
        hint = "name the commit that it came from with `--base`"
        raise BaselineError(f"`{path}` has become a submodule in this change", hint=hint)
    if blob is None:
        return Base(None, f"{base.name}, which has no `{path}`")
    if repository.commit(blob.name) is None:
        raise BaselineError(
            f"the submodule `{path}` is at {blob.name[:10]} in {base.name}, which is not fetched",
            hint="fetch submodules whole: `git submodule foreach git fetch --unshallow`",
        )
    return Base(blob.name, f"{base.name}, there at {blob.name[:10]}")


def _moves(repository: Repository, config: Config, lineage: Lineage, base: Base, now: Lock | None) -> tuple[str, ...]:
    """What a change does to its lock and its limits besides what they limit, one sentence each."""
    notes, then, lock = [], lineage.ancestor, config.lock.as_posix()
    path = repository.path_of(config.folder / config.lock)
    if then is not None and then.lock != path:
        notes.append(f"the lock has moved in this change, from `{then.lock}`: the baseline is that of {base.name}")
    elif now is not None and now.artifacts != (then.entries if then is not None else lineage.entries):
        notes.append(f"`{lock}` is edited in this change: the baseline is that of {base.name}")
    if then is not None and then.config is not None:
        own = repository.path_of(Path(config.origin))
        if then.config != own:
            notes.append(f"the limits have moved in this change, from `{then.config}`")
        changed = _edits(then.limits, limits_of(_text(Path(config.origin)), Path(config.origin).name))
        if changed:
            notes.append(f"the limits in `{config.origin}` are edited in this change: {', '.join(changed)}")
    notes += [f"`{name}` is judged as what was `{old}`" for name, old in lineage.was.items()]
    return tuple(notes)


def _short(repository: Repository, config: Config, lock: str) -> str:
    """The lock's path as the configuration writes it, where that is the one; else from the root."""
    return config.lock.as_posix() if repository.path_of(config.folder / config.lock) == lock else lock


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""


def _edits(before: Any, now: Any, at: str = "") -> list[str]:
    """The keys whose values differ, each with what it was and what it is."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [one for key in keys for one in _edits(before.get(key), now.get(key), f"{at}.{key}" if at else str(key))]
    if before == now:
        return []
    if now is None:
        return [f"`{at}`{_shown(before)} is gone"]
    return [f"`{at}`{_shown(now)} is new" if before is None else f"`{at}`{_shown(before)} to{_shown(now)}"]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f" {value['limit']} ({value.get('severity', 'fail')})" if "limit" in value else ""
    return f" {value}"
