"""Texts: what a model is trained, calibrated and judged on.

What may be named and which files are read is in `readers`. Here is what comes of it: up to three sides, and the
rule for what each is used for. A model learns from train. It is judged by test where there is one, else by dev. What is
chosen while it learns (when to stop) is chosen by dev where test judges, else by a fixed tenth of train that is kept
out of the training: what a report is about chooses nothing.

Where there is no dev split, a fixed tenth of train, chosen by each text's hash, becomes it. Reading is deterministic
and the fingerprint is over the content, so a moved file is the same data and an edited one is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

from bertshrink.data import hash_sampling
from bertshrink.errors import UserError
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from bertshrink.data.columns.roles import Roles
    from bertshrink.data.formats.corpus import Corpus


@dataclass(frozen=True)
class Example:
    """One row."""

    text: str
    pair: str | None = None
    label: Any = None


@dataclass(frozen=True)
class Split(Sequence[Example]):
    """One side of the data, column by column.

    Attributes:
        texts: never empty strings; the questions of question answering.
        pairs: second texts, or None; the contexts of question answering.
        words: token classification: the words of each text, which is they joined by one blank.
        labels: one a row, or None where no row has any; a row's is None where it is unlabelled. classification: a name
            or number; multi-label: a tuple of names, or `OneHot`; regression: a number; token-classification: a tuple
            of tags, one a word; question-answering: a tuple of (answer, first character in the context), empty for no
            answer.
        label_names: names of integer labels where the data knows them (a hub dataset's ClassLabel), or of a vector's
            places (the columns it was made of).
        rows: the number of each row in the table that it was read from, from 0; None: not from one table.
        roles: what the columns of that table are; None: it was none.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None = None
    words: tuple[tuple[str, ...], ...] | None = None
    labels: tuple[Any, ...] | None = None
    label_names: tuple[str, ...] = ()
    rows: tuple[int, ...] | None = field(default=None, compare=False, repr=False)
    roles: Roles | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> list[Example]: ...
    def __getitem__(self, at: int | slice) -> Example | list[Example]:
        """One row, or a list of them."""
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        return Example(
            self.texts[at],
            self.pairs[at] if self.pairs is not None else None,
            self.labels[at] if self.labels is not None else None,
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    @property
    def source(self) -> str:
        """Where the rows were read, for messages; empty where that is not known."""
        return self.roles.table.name if self.roles is not None else ""

    def where(self, at: int) -> str | None:
        """Where a row was read, for messages; None where that is not known."""
        if self.roles is None or self.rows is None:
            return self.source or None
        return self.roles.table.where(self.rows[at])

    @property
    def is_scored(self) -> bool:
        """Whether pairs of texts are labelled with numbers that are not classes."""
        return self.pairs is not None and self.labels is not None and any(isinstance(v, float) for v in self.labels)

    def take(self, rows: Sequence[int]) -> Split:
        """The rows with these numbers."""
        return replace(
            self,
            texts=tuple(self.texts[i] for i in rows),
            pairs=tuple(self.pairs[i] for i in rows) if self.pairs is not None else None,
            words=tuple(self.words[i] for i in rows) if self.words is not None else None,
            labels=tuple(self.labels[i] for i in rows) if self.labels is not None else None,
            rows=tuple(self.rows[i] for i in rows) if self.rows is not None else None,
        )

    def drawn(self, share: float, purpose: str = "") -> list[bool]:
        """For each row, whether it is of about `share` of them that are drawn (see `hash_sampling`)."""
        return hash_sampling.drawn(self.texts, self.labels, share, purpose)

    def parted(self, is_second: Sequence[bool]) -> tuple[Split, Split]:
        """The rows in two parts, each in the rows' order."""
        first, second = (
            [i for i, goes_second in enumerate(is_second) if goes_second == wanted] for wanted in (False, True)
        )
        return self.take(first), self.take(second)

    def with_unlabelled(self, other: Split) -> Split:
        """These rows and more rows of texts without labels.

        Beside texts of tagged words, others fall into words at spaces.

        Raises:
            UserError: one has pairs and the other has not.
        """
        if (self.pairs is None) != (other.pairs is None):
            raise UserError(
                "labelled and unlabelled texts differ in kind",
                hint="pairs go with pairs, and single texts with single texts",
            )
        labels = self.labels if self.labels is not None else (None,) * len(self)
        pairs = (*self.pairs, *other.pairs) if self.pairs is not None and other.pairs is not None else None
        texts, words = other.texts, None
        if self.words is not None:
            more = other.words if other.words is not None else tuple(tuple(text.split()) for text in other.texts)
            texts, words = tuple(" ".join(row) for row in more), self.words + more
        whole = self.texts + texts
        return replace(self, texts=whole, pairs=pairs, words=words, labels=labels + (None,) * len(other), rows=None)

    def apart(self) -> Split:
        """First and second texts as rows of their own, each once, without labels: those are about pairs.

        Pairs with scores stay: how alike two texts are is a question to a sentence encoder.
        """
        if self.pairs is None or self.is_scored:
            return self
        return Split(tuple(dict.fromkeys(text for text in (*self.texts, *self.pairs) if text.strip())))

    def first(self, limit: int | None, purpose: str = "") -> Split:
        """At most `limit` rows: those whose text hashes lowest, in their order, so that the choice is fixed."""
        if limit is None or len(self) <= limit:
            return self
        return self.take(hash_sampling.lowest(self.texts, limit, purpose))


@dataclass(frozen=True)
class TextDataset:
    """The data of a recipe.

    Attributes:
        name: as the recipe wrote it.
        train: to learn from.
        dev: to choose by where there is a test split, else to judge by.
        test: to judge by.
        judged_name: `dev` or `test`: what the side that judges is called.
        dev_share: of train, for choosing where nothing else is there to choose by.
        split_seed: which rows that choice takes.
        corpus: running text too large to be read whole, of which `train` is a taste.
    """

    name: str
    train: Split
    dev: Split
    test: Split | None = None
    judged_name: str = "dev"
    dev_share: float = 0.1
    notes: tuple[str, ...] = ()
    split_seed: int = 0
    corpus: Corpus | None = None
    _memo: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def judged(self) -> Split:
        """The side that models are judged by."""
        return self.dev if self.test is None else self.test

    def choosing(self) -> tuple[Split, Split]:
        """(to learn from, to choose by) where something is chosen while a model learns.

        Rows without a label choose nothing where others have one: they are learned from.
        """
        if self.test is not None:
            return self.train, self.dev
        drawn = self.train.drawn(self.dev_share, f"{hash_sampling.salt(self.split_seed)}choosing:")
        if self.train.labels is not None:
            drawn = [is_drawn and label is not None for is_drawn, label in zip(drawn, self.train.labels, strict=True)]
        return self.train.parted(drawn)

    @property
    def fingerprint(self) -> str:
        """The sha256 of everything in it, 16 hexadecimal digits."""
        if "fingerprint" not in self._memo:
            digest = hashlib.sha256()
            for split in (self.train, self.dev, self.test or Split(())):
                _digest(split, digest)
            if (self.dev_share, self.split_seed) != (0.1, 0):
                digest.update(f"{self.dev_share} {self.split_seed}".encode())
            if self.corpus is not None:
                digest.update(self.corpus.fingerprint.encode())
            self._memo["fingerprint"] = digest.hexdigest()[:16]
        return self._memo["fingerprint"]

    def apart(self) -> TextDataset:
        """The same with the two texts of each pair as texts of their own, which is what a sentence encoder reads.

        Pairs that judge and have scores stay pairs.
        """
        if self.train.pairs is None and self.dev.pairs is None:
            return self
        train, dev = replace(self.train, labels=None).apart(), self.dev.apart()
        test = self.test.apart() if self.test is not None else None
        if (train, dev, test) == (self.train, self.dev, self.test):
            return self
        note = (
            f"the two texts of each pair are read as separate texts: {len(train)} in train, {len(dev)} in "
            "dev, without duplicates"
        )
        return replace(self, train=train, dev=dev, test=test, notes=(*self.notes, note), _memo={})

    def as_read(self, task: str) -> TextDataset:
        """What models of a task are shrunk with and compared on: a sentence encoder reads the texts of a pair apart."""
        return self.apart() if task in TASKS and TASKS[task].is_vector else self


def fingerprint_of(split: Split, *more: object) -> str:
    """The sha256 of one side's rows and of whatever else decides what is asked, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    _digest(split, digest)
    digest.update("\x1f".join(map(str, more)).encode())
    return digest.hexdigest()[:16]


def _digest(split: Split, digest: hashlib._Hash) -> None:
    for column in (split.texts, split.pairs or (), split.words or (), split.labels or ()):
        digest.update(f"{len(column)}\x1e".encode())
        digest.update("\x1f".join(map(str, column)).encode())
