"""Where embeddings, attention, feed-forward and head live in each family: a table, one row per family.

Everything here is told by `config.json` and by names of parameters, so a plan can be proven and a model inspected
without loading a weight. Adding a family is adding a row: no other file of the package names one.

A layer-shared family (ALBERT) has L layers but only G groups of weights; stock ALBERT gives layer i (from 0) the group
int(i / (L / G)). `shared_group` is that expression, to the letter: other roundings differ when G does not divide L.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bertshrink.errors import UserError

Activation = Literal["tanh", "relu", "gelu"]


@dataclass(frozen=True)
class EmbeddingNames:
    """Modules that turn ids into the first hidden states, as paths inside the encoder; None: the family has none.

    Attributes:
        words, positions, types: the tables.
        norm: the LayerNorm behind their sum.
        projection: from the tables' width to the layers'.
        always_projects: whether the projection is there even where both widths are one.
    """

    words: str = "embeddings.word_embeddings"
    positions: str = "embeddings.position_embeddings"
    types: str | None = "embeddings.token_type_embeddings"
    norm: str = "embeddings.LayerNorm"
    projection: str | None = None
    always_projects: bool = False


@dataclass(frozen=True)
class LayerNames:
    """Modules of one layer, each with `weight` and `bias`, as paths inside the layer, in the order of computation."""

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    mix: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    widen: str = "intermediate.dense"
    narrow: str = "output.dense"
    norm: str = "output.LayerNorm"


@dataclass(frozen=True)
class TextHead:
    """The head of the tasks with one output for a text: last(activation(first(state of the first token))).

    Attributes:
        first, last: paths of the modules.
        activation: between them.
        dropout: the configuration's name for the dropout before `last`; where that is None, the layers' own counts.
    """

    first: str = "classifier.dense"
    last: str = "classifier.out_proj"
    activation: Activation = "tanh"
    dropout: str = "classifier_dropout"


@dataclass(frozen=True)
class MaskedHead:
    """The head on masked tokens: a dense layer, LayerNorm, and the table of words once more.

    Attributes:
        first, norm: paths of the modules.
        decoder: path of the module that is tied to the table.
        bias: name of the decoder's bias.
        steps: paths of the modules that make logits of states, one after another.
    """

    first: str
    norm: str
    decoder: str
    bias: str
    steps: tuple[str, ...]


@dataclass(frozen=True)
class TokenStyle:
    """How the family's published tokenizers build a sequence.

    Attributes:
        special: (role, text) in the order of their ids.
        second_type: the type of a second text's tokens.
        num_separators: between two texts.
    """

    special: tuple[tuple[str, str], ...]
    second_type: int
    num_separators: int

    def id_of(self, role: str) -> int:
        """The id of a special token in a vocabulary that is made anew."""
        return [name for name, _ in self.special].index(role)


@dataclass(frozen=True)
class PretrainManner:
    """How the family is pre-trained from nothing.

    Attributes:
        objective: `mlm`, or with `+nsp` (next sentence) or `+sop` (sentence order).
        tokenizer: the kind that is trained.
        pair_head: path of the head for pairs of segments, in the class that pre-trains.
        config: values of the configuration that differ from the class's defaults.
    """

    objective: Literal["mlm", "mlm+nsp", "mlm+sop"] = "mlm"
    tokenizer: Literal["wordpiece", "byte-bpe"] = "wordpiece"
    pair_head: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NameBytes:
    """What names and nodes take in files of this family, in bytes: means over models of two and four layers, all tasks.

    Attributes:
        graph: an ONNX graph without its layers.
        layer: a layer of it.
        letter: a layer, for each letter of the prefix that a head gives all names.
        group: a group of layers that share weights: what is stored is named once, however many layers use it.
        entry: a safetensors header, for each tensor, at most: its name, type, shape and span.
        cast: a layer's Cast of a half-precision weight, beyond what it takes in BERT.
        quantized: type -> the same of the operations around an integer weight: (each use of it, each of them).
    """

    graph: int
    layer: int
    letter: int = 140
    group: int = 0
    entry: int = 118
    cast: int = 0
    quantized: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFamily:
    """One family of encoders.

    Attributes:
        family: `model_type` in config.json.
        title: its name in texts.
        base: the attribute that holds the encoder in a model with a head.
        layers: path of the list of layers (or groups of layers) inside the encoder.
        in_layer: path from an entry of that list to the layer.
        embedding, layer: names of the encoder's modules.
        text_head, masked_head: names of the heads' modules.
        token_head, answer_head: names of the one dense layer for a tag of each token, and for answers' ends.
        token_dropout: the configuration's name for the dropout before `token_head`; None: the layers' own counts.
        unread_heads: paths of the heads that published checkpoints hold and no task of the table reads.
        pooler: path of the base model's own last layer inside the encoder; None: it has none.
        parts: (component, pattern of parameter names) in the order they are tried; what matches none is the head.
        style: what its tokenizers write around texts.
        file_bytes: what its names take in files.
        fields: this family's names for the common configuration fields.
        default_activation: of the layers, where the configuration names none.
        is_shared: whether layers share weights in groups.
        positions_follow_padding: whether the first token's position is the padding's id + 1; else it is 0.
        adds_mask: whether its attention adds a float mask (B, 1, 1, L) to the scores as it is given; else it takes
            only the mask of tokens (B, L).
        attention_dropout: how the path of the dropout of attention's weights ends.
        narrow_as: the family of the stock model with narrow tables that computes the same; None: there is none.
        narrow_text_head_as: the same, with a head for whole texts.
        shared_as: the family of the stock model with the same layers whose layers share weights; None: there is none.
        pretraining: None: bertshrink does not pre-train it.

    """

    family: str
    title: str
    base: str
    masked_head: MaskedHead
    style: TokenStyle
    file_bytes: NameBytes
    parts: tuple[tuple[str, str], ...]
    layers: str = "encoder.layer"
    in_layer: str = ""
    embedding: EmbeddingNames = EmbeddingNames()
    layer: LayerNames = LayerNames()
    text_head: TextHead = TextHead()
    token_head: str = "classifier"
    answer_head: str = "qa_outputs"
    token_dropout: str | None = "classifier_dropout"
    unread_heads: tuple[str, ...] = ()
    pooler: str | None = "pooler.dense"
    fields: Mapping[str, str] = field(default_factory=dict)
    default_activation: str = "gelu"
    is_shared: bool = False
    positions_follow_padding: bool = False
    adds_mask: bool = True
    attention_dropout: str = "attention.self.dropout"
    narrow_as: str | None = "albert"
    narrow_text_head_as: str | None = "albert"
    shared_as: str | None = "albert"
    pretraining: PretrainManner | None = None

    def field(self, name: str) -> str:
        """This family's name of a common configuration field such as `num_hidden_layers`."""
        return self.fields.get(name, name)

    def path_of_layer(self, number: int) -> str:
        """The path of a layer (from 0), or of a group's layer, inside the encoder."""
        return f"{self.layers}.{number}" + (f".{self.in_layer}" if self.in_layer else "")

    def first_position(self, pad_id: int | None) -> int:
        """The position of a sequence's first token: so many rows of the table of positions stand unused before it."""
        return (1 if pad_id is None else pad_id) + 1 if self.positions_follow_padding else 0

    @property
    def has_token_types(self) -> bool:
        """Whether the model adds a table of token types, whatever its configuration says."""
        return self.embedding.types is not None

    @property
    def task_heads(self) -> set[str]:
        """The attributes that hold the heads of tasks in a model of the family."""
        names = (self.text_head.first, self.text_head.last, self.token_head, self.answer_head)
        return {name.partition(".")[0] for name in names} - {self.base}

    @property
    def gives_token_types(self) -> bool:
        """Whether its tokenizers give token types."""
        return self.has_token_types and self.style.second_type > 0


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
    return FAMILIES.get(family, _BERT).file_bytes


def shared_group(layer: int, num_layers: int, num_groups: int) -> int:
    """The group of weights that stock ALBERT uses for `layer` (from 0): int(i / (L / G))."""
    return int(layer / (num_layers / num_groups))
