"""Families that are seldom met: BERT with a norm in front of each layer, and with layers made of others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bertshrink.model.families.added_positions import BERT_LIKE, ELECTRA, ROBERTA_LIKE
from bertshrink.model.family import (
    Config,
    EmbeddingNames,
    Further,
    LayerNames,
    MaskedHead,
    NameBytes,
    TextHead,
    each_use,
)


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
    file_bytes=NameBytes(4630, 7075, letter=134, quantized=each_use(11, 20, 18)),
    is_fused=False,
    base="rembert",
    masked_head=MaskedHead(
        "cls.predictions.dense",
        "cls.predictions.LayerNorm",
        "cls.predictions.decoder",
        "cls.predictions.decoder.bias",
        steps=("cls.predictions",),
        width="output_embedding_size",
    ),
    parts=(
        ("embeddings", r"(^|\.)embeddings\.|(^|\.)embedding_hidden_mapping_in\."),
        *BERT_LIKE.parts[1:],
    ),
    embedding=EmbeddingNames(projection="encoder.embedding_hidden_mapping_in", always_projects=True),
    text_head=TextHead("rembert.pooler.dense", "classifier"),
    fields={"embedding_size": "input_embedding_size"},
    ties_words=False,
)


def _mobile_front(config: Config) -> Iterator[Further]:
    """Only words are narrow; their projection may read the neighbours of each token, too."""
    hidden, width = config["hidden_size"], config["embedding_size"]
    yield Further("table", (config["max_position_embeddings"], hidden))
    yield Further("table", (config["type_vocab_size"], hidden))
    yield Further("dense", (width * (3 if config.get("trigram_input", True) else 1), hidden))
    yield Further("other", (hidden, 1), 3)


def _mobile_layers(config: Config) -> Iterator[Further]:
    """Layers between two bottlenecks, with several feed-forwards."""
    hidden, inner, number = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    is_narrow = config.get("use_bottleneck", True)
    thin = config.get("intra_bottleneck_size", 128) if is_narrow else hidden
    heads = config["num_attention_heads"]
    attention = heads * (thin // heads)
    times = number * config.get("num_feedforward_networks", 4)
    yield Further("dense", (thin, attention), 2 * number)
    yield Further("dense", (thin if config.get("use_bottleneck_attention", False) else hidden, attention), number)
    yield Further("other", (attention, 1), 3 * number)
    yield Further("dense", (thin, thin), number)
    yield Further("dense", (thin, inner), times)
    yield Further("dense", (inner, thin), times)
    yield Further("other", (inner, 1), times)
    yield Further("other", (thin, 1), 3 * (number + times))
    if is_narrow:
        into = number * (1 + config.get("key_query_shared_bottleneck", True))
        yield Further("dense", (hidden, thin), into)
        yield Further("other", (thin, 1), 3 * into)
        yield Further("dense", (thin, hidden), number)
        yield Further("other", (hidden, 1), 3 * number)


def _squeezed_layers(config: Config) -> Iterator[Further]:
    """Every product of a layer is a convolution of one token in groups."""
    hidden, inner, number = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    products = {
        "q_groups": (hidden, hidden, 4),
        "k_groups": (hidden, hidden, 4),
        "v_groups": (hidden, hidden, 4),
        "post_attention_groups": (hidden, hidden, 1),
        "intermediate_groups": (hidden, inner, 4),
        "output_groups": (inner, hidden, 4),
    }
    for name, (inputs, outputs, groups) in products.items():
        yield Further("other", (inputs * outputs // config.get(name, groups), 1), number)
        yield Further("other", (outputs, 1), number)
    yield Further("other", (hidden, 1), 4 * number)


def _convolved_layers(config: Config) -> Iterator[Further]:
    """Half of the heads are convolutions whose kernels follow from the text."""
    hidden, inner, number = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    kernel, groups = config.get("conv_kernel_size", 9), config.get("num_groups", 1)
    heads = max(1, config["num_attention_heads"] // config.get("head_ratio", 2))
    attention = heads * (hidden // heads // 2)
    yield Further("dense", (hidden, attention), 4 * number)
    yield Further("dense", (attention, heads * kernel), number)
    yield Further("other", (heads * kernel, 1), number)
    yield Further("other", (hidden * (kernel + attention), 1), number)
    yield Further("other", (attention, 1), 5 * number)
    yield Further("dense", (hidden, hidden), number)
    for inputs, outputs in ((hidden, inner), (inner, hidden)):  # each group is a product of its own in an exported file
        yield Further("dense", (inputs // groups, outputs // groups), groups * number)
    yield Further("other", (inner, 1), number)
    yield Further("other", (hidden, 1), 6 * number)


MOBILEBERT = replace(
    BERT_LIKE,
    family="mobilebert",
    title="MobileBERT",
    file_bytes=NameBytes(6460, 16360, letter=342, entry=126, cast=7, quantized=each_use(56, 120, 19)),
    base="mobilebert",
    masked_head=replace(BERT_LIKE.masked_head, beside="cls.predictions.dense", width="hidden_size"),
    parts=(
        ("embeddings", r"(^|\.)embeddings\."),
        ("attention", r"\.layer\.\d+\.(attention|bottleneck\.attention)\."),
        ("feed-forward", r"\.layer\.\d+\.(ffn|intermediate|output|bottleneck\.input)\."),
        ("pooler", r"(^|\.)pooler\."),
    ),
    embedding=EmbeddingNames(projection="embeddings.embedding_transformation", always_projects=True),
    layer=None,
    text_head=TextHead("mobilebert.pooler.dense", "classifier", switch="classifier_activation"),
    default_activation="relu",
    front=_mobile_front,
    further=_mobile_layers,
)
SQUEEZEBERT = replace(
    BERT_LIKE,
    family="squeezebert",
    title="SqueezeBERT",
    file_bytes=NameBytes(3990, 6330, letter=132),
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
    always_pools=True,
    further=_squeezed_layers,
)
CONVBERT = replace(
    BERT_LIKE,
    family="convbert",
    title="ConvBERT",
    base="convbert",
    masked_head=ELECTRA.masked_head,
    file_bytes=NameBytes(5510, 16760, letter=309, entry=130, cast=10, quantized=each_use(6, -49, 30)),
    embedding=ELECTRA.embedding,
    layer=None,
    text_head=ELECTRA.text_head,
    unread_heads=ELECTRA.unread_heads,
    pooler=None,
    is_fused=False,
    further=_convolved_layers,
)
