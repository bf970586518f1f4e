"""Values with the places where they were written, and the faults that are found in them, each with its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from bertshrink.errors import BertshrinkError, UserError, UserErrors

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class LocatedConfig:
    """Where a recipe was written: a file's text, or flags of a command line.

    Attributes:
        origin: the file's name, or `command line`.
        values: plain values.
        places: path of keys and indices -> what to print as the place.
    """

    origin: str
    values: dict[str, Any]
    places: dict[Path, str] = field(default_factory=dict)

    def place(self, path: Iterable[str | int]) -> str:
        """The place of a value, or of the nearest thing around it."""
        nearest = tuple(path)
        while nearest and nearest not in self.places:
            nearest = nearest[:-1]
        return self.places.get(nearest, self.origin)


@dataclass(frozen=True)
class Checker:
    """Takes down what is wrong with a configuration, so that all of it is told at once.

    Attributes:
        source: what is checked.
        path: the value that is looked at.
        faults: those of the whole source, whichever of its values is looked at.
    """

    source: LocatedConfig
    path: Path = ()
    faults: list[BertshrinkError] = field(default_factory=list)

    def at(self, *path: str | int) -> Checker:
        """A checker of a value within this one."""
        return replace(self, path=(*self.path, *path))

    @property
    def place(self) -> str:
        """Where the value was written."""
        return self.source.place(self.path)

    def error(self, what: str, hint: str | None = None) -> None:
        """Take down a fault of this value."""
        self.faults.append(UserError(what, where=self.place, hint=hint))

    def add(self, error: BertshrinkError) -> None:
        """Take down a fault that was raised; where it says no place it is about this value."""
        error.where = error.where or self.place
        self.faults.append(error)

    def raise_faults(self) -> None:
        """End here where there are faults.

        Raises:
            UserErrors: several; a single one is raised as itself.
            BertshrinkError: the first that is no mistake in what is asked, where there is one.
        """
        others = [fault for fault in self.faults if not isinstance(fault, UserError)]
        if others or len(self.faults) == 1:
            raise [*others, *self.faults][0]
        if self.faults:
            raise UserErrors([fault for fault in self.faults if isinstance(fault, UserError)])
