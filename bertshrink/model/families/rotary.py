"""Families with rotary positions: ModernBERT, GTE, NomicBERT, Jina and EuroBERT."""

from __future__ import annotations

from dataclasses import replace

from bertshrink.model.families.added_positions import BERT_LIKE, BERT_TOKENS, ROBERTA_LIKE, ROBERTA_TOKENS
from bertshrink.model.family import (
    EmbeddingNames,
    Further,
    LayerNames,
    MaskedHead,
    ModelFamily,
    NameBytes,
    TextHead,
    TokenStyle,
    each_use,
)

MODERNBERT = ModelFamily(
    "modernbert",
    "ModernBERT",
    "model",
    MaskedHead("head.dense", "head.norm", "decoder", "decoder.bias", steps=("head", "decoder")),
    replace(BERT_TOKENS, special=tuple(BERT_TOKENS.special[at] for at in (1, 2, 3, 0, 4)), second_type=0),
    NameBytes(6950, 9180, letter=258, cast=-53, quantized=each_use(-210, -13, -78)),
    (
        ("embeddings", r"(^|\.)embeddings\."),
        ("attention", r"(^|\.)layers\.\d+\.attn(_norm)?\."),
        ("feed-forward", r"(^|\.)layers\.\d+\.mlp(_norm)?\.|(^|\.)final_norm\."),
    ),
    layers="layers",
    embedding=EmbeddingNames("embeddings.tok_embeddings", None, None, "embeddings.norm"),
    layer=LayerNames(
        "attn.Wqkv", "attn.Wqkv", "attn.Wqkv", "attn.Wo", "attn_norm", "mlp.Wi", "mlp.Wo", "mlp_norm", "mlp.Wi"
    ),
    text_head=TextHead("head.dense", "classifier", "gelu", dropout="classifier_dropout"),
    answer_head="classifier",
    first_of_heads="head",
    pooler=None,
    fields={
        "hidden_act": "hidden_activation",
        "hidden_dropout_prob": "mlp_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    },
    mask="windows",
    attention="rotary",
    is_fused=False,
    attention_dropout="attn.attention_dropout",
    biases={
        "attention": "attention_bias",
        "feed-forward": "mlp_bias",
        "norm": "norm_bias",
        "head": "classifier_bias",
        "decoder": "decoder_bias",
    },
    first_layer_norms=False,
    kinds_of_layers="layer_types",
    keeps_first_layer=True,
    further=lambda config: [Further("other", (config["hidden_size"], 1), 1 + bool(config.get("norm_bias", False)))],
)
_GATED = LayerNames(
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.up_proj",
    "mlp.down_proj",
    "post_mlp_layernorm",
    "mlp.gate_proj",
)
GTE = ModelFamily(
    "gte",
    "GTE",
    "gte",
    MaskedHead("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.decoder.bias", steps=("lm_head",)),
    ROBERTA_TOKENS,
    NameBytes(4770, 9920, letter=239, cast=-32, quantized=each_use(-218, -246, -44)),
    # The names of the class, and those of the code that published weights came with, which files keep.
    (
        ("embeddings", r"(^|\.)(embeddings|emb_ln)\."),
        (
            "attention",
            r"(^|\.)layers?\.\d+\.(self_attn|attention|attn|mixer|post_attention_layernorm|attn_ln|norm1)\.",
        ),
        ("feed-forward", r"(^|\.)layers?\.\d+\.(mlp|post_mlp_layernorm|mlp_ln|norm2)\."),
        ("pooler", r"(^|\.)pooler\."),
    ),
    layers="layers",
    embedding=EmbeddingNames(positions=None),
    layer=_GATED,
    text_head=TextHead("gte.pooler.dense", "classifier"),
    answer_head=None,
    pooler=None,
    attention="rotary",
    is_fused=False,
    attention_dropout="self_attn.attention_dropout",
    biases={"widen": False, "gate": False},
)
NOMIC = replace(
    GTE,
    family="nomic_bert",
    title="NomicBERT",
    base="nomic_bert",
    file_bytes=NameBytes(5130, 9100, letter=220, cast=-30, quantized=each_use(-205, -240, -40)),
    masked_head=replace(BERT_LIKE.masked_head, norm="cls.predictions.transform.layer_norm"),
    style=BERT_TOKENS,
    text_head=TextHead("nomic_bert.pooler.dense", "classifier"),
    fields={"head_dim": "head_dim"},
    default_activation="silu",
    biases={"attention": False, "feed-forward": False},
)
JINA_V3 = replace(
    GTE,
    family="jina_embeddings_v3",
    title="Jina Embeddings v3",
    file_bytes=NameBytes(5010, 9660, letter=236, cast=-34, quantized=each_use(-183, -147, -46)),
    base="roberta",
    masked_head=ROBERTA_LIKE.masked_head,
    layer=replace(_GATED, widen="mlp.fc1", narrow="mlp.fc2", gate=None),
    text_head=TextHead(),
    answer_head="qa_outputs",
    pooler="pooler.dense",
    biases={},
)
EUROBERT = ModelFamily(
    "eurobert",
    "EuroBERT",
    "model",
    MaskedHead(None, None, "lm_head", None, steps=("lm_head",)),
    TokenStyle(
        (("cls", "<|begin_of_text|>"), ("pad", "<|pad|>"), ("sep", "<|end_of_text|>"), ("mask", "<|mask|>")),
        second_type=0,
        num_separators=1,
    ),
    NameBytes(5260, 11530, letter=278, cast=-34, quantized=each_use(-262, -301, -46)),
    (
        ("embeddings", r"(^|\.)embed_tokens\."),
        ("attention", r"(^|\.)layers\.\d+\.(self_attn|input_layernorm)\."),
        ("feed-forward", r"(^|\.)layers\.\d+\.(mlp|post_attention_layernorm)\.|(^|model\.)norm\."),
    ),
    layers="layers",
    embedding=EmbeddingNames("embed_tokens", None, None, None),
    layer=replace(_GATED, attention_norm="input_layernorm", norm="post_attention_layernorm"),
    text_head=TextHead("dense", "classifier", "gelu"),
    answer_head=None,
    pooler=None,
    fields={
        "hidden_dropout_prob": "attention_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "head_dim": "head_dim",
        "num_key_value_heads": "num_key_value_heads",
    },
    default_activation="silu",
    attention="rotary",
    is_fused=False,
    attention_dropout="self_attn.attention_dropout",
    biases={"attention": "attention_bias", "feed-forward": "mlp_bias", "norm": False},
    ties_words=False,
    further=lambda config: [Further("other", (config["hidden_size"], 1))],
)
