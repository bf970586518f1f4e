"""How a model is made smaller: the table of techniques, in the order a recipe would use them.

To add one: a folder here with its settings class (no torch at import), its name in this table, its tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertshrink.techniques.base import Technique


class _Techniques(Mapping[str, type["Technique"]]):
    """Name -> class; a class is imported when it is asked for, so that `--help` reads the names alone."""

    _names = ("pretrain", "finetune", "factorize", "share", "prune", "distill", "export", "quantize")

    def __getitem__(self, name: str) -> type[Technique]:
        if name not in self._names:
            raise KeyError(name)
        technique: type[Technique] = getattr(import_module(f"{__name__}.{name}"), name.capitalize())
        return technique

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


TECHNIQUES = _Techniques()
