"""How many numbers a stock encoder holds, from its sizes alone: what a conversion buys is told before it runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bertshrink.errors import UserError
from bertshrink.model.checkpoint_info import CheckpointInfo, own_limit
from bertshrink.model.families import FAMILIES
from bertshrink.model.family import Config, Further, ModelFamily
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder

BYTES = 4
"""Of a parameter: encoders are stored in float32."""


def target_family(family: str, task: str) -> str:
    """The family of the stock model that an encoder with narrow tables becomes (see `conversion`).

    Raises:
        UserError: there is none.
    """
    row = FAMILIES[family]
    target = row.narrow_text_head_as if TASKS[task].has_text_head else row.narrow_as
    return _there_is(target, row, "narrow embedding tables")


def sharing_family(family: str) -> str:
    """The family of the stock model that an encoder becomes whose layers share weights.

    Raises:
        UserError: there is none.
    """
    return _there_is(FAMILIES[family].shared_as, FAMILIES[family], "layers that share weights")


def _there_is(target: str | None, row: ModelFamily, part: str) -> str:
    if target is None:
        raise UserError(
            f"no stock class has {part} and computes what {row.title} does",
            hint="fewer layers (`distill`) or 8-bit weights (`quantize`) make it smaller",
        )
    return target


def converted(facts: CheckpointInfo, family: str, **sizes: int) -> CheckpointInfo:
    """The facts of an encoder after its conversion to a family, maybe its own, as `conversion.assemble` makes it.

    Raises:
        UserError: its head on masked tokens is not tied to the table of words.
    """
    if is_untied(facts):
        raise UserError(
            "the head on masked tokens has a table of its own (`tie_word_embeddings: false`), and is not converted to "
            "narrow tables or shared layers",
            hint="fewer layers (`distill`) or 8-bit weights (`quantize`) make it smaller",
        )
    if FAMILIES[family] is facts.anatomy:
        return replace(facts, shape=replace(facts.shape, **sizes))
    types = max(2, num_types(facts))
    shape = replace(facts.shape, max_positions=own_limit(facts.shape, facts.config), **sizes)
    config = facts.config | {"model_type": family, "type_vocab_size": types}
    return replace(facts, anatomy=FAMILIES[family], shape=shape, config=config)


def is_untied(facts: CheckpointInfo) -> bool:
    """Whether the head on masked tokens has a table of its own."""
    ties = facts.config.get("tie_word_embeddings", facts.anatomy.ties_words)
    return TASKS[facts.task].has_masked_head and ties is False


def num_types(facts: CheckpointInfo) -> int:
    """Rows of the table of token types; 0 where the family has none."""
    return int(facts.config.get("type_vocab_size", 2)) if facts.anatomy.has_token_types else 0


@dataclass(frozen=True)
class Stored:
    """Tensors of a stock encoder that are alike.

    Attributes:
        role: `dense`: multiplied with; `table`: looked up by rows; `other`: norms and biases.
        shape: (inputs, outputs) of a dense layer, (rows, width) of a table, (numbers, 1) of the rest.
        number: how many.
        uses: how many operations multiply with each.
        is_head: whether it is behind the layers.
        is_tied: of a table: whether the head multiplies with it, too.
        is_exported: whether an exported file stores it as it is: not the base model's own last layer, nor what it
            computes once.
    """

    role: Literal["table", "dense", "other"]
    shape: tuple[int, int]
    number: int = 1
    uses: float = 1.0
    is_head: bool = False
    is_tied: bool = False
    is_exported: bool = True


def stored(facts: CheckpointInfo) -> list[Stored]:
    """What the stock model that the facts describe stores, its head included; a tied table once."""
    shape, row, config = facts.shape, facts.anatomy, _config(facts)
    is_tied = TASKS[facts.task].has_masked_head and not is_untied(facts)
    words = Stored("table", (shape.vocab_size, shape.embedding_size), is_tied=is_tied)
    front = _front(facts) if row.front is None else _as_stored(row.front(config))
    return [words, *front, *_layers(facts), *_as_stored(row.further(config)), *_head(facts), *_behind_pooling(facts)]


def folded(facts: CheckpointInfo) -> list[Stored]:
    """What an exported file stores of what it computes once."""
    return _as_stored(facts.anatomy.folded(_config(facts)))


def _config(facts: CheckpointInfo) -> Config:
    """The configuration with the sizes that the facts tell."""
    shape, field = facts.shape, facts.anatomy.field
    sizes = {
        "num_hidden_layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.intermediate_size,
        "embedding_size": shape.embedding_size,
        "max_position_embeddings": shape.max_positions,
        "type_vocab_size": num_types(facts),
    }
    return {**facts.config, **{field(name): size for name, size in sizes.items()}}


def _as_stored(tensors: Iterable[Further]) -> list[Stored]:
    return [Stored(one.role, one.shape, one.number, is_exported=one.is_exported) for one in tensors]


def _front(facts: CheckpointInfo) -> list[Stored]:
    """Positions, token types, the norm and the projection, as the names of the embedding tell."""
    shape, row = facts.shape, facts.anatomy
    names, width, hidden = row.embedding, shape.embedding_size, shape.hidden_size
    tensors = [Stored("table", (shape.max_positions, width))] if row.has_positions(facts.config) else []
    tensors += [Stored("table", (num_types(facts), width))] if num_types(facts) else []
    has_projection = names.projection is not None and (names.always_projects or width != hidden)
    if names.norm is not None:
        tensors += [Stored("other", (hidden if names.projects_before_norm else width, 1), _norm(facts))]
    return tensors + (_dense(facts, "projection", width, hidden) if has_projection else [])


def _norm(facts: CheckpointInfo) -> int:
    """How many vectors a norm has."""
    return 1 + facts.anatomy.has_bias("norm", facts.config)


def _dense(facts: CheckpointInfo, role: str, inputs: int, outputs: int) -> list[Stored]:
    bias = [Stored("other", (outputs, 1))] if facts.anatomy.has_bias(role, facts.config) else []
    return [Stored("dense", (inputs, outputs)), *bias]


def _layers(facts: CheckpointInfo) -> list[Stored]:
    shape, row = facts.shape, facts.anatomy
    hidden, inner, groups = shape.hidden_size, shape.intermediate_size, shape.num_groups
    uses = shape.num_layers / groups
    sizes = {
        "query": (hidden, shape.attention_size),
        "key": (hidden, shape.key_value_size),
        "value": (hidden, shape.key_value_size),
        "mix": (shape.attention_size, hidden),
        "widen": (hidden, inner),
        "gate": (hidden, inner),
        "narrow": (inner, hidden),
    }
    tensors = []
    for roles in row.layer.modules().values() if row.layer is not None else ():
        if roles[0] not in sizes:
            missing = 0 if row.first_layer_norms or roles[0] != "attention_norm" else 1
            tensors.append(Stored("other", (hidden, 1), _norm(facts) * (groups - missing)))
            continue
        one = _dense(facts, roles[0], sizes[roles[0]][0], sum(sizes[role][1] for role in roles))
        tensors += [replace(part, number=groups, uses=uses if part.role == "dense" else 1.0) for part in one]
    return _merged(tensors)


def _merged(tensors: list[Stored]) -> list[Stored]:
    """Those that are alike as one entry."""
    numbers: Counter[Stored] = Counter()
    for one in tensors:
        numbers[replace(one, number=0)] += one.number
    return [replace(one, number=number) for one, number in numbers.items()]


def _head(facts: CheckpointInfo) -> list[Stored]:
    shape, row = facts.shape, facts.anatomy
    width, hidden, num_labels = shape.embedding_size, shape.hidden_size, max(1, len(facts.labels))

    def layer(inputs: int, outputs: int, role: str = "", *, is_exported: bool = True) -> list[Stored]:
        return [replace(one, is_head=True, is_exported=is_exported) for one in _dense(facts, role, inputs, outputs)]

    kind, switch = TASKS[facts.task].auto_class, row.text_head.switch
    has_first = switch is None or bool(facts.config.get(switch, True))
    pooler = layer(hidden, hidden, is_exported=False)
    unread = pooler if row.always_pools and not TASKS[facts.task].has_text_head else []
    first: list[Stored] = []
    if row.first_of_heads is not None and kind != "AutoModel":
        first = [*layer(hidden, hidden, "head"), Stored("other", (hidden, 1), _norm(facts), is_head=True)]
    match kind:
        case "AutoModelForMaskedLM":
            names = row.masked_head
            inner = width if row.embedding.projection is not None else hidden
            inner = inner if names.width is None else int(facts.config[names.width])
            if not first and row.masked_head.first is not None:
                first = [*layer(hidden, inner), Stored("other", (inner, 1), 2, is_head=True)]
            outer = inner if names.beside is None else width
            bias, decoder = names.bias, Stored("dense", (outer, shape.vocab_size), is_head=True)
            num_biases = (
                0 if bias is None else 2 if is_untied(facts) and bias != f"{row.masked_head.decoder}.bias" else 1
            )
            biases = [Stored("other", (shape.vocab_size, 1), num_biases, is_head=True)] if num_biases else []
            first += [] if names.beside is None else [replace(decoder, shape=(inner - width, shape.vocab_size))]
            return unread + first + biases + ([decoder] if is_untied(facts) else [])
        case "AutoModelForTokenClassification":
            return unread + first + layer(hidden, num_labels)
        case "AutoModelForQuestionAnswering":
            return unread + first + layer(hidden, 2)
        case "AutoModel":
            return pooler if row.pooler is not None and has_first else []
    return (first or (layer(hidden, hidden) if has_first else [])) + layer(hidden, num_labels)


def _behind_pooling(facts: CheckpointInfo) -> list[Stored]:
    """A sentence encoder's own layers, whose weights are beside the model's."""
    tensors = []
    for layer in facts.pooling.layers if facts.pooling is not None else ():
        if layer.kind == "norm":
            tensors.append(Stored("other", (layer.inputs, 1), 2, is_head=True))
        elif layer.kind == "dense":
            is_projected = layer.residual and layer.inputs != layer.outputs
            tensors.append(Stored("dense", (layer.inputs, layer.outputs), 2 if is_projected else 1, is_head=True))
            tensors += [Stored("other", (layer.outputs, 1), is_head=True)] if layer.bias else []
    return tensors


def num_parameters(facts: CheckpointInfo) -> int:
    """Parameters of the stock model that the facts describe, its head included."""
    return sum(one.number * math.prod(one.shape) for one in stored(facts))


def facts_of(encoder: Encoder) -> CheckpointInfo:
    """What a folder would say of an encoder that is in memory."""
    config = encoder.model.config.to_dict()
    return CheckpointInfo(Path(), encoder.anatomy, encoder.shape, config, encoder.task, encoder.labels, encoder.pooling)
