"""Average maps of heads, and the shares that their classes are told by.

Texts have different lengths, so each map is laid over a grid of `GRID` x `GRID` cells: a row of the grid is the mean of
the tokens that it covers, and a token's attention is spread over the cells that it covers, so that rows sum to 1 as
before. A model's attention is asked for batch by batch, in batches whose maps take at most `MAX_BYTES`.
"""

from __future__ import annotations

import base64
import math
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bertshrink.errors import UserError
from bertshrink.meters.attention.head_classes import above_chance
from bertshrink.model.batches import batch_by_length, pad
from bertshrink.report.attention import AttentionMap

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from bertshrink.model.batches import Row
    from bertshrink.model.encoder import Encoder
    from bertshrink.progress import Progress

    Floats = NDArray[np.floating[Any]]

GRID = 32
MAX_BYTES = 256 << 20
MAP_LENGTH = 256
"""Tokens of a text that is looked at: maps grow with the square of it."""
EXAMPLE_LENGTH = 24
_WORD_MARKS = "#▁Ġ "
"""What tokenizers put in front of a token beside its own letters."""


@dataclass(frozen=True)
class Marks:
    """What the tokens of one row are, (L,) each; `second`: those of a pair's second text, None for single texts."""

    first: NDArray[np.bool_]
    separators: NDArray[np.bool_]
    punctuation: NDArray[np.bool_]
    second: NDArray[np.bool_] | None

    @property
    def special(self) -> NDArray[np.bool_]:
        """The first, separators and punctuation."""
        return self.first | self.separators | self.punctuation


def marks_of(row: Row, tokenizer: Any, *, is_pair: bool) -> Marks:
    """What the tokens of a row are."""
    import numpy as np

    ids = np.asarray(row["input_ids"])
    first = np.arange(len(ids)) == 0
    separators = np.isin(ids, list(tokenizer.all_special_ids)) & ~first
    texts = tokenizer.convert_ids_to_tokens(ids.tolist())
    punctuation = np.array([_is_punctuation(text) for text in texts]) & ~first & ~separators
    second = None
    if is_pair:
        ends = np.flatnonzero(separators)
        end = ends[0] if len(ends) else len(ids)
        second = np.arange(len(ids)) > end
        second = second if second.any() else None
    return Marks(first, separators, punctuation, second)


@lru_cache(maxsize=65536)
def _is_punctuation(token: str) -> bool:
    bare = token.strip(_WORD_MARKS) or token.lstrip("▁Ġ ")
    return bool(bare) and all(unicodedata.category(letter)[0] == "P" for letter in bare)


def shares(maps_ALL: torch.Tensor, marks: Marks) -> dict[str, Floats]:
    """The shares of every head in one text: name as in `HeadFacts` -> (A,); `segment` only of pairs.

    Args:
        maps_ALL: attention of A heads, rows sum to 1.
        marks: of the L tokens.
    """
    import numpy as np
    import torch

    length = maps_ALL.shape[-1]
    mean_AL = maps_ALL.mean(dim=1)
    found: dict[str, Any] = {
        "first": mean_AL[:, torch.from_numpy(marks.first)].sum(dim=1),
        "separators": mean_AL[:, torch.from_numpy(marks.separators)].sum(dim=1),
        "punctuation": mean_AL[:, torch.from_numpy(marks.punctuation)].sum(dim=1),
    }
    for name, offset in (("before", -1), ("itself", 0), ("after", 1)):
        found[name] = maps_ALL.diagonal(offset, dim1=1, dim2=2).sum(dim=1) / length
    logs = maps_ALL.clamp(min=1e-12).log()
    found["entropy"] = -(maps_ALL * logs).sum(dim=-1).mean(dim=1) / math.log(max(length, 2))
    plain = ~marks.special
    rows = torch.from_numpy(plain if plain.any() else np.ones_like(plain))
    special = torch.from_numpy(marks.special)
    at = torch.arange(length)
    near_LL = ((at[:, None] - at).abs() <= 1) & ~special
    seen_ALL = maps_ALL[:, rows]
    patterns = {"vertical": special.expand(length, length), "diagonal": near_LL}
    if marks.second is not None:
        second = torch.from_numpy(marks.second)
        own_LL = second[:, None] == second
        patterns["block"] = own_LL
        every = (maps_ALL * own_LL).sum(dim=-1).mean(dim=1)
        found["segment"] = every - float(own_LL.float().mean())
    for name, pattern_LL in patterns.items():
        chosen = pattern_LL[rows].float()
        share = (seen_ALL * chosen).sum(dim=-1).mean(dim=1)
        chance = float(chosen.mean())
        found[f"{name}_score"] = torch.tensor([above_chance(float(one), chance) for one in share])
    return {name: value.numpy().astype(np.float64) for name, value in found.items()}


@lru_cache(maxsize=1024)
def _cover(length: int, size: int) -> Any:
    """(size, length): how much of each token each cell of an axis covers; a column sums to 1."""
    import torch

    edges, cells = torch.linspace(0, length, size + 1), torch.arange(length, dtype=torch.float32)
    low = torch.maximum(edges[:-1, None], cells[None])
    high = torch.minimum(edges[1:, None], cells[None] + 1)
    return (high - low).clamp(min=0)


def resampled(maps_ALL: torch.Tensor, size: int = GRID) -> torch.Tensor:
    """Maps over a grid, (A, size, size); rows sum to 1 as before."""
    length = maps_ALL.shape[-1]
    cover = _cover(length, size)
    grid: torch.Tensor = (cover * (size / length)) @ maps_ALL @ cover.T
    return grid


def as_bytes(map_LL: Any) -> AttentionMap:
    """A map in 256 steps."""
    import numpy as np

    values = np.asarray(map_LL, np.float64)
    largest = float(values.max()) or 1.0
    pixels = np.rint(255 * values / largest).astype(np.uint8)
    return AttentionMap(size=len(values), largest=largest, pixels=base64.b64encode(pixels.tobytes()).decode())


@dataclass
class HeadMaps:
    """What was seen of N x A heads over T texts.

    Attributes:
        mean_NAGG: average maps.
        variation_NA: spread of the maps over texts, relative to their mean.
        shares: name -> (N, A), means over texts.
        examples: maps (N, A, l, l) of some texts.
        tokens: of those texts.
        cosine_NA: mean cosine with the base model's maps; None: there is none.
    """

    mean_NAGG: Floats
    variation_NA: Floats
    shares: dict[str, Floats]
    examples: list[Floats]
    tokens: list[list[str]]
    cosine_NA: Floats | None


@dataclass
class _Sums:
    """Running sums of all heads, one after another."""

    maps: Any = 0.0
    squares: Any = 0.0
    cosines: Any = 0.0
    shares: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, maps_ALL: torch.Tensor, marks: Marks, base_ALL: torch.Tensor | None) -> None:
        import torch

        grid = resampled(maps_ALL).double()
        self.maps = self.maps + grid
        self.squares = self.squares + (grid**2).sum(dim=(1, 2))
        for name, value in shares(maps_ALL, marks).items():
            self.shares[name] = self.shares.get(name, 0.0) + value
            self.numbers[name] = self.numbers.get(name, 0) + 1
        if base_ALL is not None:
            cosine = torch.nn.functional.cosine_similarity(maps_ALL.flatten(1), base_ALL.flatten(1), dim=1)
            self.cosines = self.cosines + cosine.double()


@contextmanager
def giving_attention(encoder: Encoder) -> Iterator[None]:
    """Have a model compute attention so that its maps can be seen, while the block runs."""
    model = encoder.model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def attention_of(encoder: Encoder, rows: Sequence[Row]) -> list[torch.Tensor]:
    """The maps of a batch, one (B, A, L, L) a layer; within `giving_attention`.

    Raises:
        UserError: the model gives none.
    """
    import torch

    session = encoder.session()
    given = session.given(pad(rows, encoder.tokenizer.pad_token_id or 0))  # type: ignore[attr-defined]
    with torch.inference_mode():
        maps = encoder.model(**given, output_attentions=True).get("attentions")
    if maps is None or len(maps) != encoder.shape.num_layers or any(one is None for one in maps):
        raise UserError(
            f"`{type(encoder.model).__name__}` does not give the attention of each of its layers",
            where=encoder.source,
            hint="look at a model of another family",
        )
    return [one.float().cpu() for one in maps]


def see_heads(
    encoder: Encoder,
    rows: Sequence[Row],
    progress: Progress,
    *,
    are_pairs: bool,
    num_examples: int,
    base: Encoder | None = None,
) -> HeadMaps:
    """Look at a model's attention to rows of tokens.

    Args:
        rows: of at most `MAP_LENGTH` tokens each.
        are_pairs: whether a row is two texts.
        num_examples: texts whose maps are kept, of at most `EXAMPLE_LENGTH` tokens where there are such.
        base: the model whose maps they are compared with, of as many layers and heads.
    """
    import numpy as np
    import torch

    dims, lengths = encoder.shape, [len(row["input_ids"]) for row in rows]
    sums = _Sums()
    shape = dims.num_layers, dims.num_heads
    short = [i for i, length in enumerate(lengths) if length <= EXAMPLE_LENGTH]
    wanted = sorted(short, key=lambda i: -lengths[i])[:num_examples]
    kept: dict[int, Any] = {}
    room = MAX_BYTES // (4 * dims.num_layers * dims.num_heads * (2 if base is not None else 1))
    with giving_attention(encoder), progress.task("look at attention", len(rows), "texts") as task:
        for batch in _batches(lengths, room):
            own = [rows[i] for i in batch]
            maps = attention_of(encoder, own)
            theirs = None
            if base is not None:
                with giving_attention(base):
                    theirs = attention_of(base, own)
            for at, i in enumerate(batch):
                marks, length = marks_of(rows[i], encoder.tokenizer, is_pair=are_pairs), lengths[i]
                cut = torch.stack([one[at, :, :length, :length] for one in maps]).flatten(0, 1)
                other = None
                if theirs is not None:
                    other = torch.stack([one[at, :, :length, :length] for one in theirs]).flatten(0, 1)
                sums.add(cut, marks, other)
                if i in wanted:
                    kept[i] = cut.view(*shape, length, length).numpy()
            task.advance(len(batch))
    number = len(rows)
    mean = (sums.maps / number).view(*shape, GRID, GRID).numpy()
    square = (sums.squares / number).view(shape).numpy()
    norm = (mean**2).sum(axis=(2, 3))
    return HeadMaps(
        mean,
        np.sqrt(np.maximum(0.0, square - norm) / norm),
        {name: (total / sums.numbers[name]).reshape(shape) for name, total in sums.shares.items()},
        [kept[i] for i in wanted],
        [encoder.tokenizer.convert_ids_to_tokens(rows[i]["input_ids"]) for i in wanted],
        (sums.cosines / number).view(shape).numpy() if base is not None else None,
    )


def _batches(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Row numbers in batches of like length, whose maps hold at most `room` numbers a head; a row at least."""
    batches: list[list[int]] = []
    for batch in batch_by_length(lengths, 4096):
        size = max(1, room // lengths[batch[0]] ** 2)
        batches += [batch[start : start + size] for start in range(0, len(batch), size)]
    return batches
