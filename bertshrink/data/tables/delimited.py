"""CSV and its kin: the dialect by proof, every cell as it is written.

A dialect is a delimiter (comma, semicolon, tab, bar) and a way to quote. It is proven when all records have the same
number of fields under it, two or more, and under no other. What can be read in two ways that both hold is refused; so
is what no dialect fits, with the line that does not. A file of one column holds no delimiter that its first line knows.

Fields are split by Python's `csv` in its strict mode: it is exact about quotes and line breaks within them, and fast.
Types are nobody's matter here.

TSV may be written with quotes (as spreadsheets do) or without any meaning of them (as GLUE is). Where both hold,
quoting is taken to be on if the quotes do something: a tab, a line break or a doubled quote is within them, an
empty cell is written so, or a whole column has them. Backslashes escape only where nothing else holds.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bertshrink.data.tables.decoding import read_text
from bertshrink.data.tables.table import Table, as_header
from bertshrink.errors import UserError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_QUOTED = {
    "on": {"quoting": csv.QUOTE_MINIMAL},
    "blank": {"quoting": csv.QUOTE_MINIMAL, "skipinitialspace": True},
    "escaped": {"quoting": csv.QUOTE_MINIMAL, "doublequote": False, "escapechar": "\\"},
    "off": {"quoting": csv.QUOTE_NONE},
    "off, escaped": {"quoting": csv.QUOTE_NONE, "escapechar": "\\"},
}
_HINT = "a cell that holds the delimiter or a line break is in double quotes, and a quote in it is doubled"


@dataclass
class _Trial:
    """What a file is under one dialect.

    Attributes:
        rows: all records; those before the first failure where there is one.
        starts: the line on which each begins.
        ends: the line on which each ends.
        fault: (line, what is wrong there); None where all have the same number of fields.
        told: what was decided between two readings.
    """

    delimiter: str
    quoting: str
    rows: list[list[str]] = field(default_factory=list)
    starts: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    fault: tuple[int, str] | None = None
    told: str = ""

    @property
    def num_fields(self) -> int:
        return len(self.rows[0]) if self.rows else 0

    @property
    def holds(self) -> bool:
        return self.fault is None and self.num_fields > 0


def read_delimited(path: Path, suffix: str, names: tuple[str, ...] | None = None) -> Table:
    """A delimited file as a table of strings.

    Args:
        suffix: `.csv` or `.tsv`: which delimiter a file of one column would have.
        names: of the columns, where the file has no header.

    Raises:
        UserError: no encoding or dialect can be proven, a record of another length, headers that collide.
    """
    text, encoding = read_text(path)
    how = [encoding] if encoding else []
    shift = 0
    asked = re.match(r"sep=([,;\t|])\r?\n", text)  # Excel's own line
    if asked:
        text, shift = text[asked.end() :], 1
    own = asked[1] if asked else "\t" if suffix == ".tsv" else ","
    with _any_length():
        count = len(names) if names is not None else None
        trial = _dialect(text, own, str(path), shift, count, is_told=asked is not None)
    if trial.delimiter != ("\t" if suffix == ".tsv" else ",") and trial.num_fields > 1:
        how.insert(0, f"{DELIMITERS[trial.delimiter]}-separated")
    how += _told(trial, text)
    rows = trial.rows
    starts = array("q", (start + shift for start in trial.starts)) if shift else trial.starts
    if names is None:
        header, rows, starts = as_header(rows[0], str(path)), rows[1:], starts[1:]
    else:
        header = _named(names, rows, str(path))
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True)) if rows else {n: [] for n in header}
    table = Table(str(path), columns, how=", ".join(how), lines=starts)
    return table if names is not None else _without_index(_without_empty(table))


def _named(names: tuple[str, ...], rows: list[list[str]], where: str) -> tuple[str, ...]:
    """The names that were given, when they suit."""
    first = [cell.strip() for cell in rows[0]]
    if len(names) != len(first):
        raise UserError(
            f"{len(names)} columns are named, but the rows of `{where}` have {len(first)} fields",
            where=where,
            hint=f"the first row: {_shown(first)}",
        )
    if first == [name.strip() for name in names]:
        what = f"the first line of `{where}` is already a header"
        raise UserError(what, where=where, hint="leave `columns` out")
    return as_header(list(names), where)


def _without_empty(table: Table) -> Table:
    """The table without columns that have neither name nor content: a delimiter at the end of every line makes one."""
    kept = {
        name: cells
        for at, (name, cells) in enumerate(table.columns.items(), start=1)
        if name != f"column {at}" or any(cell.strip() for cell in cells)
    }
    return replace(table, columns=kept) if kept and len(table) else table


def _without_index(table: Table) -> Table:
    """The table without the row numbers that pandas puts in front under no name."""
    name = next(iter(table.columns))
    cells = table.columns[name]
    if name != "column 1" or len(table.columns) < 2 or any(cell != str(i) for i, cell in enumerate(cells)):
        return table
    columns = {key: value for key, value in table.columns.items() if key != name}
    how = ", ".join(filter(None, (table.how, "without its first column, which numbers the rows")))
    return replace(table, columns=columns, how=how)


def _dialect(text: str, own: str, where: str, shift: int, count: int | None, *, is_told: bool) -> _Trial:
    """The one dialect that is proven; `count` is how many columns there are, where that is known."""
    delimiters = [own] if is_told else [own, *(d for d in DELIMITERS if d != own and d in text)]
    trials = [_of_delimiter(text, delimiter) for delimiter in delimiters]
    several = [trial for trial in trials if trial.holds and trial.num_fields > 1]
    several = [trial for trial in several if trial.num_fields == count] or several
    if len(several) == 1:
        return several[0]
    if several:
        words = " and as ".join(f"{t.num_fields} columns by {DELIMITERS[t.delimiter]}s" for t in several)
        raise UserError(
            f"`{where}` can be read as {words}",
            where=where,
            hint="rewrite it with every cell in double quotes, or as JSON lines",
        )
    faulty = [trial for trial in trials if trial.num_fields > 1]  # the first line has that delimiter
    faulty = faulty or [t for t in trials if t.fault is not None and (t is trials[0] or _is_wide(text, t))]
    if not faulty:
        return trials[0]
    worst = max(faulty, key=lambda trial: (trial is trials[0], trial.num_fields))
    line, what = worst.fault or (1, "")
    raise UserError(
        f"`{where}` cannot be read as {DELIMITERS[worst.delimiter]}-separated: line {line + shift} {what}",
        where=f"{where}:{line + shift}",
        hint=_HINT if worst.num_fields > 1 else f"{_HINT}; a file of one text per line is named .txt",
    )


def _is_wide(text: str, trial: _Trial) -> bool:
    """Whether all records but the first have the same number of fields, two or more."""
    rest = _try(text, trial.delimiter, trial.quoting, skip=1)
    return rest.holds and rest.num_fields > 1


def _of_delimiter(text: str, delimiter: str) -> _Trial:
    """The best reading of a file with one delimiter."""
    on = _try(text, delimiter, "on")
    if '"' not in text and "\\" not in text:
        return on
    if delimiter == "\t" and '"' in text:
        off = _try(text, delimiter, "off")
        if on.holds != off.holds:
            return on if on.holds else off
        if on.holds:
            if on.rows == off.rows or _quotes_matter(on, off):
                return on
            off.told = "quotes are kept"
            return off
    if not on.holds or re.search(f'{re.escape(delimiter)} +"', text.partition("\n")[0]):
        blank = _try(text, delimiter, "blank")
        if blank.holds and blank.num_fields > 1 and re.search(f'{re.escape(delimiter)} +"', text):
            return blank
    if not on.holds and "\\" in text and _is_escaped(text, delimiter):
        for quoting in ("escaped", "off, escaped"):
            trial = _try(text, delimiter, quoting)
            if trial.holds:
                return trial
    return on


def _quotes_matter(on: _Trial, off: _Trial) -> bool:
    """Whether quotes around cells do something, where they may be quotes or letters (see this file's opening)."""
    if on.num_fields != off.num_fields or len(on.rows) != len(off.rows):
        return True
    differing = [0] * on.num_fields
    for own, other in zip(on.rows, off.rows, strict=True):
        for at, (cell, raw) in enumerate(zip(own, other, strict=True)):
            if cell != raw:
                differing[at] += 1
                if not cell or re.search(r'[\t\r\n"]', cell):
                    return True
    return on.rows[0] != off.rows[0] or any(count == len(on.rows) - 1 >= 3 for count in differing)


def _is_escaped(text: str, delimiter: str) -> bool:
    """Whether every backslash is before something that needs one."""
    return "\\" not in re.sub(rf'\\[\\"\r\n{re.escape(delimiter)}]', "", text)


def _told(trial: _Trial, text: str) -> list[str]:
    told = [trial.told] if trial.told else []
    if "escaped" in trial.quoting:
        told.append("backslashes escape")
    elif "\\" in text and _is_escaped(text, trial.delimiter):
        told.append("backslashes are kept")
    first = text.find("\n")
    if "\r\n" in text and text[first - 1 : first] != "\r":  # elsewhere a CR before LF is part of the line's end
        lines = text.split("\n")
        if "\r" in lines or any(lines[end - 1].endswith("\r") for end in trial.ends):
            told.append("CR LF and LF at the ends of lines")
    return told


def _try(text: str, delimiter: str, quoting: str, skip: int = 0) -> _Trial:
    """Read the text under a dialect until a record differs from the first; `skip` so many records before."""
    trial = _Trial(delimiter, quoting)
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True, **_QUOTED[quoting])  # type: ignore[arg-type]
    rows, starts, ends, wanted = trial.rows, trial.starts, trial.ends, 0
    before = 0
    try:
        for row in reader:
            if len(row) != wanted or not row:
                if not row or (len(row) == 1 and not row[0].strip() and wanted > 1):  # a blank line is not a record
                    before = reader.line_num
                    continue
                if skip:
                    skip -= 1
                    continue
                if wanted:
                    trial.fault = (before + 1, f"has {_fields(len(row))}, and the first line has {wanted}")
                    return trial
                wanted = len(row)
            rows.append(row)
            starts.append(before + 1)
            before = reader.line_num
            ends.append(before)
    except csv.Error as error:
        trial.fault = _said(str(error), before + 1, reader.line_num)
    return trial


def _said(error: str, first: int, last: int) -> tuple[int, str]:
    """`csv`'s errors in our words: (line, what is wrong there)."""
    if "expected after" in error:
        return last, "has text after a cell's closing quote"
    if "unexpected end" in error:
        return first, "opens a quote that is never closed"
    if "new-line character" in error:
        return last, "holds a carriage return outside of quotes"
    return last, f"cannot be split: {error}"


def _lines(text: str) -> Iterator[str]:
    """Lines with their ends. Where LF ends the first one, a CR alone ends none: it is part of a cell."""
    first = re.search(r"[\r\n]", text)
    is_mac = first is not None and first[0] == "\r" and text[first.end() : first.end() + 1] != "\n"
    return io.StringIO(text, newline="" if is_mac else "\n")


def _fields(count: int) -> str:
    return f"{count} field{'s' * (count != 1)}"


def _shown(cells: Sequence[str]) -> str:
    return ", ".join(f"`{cell[:30]}`" for cell in cells[:8])


@contextmanager
def _any_length() -> Iterator[None]:
    """Let cells be of any length; `csv` keeps its limit for the whole process, so it is put back."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
