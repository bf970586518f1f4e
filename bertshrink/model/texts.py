"""Texts: what a model is trained, calibrated and judged on.

What may be named and which files are read stands in `reading`. Here is what comes of it: up to three sides, and the
rule for what each is used for. A model learns from train. It is judged by test where there is one, else by dev. What is
chosen while it learns (when to stop) is chosen by dev where test judges, else by a fixed tenth of train that is kept
out of the training: what a report is about chooses nothing.

Where there is no dev side, a fixed tenth of train, chosen by each text's hash, becomes it. Reading is deterministic and
the fingerprint is over the content, so a moved file is the same data and an edited one is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, overload

from pydantic import BaseModel, ConfigDict, Field

from bertshrink.errors import RequestError
from bertshrink.model import fixed_choice

if TYPE_CHECKING:
    from bertshrink.model.column_roles import Roles
    from bertshrink.model.corpus import Corpus

NONE = "none"
"""What `pair` and `label` are set to where there is none, whatever the columns are called."""


class DataSettings(BaseModel):
    """Where the texts are: the recipe's `data:`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = Field(None, description="`builtin:pydoc`, a file, a folder, or a hub name")
    train: str | None = Field(None, description="the file of the training side, where it is apart")
    dev: str | None = Field(None, description="the file of the dev side, where it is apart")
    test: str | None = Field(None, description="the file of the test side, where it is apart")
    unlabelled: str | None = Field(None, description="more training texts, without labels: a file, folder or hub name")
    dev_share: float = Field(0.1, gt=0, le=0.5, description="share of train that becomes a side that is not given")
    text: str | None = Field(None, description="the column of the texts; of words with tags also its number")
    pair: str | None = Field(None, description="the column of the second texts of pairs; `none`: there are none")
    label: str | None = Field(
        None,
        description="the column of the labels; `none`: there are none; several, as A,B,C, hold 0 or 1 for a class each",
    )
    split_seed: int = Field(
        0, ge=0, description="another fixed choice of the rows for `dev_share`, `max_train`, `max_dev` and the like"
    )
    columns: tuple[str, ...] | None = Field(None, min_length=1, description="all columns of a CSV without a header")
    max_train: int | None = Field(None, gt=0, description="use at most so many training texts (a fixed choice)")
    max_unlabelled: int | None = Field(None, gt=0, description="use at most so many unlabelled texts (a fixed choice)")
    max_dev: int | None = Field(None, gt=0, description="judge by at most so many texts (a fixed choice)")
    max_length: int | None = Field(
        None, ge=4, description="cut texts after so many tokens (default: the model's limit)"
    )


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
        label_names: names of integer labels where the data knows them (a hub data set's ClassLabel), or of a vector's
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
        """Whether pairs of texts are labelled with numbers that are no classes."""
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
        """For each row, whether it is of about `share` of them that are drawn (see `fixed_choice`)."""
        return fixed_choice.drawn(self.texts, self.labels, share, purpose)

    def parted(self, is_second: Sequence[bool]) -> tuple[Split, Split]:
        """The rows in two parts, each in the rows' order."""
        first, second = ([i for i, found in enumerate(is_second) if found == wanted] for wanted in (False, True))
        return self.take(first), self.take(second)

    def with_unlabelled(self, other: Split) -> Split:
        """These rows and more rows of texts without labels.

        Beside texts of tagged words, others fall into words at blanks.

        Raises:
            RequestError: one has pairs and the other has not.
        """
        if (self.pairs is None) != (other.pairs is None):
            raise RequestError(
                "the unlabelled texts are of another kind than the labelled ones",
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
        return self.take(fixed_choice.lowest(self.texts, limit, purpose))


@dataclass(frozen=True)
class Texts:
    """The data of a recipe.

    Attributes:
        name: as the recipe wrote it.
        train: to learn from.
        dev: to choose by where there is a test side, else to judge by.
        test: to judge by.
        judged_name: `dev` or `test`: what the side that judges is called.
        dev_share: of train, for choosing where nothing else is there to choose by.
        split_seed: which rows that choice takes.
        notes: what was decided while reading, one sentence each.
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
        drawn = self.train.drawn(self.dev_share, f"{fixed_choice.salt(self.split_seed)}choosing:")
        if self.train.labels is not None:
            drawn = [found and label is not None for found, label in zip(drawn, self.train.labels, strict=True)]
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

    def apart(self) -> Texts:
        """The same with the two texts of each pair as texts of their own, which is what a sentence encoder reads.

        Pairs that judge and have scores stay pairs.
        """
        if self.train.pairs is None and self.dev.pairs is None:
            return self
        train, dev = replace(self.train, labels=None).apart(), self.dev.apart()
        test = self.test.apart() if self.test is not None else None
        if (train, dev, test) == (self.train, self.dev, self.test):
            return self
        note = f"both texts of each pair are texts of their own: {len(train)} in train, {len(dev)} in dev, none twice"
        return replace(self, train=train, dev=dev, test=test, notes=(*self.notes, note), _memo={})

    def as_read(self, task: str) -> Texts:
        """What models of a task are shrunk with and compared on: a sentence encoder reads the texts of a pair apart."""
        return self.apart() if task == "embedding" else self


def load(settings: DataSettings, task: str = "auto") -> Texts:
    """Read the data; what was read last is remembered until its files change, since a plan may look into it first.

    Args:
        settings: where it is, and what its columns are.
        task: what is learnt from it, or `auto`: it decides whether labels are scores.

    Raises:
        RequestError: nothing there, no text in it, columns that cannot be told, or cells that are none of their role.
        MissingPart: a hub name while the hub cannot be reached.
    """
    return _load(settings, task, _stamps(settings))


def _stamps(settings: DataSettings) -> tuple[tuple[str, int, int], ...]:
    """(path, size, time of change) of every file that the settings may mean: what was read before may be stale."""
    from bertshrink.model.source import local_path

    found = []
    for name in filter(None, (settings.path, settings.train, settings.dev, settings.test, settings.unlabelled)):
        path = local_path(name)
        for file in sorted((path, *path.glob("*"), *path.glob("*/*"))) if path.is_dir() else [path]:
            if file.is_file():
                status = file.stat()
                found.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=1)
def _load(settings: DataSettings, task: str, stamps: tuple[tuple[str, int, int], ...]) -> Texts:
    from bertshrink.model.label_kinds import settle
    from bertshrink.model.reading import read_sides

    name = settings.path or " ".join(filter(None, (settings.train, settings.dev, settings.test)))
    notes: list[str] = []
    sides = read_sides(settings, notes)
    _check_asked(sides, settings, name)
    texts = _assign(name, settle(sides, task), settings, notes)
    for side, split in (("train", texts.train), ("dev", texts.dev), ("test", texts.test)):
        if split is not None and not len(split):
            raise RequestError(
                f"the {side} side of `{name}` holds no text", hint="give data with at least one text a side"
            )
    return texts


def _check_asked(sides: dict[str, Split], settings: DataSettings, name: str) -> None:
    """Refuse names of columns for data that has none, or has them not: only a test side may lack the labels."""
    for side, split in sides.items():
        if split.roles is not None and split.roles.absent is not None and side != "test":
            raise split.roles.absent
    asked = [key for key in ("text", "pair", "label") if getattr(settings, key) not in (None, NONE)]
    if asked and any(split.roles is None for split in sides.values()):
        raise RequestError(
            f"`{asked[0]}` names a column, and `{name}` has no columns to name", hint=f"leave `{asked[0]}` out"
        )


def _assign(name: str, sides: dict[str, Split], settings: DataSettings, notes: list[str]) -> Texts:
    """Give every side its use (see this file's opening)."""
    if not sides:
        raise RequestError(f"`{name}` has no train or dev side", hint="name them train.* and dev.*")
    judged_name, salt = "test" if "test" in sides else "dev", fixed_choice.salt(settings.split_seed)
    if "train" in sides and len(sides) > 1:
        train, dev, test = sides["train"], sides.get("dev", sides.get("test")), sides.get("test")
        test = test if "dev" in sides else None
    else:
        whole, test, judged_name = sides.get("train") or next(iter(sides.values())), None, "dev"
        train, dev = whole.parted(whole.drawn(settings.dev_share, salt))
        notes.append(f"no dev side was given: {len(dev)} of {len(whole)} texts, chosen by hash, became it")
        if not len(dev) and len(whole):
            raise RequestError(
                f"none of the {len(whole)} texts of `{name}` became the dev side, which nothing else is given for",
                hint="give more texts, a dev side of its own, a larger `dev_share`, or another `--split-seed`",
            )
    assert dev is not None
    given = len(train), len(dev), len(test or ())
    train, dev = train.first(settings.max_train, salt), dev.first(settings.max_dev, salt)
    test = test.first(settings.max_dev, salt) if test is not None else None
    if salt and len(sides) > 1 and (len(train), len(dev), len(test or ())) == given:
        notes.append("`split_seed` chose no rows: all sides are given and whole; only `patience` may choose by it")
    if settings.unlabelled is not None:
        from bertshrink.model.unlabelled import read_unlabelled

        more = read_unlabelled(settings.unlabelled, notes).first(settings.max_unlabelled, salt)
        notes.append(f"{len(more)} texts without labels join the {len(train)} of the training side")
        train = train.with_unlabelled(more)
    found = Texts(name, train, dev, test, judged_name, settings.dev_share, tuple(notes), settings.split_seed)
    overlap = len(_rows(train) & _rows(found.judged))
    if overlap:
        note = f"{overlap} texts of the {judged_name} side are in the training side, too"
        found = replace(found, notes=(*notes, note))
    return found


def _rows(split: Split) -> set[tuple[str, str]]:
    return set(zip(split.texts, split.pairs or split.texts, strict=True))


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
