"""The stock model that a factorized or layer-shared encoder becomes: its class, by family and task, and its weights.

    task                               bert, roberta, xlm-roberta, albert    distilbert           electra
    one output for a text              ALBERT                                ELECTRA (1)          ELECTRA
    tokens, answers, vectors, masks    ALBERT                                ALBERT               ALBERT

Layers of all these families compute the same thing under different names; heads do not. ALBERT's head for whole texts
is `tanh` of one product and another product, as BERT's and RoBERTa's are. DistilBERT has ReLU there and ELECTRA GELU,
so they become (or stay) a stock ELECTRA.

(1) ReLU is a limit of ELECTRA's GELU: GELU(c x) / c differs from ReLU(x) by less than 0.17 / c everywhere, and only
where |x| is within a few 1 / c of 0. c = 4096 is a power of two, so no digit of a weight is lost.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bertshrink.errors import CheckFailed, UserError
from bertshrink.files.scratch_folder import scratch_folder
from bertshrink.model.encoder import Encoder
from bertshrink.model.tasks import TASKS

Weights = dict[str, Tensor]
_SEQUENCE = "AutoModelForSequenceClassification"
_STEEP = 4096.0

# A layer's weights as ALBERT names them -> as another family does.
_LAYER = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.dense",
    "attention.LayerNorm",
    "ffn",
    "ffn_output",
    "full_layer_layer_norm",
)
_BERT_LAYER = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
_DISTILBERT_LAYER = (
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
)
_LAYER_NAMES = {"albert": _LAYER, "distilbert": _DISTILBERT_LAYER}

# A head's weights: role -> name. `first` makes the text's vector, `last` the outputs; `norm` and `table` belong to MLM.
_SEQUENCE_HEADS = {
    "bert": {"first": "bert.pooler.dense", "last": "classifier"},
    "roberta": {"first": "classifier.dense", "last": "classifier.out_proj"},
    "electra": {"first": "classifier.dense", "last": "classifier.out_proj"},
    "distilbert": {"first": "pre_classifier", "last": "classifier"},
    "albert": {"first": "albert.pooler", "last": "classifier"},
}
_MASK_HEADS = {
    "bert": {"first": "cls.predictions.transform.dense", "norm": "cls.predictions.transform.LayerNorm"},
    "roberta": {"first": "lm_head.dense", "norm": "lm_head.layer_norm"},
    "distilbert": {"first": "vocab_transform", "norm": "vocab_layer_norm"},
    "electra": {"first": "generator_predictions.dense", "norm": "generator_predictions.LayerNorm"},
    "albert": {"first": "predictions.dense", "norm": "predictions.LayerNorm"},
}
_MASK_BIAS = {
    "bert": "cls.predictions.bias",
    "roberta": "lm_head.bias",
    "distilbert": "vocab_projector.bias",
    "electra": "generator_lm_head.bias",
    "albert": "predictions.bias",
}
_LAYER_PATHS = {
    "albert": "encoder.albert_layer_groups.{}.albert_layers.0.",
    "distilbert": "transformer.layer.{}.",
}


@dataclass(frozen=True)
class EmbeddingWeights:
    """What turns ids into the first hidden states: three tables, LayerNorm, maybe a projection.

    Attributes:
        words_VE: one row per token.
        positions_PE: one row per position, the first position's row first.
        types_TE: one row per token type, at least one.
        weight_E, bias_E: of LayerNorm.
        eps: of LayerNorm.
        projection_HE: to the hidden size, as `nn.Linear` keeps it; None: the tables are as wide as the layers.
        offset_H: the projection's bias; None with it.
    """

    words_VE: Tensor
    positions_PE: Tensor
    types_TE: Tensor
    weight_E: Tensor
    bias_E: Tensor
    eps: float
    projection_HE: Tensor | None = None
    offset_H: Tensor | None = None

    @property
    def width(self) -> int:
        """E."""
        return int(self.words_VE.shape[1])

    def sums(self, ids_N: Tensor, positions_N: Tensor, types_N: Tensor) -> Tensor:
        """(N, E) what LayerNorm is given."""
        return self.words_VE[ids_N] + self.positions_PE[positions_N] + self.types_TE[types_N]

    def normalized(self, sums_NE: Tensor) -> Tensor:
        """(N, E) LayerNorm of sums without its weight and bias."""
        return torch.nn.functional.layer_norm(sums_NE, (self.width,), eps=self.eps)

    def finished(self, normalized_NE: Tensor) -> Tensor:
        """(N, H) the first hidden states."""
        found = normalized_NE * self.weight_E + self.bias_E
        if self.projection_HE is None:
            return found
        return torch.nn.functional.linear(found, self.projection_HE, self.offset_H)


@dataclass(frozen=True)
class EncoderWeights:
    """An encoder taken apart, under ALBERT's names.

    Attributes:
        embedding: of it.
        layers: the weights of each layer; of a layer-shared encoder those of each group.
        pooler: of a base model, where it has one: `weight` and `bias`.
        head: role (`first`, `norm`, `last`) -> `weight` and `bias`; of MLM also `table`, whose `bias` is the decoder's.
    """

    embedding: EmbeddingWeights
    layers: list[Weights]
    pooler: Weights
    head: dict[str, Weights]


def _like_bert(family: str) -> str:
    return "roberta" if family == "xlm-roberta" else family


def _layer_names(family: str) -> tuple[str, tuple[str, ...]]:
    """(path of a layer with a place for its number, the names of its weights in the order of `_LAYER`)."""
    return _LAYER_PATHS.get(family, "encoder.layer.{}."), _LAYER_NAMES.get(family, _BERT_LAYER)


def _head_names(family: str, task: str) -> dict[str, str]:
    """Role -> name of the modules of a head; empty where the task has none."""
    if TASKS[task].auto_class == _SEQUENCE:
        return _SEQUENCE_HEADS[family]
    if task == "mlm":
        return _MASK_HEADS[family]
    names = {"question-answering": "qa_outputs", "token-classification": "classifier"}
    return {"last": names[task]} if task in names else {}


def _module(weights: Weights, name: str) -> Weights:
    return {part: weights[f"{name}.{part}"] for part in ("weight", "bias") if f"{name}.{part}" in weights}


def decompose(encoder: Encoder) -> EncoderWeights:
    """An encoder's weights by role."""
    family, base = _like_bert(encoder.anatomy.family), encoder.anatomy.base
    given = encoder.model.state_dict()
    if TASKS[encoder.task].auto_class == "AutoModel":
        inner = given
    else:
        inner = {name.removeprefix(f"{base}."): tensor for name, tensor in given.items() if name.startswith(f"{base}.")}
    path, names = _layer_names(family)
    layers = [
        {
            f"{ours}.{part}": inner[f"{path.format(i)}{theirs}.{part}"]
            for ours, theirs in zip(_LAYER, names, strict=True)
            for part in ("weight", "bias")
        }
        for i in range(encoder.shape.num_groups)
    ]
    head = {role: _module(given, name) for role, name in _head_names(family, encoder.task).items()}
    if encoder.task == "mlm":
        head["table"] = {"bias": given[_MASK_BIAS[family]]}
    pooler = _module(inner, "pooler" if family == "albert" else "pooler.dense")
    return EncoderWeights(read_embedding(encoder, inner), layers, pooler, head)


def read_embedding(encoder: Encoder, inner: Weights) -> EmbeddingWeights:
    """The embedding of an encoder from the weights of its base model."""
    family, config = _like_bert(encoder.anatomy.family), encoder.model.config
    tables = [inner.get(f"embeddings.{name}_embeddings.weight") for name in ("word", "position", "token_type")]
    words_VE, positions_PE, types_TE = tables
    assert words_VE is not None and positions_PE is not None
    if family == "roberta":
        positions_PE = positions_PE[config.pad_token_id + 1 :]  # it counts from there, ALBERT from 0
    if types_TE is None:
        types_TE = torch.zeros(1, words_VE.shape[1], dtype=words_VE.dtype)
    project = "encoder.embedding_hidden_mapping_in" if family == "albert" else "embeddings_project"
    return EmbeddingWeights(
        words_VE,
        positions_PE,
        types_TE,
        inner["embeddings.LayerNorm.weight"],
        inner["embeddings.LayerNorm.bias"],
        eps=float(getattr(config, "layer_norm_eps", 1e-12)),
        projection_HE=inner.get(f"{project}.weight"),
        offset_H=inner.get(f"{project}.bias"),
    )


def assemble(encoder: Encoder, parts: EncoderWeights, family: str) -> Encoder:
    """A stock model of `family` for the encoder's task, with `parts`, and a tokenizer that fits it.

    Args:
        encoder: what the parts come from: sizes of the layers, labels, tokenizer.
        parts: of it, maybe with another embedding, fewer groups of layers, or another head.
        family: `albert` or `electra`.

    Raises:
        CheckFailed: the weights do not fill the class.
        UserError: as `tokenizer_for`.
    """
    import transformers

    config = _config(encoder, parts, family)
    auto = getattr(transformers, TASKS[encoder.task].auto_class)
    model = auto.from_config(config).to(parts.embedding.words_VE.dtype)
    weights = _named(encoder, parts, family, set(model.state_dict()))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    tied = {name for name in missing if "predictions.decoder" in name or name == "generator_lm_head.weight"}
    if set(missing) - tied or unexpected:
        raise CheckFailed(
            f"the weights do not match a stock {family}: {(sorted(set(missing) - tied) + unexpected)[:3]}"
        )
    model.tie_weights()
    found = replace(encoder, tokenizer=tokenizer_for(encoder, family))
    found.max_length = min(encoder.max_length, config.max_position_embeddings)
    return found.with_model(model)


def _named(encoder: Encoder, parts: EncoderWeights, family: str, wanted: set[str]) -> Weights:
    base = "" if TASKS[encoder.task].auto_class == "AutoModel" else f"{family}."
    given = parts.embedding
    types_TE = given.types_TE if len(given.types_TE) > 1 else given.types_TE.repeat(2, 1)
    found = {
        f"{base}embeddings.word_embeddings.weight": given.words_VE,
        f"{base}embeddings.position_embeddings.weight": given.positions_PE,
        f"{base}embeddings.token_type_embeddings.weight": types_TE,
        f"{base}embeddings.LayerNorm.weight": given.weight_E,
        f"{base}embeddings.LayerNorm.bias": given.bias_E,
    }
    project = "encoder.embedding_hidden_mapping_in" if family == "albert" else "embeddings_project"
    if f"{base}{project}.weight" in wanted:
        width = given.width
        found[f"{base}{project}.weight"] = given.projection_HE if given.projection_HE is not None else torch.eye(width)
        found[f"{base}{project}.bias"] = given.offset_H if given.offset_H is not None else torch.zeros(width)
    path, names = _layer_names(family)
    for i, layer in enumerate(parts.layers):
        for ours, theirs in zip(_LAYER, names, strict=True):
            for part in ("weight", "bias"):
                found[f"{base}{path.format(i)}{theirs}.{part}"] = layer[f"{ours}.{part}"]
    if f"{base}pooler.weight" in wanted and TASKS[encoder.task].auto_class != _SEQUENCE:
        hidden = encoder.shape.hidden_size
        found[f"{base}pooler.weight"] = parts.pooler.get("weight", torch.eye(hidden))
        found[f"{base}pooler.bias"] = parts.pooler.get("bias", torch.zeros(hidden))
    if encoder.task == "mlm":
        found[_MASK_BIAS[family]] = parts.head["table"]["bias"]
    for role, name in _head_names(family, encoder.task).items():
        found |= {f"{name}.{part}": tensor for part, tensor in parts.head[role].items()}
    return found


def steep(head: dict[str, Weights]) -> dict[str, Weights]:
    """DistilBERT's head with GELU in the place of ReLU (see the module's text)."""
    first = {part: _STEEP * tensor for part, tensor in head["first"].items()}
    return {"first": first, "last": head["last"] | {"weight": head["last"]["weight"] / _STEEP}}


def _config(encoder: Encoder, parts: EncoderWeights, family: str) -> Any:
    """The target's configuration: everything that decides an output or a label is carried over by name."""
    import transformers

    given, shape, anatomy = encoder.model.config, encoder.shape, encoder.anatomy
    hidden_act = getattr(given, anatomy.field("hidden_act"))
    hidden_dropout = getattr(given, "dropout" if anatomy.family == "distilbert" else "hidden_dropout_prob")
    attention = "attention_dropout" if anatomy.family == "distilbert" else "attention_probs_dropout_prob"
    values: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "embedding_size": parts.embedding.width,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.intermediate_size,
        "hidden_act": hidden_act,
        "hidden_dropout_prob": hidden_dropout,
        "attention_probs_dropout_prob": getattr(given, attention),
        "max_position_embeddings": len(parts.embedding.positions_PE),
        "type_vocab_size": max(2, len(parts.embedding.types_TE)),
        "initializer_range": given.initializer_range,
        "layer_norm_eps": parts.embedding.eps,
        "pad_token_id": given.pad_token_id,
        "bos_token_id": given.bos_token_id,
        "eos_token_id": given.eos_token_id,
        "problem_type": getattr(given, "problem_type", None),
        "id2label": dict(given.id2label),
        "label2id": dict(given.label2id),
    }
    dropout = _head_dropout(encoder)
    if family == "albert":
        values |= {"num_hidden_groups": len(parts.layers), "inner_group_num": 1, "classifier_dropout_prob": dropout}
        return transformers.AlbertConfig(**values)
    return transformers.ElectraConfig(**values, classifier_dropout=dropout)


def _head_dropout(encoder: Encoder) -> float:
    config = encoder.model.config
    names = {"distilbert": "seq_classif_dropout", "albert": "classifier_dropout_prob"}
    own = getattr(config, names.get(encoder.anatomy.family, "classifier_dropout"), None)
    hidden = getattr(config, "dropout" if encoder.anatomy.family == "distilbert" else "hidden_dropout_prob")
    if encoder.anatomy.family == "distilbert" and TASKS[encoder.task].auto_class != _SEQUENCE:
        own = None
    return float(hidden if own is None else own)


def tokenizer_for(encoder: Encoder, family: str) -> Any:
    """The tokenizer with its class written down, and padding where the target counts positions right.

    Raises:
        UserError: it pads on the left, and the source counts positions from the first token that is not padding.
    """
    tokenizer = copy.deepcopy(encoder.tokenizer)
    if _like_bert(encoder.anatomy.family) == "roberta" and tokenizer.padding_side == "left":
        raise UserError(
            f"the tokenizer pads on the left, and a stock {family} counts padding among the positions",
            where=encoder.source,
            hint="save it with `padding_side='right'` if the model was trained so",
        )
    tokenizer.padding_side = "right"
    return tokenizer


def prove_tokenizer(encoder: Encoder, found: Encoder, texts: Sequence[str]) -> None:
    """Prove that the tokenizer, read again from beside the new class, gives the old ids.

    Raises:
        CheckFailed: it does not.
    """
    some = [*texts, "A converted model's tokenizer, read again: does it agree? (2 + 2 = 4) Größe, naïve, 東京"]
    with scratch_folder() as folder:
        found.save(folder)
        again = Encoder.load(folder, encoder.task)
    mine, theirs = (one.tokenize(some) for one in (again, encoder))
    if [row["input_ids"] for row in mine] != [row["input_ids"] for row in theirs]:
        raise CheckFailed(
            f"after conversion to {type(found.model).__name__} the tokenizer produces different token ids",
            hint="save it as `tokenizer.json` (`PreTrainedTokenizerFast`), which no class changes",
        )
