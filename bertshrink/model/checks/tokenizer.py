"""A folder's tokenizer, loaded and tried: what its library cannot do with it is a refusal of its files.

The tokenizers library is written in Rust. What it gives up on comes as an exception of any kind, or as a panic, which
is not an `Exception` at all (`pyo3_runtime.PanicException`) and would end the program without a word of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bertshrink.errors import BertshrinkError, UnsafeModel, UserError
from bertshrink.files.json_files import read_object
from bertshrink.model.checks.label_maps import MOST_LABELS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("sentencepiece.model",),
    ("spm.model",),
    ("tokenizer.model",),
)
"""The files of a tokenizer, each kind's."""

_TEXT = "It was, all in all, a surprisingly good film: 3.5 of 5."
_HINT = "save it again beside the model: `tokenizer.save_pretrained(DIR)`"


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has the files of a tokenizer."""
    return any(all((folder / name).is_file() for name in names) for names in TOKENIZERS)


def require_tokenizer(folder: Path, where: str) -> None:
    """Ask for a tokenizer. Raises UserError: the folder, whose name for messages is `where`, has none."""
    if not has_tokenizer(folder):
        raise UserError(
            "there is no tokenizer beside the model file, and texts need one",
            where=where,
            hint="put the model's `tokenizer.json`, `tokenizer_config.json` and `config.json` there, as "
            "`AutoTokenizer.from_pretrained(NAME).save_pretrained(DIR)` writes them",
        )


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder that is known to have one.

    Raises:
        UnsafeModel: it cannot be loaded, or makes nothing of a text.
    """
    import transformers

    _refuse_endless_labels(folder)
    with refusing(f"the tokenizer in `{folder}` cannot be loaded", str(folder)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        ids = tokenizer(_TEXT)["input_ids"]
        if not ids or not all(isinstance(one, int) for one in ids):
            raise UnsafeModel("the tokenizer turns a text into no tokens", where=str(folder), hint=_HINT)
    return tokenizer


def _refuse_endless_labels(folder: Path) -> None:
    """Refuse a config.json with more labels than any model has: transformers, asked for a tokenizer, names them all."""
    path = folder / "config.json"
    if path.is_file():
        number = read_object(path).get("num_labels")
        if isinstance(number, int) and number > MOST_LABELS:
            what = f"`num_labels` of config.json is {number}, more than any model has"
            raise UnsafeModel(what, where=str(path), hint="fix the value, or save the model again")


@contextmanager
def refusing(what: str, where: str, *, panics_only: bool = False) -> Iterator[None]:
    """Turn a failure of the library into a refusal; `panics_only`: exceptions pass, they may be a text's fault."""
    try:
        yield
    except (BertshrinkError, MemoryError):
        raise
    except BaseException as error:
        is_panic = not isinstance(error, Exception) and is_library_panic(error)
        if not is_panic and (panics_only or not isinstance(error, Exception)):
            raise
        lines = str(error).splitlines() or [""]
        reason = lines[0] if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {lines[0]}"
        raise UnsafeModel(f"{what}: {reason[:300]}", where=where, hint=_HINT) from error


def is_library_panic(error: BaseException) -> bool:
    """Whether a library written in Rust has given up."""
    return type(error).__name__ == "PanicException"
