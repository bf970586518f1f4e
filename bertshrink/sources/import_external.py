"""A file for an engine, of whatever origin, becomes an artifact: looked at apart, given a card, in a private folder.

What may be named                                      Where its tokenizer and configuration are looked for
    a bare `.onnx`, `.ort` or `.pte` file              beside it; of `onnx/FILE.onnx` also one folder up (the hub's way)
    a folder with `model.onnx` (optimum's way),        in the folder
        `model_quantized.onnx`, `model.ort` or `model.pte`, or these in `onnx/` and `executorch/`
    an artifact folder without a manifest              in the folder; its own card is

The given folder is not touched and not read again: its small files are copied (see `safe_open`), the file is what
the child wrote (see `probe_process`). The card says what the file says of itself, where bertshrink exported it; else
what its outputs and its config.json say. What neither tells is asked for. The private folder (0700, in the system's
place for temporary files) goes when the process ends.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from pydantic import ValidationError

from bertshrink.command_scope import once
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.atomic import output_errors
from bertshrink.files.json_files import read_json, read_object
from bertshrink.files.safe_open import copy_plain
from bertshrink.files.scratch_folder import make_scratch
from bertshrink.model.artifact import Artifact, ArtifactCard
from bertshrink.model.checkpoint_info import ARTIFACT_CARD, refuse_remote_code
from bertshrink.model.checks.stock_class import refuse_pointers
from bertshrink.model.checks.token_ids import in_small_letters
from bertshrink.model.checks.tokenizer import read_tokenizer
from bertshrink.model.folder.layout import FOREIGN, PLACES, root_of
from bertshrink.model.folder.side_files import SENTENCE_FILES, write_tokenizer
from bertshrink.sources.external_card import ExternalFile, make_card
from bertshrink.sources.probe_process import probe_in_subprocess

_TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
)
_BESIDE = (
    *{name for files in _TOKENIZERS for name in files},
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"),
)
_ABOUT = SENTENCE_FILES


def file_of(folder: Path) -> Path | None:
    """The file for an engine that a folder stands for; None where there is none."""
    paths = (folder / name for name in FOREIGN)
    return next((path for path in paths if path.exists() or path.is_symlink()), None)


def import_external(path: Path) -> Path:
    """A private artifact folder made of a file; the same one for the same files within a command.

    Raises:
        UnsafeModel: the file, or one beside it, is not what it must be.
        UserError: something is missing that the file does not say itself.
        MissingDependency: what reads or runs its format is not installed.
        OutputError: there is no room for the copy.
    """
    home = _tokenizer_dir(path)
    key = (
        str(path.absolute()),
        *_stat_key(path),
        *(sign for name in (*_BESIDE, *_ABOUT) for sign in _stat_key(home / name)),
    )
    return once("external file", key, lambda: _take_in(path, home))


def _stat_key(path: Path) -> tuple[object, ...]:
    try:
        about = path.stat()
    except OSError:
        return (None,)
    return about.st_ino, about.st_mtime_ns, about.st_size


@cache
def _temp_dir() -> Path:
    (shelf, release), owner = make_scratch(), os.getpid()

    def clear() -> None:
        if os.getpid() == owner:  # not a process forked from this one
            release.close()

    atexit.register(clear)
    return shelf


def _tokenizer_dir(path: Path) -> Path:
    folder = path.parent
    has_tokenizer = any((folder / name).exists() for names in _TOKENIZERS for name in names)
    return folder if has_tokenizer else root_of(path)


def _take_in(path: Path, home: Path) -> Path:
    place = Path(tempfile.mkdtemp(dir=_temp_dir()))
    folder, papers = place / "artifact", place / "papers"
    file = folder / PLACES[path.suffix[1:]]
    try:
        with output_errors(folder):
            file.parent.mkdir(parents=True)
            papers.mkdir()
        refuse_pointers(home.absolute(), path.absolute())
        look = probe_in_subprocess(path.absolute(), file)
        _copy_papers(home, papers)
        origin = ExternalFile(look, papers, str(path))
        refuse_remote_code(papers, origin.config)
        vocab_size = _vocab_size(origin, home)
        own = papers / ARTIFACT_CARD
        card = _own_card(own, path, home) if own.is_file() else make_card(origin, file, vocab_size)
        card = card.model_copy(update={"file": file.relative_to(folder).as_posix()})
        shutil.copytree(papers, folder, dirs_exist_ok=True)
        _read_small_letters(folder, origin)
        Artifact(folder, card).write_card(folder)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return folder


def _copy_papers(home: Path, papers: Path) -> None:
    modules = [p.relative_to(home).as_posix() for p in home.glob("[0-9]*_*/config.json") if not p.parent.is_symlink()]
    with output_errors(papers):
        for name in (*_BESIDE, *_ABOUT, ARTIFACT_CARD, *modules):
            if (home / name).exists() or (home / name).is_symlink():
                (papers / name).parent.mkdir(exist_ok=True)
                copy_plain(home / name, papers / name)


def _read_small_letters(folder: Path, origin: ExternalFile) -> None:
    """Have the copy of a tokenizer do what sentence-transformers' settings beside it ask for."""
    sentence = origin.sentence
    if sentence is not None and sentence.lower_case:
        write_tokenizer(in_small_letters(read_tokenizer(folder)), folder)


def _vocab_size(origin: ExternalFile, home: Path) -> int:
    papers, rows = origin.papers, origin.look.vocab_size
    if not any(all((papers / name).is_file() for name in names) for names in _TOKENIZERS):
        raise UserError(
            "there is no tokenizer beside the model file",
            where=str(home),
            hint="put the model's `tokenizer.json`, `tokenizer_config.json` and `config.json` there, as "
            "`AutoTokenizer.from_pretrained(NAME).save_pretrained(DIR)` writes them",
        )
    largest, token = _last_token(papers) or (None, None)
    if rows is None:
        told = origin.config.get("vocab_size")
        rows = told if isinstance(told, int) and told > 0 else None if largest is None else largest + 1
    if rows is None:
        raise UserError(
            "cannot determine the vocabulary size",
            where=str(home),
            hint="put the model's config.json, which has its `vocab_size`, beside the file",
        )
    if largest is not None and largest >= rows:
        raise UserError(
            f"the tokenizer knows ids up to {largest} (`{token}`), the model's table has {rows} rows: it belongs to "
            "another model, or tokens were added without embedding rows",
            where=str(home),
            hint="put the model's own tokenizer beside the file, as it was when the file was made",
        )
    return rows


def _last_token(papers: Path) -> tuple[int, str] | None:
    """The largest id of the vocabulary, added tokens included, and its token; None where the files do not say it."""
    tokens: list[tuple[int, str]] = []
    if (papers / "tokenizer.json").is_file():
        about = read_object(papers / "tokenizer.json")
        model, added = about.get("model"), about.get("added_tokens")
        words = model.get("vocab") if isinstance(model, dict) else None
        if isinstance(words, list) and words:
            last = words[-1]
            tokens.append((len(words) - 1, str(last[0] if isinstance(last, list) and last else last)))
        elif isinstance(words, dict):
            tokens += [(number, token) for token, number in words.items() if isinstance(number, int)]
        for one in added if isinstance(added, list) else ():
            if isinstance(one, dict) and isinstance(one.get("id"), int):
                tokens.append((one["id"], str(one.get("content"))))
    elif (papers / "vocab.txt").is_file():
        lines = (papers / "vocab.txt").read_bytes().splitlines()
        tokens += [(len(lines) - 1, lines[-1].decode("utf-8", "replace"))] if lines else []
        if (papers / "added_tokens.json").is_file():
            own = read_object(papers / "added_tokens.json")
            tokens += [(number, token) for token, number in own.items() if isinstance(number, int)]
    return max(tokens, default=None)


def _own_card(path: Path, given: Path, home: Path) -> ArtifactCard:
    """The card of an artifact folder whose manifest is gone."""
    try:
        card = ArtifactCard.model_validate(read_json(path))
    except ValidationError as error:
        what = f"`{ARTIFACT_CARD}` is damaged: {error.errors()[0]['msg']}"
        raise UnsafeModel(what, where=str(path), hint="export the model again") from None
    name = given.absolute().relative_to(home.absolute()).as_posix()
    if card.file != name:
        raise UnsafeModel(f"`{ARTIFACT_CARD}` is that of `{card.file}`, not of `{name}`", where=str(path))
    return card
