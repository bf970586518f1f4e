"""Families that are seldom met: BERT with a norm in front of each layer, and with layers made of others."""

from __future__ import annotations

from dataclasses import replace

from bertshrink.model.families.added_positions import BERT_LIKE, ELECTRA, ROBERTA_LIKE
from bertshrink.model.family import Config, EmbeddingNames, Further, LayerNames, MaskedHead, NameBytes, TextHead


def _last_norm(config: Config) -> list[Further]:
    """The norm behind the last layer, where there is none behind the embeddings."""
    return [Further("other", (config["hidden_size"], 1), 2)]


MEGATRON = replace(
    BERT_LIKE,
    family="megatron-bert",
    title="Megatron-BERT",
    file_bytes=NameBytes(3700, 6840),
    is_fused=False,
    embedding=EmbeddingNames(norm=None),
    layer=LayerNames(attention_norm="attention.ln", norm="ln"),
    parts=(
        BERT_LIKE.parts[0],
        BERT_LIKE.parts[1],
        ("feed-forward", r"\.layer\.\d+\.(intermediate|output|ln)\.|(^|\.)encoder\.ln\."),
        BERT_LIKE.parts[3],
    ),
    further=_last_norm,
)
XLM_ROBERTA_XL = replace(
    ROBERTA_LIKE,
    family="xlm-roberta-xl",
    title="XLM-RoBERTa-XL",
    file_bytes=NameBytes(4190, 7050),
    embedding=EmbeddingNames(norm=None),
    layer=LayerNames(attention_norm="attention.self_attn_layer_norm", norm="LayerNorm"),
    parts=(
        BERT_LIKE.parts[0],
        BERT_LIKE.parts[1],
        ("feed-forward", r"\.layer\.\d+\.(intermediate|output|LayerNorm)\.|(^|\.)encoder\.LayerNorm\."),
        BERT_LIKE.parts[3],
    ),
    further=_last_norm,
)
REMBERT = replace(
    BERT_LIKE,
    family="rembert",
    title="RemBERT",
    file_bytes=None,
    is_fused=False,
    base="rembert",
    masked_head=MaskedHead(
        "cls.predictions.dense",
        "cls.predictions.LayerNorm",
        "cls.predictions.decoder",
        "cls.predictions.decoder.bias",
        steps=("cls.predictions",),
    ),
    parts=(
        ("embeddings", r"(^|\.)embeddings\.|(^|\.)embedding_hidden_mapping_in\."),
        *BERT_LIKE.parts[1:],
    ),
    embedding=EmbeddingNames(projection="encoder.embedding_hidden_mapping_in", always_projects=True),
    text_head=TextHead("rembert.pooler.dense", "classifier"),
    fields={"embedding_size": "input_embedding_size"},
    ties_words=False,
    is_counted=False,
)
MOBILEBERT = replace(
    BERT_LIKE,
    family="mobilebert",
    title="MobileBERT",
    file_bytes=None,
    base="mobilebert",
    masked_head=replace(BERT_LIKE.masked_head, beside="cls.predictions.dense"),
    parts=(
        ("embeddings", r"(^|\.)embeddings\."),
        ("attention", r"\.layer\.\d+\.(attention|bottleneck\.attention)\."),
        ("feed-forward", r"\.layer\.\d+\.(ffn|intermediate|output|bottleneck\.input)\."),
        ("pooler", r"(^|\.)pooler\."),
    ),
    embedding=EmbeddingNames(projection="embeddings.embedding_transformation", always_projects=True),
    layer=None,
    text_head=TextHead("mobilebert.pooler.dense", "classifier"),
    default_activation="relu",
    is_counted=False,
)
SQUEEZEBERT = replace(
    BERT_LIKE,
    family="squeezebert",
    title="SqueezeBERT",
    file_bytes=None,
    is_fused=False,
    base="transformer",
    parts=(
        ("embeddings", r"(^|\.)embeddings\."),
        ("attention", r"\.layers\.\d+\.(attention|post_attention)\."),
        ("feed-forward", r"\.layers\.\d+\.(intermediate|output)\."),
        ("pooler", r"(^|\.)pooler\."),
    ),
    layers="encoder.layers",
    layer=None,
    attention_dropout="attention.dropout",
    text_head=TextHead("transformer.pooler.dense", "classifier"),
    is_counted=False,
)
CONVBERT = replace(
    BERT_LIKE,
    family="convbert",
    title="ConvBERT",
    base="convbert",
    masked_head=ELECTRA.masked_head,
    file_bytes=None,
    embedding=ELECTRA.embedding,
    layer=None,
    text_head=ELECTRA.text_head,
    unread_heads=ELECTRA.unread_heads,
    pooler=None,
    is_fused=False,
    is_counted=False,
)
