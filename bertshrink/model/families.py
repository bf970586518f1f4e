"""Where embeddings, attention, feed-forward and head live in each family: a table, one row per family.

Everything here is read from `config.json` and from parameter names, so a plan can be proven and a model inspected
without loading a weight. Adding a family is adding a row.

A layer-shared family (ALBERT) has L layers but only G groups of weights; stock ALBERT gives layer i (from 0) the group
int(i / (L / G)). `shared_group` is that expression, to the letter: other roundings differ when G does not divide L.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bertshrink.errors import UserError


@dataclass(frozen=True)
class ModelFamily:
    """One family of encoders.

    Attributes:
        family: `model_type` in config.json.
        base: the attribute that holds the encoder in a model with a head.
        layers: path of the list of layers inside the encoder.
        fields: this family's names for the common configuration fields.
        parts: (component, pattern of parameter names) in the order they are tried; what matches none is the head.
        is_shared: whether layers share weights in groups.
        attention_dropout: how the path of the dropout of attention's weights ends.
    """

    family: str
    base: str
    layers: str
    parts: tuple[tuple[str, str], ...]
    fields: Mapping[str, str] = field(default_factory=dict)
    is_shared: bool = False
    attention_dropout: str = "attention.self.dropout"

    def field(self, name: str) -> str:
        """This family's name of a common configuration field such as `num_hidden_layers`."""
        return self.fields.get(name, name)


_BERT_PARTS = (
    ("embeddings", r"(^|\.)embeddings(_project)?\."),
    ("attention", r"\.layer\.\d+\.attention\."),
    ("feed-forward", r"\.layer\.\d+\.(intermediate|output)\."),
    ("pooler", r"(^|\.)pooler\."),
)
_DISTILBERT_PARTS = (
    ("embeddings", r"(^|\.)embeddings\."),
    ("attention", r"\.layer\.\d+\.(attention|sa_layer_norm)\."),
    ("feed-forward", r"\.layer\.\d+\.(ffn|output_layer_norm)\."),
)
_ALBERT_PARTS = (
    ("embeddings", r"(^|\.)embeddings\.|\.embedding_hidden_mapping_in\.|^encoder\.embedding_hidden_mapping_in\."),
    ("attention", r"\.albert_layers\.\d+\.attention\."),
    ("feed-forward", r"\.albert_layers\.\d+\.(ffn|ffn_output|full_layer_layer_norm)\."),
    ("pooler", r"(^|\.)pooler\."),
)

FAMILIES: dict[str, ModelFamily] = {
    row.family: row
    for row in (
        ModelFamily("bert", "bert", "encoder.layer", _BERT_PARTS),
        ModelFamily("roberta", "roberta", "encoder.layer", _BERT_PARTS),
        ModelFamily("xlm-roberta", "roberta", "encoder.layer", _BERT_PARTS),
        ModelFamily(
            "distilbert",
            "distilbert",
            "transformer.layer",
            _DISTILBERT_PARTS,
            fields={
                "num_hidden_layers": "n_layers",
                "hidden_size": "dim",
                "num_attention_heads": "n_heads",
                "intermediate_size": "hidden_dim",
                "hidden_act": "activation",
            },
            attention_dropout="attention.dropout",
        ),
        ModelFamily(
            "albert",
            "albert",
            "encoder.albert_layer_groups",
            _ALBERT_PARTS,
            is_shared=True,
            attention_dropout="attention.attention_dropout",
        ),
        ModelFamily("electra", "electra", "encoder.layer", _BERT_PARTS),
    )
}


def anatomy_of(family: str, where: str | None = None) -> ModelFamily:
    """The row of a family. Raises UserError: no row has that name; the message lists those that do."""
    if family in FAMILIES:
        return FAMILIES[family]
    raise UserError(
        f"the model's family is `{family}`, which bertshrink does not support",
        where=where,
        hint=f"known families: {', '.join(FAMILIES)}",
    )


def shared_group(layer: int, num_layers: int, num_groups: int) -> int:
    """The group of weights that stock ALBERT uses for `layer` (from 0): int(i / (L / G))."""
    return int(layer / (num_layers / num_groups))


def component_of(anatomy: ModelFamily, parameter: str) -> str:
    """`embeddings`, `attention`, `feed-forward`, `pooler` or `head`: the part that a parameter belongs to."""
    return next((name for name, pattern in anatomy.parts if re.search(pattern, parameter)), "head")


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


def count_components(anatomy: ModelFamily, tensors: Iterable[tuple[str, int, int]]) -> dict[str, tuple[int, int]]:
    """Sum parameters and bytes by component.

    Args:
        tensors: (parameter name, number of elements, bytes) of every stored tensor.

    Returns:
        component -> (parameters, bytes), in the order embeddings, attention, feed-forward, pooler, head.
    """
    found: dict[str, tuple[int, int]] = {}
    order = [name for name, _ in anatomy.parts] + ["head"]
    for name, elements, num_bytes in tensors:
        part = component_of(anatomy, name)
        before = found.get(part, (0, 0))
        found[part] = (before[0] + elements, before[1] + num_bytes)
    return {name: found[name] for name in order if name in found}
