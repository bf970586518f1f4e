"""What the table of families says of each: where embeddings, attention, feed-forward and heads are, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Activation = Literal["tanh", "relu", "gelu"]


@dataclass(frozen=True)
class EmbeddingNames:
    """Modules that turn ids into the first hidden states, as paths inside the encoder; None: the family has none.

    Attributes:
        words, positions, types: the tables.
        norm: the LayerNorm behind their sum.
        projection: from the tables' width to the layers'.
        always_projects: whether the projection is there even where both widths are one.
        projects_before_norm: whether the norm is behind the projection, and as wide as the layers.
        constant: a table whose first row is added to every token, where the configuration asks for it.
    """

    words: str = "embeddings.word_embeddings"
    positions: str | None = "embeddings.position_embeddings"
    types: str | None = "embeddings.token_type_embeddings"
    norm: str | None = "embeddings.LayerNorm"
    projection: str | None = None
    always_projects: bool = False
    projects_before_norm: bool = False
    constant: str | None = None


@dataclass(frozen=True)
class LayerNames:
    """Modules of one layer, as paths inside the layer, in the order of computation.

    Roles with one name share a module: its rows are theirs, one role after another in the order of this class.

    Attributes:
        query, key, value, mix: of attention; `mix` is behind it.
        attention_norm: LayerNorm of attention; before it or behind it, as the class has it.
        widen, gate, narrow: of the feed-forward; None: it has no gate.
        norm: LayerNorm of the feed-forward.
    """

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    mix: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    widen: str = "intermediate.dense"
    narrow: str = "output.dense"
    norm: str = "output.LayerNorm"
    gate: str | None = None

    def modules(self) -> dict[str, list[str]]:
        """Each module's path -> the roles whose rows it holds, in their order."""
        roles = ("query", "key", "value", "mix", "attention_norm", "widen", "gate", "narrow", "norm")
        modules: dict[str, list[str]] = {}
        for role in roles:
            if (path := getattr(self, role)) is not None:
                modules.setdefault(path, []).append(role)
        return modules


@dataclass(frozen=True)
class TextHead:
    """The head of the tasks with one output for a text: last(activation(first(state of the first token))).

    What a head does besides (a norm, the mean of all tokens) is its class's matter; such a family becomes no other one.

    Attributes:
        first, last: paths of the modules.
        activation: between them.
        dropout: the configuration's name for the dropout before `last`; where that is None, the layers' own counts.
        switch: the configuration's key that takes `first` away where it is false; None: it is always there.
    """

    first: str = "classifier.dense"
    last: str = "classifier.out_proj"
    activation: Activation = "tanh"
    dropout: str = "classifier_dropout"
    switch: str | None = None


@dataclass(frozen=True)
class MaskedHead:
    """The head on masked tokens: a dense layer, LayerNorm, and the table of words once more.

    Attributes:
        first, norm: paths of the modules; None: the head has none.
        decoder: path of the module that is tied to the table, where the configuration does not untie them.
        bias: name of the decoder's bias; None: it has none.
        steps: paths of the modules that make logits of states, one after another.
        beside: path of a second table, (width, V), whose columns go on where the decoder's rows end.
        width: the configuration's name for the width of `first`'s outputs; None: that of the tables where they have a
            projection, else that of the layers.
        switch: the configuration's key that gives the class another head where it is false; None: there is no other.
    """

    first: str | None
    norm: str | None
    decoder: str
    bias: str | None
    steps: tuple[str, ...]
    beside: str | None = None
    width: str | None = None
    switch: str | None = None


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


def each_use(dynamic: int, static: int, block: int) -> dict[str, tuple[int, int]]:
    """Bytes of the operations around an integer weight beyond what they take in BERT, each time it is used."""
    kinds = {"int8-dynamic": dynamic, "int8-static": static, "int8-block": block, "int4-block": block}
    return {kind: (number, 0) for kind, number in kinds.items()}


@dataclass(frozen=True)
class Further:
    """Tensors that a family's encoder stores besides those that its names tell of.

    Attributes:
        role: `dense`: multiplied with; `table`: looked up by rows; `other`: norms, biases, convolutions.
        shape: (inputs, outputs) of a dense layer, (rows, width) of a table, (numbers, 1) of the rest.
        number: how many.
        is_exported: whether an exported file stores it as it is.
    """

    role: Literal["table", "dense", "other"]
    shape: tuple[int, int]
    number: int = 1
    is_exported: bool = True


Config = Mapping[str, Any]

_PART_OF = {
    **dict.fromkeys(("query", "key", "value", "mix"), "attention"),
    **dict.fromkeys(("widen", "gate", "narrow"), "feed-forward"),
    "attention_norm": "norm",
}


def part_of(role: str) -> str:
    """The part of a layer that a role of `LayerNames` belongs to: `attention`, `feed-forward` or `norm`."""
    return _PART_OF.get(role, role)


@dataclass(frozen=True, eq=False)
class ModelFamily:
    """One family of encoders.

    Attributes:
        family: `model_type` in config.json.
        title: its name in texts.
        base: the attribute that holds the encoder in a model with a head.
        layers: path of the list of layers (or groups of layers) inside the encoder.
        in_layer: path from an entry of that list to the layer.
        embedding, layer: names of the encoder's modules; a layer None: it is made of others, and its width stays.
        text_head, masked_head: names of the heads' modules.
        token_head, answer_head: names of the last dense layer for a tag of each token, and for answers' ends; None: no
            stock class finds answers.
        first_of_heads: path of a dense layer with a LayerNorm in front of the last layer of every head, the masked
            one's too; None: heads have none in common.
        token_dropout: the configuration's name for the dropout before `token_head`; None: the layers' own counts.
        unread_heads: paths of the heads that published checkpoints hold and no task of the table reads.
        pooler: path of the base model's own last layer inside the encoder; None: it has none.
        always_pools: whether models with heads that do not read it have it, too.
        parts: (component, pattern of parameter names) in the order they are tried; what matches none is the head.
        style: what its tokenizers write around texts.
        file_bytes: what its names take in files.
        fields: this family's names for the common configuration fields.
        default_activation: of the layers, where the configuration names none.
        is_shared: whether layers share weights in groups.
        adds_positions: the configuration's switch of the table of positions; None: what `embedding` names is there.
        positions_follow_padding: whether the first token's position is the padding's id + 1; else it is 0.
        mask: what its base model can be given in the place of the mask of tokens (B, L): `added`: a float mask
            (B, 1, 1, L) that attention adds to the scores; `windows`: two of them by the kind of layer, all tokens and
            those within a window; `tokens`: nothing else.
        attention: how scores are made: `standard`: query times key; `rotary`: of turned queries and keys;
            `distance-bias`: with a number of each head for each distance; `disentangled`: with products of queries and
            keys with what is learnt of each distance.
        is_fused: whether a layer's attention, as it is traced, can be written as one operator of ONNX Runtime.
        scores: products of each token with L vectors in a layer's attention, by its configuration.
        attention_dropout: how the path of the dropout of attention's weights ends: a module, or a number of a module.
        biases: part of the model -> whether its dense layers or norms have a bias, or the key of config.json that says
            so. Parts are the roles of a layer, `attention` and `feed-forward` for all of theirs, `norm` for every norm,
            `projection`, `head`, `decoder`; what is left out has one.
        first_layer_norms: whether the first layer has a norm before attention.
        kinds_of_layers: the configuration's list with one entry for each layer; None: all layers are of one kind.
        keeps_first_layer: whether only the first layer can be the first.
        ties_words: whether the masked head multiplies with the table of words where config.json says nothing.
        front: what is in front of its layers besides the table of words, by its configuration; None: what `embedding`
            names.
        further: what it stores besides, by its configuration.
        folded: what an exported file stores of what it computes once, by its configuration.
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
    layer: LayerNames | None = LayerNames()
    text_head: TextHead = TextHead()
    token_head: str = "classifier"
    answer_head: str | None = "qa_outputs"
    first_of_heads: str | None = None
    token_dropout: str | None = "classifier_dropout"
    unread_heads: tuple[str, ...] = ()
    pooler: str | None = "pooler.dense"
    always_pools: bool = False
    fields: Mapping[str, str] = field(default_factory=dict)
    default_activation: str = "gelu"
    is_shared: bool = False
    adds_positions: str | None = None
    positions_follow_padding: bool = False
    mask: Literal["added", "windows", "tokens"] = "added"
    attention: Literal["standard", "rotary", "distance-bias", "disentangled"] = "standard"
    is_fused: bool = True
    scores: Callable[[Config], int] = lambda config: 2
    attention_dropout: str = "attention.self.dropout"
    biases: Mapping[str, bool | str] = field(default_factory=dict)
    first_layer_norms: bool = True
    kinds_of_layers: str | None = None
    keeps_first_layer: bool = False
    ties_words: bool = True
    front: Callable[[Config], Iterable[Further]] | None = None
    further: Callable[[Config], Iterable[Further]] = lambda config: ()
    folded: Callable[[Config], Iterable[Further]] = lambda config: ()
    narrow_as: str | None = None
    narrow_text_head_as: str | None = None
    shared_as: str | None = None
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

    def has_positions(self, config: Config) -> bool:
        """Whether the model adds a table of positions."""
        is_on = self.adds_positions is None or bool(config.get(self.adds_positions, True))
        return self.embedding.positions is not None and is_on

    @property
    def has_token_types(self) -> bool:
        """Whether the model adds a table of token types, whatever its configuration says."""
        return self.embedding.types is not None

    @property
    def task_heads(self) -> set[str]:
        """The attributes that hold the heads of tasks in a model of the family."""
        names = (self.text_head.first, self.text_head.last, self.token_head, self.answer_head, self.first_of_heads)
        return {name.partition(".")[0] for name in names if name is not None} - {self.base}

    def has_bias(self, role: str, config: Config) -> bool:
        """Whether a dense layer or norm has a bias; `role` is one of a layer's, or a part as in `biases`."""
        said = self.biases.get(role, self.biases.get(part_of(role), True))
        return bool(config.get(said, False)) if isinstance(said, str) else said

    @property
    def gives_token_types(self) -> bool:
        """Whether its tokenizers give token types."""
        return self.has_token_types and self.style.second_type > 0
