"""What an encoder's attention is given, and how it is computed, while a graph is made of the encoder.

masks          Attention adds a float mask (B, 1, 1, L) to its scores, so that no mask arithmetic is traced. The base
               model is given it in the place of the mask of tokens, which heads that take means still need. Layers that
               see a window get a mask of their own: transformers makes none where it is given a float mask.
distances      What depends on j - i alone is a row of 2 L numbers, shifted by one place from each query to the next:
               copied by slices, where an index would look L x L numbers of each head up one by one.
disentangled   Scores of queries with what is learnt of each distance, and of keys (DeBERTa, arXiv:2006.03654). The
               projections of the distances' table are the same for every text: they are computed once and stored as
               tables, a row for each distance, of which a text of L tokens looks up 2 L. PyTorch computes all of
               them in each layer for each text, and picks them number by number.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bertshrink.model.families import anatomy_of

if TYPE_CHECKING:
    from bertshrink.model.family import MaskedHead, ModelFamily


@contextmanager
def traced_attention(model: Any) -> Iterator[None]:
    """While it is open, the model answers as ever to a mask of tokens, in a form that is worth writing down.

    Its answers at padding may be others.
    """
    row = anatomy_of(model.config.model_type)
    base: Any = getattr(model, row.base, model)
    with ExitStack() as stack:
        if row.mask != "tokens":
            hook = base.register_forward_pre_hook(_with_mask(row, model.config), with_kwargs=True)
            stack.callback(hook.remove)
        if row.masked_head.beside is not None and hasattr(model, row.masked_head.beside.partition(".")[0]):
            stack.enter_context(_two_tables(model, row.masked_head))
        if row.attention == "distance-bias":
            stack.enter_context(_distance_bias(base))
        if row.attention == "disentangled":
            stack.enter_context(_disentangled(base, row))
        yield


@contextmanager
def _two_tables(model: Any, names: MaskedHead) -> Iterator[None]:
    """The masked head's product with two tables as two products, not with a third table that is made of both."""
    path = names.steps[-1]
    head: Any = model.get_submodule(path)
    decoder, beside = (model.get_submodule(str(name)) for name in (names.decoder, names.beside))

    def forward(states_BLH: Tensor) -> Tensor:
        states = head.transform(states_BLH)
        width = decoder.weight.shape[1]
        logits: Tensor = states[..., :width] @ decoder.weight.T + states[..., width:] @ beside.weight + decoder.bias
        return logits

    with _replaced(head, {"forward": forward}):
        yield


def _with_mask(row: ModelFamily, config: Any) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    def give(module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask_BL = args[1] if len(args) > 1 else given["attention_mask"]
        mask: Any = added_mask(mask_BL)
        if row.mask == "windows":
            mask = {
                "full_attention": mask,
                "sliding_attention": torch.minimum(mask, window_mask(mask_BL, config.sliding_window)),
            }
        return args[:1], {**given, "attention_mask": mask}

    return give


def added_mask(mask_BL: Tensor) -> Tensor:
    """(B, 1, 1, L): 0 at tokens, the lowest number at padding."""
    return (1.0 - mask_BL[:, None, None, :].to(torch.float32)) * torch.finfo(torch.float32).min


def window_mask(mask_BL: Tensor, most: int) -> Tensor:
    """(1, 1, L, L): 0 where tokens are at most `most` apart, the lowest number beyond."""
    at_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
    is_far_LL = (at_L[:, None] - at_L[None, :]).abs() > most
    return is_far_LL[None, None].to(torch.float32) * torch.finfo(torch.float32).min


class Distances:
    """The distances 1 - L, ..., L in texts of L tokens, among 1 - M, ..., M.

    What is computed of L is computed once for all layers.

    Args:
        length: L.
        most: M.
    """

    def __init__(self, length: Any, most: int) -> None:
        self.length, self.width = length, 2 * length - 1
        self.first, self.last = most - length, most + length
        self._begin = length - 1
        self._end = self._begin + length * self.width

    @staticmethod
    def all(most: int, device: torch.device) -> Tensor:
        """(2 M) 1 - M, ..., M."""
        return torch.arange(1 - most, most + 1, device=device)

    def of_texts(self, values: Tensor, axis: int) -> Tensor:
        """The middle of an axis of 2 M: 2 L."""
        before: tuple[slice, ...] = (slice(None),) * axis
        return values[(*before, slice(self.first, self.last))]

    def between(self, values: Tensor) -> Tensor:
        """(B, K, L, 2 L), a number of each token for each distance -> (B, K, L, L), for each other token."""
        flat = values.flatten(-2)[..., self._begin : self._end]
        return flat.reshape(-1, values.shape[1], self.length, self.width)[..., : self.length]


@contextmanager
def _replaced(target: Any, functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Give an object other methods while it is open."""
    for name, function in functions.items():
        setattr(target, name, function)
    try:
        yield
    finally:
        for name in functions:
            delattr(target, name)


@contextmanager
def _distance_bias(base: Any) -> Iterator[None]:
    """A bias for each head and distance as one stored row of each head, the same for all texts of a batch."""
    encoder, most = base.encoder, base.config.max_position_embeddings
    with torch.no_grad():
        buckets = encoder.relative_position_bucket(Distances.all(most, base.device))
        bias_KD = encoder.relative_attention_bias.weight[buckets].T.contiguous()
    encoder.register_buffer("bias_by_distance", bias_KD, persistent=False)

    def compute(states_BLH: Tensor, **_: Any) -> Tensor:
        distances = Distances(states_BLH.shape[1], most)
        rows_KD = distances.of_texts(encoder.bias_by_distance, 1)
        each_L1 = torch.zeros(distances.length, 1, device=rows_KD.device)
        return distances.between(rows_KD[None, :, None] + each_L1)

    try:
        with _replaced(encoder, {"compute_position_bias": compute}):
            yield
    finally:
        del encoder.bias_by_distance


@contextmanager
def _disentangled(base: Any, row: ModelFamily) -> Iterator[None]:
    encoder, config = base.encoder, base.config
    assert row.layer is not None
    inside = row.layer.query.rpartition(".")[0]
    with ExitStack() as stack:
        functions: dict[str, Callable[..., Any]] = {
            "get_attention_mask": added_mask,
            "get_rel_pos": lambda states, *_: Distances(states.shape[1], config.max_position_embeddings),
            "get_rel_embedding": lambda: None,
        }
        stack.enter_context(_replaced(encoder, functions))
        if config.relative_attention:
            table_DH = encoder_distances(encoder)
        for layer in encoder.layer:
            attention = layer.get_submodule(inside)
            if config.relative_attention:
                stack.enter_context(_stored_distances(attention, table_DH, config))
            stack.enter_context(_replaced(attention, {"forward": _scores_by_distance(attention)}))
        yield


def encoder_distances(encoder: Any) -> Tensor:
    """(2 S, H) the table of distances as the layers read it: `get_rel_embedding` of the class."""
    table: Tensor = type(encoder).get_rel_embedding(encoder)
    return table


@contextmanager
def _stored_distances(attention: Any, table_DH: Tensor, config: Any) -> Iterator[None]:
    """A layer's projections of the table of distances, and which row each distance reads, as buffers of the layer."""
    span, shared = attention.pos_ebd_size, attention.share_att_key
    buckets = -Distances.all(config.max_position_embeddings, table_DH.device)
    if attention.position_buckets > 0 and attention.max_relative_positions > 0:
        of_class: Any = sys.modules[type(attention).__module__]
        buckets = of_class.make_log_bucket_position(
            buckets, attention.position_buckets, attention.max_relative_positions
        )
    buckets = buckets.to(torch.long)
    rows_DH = table_DH[: 2 * span]
    stored: dict[str, Tensor] = {}
    with torch.no_grad():
        if "c2p" in attention.pos_att_type:
            project = attention.key_proj if shared else attention.pos_key_proj
            stored["keys_by_distance"] = project(rows_DH)
            stored["rows_of_keys"] = (buckets + span).clamp(0, 2 * span - 1)
        if "p2c" in attention.pos_att_type:
            project = attention.query_proj if shared else attention.pos_query_proj
            stored["queries_by_distance"] = project(rows_DH) / _scale(attention)
            stored["rows_of_queries"] = (span - buckets).clamp(0, 2 * span - 1)
    for name, tensor in stored.items():
        attention.register_buffer(name, tensor.contiguous(), persistent=False)
    try:
        yield
    finally:
        for name in stored:
            delattr(attention, name)


def _scale(attention: Any) -> float:
    kinds = ("c2p", "p2c")
    return math.sqrt(attention.attention_head_size * (1 + sum(kind in attention.pos_att_type for kind in kinds)))


def _scores_by_distance(attention: Any) -> Callable[..., tuple[Tensor, None]]:
    """The layer's attention as its class computes it, from what `_stored_distances` keeps."""
    heads, width = attention.num_attention_heads, attention.attention_head_size

    def of_heads(states_BLA: Tensor) -> Tensor:
        return states_BLA.view(*states_BLA.shape[:2], heads, width).transpose(1, 2)

    def looked_up(table_DA: Tensor, rows: Tensor, distances: Distances) -> Tensor:
        """(heads, width, 2 L) what is learnt of the distances in a text of L tokens."""
        learnt = torch.nn.functional.embedding(distances.of_texts(rows, 0), table_DA)
        return learnt.view(-1, heads, width).permute(1, 2, 0)

    def forward(
        hidden_states: Tensor, attention_mask: Tensor, *_: Any, relative_pos: Distances, **__: Any
    ) -> tuple[Tensor, None]:
        query, key, value = (
            of_heads(project(hidden_states))
            for project in (attention.query_proj, attention.key_proj, attention.value_proj)
        )
        query = query * (1.0 / _scale(attention))
        scores = query @ key.transpose(-1, -2)
        if attention.relative_attention and "c2p" in attention.pos_att_type:
            learnt = looked_up(attention.keys_by_distance, attention.rows_of_keys, relative_pos)
            scores = scores + relative_pos.between(query @ learnt)
        if attention.relative_attention and "p2c" in attention.pos_att_type:
            learnt = looked_up(attention.queries_by_distance, attention.rows_of_queries, relative_pos)
            scores = scores + relative_pos.between(key @ learnt).transpose(-1, -2)
        mixed = torch.softmax(scores + attention_mask, dim=-1) @ value
        return mixed.transpose(1, 2).reshape(*hidden_states.shape[:2], heads * width), None

    return forward
