"""How many numbers a stock encoder holds, from its sizes alone: what a conversion buys is told before it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bertshrink import units
from bertshrink.model.anatomy import FAMILIES, Shape
from bertshrink.model.facts import Facts, own_limit
from bertshrink.model.task import TASKS

if TYPE_CHECKING:
    from bertshrink.model.encoder import Encoder

BYTES = 4
"""Of a parameter: encoders are stored in float32."""


def target_family(family: str, task: str) -> str:
    """The family of the stock model that an encoder with narrow tables becomes (see `parts`)."""
    is_sequence = TASKS[task].auto_class == "AutoModelForSequenceClassification"
    return "electra" if family in ("distilbert", "electra") and is_sequence else "albert"


def converted(facts: Facts, family: str, **sizes: int) -> Facts:
    """The facts of an encoder after its conversion to another family, as `parts.put_together` makes it."""
    types = max(2, num_types(facts))
    shape = replace(facts.shape, max_positions=own_limit(facts.shape, facts.config), **sizes)
    config = facts.config | {"model_type": family, "type_vocab_size": types}
    return replace(facts, anatomy=FAMILIES[family], shape=shape, config=config)


def num_types(facts: Facts) -> int:
    """Rows of the table of token types; 0 where the family has none."""
    return 0 if facts.anatomy.family == "distilbert" else int(facts.config.get("type_vocab_size", 2))


def num_parameters(facts: Facts) -> int:
    """Parameters of the stock model that the facts describe, its head included."""
    shape, family, task = facts.shape, facts.anatomy.family, facts.task
    width, hidden = shape.embedding_size, shape.hidden_size
    number = (shape.vocab_size + shape.max_positions + num_types(facts)) * width + 2 * width
    if family == "albert" or (family == "electra" and width != hidden):
        number += width * hidden + hidden
    number += shape.num_groups * _layer(shape)
    square, num_labels = hidden * hidden + hidden, max(1, len(facts.labels))
    match TASKS[task].auto_class:
        case "AutoModelForMaskedLM":
            inner = width if family in ("albert", "electra") else hidden
            number += hidden * inner + 3 * inner + shape.vocab_size
        case "AutoModelForTokenClassification":
            number += num_labels * (hidden + 1)
        case "AutoModelForQuestionAnswering":
            number += 2 * (hidden + 1)
        case "AutoModel":
            number += square if family not in ("distilbert", "electra") else 0
        case _:
            number += square + num_labels * (hidden + 1)
    return number


def _layer(shape: Shape) -> int:
    hidden, inner = shape.hidden_size, shape.intermediate_size
    return 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden


def facts_of(encoder: Encoder) -> Facts:
    """What a folder would say of an encoder that is in memory."""
    config = encoder.model.config.to_dict()
    return Facts(Path(), encoder.anatomy, encoder.shape, config, encoder.task, encoder.labels)


def what_it_buys(before: Facts, after: Facts) -> str:
    """Parameters, bytes and operations before and after, as a sentence."""
    given, found = num_parameters(before), num_parameters(after)
    ops = [units.format(facts.shape.flops_per_token() / 1e6, "count") for facts in (before, after)]
    return (
        f"{units.format(given, 'count')} parameters ({units.format(BYTES * given, 'B')}) become "
        f"{units.format(found, 'count')} ({units.format(BYTES * found, 'B')}); {ops[0]} MFLOP a token before and "
        f"{ops[1]} after: memory is saved, not time"
    )
