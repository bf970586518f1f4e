"""What columns are by their names and by their cells, where nobody says it.

Names are compared without spaces around them and in any case; `Class Index`, `class-index` and `class_index` are one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PAIRS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("text", "text_pair"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("sentence_1", "sentence_2"),
    ("sent1", "sent2"),
    ("caption1", "caption2"),
    ("question", "context"),
    ("question", "passage"),
    ("question", "sentence"),
    ("#1_string", "#2_string"),
    ("anchor", "positive"),
    ("query", "passage"),
    ("query", "positive"),
    ("query", "document"),
    ("query", "answer"),
    ("question", "answer"),
)
"""Columns of texts that go together, first and second, in the order in which they are looked for."""
TEXTS = (
    "text",
    "sentence",
    "utt",
    "utterance",
    "content",
    "query",
    "review",
    "tweet",
    "message",
    "comment",
    "comment_text",
    "document",
    "passage",
)
"""Columns of single texts, in the order in which they are looked for."""
SCORES = ("score", "similarity", "similarity_score", "relatedness_score")
"""Columns of labels that are numbers and no classes."""
LABELS = (
    "label_text",
    "label",
    "labels",
    "gold_label",
    "intent",
    "class",
    "category",
    "topic",
    "tag",
    "tags",
    "sentiment",
    "emotion",
    "polarity",
    "quality",
    "target",
    "is_duplicate",
    "class_index",
    "class_label",
    "rating",
    "stars",
    *SCORES,
)
"""Columns of labels, in the order in which they are looked for."""
SECONDS = frozenset(second for _, second in PAIRS)
_ID = re.compile(r"(.*_)?(id|ids|idx|index|guid|uuid|nr)(_?\d+)?|qid\d*|(pair|prompt|caption|unnamed: ?)(id|\d+)|")
_CAMEL_ID = re.compile(r".*[a-z](ID|Id)\d*")
_PARSE = re.compile(r".*_?(binary_)?parse")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WIDE = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
"""Letters of scripts that put no spaces between words."""
_SAMPLE = 4000
_MIN_WORDS = 3
_MIN_WIDE = 6
_LONGEST_LABEL = 60


def plain(name: str) -> str:
    """A header as it is compared with the known ones."""
    return re.sub(r"[\s_-]+", "_", str(name).strip().casefold())


def is_id(name: str) -> bool:
    """Whether a header says that its cells number the rows or point at something."""
    known = plain(name)
    return known not in LABELS and bool(_ID.fullmatch(known) or _CAMEL_ID.fullmatch(name.strip()))


def is_parse(name: str) -> bool:
    """Whether a column holds the parse trees of another's sentences, as SNLI's and MNLI's do."""
    return bool(_PARSE.fullmatch(plain(name)))


def is_empty(cell: Any) -> bool:
    """Whether a cell says nothing: an empty one, spaces, null, not a number."""
    return cell is None or (isinstance(cell, str) and not cell.strip()) or (isinstance(cell, float) and cell != cell)


def number_of(cell: Any) -> float | None:
    """The finite number that a cell is, or that its text writes in ASCII and with a point; None where it is none."""
    if isinstance(cell, bool):
        return None
    if isinstance(cell, int | float):
        try:
            value = float(cell)
        except OverflowError:
            return None
    elif isinstance(cell, str) and _NUMBER.fullmatch(cell.strip()):
        value = float(cell)
    else:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Look:
    """What the cells of a column look like.

    Attributes:
        filled: of those looked at, how many say something.
        distinct: how many different ones there are among them.
        is_text: several words each, mostly distinct.
        is_number: every one is a number.
        is_whole: every one is a whole number.
        is_listed: every one is a list.
        is_short: as short as names are.
    """

    filled: int
    distinct: int
    is_text: bool = False
    is_number: bool = False
    is_whole: bool = False
    is_listed: bool = False
    is_short: bool = True

    @property
    def is_label(self) -> bool:
        """Whether the cells may be labels: few different short ones, lists, or scores."""
        if self.is_listed:
            return True
        if self.is_number and not self.is_whole:
            return True
        return self.is_short and 0 < self.distinct <= max(2, self.filled // 2)

    @property
    def words(self) -> str:
        """For messages."""
        if not self.filled:
            return "empty"
        if self.is_text:
            return "texts"
        kind = "lists" if self.is_listed else "numbers" if self.is_number else "values"
        return f"{self.distinct} different {kind}" if self.distinct > 1 else f"one {kind[:-1]}"


def look(cells: Sequence[Any]) -> Look:
    """What cells look like, by a sample spread over the column."""
    step = max(1, len(cells) // _SAMPLE)
    filled = [cell for cell in cells[::step] if not is_empty(cell)]
    if not filled:
        filled = [cell for cell in cells if not is_empty(cell)][:_SAMPLE]
    if not filled:
        return Look(0, 0)
    if all(isinstance(cell, list | tuple) for cell in filled):
        return Look(len(filled), len({repr(cell) for cell in filled}), is_listed=True)
    shown = [cell.strip() if isinstance(cell, str) else str(cell) for cell in filled]
    distinct = len(set(shown))
    numbers = [number_of(cell) for cell in filled]
    is_number = all(number is not None for number in numbers)
    worded = sum(map(_is_wordy, shown)) >= 0.5 * len(shown)
    return Look(
        len(filled),
        distinct,
        is_text=worded and not is_number and distinct >= 0.5 * len(shown),
        is_number=is_number,
        is_whole=all(number is not None and number.is_integer() for number in numbers),
        is_short=sum(map(len, shown)) <= _LONGEST_LABEL * len(shown),
    )


def _is_wordy(text: str) -> bool:
    words = [word for word in text.split() if any(letter.isalpha() for letter in word)]
    return len(words) >= _MIN_WORDS or len(_WIDE.findall(text)) >= _MIN_WIDE
