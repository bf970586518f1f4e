"""Files, folders and hub datasets as the sides of `TextDataset`.

    a file        .tsv .csv .jsonl .parquet: columns; .json: rows, columns, SQuAD, or sides by name; .txt: one text a
                  line; .conll .iob .bio .annotated (.txt after them): one word and its tag a line, blank lines between
                  texts; each also packed: .gz, .zst
    a folder      see `split_files`
    a hub name    through `datasets`: `glue/sst2` is dataset `glue`, configuration `sst2`; with an owner, three parts

Files are read as they are written: `decoding` proves the encoding, `delimited` the dialect, `json_tables` and
`parquet` keep the file's own types. Local files touch no cache. What the columns of a table are is the matter of
`columns`; how words with tags and questions are read is in `formats`.
A test split without labels beside a labelled training split (GLUE writes -1 for each) judges nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from bertshrink.data.columns.guesses import LABELS, PAIRS, TEXTS, plain
from bertshrink.data.columns.to_split import TAG_COLUMNS, WORD_COLUMNS, sides_of
from bertshrink.data.formats.conll import read_conll
from bertshrink.data.formats.squad import read_squad
from bertshrink.data.hub_datasets import load_hub
from bertshrink.data.settings import DataSettings
from bertshrink.data.split_files import READERS, SIDES, find_sides, is_tagged, suffix_of
from bertshrink.data.tables.decoding import PACKED, check_plain, how_written, open_bytes, read_lines
from bertshrink.data.tables.decoding import PARQUET as PARQUET_START
from bertshrink.data.tables.delimited import read_delimited
from bertshrink.data.tables.header_row import prove_header
from bertshrink.data.tables.json_tables import Document, is_squad, read_json, table_of
from bertshrink.data.tables.parquet import read_parquet
from bertshrink.data.tables.table import Table, joined
from bertshrink.data.texts import Split
from bertshrink.errors import UserError
from bertshrink.files.hub import local_path

_KINDS = f"kinds: {' '.join(READERS)}, also packed as {' or '.join(PACKED)}"


def check_source(name: str, where: str | None) -> None:
    """Prove, without reading it, that a data source may exist.

    Raises:
        UserError: an unknown builtin, a missing path, or a file or folder of a kind that is not read.
    """
    if name.startswith("builtin:"):
        if name != "builtin:pydoc":
            raise UserError(f"there is no `{name}`", where=where, hint="the only built-in text is `builtin:pydoc`")
        return
    path = local_path(name)
    if path.is_file() and suffix_of(path) not in READERS:
        raise UserError(f"`{name}` is not a text file that bertshrink reads", where=where, hint=_KINDS)
    try:
        if path.is_dir():
            _sides_of_folder(path)
        elif path.exists():
            check_plain(path)
    except UserError as error:
        error.where = where or error.where
        raise
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 2 or suffix_of(path) in READERS):
        raise UserError(f"there is no file or folder `{name}`", where=where, hint="check the path")


def read_sides(settings: DataSettings, notes: list[str]) -> dict[str, Split]:
    """The sides that are there, by name (`train`, `dev`, `test`); what was decided goes into `notes`.

    Raises:
        UserError: a file that cannot be read, or columns that cannot be determined.
        MissingDependency: a hub name while the hub cannot be reached.
        OutputError: the cache of hub datasets cannot be written.
    """
    sides = sides_of(_read_all(settings, notes), settings)
    train, test = sides.get("train"), sides.get("test")
    if train is not None and test is not None and not _is_hidden(train) and _is_hidden(test):
        del sides["test"]
        notes.append(f"the {len(test)} texts of the test split have no labels: the split is not used")
    return sides


def _read_all(settings: DataSettings, notes: list[str]) -> dict[str, Table | Split]:
    """The sides that are there: tables, and what is not a table; errors as in `read_sides`."""
    if settings.path == "builtin:pydoc":
        from bertshrink.data.formats.pydoc import read_pydoc

        return dict(zip(("train", "dev"), (Split(tuple(side)) for side in read_pydoc()), strict=True))
    sides: dict[str, Table | Split] = {}
    if settings.path is not None:
        path = local_path(settings.path)
        if path.is_dir():
            folder_sides = _sides_of_folder(path, notes)
            if set(folder_sides) == {"whole"}:
                sides = _read_whole(folder_sides["whole"], settings, notes)
            else:
                sides = {side: _read_files(files, settings, notes) for side, files in folder_sides.items()}
        elif path.exists():
            sides = _read_whole([path], settings, notes)
        else:
            check_source(settings.path, None)
            sides = _read_hub(settings.path, notes)
    for side, name in (("train", settings.train), ("dev", settings.dev), ("test", settings.test)):
        if name is not None:
            # One name may mean its own side of a folder, so that sides of two datasets can be put together.
            path = local_path(name)
            if not path.exists() and not path.suffix:
                check_source(name, None)
                hub_sides = _read_hub(name, notes)
                sides[side] = hub_sides.get(side) or next(iter(hub_sides.values()))
                continue
            files = _sides_of_folder(path).get(side, []) if path.is_dir() else [path]
            if not files:
                raise UserError(f"the folder `{name}` has no {side} split", hint="name its file")
            sides[side] = _read_files(files, settings, notes)
    return sides


def _sides_of_folder(folder: Path, notes: list[str] | None = None) -> dict[str, list[Path]]:
    """Side -> its files; `whole` -> the files of a folder where none is named after a side.

    Raises:
        UserError: nothing there that could be read, or more than one thing that could be meant.
    """
    listing = find_sides(folder)
    if listing.sides:
        if listing.left_out and notes is not None:
            notes.append(
                f"left out of `{folder.name}`, because their names match no split: {', '.join(listing.left_out)}"
            )
        return listing.sides
    # Of several files of JSON, the one whose keys name sides.
    whole = [folder / name for name in listing.left_out if name.lower().endswith(".json")]
    whole = [path for path in whole if _sides_of_json(_read_json(path))]
    if len(whole) == 1:
        return {"whole": whole}
    holds = f"; it holds {', '.join(f'`{name}`' for name in listing.left_out[:8])}" if listing.left_out else ""
    raise UserError(
        f"the folder `{folder}` holds no train or dev file{holds}",
        where=str(folder),
        hint=f"name them train.*, dev.* and test.*, {_KINDS}",
    )


def _read_whole(files: list[Path], settings: DataSettings, notes: list[str]) -> dict[str, Table | Split]:
    """Files that hold everything: sides by name in JSON, else a training split."""
    document = _read_json(files[0]) if len(files) == 1 and suffix_of(files[0]) == ".json" else None
    sides = _sides_of_json(document) if document is not None else {}
    if document is None or not sides:
        return {"train": _read_files(files, settings, notes, document)}
    others = sides.pop("", [])
    if others:
        notes.append(f"`{files[0].name}` has further parts, which are not read: {', '.join(others)}")
    return {
        side: _told(table_of(replace(document, value=rows), f"{files[0]}: {side}", settings.columns), notes)
        for side, rows in sides.items()
    }


def _read_json(path: Path) -> Document:
    return read_json(path, by_lines=suffix_of(path) != ".json")


def _sides_of_json(document: Document) -> dict[str, Any]:
    """Side -> rows of a JSON object whose keys name sides; under an empty name the keys that name none."""
    if not isinstance(document.value, dict):
        return {}
    remaining = dict(document.value)
    sides: dict[str, Any] = {}
    for side, names in SIDES.items():
        name = next((name for name in names if isinstance(remaining.get(name), list | dict)), None)
        if name is not None:
            sides[side] = remaining.pop(name)
    return sides | {"": sorted(map(str, remaining))} if sides else {}


def _read_files(
    files: Sequence[Path], settings: DataSettings, notes: list[str], document: Document | None = None
) -> Table | Split:
    """One side: a file, or the parts of one; `document` is the first one's, where it was read before."""
    path = files[0]
    check_plain(path)
    if suffix_of(path) not in READERS:
        raise UserError(f"`{path}` is not a text file that bertshrink reads", where=str(path), hint=_KINDS)
    if is_tagged(path):
        if len(files) > 1:
            what = f"words with tags are read from one file, and `{path}` has parts beside it"
            raise UserError(what, where=str(path), hint="put them into one file, with a blank line between")
        if how := how_written(path):
            notes.append(f"`{path.name}` was read as {how}")
        return read_conll(read_lines(path), str(path), settings)
    if READERS[suffix_of(path)] != "json" or _is_parquet(path):
        return _told(joined([_read_table(file, settings) for file in files], str(path)), notes)
    documents = [document or _read_json(path), *map(_read_json, files[1:])]
    if all(map(is_squad, documents)):
        return read_squad([article for parsed in documents for article in parsed.value["data"]], str(path))
    tables = [table_of(parsed, str(file), settings.columns) for file, parsed in zip(files, documents, strict=True)]
    return _told(joined(tables, str(path)), notes)


def _told(table: Table, notes: list[str]) -> Table:
    """The table, after a note on what its reader decided."""
    if table.how:
        notes.append(f"`{Path(table.name).name}` was read as {table.how}")
    return table


def _read_table(path: Path, settings: DataSettings) -> Table:
    """A file as a table, by what it is: Parquet is known by its first bytes, all else by its name.

    Raises:
        UserError: it cannot be read, or its header may be none.
    """
    kind = "parquet" if _is_parquet(path) else READERS[suffix_of(path)]
    if settings.columns is not None and kind not in ("delimited", "json"):
        what = f"`{path}` names its columns itself" if kind == "parquet" else f"`{path}` has no columns"
        raise UserError(what, where=str(path), hint="leave `columns` out")
    if kind == "delimited":
        table = read_delimited(path, suffix_of(path), settings.columns)
        if settings.columns is None:
            prove_header(table, _known_names(settings))
        return table
    if kind == "json":
        return table_of(_read_json(path), str(path), settings.columns)
    if kind == "parquet":
        return read_parquet(path)
    lines = list(read_lines(path))
    _no_table(path, lines)
    return Table(str(path), {"text": lines}, how=how_written(path), lines=range(1, len(lines) + 1))


def _known_names(settings: DataSettings) -> set[str]:
    """Names that columns have, as `plain` writes them: those that are asked for, and those that roles know."""
    asked = (settings.text, settings.pair, *(settings.label or "").split(","))
    names = (*chain.from_iterable(PAIRS), *TEXTS, *LABELS, *WORD_COLUMNS, *TAG_COLUMNS)
    return {plain(name) for name in (*asked, *names) if name}


def _is_parquet(path: Path) -> bool:
    if suffix_of(path) == ".parquet":
        return True
    with open_bytes(path) as file:
        return file.read(4) == PARQUET_START


def _no_table(path: Path, lines: Sequence[str]) -> None:
    """Refuse a table by the name of running text: spreadsheets export `Unicode text (*.txt)` with tabs."""
    tabs = {line.count("\t") for line in lines if line.strip()}
    if len(tabs) == 1 and 0 not in tabs and len(lines) > 1:
        raise UserError(
            f"every line of `{path}` has {tabs.pop()} tabs: it is a table, and .txt is one text per line",
            where=str(path),
            hint="name it .tsv",
        )


def _read_hub(name: str, notes: list[str]) -> dict[str, Table | Split]:
    splits = load_hub(name)
    sides = {side: next((splits[n] for n in names if n in splits), None) for side, names in SIDES.items()}
    return {side: _told(Table.of_dataset(rows, name), notes) for side, rows in sides.items() if rows is not None}


def _is_hidden(split: Split) -> bool:
    """Whether a side has no label, or every one is kept back: GLUE writes -1 for each."""
    return all(label in (-1, -1.0, None, "-1") for label in split.labels or ())
