"""A file for an engine, of whatever origin, becomes an artifact: looked at apart, given a card, in a private folder.

What may be named                                      Where its tokenizer and configuration are looked for
    a bare `.onnx`, `.ort` or `.pte` file              beside it; of `onnx/FILE.onnx` also one folder up (the hub's way)
    a folder with one of them, whatever it is called,  in the folder
        there or in its `onnx/` or `executorch/`; of several the one that is meant must be named
    a hub cache, `models--ORG--NAME` or a snapshot     in the snapshot
        in it
    an artifact folder without a manifest              in the folder; its own card is

The given folder is not touched and not read again: its small files are copied (see `safe_open`), the file is what
the child wrote (see `probe_process`). The card says what the file says of itself, where bertshrink exported it; else
what its outputs and its config.json say. What neither tells is asked for. The private folder (0700, in the system's
place for temporary files) goes when the process ends.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import ValidationError

from bertshrink.command_scope import once
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.atomic import output_errors
from bertshrink.files.json_files import read_json, read_object
from bertshrink.files.onnx_data_file import files_of
from bertshrink.files.safe_open import copy_plain
from bertshrink.files.scratch_folder import folder_of_process
from bertshrink.model.artifact import Artifact, ArtifactCard
from bertshrink.model.checkpoint_info import ARTIFACT_CARD, refuse_remote_code
from bertshrink.model.checks.stock_class import refuse_pointers
from bertshrink.model.checks.token_ids import in_small_letters
from bertshrink.model.checks.tokenizer import TOKENIZERS, has_tokenizer, read_tokenizer
from bertshrink.model.folder.layer_weights import WEIGHTS
from bertshrink.model.folder.layout import PLACES, engine_files, named_file, root_of
from bertshrink.model.folder.side_files import SENTENCE_FILES, write_tokenizer
from bertshrink.sources.external_card import make_card
from bertshrink.sources.external_file import EXPORT, ExternalFile
from bertshrink.sources.probe_process import probe_in_subprocess

_BESIDE = (
    *{name for files in TOKENIZERS for name in files},
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json", EXPORT),
)
_ABOUT = SENTENCE_FILES


def file_of(folder: Path) -> Path | None:
    """The file for an engine that a folder stands for; None where there is none.

    Raises:
        UserError: there are several.
    """
    card = folder / ARTIFACT_CARD
    own = named_file(folder, read_object(card).get("file")) if card.is_file() else None
    paths = [own] if own is not None else engine_files(folder)
    if len(paths) > 1:
        names = [path.relative_to(folder).as_posix() for path in paths]
        raise UserError(
            f"`{folder}` holds several model files: {', '.join(f'`{name}`' for name in names)}",
            where=str(folder),
            hint=f"name the one that you mean: `{folder / names[0]}`",
        )
    return paths[0] if paths else None


def import_external(path: Path, task: str = "auto") -> Path:
    """A private artifact folder made of a file; the same one for the same files within a command.

    Args:
        task: what it is for, where nothing else tells; `auto`: not named.

    Raises:
        UnsafeModel: the file, or one beside it, is not what it must be.
        UserError: something is missing that the file does not say itself.
        MissingDependency: what reads or runs its format is not installed.
        OutputError: there is no room for the copy.
    """
    home = _tokenizer_dir(path)
    key = (
        task,
        str(path.absolute()),
        *(sign for file in files_of(path) for sign in _stat_key(file)),
        *(sign for name in (*_BESIDE, *_ABOUT) for sign in _stat_key(home / name)),
    )
    return once("external file", key, lambda: _take_in(path, home, task))


def _stat_key(path: Path) -> tuple[object, ...]:
    try:
        about = path.stat()
    except OSError:
        return (None,)
    return about.st_ino, about.st_mtime_ns, about.st_size


def _tokenizer_dir(path: Path) -> Path:
    folder = path.parent
    has_any = any((folder / name).exists() for names in TOKENIZERS for name in names)
    return folder if has_any else root_of(path)


def _take_in(path: Path, home: Path, task: str) -> Path:
    place = folder_of_process()
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
        card = _own_card(own, path, home) if own.is_file() else make_card(origin, file, vocab_size, task)
        card = card.of_file(folder, file.relative_to(folder).as_posix())
        shutil.copytree(papers, folder, dirs_exist_ok=True)
        _read_small_letters(folder, origin)
        Artifact(folder, card).write_card(folder)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return folder


def _copy_papers(home: Path, papers: Path) -> None:
    files = (path for name in ("config.json", WEIGHTS) for path in home.glob(f"[0-9]*_*/{name}"))
    modules = [path.relative_to(home).as_posix() for path in files if not path.parent.is_symlink()]
    with output_errors(papers):
        for name in (*_BESIDE, *_ABOUT, ARTIFACT_CARD, *modules):
            if (home / name).exists() or (home / name).is_symlink():
                (papers / name).parent.mkdir(exist_ok=True)
                copy_plain(home / name, papers / name)


def _read_small_letters(folder: Path, origin: ExternalFile) -> None:
    """Have the copy of a tokenizer do what sentence-transformers' settings beside it ask for."""
    sentence = origin.sentence
    if sentence is not None and sentence.lower_case and has_tokenizer(folder):
        write_tokenizer(in_small_letters(read_tokenizer(folder)), folder)


def _vocab_size(origin: ExternalFile, home: Path) -> int:
    papers, rows = origin.papers, origin.look.vocab_size
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
