"""Where embeddings, attention, feed-forward and head live in each family: a table, one row per family.

Everything here is told by `config.json` and by names of parameters, so a plan can be proven and a model inspected
without loading a weight. Adding a family is adding a row: no other file of the package names one.

A layer-shared family (ALBERT) has L layers but only G groups of weights; stock ALBERT gives layer i (from 0) the group
int(i / (L / G)). `shared_group` is that expression, to the letter: other roundings differ when G does not divide L.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from bertshrink.errors import UserError
from bertshrink.model.family import (
    Config,
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

_BERT_TOKENS = TokenStyle(
    (("pad", "[PAD]"), ("unk", "[UNK]"), ("cls", "[CLS]"), ("sep", "[SEP]"), ("mask", "[MASK]")),
    second_type=1,
    num_separators=1,
)
_ROBERTA_TOKENS = TokenStyle(
    (("cls", "<s>"), ("pad", "<pad>"), ("sep", "</s>"), ("unk", "<unk>"), ("mask", "<mask>")),
    second_type=0,
    num_separators=2,
)
_BERT = ModelFamily(
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
    _BERT_TOKENS,
    NameBytes(3830, 7160),
    (
        ("embeddings", r"(^|\.)embeddings(_project)?\."),
        ("attention", r"\.layer\.\d+\.attention\."),
        ("feed-forward", r"\.layer\.\d+\.(intermediate|output)\."),
        ("pooler", r"(^|\.)pooler\."),
    ),
    text_head=TextHead("bert.pooler.dense", "classifier"),
    unread_heads=("cls.seq_relationship",),
    pretraining=PretrainManner("mlm+nsp", pair_head="cls.seq_relationship"),
)
_ROBERTA = replace(
    _BERT,
    family="roberta",
    title="RoBERTa",
    base="roberta",
    masked_head=MaskedHead(
        "lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias", steps=("lm_head",)
    ),
    style=_ROBERTA_TOKENS,
    file_bytes=NameBytes(4375, 7080),
    text_head=TextHead(),
    unread_heads=(),
    positions_follow_padding=True,
    pretraining=PretrainManner(
        tokenizer="byte-bpe", config={"type_vocab_size": 1, "bos_token_id": 0, "eos_token_id": 2}
    ),
)
_DISTILBERT = ModelFamily(
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
    _BERT_TOKENS,
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
    narrow_text_head_as="electra",
    pretraining=PretrainManner(),
)
_ALBERT = ModelFamily(
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
    _BERT_TOKENS,
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
    # The class's own defaults are those of the largest published ALBERT, which trains without dropout.
    pretraining=PretrainManner(
        "mlm+sop",
        pair_head="sop_classifier",
        config={"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    ),
)
_ELECTRA = replace(
    _BERT,
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
    narrow_text_head_as="electra",
    pretraining=None,
)

# Encoders of the same layers whose attention knows distances.

_MPNET = replace(
    _ROBERTA,
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
    narrow_as=None,
    narrow_text_head_as=None,
    shared_as=None,
    pretraining=None,
)


def _distances(config: Config) -> Iterator[Further]:
    """What a DeBERTa stores for distances, and the tables and the convolution that only some of them have."""
    hidden, width = config["hidden_size"], config.get("embedding_size", config["hidden_size"])
    if config.get("position_biased_input", True):
        yield Further("table", (config["max_position_embeddings"], width))
    if config.get("relative_attention", False):
        most, buckets = config.get("max_relative_positions", -1), config.get("position_buckets", -1)
        span = buckets if buckets > 0 else most if most > 0 else config["max_position_embeddings"]
        yield Further("table", (2 * span, hidden))
        kinds = config.get("pos_att_type") or []
        if not config.get("share_att_key", False):
            number = config["num_hidden_layers"] * sum(kind in kinds for kind in ("c2p", "p2c"))
            yield Further("dense", (hidden, hidden), number)
            yield Further("other", (hidden, 1), number)
    if "layer_norm" in str(config.get("norm_rel_ebd", "none")).lower():
        yield Further("other", (hidden, 1), 2)
    if (kernel := config.get("conv_kernel_size", 0)) > 0:
        yield Further("other", (hidden * hidden * kernel // config.get("conv_groups", 1), 1))
        yield Further("other", (hidden, 1), 3)


_DEBERTA_V2 = replace(
    _BERT,
    family="deberta-v2",
    title="DeBERTa-v2 and v3",
    base="deberta",
    style=replace(_BERT_TOKENS, special=tuple(_BERT_TOKENS.special[at] for at in (0, 2, 3, 1, 4))),
    file_bytes=None,
    parts=(
        ("embeddings", r"(^|\.)embeddings\."),
        ("attention", r"\.layer\.\d+\.attention\.|(^|\.)encoder\.(rel_embeddings|LayerNorm)\."),
        ("feed-forward", r"\.layer\.\d+\.(intermediate|output)\.|(^|\.)encoder\.conv\."),
        ("pooler", r"(^|\.)pooler\."),
    ),
    embedding=EmbeddingNames(positions=None, projection="embeddings.embed_proj"),
    layer=LayerNames("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
    text_head=TextHead("pooler.dense", "classifier", activation="gelu", dropout="cls_dropout"),
    token_dropout=None,
    unread_heads=("lm_predictions", "mask_predictions"),
    pooler=None,
    mask="tokens",
    attention="disentangled",
    is_fused=False,
    scores=6,
    biases={"projection": False},
    further=_distances,
    narrow_as=None,
    narrow_text_head_as=None,
    shared_as=None,
    pretraining=None,
)

# Encoders with rotary positions.


def _fewer(dynamic: int, static: int, block: int) -> dict[str, tuple[int, int]]:
    """Bytes by which the operations around an integer weight take less than in BERT, each time it is used."""
    kinds = {"int8-dynamic": dynamic, "int8-static": static, "int8-block": block, "int4-block": block}
    return {kind: (-number, 0) for kind, number in kinds.items()}


_MODERNBERT = ModelFamily(
    "modernbert",
    "ModernBERT",
    "model",
    MaskedHead("head.dense", "head.norm", "decoder", "decoder.bias", steps=("head", "decoder")),
    replace(_BERT_TOKENS, special=tuple(_BERT_TOKENS.special[at] for at in (1, 2, 3, 0, 4)), second_type=0),
    NameBytes(6950, 9180, letter=258, cast=-53, quantized=_fewer(210, 13, 78)),
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
    narrow_as=None,
    narrow_text_head_as=None,
    shared_as=None,
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
_GTE = ModelFamily(
    "gte",
    "GTE",
    "gte",
    MaskedHead("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.decoder.bias", steps=("lm_head",)),
    _ROBERTA_TOKENS,
    NameBytes(4770, 9920, letter=239, cast=-32, quantized=_fewer(218, 246, 44)),
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
    narrow_as=None,
    narrow_text_head_as=None,
    shared_as=None,
)
_NOMIC = replace(
    _GTE,
    family="nomic_bert",
    title="NomicBERT",
    base="nomic_bert",
    file_bytes=NameBytes(5130, 9100, letter=220, cast=-30, quantized=_fewer(205, 240, 40)),
    masked_head=replace(_BERT.masked_head, norm="cls.predictions.transform.layer_norm"),
    style=_BERT_TOKENS,
    text_head=TextHead("nomic_bert.pooler.dense", "classifier"),
    fields={"head_dim": "head_dim"},
    default_activation="silu",
    biases={"attention": False, "feed-forward": False},
)
_JINA_V3 = replace(
    _GTE,
    family="jina_embeddings_v3",
    title="Jina Embeddings v3",
    file_bytes=NameBytes(5010, 9660, letter=236, cast=-34, quantized=_fewer(183, 147, 46)),
    base="roberta",
    masked_head=_ROBERTA.masked_head,
    layer=replace(_GATED, widen="mlp.fc1", narrow="mlp.fc2", gate=None),
    text_head=TextHead(),
    answer_head="qa_outputs",
    pooler="pooler.dense",
    biases={},
)
_EUROBERT = ModelFamily(
    "eurobert",
    "EuroBERT",
    "model",
    MaskedHead(None, None, "lm_head", None, steps=("lm_head",)),
    TokenStyle(
        (("cls", "<|begin_of_text|>"), ("pad", "<|pad|>"), ("sep", "<|end_of_text|>"), ("mask", "<|mask|>")),
        second_type=0,
        num_separators=1,
    ),
    NameBytes(5260, 11530, letter=278, cast=-34, quantized=_fewer(262, 301, 46)),
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
    narrow_as=None,
    narrow_text_head_as=None,
    shared_as=None,
)

# Families that are seldom met: of some, layers go, but no width, and no size is told beforehand.


def _last_norm(config: Config) -> list[Further]:
    """The norm behind the last layer, where there is none behind the embeddings."""
    return [Further("other", (config["hidden_size"], 1), 2)]


_OTHER = replace(_BERT, file_bytes=None, pretraining=None, narrow_as=None, narrow_text_head_as=None, shared_as=None)
_ERNIE = replace(
    _OTHER,
    family="ernie",
    title="ERNIE",
    base="ernie",
    file_bytes=_BERT.file_bytes,
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
_MEGATRON = replace(
    _OTHER,
    family="megatron-bert",
    title="Megatron-BERT",
    file_bytes=NameBytes(3700, 6840),
    is_fused=False,
    embedding=EmbeddingNames(norm=None),
    layer=LayerNames(attention_norm="attention.ln", norm="ln"),
    parts=(
        _BERT.parts[0],
        _BERT.parts[1],
        ("feed-forward", r"\.layer\.\d+\.(intermediate|output|ln)\.|(^|\.)encoder\.ln\."),
        _BERT.parts[3],
    ),
    further=_last_norm,
)
_XLM_ROBERTA_XL = replace(
    _ROBERTA,
    family="xlm-roberta-xl",
    title="XLM-RoBERTa-XL",
    file_bytes=NameBytes(4190, 7050),
    embedding=EmbeddingNames(norm=None),
    layer=LayerNames(attention_norm="attention.self_attn_layer_norm", norm="LayerNorm"),
    parts=(
        _BERT.parts[0],
        _BERT.parts[1],
        ("feed-forward", r"\.layer\.\d+\.(intermediate|output|LayerNorm)\.|(^|\.)encoder\.LayerNorm\."),
        _BERT.parts[3],
    ),
    further=_last_norm,
    narrow_as=None,
    narrow_text_head_as=None,
    shared_as=None,
    pretraining=None,
)
_REMBERT = replace(
    _OTHER,
    family="rembert",
    title="RemBERT",
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
        *_BERT.parts[1:],
    ),
    embedding=EmbeddingNames(projection="encoder.embedding_hidden_mapping_in", always_projects=True),
    text_head=TextHead("rembert.pooler.dense", "classifier"),
    fields={"embedding_size": "input_embedding_size"},
    ties_words=False,
    is_counted=False,
)
_MOBILEBERT = replace(
    _OTHER,
    family="mobilebert",
    title="MobileBERT",
    base="mobilebert",
    masked_head=replace(_BERT.masked_head, beside="cls.predictions.dense"),
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
_SQUEEZEBERT = replace(
    _OTHER,
    family="squeezebert",
    title="SqueezeBERT",
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
_CONVBERT = replace(
    _ELECTRA,
    family="convbert",
    title="ConvBERT",
    is_fused=False,
    base="convbert",
    file_bytes=None,
    layer=None,
    unread_heads=("discriminator_predictions",),
    is_counted=False,
    narrow_as=None,
    narrow_text_head_as=None,
    shared_as=None,
)

FAMILIES: dict[str, ModelFamily] = {
    row.family: row
    for row in (
        _BERT,
        _ROBERTA,
        replace(_ROBERTA, family="xlm-roberta", title="XLM-RoBERTa", pretraining=None),
        _DISTILBERT,
        _ALBERT,
        _ELECTRA,
        replace(_ROBERTA, family="camembert", title="CamemBERT", pretraining=None),
        _MPNET,
        _DEBERTA_V2,
        _MODERNBERT,
        _NOMIC,
        _GTE,
        _JINA_V3,
        _EUROBERT,
        _ERNIE,
        _MEGATRON,
        _XLM_ROBERTA_XL,
        _REMBERT,
        _MOBILEBERT,
        _SQUEEZEBERT,
        _CONVBERT,
    )
}

PretrainedFamily = Literal["bert", "roberta", "distilbert", "albert"]
"""The rows with a `pretraining`, for settings to choose from."""
DEFAULT_PRETRAINED: PretrainedFamily = "bert"


def anatomy_of(family: str, where: str | None = None) -> ModelFamily:
    """The row of a family. Raises UserError: no row has that name; the message lists those that do."""
    if family in FAMILIES:
        return FAMILIES[family]
    raise UserError(
        f"the model's family is `{family}`, which bertshrink does not support",
        where=where,
        hint=f"known families: {', '.join(FAMILIES)}",
    )


def name_bytes(family: str) -> NameBytes:
    """What names take in files of a family; as in BERT's where the table has none (files can be given ready-made)."""
    named = FAMILIES.get(family, _BERT).file_bytes or _BERT.file_bytes
    assert named is not None
    return named


def shared_group(layer: int, num_layers: int, num_groups: int) -> int:
    """The group of weights that stock ALBERT uses for `layer` (from 0): int(i / (L / G))."""
    return int(layer / (num_layers / num_groups))
