"""Texts: what a model is trained, calibrated and judged on.

    builtin:pydoc                 documentation of the installed Python (`pydoc_texts`)
    a file                        .tsv .csv .json .jsonl .parquet .txt
    a folder                      with train.* and dev.* (or valid*, test.*) of those kinds
    a hub name                    through `datasets`: `glue/sst2` is data set `glue`, configuration `sst2`

TSV is read as GLUE writes it, with quoting off; .txt is one text a line. Which columns hold text and labels is told by
their names (`TEXT_COLUMNS`, `LABEL_COLUMNS`) unless the recipe says. Where there is no dev side, a fixed tenth of
train, chosen by each text's hash, becomes it. Reading is deterministic and the fingerprint is over the content, so a
moved file is the same data and an edited one is not.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

from pydantic import BaseModel, ConfigDict, Field

from bertshrink.errors import MissingPart, RequestError
from bertshrink.model.source import hub_is_reachable, local_path

TEXT_COLUMNS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
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
LABEL_COLUMNS = ("label", "labels", "intent", "class", "sentiment", "Quality", "target")
READERS = {".tsv": "csv", ".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".txt": "text"}
_SPLITS = {"train": ("train",), "dev": ("dev", "valid", "validation", "eval", "test")}
_SHARD = re.compile(r".+-\d+-of-\d+")
DEV_SHARE = 10
"""Without a dev side, one text in this many becomes it."""


class DataSettings(BaseModel):
    """Where the texts are: the recipe's `data:`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = Field(None, description="`builtin:pydoc`, a file, a folder, or a hub name")
    train: str | None = Field(None, description="the file of the training side, where it is apart")
    dev: str | None = Field(None, description="the file of the dev side, where it is apart")
    text: str | None = Field(None, description="name of the column that holds the text")
    pair: str | None = Field(None, description="name of the column that holds the second text of a pair")
    label: str | None = Field(None, description="name of the column that holds the label")
    max_train: int | None = Field(None, gt=0, description="use at most so many training texts (a fixed choice)")
    max_dev: int | None = Field(None, gt=0, description="use at most so many dev texts (a fixed choice)")
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
        texts: never empty strings.
        pairs: second texts, or None.
        labels: as the data has them, or None.
        label_names: names of integer labels where the data knows them (a hub data set's ClassLabel).
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None = None
    words: tuple[tuple[str, ...], ...] | None = None
    labels: tuple[Any, ...] | None = None
    label_names: tuple[str, ...] = ()

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

    def take(self, rows: Sequence[int]) -> Split:
        """The rows with these numbers."""
        return replace(
            self,
            texts=tuple(self.texts[i] for i in rows),
            pairs=tuple(self.pairs[i] for i in rows) if self.pairs is not None else None,
            labels=tuple(self.labels[i] for i in rows) if self.labels is not None else None,
        )

    def apart(self) -> Split:
        """First and second texts as rows of their own, each once, without labels: those are about pairs."""
        if self.pairs is None:
            return self
        return Split(tuple(dict.fromkeys(text for text in (*self.texts, *self.pairs) if text.strip())))

    def first(self, limit: int | None) -> Split:
        """At most `limit` rows: those whose text hashes lowest, in their order, so that the choice is fixed."""
        if limit is None or len(self) <= limit:
            return self
        chosen = sorted(range(len(self)), key=lambda i: _hash(self.texts[i]))[:limit]
        return self.take(sorted(chosen))


@dataclass(frozen=True)
class Texts:
    """The data of a recipe.

    Attributes:
        name: as the recipe wrote it.
        train: to learn from.
        dev: to judge by; a note says how many of them are in train, too.
        notes: what was decided while reading, one sentence each.
    """

    name: str
    train: Split
    dev: Split
    notes: tuple[str, ...] = ()
    _memo: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """The sha256 of everything in it, 16 hexadecimal digits."""
        if "fingerprint" not in self._memo:
            digest = hashlib.sha256()
            for split in (self.train, self.dev):
                for column in (split.texts, split.pairs or (), split.labels or ()):
                    digest.update(f"{len(column)}\x1e".encode())
                    digest.update("\x1f".join(map(str, column)).encode())
            self._memo["fingerprint"] = digest.hexdigest()[:16]
        return self._memo["fingerprint"]

    def apart(self) -> Texts:
        """The same with the two texts of each pair as texts of their own, which is what a sentence encoder reads."""
        if self.train.pairs is None and self.dev.pairs is None:
            return self
        train, dev = self.train.apart(), self.dev.apart()
        note = f"both texts of each pair are texts of their own: {len(train)} in train, {len(dev)} in dev, none twice"
        return Texts(self.name, train, dev, (*self.notes, note))


def check_source(name: str, where: str | None) -> None:
    """Prove, without reading it, that a data source may exist.

    Raises:
        RequestError: an unknown builtin, a missing path, or a file of a kind that is not read.
    """
    if name.startswith("builtin:"):
        if name != "builtin:pydoc":
            raise RequestError(f"there is no `{name}`", where=where, hint="the one builtin text is `builtin:pydoc`")
        return
    path = local_path(name)
    if path.is_file() and path.suffix.lower() not in READERS:
        raise RequestError(
            f"`{name}` is no text file that bertshrink reads", where=where, hint=f"kinds: {' '.join(READERS)}"
        )
    if path.is_dir() and not any(_find(path, side) for side in _SPLITS):
        raise RequestError(
            f"the folder `{name}` holds no train or dev file",
            where=where,
            hint=f"name them train.* and dev.*, kinds: {' '.join(READERS)}",
        )
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1 or path.suffix in READERS):
        raise RequestError(f"there is no file or folder `{name}`", where=where, hint="check the path")


def load(settings: DataSettings) -> Texts:
    """Read the data.

    Raises:
        RequestError: nothing there, no text in it, or columns that cannot be told.
        MissingPart: a hub name while the hub cannot be reached.
    """
    name = settings.path or f"{settings.train or ''} {settings.dev or ''}".strip()
    notes: list[str] = []
    if settings.path == "builtin:pydoc":
        from bertshrink.model.pydoc_texts import read_pydoc

        train, dev = (Split(tuple(side)) for side in read_pydoc())
    else:
        sides = _read_sides(settings)
        if "train" not in sides and "dev" not in sides:
            raise RequestError(f"`{name}` has no train or dev side", hint="name them train.* and dev.*")
        train = sides["train"] if "train" in sides else sides["dev"]
        if "dev" in sides and "train" in sides:
            dev = sides["dev"]
        else:
            train, dev = _cut(train)
            notes.append(
                f"no dev side was given: {len(dev)} of {len(train) + len(dev)} texts, chosen by hash, became it"
            )
    train, dev = train.first(settings.max_train), dev.first(settings.max_dev)
    overlap = len(
        set(zip(train.texts, train.pairs or train.texts, strict=True))
        & set(zip(dev.texts, dev.pairs or dev.texts, strict=True))
    )
    if overlap:
        notes.append(f"{overlap} texts of the dev side are in the training side, too")
    for side, split in (("train", train), ("dev", dev)):
        if not len(split):
            raise RequestError(
                f"the {side} side of `{name}` holds no text", hint="give data with at least one text a side"
            )
    return Texts(name, train, dev, tuple(notes))


def check_labels(texts: Texts) -> None:
    """Prove that the data can teach a classifier.

    Raises:
        RequestError: no label column, or only one class in it.
    """
    for side, split in (("train", texts.train), ("dev", texts.dev)):
        if split.labels is None:
            raise RequestError(
                f"the {side} side of `{texts.name}` has no labels, which classification needs",
                hint=f"name the column with `label:` under `data:`; known names: {', '.join(LABEL_COLUMNS)}",
            )
        classes = Counter(map(str, split.labels))
        if len(classes) < 2:
            only = next(iter(classes))
            raise RequestError(
                f"every label of the {side} side of `{texts.name}` is `{only}`: one class teaches nothing",
                hint="check the label column, or give data with two classes or more",
            )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _cut(split: Split) -> tuple[Split, Split]:
    is_dev = [int(_hash(text)[:8], 16) % DEV_SHARE == 0 for text in split.texts]
    return (
        split.take([i for i, dev in enumerate(is_dev) if not dev]),
        split.take([i for i, dev in enumerate(is_dev) if dev]),
    )


def _find(folder: Path, side: str) -> list[Path]:
    """The files of one side: by the first name in `_SPLITS` that is there; several where it is cut into shards."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in READERS)
    for stem in _SPLITS[side]:
        for path in files:
            if path.stem.lower() == stem:
                return [path]
    for stem in _SPLITS[side]:
        for path in files:
            if path.stem.lower().startswith(stem):
                shards = [p for p in files if _SHARD.fullmatch(p.stem) and p.stem.lower().startswith(f"{stem}-")]
                return shards if path in shards else [path]
    return []


def _read_sides(settings: DataSettings) -> dict[str, Split]:
    sides: dict[str, Split] = {}
    if settings.path is not None:
        path = local_path(settings.path)
        if path.is_dir():
            found = {side: _find(path, side) for side in _SPLITS}
            sides = {side: _read_files(files, settings) for side, files in found.items() if files}
        elif path.is_file():
            sides = {"train": _read_files([path], settings)}
        else:
            sides = _read_hub(settings.path, settings)
    for side, name in (("train", settings.train), ("dev", settings.dev)):
        if name is not None:
            sides[side] = _read_files([local_path(name)], settings)
    return sides


def _read_files(files: list[Path], settings: DataSettings) -> Split:
    path = files[0]
    if path.suffix.lower() not in READERS:
        raise RequestError(f"`{path}` is no text file that bertshrink reads", hint=f"kinds: {' '.join(READERS)}")
    if not path.is_file():
        raise RequestError(f"there is no file `{path}`", hint="check the path")
    if path.stat().st_size == 0:
        raise RequestError(f"`{path}` is empty", where=str(path), hint="give a file with at least one text")
    import datasets

    reader = READERS[path.suffix.lower()]
    options: dict[str, Any] = {} if reader in ("json", "parquet") else {"encoding": "utf-8-sig"}
    if reader == "csv":
        options |= {"keep_default_na": False, "na_filter": False}
        if path.suffix.lower() == ".tsv":
            options |= {"delimiter": "\t", "quoting": 3}
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(reader, data_files=[str(file) for file in files], split="train", **options)
    except Exception as error:  # each reader has its own errors, and `datasets` wraps them differently
        cause = error.__cause__ or error
        raise RequestError(
            f"`{path}` cannot be read as {path.suffix[1:]}: {cause}",
            where=str(path),
            hint="mend the file, or give one of the kind that its name says",
        ) from error
    return _split(rows, settings, str(path))


def _read_hub(name: str, settings: DataSettings) -> dict[str, Split]:
    hub_is_reachable()
    import datasets

    datasets.disable_progress_bars()
    parts = name.split("/")
    tries = [(name, None)] + ([("/".join(parts[:-1]), parts[-1])] if len(parts) > 1 else [])
    reason = ""
    for repo, config in tries:
        try:
            found = datasets.load_dataset(repo, config)
        except Exception as error:  # offline, unknown and gated each come as another kind
            reason = reason or str(error).splitlines()[0]
            continue
        sides = {side: next((found[n] for n in names if n in found), None) for side, names in _SPLITS.items()}
        return {side: _split(rows, settings, name) for side, rows in sides.items() if rows is not None}
    raise MissingPart(
        f"the data set `{name}` is neither a path here nor to be had from the hub: {reason}",
        hint="give a local file or folder with `--data`, or `builtin:pydoc`",
    )


def _split(rows: Any, settings: DataSettings, where: str) -> Split:
    """Pick the columns of one side and drop rows without text."""
    columns = list(rows.column_names)
    text, pair = _text_columns(columns, settings, where)
    label = settings.label or next((c for c in LABEL_COLUMNS if c in columns), None)
    for asked in (settings.text, settings.pair, settings.label):
        if asked is not None and asked not in columns:
            raise RequestError(f"there is no column `{asked}`", where=where, hint=f"columns: {', '.join(columns)}")
    texts = ["" if value is None else str(value).strip() for value in rows[text]]
    keep = [i for i, value in enumerate(texts) if value]
    pairs = ["" if value is None else str(value) for value in rows[pair]] if pair else None
    labels = list(rows[label]) if label else None
    names = getattr(rows.features.get(label), "names", None) or () if label else ()
    return Split(
        tuple(texts),
        tuple(pairs) if pairs is not None else None,
        tuple(labels) if labels is not None else None,
        tuple(names),
    ).take(keep)


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
