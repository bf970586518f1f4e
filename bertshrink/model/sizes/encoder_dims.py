"""The sizes of one encoder, read from its configuration, and the operations that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertshrink.errors import UserError
from bertshrink.model.family import ModelFamily


@dataclass(frozen=True)
class EncoderDims:
    """The sizes of one encoder, in the field's words; read from its configuration.

    Attributes:
        head_size: width of a head; None: the hidden size over the heads.
        num_key_value_heads: how many heads have keys and values of their own; None: all.
        num_wide: how many matrices of the feed-forward read or write its neurons; 0: the layer is of another kind.
        num_scores: products of a token with L vectors in a layer, in vectors as wide as the queries.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    vocab_size: int
    embedding_size: int
    max_positions: int
    num_groups: int
    head_size: int | None = None
    num_key_value_heads: int | None = None
    num_wide: int = 2
    num_scores: int = 2

    @classmethod
    def read(cls, anatomy: ModelFamily, config: Mapping[str, Any], where: str = "config.json") -> EncoderDims:
        """Read the sizes from a configuration as a mapping; `where` is its place, for messages.

        Raises:
            UserError: a size is missing or is not a positive integer.
        """

        def size(name: str, default: int | None = None) -> int:
            value = config.get(anatomy.field(name), default)
            if type(value) is not int or value < 1:
                raise UserError(
                    f"`{anatomy.field(name)}` of the model's config.json is `{value}`, not a positive whole number",
                    where=where,
                    hint="the file is incomplete: save the model again with `save_pretrained`",
                )
            return value

        num_layers, hidden, heads = size("num_hidden_layers"), size("hidden_size"), size("num_attention_heads")
        head, with_own = (
            size(name) if name in anatomy.fields and config.get(anatomy.fields[name]) is not None else None
            for name in ("head_dim", "num_key_value_heads")
        )
        return cls(
            num_layers=num_layers,
            hidden_size=hidden,
            num_heads=heads,
            intermediate_size=size("intermediate_size"),
            vocab_size=size("vocab_size"),
            embedding_size=size("embedding_size", hidden),
            max_positions=size("max_position_embeddings", 512),
            num_groups=size("num_hidden_groups", 1) if anatomy.is_shared else num_layers,
            head_size=None if head == hidden // heads else head,
            num_key_value_heads=None if with_own == heads else with_own,
            num_wide=0 if anatomy.layer is None else 3 if anatomy.layer.gate is not None else 2,
            num_scores=anatomy.scores(config),
        )

    @property
    def attention_size(self) -> int:
        """Width of all queries together."""
        return self.num_heads * (self.head_size or self.hidden_size // self.num_heads)

    @property
    def key_value_size(self) -> int:
        """Width of all keys together, and of all values."""
        return self.attention_size * (self.num_key_value_heads or self.num_heads) // self.num_heads

    def flops_per_token(self, length: int = 128) -> int | None:
        """Floating-point operations of the encoder for one token of a sequence of `length` tokens, head left out.

        2 per multiply-add: per layer 2 (4 H^2 + 2 H I) for the projections (3 H I with a gate) and 4 H `length` for
        scores and mixing (more where distances are multiplied with, too); 2 E H once where embeddings are factorized.
        Softmax, norms and biases, under 2 % together, are left out. None: the layers are of another kind.
        """
        if not self.num_wide:
            return None
        projections = 2 * self.hidden_size * (self.attention_size + self.key_value_size)
        layer = 2 * (projections + self.num_wide * self.hidden_size * self.intermediate_size)
        attention = 2 * self.num_scores * self.attention_size * length
        projection = 2 * self.embedding_size * self.hidden_size if self.embedding_size != self.hidden_size else 0
        return self.num_layers * (layer + attention) + projection
