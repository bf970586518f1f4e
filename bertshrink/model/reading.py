"""Files, folders and hub data sets as the sides of `Texts`.

    a file        .tsv .csv .jsonl .parquet: columns; .json: rows, SQuAD, or sides by name; .txt: one text a line;
                  .conll .iob .bio .annotated (.txt after them): one word and its tag a line, blank lines between texts
    a folder      with train.*, dev.* (valid*, eval*), test.*, or folders of those names, or with one file of data
    a hub name    through `datasets`: `glue/sst2` is data set `glue`, configuration `sst2`; with an owner, three parts

TSV is read as GLUE writes it, with quoting off. What the columns of a table are is the matter of `roles`; how words
with tags and questions are read stands in `formats`.
A test side without labels beside a labelled training side (GLUE writes -1 for each) judges nothing and is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertshrink.errors import MissingPart, RequestError
from bertshrink.model.conll import read_conll
from bertshrink.model.roles import split_of
from bertshrink.model.source import hub_is_reachable, local_path
from bertshrink.model.squad import read_squad
from bertshrink.model.tables import Table
from bertshrink.model.texts import DataSettings, Split

READERS = {
    ".tsv": "csv",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".txt": "text",
    ".conll": "conll",
    ".iob": "conll",
    ".bio": "conll",
    ".annotated": "conll",
}
_SIDES = {"train": ("train",), "dev": ("dev", "valid", "validation", "val", "eval"), "test": ("test",)}
_SHARD = re.compile(r".+-\d+-of-\d+")


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
    if path.is_dir() and not _find_sides(path):
        raise RequestError(
            f"the folder `{name}` holds no train or dev file",
            where=where,
            hint=f"name them train.*, dev.* and test.*, kinds: {' '.join(READERS)}",
        )
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 2 or path.suffix in READERS):
        raise RequestError(f"there is no file or folder `{name}`", where=where, hint="check the path")


def read_sides(settings: DataSettings, notes: list[str]) -> dict[str, Split]:
    """The sides that are there, by name (`train`, `dev`, `test`); what was decided goes into `notes`.

    Raises:
        RequestError: a file that cannot be read, or columns that cannot be told.
        MissingPart: a hub name while the hub cannot be reached.
    """
    sides: dict[str, Split] = {}
    if settings.path is not None:
        path = local_path(settings.path)
        if path.is_dir():
            found = _find_sides(path)
            if set(found) == {"whole"}:
                sides = _read_whole(found["whole"], settings, notes)
            else:
                sides = {side: _read_files(files, settings) for side, files in found.items()}
        elif path.is_file():
            sides = _read_whole([path], settings, notes)
        else:
            sides = _read_hub(settings.path, settings)
    for side, name in (("train", settings.train), ("dev", settings.dev), ("test", settings.test)):
        if name is not None:
            # One name may mean its own side of a folder, so that sides of two data sets can be put together.
            path = local_path(name)
            if not path.exists() and not path.suffix:
                found_there = _read_hub(name, settings)
                sides[side] = found_there.get(side) or next(iter(found_there.values()))
                continue
            files = _find_sides(path).get(side, []) if path.is_dir() else [path]
            if not files:
                raise RequestError(f"the folder `{name}` has no {side} side", hint="name its file")
            sides[side] = _read_files(files, settings)
    train, test = sides.get("train"), sides.get("test")
    if train is not None and test is not None and not _is_hidden(train) and _is_hidden(test):
        del sides["test"]
        notes.append(f"the test side's {len(test)} texts have no labels: it judges nothing and is left out")
    return sides


def _find_sides(folder: Path) -> dict[str, list[Path]]:
    """Side -> its files; `whole` -> the only file of a folder where none is named after a side."""
    found = {side: files for side in _SIDES if (files := find_files(folder, side))}
    if found:
        return found
    files = _readable(folder)
    whole = [p for p in files if len(files) == 1 or (p.suffix.lower() == ".json" and _sides_of_json(p))]
    return {"whole": whole} if len(whole) == 1 else {}


def _readable(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in READERS)
    return [p for p in files if p.stem.lower() not in ("readme", "license")]


def find_files(folder: Path, side: str) -> list[Path]:
    """The files of one side: by the first name in `_SIDES` that is there; several where it is cut into shards."""
    files = _readable(folder)
    for stem in _SIDES[side]:
        for path in files:
            if path.stem.lower() == stem:
                return [path]
    for stem in _SIDES[side]:
        for path in files:
            if path.stem.lower().startswith(stem):
                shards = [p for p in files if _SHARD.fullmatch(p.stem) and p.stem.lower().startswith(f"{stem}-")]
                return shards if path in shards else [path]
    for stem in _SIDES[side]:
        for path in files:
            if stem in re.split(r"[._-]", path.name.lower()):
                return [path]
        inside = folder / stem
        if inside.is_dir() and len(only := _readable(inside)) == 1:
            return only
    return []


def _read_whole(files: list[Path], settings: DataSettings, notes: list[str]) -> dict[str, Split]:
    """One file that holds everything: sides by name in JSON, else a training side."""
    sides = _sides_of_json(files[0]) if files[0].suffix.lower() == ".json" else {}
    if not sides:
        return {"train": _read_files(files, settings)}
    others = sides.pop("", [])
    if others:
        notes.append(f"`{files[0].name}` has further parts, which were left out: {', '.join(others)}")
    return {side: _rows(rows, settings, f"{files[0]}: {side}") for side, rows in sides.items()}


def _sides_of_json(path: Path) -> dict[str, Any]:
    """Side -> rows of a JSON object whose keys name sides; under an empty name the keys that name none."""
    found = _load_json(path)
    if not isinstance(found, dict):
        return {}
    sides: dict[str, Any] = {}
    for side, names in _SIDES.items():
        name = next((name for name in names if isinstance(found.get(name), list)), None)
        if name is not None:
            sides[side] = found.pop(name)
    return sides | {"": sorted(map(str, found))} if sides else {}


def _load_json(path: Path) -> Any:
    """A JSON document; None where the file is none (JSON lines are not)."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _rows(rows: Sequence[Any], settings: DataSettings, where: str) -> Split:
    """Rows of a JSON list: objects, or lists of a text (or two) and a label."""
    import datasets

    if rows and all(isinstance(row, list) and len(row) in (2, 3) for row in rows):
        names = ["text", "label"] if len(rows[0]) == 2 else ["sentence1", "sentence2", "label"]
        rows = [dict(zip(names, row, strict=False)) for row in rows]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise RequestError(
            f"the rows of `{where}` are neither objects nor [text, label]", where=where, hint="mend the file"
        )
    return split_of(Table.of_dataset(datasets.Dataset.from_list(list(rows)), where), settings)


def _read_files(files: list[Path], settings: DataSettings) -> Split:
    path = files[0]
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise RequestError(f"`{path}` is no text file that bertshrink reads", hint=f"kinds: {' '.join(READERS)}")
    if not path.is_file():
        raise RequestError(f"there is no file `{path}`", hint="check the path")
    if path.stat().st_size == 0:
        raise RequestError(f"`{path}` is empty", where=str(path), hint="give a file with at least one text")
    if READERS[suffix] == "conll" or (suffix == ".txt" and READERS.get(Path(path.stem).suffix.lower()) == "conll"):
        with path.open(encoding="utf-8-sig") as file:
            return read_conll(file, str(path), settings)
    if suffix == ".json":
        document = _load_json(path)
        if isinstance(document, dict) and isinstance(document.get("data"), list):
            return read_squad(document["data"], str(path))
        if isinstance(document, list):
            return _rows(document, settings, str(path))
    return _read_table(files, settings)


def _read_table(files: list[Path], settings: DataSettings) -> Split:
    """Files of columns, through `datasets`."""
    import datasets

    path = files[0]
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
    return split_of(Table.of_dataset(rows, str(path)), settings)


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
        sides = {side: next((found[n] for n in names if n in found), None) for side, names in _SIDES.items()}
        splits = {s: split_of(Table.of_dataset(rows, name), settings) for s, rows in sides.items() if rows is not None}
        return splits
    raise MissingPart(
        f"the data set `{name}` is neither a path here nor to be had from the hub: {reason}",
        hint="give a local file or folder with `--data`, or `builtin:pydoc`",
    )


def _is_hidden(split: Split) -> bool:
    """Whether a side has no label, or every one is kept back: GLUE writes -1 for each."""
    return all(label in (-1, -1.0, None) for label in split.labels or ())
