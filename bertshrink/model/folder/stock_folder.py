"""A repository that asks to run code of its own, as a folder of the stock class: its files but for that code.

    config.json     written anew for the stock class (see `model.checks.remote_code`), without `auto_map`
    *.py            left out: nothing here can import them
    all the rest    links to the files that were given

The folder is private (0700) and goes when the process ends. Whatever reads a model (this process, a worker that times
it) finds a stock checkpoint there, so no other part of the program knows of such code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from bertshrink.command_scope import once
from bertshrink.files.atomic import MANIFEST, output_errors
from bertshrink.files.json_files import read_object
from bertshrink.files.safe_open import blob_of
from bertshrink.files.scratch_folder import folder_of_process
from bertshrink.files.shards import INDEX, weight_file, weight_files
from bertshrink.model.checkpoint_info import ARTIFACT_CARD
from bertshrink.model.checks.remote_code import StockReading, as_stock, asks_for_code
from bertshrink.model.checks.stock_class import refuse_pointers

_CONFIG = "config.json"
_LEFT_OUT = (_CONFIG, MANIFEST)
_MODULE = "[0-9]*_*"
"""Of sentence-transformers; its folder must not lead elsewhere, so it is made anew, with links in it."""


@dataclass(frozen=True)
class StockFolder:
    """Where the model is for the stock class, and what is to be told of it."""

    folder: Path
    remark: str


def stock_folder(given: Path) -> StockFolder | None:
    """The private folder of a repository that asks for code; None: it does not ask, or is no encoder's folder.

    Within a command the same one for the same files.

    Raises:
        UnsafeModel: no stock class is known to compute what that code does.
        OutputError: there is no room for it.
    """
    path = given / _CONFIG
    if not path.is_file() or (given / ARTIFACT_CARD).is_file():
        return None
    config = read_object(path)
    if not asks_for_code(config):
        return None
    about = path.stat()
    names = tuple(sorted(entry.name for entry in given.iterdir()))
    key = (str(given.absolute()), about.st_ino, about.st_mtime_ns, about.st_size, names)
    return once("stock folder", key, lambda: _made(given, as_stock(config, str(path))))


def _made(given: Path, reading: StockReading) -> StockFolder:
    refuse_pointers(given)
    if weight_file(given).name == INDEX:
        for path in weight_files(given):
            if path.is_symlink():
                blob_of(path)  # as `read_weights`, which sees only our own links
    folder = folder_of_process()
    with output_errors(folder):
        for entry in given.iterdir():
            if entry.name in _LEFT_OUT or entry.suffix == ".py":
                continue
            if fnmatch(entry.name, _MODULE) and entry.is_dir() and not entry.is_symlink():
                (folder / entry.name).mkdir()
                for inner in entry.iterdir():
                    (folder / entry.name / inner.name).symlink_to(inner.absolute())
            else:
                (folder / entry.name).symlink_to(entry.absolute())
        (folder / _CONFIG).write_text(json.dumps(reading.config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return StockFolder(folder, reading.remark)
