"""Every road to a size: which layers, width of tables and number format together fit, told from sizes alone.

Each road is techniques with settings, and their own word on what they change (`Technique.sizes`) says where it ends; no
weight is read. Roads that cut more than another one that fits are left out: what remains gives up one thing for
another.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bertshrink import units
from bertshrink.errors import UserError
from bertshrink.model.checkpoint_info import CheckpointInfo
from bertshrink.model.sizes.size_estimate import Sizes, of_encoder
from bertshrink.techniques import TECHNIQUES

_RANKS = (512, 384, 256, 192, 128, 96, 64, 48, 32, 24, 16)
_EXPORT: tuple[tuple[str, dict[str, Any]], ...] = (("export", {}),)

FORMATS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "float32": (),
    "float16": (("export", {"precision": "float16"}),),
    "int8": (*_EXPORT, ("quantize", {})),
    "int8, tables int4": (*_EXPORT, ("quantize", {"embeddings": "int4"})),
    "block-int4": (*_EXPORT, ("quantize", {"scheme": "block-int4"})),
}
"""Number formats, the one that changes least first -> the stages that write them."""


@dataclass(frozen=True)
class Road:
    """One way to a size.

    Attributes:
        layers: that are left; None: of an artifact, whose layers stay.
        rank: width of the embedding tables; None likewise.
        format: a name in `FORMATS`.
        num_bytes: of the file at its end.
        cuts_layers: whether it leaves layers out.
        cuts_tables: whether it makes the tables narrower.
    """

    layers: int | None
    rank: int | None
    format: str
    num_bytes: int
    cuts_layers: bool = False
    cuts_tables: bool = False

    @property
    def _kept(self) -> tuple[int, int, int]:
        return self.layers or 0, self.rank or 0, -list(FORMATS).index(self.format)

    def cuts_more_than(self, other: Road) -> bool:
        """Whether the other one keeps as much in every respect, and more in one."""
        return self != other and all(a <= b for a, b in zip(self._kept, other._kept, strict=True))

    def commands(self, model: str) -> list[str]:
        """What to type, in order; `DATA` stands for the user's texts."""
        commands, at = [], model
        flags = [*(["--rank", str(self.rank)] if self.cuts_tables else [])]
        flags += ["--layers", str(self.layers)] if self.cuts_layers else []
        if flags:
            name = "factorize" if self.cuts_tables else "distill"
            commands.append(["bertshrink", name, at, "--data", "DATA", *flags, "-o", "small"])
            at = "small"
        for name, settings in FORMATS[self.format][-1:]:
            words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
            commands.append(["bertshrink", name, at, *words, "-o", f"{'small-' if at == 'small' else ''}{self._short}"])
        return [shlex.join(words) for words in commands]

    @property
    def _short(self) -> str:
        return {"int8, tables int4": "int8-int4"}.get(self.format, self.format)


@dataclass(frozen=True)
class Roads:
    """What fits into a size.

    Attributes:
        limit: bytes.
        now: bytes of the model as it is, by its sizes.
        fit: roads that end within the limit, the one that cuts least first.
        misses: format -> the least bytes that it comes to, of formats with which nothing fits.
    """

    limit: float
    now: int
    fit: list[Road] = field(default_factory=list)
    misses: dict[str, int] = field(default_factory=dict)


def roads(model: CheckpointInfo | Sizes, limit: float) -> Roads:
    """Every road from a model to a size.

    Args:
        model: an encoder's facts, or the sizes of a float ONNX file, of which only number formats can change.
    """
    reached: list[Road] = []
    least: dict[str, int] = {}
    start = of_encoder(model) if isinstance(model, CheckpointInfo) else model
    own = (start.facts.shape.num_layers, start.facts.shape.embedding_size) if start.facts is not None else (None, None)
    for layers, rank, sizes in _encoders(start):
        for name, stages in FORMATS.items():
            end = _after(sizes, stages if start.facts is not None or not stages else stages[-1:])
            if end is None:
                continue
            least[name] = min(least.get(name, end.num_bytes), end.num_bytes)
            if end.num_bytes <= limit:
                reached.append(Road(layers, rank, name, end.num_bytes, layers != own[0], rank != own[1]))
    fit = [road for road in reached if not any(road.cuts_more_than(other) for other in reached)]
    fit.sort(key=lambda road: road._kept, reverse=True)
    misses = {name: size for name, size in least.items() if size > limit}
    return Roads(limit, start.num_bytes, fit, misses)


def _encoders(start: Sizes) -> Iterator[tuple[int | None, int | None, Sizes]]:
    """(layers, rank, sizes) of every checkpoint that fewer layers and narrower tables make; first the model's own."""
    if start.facts is None:
        yield None, None, start
        return
    shape = start.facts.shape
    for rank in (shape.embedding_size, *(rank for rank in _RANKS if rank < shape.embedding_size)):
        narrow = _after(start, (("factorize", {"rank": rank}),) if rank < shape.embedding_size else ())
        for layers in range(shape.num_layers, 0, -1):
            sizes = narrow and _after(narrow, (("distill", {"layers": layers}),) if layers < shape.num_layers else ())
            if sizes is not None:
                yield layers, rank, sizes


def _after(sizes: Sizes, stages: Sequence[tuple[str, dict[str, Any]]]) -> Sizes | None:
    """The sizes behind some stages; None where one of them does not fit the model, or its sizes is unknown."""
    after: Sizes | None = sizes
    for name, settings in stages:
        try:
            after = TECHNIQUES[name](**settings).sizes(after) if after is not None else None
        except UserError:
            return None
    return after


def advice(model: CheckpointInfo | Sizes, name: str, limit: float) -> str:
    """What would get a model to a size, as the hint of an error: one road of each kind, with its commands."""
    fit = roads(model, limit).fit
    kinds: dict[tuple[bool, bool], Road] = {}
    for road in fit:
        kinds.setdefault((road.cuts_layers, road.cuts_tables), road)
    simple = [road for kind, road in kinds.items() if not all(kind)] or list(kinds.values())
    if not simple:
        return "no combination of layers, table width and number format fits: start from a smaller model"
    told = " or ".join(f"`{' && '.join(road.commands(name))}`" for road in simple[:3])
    return f"{told}; all options: `{shlex.join(['bertshrink', 'inspect', name, '--size', units.format(limit, 'B')])}`"
