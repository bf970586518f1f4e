"""A table of words that fits its window: as a table, with its last column folded, or row by row as a list.

Nothing is cut and no word is broken that a line can hold: a figure that lost its end reads as another figure.
"""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_GAP = 2
_MIN_FOLDED = 24
"""Columns that the last one needs to be folded: less is a ragged ribbon."""


class Fitting:
    """Rows of words.

    Args:
        heads: above the columns; none: the first column names its row.
        rows: as many words each as there are columns.
        numbers: the columns that are aligned to the right.
    """

    def __init__(self, heads: Sequence[str], rows: Sequence[Sequence[str | Text]], numbers: Sequence[int] = ()) -> None:
        self.heads, self.rows, self.numbers = heads, rows, numbers

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [*([self.heads] if self.heads else []), *self.rows]
        if not lines:
            return
        widths = [max(cell_len(str(word)) for word in column) for column in zip(*lines, strict=True)]
        before = sum(widths[:-1]) + _GAP * (len(widths) - 1)
        if before + min(widths[-1], _MIN_FOLDED) <= options.max_width:
            yield self._table(widths)
        else:
            yield from self._list()

    def _table(self, widths: Sequence[int]) -> Table:
        drawn = Table(box=None, show_header=bool(self.heads), padding=(0, _GAP, 0, 0), pad_edge=False)
        for at, width in enumerate(widths):
            head = Text(self.heads[at]) if self.heads else ""
            is_last = at == len(widths) - 1
            drawn.add_column(
                head,
                justify="right" if at in self.numbers else "left",
                min_width=None if is_last else width,
                no_wrap=not is_last,
                overflow="fold",
            )
        for row in self.rows:
            drawn.add_row(*map(_text, row))
        return drawn

    def _list(self) -> RenderResult:
        """Each row under its first word; of two words without a head, one beside the other."""
        for row in self.rows:
            if not self.heads and len(row) == 2:
                yield Text.assemble(_text(row[0]), ": ", _text(row[1]), overflow="fold")
                continue
            named = zip(self.heads[1:] or [""] * len(row[1:]), row[1:], strict=True)
            told = [f"{head}: {word}" if head else word for head, word in named if str(word)]
            yield _text(row[0])
            for line in told:
                yield Padding(_text(line), (0, 0, 0, 2))


def _text(word: str | Text) -> Text:
    return word if isinstance(word, Text) else Text(word, overflow="fold")
