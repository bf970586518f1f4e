"""Families whose attention knows distances between tokens: MPNet and DeBERTa."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bertshrink.model.families.added_positions import BERT_LIKE, BERT_TOKENS, ROBERTA_LIKE
from bertshrink.model.family import (
    Config,
    EmbeddingNames,
    Further,
    LayerNames,
    NameBytes,
    TextHead,
    TokenStyle,
    each_use,
)

MPNET = replace(
    ROBERTA_LIKE,
    family="mpnet",
    title="MPNet",
    base="mpnet",
    style=TokenStyle(
        (("cls", "<s>"), ("pad", "<pad>"), ("sep", "</s>"), ("unk", "[UNK]"), ("mask", "<mask>")),
        second_type=0,
        num_separators=2,
    ),
    file_bytes=NameBytes(8700, 7040),
    parts=(
        ("embeddings", r"(^|\.)embeddings\."),
        ("attention", r"\.layer\.\d+\.attention\.|(^|\.)relative_attention_bias\."),
        ("feed-forward", r"\.layer\.\d+\.(intermediate|output)\."),
        ("pooler", r"(^|\.)pooler\."),
    ),
    embedding=EmbeddingNames(types=None),
    layer=LayerNames(
        "attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o", "attention.LayerNorm"
    ),
    token_dropout=None,
    attention="distance-bias",
    is_fused=False,
    attention_dropout="attention.attn.dropout",
    further=lambda config: [
        Further("table", (config.get("relative_attention_num_buckets", 32), config["num_attention_heads"]))
    ],
)


def _num_distances(config: Config) -> int:
    """Rows of the table of distances."""
    most, buckets = config.get("max_relative_positions", -1), config.get("position_buckets", -1)
    return 2 * int(buckets if buckets > 0 else most if most > 0 else config["max_position_embeddings"])


def _num_kinds(config: Config) -> int:
    """How many kinds of scores by distance a layer adds: of queries, of keys."""
    return sum(kind in (config.get("pos_att_type") or []) for kind in ("c2p", "p2c"))


def _projected_distances(config: Config) -> Iterator[Further]:
    """What an exported DeBERTa stores for distances: each layer's projections, and 64-bit numbers of rows for each."""
    if config.get("relative_attention", False):
        shape = (_num_distances(config), config["hidden_size"])
        yield Further("table", shape, config["num_hidden_layers"] * _num_kinds(config))
        yield Further("other", (2 * config["max_position_embeddings"], 2), _num_kinds(config))


def _distances(config: Config) -> Iterator[Further]:
    """What a DeBERTa stores for distances, and the tables and the convolution that only some of them have."""
    hidden = config["hidden_size"]
    if config.get("relative_attention", False):
        yield Further("table", (_num_distances(config), hidden), is_exported=False)
        if not config.get("share_att_key", False):
            number = config["num_hidden_layers"] * _num_kinds(config)
            yield Further("dense", (hidden, hidden), number, is_exported=False)
            yield Further("other", (hidden, 1), number, is_exported=False)
    if "layer_norm" in str(config.get("norm_rel_ebd", "none")).lower():
        yield Further("other", (hidden, 1), 2, is_exported=False)
    if (kernel := config.get("conv_kernel_size", 0)) > 0:
        yield Further("other", (hidden * hidden * kernel // config.get("conv_groups", 1), 1))
        yield Further("other", (hidden, 1), 3)


DEBERTA_V2 = replace(
    BERT_LIKE,
    family="deberta-v2",
    title="DeBERTa-v2 and v3",
    base="deberta",
    masked_head=replace(BERT_LIKE.masked_head, switch="legacy"),
    style=replace(BERT_TOKENS, special=tuple(BERT_TOKENS.special[at] for at in (0, 2, 3, 1, 4))),
    file_bytes=NameBytes(6950, 13480, letter=282, cast=26, quantized=each_use(104, 79, 80)),
    parts=(
        ("embeddings", r"(^|\.)embeddings\."),
        ("attention", r"\.layer\.\d+\.attention\.|(^|\.)encoder\.(rel_embeddings|LayerNorm)\."),
        ("feed-forward", r"\.layer\.\d+\.(intermediate|output)\.|(^|\.)encoder\.conv\."),
        ("pooler", r"(^|\.)pooler\."),
    ),
    embedding=EmbeddingNames(projection="embeddings.embed_proj", projects_before_norm=True),
    layer=LayerNames("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
    text_head=TextHead("pooler.dense", "classifier", activation="gelu", dropout="cls_dropout"),
    token_dropout=None,
    unread_heads=("lm_predictions", "mask_predictions"),
    pooler=None,
    adds_positions="position_biased_input",
    mask="tokens",
    attention="disentangled",
    is_fused=False,
    scores=lambda config: 2 + 2 * _num_kinds(config) * bool(config.get("relative_attention", False)),
    biases={"projection": False},
    further=_distances,
    folded=_projected_distances,
    narrow_as="deberta-v2",
    narrow_text_head_as="deberta-v2",
)
