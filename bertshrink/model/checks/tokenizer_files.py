"""What a tokenizer's files say, against what transformers makes of them: read alike, or refused by name.

The classes of transformers 5 build their steps anew from a vocabulary and a few settings. So they leave out in silence

    a file that the class does not read       a vocabulary of five tokens, to which every word is unknown
    steps of tokenizer.json                   a normalizer or a pre-tokenizer of the checkpoint's own, a model of
                                              another kind: the file is read as of no class
    settings of slow tokenizers               `do_basic_tokenize: false`, `never_split`
    what a SentencePiece model is             pieces merged as in BPE, read as if chosen by their scores
"""

from __future__ import annotations

import importlib.util
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.errors import MissingDependency, UnsafeModel, UserError, listed
from bertshrink.model.checks.tokenizer import TOKENIZERS, read_tokenizer, refusing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BACKEND = "tokenizer.json"
_SAVE = (
    "save it with the transformers that trained the model: `AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)`"
)
_TEXTS = (
    "It was, all in all, a surprisingly GOOD film: 3.5 of 5 (don't miss it)!",
    "Größe, naïve café, İstanbul, coöperation and \u201cquotes\u201d \u2014 e\u0301",
    "Тише едешь дальше будешь, ёлка; Ελληνικά; Türkçe",
    "東京タワーに行く。我还没开始呢？ 한국어 문장입니다",  # noqa: RUF001
    "चिंताएं ज़रूरी है। مَرحبا بالعالم שָׁלוֹם ภาษาไทย",
    "\u00bd \ufb01ne \u2116 \uff46\uff55\uff4c\uff4c 😀 x_y a+b=c <b> #tag @user",
    f"{'long' * 30} {'Antidisestablishmentarianism'}",
)
"""Texts in which a tokenizer's steps show: cases, accents, marks, scripts without spaces, forms of compatibility."""

_UNIGRAM, _BPE = 1, 2
"""Kinds of SentencePiece models, as `trainer_spec.model_type` numbers them."""
_LOST_SHARE = 0.01
"""Of pieces that a normalizer may make unreachable: odd characters, not a script."""


def load_tokenizer(folder: Path) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """The tokenizer of a folder as its files say it; what is returned as of `check_files`.

    Raises:
        UserError: it has none: transformers would make an empty one up.
        UnsafeModel: it cannot be loaded, or is not what its files say.
        MissingDependency: only the library sentencepiece can read it.
    """
    names = [name for kind in TOKENIZERS for name in kind if (folder / name).is_file()]
    if not names:
        hint = "save it beside the model: `tokenizer.save_pretrained(DIR)`"
        raise UserError("the model has no tokenizer files", where=str(folder), hint=hint)
    refuse_unconvertible(folder, names)
    tokenizer = read_tokenizer(folder)
    with refusing(f"the tokenizer in `{folder}` cannot be used", str(folder)):
        return check_files(folder, tokenizer)


def refuse_unconvertible(folder: Path, names: Sequence[str]) -> None:
    """Refuse a tokenizer that only the library sentencepiece can read, where that is not installed.

    Args:
        names: of the tokenizer's files that the folder has.

    Raises:
        MissingDependency: it is.
    """
    is_only = all(name.endswith(".model") for name in names)
    if is_only and importlib.util.find_spec("sentencepiece") is None:
        raise MissingDependency(
            f"the tokenizer is a SentencePiece model (`{names[0]}`) without a {_BACKEND}, and transformers needs the "
            "library sentencepiece to convert it",
            where=str(folder / names[0]),
            hint=f"pip install sentencepiece, or save the tokenizer as {_BACKEND} beside the model",
        )


def check_files(folder: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """Prove that a tokenizer is what its files say.

    Returns:
        the tokenizer, or the one that its tokenizer.json is where its class makes another of it; notes on what is read
        otherwise than a file says.

    Raises:
        UnsafeModel: it is not.
    """
    has_backend = (folder / _BACKEND).is_file()
    _refuse_unread(folder, tokenizer, has_backend=has_backend)
    if not tokenizer.is_fast:
        return tokenizer, (
            f"the tokenizer is `{type(tokenizer).__name__}`, a slow one: only transformers reads it, not what needs a "
            f"{_BACKEND}",
        )
    if has_backend:
        return _compare_steps(folder, tokenizer)
    _refuse_settings(folder, tokenizer)
    model = folder / str(tokenizer.vocab_files_names.get("vocab_file"))
    if model.suffix == ".model":
        refuse_pieces(_pieces_of(model), tokenizer, str(model))
    return tokenizer, ()


def _refuse_unread(folder: Path, tokenizer: PreTrainedTokenizerBase, *, has_backend: bool) -> None:
    """Refuse a class that reads none of the folder's files, or lacks one of two that belong together."""
    own = sorted(f"`{name}`" for role, name in tokenizer.vocab_files_names.items() if role != "tokenizer_file")
    lacking = [name for name in own if not (folder / name.strip("`")).is_file()]
    if tokenizer.is_fast and (has_backend or (own and not lacking)):
        return
    if not tokenizer.is_fast and lacking != own:  # some of them read one file or another
        return
    raise UnsafeModel(
        f"the tokenizer's class is `{type(tokenizer).__name__}`, which reads {listed(own)}, and the folder lacks "
        f"{listed(lacking)}",
        where=str(folder),
        hint="name the right class in tokenizer_config.json, as `tokenizer_class`, or save the tokenizer again beside "
        "the model",
    )


def _refuse_settings(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse settings of a slow tokenizer that its fast form does not have."""
    given = tokenizer.init_kwargs
    lost = ["`do_basic_tokenize: false`"] if given.get("do_basic_tokenize") is False else []
    lost += ["`never_split`"] if given.get("never_split") else []
    if lost:
        raise UnsafeModel(
            f"tokenizer_config.json sets {listed(lost)}, which `{type(tokenizer).__name__}`, a fast one, ignores",
            where=str(folder / "tokenizer_config.json"),
            hint=f"if the model was trained without it, delete it; else put a {_BACKEND} that does it beside the model",
        )


def _compare_steps(folder: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """Compare the steps of tokenizer.json with those that the class built; where they differ, read as version 4 did.

    Up to version 4 transformers read the file, and put a class's settings in the place of its flags. Version 5 writes
    what its classes build: there is no difference.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if type(tokenizer) is PreTrainedTokenizerFast:
        return tokenizer, ()
    stored, built = Tokenizer.from_file(str(folder / _BACKEND)), tokenizer.backend_tokenizer
    stored.no_truncation()
    stored.no_padding()
    if (found := _first_difference(stored, tokenizer)) is None:
        return tokenizer, ()
    name, flags = type(tokenizer).__name__, []
    for step in ("normalizer", "pre_tokenizer"):
        mine, theirs = getattr(built, step), getattr(stored, step)
        if type(mine) is type(theirs) and type(mine).__name__ != "Sequence" and repr(mine) != repr(theirs):
            flags.append(f"{theirs!r}")
            setattr(stored, step, mine)
    if not flags:
        return _as_in_file(folder, tokenizer), (
            f"{_BACKEND} is read, and saved, as of no class: `{name}` of transformers 5 builds its steps anew, and "
            f"reads `{found.text[:40]}` as {found.by_class}, not as {found.by_file}",
        )
    if _first_difference(stored, tokenizer) is None:
        return tokenizer, (
            f"{_BACKEND} says {listed(flags)}, and the settings of `{name}` say otherwise: texts are read by those, as "
            "transformers reads them",
        )
    raise UnsafeModel(
        f"{_BACKEND} reads `{found.text[:40]}` as {found.by_file}, and the installed transformers as {found.by_class}: "
        f"its class `{name}` builds its steps anew, and with other flags than {listed(flags)}",
        where=str(folder / _BACKEND),
        hint=f'if {_BACKEND} is right, write `"tokenizer_class": "PreTrainedTokenizerFast"` into '
        "tokenizer_config.json, and its special tokens; if the class is, "
        "`AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)`",
    )


def _as_in_file(folder: Path, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer of no class that tokenizer.json alone is, with the special tokens that the class names."""
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    vocabulary = plain.get_vocab()
    for role, token in tokenizer.special_tokens_map.items():
        if isinstance(token, str) and token in vocabulary and getattr(plain, role, None) is None:
            setattr(plain, role, token)
    plain.model_input_names = tokenizer.model_input_names
    plain.init_kwargs["model_input_names"] = tokenizer.model_input_names
    return plain


@dataclass(frozen=True)
class _Difference:
    """A text that is read in two ways, and the tokens from the first difference on."""

    text: str
    by_file: str
    by_class: str


def _first_difference(stored: Any, tokenizer: PreTrainedTokenizerBase) -> _Difference | None:
    for text in _TEXTS:
        for pair in ((text,), (text, text)):
            mine, theirs = tokenizer(*pair, verbose=False), stored.encode(*pair)
            if mine["input_ids"] == theirs.ids and mine.get("token_type_ids", theirs.type_ids) == theirs.type_ids:
                continue
            ids = mine["input_ids"]
            at = next((i for i, (a, b) in enumerate(zip(ids, theirs.ids, strict=False)) if a != b), len(ids) - 1)
            names = tokenizer.convert_ids_to_tokens(ids)
            return _Difference(text, *(f"`... {' '.join(side[at : at + 4])} ...`" for side in (theirs.tokens, names)))
    return None


def _pieces_of(model: Path) -> Any:
    from transformers.convert_slow_tokenizer import SentencePieceExtractor

    return SentencePieceExtractor(str(model)).proto


def refuse_pieces(proto: Any, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Refuse a SentencePiece model that the fast form of its class does not read as sentencepiece does.

    Args:
        proto: the model's message.

    Raises:
        UnsafeModel: it does not.
    """
    backend: Any = tokenizer.backend_tokenizer
    kind, trained = type(backend.model).__name__, proto.trainer_spec
    faults = []
    if trained.model_type != {"Unigram": _UNIGRAM, "BPE": _BPE}.get(kind):
        faults.append(f"its pieces are not those of a {kind} model, as which the class reads them")
    if trained.byte_fallback and not getattr(backend.model, "byte_fallback", False):
        faults.append("it writes unknown characters as bytes, which the class does not")
    if not proto.normalizer_spec.add_dummy_prefix:
        faults.append("it puts no space before a text, which the class does")
    lost = [piece.piece for piece in proto.pieces if _loses_marks(piece.piece, backend.normalizer)]
    if len(lost) > _LOST_SHARE * len(proto.pieces):
        shown = listed([f"`{piece}`" for piece in lost])
        faults.append(f"it has pieces with marks that the class takes for accents and strips: {shown}")
    if faults:
        raise UnsafeModel(
            f"the SentencePiece model is not what `{type(tokenizer).__name__}` makes of it: {'; '.join(faults)}",
            where=where,
            hint=_SAVE,
        )


def _loses_marks(piece: str, normalizer: Any) -> bool:
    """Whether a normalizer strips marks that are no accents: signs for vowels, in most scripts of India."""
    marks = [letter for letter in piece if unicodedata.category(letter)[0] == "M" and not unicodedata.combining(letter)]
    return bool(marks) and normalizer is not None and not set(marks) <= set(normalizer.normalize_str(piece))
