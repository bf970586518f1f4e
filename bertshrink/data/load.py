"""From the settings of data to `TextDataset`: whole, or as a stream where running text is larger than memory.

Of running text only a taste becomes `TextDataset`: the lines that judge, and a few of train for what must be looked at
beforehand.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

from bertshrink.command_scope import once
from bertshrink.data import hash_sampling
from bertshrink.data.formats.corpus import READERS, Corpus
from bertshrink.data.settings import NONE, DataSettings
from bertshrink.data.split_files import find_sides, suffix_of
from bertshrink.data.texts import Split, TextDataset
from bertshrink.errors import UserError
from bertshrink.files.hub import local_path
from bertshrink.model.tasks import TASKS


def load(settings: DataSettings, task: str = "auto") -> TextDataset:
    """Read the data; what a command read last is remembered until its files change: a plan may look into it first.

    Args:
        task: what is learnt from it, or `auto`: it decides whether labels are scores.

    Raises:
        UserError: nothing there, no text in it, columns that cannot be determined, or cells that are none of their
        role. MissingDependency: a hub name while the hub cannot be reached.
    """
    return once("texts", (settings, task, _stamps(settings)), lambda: _load(settings, task), only_last=True)


def _stamps(settings: DataSettings) -> tuple[tuple[str, int, int], ...]:
    """(path, size, time of change) of every file that the settings may mean: what was read before may be stale."""
    stamps = []
    for name in filter(None, (settings.path, settings.train, settings.dev, settings.test, settings.unlabelled)):
        path = local_path(name)
        for file in sorted((path, *path.glob("*"), *path.glob("*/*"))) if path.is_dir() else [path]:
            if file.is_file():
                status = file.stat()
                stamps.append((str(file), status.st_size, status.st_mtime_ns))
    return tuple(stamps)


def _load(settings: DataSettings, task: str) -> TextDataset:
    from bertshrink.data.labels.kinds import settle
    from bertshrink.data.readers import read_sides

    name = settings.path or " ".join(filter(None, (settings.train, settings.dev, settings.test)))
    notes: list[str] = []
    sides = read_sides(settings, notes)
    _check_asked(sides, settings, name)
    texts = _assign(name, settle(sides, task), settings, notes)
    for side, split in (("train", texts.train), ("dev", texts.dev), ("test", texts.test)):
        if split is not None and not len(split):
            raise UserError(f"the {side} split of `{name}` holds no text", hint="give at least one text per split")
    return texts


def _check_asked(sides: dict[str, Split], settings: DataSettings, name: str) -> None:
    """Refuse names of columns for data that has none, or has them not: only a test split may lack the labels."""
    for side, split in sides.items():
        if split.roles is not None and split.roles.absent is not None and side != "test":
            raise split.roles.absent
    asked = [key for key in ("text", "pair", "label") if getattr(settings, key) not in (None, NONE)]
    if asked and any(split.roles is None for split in sides.values()):
        raise UserError(f"`{asked[0]}` names a column, and `{name}` has no columns", hint=f"leave `{asked[0]}` out")


def _assign(name: str, sides: dict[str, Split], settings: DataSettings, notes: list[str]) -> TextDataset:
    """Give every side its use (see this file's opening)."""
    if not sides:
        raise UserError(f"`{name}` has no train or dev split", hint="name them train.* and dev.*")
    judged_name, salt = "test" if "test" in sides else "dev", hash_sampling.salt(settings.split_seed)
    if "train" in sides and len(sides) > 1:
        train, dev, test = sides["train"], sides.get("dev", sides.get("test")), sides.get("test")
        test = test if "dev" in sides else None
    else:
        whole, test, judged_name = sides.get("train") or next(iter(sides.values())), None, "dev"
        train, dev = whole.parted(whole.drawn(settings.dev_share, salt))
        notes.append(f"no dev split was given: {len(dev)} of {len(whole)} texts, chosen by hash, became it")
        if not len(dev) and len(whole):
            raise UserError(
                f"none of the {len(whole)} texts of `{name}` became the dev split, and no other dev split is given",
                hint="give more texts, a separate dev split, a larger `dev_share`, or another `--split-seed`",
            )
    assert dev is not None
    given = len(train), len(dev), len(test or ())
    train, dev = train.first(settings.max_train, salt), dev.first(settings.max_dev, salt)
    test = test.first(settings.max_dev, salt) if test is not None else None
    if salt and len(sides) > 1 and (len(train), len(dev), len(test or ())) == given:
        notes.append(
            "`split_seed` chose no rows: all splits are given and used whole; only `early_stopping_patience` may use it"
        )
    if settings.unlabelled is not None:
        from bertshrink.data.unlabelled import read_unlabelled

        more = read_unlabelled(settings.unlabelled, notes).first(settings.max_unlabelled, salt)
        notes.append(f"{len(more)} texts without labels join the {len(train)} of the training split")
        train = train.with_unlabelled(more)
    dataset = TextDataset(name, train, dev, test, judged_name, settings.dev_share, tuple(notes), settings.split_seed)
    overlap = len(_rows(train) & _rows(dataset.judged))
    if overlap:
        note = f"{overlap} texts of the {judged_name} split are also in the training split"
        dataset = replace(dataset, notes=(*notes, note))
    return dataset


def _rows(split: Split) -> set[tuple[str, str]]:
    return set(zip(split.texts, split.pairs or split.texts, strict=True))


COLUMNS = ("text", "content", "document")
"""Where running text is, in rows that have several columns."""


DEV_TEXTS = 2000


TASTE = 2000


_MIN_WORDS = 5
"""Shorter lines are headings more often than text."""


def is_corpus(settings: DataSettings) -> bool:
    """Whether data is running text: .txt files, or rows with such a column (`COLUMNS`, or the one that is named) and no
    more asked for.
    """
    name = settings.path or settings.train
    if name is None or name.startswith("builtin:") or {settings.label, settings.pair} - {None, NONE}:
        return False
    return _side(settings, "train") is not None


def read_texts(settings: DataSettings, task: str) -> TextDataset:
    """The data as a task reads it: running text for masked tokens as a stream, all else whole; errors as there."""
    is_masked = task in TASKS and TASKS[task].is_masked
    return load_corpus(settings) if is_masked and is_corpus(settings) else load(settings, task)


def load_corpus(settings: DataSettings) -> TextDataset:
    """The texts that judge and a taste of train, with the corpus itself in `corpus`.

    Raises:
        UserError: no text in it.
    """
    name = settings.path or settings.train or ""
    train = _side(settings, "train")
    dev = _side(settings, "dev")
    if train is None:
        raise UserError(f"`{name}` has no train split", hint="name it train.txt")
    if train.column is None and settings.text not in (None, "text"):
        raise UserError(
            f"`text` names a column, and the lines of `{name}` have none", where=name, hint="leave `text` out"
        )
    notes = []
    if dev is None:
        train = replace(train, dev_share=settings.dev_share, split_seed=settings.split_seed)
        dev = replace(train, is_dev=True)
        notes.append(f"no dev split was given: {100 * settings.dev_share:g} % of the documents, by hash, became it")
    train = replace(train, max_documents=settings.max_train)
    judged = _lines(dev, settings.max_dev or DEV_TEXTS)
    taste = _lines(train, TASTE)
    for side, lines in (("train", taste), ("dev", judged)):
        if not lines:
            raise UserError(f"the {side} split of `{name}` holds no text", hint="give running text")
    notes.append(f"running text: evaluated on the first {len(judged)} lines of the dev split")
    return TextDataset(name, Split(taste), Split(judged), notes=tuple(notes), corpus=train)


def _side(settings: DataSettings, side: str) -> Corpus | None:
    """A side's files as a corpus; None where there are none or they hold something else."""
    own = getattr(settings, side)
    name = own or settings.path
    if name is None:
        return None
    path = local_path(name)
    if not path.exists() and not path.suffix and name.count("/") <= 2 and not name.startswith((".", "/", "~")):
        return _in_rows(Corpus((), hub=name), settings.text) if side == "train" else None
    if path.is_dir():
        sides = find_sides(path).sides
        files = sides.get(side) or sides.get("whole" if side == "train" else "", [])
    else:
        files = [path] * (own is not None or side == "train")
    if not files or not all(file.is_file() and suffix_of(file) in READERS for file in files):
        return None
    corpus = Corpus(tuple(files))
    return corpus if suffix_of(files[0]) == ".txt" else _in_rows(corpus, settings.text)


def _in_rows(corpus: Corpus, asked: str | None) -> Corpus | None:
    """The corpus with the column that its text is in; None where none is known to."""
    first = next(corpus.rows(), {})
    column = next((name for name in ((asked,) if asked is not None else COLUMNS) if name in first), None)
    return replace(corpus, column=column) if column is not None and isinstance(first[column], str) else None


def _lines(corpus: Corpus, limit: int) -> tuple[str, ...]:
    """The first lines of some length; of any length where there are none."""
    for shortest in (_MIN_WORDS, 1):
        candidates = (line for lines in corpus.documents() for line in lines if len(line.split()) >= shortest)
        if chosen := tuple(dict.fromkeys(islice(candidates, limit))):
            return chosen
    return ()
