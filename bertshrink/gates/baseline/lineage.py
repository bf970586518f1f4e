"""Which entry of a commit's locks is which artifact of today: by name, by place, or by a rename that is declared.

A change may move its folder, its configuration, its lock or an artifact, and name any of them again; what the commit
knew is found all the same:

    1. the configuration at the same path then, with the lock that it named then; where there is none, the one that has
       vanished since and is most like this one (`git mv a b`, from bertshrink.toml to pyproject.toml)
    2. of its lock, the entry of the same name
    3. of any lock of that commit, the entry of the artifact that was at the same path
    4. the entry that `renamed_from` declares, if nothing else claims it

What is left is new. What the configuration's lock knew, and nothing claims or declares as `removed`, is gone; so are,
where something is new, the entries of other configurations that have vanished.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertshrink.errors import BaselineError
from bertshrink.gates.baseline.git_queries import Repository, Tree
from bertshrink.gates.baseline.lock import Entry, parse
from bertshrink.gates.limits.config import LOCK, Config, Gated, artifacts_of, limits_of

_SAME_FOLDER = 100
_SAME_PART = 10


@dataclass(frozen=True)
class Committed:
    """A configuration with its lock, as a commit has them.

    Attributes:
        config: its path from the root of the repository; None: the lock is there alone.
        lock: the lock's path from the root.
        entries: of the lock, by name.
        paths: where each artifact that it names lay, by name.
    """

    config: str | None
    text: str
    limits: Any
    lock: str
    entries: Mapping[str, Entry]
    paths: Mapping[str, str]

    def is_named(self, name: str) -> bool:
        """Whether the configuration named this artifact: entries that are left over in a lock are not."""
        return self.config is None or name in self.paths


@dataclass(frozen=True)
class Gone:
    """An entry that a commit's lock has, and nothing of today claims."""

    name: str
    lock: str
    sha256: str


@dataclass(frozen=True)
class Lineage:
    """What a commit knows of today's artifacts.

    Attributes:
        ancestor: the configuration then, with its lock; None: there was none.
        entries: by the names of today.
        was: what those were called then, where that is another name or another lock.
        gone: what nothing claims.
    """

    ancestor: Committed | None
    entries: Mapping[str, Entry]
    was: Mapping[str, str]
    gone: tuple[Gone, ...]


def trace(tree: Tree, config: Config, *, lenient: bool = False) -> Lineage:
    """Find today's artifacts in the locks of a commit.

    Args:
        lenient: the commit is an old one, which need not know what `renamed_from` names.

    Raises:
        BaselineError: a lock is damaged, or a rename that is declared cannot be.
    """
    repository = tree.repository
    path = repository.path_of(Path(config.origin))
    own = _committed(tree, path) if path is not None else None
    if own is not None and all(one.name in own.entries for one in config.gated):
        return _claimed(repository, config, own, [], [], lenient)
    others = [committed for committed in _all(tree, path) if committed.config != path]
    vanished = [one for one in others if one.entries and _now(repository, str(one.config)) is None]
    if own is None:
        own = _moved(repository, path, config, others, vanished) or _lock_alone(tree, config, others)
    vanished = [one for one in vanished if own is None or one.config != own.config]
    return _claimed(repository, config, own, others, vanished, lenient)


def _claimed(
    repository: Repository,
    config: Config,
    own: Committed | None,
    others: list[Committed],
    vanished: list[Committed],
    lenient: bool,
) -> Lineage:
    """Give each artifact its entry, and see what is left."""
    taken: dict[str, tuple[Committed, str]] = {}
    for one in config.gated:
        if own is not None and one.name in own.entries:
            taken[one.name] = (own, one.name)
    for one in config.gated:
        place = _place(repository, config, one.path)
        at_place = ((then, name) for then, name in _named([own, *others]) if then.paths.get(name) == place)
        if one.name not in taken and (free := next((f for f in at_place if f not in taken.values()), None)):
            taken[one.name] = free
    for one in config.gated:
        if one.name not in taken and one.renamed_from is not None:
            renamed = _renamed(repository, config, one, own, others, vanished, taken)
            if renamed is not None:
                taken[one.name] = renamed
            elif not lenient:
                raise _no_rename(one, own, vanished)
    sources = [own] if own is not None else []
    if own is None or any(one.name not in taken for one in config.gated):
        sources += vanished
    ends = {(then.lock, name) for then, name in taken.values()}
    gone = [
        Gone(name, then.lock, then.entries[name].sha256)
        for then, name in _named(sources)
        if then.is_named(name) and (then.lock, name) not in ends and not _removed(config, then, name)
    ]
    was = {
        now: name if then is own else f"{name} ({then.lock})"
        for now, (then, name) in taken.items()
        if then is not own or now != name
    }
    return Lineage(own, {now: then.entries[name] for now, (then, name) in taken.items()}, was, tuple(gone))


def _named(sources: Iterable[Committed | None]) -> Iterator[tuple[Committed, str]]:
    for then in sources:
        if then is not None:
            yield from ((then, name) for name in then.entries)


def _renamed(
    repository: Repository,
    config: Config,
    one: Gated,
    own: Committed | None,
    others: list[Committed],
    vanished: list[Committed],
    taken: Mapping[str, tuple[Committed, str]],
) -> tuple[Committed, str] | None:
    """The entry that `renamed_from` means: a name of the own lock or of a vanished one, else a path."""
    assert one.renamed_from is not None
    old = one.renamed_from
    places = {_place(repository, config, Path(old)), posixpath.normpath(old)}
    matches = [(then, name) for then, name in _named([own, *vanished]) if name == old]
    matches += [(then, name) for then, name in _named([own, *others]) if then.paths.get(name) in places]
    for then, name in matches:
        if (then, name) in taken.values() or (then is not own and name in _names_now(repository, then)):
            raise BaselineError(
                f"`{one.name}` is declared as renamed from `{old}`, which is still judged",
                where=one.place,
                hint="remove `renamed_from`: an artifact that is added beside it is new",
            )
    return matches[0] if matches else None


def _no_rename(one: Gated, own: Committed | None, vanished: list[Committed]) -> BaselineError:
    known = [f"`{name}`" for then, name in _named([own, *vanished]) if then.is_named(name)]
    return BaselineError(
        f"`{one.name}` is declared as renamed from `{one.renamed_from}`, which is not in the baseline",
        where=one.place,
        hint=f"the baseline contains {', '.join(known)}" if known else "remove `renamed_from` if the artifact is new",
    )


def _removed(config: Config, then: Committed, name: str) -> bool:
    """Whether the change declares that this artifact is removed: by its name, or by its path from the root."""
    return bool({name, then.paths.get(name, name)} & {posixpath.normpath(one) for one in config.removed}) or (
        name in config.removed
    )


def _place(repository: Repository, config: Config, path: Path) -> str:
    """An artifact's path from the root of the repository; as it is where it is outside."""
    whole = Path(posixpath.normpath((config.folder / path).as_posix()))
    return whole.relative_to(repository.root).as_posix() if whole.is_relative_to(repository.root) else whole.as_posix()


def _committed(tree: Tree, path: str, text: bytes | None = None, *, is_own: bool = True) -> Committed | None:
    """The configuration at a path with its lock; None without limits. Only the own lock may not be damaged."""
    content = text if text is not None else tree.read(path)
    shown = content.decode("utf-8-sig", errors="replace") if content is not None else ""
    limits = limits_of(shown, posixpath.basename(path)) if content is not None else None
    if not isinstance(limits, dict):
        return None
    folder = posixpath.dirname(tree.followed(path) or path)
    baseline = limits.get("baseline")
    lock = posixpath.normpath(posixpath.join(folder, baseline if isinstance(baseline, str) else LOCK))
    try:
        entries = _entries(tree, lock)
    except BaselineError:
        if is_own:
            raise
        entries = {}
    paths = {name: posixpath.normpath(posixpath.join(folder, own)) for name, own in artifacts_of(limits).items()}
    return Committed(path, shown, limits, lock, entries, paths)


def _entries(tree: Tree, lock: str) -> Mapping[str, Entry]:
    text, where = tree.read(lock), f"{lock} of {tree.commit[:10]}"
    if (inner := tree.submodule_of(lock)) is not None:
        hint = f"keep it in the repository of the limits, not in `{inner}`: `baseline = PATH`"
        raise BaselineError(
            "the lock is in a submodule, whose files are not part of a change here", where=where, hint=hint
        )
    return parse(text.decode("utf-8-sig", errors="replace"), where).artifacts if text is not None else {}


def _all(tree: Tree, path: str | None) -> list[Committed]:
    """Every configuration, with its lock."""
    kinds = {".toml", posixpath.splitext(path)[1] if path is not None else ".toml"}
    files = {
        name: blob.name
        for name, blob in tree.files.items()
        if posixpath.splitext(name)[1] in kinds and blob.mode != "160000"
    }
    texts = tree.repository.blobs(files.values())
    configurations = (
        _committed(tree, name, texts[blob], is_own=False)
        for name, blob in files.items()
        if b"gate" in texts.get(blob, b"")
    )
    return [one for one in configurations if one is not None]


def _now(repository: Repository, path: str) -> Any:
    """The table of limits in a file of the working tree; None where there is none."""
    try:
        text = (repository.root / path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    return limits_of(text, posixpath.basename(path))


def _names_now(repository: Repository, then: Committed) -> set[str]:
    limits = _now(repository, then.config) if then.config is not None else None
    return set(artifacts_of(limits))


def _moved(
    repository: Repository, path: str | None, config: Config, others: list[Committed], vanished: list[Committed]
) -> Committed | None:
    """The vanished configuration that this one was; each new configuration of the working tree was at most one."""
    if not vanished or path is None:
        return None
    printed = repository.ask("ls-files", "-z", "-c", "-o", "--exclude-standard", "--", "*.toml") or b""
    new = {path: {one.name for one in config.gated}}
    known = {one.config for one in others}
    for name in printed.decode("utf-8", errors="surrogateescape").split("\0"):
        if name and name not in new and name not in known and isinstance(limits := _now(repository, name), dict):
            new[name] = set(artifacts_of(limits))
    pairs = sorted(
        ((_likeness(then, name, names), then, name) for then in vanished for name, names in new.items()),
        key=lambda pair: (-pair[0], str(pair[1].config), pair[2]),
    )
    origins: dict[str, Committed] = {}
    for likeness, then, name in pairs:
        is_free = name not in origins and then not in origins.values()
        if is_free and (likeness > 0 or len(vanished) == len(new) == 1):
            origins[name] = then
    return origins.get(path)


def _likeness(then: Committed, path: str, names: set[str]) -> int:
    assert then.config is not None
    old, new = then.config.split("/"), path.split("/")
    same = 0
    while same < min(len(old), len(new)) and old[-1 - same] == new[-1 - same]:
        same += 1
    folder = _SAME_FOLDER if old[:-1] == new[:-1] else 0
    return folder + same * _SAME_PART + len(names & set(then.entries))


def _lock_alone(tree: Tree, config: Config, others: list[Committed]) -> Committed | None:
    """The lock at today's path, where no configuration of the commit names it: this one was not committed."""
    path = tree.repository.path_of(config.folder / config.lock)
    if path is None or any(one.lock == path for one in others):
        return None
    entries = _entries(tree, path)
    return Committed(None, "", None, path, entries, {}) if entries else None
