"""A thinner student: fewer hidden dimensions, heads or feed-forward neurons, filled with the teacher's weightiest.

    hidden dimensions     one choice for the whole model: those whose weights have the largest sum of squares
    query, key, value     in each kept head, the first dimensions; heads are taken in order
    feed-forward neurons  each layer's own: the largest product of the norms of what goes in and what comes out

Magnitude as a measure of worth is the oldest there is (Han et al., arXiv:1506.02626). It is a start for training, no
more: a student of half the width has lost what its teacher knew and must be taught at length.
"""

from __future__ import annotations

import copy
import re

import torch
from torch import Tensor

from bertshrink.errors import CheckFailed
from bertshrink.model.encoder import Encoder
from bertshrink.model.sizes.encoder_dims import EncoderDims

_HEAD_ROWS = re.compile(r"\.(query|key|value|q_lin|k_lin|v_lin)\.(weight|bias)$")
_HEAD_COLUMNS = re.compile(r"\.attention\.(output\.dense|out_lin|dense)\.weight$")
_NEURON_ROWS = re.compile(r"\.(intermediate\.dense|ffn\.lin1|ffn)\.(weight|bias)$")
_NEURON_COLUMNS = re.compile(r"\.(output\.dense|ffn\.lin2|ffn_output)\.weight$")
_TABLE_ROWS = re.compile(r"_embeddings\.weight$")


def thin(encoder: Encoder, wanted: EncoderDims) -> Encoder:
    """The encoder with the hidden size, heads and intermediate size of `wanted`.

    Raises:
        CheckFailed: the chosen weights do not fill the thinner model.
    """
    shape, anatomy = encoder.shape, encoder.anatomy
    config = copy.deepcopy(encoder.model.config)
    for name, value in (
        ("hidden_size", wanted.hidden_size),
        ("num_attention_heads", wanted.num_heads),
        ("intermediate_size", wanted.intermediate_size),
    ):
        setattr(config, anatomy.field(name), value)
    if getattr(config, "embedding_size", None) == shape.hidden_size:
        config.embedding_size = wanted.embedding_size  # as wide as the layers, so that nothing is between
    student = type(encoder.model)(config).to(encoder.model.dtype)
    given, sizes = encoder.model.state_dict(), {name: t.shape for name, t in student.state_dict().items()}
    hidden = _weightiest_hidden(given, shape.hidden_size, wanted.hidden_size)
    inner = _inside_heads(shape, wanted)
    neurons = {
        name: _weightiest_neurons(tensor, given, name, wanted.intermediate_size)
        for name, tensor in given.items()
        if _NEURON_ROWS.search(name) and tensor.ndim == 2
    }
    weights = {}
    for name, tensor in given.items():
        kept = tensor
        for axis, (old, new) in enumerate(zip(tensor.shape, sizes[name], strict=True)):
            if old == new:
                continue
            if (_HEAD_ROWS.search(name) and axis == 0) or (_HEAD_COLUMNS.search(name) and axis == 1):
                at = inner
            elif _NEURON_ROWS.search(name) and axis == 0:
                at = neurons[re.sub(r"bias$", "weight", name)]
            elif _NEURON_COLUMNS.search(name) and axis == 1 and old == shape.intermediate_size:
                at = neurons[_reader(name, neurons)]
            else:
                at = hidden
            kept = kept.index_select(axis, at)
        if kept.shape != sizes[name]:
            raise CheckFailed(f"`{name}` of the student needs the shape {tuple(sizes[name])}, not {tuple(kept.shape)}")
        weights[name] = kept.clone()
    student.load_state_dict(weights)
    student.tie_weights()
    return encoder.with_model(student)


def _weightiest_hidden(weights: dict[str, Tensor], old: int, new: int) -> Tensor:
    """The hidden dimensions with the largest sum of squares over all matrices that read or write them."""
    total = torch.zeros(old)
    for name, tensor in weights.items():
        for axis in range(tensor.ndim) if tensor.ndim == 2 else ():
            if tensor.shape[axis] == old and not _counts_something_else(name, axis):
                total += tensor.float().square().mean(dim=1 - axis)
    dimensions: Tensor = total.topk(new).indices.sort().values
    return dimensions


def _counts_something_else(name: str, axis: int) -> bool:
    """Whether an axis runs over dimensions in heads, neurons, or rows of a table, which may be as many as H."""
    if axis == 0:
        return any(kind.search(name) for kind in (_HEAD_ROWS, _NEURON_ROWS, _TABLE_ROWS))
    return any(kind.search(name) for kind in (_HEAD_COLUMNS, _NEURON_COLUMNS))


def _inside_heads(shape: EncoderDims, wanted: EncoderDims) -> Tensor:
    """Which of the queries' dimensions stay: the first of each kept head."""
    old, new = shape.hidden_size // shape.num_heads, wanted.hidden_size // wanted.num_heads
    if wanted.num_heads > shape.num_heads or new > old:
        return torch.arange(wanted.hidden_size)
    heads = torch.arange(wanted.num_heads) * shape.num_heads // wanted.num_heads
    return (heads[:, None] * old + torch.arange(new)[None, :]).flatten()


def _weightiest_neurons(rows: Tensor, weights: dict[str, Tensor], name: str, new: int) -> Tensor:
    """The neurons of one layer with the largest product of norms in and out."""
    prefix = _NEURON_ROWS.sub("", name)
    out = next(t for n, t in weights.items() if n.startswith(prefix + ".") and _is_reader(n, prefix))
    worth = rows.float().norm(dim=1) * out.float().norm(dim=0)
    kept: Tensor = worth.topk(new).indices.sort().values
    return kept


def _is_reader(name: str, prefix: str) -> bool:
    return bool(_NEURON_COLUMNS.search(name)) and _NEURON_COLUMNS.sub("", name) == prefix


def _reader(name: str, neurons: dict[str, Tensor]) -> str:
    """The matrix whose neurons `name` reads."""
    prefix = _NEURON_COLUMNS.sub("", name)
    return next(matrix for matrix in neurons if _NEURON_ROWS.sub("", matrix) == prefix)
