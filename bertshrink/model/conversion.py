"""The stock model that a factorized or layer-shared encoder becomes: its class, by family and task, and its weights.

    task                               bert, roberta and kin, albert         distilbert           electra
    one output for a text              ALBERT                                ELECTRA (1)          ELECTRA
    tokens, answers, vectors, masks    ALBERT                                ALBERT               ALBERT

Other families stay what they are, where their class has narrow tables: DeBERTa.

Layers of all these families compute the same thing under different names; heads do not. ALBERT's head for whole texts
is `tanh` of one product and another product, as BERT's and RoBERTa's are. DistilBERT has ReLU there and ELECTRA GELU,
so they become (or stay) a stock ELECTRA.

(1) ReLU is a limit of ELECTRA's GELU: GELU(c x) / c differs from ReLU(x) by less than 0.17 / c everywhere, and only
where |x| is within a few 1 / c of 0. c = 4096 is a power of two, so no digit of a weight is lost.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bertshrink.errors import CheckFailed, UserError
from bertshrink.files.scratch_folder import scratch_folder
from bertshrink.model.encoder import Encoder
from bertshrink.model.families import anatomy_of
from bertshrink.model.family import ModelFamily
from bertshrink.model.folder.sentence_modules import OF_SCORES
from bertshrink.model.tasks import TASKS

Weights = dict[str, Tensor]
_STEEP = 4096.0


@dataclass(frozen=True)
class EmbeddingWeights:
    """What turns ids into the first hidden states: three tables, LayerNorm, maybe a projection behind or before it.

    M, the width of LayerNorm, is E; where the projection is before LayerNorm, it is H.

    Attributes:
        words_VE: one row per token.
        positions_PE: one row per position, the first position's row first.
        types_TE: one row per token type, at least one.
        weight_M, bias_M: of LayerNorm.
        eps: of LayerNorm.
        projection_HE: to the hidden size, as `nn.Linear` keeps it; None: the tables are as wide as the layers.
        offset_H: the projection's bias; None: it has none.
        projects_first: whether a projection is before LayerNorm, and has no bias.
    """

    words_VE: Tensor
    positions_PE: Tensor
    types_TE: Tensor
    weight_M: Tensor
    bias_M: Tensor
    eps: float
    projection_HE: Tensor | None = None
    offset_H: Tensor | None = None
    projects_first: bool = False

    @property
    def width(self) -> int:
        """E."""
        return int(self.words_VE.shape[1])

    @property
    def norm_width(self) -> int:
        """M."""
        return len(self.weight_M)

    def num_directions(self, rank: int) -> int:
        """In how many directions of M tables `rank` wide differ: LayerNorm takes one away from those it is given."""
        return rank if self.projects_first else rank - 1

    def sums(self, ids_N: Tensor, positions_N: Tensor, types_N: Tensor) -> Tensor:
        """(N, M) what LayerNorm is given."""
        sums_NE = self.words_VE[ids_N] + self.positions_PE[positions_N] + self.types_TE[types_N]
        return self._project(sums_NE) if self.projects_first else sums_NE

    def normalized(self, sums_NM: Tensor) -> Tensor:
        """(N, M) LayerNorm of sums without its weight and bias."""
        return torch.nn.functional.layer_norm(sums_NM, (self.norm_width,), eps=self.eps)

    def finished(self, normalized_NM: Tensor) -> Tensor:
        """(N, H) the first hidden states."""
        scaled = normalized_NM * self.weight_M + self.bias_M
        return scaled if self.projects_first else self._project(scaled)

    def _project(self, given_NE: Tensor) -> Tensor:
        if self.projection_HE is None:
            return given_NE
        return torch.nn.functional.linear(given_NE, self.projection_HE, self.offset_H)


@dataclass(frozen=True)
class EncoderWeights:
    """An encoder taken apart.

    Attributes:
        embedding: of it.
        layers: the weights of each layer; of a layer-shared encoder those of each group. Named by role, as in
            `LayerNames`: `query.weight`.
        pooler: of a base model, where it has one: `weight` and `bias`.
        head: role (`first`, `norm`, `last`) -> `weight` and `bias`; of MLM also `table`, whose `bias` is the decoder's.
    """

    embedding: EmbeddingWeights
    layers: list[Weights]
    pooler: Weights
    head: dict[str, Weights]


def _head_names(row: ModelFamily, task: str) -> dict[str, str]:
    """Role -> name of the modules of a head; empty where the task has none."""
    names: dict[str, str | None] = {}
    match TASKS[task].auto_class:
        case "AutoModelForSequenceClassification":
            names = {"first": row.text_head.first, "last": row.text_head.last}
        case "AutoModelForMaskedLM":
            names = {"first": row.masked_head.first, "norm": row.masked_head.norm}
        case "AutoModelForTokenClassification":
            names = {"last": row.token_head}
        case "AutoModelForQuestionAnswering":
            names = {"last": row.answer_head}
    return {role: name for role, name in names.items() if name is not None}


def _module(weights: Weights, name: str | None) -> Weights:
    return {part: weights[f"{name}.{part}"] for part in ("weight", "bias") if f"{name}.{part}" in weights}


def _layer_names(row: ModelFamily) -> dict[str, str]:
    """A layer's weights by role, `query.weight`, and as the family names them."""
    assert row.layer is not None, "a family that is converted names its layers' modules"
    roles = {roles[0]: path for path, roles in row.layer.modules().items()}
    return {f"{role}.{part}": f"{path}.{part}" for role, path in roles.items() for part in ("weight", "bias")}


def layer_by_role(row: ModelFamily, weights: Weights, path: str = "") -> Weights:
    """A layer's weights by role, from those of whatever holds the layer at `path`, which ends in a dot."""
    return {role: weights[path + name] for role, name in _layer_names(row).items()}


def decompose(encoder: Encoder) -> EncoderWeights:
    """An encoder's weights by role."""
    row, prefix, given = encoder.anatomy, encoder.prefix, encoder.model.state_dict()
    inner = {name.removeprefix(prefix): tensor for name, tensor in given.items() if name.startswith(prefix)}
    layers = [layer_by_role(row, inner, f"{row.path_of_layer(i)}.") for i in range(encoder.shape.num_groups)]
    head = {role: _module(given, name) for role, name in _head_names(row, encoder.task).items()}
    if TASKS[encoder.task].has_masked_head:
        head["table"] = {"bias": given[str(row.masked_head.bias)]}
    return EncoderWeights(read_embedding(encoder, inner), layers, _module(inner, row.pooler), head)


def read_embedding(encoder: Encoder, inner: Weights) -> EmbeddingWeights:
    """The embedding of an encoder from the weights of its base model."""
    row, config = encoder.anatomy, encoder.model.config
    names = row.embedding
    words_VE = inner[f"{names.words}.weight"]
    types_TE = inner.get(f"{names.types}.weight")
    if types_TE is None:  # tokenizers may give types all the same
        types_TE = torch.zeros(2, words_VE.shape[1], dtype=words_VE.dtype)
    positions_PE = inner.get(f"{names.positions}.weight")
    if positions_PE is None:
        positions_PE = types_TE.new_zeros(1, words_VE.shape[1]).expand(encoder.shape.max_positions, -1)
    if (constant := inner.get(f"{names.constant}.weight")) is not None:
        types_TE = types_TE + constant[0]
    return EmbeddingWeights(
        words_VE,
        positions_PE[row.first_position(config.pad_token_id) :],
        types_TE,
        inner[f"{names.norm}.weight"],
        inner[f"{names.norm}.bias"],
        eps=float(getattr(config, "layer_norm_eps", 1e-12)),
        projection_HE=inner.get(f"{names.projection}.weight"),
        offset_H=inner.get(f"{names.projection}.bias"),
        projects_first=names.projects_before_norm,
    )


def assemble(encoder: Encoder, parts: EncoderWeights, family: str) -> Encoder:
    """A stock model of `family` for the encoder's task, with `parts`, and a tokenizer that fits it.

    Args:
        encoder: what the parts come from: sizes of the layers, labels, tokenizer.
        parts: of it, maybe with another embedding, fewer groups of layers, or another head.
        family: one that has narrow tables; of the encoder's own one all that `parts` do not name stays as it is.

    Raises:
        CheckFailed: the weights do not fill the class.
        UserError: as `tokenizer_for`.
    """
    import transformers

    row = anatomy_of(family)
    is_own = row is encoder.anatomy
    config = _resized(encoder, parts) if is_own else _config(encoder, parts, row)
    auto = getattr(transformers, TASKS[encoder.task].auto_class)
    model = auto.from_config(config).to(parts.embedding.words_VE.dtype)
    assembled = encoder.with_model(model)
    weights = _named(assembled, parts)
    decoder = f"{row.masked_head.decoder}."
    if is_own:  # fewer groups of layers are all that it may have no place for
        there = set(model.state_dict())
        kept = encoder.model.state_dict().items()
        weights = {name: one for name, one in kept if name in there and not name.startswith(decoder)} | weights
    else:
        assembled.tokenizer = tokenizer_for(encoder, family)
        assembled.max_length = min(encoder.max_length, config.max_position_embeddings)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    lacking = sorted(name for name in missing if not name.startswith(decoder))
    if lacking or unexpected:
        raise CheckFailed(f"the weights do not match a stock {family}: {(lacking + unexpected)[:3]}")
    model.tie_weights()
    return assembled


def _named(assembled: Encoder, parts: EncoderWeights) -> Weights:
    """The weights of `parts` by their names in the model that is to have them."""
    row, base, wanted = assembled.anatomy, assembled.prefix, assembled.model.state_dict()
    given, names = parts.embedding, row.embedding
    weights = {
        f"{base}{names.words}.weight": given.words_VE,
        f"{base}{names.norm}.weight": given.weight_M,
        f"{base}{names.norm}.bias": given.bias_M,
    }
    if (positions := f"{base}{names.positions}.weight") in wanted:
        weights[positions] = given.positions_PE
    if (types := f"{base}{names.types}.weight") in wanted:
        weights[types] = given.types_TE.expand(len(wanted[types]), -1)
    project = f"{base}{names.projection}"
    if f"{project}.weight" in wanted:
        width = given.width
        weights[f"{project}.weight"] = given.projection_HE if given.projection_HE is not None else torch.eye(width)
    if f"{project}.bias" in wanted:
        weights[f"{project}.bias"] = given.offset_H if given.offset_H is not None else torch.zeros(given.width)
    for i, layer in enumerate(parts.layers):
        for role, name in _layer_names(row).items():
            weights[f"{base}{row.path_of_layer(i)}.{name}"] = layer[role]
    pooler, heads = f"{base}{row.pooler}", _head_names(row, assembled.task)
    if f"{pooler}.weight" in wanted and pooler not in heads.values():
        hidden = assembled.shape.hidden_size
        weights[f"{pooler}.weight"] = parts.pooler.get("weight", torch.eye(hidden))
        weights[f"{pooler}.bias"] = parts.pooler.get("bias", torch.zeros(hidden))
    if TASKS[assembled.task].has_masked_head:
        weights[str(row.masked_head.bias)] = parts.head["table"]["bias"]
    for role, name in heads.items():
        weights |= {f"{name}.{part}": tensor for part, tensor in parts.head[role].items()}
    return weights


def steep(head: dict[str, Weights]) -> dict[str, Weights]:
    """A head for whole texts with GELU in the place of ReLU (see the module's text)."""
    first = {part: _STEEP * tensor for part, tensor in head["first"].items()}
    return {"first": first, "last": head["last"] | {"weight": head["last"]["weight"] / _STEEP}}


def _resized(encoder: Encoder, parts: EncoderWeights) -> Any:
    """The encoder's own configuration with the sizes of `parts`."""
    row, config = encoder.anatomy, copy.deepcopy(encoder.model.config)
    setattr(config, row.field("embedding_size"), parts.embedding.width)
    if row.is_shared:
        config.num_hidden_groups = len(parts.layers)
    return config


def _config(encoder: Encoder, parts: EncoderWeights, row: ModelFamily) -> Any:
    """The target's configuration: everything that decides an output or a label is carried over by name."""
    import transformers

    given, shape, anatomy = encoder.model.config, encoder.shape, encoder.anatomy
    values: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "embedding_size": parts.embedding.width,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.intermediate_size,
        "hidden_act": getattr(given, anatomy.field("hidden_act")),
        "hidden_dropout_prob": getattr(given, anatomy.field("hidden_dropout_prob")),
        "attention_probs_dropout_prob": getattr(given, anatomy.field("attention_probs_dropout_prob")),
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
        row.text_head.dropout: _head_dropout(encoder),
    }
    values |= {key: getattr(given, key) for key in OF_SCORES if hasattr(given, key)}
    if row.is_shared:
        values |= {"num_hidden_groups": len(parts.layers), "inner_group_num": 1}
    return transformers.AutoConfig.for_model(row.family, **values)


def _head_dropout(encoder: Encoder) -> float:
    config, row = encoder.model.config, encoder.anatomy
    name = row.text_head.dropout if TASKS[encoder.task].has_text_head else row.token_dropout
    own = getattr(config, name or "", None)
    return float(getattr(config, row.field("hidden_dropout_prob")) if own is None else own)


def tokenizer_for(encoder: Encoder, family: str) -> Any:
    """The tokenizer with its class written down, and padding where the target counts positions right.

    Raises:
        UserError: it pads on the left, and the source counts positions from the first token that is not padding.
    """
    tokenizer = copy.deepcopy(encoder.tokenizer)
    if encoder.anatomy.positions_follow_padding and tokenizer.padding_side == "left":
        raise UserError(
            f"the tokenizer pads on the left, and a stock {family} counts padding among the positions",
            where=encoder.source,
            hint="save it with `padding_side='right'` if the model was trained so",
        )
    tokenizer.padding_side = "right"
    return tokenizer


def prove_tokenizer(encoder: Encoder, converted: Encoder, texts: Sequence[str]) -> None:
    """Prove that the tokenizer, read again from beside the new class, gives the old ids.

    Raises:
        CheckFailed: it does not.
    """
    some = [*texts, "A converted model's tokenizer, read again: does it agree? (2 + 2 = 4) Größe, naïve, 東京"]
    with scratch_folder() as folder:
        converted.save(folder)
        again = Encoder.load(folder, encoder.task)
    mine, theirs = (one.tokenize(some) for one in (again, encoder))
    if [row["input_ids"] for row in mine] != [row["input_ids"] for row in theirs]:
        raise CheckFailed(
            f"after conversion to {type(converted.model).__name__} the tokenizer produces different token ids",
            hint="save it as `tokenizer.json` (`PreTrainedTokenizerFast`), which no class changes",
        )
