"""A thinner copy of an encoder: fewer hidden dimensions, heads or feed-forward neurons, by default the weightiest.

    hidden dimensions     one choice for the whole model: those whose weights have the largest sum of squares
    query, key, value     in each kept head, the first dimensions, where positions turn them those that turn as fast
                          in a narrower head; heads are taken in order
    feed-forward neurons  each layer's own: those that are named, else the largest product of the norms of what goes in
                          and what comes out

Magnitude as a measure of worth is the oldest there is (Han et al., arXiv:1506.02626). It is a start for training, no
more: a student of half the width has lost what its teacher knew and must be taught at length.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bertshrink.errors import CheckFailed
from bertshrink.model.encoder import Encoder
from bertshrink.model.sizes.encoder_dims import EncoderDims

Axis = Literal["hidden", "queries", "keys", "heads", "neurons", ""]
"""What an axis of a weight runs over; empty: something whose number does not change."""

_ROWS: dict[str, Axis] = {
    "query": "queries",
    "key": "keys",
    "value": "keys",
    "mix": "hidden",
    "widen": "neurons",
    "gate": "neurons",
    "narrow": "hidden",
}
_COLUMNS: dict[str, Axis] = {"mix": "queries", "narrow": "neurons"}


@dataclass(frozen=True)
class _Weight:
    """What the axes of a weight run over.

    Attributes:
        rows: of its first axis; several where it holds the rows of several roles.
        columns: of its second.
        layer: the layer that it is in; empty: none.
    """

    rows: tuple[Axis, ...]
    columns: Axis = ""
    layer: str = ""


def thin(encoder: Encoder, wanted: EncoderDims, neurons: Sequence[Tensor] | None = None) -> Encoder:
    """The encoder with the hidden size, heads and intermediate size of `wanted`.

    Args:
        neurons: the numbers of those to keep, of each layer or group that shares weights; None: the weightiest.

    Raises:
        CheckFailed: the chosen weights do not fill the thinner model.
    """
    shape, anatomy = encoder.shape, encoder.anatomy
    config = copy.deepcopy(encoder.model.config)
    own_heads = wanted.num_key_value_heads or wanted.num_heads
    for name, value in (
        ("hidden_size", wanted.hidden_size),
        ("num_attention_heads", wanted.num_heads),
        ("intermediate_size", wanted.intermediate_size),
        ("head_dim", wanted.attention_size // wanted.num_heads),
        ("num_key_value_heads", own_heads),
    ):
        if name in anatomy.fields or name not in ("head_dim", "num_key_value_heads"):
            setattr(config, anatomy.field(name), value)
    for name in ("embedding_size", "pooler_hidden_size"):
        if getattr(config, name, None) == shape.hidden_size:
            setattr(config, name, wanted.hidden_size)  # as wide as the layers, so that nothing is between
    student = type(encoder.model)(config).to(encoder.model.dtype)
    given, sizes = encoder.model.state_dict(), {name: t.shape for name, t in student.state_dict().items()}
    known = _layers(encoder, set(given))
    queries = _inside_heads(encoder, wanted, shape.num_heads, wanted.num_heads)
    kept = {
        "hidden": _weightiest_hidden(given, known, shape.hidden_size, wanted.hidden_size),
        "queries": queries,
        "keys": _of_keys(encoder, wanted, queries),
        "heads": torch.arange(wanted.num_heads) * shape.num_heads // wanted.num_heads,
    }
    of_layers = _weightiest_neurons(given, known, wanted.intermediate_size) if neurons is None else {}
    for number, named in enumerate(neurons or ()):
        of_layers[_name_of(encoder, number)] = named
    weights = {}
    for name, tensor in given.items():
        about = known.get(name, _Weight(("hidden",), "hidden"))
        chosen = kept | {"neurons": of_layers.get(about.layer, kept["hidden"])}
        thinner = tensor
        if tensor.shape[:1] != sizes[name][:1]:
            size = tensor.shape[0] // len(about.rows)
            thinner = torch.cat([thinner[at * size + chosen[rows]] for at, rows in enumerate(about.rows) if rows])
        if tensor.ndim > 1 and tensor.shape[1] != sizes[name][1]:
            thinner = thinner.index_select(1, chosen[about.columns or "hidden"])
        if thinner.shape != sizes[name]:
            raise CheckFailed(
                f"`{name}` of the student needs the shape {tuple(sizes[name])}, not {tuple(thinner.shape)}"
            )
        weights[name] = thinner.clone()
    student.load_state_dict(weights)
    student.tie_weights()
    return encoder.with_model(student)


def _layers(encoder: Encoder, names: set[str]) -> dict[str, _Weight]:
    """What the weights of layers, and of what attention knows of distances, run over."""
    anatomy, shape = encoder.anatomy, encoder.shape
    assert anatomy.layer is not None, "the plan has refused a family whose layers are of another kind"
    known = {name: _Weight(("",), "heads") for name in names if name.endswith("attention_bias.weight")}
    for number in range(shape.num_groups):
        layer = _name_of(encoder, number)
        for path, roles in anatomy.layer.modules().items():
            if roles[0] not in _ROWS:
                continue
            rows = tuple(_ROWS[role] for role in roles)
            known[f"{layer}{path}.weight"] = _Weight(rows, _COLUMNS.get(roles[0], "hidden"), layer)
            known[f"{layer}{path}.bias"] = _Weight(rows, layer=layer)
    return known


def _name_of(encoder: Encoder, number: int) -> str:
    """What the names of a layer's weights begin with."""
    return f"{encoder.prefix}{encoder.anatomy.path_of_layer(number)}."


def _weightiest_hidden(weights: dict[str, Tensor], known: dict[str, _Weight], old: int, new: int) -> Tensor:
    """The hidden dimensions with the largest sum of squares over all matrices that read or write them."""
    total = torch.zeros(old)
    for name, tensor in weights.items():
        about = known.get(name)
        for axis in range(tensor.ndim) if tensor.ndim == 2 else ():
            is_table = axis == 0 and name.endswith(("embeddings.weight", "embed_tokens.weight"))
            is_hidden = not is_table if about is None else "hidden" in (about.rows[:1], (about.columns,))[axis]
            if tensor.shape[axis] == old and is_hidden:
                total += tensor.float().square().mean(dim=1 - axis)
    dimensions: Tensor = total.topk(new).indices.sort().values
    return dimensions


def _inside_heads(encoder: Encoder, wanted: EncoderDims, num_heads: int, num_wanted: int) -> Tensor:
    """Which of the queries' dimensions stay, or of the keys'; where the student has more of them, some come twice."""
    shape = encoder.shape
    old, new = shape.attention_size // shape.num_heads, wanted.attention_size // wanted.num_heads
    if num_wanted > num_heads or new > old:
        return torch.arange(num_wanted * new) % (num_heads * old)
    inside = torch.arange(new)
    if encoder.anatomy.attention == "rotary":  # pairs i and i + size / 2, turned by theta ^ (-2 i / size)
        pairs = torch.arange(new // 2) * old // new
        inside = torch.cat([pairs, pairs + old // 2])
    heads = torch.arange(num_wanted) * num_heads // num_wanted
    return (heads[:, None] * old + inside[None, :]).flatten()


def _of_keys(encoder: Encoder, wanted: EncoderDims, queries: Tensor) -> Tensor:
    """Which of the keys' dimensions stay: those that the queries' dimensions are multiplied with."""
    shape = encoder.shape
    if wanted.num_key_value_heads is not None:  # as many as the teacher has, each for as many queries' heads
        return _inside_heads(encoder, wanted, shape.num_key_value_heads or shape.num_heads, wanted.num_key_value_heads)
    size, share = shape.attention_size // shape.num_heads, shape.attention_size // shape.key_value_size
    return queries // size // share * size + queries % size


def _weightiest_neurons(weights: dict[str, Tensor], known: dict[str, _Weight], new: int) -> dict[str, Tensor]:
    """Layer -> its neurons with the largest product of norms in and out."""
    into: dict[str, Tensor] = {}
    out: dict[str, Tensor] = {}
    for name, about in known.items():
        if name not in weights or weights[name].ndim != 2:
            continue
        squares = weights[name].float().square()
        if about.columns == "neurons":
            out[about.layer] = squares.sum(dim=0)
        elif "neurons" in about.rows:
            each = squares.sum(dim=1).chunk(len(about.rows))
            into[about.layer] = into.get(about.layer, torch.zeros(())) + torch.stack(each).sum(dim=0)
    return {layer: (into[layer] * out[layer]).topk(new).indices.sort().values for layer in out}
