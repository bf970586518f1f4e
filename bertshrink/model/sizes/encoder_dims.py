"""The sizes of one encoder, read from its configuration, and the operations that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertshrink.errors import UserError
from bertshrink.model.families import ModelFamily


@dataclass(frozen=True)
class EncoderDims:
    """The sizes of one encoder, in the field's words; read from its configuration."""

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    vocab_size: int
    embedding_size: int
    max_positions: int
    num_groups: int

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

        num_layers, hidden = size("num_hidden_layers"), size("hidden_size")
        return cls(
            num_layers=num_layers,
            hidden_size=hidden,
            num_heads=size("num_attention_heads"),
            intermediate_size=size("intermediate_size"),
            vocab_size=size("vocab_size"),
            embedding_size=size("embedding_size", hidden),
            max_positions=size("max_position_embeddings", 512),
            num_groups=size("num_hidden_groups", 1) if anatomy.is_shared else num_layers,
        )

    def flops_per_token(self, length: int = 128) -> int:
        """Floating-point operations of the encoder for one token of a sequence of `length` tokens, head left out.

        2 per multiply-add: per layer 2 (4 H^2 + 2 H I) for the projections and 4 H `length` for scores and mixing;
        2 E H once where embeddings are factorized. Softmax, norms and biases, under 2 % together, are left out.
        """
        layer = 2 * (4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size)
        attention = 4 * self.hidden_size * length
        projection = 2 * self.embedding_size * self.hidden_size if self.embedding_size != self.hidden_size else 0
        return self.num_layers * (layer + attention) + projection
