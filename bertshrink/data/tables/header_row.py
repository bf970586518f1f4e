"""Whether the first line of a delimited file is its header.

A file without one loses its first row to the names of its columns, so what is surely no header is refused: a number
above numbers, a class that appears again below it, a sentence. A second header further down would be a row.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from bertshrink.data.columns.guesses import plain
from bertshrink.data.tables.table import Table
from bertshrink.errors import UserError


def prove_header(table: Table, known: Collection[str]) -> None:
    """Refuse a file whose first line is a row like the others, where that can be told.

    Args:
        known: names that columns have, as `plain` writes them: any of them makes a line a header.

    Raises:
        UserError: the first line seems to be no header, or is again further down.
    """
    names = list(table.columns)
    _no_second_header(table)
    if any(plain(name) in known for name in names):
        return
    reason = next((reason for name in names if (reason := _like_a_cell(name, table.columns[name], names))), None)
    if reason is not None:
        raise UserError(
            f"`{table.name}` seems to have no header: in its first line, {reason}",
            where=f"{table.name}:1",
            hint="name the columns, such as --columns text,label; if it is a header, name the text's: --text COLUMN",
        )


def _like_a_cell(name: str, cells: Sequence[str], names: Sequence[str]) -> str | None:
    """Why a name is one of the cells below it rather than their header; None where it may be one."""
    is_number = re.compile(r"[-+]?\d+([.,]\d+)?").fullmatch
    is_counted = [int(n) for n in names if n.isdecimal()] == list(range(len(names)))  # as pandas names columns
    if is_number(name) and not is_counted and all(is_number(cell) for cell in cells if cell.strip()):
        return f"`{name}` is a number like those below it"
    if name in cells and len(set(cells)) <= len(cells) * (0.5 if len(cells) > 20 else 0.9):  # it holds classes
        return f"`{name[:60]}` appears again below it"
    if len(name.split()) >= 5 or (len(name) > 20 and name.endswith((".", "!", "?"))):
        return f"`{name[:60]}` reads like a text"
    return None


def _no_second_header(table: Table) -> None:
    names = list(table.columns)
    if len(names) < 2 or names[0] not in table.columns[names[0]]:
        return
    for row, cells in enumerate(zip(*table.columns.values(), strict=True)):
        if cells[0] == names[0] and [cell.strip() for cell in cells] == names:
            raise UserError(
                f"line {table.lines[row]} of `{table.name}` is the same as the first",
                where=table.where(row),
                hint="remove the second header; if the file has none, name its columns: --columns text,label",
            )
