"""More training texts, without labels, for a teacher to answer."""

from __future__ import annotations

from bertshrink.data.readers import read_sides
from bertshrink.data.settings import NONE, DataSettings
from bertshrink.data.texts import Split
from bertshrink.errors import UserError


def read_unlabelled(name: str, notes: list[str]) -> Split:
    """All texts of all sides, whatever labels they have; columns are known by name or by what is left.

    Raises:
        UserError: a second column of texts would not be read; else as in `read_sides`.
        MissingDependency: as there.
    """
    sides = list(read_sides(DataSettings(path=name, label=NONE), notes).values())
    for split in sides:
        if split.roles is not None and split.roles.second is not None:
            raise UserError(
                f"`{split.roles.second}` also holds texts, but only `{split.roles.text}` would be read",
                where=split.source,
                hint="give a file without that column",
            )
    pairs = None if sides[0].pairs is None else tuple(pair for side in sides for pair in side.pairs or ())
    return Split(tuple(text for side in sides for text in side.texts), pairs)
