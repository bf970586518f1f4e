"""The JSON files of a model folder, read within bounds: configurations, tokenizers, cards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from bertshrink.errors import UnsafeModel
from bertshrink.files.bounded_text import Reader

_PAPERS = Reader(UnsafeModel, "the file cannot be read", "download or save the model again")
_VOCABULARIES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "added_tokens.json",
    "special_tokens_map.json",
)
"""Their tokens may hold any character."""


def read_json(path: Path) -> Any:
    """Read one JSON file of a model folder.

    Raises:
        UnsafeModel: it is not a plain file, no JSON, or beyond the bounds of `bounded_text`.
    """
    is_vocabulary = path.name in _VOCABULARIES
    return replace(_PAPERS, fault=f"`{path.name}` cannot be read", may_have_nul=is_vocabulary).read_json(path)


def read_object(path: Path) -> dict[str, Any]:
    """Read one JSON file of a model folder that must hold an object.

    Raises:
        UnsafeModel: it is not JSON, or something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        hint = "download or save the model again"
        raise UnsafeModel(f"`{path.name}` is not a JSON object", where=str(path), hint=hint)
    return value
