"""All that is said of a model's heads, measured in one go: maps, classes, importance, disabling, curves."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING

from bertshrink.errors import UserError
from bertshrink.meters.attention.disabling import Judge, disable_each
from bertshrink.meters.attention.head_classes import MARGIN, THRESHOLD, role_of
from bertshrink.meters.attention.head_hooks import Heads
from bertshrink.meters.attention.head_importance import importance
from bertshrink.meters.attention.maps import MAP_LENGTH, as_bytes, see_heads
from bertshrink.meters.attention.removal_curves import curves, orders_of
from bertshrink.model.tasks import TASKS
from bertshrink.report.attention import SCHEMA, AttentionReport, HeadFacts, LayerFacts
from bertshrink.version import __version__

if TYPE_CHECKING:
    from bertshrink.data.texts import TextDataset
    from bertshrink.model.encoder import Encoder
    from bertshrink.progress import Progress

MAP_TEXTS = 256
JUDGED_TEXTS = 1000
EXAMPLES = 3
_EXAMPLE_HEADS = 800
"""Maps of examples that a page has room for, of 24 tokens each: 460 kB."""


def inspect_heads(
    encoder: Encoder,
    texts: TextDataset,
    progress: Progress,
    *,
    max_length: int | None = None,
    seed: int = 0,
    base: Encoder | None = None,
    notes: tuple[str, ...] = (),
) -> AttentionReport:
    """Look at all heads of an encoder, and disable them.

    Args:
        encoder: in memory; it is as before afterwards.
        texts: as the task reads them; the side that judges tells what is lost, the training split what matters.
        max_length: cap on tokens per text; None: the model's own.
        base: what the encoder was fine-tuned from.
        notes: what is to be said besides.

    Raises:
        UserError: heads that cannot be told apart, labels that are not the model's, another kind of base model.
        CheckFailed: outputs that are not finite.
    """
    from bertshrink.meters.quality.evaluators import prepare

    began = time.monotonic()
    heads = Heads.of(encoder)
    if base is not None:
        _refuse_other_base(encoder, base)
    exam = prepare(encoder, texts, max_length, seed)
    judge = Judge.of(exam, encoder, heads)
    looked = texts.judged.first(MAP_TEXTS)
    are_pairs = looked.pairs is not None and not TASKS[encoder.task].is_vector
    limit = min(max_length or encoder.max_length, MAP_LENGTH)
    rows = encoder.tokenize(looked.texts, looked.pairs if are_pairs else None, limit)
    if base is not None and base.tokenize(looked.texts, looked.pairs if are_pairs else None, limit) != rows:
        raise UserError(
            f"`{base.source}` reads other tokens than `{encoder.source}`: their maps cannot be compared",
            where="--base",
            hint="give the model that it was fine-tuned from, or leave `--base` out",
        )
    number = heads.num_layers * heads.num_heads
    seen = see_heads(
        encoder,
        rows,
        progress,
        are_pairs=are_pairs,
        num_examples=max(1, min(EXAMPLES, _EXAMPLE_HEADS // number)),
        base=base,
    )
    weights, source = importance(encoder, heads, texts.train, max_length, seed, texts.name, progress)
    scores = [seen.shares.get(f"{name}_score") for name in ("vertical", "diagonal", "block")]
    roles = [role_of(*(float(one[at]) if one is not None else 0.0 for one in scores)) for at in _places(heads)]
    effects = disable_each(judge, progress)
    lines = curves(judge, orders_of(weights, roles, seed), progress)
    facts = [
        HeadFacts(
            layer=at[0],
            head=at[1],
            role=role,
            **{name: float(values[at]) for name, values in seen.shares.items()},
            **({} if "segment" in seen.shares else {"segment": None, "block_score": None}),
            variation=float(seen.variation_NA[at]),
            importance=float(weights[at]),
            base_cosine=float(seen.cosine_NA[at]) if seen.cosine_NA is not None else None,
            mean_map=as_bytes(seen.mean_NAGG[at]),
            examples=[as_bytes(example[at]) for example in seen.examples],
            effects=effects.heads[at[0]][at[1]],
        )
        for at, role in zip(_places(heads), roles, strict=True)
    ]
    layers = [
        LayerFacts(
            layer=layer,
            base_cosine=float(seen.cosine_NA[layer].mean()) if seen.cosine_NA is not None else None,
            effects=effects.layers[layer],
        )
        for layer in range(heads.num_layers)
    ]
    return AttentionReport(
        schema=SCHEMA,
        bertshrink=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=encoder.source,
        family=encoder.anatomy.title,
        task=encoder.task,
        data=texts.name,
        split=texts.judged_name,
        num_map_texts=len(rows),
        map_length=limit,
        num_judged=len(exam.split),
        metric=judge.before.metric,
        is_labelled=judge.is_labelled,
        undisturbed=judge.before.value,
        importance_from=source,
        thresholds={"threshold": THRESHOLD, "margin": MARGIN},
        base=base.source if base is not None else None,
        examples=seen.tokens,
        heads=facts,
        layers=layers,
        curves=lines,
        notes=list(notes),
        seconds=time.monotonic() - began,
    )


def _places(heads: Heads) -> list[tuple[int, int]]:
    return [(layer, head) for layer in range(heads.num_layers) for head in range(heads.num_heads)]


def _refuse_other_base(encoder: Encoder, base: Encoder) -> None:
    """Raises UserError: the base has other layers or heads."""
    mine, other = encoder.shape, base.shape
    if (mine.num_layers, mine.num_heads) != (other.num_layers, other.num_heads):
        raise UserError(
            f"`{base.source}` has {other.num_layers} layers of {other.num_heads} heads, and `{encoder.source}` "
            f"{mine.num_layers} of {mine.num_heads}",
            where="--base",
            hint="give the model that it was fine-tuned from, or leave `--base` out",
        )
