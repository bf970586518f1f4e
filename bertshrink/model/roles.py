"""What the columns of a table are: texts, second texts, labels; and one side of the data made of them.

Which columns hold text and labels is told by their names (`TEXT_COLUMNS`, `LABEL_COLUMNS`) unless the settings say. A
row without a label (an empty cell, null) is unlabelled; a column named `score` holds numbers that are no classes.
"""

from __future__ import annotations

from typing import Any

from bertshrink.errors import RequestError
from bertshrink.model.formats import answered, to_iob2
from bertshrink.model.tables import Table
from bertshrink.model.texts import LABEL_COLUMNS, DataSettings, Split

TEXT_COLUMNS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "context"),
    ("question", "sentence"),
    ("#1 String", "#2 String"),
    ("text",),
    ("sentence",),
    ("utt",),
    ("utterance",),
    ("content",),
    ("query",),
    ("review",),
)
WORD_COLUMNS = ("tokens", "words")
TAG_COLUMNS = ("ner_tags", "tags", "pos_tags", "labels")


def split_of(table: Table, settings: DataSettings) -> Split:
    """Pick the columns of one side and drop rows without text.

    Raises:
        RequestError: columns that cannot be told, or cells of another kind than their column's role.
    """
    where, columns, rows = table.name, list(table.columns), table.columns
    for asked in (settings.text, settings.pair, settings.label):
        if asked is not None and asked not in columns:
            raise RequestError(f"there is no column `{asked}`", where=where, hint=f"columns: {', '.join(columns)}")
    word = settings.text or next((c for c in WORD_COLUMNS if c in columns), None)
    if word is not None and len(table) and isinstance(rows[word][0], list):
        return _tagged(table, word, settings)
    text, pair = _text_columns(columns, settings, where)
    if (text, pair) == ("question", "context") and "answers" in columns:
        answers = [
            tuple(zip(map(str, given["text"]), map(int, given["answer_start"]), strict=True))
            for given in rows["answers"]
        ]
        return answered([str(q).strip() for q in rows[text]], list(rows["context"]), answers, where)
    label = settings.label or next((c for c in LABEL_COLUMNS if c in columns), None)
    texts = ["" if value is None else str(value).strip() for value in rows[text]]
    pairs = ["" if value is None else str(value) for value in rows[pair]] if pair else None
    labels = [_label(value, label) for value in rows[label]] if label else []
    return Split(
        tuple(texts),
        tuple(pairs) if pairs is not None else None,
        labels=tuple(labels) if any(value is not None for value in labels) else None,
        label_names=table.label_names.get(label or "", ()),
    ).take([i for i, value in enumerate(texts) if value])


def _label(value: Any, column: str) -> Any:
    """A cell of the label column as `Split` has it; an empty one is no label."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and not value.strip():
        return None
    if column == "score" and value is not None:
        try:
            return float(value)
        except (TypeError, ValueError):
            return value  # words in a column of scores: they may be classes
    return value


def _tagged(table: Table, word: str, settings: DataSettings) -> Split:
    """Rows of words and tags; numbered tags by their names where the data knows them."""
    where, rows = table.name, table.columns
    label = settings.label or next((c for c in TAG_COLUMNS if c in rows), None)
    words = [tuple(map(str, row)) for row in rows[word]]
    names = table.label_names.get(label or "", ())
    tags: list[tuple[str, ...]] | None = None
    if label is not None:
        tags = [to_iob2(names[t] if names else str(t) for t in row) for row in rows[label]]
        for number, (row, own) in enumerate(zip(words, tags, strict=True), start=1):
            if len(row) != len(own):
                raise RequestError(
                    f"row {number} has {len(row)} words and {len(own)} tags", where=where, hint="mend the data"
                )
    keep = [i for i, row in enumerate(words) if row]
    whole = Split(tuple(" ".join(row) for row in words), words=tuple(words), labels=tuple(tags) if tags else None)
    return whole.take(keep)


def _text_columns(columns: list[str], settings: DataSettings, where: str) -> tuple[str, str | None]:
    if settings.text is not None:
        return settings.text, settings.pair
    for names in TEXT_COLUMNS:
        if all(name in columns for name in names):
            return names[0], settings.pair or (names[1] if len(names) > 1 else None)
    if len(columns) == 1:
        return columns[0], None
    raise RequestError(
        f"which column holds the text cannot be told from `{'`, `'.join(map(str, columns[:8]))}`",
        where=where,
        hint="name it with `text:` (and `pair:`, `label:`) under `data:` in a recipe",
    )
