"""Made texts, for a student of small data: what else its teacher can be asked, near what it was taught.

A few thousand rows show a student too little of what its teacher would say, so that it learns them by heart. Made rows
have no label: what they mean is the teacher's to say. They are altered texts (TinyBERT, arXiv:1909.10351, and
arXiv:1903.12136 alter words, too), and where a task reads pairs, new pairs (Augmented SBERT, arXiv:2010.08240, pairs
texts with near ones): a row's two texts with one or both altered, one text and its altered self, and a text with one of
those nearest to it. Of each 6 rows made of a pair 3 are of the first kind, 2 of the second, 1 of the third; half of all
are turned round. Single texts are altered alone.

To alter a text is to do one to three of these things: a run of its words goes; a word becomes another of its own kind,
drawn as often as it is in the texts (numbers for numbers, capitalized for capitalized, others of four letters or
more among themselves, and short words, which carry negation and grammar, never); a run of words of a near text comes
in; its two parts change places. Words are what spaces part, and single characters of scripts that have none.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from bertshrink.data.texts import Split

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_NEAREST = 12
"""Nearest texts that are known of each."""
_SOUGHT = 20_000
"""Texts among which near ones are sought, at most: the search takes time with the square of them."""
_BLOCK = 512
"""Texts whose likeness to all others is held at once."""
_UNLIKE = 1e-3
"""Likeness of texts that share no word, at most."""
_SHORTEST = 5
"""Words of the shortest text that is altered."""
_KINDS_OF_PAIR = ("both", "self", "both", "self", "both", "near")


def augmented(split: Split, per_row: int, seed: int) -> Split:
    """Made rows without labels: `per_row` of each row, fewer where texts are too short or too like one another.

    Args:
        split: single texts, tagged words or pairs.
        per_row: at least 1.
        seed: decides everything, together with the texts.

    Returns:
        Rows of which none appears twice, none in `split`, and none is empty; the words of tagged texts with them.
    """
    maker = _Maker(split, seed)
    turns = (
        (row, copy, random.Random((seed << 64) + (row << 32) + copy))
        for row in range(len(split))
        for copy in range(per_row)
    )
    if split.pairs is None:
        altered = dict.fromkeys(maker.altered(split.texts[row], rng) for row, _, rng in turns)
        texts = tuple(text for text in altered if text not in maker.number)
        return Split(texts, words=tuple(tuple(text.split(" ")) for text in texts) if split.words is not None else None)
    rows = list(zip(split.texts, split.pairs, strict=True))
    known = set(rows)
    pairs = dict.fromkeys(maker.pair(rows[row], copy, rng) for row, copy, rng in turns)
    made = [pair for pair in pairs if pair not in known and all(map(str.strip, pair))]
    return Split(tuple(first for first, _ in made), tuple(second for _, second in made))


class _Maker:
    """Alters texts with the words of others."""

    def __init__(self, split: Split, seed: int) -> None:
        self.texts = tuple(dict.fromkeys((*split.texts, *(split.pairs or ()))))
        self.number = {text: i for i, text in enumerate(self.texts)}
        tagged = dict(zip(split.texts, split.words, strict=True)) if split.words is not None else {}
        self.words = [list(tagged[text]) if tagged else _WORDS.findall(text) for text in self.texts]
        self.joined = " ".join if tagged else _joined
        self.by_kind: dict[str, list[str]] = defaultdict(list)
        for words in self.words:
            for word in words:
                self.by_kind[_kind(word)].append(word)
        self.near = _nearest(self.words, seed)

    def pair(self, row: tuple[str, str], copy: int, rng: random.Random) -> tuple[str, str]:
        """The copy of this number that is made of a pair."""
        one, other = row if rng.random() < 0.5 else row[::-1]
        kind = _KINDS_OF_PAIR[copy % len(_KINDS_OF_PAIR)]
        if kind == "both":
            if copy == 0:
                return row[::-1]
            chance = rng.random()
            one = self.altered(one, rng) if chance < 0.6 else one
            other = self.altered(other, rng) if chance >= 0.4 else other
        elif kind == "self":
            other = self.altered(one, rng)
        else:
            near = self.near[self.number[one]]
            other = self.texts[near[copy // len(_KINDS_OF_PAIR) % len(near)]] if near else one
        return (one, other) if rng.random() < 0.5 else (other, one)

    def altered(self, text: str, rng: random.Random) -> str:
        """The text with something done to it; a short one as it is."""
        number = self.number[text]
        words = list(self.words[number])
        for _ in range(rng.choice((1, 1, 2, 3))):
            if len(words) < _SHORTEST:
                break
            chance = rng.random()
            if chance < 0.35:
                size = rng.randint(1, min(7, len(words) // 3))
                start = rng.randrange(len(words) - size + 1)
                del words[start : start + size]
            elif chance < 0.65:
                self._replace(words, rng)
            elif chance < 0.85:
                self._insert(words, number, rng)
            else:
                start = rng.randrange(1, len(words))
                words = words[start:] + words[:start]
        return self.joined(words)

    def _replace(self, words: list[str], rng: random.Random) -> None:
        places = [i for i, word in enumerate(words) if _kind(word)]
        if places:
            at = rng.choice(places)
            words[at] = rng.choice(self.by_kind[_kind(words[at])])

    def _insert(self, words: list[str], number: int, rng: random.Random) -> None:
        near = self.near[number]
        if near:
            source = self.words[rng.choice(near)]
            size = min(len(source), rng.randint(1, 6))
            start, at = rng.randrange(len(source) - size + 1), rng.randrange(len(words) + 1)
            words[at:at] = source[start : start + size]


@lru_cache(maxsize=100_000)
def _kind(word: str) -> str:
    """What a word may be exchanged with; empty: nothing."""
    if any(character.isdigit() for character in word):
        return "number"
    if word[0].isupper():
        return "capitalized"
    return "other" if len(word) > 3 or re.match(f"[{_UNSPACED}]", word) else ""


def _joined(words: Sequence[str]) -> str:
    """A text of these words, with spaces but between characters of scripts that have none."""
    return re.sub(rf"(?<=[{_UNSPACED}]) (?=[{_UNSPACED}])", "", " ".join(words))


def _nearest(words: Sequence[Sequence[str]], seed: int) -> list[list[int]]:
    """For each text the numbers of those most like it, nearest first, by the cosine of their words' TF-IDF."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    lowered = [[word.lower() for word in text] for text in words]
    vectors = TfidfVectorizer(analyzer=lambda text: text, sublinear_tf=True).fit_transform(lowered)
    rng = np.random.default_rng(seed)
    sought = np.sort(rng.permutation(len(words))[:_SOUGHT])
    others = vectors[sought].T.tocsc()
    most, nudge = min(_NEAREST, len(sought)), 1e-9 * np.arange(len(sought))
    neighbours: list[list[int]] = []
    for start in range(0, len(words), _BLOCK):
        likeness = (vectors[start : start + _BLOCK] @ others).toarray()
        own = np.arange(start, start + len(likeness))
        likeness[own[:, None] == sought[None, :]] = -1.0
        likeness -= nudge  # of equal likeness the earlier text, on every machine
        best = np.argpartition(-likeness, most - 1, axis=1)[:, :most]
        for values, rows in zip(np.take_along_axis(likeness, best, axis=1), best, strict=True):
            neighbours.append([int(sought[rows[i]]) for i in np.argsort(-values) if values[i] > _UNLIKE])
    return neighbours
