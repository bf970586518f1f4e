"""Models and data in memory, as what a recipe can name: folders and files.

Each is written once, under the hash of its content, so the same object given again finds what was finished before.

    model   a name or path; a transformers model with its tokenizer; a pipeline; a SentenceTransformer or CrossEncoder;
            the result of another call
    data    a name or path; a `datasets.Dataset` or `DatasetDict`; a pandas DataFrame; a list of texts, of (text, label)
            or (text, second text, label), or of dictionaries; splits by name, or the settings of `data:`
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bertshrink.data.settings import DataSettings
from bertshrink.errors import UserError, did_you_mean
from bertshrink.files.atomic import output_errors
from bertshrink.model.quiet import quiet_libraries

_OBJECTS = "objects"
"""Below directory for run folders."""
_SPLITS = ("train", "dev", "test", "unlabelled")
_SPLIT_NAMES = {"validation": "dev", "valid": "dev", "eval": "dev"}
_MODEL_HINT = "give a name, a folder, a transformers model (with its tokenizer), a pipeline or a SentenceTransformer"
_DATA_HINT = (
    "give a name, a path, a datasets.Dataset or DatasetDict, a DataFrame, or a list of (text, label) or of dictionaries"
)


def model_name(model: Any, runs: Path) -> str:
    """The name or folder of a model.

    Args:
        model: as in this file's opening.
        runs: directory for run folders, where a model in memory is written.

    Raises:
        UserError: it is nothing of this kind, or it has no tokenizer.
        OutputError: there is no room for it.
    """
    if isinstance(model, str):
        return model
    if isinstance(model, os.PathLike):
        return str(Path(model))
    path = getattr(model, "path", None)
    if isinstance(path, Path) and hasattr(model, "report"):
        return str(path)
    if isinstance(model, tuple) and len(model) == 2:
        return str(_kept(runs, type(model[0]).__name__, lambda folder: _save_transformers(*model, folder)))
    if _is_of(model, "sentence_transformers"):
        return str(_kept(runs, type(model).__name__, lambda folder: _save_sentence(model, folder)))
    if _is_of(model, "transformers"):
        inner, tokenizer = getattr(model, "model", model), getattr(model, "tokenizer", None)
        if not hasattr(model, "tokenizer"):  # a model, not a pipeline
            inner, tokenizer = model, _tokenizer_of(model)
        return str(_kept(runs, type(inner).__name__, lambda folder: _save_transformers(inner, tokenizer, folder)))
    raise UserError(f"a `{type(model).__name__}` is not a model that can be read", where="model", hint=_MODEL_HINT)


def data_settings(data: Any, runs: Path) -> dict[str, Any] | str | None:
    """A recipe's `data:`.

    Args:
        data: as in this file's opening; None: there is none.
        runs: directory for run folders, where data in memory is written.

    Raises:
        UserError: it is nothing of this kind, or it is empty.
        OutputError: there is no room for it.
    """
    if data is None or isinstance(data, str):
        return data
    if isinstance(data, os.PathLike):
        return str(Path(data))
    if isinstance(data, Mapping):
        return _mapping(data, runs)
    return str(_kept(runs, "data", lambda folder: _write_split(data, folder, "train")))


def _mapping(data: Mapping[str, Any], runs: Path) -> dict[str, Any]:
    """Splits by name, each a path or in memory; or the settings of `data:` as they are."""
    settings: dict[str, Any] = {}
    for key, value in data.items():
        name = _SPLIT_NAMES.get(key, key)
        if name not in DataSettings.model_fields:
            known = [*_SPLITS, *_SPLIT_NAMES]
            raise UserError(f"`data` has no split `{key}`", where="data", hint=did_you_mean(str(key), known))
        if name in settings:
            raise UserError(f"two splits of `data` are `{name}`", where="data", hint="leave one of them out")
        if name in _SPLITS and not isinstance(value, str | os.PathLike):
            settings[name] = str(_kept(runs, name, partial(_write_split, value, name=name)))
        else:
            settings[name] = str(Path(value)) if isinstance(value, os.PathLike) else value
    return settings


def _kept(runs: Path, name: str, write: Callable[[Path], None]) -> Path:
    """What `write` puts into an empty folder, kept under a name and the hash of its content."""
    home = runs / _OBJECTS
    with output_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".tmp-", dir=home))
        try:
            write(scratch)
            place = home / f"{name}-{_digest(scratch)}"
            if not place.exists():
                scratch.replace(place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return place


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _is_of(thing: Any, package: str) -> bool:
    return any(kind.__module__.split(".")[0] == package for kind in type(thing).__mro__)


def _tokenizer_of(model: Any) -> Any:
    """The tokenizer of where a transformers model was loaded from."""
    import transformers

    name = getattr(model, "name_or_path", "")
    try:
        return transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False) if name else None
    except (OSError, ValueError):
        return None


@quiet_libraries()
def _save_transformers(model: Any, tokenizer: Any, folder: Path) -> None:
    if tokenizer is None:
        what = f"the `{type(model).__name__}` has no tokenizer: it does not say where it was loaded from"
        raise UserError(what, where="model", hint="give both: `(model, tokenizer)`")
    if not hasattr(model, "save_pretrained") or not hasattr(tokenizer, "save_pretrained"):
        what = f"a `{type(model).__name__}` with a `{type(tokenizer).__name__}` cannot be saved"
        raise UserError(what, where="model", hint=_MODEL_HINT)
    model.save_pretrained(folder)
    still = copy.deepcopy(tokenizer)
    if hasattr(still, "backend_tokenizer"):  # how it padded and cut when it was called last is not part of the model
        still.backend_tokenizer.no_padding()
        still.backend_tokenizer.no_truncation()
    still.save_pretrained(folder)


@quiet_libraries()
def _save_sentence(model: Any, folder: Path) -> None:
    model.save_pretrained(str(folder))


def _write_split(rows: Any, folder: Path, name: str) -> None:
    """Rows in memory as a file; of a datasets.Dataset Parquet, which keeps its types and the names of its labels."""
    if _is_of(rows, "datasets") and hasattr(rows, "to_parquet"):
        if not len(rows):
            raise UserError("`data` is empty", where="data", hint="give at least one text")
        from bertshrink.data.hub_datasets import quiet_datasets

        with quiet_datasets():
            rows.to_parquet(str(folder / f"{name}.parquet"))
        return
    if _is_of(rows, "pandas") and hasattr(rows, "to_dict"):
        rows = rows.to_dict(orient="records")
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        what = f"a `{type(rows).__name__}` is not data that can be read"
        raise UserError(what, where="data", hint=_DATA_HINT)
    lines = [json.dumps(_row(row, at), ensure_ascii=False) for at, row in enumerate(rows)]
    if not lines:
        raise UserError("`data` is empty", where="data", hint="give at least one text")
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(row: Any, at: int) -> dict[str, Any]:
    if isinstance(row, Mapping):
        return {str(key): _plain(value) for key, value in row.items()}
    if isinstance(row, str):
        return {"text": row}
    if isinstance(row, Sequence) and len(row) in (2, 3) and all(isinstance(one, str) for one in row[:-1]):
        names = ("text", "label") if len(row) == 2 else ("text", "text_pair", "label")
        return dict(zip(names, map(_plain, row), strict=True))
    raise UserError(
        f"row {at} of `data` is a `{type(row).__name__}` that cannot be read", where="data", hint=_DATA_HINT
    )


def _plain(value: Any) -> Any:
    """A NumPy scalar or array as Python's own."""
    return value.tolist() if hasattr(value, "tolist") else value
