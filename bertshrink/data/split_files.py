"""Which files of a folder are which side of the data.

    train.*, dev.* (valid*, val.*, eval*), test.*       by the name alone, by its beginning, or by a word in it
    train-00000-of-00002.parquet, train.1.csv, ...      parts: names that differ in one number, none of them missing
    train/, dev/, test/                                 folders with one file each, or its parts
    data/                                               one folder deep, as hub datasets have it

A path is a path: nothing in a name is a pattern. Where two files could be a side, none is chosen. What is left out is
told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertshrink.data.tables.decoding import PACKED
from bertshrink.errors import UserError

READERS = {
    ".tsv": "delimited",
    ".csv": "delimited",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".txt": "text",
    ".conll": "conll",
    ".iob": "conll",
    ".bio": "conll",
    ".annotated": "conll",
}
SIDES = {"train": ("train",), "dev": ("dev", "valid", "validation", "val", "eval"), "test": ("test",)}
_TAILS = "ing|set|data|uation"
"""What may follow a side's name without a blank: training, devset, evaluation. `testimonials` is not a test split."""
_OTHER_DATA = re.compile(
    r"\.(xlsx?|ods|zip|7z|rar|tar|tgz|bz2|xz|xml|arrow|feather|orc|avro|pkl|pickle|h5|hdf5|db|sqlite|npz|npy)"
)
"""Endings of data that is not read: a side that has only such a file is not missing but refused."""
_NO_DATA = ("readme", "license", "licence", "dataset_info", "dataset_infos", "state", "dataset_dict")


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        sides: side -> its files; `whole` -> the files of a folder where none is named after a side.
        left_out: names of data files that belong to none.
    """

    sides: dict[str, list[Path]]
    left_out: tuple[str, ...] = ()


def suffix_of(path: Path) -> str:
    """The kind that a file's name says, in small letters: `.csv` of `Train.CSV.gz`."""
    return Path(_unpacked(path)).suffix


def is_tagged(path: Path) -> bool:
    """Whether a file's name says that it holds words with tags: `.conll`, `.conll.txt`."""
    name, suffix = Path(_unpacked(path)), suffix_of(path)
    return READERS.get(suffix) == "conll" or (suffix == ".txt" and READERS.get(Path(name.stem).suffix) == "conll")


def _unpacked(path: Path) -> str:
    name = path.name.lower()
    return next((name[: -len(end)] for end in PACKED if name.endswith(end)), name)


def find_sides(folder: Path) -> Found:
    """The sides of a folder.

    Raises:
        UserError: two files or folders could be the same, parts are missing, or none is named after a side.
    """
    files, folders = _entries(folder)
    sides = {side: paths for side in SIDES if (paths := _of_side(folder, side, files, folders))}
    inner = [inside for inside in folders if _has_sides(inside)]
    if sides:
        taken = {path for paths in sides.values() for path in paths}
        loose = [path.name for path in files if path not in taken and path.parent == folder]
        return Found(sides, (*loose, *(f"{inside.name}/" for inside in inner if inside not in _parents(taken))))
    if len(inner) > 1:
        names = ", ".join(f"`{inside.name}`" for inside in inner)
        what, hint = f"the folder `{folder}` holds several datasets: {names}", "give one of them as the path"
        raise UserError(what, where=str(folder), hint=hint)
    if inner:
        return find_sides(inner[0])
    if not files:
        inside = [path for path in folders if _entries(path)[0]]
        if len(inside) == 1:
            files = _entries(inside[0])[0]
    if not files or not (len(files) == 1 or _are_parts(files, folder)):
        return Found({}, tuple(path.name for path in files))
    _check_whole(files, folder)
    return Found({"whole": files})


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """(files that are read, folders) in a folder, by name; numbers in names in their order."""
    files, folders = [], []
    try:
        entries = sorted(folder.iterdir(), key=_natural)
    except OSError as error:
        what = f"the folder `{folder}` cannot be read: {error.strerror}"
        raise UserError(what, where=str(folder), hint="check who may read it") from None
    for path in entries:
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir():
            folders.append(path)
        elif path.is_file() and suffix_of(path) in READERS and Path(_unpacked(path)).stem not in _NO_DATA:
            files.append(path)
    return files, folders


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _chunks(path.name)]


def _chunks(name: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", name) if part]


def _parents(paths: set[Path]) -> set[Path]:
    return {path.parent for path in paths}


def _has_sides(folder: Path) -> bool:
    files, folders = _entries(folder)
    return any((rank := _rank(path, side)) and rank[0] < 2 for path in files for side in SIDES) or any(
        path.name.lower() in names for path in folders for names in SIDES.values()
    )


def _rank(path: Path, side: str) -> tuple[int, int] | None:
    """How well a file's name names a side (smaller is better), and where in it; None where it does not."""
    stem = Path(_unpacked(path)).stem
    for name in SIDES[side]:
        if stem == name:
            return 0, 0
    for name in SIDES[side]:
        if re.match(rf"{name}(?:{_TAILS})?(?![a-z])", stem):
            return 1, 0
    words = re.split(r"[^a-z]+", stem)
    places = [words.index(name) for name in SIDES[side] if name in words]
    return (2, min(places)) if places else None


def _of_side(folder: Path, side: str, files: list[Path], folders: list[Path]) -> list[Path]:
    ranked: dict[int, list[Path]] = {}
    for path in files:
        ranks = {other: rank for other in SIDES if (rank := _rank(path, other)) is not None}
        if side in ranks and min(ranks, key=lambda other: ranks[other]) == side:
            ranked.setdefault(ranks[side][0], []).append(path)
    if ranked:
        return _one_or_parts(ranked[min(ranked)], folder, side)
    for inside in folders:
        if Path(_unpacked(inside)).stem in SIDES[side] or inside.name.lower() in SIDES[side]:
            own = _entries(inside)[0]
            if own:
                return _one_or_parts(own, inside, side)
    for path in sorted(folder.iterdir()):
        rank = _rank(path, side)
        if rank is not None and rank[0] < 2 and (_OTHER_DATA.fullmatch(path.suffix.lower()) or _is_odd(path)):
            raise UserError(
                f"the {side} split of `{folder}` is `{path.name}`, which is not a file that bertshrink reads",
                where=str(path),
                hint=f"kinds: {' '.join(READERS)}, also packed as {' or '.join(PACKED)}",
            )
    return []


def _is_odd(path: Path) -> bool:
    """Whether a path with the name of a data file is a pipe, or leads nowhere."""
    return suffix_of(path) in READERS and not path.is_file() and not path.is_dir()


def _one_or_parts(files: list[Path], folder: Path, side: str) -> list[Path]:
    if len(files) == 1 or _are_parts(files, folder):
        _check_whole(files, folder)
        return files
    names = ", ".join(f"`{path.name}`" for path in files[:8])
    raise UserError(
        f"the folder `{folder}` has several files for the {side} split: {names}",
        where=str(folder),
        hint="name the files of each split: --data train=FILE,dev=FILE,test=FILE",
    )


def _are_parts(files: Sequence[Path], folder: Path) -> bool:
    """Whether the files' names differ in one number alone. Raises UserError: they do, and a part is missing."""
    names = [_chunks(path.name) for path in files]
    if len({len(name) for name in names}) != 1:
        return False
    differing = [at for at, parts in enumerate(zip(*names, strict=True)) if len(set(parts)) > 1]
    if len(differing) != 1 or not all(name[differing[0]].isdecimal() for name in names):
        return False
    _check_whole(files, folder, differing[0])
    return True


def _check_whole(files: Sequence[Path], folder: Path, at: int | None = None) -> None:
    """Prove that no part is missing: of `-00000-of-00002` by its total, of other numbers by the gaps."""
    total = re.search(r"-(\d+)-of-(\d+)", files[0].name)
    if total is not None:
        there = {int(match[1]) for path in files if (match := re.search(r"-(\d+)-of-\d+", path.name))}
        first = 0 if 0 in there or len(there) < int(total[2]) else 1
        wanted = set(range(first, first + int(total[2])))
    elif at is not None:
        there = {int(_chunks(path.name)[at]) for path in files}
        wanted = set(range(min(there), max(there) + 1))
    else:
        return
    if there != wanted:
        missing = ", ".join(map(str, sorted(wanted - there)[:8]))
        raise UserError(
            f"`{files[0].name}` and its parts in `{folder}` are incomplete: number {missing} is missing",
            where=str(folder),
            hint="fetch the missing parts, or name the file you mean",
        )
