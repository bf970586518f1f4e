"""The small files beside a model, by which other libraries load it and give the same numbers.

config.json                        labels, `architectures`, `problem_type`
tokenizer.json, tokenizer_config.json, special_tokens_map.json
                                   with the length that the model takes, cut and padded alike for those who read
                                   `tokenizer.json` alone; transformers decides both at every call
modules.json, 1_Pooling/, sentence_bert_config.json, config_sentence_transformers.json
                                   a sentence encoder's, in the form that every sentence-transformers reads
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertshrink.files.atomic import MANIFEST, MODEL_CARD
from bertshrink.files.json_files import read_object
from bertshrink.model.checkpoint_info import ARTIFACT_CARD
from bertshrink.model.folder.pooling import MODE_KEYS, SPLADE_MODES
from bertshrink.model.folder.sentence_modules import (
    LENGTH_BY_TOKENIZER,
    MODULES,
    OF_TRANSFORMER,
    SETTINGS,
    own_length,
    transformer_settings,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bertshrink.model.folder.pooling import Pooling, Similarity

SENTENCE_FILES = (MODULES, SETTINGS, *OF_TRANSFORMER)
SPECIAL_TOKENS = "special_tokens_map.json"
_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_OF_RUNS = (ARTIFACT_CARD, MANIFEST, MODEL_CARD, "stage.json", "report.json")
"""What a folder says of how it came to be: never another's."""

_OF_CALLS = ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of", "is_local", "local_files_only")
"""What transformers 5 writes into tokenizer_config.json of how a tokenizer was loaded and called last: fastembed cuts
at a `max_length` that it finds there."""

_TYPES = "sentence_transformers.models."
_SPARSE_TYPES = "sentence_transformers.sparse_encoder.models."
"""Where every version of sentence-transformers finds its modules."""


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer's files, those too that transformers no longer writes and others read."""
    tokenizer.save_pretrained(folder)
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    _write(folder / SPECIAL_TOKENS, special)


def fit_tokenizer(folder: Path, max_length: int, fixed: int | None = None) -> None:
    """Say in a tokenizer's files how long a text the model takes.

    Args:
        fixed: the one length that it takes, to which shorter texts are padded; None: any.
    """
    about = read_object(folder / _TOKENIZER_CONFIG) if (folder / _TOKENIZER_CONFIG).is_file() else {}
    about = {name: value for name, value in about.items() if name not in _OF_CALLS} | {"model_max_length": max_length}
    if about.get("tokenizer_class") == "TokenizersBackend":
        about["tokenizer_class"] = (
            "PreTrainedTokenizerFast"  # the same class by the name that transformers 4 knows, too
        )
    _write(folder / _TOKENIZER_CONFIG, about)
    if (folder / _TOKENIZER).is_file():
        _fit_backend(folder / _TOKENIZER, max_length, fixed)
    path, own = transformer_settings(folder)
    if path is not None and own_length(folder) != max_length:
        handed = {key: own[key] for key in LENGTH_BY_TOKENIZER if isinstance(own.get(key), dict)}
        longest = {key: value | {"model_max_length": max_length} for key, value in handed.items()}
        _write(path, own | longest | {"max_seq_length": max_length})


def _fit_backend(path: Path, max_length: int, fixed: int | None) -> None:
    """Cutting and padding of tokenizer.json, each as it was but for the length."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(path))
    cut = backend.truncation or {}
    side = {"direction": cut["direction"]} if "direction" in cut else {}
    backend.enable_truncation(max_length=max_length, **side)
    pad = _padding(path.parent, backend)
    if pad is not None:
        backend.enable_padding(**pad, length=fixed)
    backend.save(str(path))


def _padding(folder: Path, backend: Any) -> dict[str, Any] | None:
    """How texts of a batch are made equally long; None where the tokenizer has nothing to pad with."""
    about = read_object(folder / _TOKENIZER_CONFIG)
    token = about.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    number = backend.token_to_id(token) if isinstance(token, str) else None
    if number is None:
        return None
    return {"pad_id": number, "pad_token": token, "direction": about.get("padding_side") or "right"}


def write_modules(
    folder: Path,
    pooling: Pooling,
    width: int,
    max_length: int,
    prompt: str = "",
    similarity: Similarity | None = None,
) -> None:
    """Write a sentence encoder's modules where its folder has none.

    Args:
        width: of both.
        prompt: what it reads before every text.
        similarity: how its vectors are compared; None: as usual.
    """
    if (folder / MODULES).is_file():
        return
    if pooling.modes[0] in SPLADE_MODES:
        _write_splade(folder, pooling, max_length, prompt, similarity)
        return
    names = ["Transformer", "Pooling", *(["Normalize"] if pooling.normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": _TYPES + name}
        for at, (name, path) in enumerate(zip(names, paths, strict=False))
    ]
    modes = {key: mode in pooling.modes for key, mode in MODE_KEYS.items()}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    about = folder / SETTINGS
    if not about.is_file():
        said = {"similarity_fn_name": similarity or "cosine", "truncate_dim": pooling.dimension}
        _write(about, _named(prompt) | said)


def _write_splade(folder: Path, pooling: Pooling, max_length: int, prompt: str, similarity: Similarity | None) -> None:
    """The modules of a sparse encoder, which sentence-transformers knows since version 5."""
    types = [f"{_SPARSE_TYPES}{name}" for name in ("MLMTransformer", "SpladePooling")]
    paths = ("", "1_SpladePooling")
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": one}
        for at, (one, path) in enumerate(zip(types, paths, strict=True))
    ]
    strategy, activation = SPLADE_MODES[pooling.modes[0]]
    (folder / paths[1]).mkdir(exist_ok=True)
    _write(folder / paths[1] / "config.json", {"pooling_strategy": strategy, "activation_function": activation})
    _write(folder / MODULES, modules)
    _write(folder / OF_TRANSFORMER[0], {"max_seq_length": max_length, "do_lower_case": False})
    limit = {} if pooling.active is None else {"max_active_dims": pooling.active}
    about = _named(prompt) | {"model_type": "SparseEncoder", "similarity_fn_name": similarity or "dot"}
    _write(folder / SETTINGS, about | limit)


def _named(prompt: str) -> dict[str, Any]:
    prompts = {"default": prompt} if prompt else {}
    return {"prompts": prompts, "default_prompt_name": next(iter(prompts), None)}


def copy_papers(source: Path, folder: Path, but: Collection[str]) -> None:
    """Copy what is beside a model from one artifact's folder to another's.

    Args:
        but: the model's files, which are not papers.
    """
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if path.is_file() and name not in but and name not in _OF_RUNS:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)


def _write(path: Path, value: Mapping[str, Any] | list[Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
