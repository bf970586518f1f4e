"""How many numbers a stock encoder holds, from its sizes alone: what a conversion buys is told before it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bertshrink.errors import UserError
from bertshrink.model.checkpoint_info import CheckpointInfo, own_limit
from bertshrink.model.families import FAMILIES, ModelFamily
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
    """The facts of an encoder after its conversion to another family, as `parts.put_together` makes it.

    Raises:
        UserError: its head on masked tokens is not tied to the table of words.
    """
    if is_untied(facts):
        raise UserError(
            "the head on masked tokens has a table of its own (`tie_word_embeddings: false`), and is not converted to "
            "narrow tables or shared layers",
            hint="fewer layers (`distill`) or 8-bit weights (`quantize`) make it smaller",
        )
    types = max(2, num_types(facts))
    shape = replace(facts.shape, max_positions=own_limit(facts.shape, facts.config), **sizes)
    config = facts.config | {"model_type": family, "type_vocab_size": types}
    return replace(facts, anatomy=FAMILIES[family], shape=shape, config=config)


def is_untied(facts: CheckpointInfo) -> bool:
    """Whether the head on masked tokens has a table of its own."""
    return TASKS[facts.task].has_masked_head and facts.config.get("tie_word_embeddings") is False


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
        is_pooler: whether it is the base model's own last layer, which a sentence vector does not need.
        is_tied: of a table: whether the head multiplies with it, too.
    """

    role: Literal["table", "dense", "other"]
    shape: tuple[int, int]
    number: int = 1
    uses: float = 1.0
    is_head: bool = False
    is_pooler: bool = False
    is_tied: bool = False


def stored(facts: CheckpointInfo) -> list[Stored]:
    """What the stock model that the facts describe stores, its head included; a tied table once."""
    shape, names = facts.shape, facts.anatomy.embedding
    width, hidden, inner, groups = shape.embedding_size, shape.hidden_size, shape.intermediate_size, shape.num_groups
    tensors = [
        Stored("table", (shape.vocab_size, width), is_tied=TASKS[facts.task].has_masked_head and not is_untied(facts)),
        Stored("table", (shape.max_positions, width)),
    ]
    tensors += [Stored("table", (num_types(facts), width))] if num_types(facts) else []
    tensors += [Stored("other", (width, 1), 2)]
    if names.projection is not None and (names.always_projects or width != hidden):
        tensors += [Stored("dense", (width, hidden)), Stored("other", (hidden, 1))]
    uses = shape.num_layers / groups
    tensors += [
        Stored("dense", (hidden, hidden), 4 * groups, uses),
        Stored("dense", (hidden, inner), groups, uses),
        Stored("dense", (inner, hidden), groups, uses),
        Stored("other", (hidden, 1), 9 * groups),
        Stored("other", (inner, 1), groups),
    ]
    return tensors + _head(facts) + _behind_pooling(facts)


def _head(facts: CheckpointInfo) -> list[Stored]:
    shape = facts.shape
    width, hidden, num_labels = shape.embedding_size, shape.hidden_size, max(1, len(facts.labels))

    def layer(inputs: int, outputs: int, *, is_pooler: bool = False) -> list[Stored]:
        return [
            Stored("dense", (inputs, outputs), is_head=True, is_pooler=is_pooler),
            Stored("other", (outputs, 1), is_head=True, is_pooler=is_pooler),
        ]

    match TASKS[facts.task].auto_class:
        case "AutoModelForMaskedLM":
            inner = width if facts.anatomy.embedding.projection is not None else hidden
            norms = [Stored("other", (inner, 1), 2, is_head=True), Stored("other", (shape.vocab_size, 1), is_head=True)]
            own = layer(inner, shape.vocab_size) if is_untied(facts) else []
            return layer(hidden, inner) + norms + own
        case "AutoModelForTokenClassification":
            return layer(hidden, num_labels)
        case "AutoModelForQuestionAnswering":
            return layer(hidden, 2)
        case "AutoModel":
            return layer(hidden, hidden, is_pooler=True) if facts.anatomy.pooler is not None else []
    return layer(hidden, hidden) + layer(hidden, num_labels)


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
