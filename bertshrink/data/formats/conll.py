"""CoNLL files: one word and its tag a line, blank lines between texts.

    comments        lines that begin with `#` before a text: CoNLL-U's `# sent_id = 7`, OntoNotes' `#begin document`;
                    a word `#` with its tag is a word
    documents       `-DOCSTART-` lines end a text
    columns         the word is the first, its tag the last of all (CoNLL-2003: word, part of speech, chunk, entity);
                    where the first numbers the words, the word is the second; `text` and `label` number others
    numbered words  a range (`1-2`, the words follow one by one) and an empty word (`8.1`) are not words of the text

What does not look like that is refused with its line: as many columns in every line, tags of one scheme in the last of
more than two. Tags are read as IOB2 (see `to_iob2`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bertshrink.data.columns.roles import Roles, shown
from bertshrink.data.settings import NONE, DataSettings
from bertshrink.data.tables.table import Table
from bertshrink.data.texts import Split
from bertshrink.errors import UserError

_SCHEME = re.compile(r"[Oo]|[A-Za-z]-\S.*|[BIESLUMbieslum]")
"""Tags of entities and chunks; parts of speech are others."""
_NUMBER = re.compile(r"\d+([-.]\d+)?")
_COMMENT = re.compile(r"#(\s.*|begin\b.*|end\b.*|[\w:.-]+\s*=.*)?")
_SETS = re.compile(r"#\s*[\w:.-]+\s*=(\s.*)?")
_BARE = re.compile(r"#\s*(newdoc|newpar)\b.*")
_COLUMN = re.compile(r"(?:column )?([1-9]\d?)(?: of \d+)?")
_DOCUMENT = re.compile(r"-DOCSTART-.*|#(begin|end) document.*")


@dataclass
class _Text:
    """The lines of one text: (number of the line, its columns)."""

    lines: list[tuple[int, list[str]]] = field(default_factory=list)


def read_conll(lines: Iterable[str], name: str, settings: DataSettings) -> Split:
    """Texts of tagged words.

    Args:
        settings: `text` and `label` may number the columns of the words and the tags.

    Raises:
        UserError: a line with a word and no tag, columns that cannot be determined, or no text at all.
    """
    if settings.pair not in (None, NONE):
        raise UserError("tagged words cannot have a second text", where=name, hint="leave out `--pair`")
    texts, num_columns = _texts(list(lines), name)
    if not texts:
        raise UserError(f"`{name}` contains no tagged words", where=name, hint="give a file with at least one text")
    word, tag = _columns(texts, num_columns, name, settings)
    is_numbered = word > 0 and _are_numbered(texts)
    words: list[tuple[str, ...]] = []
    tags: list[tuple[str, ...]] = []
    begins: list[int] = []
    for text in texts:
        row = [
            (_cell(columns, word, number, name, columns[0]), _cell(columns, tag, number, name, columns[word]))
            for number, columns in text.lines
            if not (is_numbered and not columns[0].isdigit()) and (len(columns) <= word or columns[word].strip())
        ]
        if row:
            begins.append(text.lines[0][0])
            words.append(tuple(word for word, _ in row))
            tags.append(to_iob2([tag for _, tag in row]))
    if not words:
        raise UserError(f"`{name}` contains no tagged words", where=name, hint="give a file with at least one text")
    names = [f"column {at + 1} of {num_columns}" for at in range(num_columns)]
    others = {column: "no role" for at, column in enumerate(names) if at not in (word, tag)}
    is_tagged = settings.label != NONE
    roles = Roles(
        Table(name, {}, lines=begins), names[word], None, (names[tag],) * is_tagged, others, num_rows=len(words)
    )
    return Split(
        tuple(" ".join(row) for row in words),
        words=tuple(words),
        labels=tuple(tags) if is_tagged else None,
        rows=tuple(range(len(words))),
        roles=roles,
    )


def to_iob2(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags in IOB2, where every entity begins with B-: an I- that continues nothing of its kind begins one.

    In the older IOB1, B- is only between neighbours of one kind. Other schemes (BILOU, BIOES) and tags that mark no
    entities (parts of speech) are taken as they are.
    """
    iob2: list[str] = []
    before = "O"
    for tag in tags:
        begins = tag.startswith("I-") and before[2:] != tag[2:]
        iob2.append(f"B-{tag[2:]}" if begins else tag)
        before = tag
    return tuple(iob2)


def _split(line: str) -> list[str]:
    """A line's columns. Blanks of other scripts than ASCII's belong to words."""
    if "\t" in line:
        return [column.strip() for column in line.rstrip("\t \r\n").split("\t")]
    return [column for column in re.split(r" +", line.strip(" \r\n")) if column]


def _texts(lines: Sequence[str], name: str) -> tuple[list[_Text], int]:
    """The file's texts, without comments, and how many columns its lines have (most of them)."""
    plain = [_split(line) for line in lines if line.strip() and not line.startswith(("#", "-DOCSTART-"))]
    if not plain:  # nothing but comments, or every word begins with the sign of one
        plain = [_split(line) for line in lines if line.strip() and not _DOCUMENT.match(line)]
    if not plain:
        return [], 0
    ((num_columns, _),) = Counter(map(len, plain)).most_common(1)
    tags = {columns[-1] for columns in plain if len(columns) == num_columns}
    texts = [_Text()]
    for number, line in enumerate(lines, start=1):
        if not line.strip() or _DOCUMENT.match(line):
            if texts[-1].lines:
                texts.append(_Text())
            continue
        columns = _split(line)
        is_first = not texts[-1].lines
        if line.startswith("#") and is_first and _is_comment(line, columns, num_columns, tags, f"{name}:{number}"):
            continue
        texts[-1].lines.append((number, columns))
    return [text for text in texts if text.lines], num_columns


def _is_comment(line: str, columns: Sequence[str], num_columns: int, tags: set[str], where: str) -> bool:
    """Whether a line that begins with `#` and is before a text is a comment and no word.

    Raises:
        UserError: it may be either.
    """
    if _SETS.fullmatch(line.strip()) or _BARE.fullmatch(line.strip()):
        return True
    if len(columns) != num_columns:
        return bool(_COMMENT.fullmatch(line.strip()))
    if columns[-1] in tags or _SCHEME.fullmatch(columns[-1]) or not _COMMENT.fullmatch(line.strip()):
        return False
    raise UserError(
        f"the line `{shown(line)}` may be a comment, or the word `{columns[0]}` with the tag `{columns[-1]}`",
        where=where,
        hint="write comments as `# key = value`, or take them out",
    )


def _columns(texts: Sequence[_Text], num_columns: int, name: str, settings: DataSettings) -> tuple[int, int]:
    """The columns of words and tags, from 0: as they are told, else by the rule, where the file keeps it."""
    told = [_told(key, getattr(settings, key), num_columns, name) for key in ("text", "label")]
    is_numbered = num_columns > 2 and _are_numbered(texts)
    word = told[0] if told[0] is not None else int(is_numbered)
    if told[1] is not None:
        if word == told[1]:
            raise UserError("words and tags are the same column", where=name, hint=_HINT)
        return word, told[1]
    cells = [columns for text in texts for _, columns in text.lines]
    for number, columns in (line for text in texts for line in text.lines):
        if len(columns) < 2:
            raise UserError(
                f"line {number} has the word `{shown(columns[0])}` and no tag",
                where=f"{name}:{number}",
                hint="write the word, a space or tab, and the tag; a blank line ends a text",
            )
        if len(columns) != num_columns:
            raise UserError(
                f"line {number} has {len(columns)} columns, and most have {num_columns}: `{shown(' '.join(columns))}`",
                where=f"{name}:{number}",
                hint="fix the line; spaces inside of words need tabs between the columns",
            )
    tag = num_columns - 1
    firsts, lasts = ([bool(_SCHEME.fullmatch(columns[at])) for columns in cells] for at in (word, tag))
    if all(firsts) and not all(lasts) and any(columns[word][1:2] == "-" for columns in cells):
        raise _unclear(f"the tags seem to be in column {word + 1}", cells[0], name)
    if num_columns - is_numbered > 2 and not all(lasts):
        odd = cells[lasts.index(False)][-1]
        raise _unclear(
            f"which of {num_columns} columns holds the tags is unclear: the last one holds `{odd}`, "
            "which is not a tag of entities",
            cells[0],
            name,
        )
    if num_columns > 2 and len(cells) > _FEW and len({columns[word] for columns in cells}) == 1:
        raise _unclear(f"column {word + 1} holds the same word in every line", cells[0], name)
    if told[0] is not None and word == tag:
        raise _unclear("the words are said to be in the last column", cells[0], name)
    return word, tag


_FEW = 20
_HINT = "number the columns: `--text 2 --label 4`, in a recipe `text:` and `label:` under `data:`"


def _unclear(what: str, columns: Sequence[str], name: str) -> UserError:
    lines = [f"    {at}  {shown(cell)}" for at, cell in enumerate(columns, start=1)]
    return UserError("\n".join([f"{what}; the columns of the first word:", *lines]), where=name, hint=_HINT)


def _told(key: str, given: str | None, num_columns: int, name: str) -> int | None:
    if given is None or given == NONE:
        return None
    match = _COLUMN.fullmatch(given)
    if match is None or int(match[1]) > num_columns:
        raise UserError(
            f"`{key}: {given}` is not a column of `{name}`, which has {num_columns} without names",
            where=name,
            hint=_HINT,
        )
    return int(match[1]) - 1


def _are_numbered(texts: Sequence[_Text]) -> bool:
    """Whether the first column numbers the words of every text from 1, as CoNLL-U's does."""
    for text in texts:
        firsts = [columns[0] for _, columns in text.lines]
        if not all(_NUMBER.fullmatch(first) for first in firsts):
            return False
        counted = [int(first) for first in firsts if first.isdigit()]
        if counted != list(range(1, len(counted) + 1)):
            return False
    return True


def _cell(columns: Sequence[str], at: int, number: int, name: str, word: str) -> str:
    if at < len(columns) and columns[at].strip():
        return columns[at].strip()
    raise UserError(
        f"line {number} has the word `{shown(word)}` and nothing in column {at + 1}",
        where=f"{name}:{number}",
        hint="write the word, a space or tab, and the tag; a blank line ends a text",
    )
