"""Git, asked: where the repository is, which commits there are, and a commit's files.

Nothing is ever guessed from silence: that git is not installed, refuses the folder or does not answer is `GitSilent`,
with its reason and its remedy; None means that there is no repository at all. The variables that git sets for its hooks
(`GIT_DIR`, relative to a folder that is not ours) are left out where the folder is found without them.
"""

from __future__ import annotations

import os
import posixpath
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

TIMEOUT_S = 60
REMOTE_TIMEOUT_S = 15
_MAX_LINKS = 40
_LOCAL = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)
"""What `git rev-parse --local-env-vars` names, but for configuration given by variables (`safe.directory`)."""


class GitSilent(Exception):
    """There is a repository, and git cannot be asked about it.

    Args:
        why: the reason, as the end of "git cannot be queried: ...".
        hint: how to fix it.
    """

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


@dataclass(frozen=True)
class Repository:
    """A working tree."""

    root: Path
    environ: Mapping[str, str] = field(repr=False)

    def ask(self, *arguments: str, given: bytes | None = None, timeout_s: float = TIMEOUT_S) -> bytes | None:
        """What git prints; None where it fails. Raises GitSilent: it cannot be started, or does not answer in time."""
        done = _run(self.root, arguments, self.environ, given, timeout_s)
        return done.stdout if done.returncode == 0 else None

    def line(self, *arguments: str, timeout_s: float = TIMEOUT_S) -> str | None:
        """Likewise, the one line that it prints; None where it fails or prints none."""
        printed = self.ask(*arguments, timeout_s=timeout_s)
        return (printed.decode(errors="replace").strip() or None) if printed is not None else None

    def commit(self, ref: str) -> str | None:
        """The full name of a commit; None where git does not know it."""
        return self.line("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")

    def merge_base(self, first: str, second: str) -> str | None:
        """The best common ancestor of two commits; None where there is none, or none that a shallow clone knows."""
        ancestors = self.line("merge-base", first, second)
        return ancestors.split()[0] if ancestors else None

    @cached_property
    def is_shallow(self) -> bool:
        """Whether the history was cut when it was cloned."""
        return self.line("rev-parse", "--is-shallow-repository") == "true"

    def path_of(self, file: Path) -> str | None:
        """A file's path from the root, with slashes, links followed; None where it is outside."""
        whole = file.resolve()
        return whole.relative_to(self.root).as_posix() if whole.is_relative_to(self.root) else None

    def tree(self, commit: str) -> Tree:
        """A commit's files."""
        printed = self.ask("ls-tree", "-r", "-z", "--full-tree", commit)
        files = {}
        for line in (printed or b"").decode("utf-8", errors="surrogateescape").split("\0"):
            head, _, name = line.partition("\t")
            if name:
                mode, _, blob = head.split()
                files[name] = Blob(mode, blob)
        return Tree(self, commit, files)

    def blobs(self, names: Iterable[str]) -> dict[str, bytes]:
        """The contents of several blobs by their names, in one go."""
        names = list(dict.fromkeys(names))
        printed = self.ask("cat-file", "--batch", given="".join(f"{name}\n" for name in names).encode()) or b""
        contents, at = {}, 0
        for name in names:
            end = printed.find(b"\n", at)
            head = printed[at:end].split()
            if end < 0 or len(head) != 3:  # "<name> missing"
                at = end + 1 if end >= 0 else at
                continue
            size = int(head[2])
            contents[name] = printed[end + 1 : end + 1 + size]
            at = end + size + 2
        return contents


@dataclass(frozen=True)
class Blob:
    """A file of a commit: its mode (120000: a link, 160000: a submodule) and the name of its contents.

    How large it is is not asked: a clone without blobs would fetch them all.
    """

    mode: str
    name: str


@dataclass(frozen=True)
class Tree:
    """A commit's files by their paths from the root."""

    repository: Repository = field(repr=False)
    commit: str
    files: Mapping[str, Blob] = field(repr=False)

    def read(self, path: str) -> bytes | None:
        """A file's contents, links followed; None where it was not there."""
        place = self.followed(path)
        blob = self.files.get(place) if place is not None else None
        if blob is None or blob.mode == "160000":
            return None
        return self.repository.ask("cat-file", "blob", blob.name)

    def submodule_of(self, path: str) -> str | None:
        """The submodule that a path leads into, whose files this commit does not hold; None: it leads into none."""
        parents = (parent.as_posix() for parent in PurePosixPath(path).parents)
        return next((one for one in parents if one in self.files and self.files[one].mode == "160000"), None)

    def followed(self, path: str) -> str | None:
        """The path without links, of folders too; None where they lead out of the repository or in a circle."""
        parts, done, num_links = path.split("/"), "", 0
        while parts:
            done = posixpath.normpath(posixpath.join(done, parts.pop(0)))
            if done.startswith(".."):
                return None
            blob = self.files.get(done)
            if blob is not None and blob.mode == "120000":
                num_links += 1
                target = (self.repository.ask("cat-file", "blob", blob.name) or b"").decode(errors="replace")
                if num_links > _MAX_LINKS or target.startswith("/"):
                    return None
                parts, done = [*target.split("/"), *parts], posixpath.dirname(done)
        return done


def repository_of(folder: Path, environ: Mapping[str, str] = os.environ) -> Repository | None:
    """The repository that a folder is in; None where it is in none.

    Raises:
        GitSilent: it is in one, and git cannot be asked about it.
    """
    marked = next((one for one in (folder, *folder.parents) if (one / ".git").exists()), None)
    own = {name: value for name, value in environ.items() if name not in _LOCAL}
    tries = [own, dict(environ)] if own != dict(environ) else [own]
    told = ""
    for variables in tries:
        try:
            done = _run(folder, ("rev-parse", "--show-toplevel"), variables, None, TIMEOUT_S)
        except GitSilent:
            if marked is None:
                return None
            raise
        root = Path(os.fsdecode(done.stdout).rstrip("\n"))
        if done.returncode == 0 and folder.is_relative_to(root.resolve()):
            return Repository(root.resolve(), variables)
        told = told or done.stderr.decode(errors="replace").strip()
    if marked is None and "GIT_DIR" not in environ and "dubious ownership" not in told:
        return None
    first = (told.splitlines() or ["it names no working tree"])[0].removeprefix("fatal: ")
    if "dubious ownership" in told:
        where = marked or folder
        hint = f"if it is yours: `git config --global --add safe.directory {where}` before the gate"
        raise GitSilent(f"another user owns `{where}`, which git calls dubious ownership", hint)
    raise GitSilent(first, "make `git status` answer in this folder first")


def _run(
    folder: Path, arguments: Iterable[str], environ: Mapping[str, str], given: bytes | None, timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    quiet = {
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o ConnectTimeout=5",
        **environ,
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_DISCOVERY_ACROSS_FILESYSTEM": "1",
    }
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, timeout=timeout_s, check=False, env=quiet, input=given)
    except FileNotFoundError:
        hint = "install it: `apt-get install git`, `apk add git`, or an image that has it"
        raise GitSilent("it is not installed", hint) from None
    except OSError as error:
        raise GitSilent(f"it cannot be started: {error.strerror}", "fix the installation of git") from None
    except subprocess.TimeoutExpired:
        raise GitSilent(f"it did not answer within {timeout_s:.0f} seconds", "find out what blocks it") from None
