"""Where embeddings, attention, feed-forward and head live in each family: a table, one row per family.

Everything here is told by `config.json` and by names of parameters, so a plan can be proven and a model inspected
without loading a weight. Adding a family is adding a row: no file outside this folder names one.

    added_positions.py   BERT, RoBERTa and their kin, whose positions are added to the words
    distances.py         MPNet and DeBERTa, whose attention knows distances
    rotary.py            ModernBERT, GTE, NomicBERT, Jina and EuroBERT
    seldom_met.py        norms in front of layers, layers made of others

A layer-shared family (ALBERT) has L layers but only G groups of weights; stock ALBERT gives layer i (from 0) the group
int(i / (L / G)). `shared_group` is that expression, to the letter: other roundings differ when G does not divide L.
"""

from __future__ import annotations

from typing import Literal

from bertshrink.errors import UserError
from bertshrink.model.families.added_positions import (
    ALBERT,
    BERT,
    CAMEMBERT,
    DISTILBERT,
    ELECTRA,
    ERNIE,
    ROBERTA,
    XLM_ROBERTA,
)
from bertshrink.model.families.distances import DEBERTA_V2, MPNET
from bertshrink.model.families.rotary import EUROBERT, GTE, JINA_V3, MODERNBERT, NOMIC
from bertshrink.model.families.seldom_met import CONVBERT, MEGATRON, MOBILEBERT, REMBERT, SQUEEZEBERT, XLM_ROBERTA_XL
from bertshrink.model.family import ModelFamily, NameBytes

FAMILIES: dict[str, ModelFamily] = {
    row.family: row
    for row in (
        BERT,
        ROBERTA,
        XLM_ROBERTA,
        DISTILBERT,
        ALBERT,
        ELECTRA,
        CAMEMBERT,
        MPNET,
        DEBERTA_V2,
        MODERNBERT,
        NOMIC,
        GTE,
        JINA_V3,
        EUROBERT,
        ERNIE,
        MEGATRON,
        XLM_ROBERTA_XL,
        REMBERT,
        MOBILEBERT,
        SQUEEZEBERT,
        CONVBERT,
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
    return FAMILIES.get(family, BERT).file_bytes


def shared_group(layer: int, num_layers: int, num_groups: int) -> int:
    """The group of weights that stock ALBERT uses for `layer` (from 0): int(i / (L / G))."""
    return int(layer / (num_layers / num_groups))
