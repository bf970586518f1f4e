"""Families whose positions are a table that is added to the words: BERT, RoBERTa and their kin.

`BERT_LIKE` and `ROBERTA_LIKE` are no rows: they name the modules that many classes have alike.
"""

from __future__ import annotations

from dataclasses import replace

from bertshrink.model.family import (
    EmbeddingNames,
    Further,
    LayerNames,
    MaskedHead,
    ModelFamily,
    NameBytes,
    PretrainManner,
    TextHead,
    TokenStyle,
)

BERT_TOKENS = TokenStyle(
    (("pad", "[PAD]"), ("unk", "[UNK]"), ("cls", "[CLS]"), ("sep", "[SEP]"), ("mask", "[MASK]")),
    second_type=1,
    num_separators=1,
)
ROBERTA_TOKENS = TokenStyle(
    (("cls", "<s>"), ("pad", "<pad>"), ("sep", "</s>"), ("unk", "<unk>"), ("mask", "<mask>")),
    second_type=0,
    num_separators=2,
)
BERT_LIKE = ModelFamily(
    "bert",
    "BERT",
    "bert",
    MaskedHead(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.decoder",
        "cls.predictions.bias",
        steps=("cls.predictions",),
    ),
    BERT_TOKENS,
    NameBytes(3830, 7160),
    (
        ("embeddings", r"(^|\.)embeddings(_project)?\."),
        ("attention", r"\.layer\.\d+\.attention\."),
        ("feed-forward", r"\.layer\.\d+\.(intermediate|output)\."),
        ("pooler", r"(^|\.)pooler\."),
    ),
    text_head=TextHead("bert.pooler.dense", "classifier"),
    unread_heads=("cls.seq_relationship",),
)
BERT = replace(
    BERT_LIKE,
    narrow_as="albert",
    narrow_text_head_as="albert",
    shared_as="albert",
    pretraining=PretrainManner("mlm+nsp", pair_head="cls.seq_relationship"),
)
ERNIE = replace(
    BERT_LIKE,
    family="ernie",
    title="ERNIE",
    base="ernie",
    embedding=EmbeddingNames(constant="embeddings.task_type_embeddings"),
    text_head=TextHead("ernie.pooler.dense", "classifier"),
    further=lambda config: (
        [Further("table", (config.get("task_type_vocab_size", 3), config["hidden_size"]))]
        if config.get("use_task_id", False)
        else []
    ),
    narrow_as="albert",
    narrow_text_head_as="albert",
    shared_as="albert",
)
ROBERTA_LIKE = replace(
    BERT_LIKE,
    family="roberta",
    title="RoBERTa",
    base="roberta",
    masked_head=MaskedHead(
        "lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias", steps=("lm_head",)
    ),
    style=ROBERTA_TOKENS,
    file_bytes=NameBytes(4375, 7080),
    text_head=TextHead(),
    unread_heads=(),
    positions_follow_padding=True,
)
ROBERTA = replace(
    ROBERTA_LIKE,
    narrow_as="albert",
    narrow_text_head_as="albert",
    shared_as="albert",
    pretraining=PretrainManner(
        tokenizer="byte-bpe", config={"type_vocab_size": 1, "bos_token_id": 0, "eos_token_id": 2}
    ),
)
XLM_ROBERTA = replace(ROBERTA, family="xlm-roberta", title="XLM-RoBERTa", pretraining=None)
CAMEMBERT = replace(ROBERTA, family="camembert", title="CamemBERT", pretraining=None)
DISTILBERT = ModelFamily(
    "distilbert",
    "DistilBERT",
    "distilbert",
    MaskedHead(
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector",
        "vocab_projector.bias",
        steps=("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
    ),
    BERT_TOKENS,
    NameBytes(3575, 6895),
    (
        ("embeddings", r"(^|\.)embeddings\."),
        ("attention", r"\.layer\.\d+\.(attention|sa_layer_norm)\."),
        ("feed-forward", r"\.layer\.\d+\.(ffn|output_layer_norm)\."),
    ),
    layers="transformer.layer",
    embedding=EmbeddingNames(types=None),
    layer=LayerNames(
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        "sa_layer_norm",
        "ffn.lin1",
        "ffn.lin2",
        "output_layer_norm",
    ),
    text_head=TextHead("pre_classifier", "classifier", "relu", dropout="seq_classif_dropout"),
    token_dropout=None,
    pooler=None,
    fields={
        "num_hidden_layers": "n_layers",
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    },
    attention_dropout="attention.dropout",
    narrow_as="albert",
    narrow_text_head_as="electra",
    shared_as="albert",
    pretraining=PretrainManner(),
)
ALBERT = ModelFamily(
    "albert",
    "ALBERT",
    "albert",
    MaskedHead(
        "predictions.dense",
        "predictions.LayerNorm",
        "predictions.decoder",
        "predictions.bias",
        steps=("predictions",),
    ),
    BERT_TOKENS,
    # A layer's names are longer than in the other families.
    NameBytes(
        4800,
        9060,
        letter=173,
        group=964,
        entry=136,
        cast=74,
        quantized={
            "int8-dynamic": (300, 64),
            "int8-static": (30, 64),
            "int8-block": (0, 119),
            "int4-block": (0, 119),
        },
    ),
    (
        ("embeddings", r"(^|\.)embeddings\.|\.embedding_hidden_mapping_in\.|^encoder\.embedding_hidden_mapping_in\."),
        ("attention", r"\.albert_layers\.\d+\.attention\."),
        ("feed-forward", r"\.albert_layers\.\d+\.(ffn|ffn_output|full_layer_layer_norm)\."),
        ("pooler", r"(^|\.)pooler\."),
    ),
    layers="encoder.albert_layer_groups",
    in_layer="albert_layers.0",
    embedding=EmbeddingNames(projection="encoder.embedding_hidden_mapping_in", always_projects=True),
    layer=LayerNames(
        "attention.query",
        "attention.key",
        "attention.value",
        "attention.dense",
        "attention.LayerNorm",
        "ffn",
        "ffn_output",
        "full_layer_layer_norm",
    ),
    text_head=TextHead("albert.pooler", "classifier", dropout="classifier_dropout_prob"),
    token_dropout="classifier_dropout_prob",
    unread_heads=("sop_classifier",),
    pooler="pooler",
    default_activation="gelu_new",
    is_shared=True,
    attention_dropout="attention.attention_dropout",
    narrow_as="albert",
    narrow_text_head_as="albert",
    shared_as="albert",
    # The class's own defaults are those of the largest published ALBERT, which trains without dropout.
    pretraining=PretrainManner(
        "mlm+sop",
        pair_head="sop_classifier",
        config={"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    ),
)
ELECTRA = replace(
    BERT_LIKE,
    family="electra",
    title="ELECTRA",
    base="electra",
    masked_head=MaskedHead(
        "generator_predictions.dense",
        "generator_predictions.LayerNorm",
        "generator_lm_head",
        "generator_lm_head.bias",
        steps=("generator_predictions", "generator_lm_head"),
    ),
    file_bytes=NameBytes(4330, 7095),
    embedding=EmbeddingNames(projection="embeddings_project"),
    text_head=TextHead(activation="gelu"),
    unread_heads=("discriminator_predictions",),
    pooler=None,
    narrow_as="albert",
    narrow_text_head_as="electra",
    shared_as="albert",
)
