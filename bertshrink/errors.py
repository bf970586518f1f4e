"""What can go wrong, and the exit code that says which kind it was.

Every failure that a user can cause or fix is a `BertshrinkError`: what happened, where, and how to fix it.
Nothing below `cli` prints or exits; `cli` catches these in one place and prints

    error: `prune_heads` has no setting `kep`
      --> recipes/edge.yaml:7:19
    hint: did you mean `keep`?

Anything else that escapes is a bug: exit code 70.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar


class BertshrinkError(Exception):
    """A failure with its place and its remedy.

    Args:
        what: one sentence, backticks around values, no full stop.
        where: a file with line and column, a flag, a path; None when the whole request is meant.
        hint: what to do about it; None only when nothing can be done.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def rename(self, old: str, new: str) -> None:
        """Say `new` wherever the error says `old`."""
        self.what = self.what.replace(old, new)
        self.where = self.where.replace(old, new) if self.where is not None else None
        self.hint = self.hint.replace(old, new) if self.hint is not None else None
        self.args = (self.what,)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


@contextmanager
def named_as_given(private: object, given: object) -> Iterator[None]:
    """Have errors inside name the folder that was given (None: the same) in the place of a private one made of it."""
    try:
        yield
    except BertshrinkError as error:
        if given is not None:
            error.rename(str(private), str(given))
        raise


class CheckFailed(BertshrinkError):
    """A check said no: parity, proof, a gate, a limit out of reach, training that diverged."""

    exit_code = 1


class UserError(BertshrinkError):
    """The request or its data is wrong: usage, recipe, missing path, unsupported family, labels.

    Attributes:
        setting: the technique's setting that is wrong, where it is one; the plan knows where that was written.

    """

    exit_code = 2

    def __init__(
        self, what: str, *, where: str | None = None, hint: str | None = None, setting: str | None = None
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.setting = setting


class MeasurementError(BertshrinkError):
    """No usable measurement: a worker died, hung, lied or gave NaN."""

    exit_code = 3


class BaselineError(BertshrinkError):
    """A baseline is missing or corrupt."""

    exit_code = 4


class UnsafeModel(BertshrinkError):
    """A model file is refused: corrupt, pickled, asking for remote code, at an unsafe path."""

    exit_code = 5


class MissingDependency(BertshrinkError):
    """A target, an engine or an optional part is not here."""

    exit_code = 6


class OutputError(BertshrinkError):
    """The disk is full or the place is not writable."""

    exit_code = 7


class UserErrors(UserError):
    """Several faults of one request, told together."""

    def __init__(self, faults: list[UserError]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle as the list of its faults."""
        return UserErrors, (list(self.faults),)


class Interrupted(BertshrinkError):
    """SIGINT asked for an end; what was done so far is kept."""

    exit_code = 130


class Terminated(BertshrinkError):
    """SIGTERM asked for an end; what was done so far is kept."""

    exit_code = 143


class Stopped(BaseException):
    """SIGTERM asked for an end where nothing can be kept.

    No `Exception`: a library that turns each of those into one of its own would make a fault of the model out of it.
    """


_OTHER_SPELLINGS = {
    **{"fp32": "float32", "f32": "float32", "float": "float32", "full": "float32"},
    **{"fp16": "float16", "f16": "float16", "half": "float16", "bf16": "bfloat16", "--explain": "--dry-run"},
}
"""What is called otherwise elsewhere, and looks like something else here."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is meant by another one; None where none is near."""
    options = list(known)
    same = _OTHER_SPELLINGS.get(word.lower())
    return same if same in options else next(iter(difflib.get_close_matches(word, options, n=1, cutoff=0.5)), None)


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the nearest known word; all of them where none is near."""
    options = list(known)
    near = nearest(word, options)
    return f"did you mean `{near}`?" if near else f"known: {', '.join(options)}" if options else None


def listed(items: Sequence[str], most: int = 3) -> str:
    """The first of several things, and how many more there are: `a, b, c and 2 more`."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
