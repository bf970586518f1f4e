"""One side of the data, made of a table: cells as they are there become texts, second texts and labels.

Which columns they come from is found by `roles`; what labels of all sides together are (classes, scores,
vectors) is the matter of `kinds`. Here a cell is only refused where it can be nothing of its role. A row without
text is left out; one without a label (an empty cell, null) is unlabelled. Spaces around a text and a label are not part
of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bertshrink.data.columns import guesses as looks
from bertshrink.data.columns.guesses import is_empty, plain
from bertshrink.data.columns.roles import Roles, asked_column, asked_labels, find_roles, shown
from bertshrink.data.formats.conll import to_iob2
from bertshrink.data.formats.squad import answered, answers_of
from bertshrink.data.labels.shapes import OneHot
from bertshrink.data.settings import NONE, DataSettings
from bertshrink.data.tables.table import Table
from bertshrink.data.texts import Split
from bertshrink.errors import UserError

WORD_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("ner_tags", "tags", "pos_tags", "labels")
NO_GOLD = "-"
"""What SNLI and MNLI write in `gold_label` where the annotators did not agree."""


def split_of(table: Table, settings: DataSettings) -> Split:
    """Pick the columns of one side and drop rows without text.

    Raises:
        UserError: columns that cannot be determined, or cells of another kind than their column's role.
    """
    words = asked_column(table, settings.text) or _named(table, WORD_COLUMNS)
    if words is not None and any(isinstance(cell, list) for cell in table.columns[words]):
        return _tagged(table, words, settings)
    roles = find_roles(table, settings)
    texts = [_text(cell, table, roles.text, at).strip() for at, cell in enumerate(table.columns[roles.text])]
    pairs = None
    if roles.pair is not None:
        pairs = tuple(_text(cell, table, roles.pair, at) for at, cell in enumerate(table.columns[roles.pair]))
    answers = _named(table, ("answers",))
    if (
        answers is not None
        and pairs is not None
        and (plain(roles.text), plain(roles.pair or "")) == ("question", "context")
        and (settings.label is None or asked_labels(table, settings) == (answers,))
    ):
        roles = replace(roles, labels=(answers,), second=None, left_out=_without(roles, answers), maybe_labels=())
        row_answers = [answers_of(cell, table.where(at)) for at, cell in enumerate(table.columns[answers])]
        whole = answered(texts, pairs, row_answers, table.name)
    else:
        labels, names, num_unjudged = _labels(table, roles)
        roles = replace(roles, num_unjudged=num_unjudged)
        whole = Split(tuple(texts), pairs, labels=labels, label_names=names)
    return _kept(whole, roles, texts)


def sides_of(tables: Mapping[str, Table | Split], settings: DataSettings) -> dict[str, Split]:
    """The sides of the data; a table with the columns that the training split is read from is read as that one is.

    Raises:
        UserError: as in `split_of`.
    """
    sides: dict[str, Split] = {}
    like: Roles | None = None
    for side in sorted(tables, key=lambda side: side != "train"):
        table = tables[side]
        if isinstance(table, Split):
            sides[side] = table
            continue
        told = settings
        if like is not None and like.labels and like.used <= set(table.columns):
            names = {"text": like.text, "pair": like.pair or NONE, "label": ",".join(like.labels)}
            told = settings.model_copy(update=names)
        sides[side] = split_of(table, told)
        if side == "train":
            like = sides[side].roles
    return {side: sides[side] for side in tables}


def _kept(whole: Split, roles: Roles, texts: Sequence[object]) -> Split:
    """The rows that hold text, with their numbers and what was left out."""
    keep = [at for at, text in enumerate(texts) if text]
    roles = replace(roles, num_rows=len(texts), num_empty=len(texts) - len(keep))
    return replace(whole, rows=tuple(range(len(texts))), roles=roles).take(keep)


def _named(table: Table, names: Sequence[str]) -> str | None:
    """The first column of one of these names."""
    return next((column for name in names for column in table.columns if plain(column) == name), None)


def _without(roles: Roles, name: str) -> dict[str, str]:
    return {column: why for column, why in roles.left_out.items() if column != name}


def _bad(table: Table, column: str, at: int, what: str, hint: str) -> UserError:
    return UserError(f"column `{shown(column)}`: {what}", where=shown(table.where(at), 200), hint=hint)


def _text(cell: Any, table: Table, column: str, at: int) -> str:
    if is_empty(cell) and not isinstance(cell, str):
        return ""
    if isinstance(cell, list | tuple | dict | bytes):
        kind = "an object" if isinstance(cell, dict) else "bytes" if isinstance(cell, bytes) else "a list"
        raise _bad(table, column, at, f"{kind} where a text is expected", "name the column of the texts with `--text`")
    return str(cell)


def _labels(table: Table, roles: Roles) -> tuple[tuple[Any, ...] | None, tuple[str, ...], int]:
    """(a label for each row, names of numbered labels, rows that say there is none); no labels where no row has one."""
    if len(roles.labels) > 1:
        vectors = [_vector(table, roles.labels, at) for at in range(len(table))]
        named = tuple(name.strip() for name in roles.labels)
        return tuple(vectors) if any(v is not None for v in vectors) else None, named, 0
    if not roles.labels:
        return None, (), 0
    (column,) = roles.labels
    names = tuple(table.label_names.get(column, ()))
    labels: list[Any] = []
    written: dict[str, tuple[str, int]] = {}
    num_unjudged = 0
    for at, cell in enumerate(table.columns[column]):
        label = _label(cell, table, column, at)
        if (names and label == -1) or (label == NO_GOLD and plain(column) == "gold_label"):
            label = None
            num_unjudged += 1
        if isinstance(label, str):
            before, row = written.setdefault(label, (cell, at))
            if before != cell:
                what = (
                    f"the label {cell!r} and that of {table.where(row)}, {before!r}, differ only by surrounding spaces"
                )
                raise _bad(table, column, at, what, "write them the same way")
        labels.append(label)
    return (tuple(labels) if any(label is not None for label in labels) else None), names, num_unjudged


def _label(cell: Any, table: Table, column: str, at: int) -> Any:
    """A cell of the label column as `Split` has it before `kinds` sees all of them."""
    if is_empty(cell):
        return None
    if isinstance(cell, list | tuple):
        for one in cell:
            if is_empty(one) or isinstance(one, list | tuple | dict | bytes):
                what = f"the list of labels holds `{shown(one)}`, which is not a label"
                raise _bad(table, column, at, what, "write a list of names, or a 0 or 1 for each class")
        return tuple(one.strip() if isinstance(one, str) else one for one in cell)
    if isinstance(cell, dict | bytes):
        raise _bad(table, column, at, f"`{shown(cell)}` is not a label", "name the label's column with `--label`")
    if isinstance(cell, bool | int | float):
        return cell
    return str(cell).strip()


def _vector(table: Table, columns: Sequence[str], at: int) -> OneHot | None:
    """One row of several columns that hold 0 or 1; None where all are empty."""
    cells = [table.columns[column][at] for column in columns]
    if all(is_empty(cell) for cell in cells):
        return None
    bits = []
    for column, cell in zip(columns, cells, strict=True):
        number = float(cell) if isinstance(cell, bool) else looks.number_of(cell)
        if number not in (0.0, 1.0):
            hint = "several columns of labels hold 0 or 1 each; leave all of a row empty where it has no label"
            raise _bad(table, column, at, f"`{shown(cell)}` is neither 0 nor 1", hint)
        bits.append(int(number))
    return OneHot(bits)


def _tagged(table: Table, column: str, settings: DataSettings) -> Split:
    """Rows of words and tags; numbered tags by their names where the data knows them."""
    if settings.pair not in (None, NONE):
        raise UserError("tagged words cannot have a second text", where=table.name, hint="leave out `--pair`")
    asked = asked_labels(table, settings)
    if len(asked) > 1:
        raise UserError(
            "tagged words have exactly one column of tags", where=table.name, hint="name one with `--label`"
        )
    tag = asked[0] if asked else _named(table, TAG_COLUMNS) if settings.label is None else None
    tag = None if tag == column else tag
    words = [_words(cell, table, column, at) for at, cell in enumerate(table.columns[column])]
    labels: list[tuple[str, ...] | None] = [None] * len(words)
    if tag is not None:
        labels = [
            _tags(cell, words[at], table, tag, at) if words[at] else None for at, cell in enumerate(table.columns[tag])
        ]
    others = {name: "no role" for name in table.columns if name not in (column, tag)}
    roles = Roles(table.bare(), column, None, (tag,) if tag else (), others)
    whole = Split(
        tuple(" ".join(row) for row in words),
        words=tuple(words),
        labels=tuple(labels) if any(row is not None for row in labels) else None,
    )
    return _kept(whole, roles, words)


def _words(cell: Any, table: Table, column: str, at: int) -> tuple[str, ...]:
    if cell is None:
        return ()
    if not isinstance(cell, list | tuple):
        raise _bad(table, column, at, f"`{shown(cell)}` is not a list of words", "give a list in every row")
    for word in cell:
        if word is None or isinstance(word, list | tuple | dict | bytes):
            raise _bad(table, column, at, f"`{shown(word)}` is not a word", "fix the list of words")
    return tuple(map(str, cell))


def _tags(cell: Any, words: Sequence[str], table: Table, column: str, at: int) -> tuple[str, ...] | None:
    if cell is None:
        return None
    if not isinstance(cell, list | tuple):
        raise _bad(table, column, at, f"`{shown(cell)}` is not a list of tags", "give a tag for every word")
    if len(words) != len(cell):
        raise UserError(
            f"row {at + 1} has {len(words)} words and {len(cell)} tags", where=table.where(at), hint="fix the data"
        )
    names = table.label_names.get(column, ())
    tags = []
    for tag in cell:
        if is_empty(tag) or isinstance(tag, list | tuple | dict | bytes):
            raise _bad(table, column, at, f"`{shown(tag)}` is not a tag", "fix the list of tags")
        if names and not (isinstance(tag, int) and 0 <= tag < len(names)):
            raise _bad(table, column, at, f"`{shown(tag)}` is not the number of a tag", f"there are {len(names)} tags")
        tags.append(names[tag] if names else str(tag).strip())
    return to_iob2(tags)
