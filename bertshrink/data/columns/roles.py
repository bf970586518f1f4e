"""Which column is the text, which the second text, which the label; and what to ask where that is not clear.

    told          `text:`, `pair:`, `label:` of the data's settings; `none` says that there is none
    by name       the names of `guesses`, whatever else is there
    what is left  one column beside a known one, or two of which one holds texts and one few different values

Anything else is asked for, with every column and its first cell. Of two columns of labels one is taken only where they
say the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertshrink.data.columns import guesses as looks
from bertshrink.data.columns.guesses import Look, look, plain
from bertshrink.data.settings import NONE, DataSettings
from bertshrink.data.tables.table import Table
from bertshrink.errors import UserError

_CELL = 48


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are.

    Attributes:
        table: the table without its cells: its name, and where its rows are.
        text: column of the texts, or of the words of each.
        pair: of the second texts.
        labels: of the labels; several hold 0 or 1 each.
        left_out: columns that are not read -> why.
        second: a column that holds texts, too, and is not read though nobody said so.
        maybe_labels: columns that may hold labels, where none is taken and nobody said so.
        num_rows: of the table.
        num_empty: rows without text, which are left out.
        num_unjudged: rows whose label says that there is none (`-`, or -1 of numbered classes).
        absent: what to say of a column of labels that is named and not there; a side that only tests may lack it.
    """

    table: Table
    text: str
    pair: str | None = None
    labels: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    second: str | None = None
    maybe_labels: tuple[str, ...] = ()
    num_rows: int = 0
    num_empty: int = 0
    num_unjudged: int = 0
    absent: UserError | None = None

    @property
    def used(self) -> set[str]:
        """The columns with a role."""
        return {self.text, *([self.pair] if self.pair is not None else []), *self.labels}

    @property
    def is_score(self) -> bool:
        """Whether the label column is one of scores by its name."""
        return len(self.labels) == 1 and plain(self.labels[0]) in looks.SCORES


def find_roles(table: Table, settings: DataSettings) -> Roles:
    """The roles of a table of texts.

    Raises:
        UserError: a column that is named and not there, or roles that are not clear.
    """
    return _Search(table, settings).roles()


class _Search:
    """One table's roles, so that the steps read as steps."""

    def __init__(self, table: Table, settings: DataSettings) -> None:
        self.table = table
        self.columns = list(table.columns)
        self.settings = settings
        self._looks: dict[str, Look] = {}
        self.absent: UserError | None = None
        self.labels: tuple[str, ...] = ()
        try:
            self.labels = asked_labels(table, settings)
        except UserError as error:
            self.absent = error
        self.pair = asked_column(table, settings.pair)
        self.text = asked_column(table, settings.text)

    def roles(self) -> Roles:
        if self.text is None:
            self._find_text()
        assert self.text is not None
        if self.settings.label is None and not self.labels:
            self._find_label()
        left_out = {name: self._why(name) for name in self.columns if name not in self._used()}
        return Roles(
            self.table.bare(),
            self.text,
            self.pair,
            self.labels,
            left_out,
            second=self._second(),
            maybe_labels=() if self.labels or self.settings.label is not None else self._maybe_labels(),
            absent=self.absent,
        )

    def _look(self, name: str) -> Look:
        if name not in self._looks:
            self._looks[name] = look(self.table.columns[name])
        return self._looks[name]

    def _used(self) -> set[str]:
        return {name for name in (self.text, self.pair, *self.labels) if name is not None}

    def _left(self) -> list[str]:
        """Columns without a role that could have one."""
        return [
            name
            for name in self.columns
            if name not in self._used() and not looks.is_id(name) and self._look(name).filled
        ]

    def _why(self, name: str) -> str:
        if not self._look(name).filled:
            return "empty"
        return "ids" if looks.is_id(name) else self._look(name).words

    def _find_text(self) -> None:
        """The column of the texts and maybe that of the second ones: by their names, else by what is left."""
        names = {plain(name): name for name in reversed(self.columns) if name not in self.labels}
        for first, second in looks.PAIRS:
            if first in names and second in names and self.pair in (None, names[second]) and self._hold(names, first):
                self.text = names[first]
                if self.settings.pair is None:
                    self.pair = names[second]
                return
        for name in looks.TEXTS:
            if name in names and names[name] != self.pair and self._hold(names, name):
                self.text = names[name]
                return
        left = self._left()
        if len(self.columns) == 1:
            self.text = left[0] if left else self.columns[0]
        elif len(left) == 1 and (self.labels or self.pair):
            self.text = left[0]
        elif len(left) == 2 and not self.pair and not self.labels:
            self._of_two(left)
        if self.text is None or not self._may_be_text(self.text):
            raise self._asked("cannot tell which column holds the text")

    def _hold(self, names: Mapping[str, str], name: str) -> bool:
        """Whether a column of a known name holds texts at all and not only lists."""
        return not self._look(names[name]).is_listed

    def _may_be_text(self, name: str) -> bool:
        seen = self._look(name)
        return not seen.is_listed and (not seen.is_number or len(self.columns) == 1)

    def _of_two(self, left: Sequence[str]) -> None:
        """Of two columns the one that holds texts, where the other is clearly its label."""
        for text, label in (left, left[::-1]):
            by_name = plain(label) in looks.LABELS
            other = plain(text) not in looks.LABELS
            seen, beside = self._look(text), self._look(label)
            is_apart = seen.distinct > beside.distinct and beside.is_label and not beside.is_text
            if other and ((by_name and not seen.is_number) or (seen.is_text and is_apart)):
                self.text = text
                if self.settings.label is None:
                    self.labels = (label,)
                return

    def _find_label(self) -> None:
        """The label's column: by its name, or the only one that is left; who names the text names the label, too."""
        if known := self._known_labels():
            self.labels = (self._agreed(known),)
        elif self.settings.text is None and len(left := self._left()) == 1 and self._may_be_label(left[0]):
            self.labels = (left[0],)

    def _may_be_label(self, name: str) -> bool:
        return self._look(name).is_label and not self._look(name).is_text

    def _known_labels(self) -> list[str]:
        """Columns of labels by their names, best first."""
        free = [name for name in self.columns if name not in self._used() and self._look(name).filled]
        return [name for known in looks.LABELS for name in free if plain(name) == known]

    def _agreed(self, known: Sequence[str]) -> str:
        """The first of several columns of labels, where all say the same."""
        first = known[0]
        for other in known[1:]:
            if not _say_the_same(self.table.columns[first], self.table.columns[other]):
                raise self._asked(f"`{first}` and `{other}` both look like labels, and they disagree")
        return first

    def _second(self) -> str | None:
        """A column that is a second text and is not read, where nobody said which texts are."""
        if self.settings.text is not None or self.settings.pair is not None:
            return None
        for name in self._left():
            seen = self._look(name)
            is_known = plain(name) in looks.SECONDS or plain(name) in looks.TEXTS
            is_free = is_known and not seen.is_number and not seen.is_listed
            if (is_free or seen.is_text) and not looks.is_parse(name):
                return name
        return None

    def _maybe_labels(self) -> tuple[str, ...]:
        return tuple(name for name in self._left() if self._may_be_label(name))

    def _asked(self, what: str) -> UserError:
        return asked(self.table, what, self._looks)


def asked_column(table: Table, name: str | None) -> str | None:
    """The column that is named; None where none is. Blanks around it and its case matter only between several.

    Raises:
        UserError: there is none of that name, or several.
    """
    if name is None or name in table.columns:
        return name
    if name == NONE:
        return None
    matches = [column for column in table.columns if plain(column) == plain(name)]
    if len(matches) == 1:
        return matches[0]
    raise asked(
        table, f"there {'is no' if not matches else 'are several'} column{'s' * bool(matches)} `{shown(name)}`", {}
    )


def asked_labels(table: Table, settings: DataSettings) -> tuple[str, ...]:
    """The label columns that are named: one, or several divided by commas. Raises UserError: one is not there."""
    name = settings.label
    if name is None:
        return ()
    if name not in table.columns and "," in name:
        columns = [asked_column(table, part.strip()) for part in name.split(",")]
        if len(set(columns)) == len(columns) and None not in columns:
            return tuple(column for column in columns if column is not None)
        raise asked(table, f"`{name}` does not name each column once", {})
    one = asked_column(table, name)
    return (one,) if one is not None else ()


def asked(table: Table, what: str, seen: Mapping[str, Look]) -> UserError:
    """What is asked where roles are not clear: every column with its first cell, and what settles it."""
    rows = [(name, next((cell for cell in cells if not looks.is_empty(cell)), "")) for name, cells in _items(table)]
    width = min(32, max((len(shown(name, 32)) for name, _ in rows), default=0))
    words = {name: (seen.get(name) or look(cells)).words for name, cells in _items(table)}
    lines = [f"    {shown(name, 32):{width}}  {shown(cell)}  ({words[name]})" for name, cell in rows]
    return UserError(
        "\n".join([f"{what}; the columns, each with its first cell:", *lines]),
        where=shown(table.name, 200),
        hint=HINT,
    )


HINT = (
    "name them with `--text COLUMN`, `--pair COLUMN` (a second text) and `--label COLUMN`, `none` for none; in a "
    "recipe with `text:`, `pair:` and `label:` under `data:`"
)


def _items(table: Table) -> list[tuple[str, Sequence[Any]]]:
    return list(table.columns.items())


def shown(cell: Any, width: int = _CELL) -> str:
    """A cell in one short line that any terminal takes."""
    text = " ".join(str(cell).encode("utf-8", "replace").decode().split())
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _say_the_same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two columns of labels are one in other words: each value of one goes with one value of the other."""
    there: dict[str, str] = {}
    back: dict[str, str] = {}
    for a, b in zip(one, other, strict=True):
        x, y = ("" if looks.is_empty(cell) else str(cell).strip() for cell in (a, b))
        if there.setdefault(x, y) != y or back.setdefault(y, x) != x:
            return False
    return True
